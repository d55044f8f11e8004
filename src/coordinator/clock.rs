//! The store's time, kept up between calls by a monotonic clock.
//!
//! Owns: the anchor. Never: reads the machine's wall clock. Invariant: `now` never runs backwards.

use crate::domain::ids::UnixMs;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

/// A clock anchored to the store's.
#[derive(Debug)]
pub(super) struct Clock {
    origin: Instant,
    /// The store's time at `origin`.
    offset_ms: AtomicI64,
    latest_ms: AtomicI64,
}

impl Clock {
    pub(super) fn anchored(store_now: UnixMs) -> Clock {
        Clock {
            origin: Instant::now(),
            offset_ms: AtomicI64::new(store_now.0),
            latest_ms: AtomicI64::new(store_now.0),
        }
    }

    /// Corrects the anchor by a fresh reading.
    pub(super) fn anchor(&self, store_now: UnixMs) {
        self.offset_ms.store(store_now.0 - self.elapsed_ms(), Ordering::Relaxed);
    }

    /// By how many milliseconds a fresh reading is ahead of what this clock says; negative if it is behind.
    pub(super) fn is_behind(&self, store_now: UnixMs) -> i64 {
        store_now.0 - (self.offset_ms.load(Ordering::Relaxed) + self.elapsed_ms())
    }

    pub(super) fn now(&self) -> UnixMs {
        let reading = self.offset_ms.load(Ordering::Relaxed) + self.elapsed_ms();
        UnixMs(self.latest_ms.fetch_max(reading, Ordering::Relaxed).max(reading))
    }

    fn elapsed_ms(&self) -> i64 {
        self.origin.elapsed().as_millis() as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_anchor_in_the_past_does_not_turn_time_back() {
        let clock = Clock::anchored(UnixMs(1_000_000));
        let before = clock.now();
        clock.anchor(UnixMs(5));
        assert!(clock.now() >= before);
        assert!(clock.is_behind(UnixMs(5)) <= 0);
        assert!((900_000..=1_000_000).contains(&clock.is_behind(UnixMs(1_000_005))));
        clock.anchor(UnixMs(2_000_000));
        assert!(clock.now() >= UnixMs(2_000_000));
    }
}
