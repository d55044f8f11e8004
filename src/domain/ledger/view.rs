//! What may be seen of a ledger.
//!
//! Owns: turning the sets into numbers. Never: shows anything uncommitted. Invariant: the five numbers of a progress always sum to its
//! total, since `pending` is what the other four leave.

use super::{Ledger, TaskState, TaskStatus};
use crate::domain::ids::{Attempt, TaskNo, UnixMs};
use crate::domain::job::{Fence, JobRecord};
use crate::domain::progress::{Progress, StageProgress, fraction};
use crate::domain::rows::Verdict;
use roaring::RoaringBitmap;

impl Ledger {
    pub fn record(&self) -> &JobRecord {
        &self.record
    }

    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// Grows with everything that a reader or a snapshot would see differently.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Is something waiting for the store, or for its turn?
    pub fn is_settled(&self) -> bool {
        self.in_flight.is_none() && self.inbox.is_empty() && self.storing.is_none() && self.chunks.is_empty()
    }

    /// Tasks whose outcome is committed.
    pub fn decided(&self) -> u32 {
        self.tasks.decided_count()
    }

    pub fn undecided_count(&self) -> u32 {
        self.tasks.total - self.tasks.decided_count()
    }

    pub fn leased(&self) -> u32 {
        self.leases.len()
    }

    /// Complete progress at `now`.
    pub fn progress(&mut self, now: UnixMs) -> Progress {
        let total = self.tasks.total;
        let (succeeded, failed) = (self.tasks.succeeded_count(), self.tasks.failed_count());
        let decided = succeeded + failed;
        // A task whose failure a late success may yet correct can be decided and leased at once only if a rule is broken.
        let leased = self.leases.len();
        let retrying = self.tasks.retrying.len() as u32;
        let rate_per_s = if self.record.state.is_active() {
            self.throughput.per_s(now)
        } else {
            None
        }
        .map(|rate| round(rate, 1000.0));
        let left = total - decided;
        let stages = self
            .record
            .stages
            .iter()
            .enumerate()
            .map(|(place, stage)| StageProgress {
                key: stage.key.clone(),
                name: stage.name.clone(),
                reached: self.reached(place),
                total,
                fraction: self.stage_fraction(place),
            });
        Progress {
            seq: self.committed,
            total,
            pending: total - decided - leased - retrying,
            leased,
            retrying,
            succeeded,
            failed,
            fraction: self.fraction(),
            rate_per_s,
            eta_s: rate_per_s
                .filter(|rate| *rate > 0.0)
                .map(|rate| round(f64::from(left) / rate, 10.0)),
            counters: self.tasks.counters.clone(),
            stages: stages.collect(),
        }
    }

    /// The decided share, never below what was shown before in this run.
    pub(super) fn fraction(&self) -> Option<f64> {
        let (open, expected) = (self.record.open, self.record.expected_total);
        fraction(self.tasks.decided_count(), self.tasks.total, open, expected).map(|now| now.max(self.fraction_floor))
    }

    /// Tasks that have come to the stage at this place. Success implies every mark.
    pub(super) fn reached(&self, place: usize) -> u32 {
        let marked = self.tasks.succeeded_count() + self.tasks.marks.count(place);
        marked.max(self.record.tally.reached.get(place).copied().unwrap_or(0))
    }

    pub(super) fn stage_fraction(&self, place: usize) -> Option<f64> {
        let (open, expected) = (self.record.open, self.record.expected_total);
        let floor = self.stage_floors.get(place).copied().unwrap_or(0.0);
        fraction(self.reached(place), self.tasks.total, open, expected).map(|now| now.max(floor))
    }

    /// Where a task is; none if there is no such task.
    pub fn task(&self, task: TaskNo) -> Option<TaskStatus> {
        if task.0 >= self.tasks.total {
            return None;
        }
        let spent = Attempt(self.tasks.spent(task).attempts);
        let idle = |state| TaskStatus {
            state,
            attempt: (state != TaskState::Succeeded).then_some(spent),
            worker: None,
            expires_at: None,
        };
        let status = match self.tasks.verdict(task) {
            Some(Verdict::Succeeded) => idle(TaskState::Succeeded),
            Some(Verdict::Failed) => idle(TaskState::Failed),
            None => match self.leases.get(task) {
                Some(held) => TaskStatus {
                    state: TaskState::Leased,
                    attempt: Some(held.attempt),
                    worker: Some(held.worker.clone()),
                    expires_at: Some(self.leases.ends(held)),
                },
                None if self.tasks.retrying.contains(task.0) => idle(TaskState::Retrying),
                None => idle(TaskState::Pending),
            },
        };
        Some(status)
    }

    /// Tasks above `after` that are in the given state (or in any), in order of their numbers, at most so many.
    pub fn tasks_in(&self, state: Option<TaskState>, after: Option<TaskNo>, most: usize) -> Vec<(TaskNo, TaskStatus)> {
        let first = after.map_or(0, |task| task.0.saturating_add(1));
        let status = |task: u32| self.task(TaskNo(task)).map(|status| (TaskNo(task), status));
        let members = |set: &RoaringBitmap| set.range(first..).filter_map(status).take(most).collect();
        match state {
            None => (first..self.tasks.total).filter_map(status).take(most).collect(),
            Some(TaskState::Pending) => members(&self.tasks.ready),
            Some(TaskState::Retrying) => members(&self.tasks.retrying),
            Some(TaskState::Succeeded) => members(&self.tasks.succeeded),
            Some(TaskState::Failed) => members(&self.tasks.failed),
            Some(TaskState::Leased) => {
                let mut leased: Vec<u32> = self.leases.iter().map(|(task, _)| task.0).collect();
                leased.retain(|&task| task >= first);
                leased.sort_unstable();
                leased.into_iter().filter_map(status).take(most).collect()
            }
        }
    }
}

fn round(value: f64, scale: f64) -> f64 {
    (value * scale).round() / scale
}
