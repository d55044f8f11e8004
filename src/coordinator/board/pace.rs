//! How often readers are fed.
//!
//! Owns: rates, and the node's budget of messages. Never: refuses a reader for it (the number of seats does that). Invariant: all readers
//! together ask for no more messages per second than the budget: beyond it everyone's interval grows by the same factor.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Messages per second, in thousandths; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u32);

impl Rate {
    pub const SLOWEST: Rate = Rate(100);

    /// From hertz, at least [`Rate::SLOWEST`] and at most `most_hz`. None for what is no number.
    pub fn clamped(hz: f64, most_hz: u32) -> Option<Rate> {
        let most = most_hz.saturating_mul(1_000).max(Rate::SLOWEST.0);
        let mhz = (hz * 1_000.0).clamp(f64::from(Rate::SLOWEST.0), f64::from(most));
        (!hz.is_nan()).then_some(Rate(mhz as u32))
    }

    pub(super) fn of_mhz(mhz: u32) -> Option<Rate> {
        (mhz > 0).then_some(Rate(mhz))
    }

    pub(super) fn mhz(self) -> u32 {
        self.0
    }
}

/// The node's budget of messages, and what its readers ask for.
pub(in crate::coordinator) struct Pace {
    budget_mhz: u64,
    demand_mhz: AtomicU64,
}

impl Pace {
    pub(super) fn new(frames_per_s: u32) -> Pace {
        Pace {
            budget_mhz: u64::from(frames_per_s.max(1)) * 1_000,
            demand_mhz: AtomicU64::new(0),
        }
    }

    /// Time between two messages at this rate, as long as all others ask for what they do now.
    pub(in crate::coordinator) fn interval(&self, rate: Rate) -> Duration {
        let alone = Duration::from_nanos(1_000_000_000_000 / u64::from(rate.0));
        let demand = self.demand_mhz.load(Ordering::Relaxed);
        if demand <= self.budget_mhz {
            return alone;
        }
        alone.mul_f64(demand as f64 / self.budget_mhz as f64)
    }
}

/// A place among the node's streams; given back on drop.
pub struct Seat {
    _permit: OwnedSemaphorePermit,
    pace: Arc<Pace>,
    rate: Rate,
    demand_mhz: AtomicU64,
}

impl Seat {
    pub(super) fn new(permit: OwnedSemaphorePermit, pace: Arc<Pace>, rate: Rate) -> Seat {
        let seat = Seat {
            _permit: permit,
            pace,
            rate,
            demand_mhz: AtomicU64::new(0),
        };
        seat.reads(1);
        metrics::gauge!("tallykeeper_streams").increment(1.0);
        seat
    }

    /// Notes how many jobs the stream shows: it asks for a message of each.
    pub fn reads(&self, jobs: usize) {
        let demand = u64::from(self.rate.0) * jobs.max(1) as u64;
        let before = self.demand_mhz.swap(demand, Ordering::Relaxed);
        self.pace.demand_mhz.fetch_add(demand, Ordering::Relaxed);
        self.pace.demand_mhz.fetch_sub(before, Ordering::Relaxed);
    }

    /// Time between two messages of one job, at present.
    pub fn interval(&self) -> Duration {
        self.pace.interval(self.rate)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let demand = self.demand_mhz.load(Ordering::Relaxed);
        self.pace.demand_mhz.fetch_sub(demand, Ordering::Relaxed);
        metrics::gauge!("tallykeeper_streams").decrement(1.0);
    }
}
