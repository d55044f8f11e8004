//! How long this node may act on what it owns.
//!
//! Owns: the end of the lease, on a clock that also counts while the machine sleeps. Never: asks the store. Invariant: the term ends before
//! the lease does in the store: it is counted from before the renewal was sent, and a tenth is kept back.
//!
//! Reading a flag that a timer sets would not do: a process that was stopped goes on where it was, and answers before any timer has run.

use rustix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicI64, Ordering};

/// Milliseconds since the machine started, sleep included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BootMs(i64);

impl BootMs {
    pub(super) fn now() -> BootMs {
        let time = clock_gettime(ClockId::Boottime);
        BootMs(time.tv_sec * 1_000 + time.tv_nsec / 1_000_000)
    }
}

#[derive(Debug)]
pub(super) struct Term {
    /// None: nobody else can take what we own.
    length_ms: Option<i64>,
    until: AtomicI64,
}

impl Term {
    /// A term of a node whose store others share; it has not begun.
    pub(super) fn of_lease(lease_s: u32) -> Term {
        Term {
            length_ms: Some(i64::from(lease_s) * 900),
            until: AtomicI64::new(i64::MIN),
        }
    }

    pub(super) fn endless() -> Term {
        Term {
            length_ms: None,
            until: AtomicI64::new(i64::MAX),
        }
    }

    /// The lease was renewed by a request that was sent then.
    pub(super) fn renewed(&self, sent: BootMs) {
        if let Some(length) = self.length_ms {
            self.until.fetch_max(sent.0 + length, Ordering::Relaxed);
        }
    }

    pub(super) fn holds(&self) -> bool {
        self.length_ms.is_none() || BootMs::now().0 < self.until.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_counts_from_before_the_renewal_and_ends_before_the_lease() {
        let term = Term::of_lease(10);
        assert!(!term.holds(), "it begins with the first renewal");
        let now = BootMs::now();
        term.renewed(BootMs(now.0 - 9_000));
        assert!(!term.holds(), "a tenth is kept back");
        term.renewed(now);
        assert!(term.holds());
        term.renewed(BootMs(now.0 - 8_000));
        assert!(term.holds(), "an answer that comes late shortens nothing");
        assert!(Term::endless().holds());
    }
}
