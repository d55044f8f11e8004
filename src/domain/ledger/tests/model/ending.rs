//! When a naive job ends, and what else must not be left undone.
//!
//! Owns: the natural end, and what is overdue. Never: changes the job. Invariant: it looks at what is committed, and at leases.

use super::{Holding, Model};
use crate::domain::ids::UnixMs;
use crate::domain::rows::Verdict;
use crate::domain::state::State;

impl Model {
    /// The end that a job whose every task is decided must come to.
    pub(in super::super) fn natural_end(&self) -> State {
        let [_, _, _, succeeded, failed] = self.counts(UnixMs(i64::MAX));
        if self.is_past_threshold() {
            State::Failed
        } else if failed == 0 {
            State::Succeeded
        } else if succeeded == 0 {
            State::Failed
        } else {
            State::PartiallySucceeded
        }
    }

    pub(in super::super) fn is_past_threshold(&self) -> bool {
        let failed = self.numbers(|task| task.verdict == Some(Verdict::Failed));
        self.policy.is_failed(u64::from(failed), self.tasks.len() as u64)
    }

    pub(in super::super) fn undecided(&self) -> u32 {
        self.numbers(|task| task.verdict.is_none())
    }

    /// Something that should have happened by itself, were the store idle.
    pub(in super::super) fn overdue(&self, store_up: bool, now: UnixMs) -> Option<&'static str> {
        let active = self.state.is_active();
        let leases = self.holdings();
        let expired = |lease: &Holding| lease.expires_at <= now && !self.is_claimed(&lease.token);
        let given_back = !self.has_leases(now);
        let doomed = self.policy.abort_early && self.is_past_threshold() && self.state != State::Canceling;
        if active && !self.open && self.undecided() == 0 {
            Some("the verdict")
        } else if active && !self.open && doomed {
            Some("the early end")
        } else if self.state == State::Canceling && (given_back || self.cancel_at.is_some_and(|at| at <= now)) {
            Some("the end of a cancel")
        } else if self.state == State::Pending && self.start_at.is_some_and(|at| at <= now) {
            Some("the timed start")
        } else if store_up && leases.iter().any(expired) {
            Some("an expiry")
        } else {
            None
        }
    }
}
