//! Whether small commits are under way.
//!
//! Owns: how many group commits have begun and ended. Never: counts one twice. Invariant: a commit that overlaps the time since a mark is
//! seen, whether it has ended or not.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts group commits for whoever gives way to them.
#[derive(Debug, Default)]
pub(super) struct CommitTraffic {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// A moment, as the number of commits that had ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark(u64);

/// A commit that is under way until this is dropped.
pub(super) struct Passage<'a>(&'a CommitTraffic);

impl CommitTraffic {
    pub(super) fn enter(&self) -> Passage<'_> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Passage(self)
    }

    pub(super) fn mark(&self) -> Mark {
        Mark(self.ended.load(Ordering::Relaxed))
    }

    /// Was any commit under way at the mark or since?
    pub(super) fn since(&self, mark: Mark) -> bool {
        self.begun.load(Ordering::Relaxed) > mark.0
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_seen_that_was_under_way_at_the_mark_or_since_but_none_before() {
        let traffic = CommitTraffic::default();
        drop(traffic.enter());
        assert!(!traffic.since(traffic.mark()));

        let across = traffic.enter();
        let mark = traffic.mark();
        assert!(traffic.since(mark));
        drop(across);
        assert!(traffic.since(mark), "it has ended, but was under way at the mark");

        let mark = traffic.mark();
        assert!(!traffic.since(mark));
        drop(traffic.enter());
        assert!(traffic.since(mark), "it has come and gone");
    }
}
