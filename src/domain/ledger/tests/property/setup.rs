//! The jobs that histories begin with.
//!
//! Owns: the strategy that draws them, and the record it makes. Never: draws a job that could not have been created. Invariant: a sealed job
//! without tasks is not running.

use super::super::*;
use super::STAGES;
use proptest::prelude::*;

#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) total: u32,
    pub(super) open: bool,
    pub(super) expected_total: Option<u32>,
    pub(super) state: State,
    pub(super) start_in: Option<i64>,
    pub(super) max_attempts: u32,
    pub(super) backoff_s: f64,
    pub(super) threshold: FailureThreshold,
    pub(super) abort_early: bool,
    pub(super) max_in_flight: Option<u32>,
    pub(super) bounds: Bounds,
}

pub(super) fn setup() -> impl Strategy<Value = Setup> {
    let threshold = prop_oneof![
        (0u32..4).prop_map(FailureThreshold::Count),
        prop_oneof![Just(0.0), Just(0.5), Just(1.0)].prop_map(FailureThreshold::Ratio)
    ];
    let shape = (
        0u32..9,
        any::<bool>(),
        prop::option::of(0u32..20),
        any::<bool>(),
        prop::option::of(0i64..90_000),
    );
    let policy = (
        1u32..4,
        prop_oneof![Just(0.0), Just(1.0)],
        threshold,
        any::<bool>(),
        prop::option::of(1u32..5),
    );
    let bounds = (
        1u32..8,
        prop_oneof![Just(1usize), Just(3), Just(20_000)],
        prop::bool::weighted(0.9),
    );
    (shape, policy, bounds).prop_map(|(shape, policy, bounds)| {
        let (total, open, expected_total, running, start_in) = shape;
        let (max_attempts, backoff_s, threshold, abort_early, max_in_flight) = policy;
        Setup {
            total,
            open,
            expected_total,
            // A sealed job without tasks is created final when it starts at once.
            state: if running && (open || total > 0) {
                State::Running
            } else {
                State::Pending
            },
            start_in,
            max_attempts,
            backoff_s,
            threshold,
            abort_early,
            max_in_flight,
            bounds: Bounds {
                worker_in_flight: bounds.0,
                batch_items: bounds.1,
                restores_leases: bounds.2,
                ..Bounds::default()
            },
        }
    })
}

impl Setup {
    pub(super) fn bench(&self) -> Bench {
        Bench::bounded(self.total, self.bounds, |record| {
            record.stages = (0..STAGES).map(|place| stage(&format!("s{place}"))).collect();
            record.open = self.open;
            record.expected_total = self.expected_total;
            record.state = self.state;
            record.start_at = self
                .start_in
                .filter(|_| self.state == State::Pending)
                .map(|ms| START.plus_ms(ms));
            record.started_at = (self.state == State::Running).then_some(START);
            record.policy.max_attempts = self.max_attempts;
            record.policy.backoff.initial_s = self.backoff_s;
            record.policy.failure_threshold = self.threshold;
            record.policy.abort_early = self.abort_early;
            record.policy.max_in_flight = self.max_in_flight;
        })
    }
}
