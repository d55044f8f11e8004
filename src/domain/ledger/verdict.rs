//! How a job ends, and what moves by itself when its time has come.
//!
//! Owns: the verdict, the cancel deadline, the timed start. Never: ends a job while a chunk of tasks is being stored. Invariant: a verdict
//! counts committed facts plus the batch it travels in, and only once the last task is decided (`abort_early` and cancel aside).

use super::Ledger;
use super::batch::{Entry, InFlight};
use crate::domain::counted::counted;
use crate::domain::ids::{TaskNo, UnixMs};
use crate::domain::job::{JobError, Tally};
use crate::domain::policy::Policy;
use crate::domain::rows::{JobUpdate, Verdict};
use crate::domain::state::{ALL, State, may_move};

static STATES: [State; 8] = ALL;

/// The one-element list of a state, for guards that must find the row exactly where the ledger believes it to be.
fn only(state: State) -> &'static [State] {
    let at = STATES
        .iter()
        .position(|&other| other == state)
        .expect("every state is in the list of all states");
    std::slice::from_ref(&STATES[at])
}

impl Ledger {
    /// The job's row as it stands, guarded by where it stands.
    pub(super) fn draft(&mut self, now: UnixMs) -> JobUpdate {
        JobUpdate {
            from: only(self.record.state),
            from_run: self.record.run,
            state: self.record.state,
            run: self.record.run,
            base_run: self.record.base_run,
            priority: self.record.priority,
            policy: self.record.policy.clone(),
            open: self.record.open,
            tally: self.tally_after(&InFlight::default()),
            error: self.record.error.clone(),
            start_at: self.record.start_at,
            cancel_at: self.record.cancel_at,
            started_at: self.record.started_at,
            finished_at: self.record.finished_at,
            updated_at: now,
            changed_seq: self.next_seq(),
            promote_late: false,
            event: None,
        }
    }

    /// Counts as they will be once the batch is committed.
    pub(super) fn tally_after(&self, batch: &InFlight) -> Tally {
        let mut tally = Tally {
            total: self.tasks.total,
            succeeded: self.tasks.succeeded_count(),
            failed: self.tasks.failed_count(),
            counters: self.tasks.counters.clone(),
            reached: self.reached_after(batch),
        };
        for (&task, entry) in &batch.entries {
            match (self.tasks.verdict(task), entry.decided) {
                (Some(Verdict::Succeeded), _) | (_, None) | (Some(Verdict::Failed), Some(Verdict::Failed)) => {}
                (None, Some(Verdict::Failed)) => tally.failed += 1,
                (before, Some(Verdict::Succeeded)) => {
                    tally.succeeded += 1;
                    tally.failed -= u32::from(before.is_some());
                    for (name, value) in &entry.counters {
                        super::tasks::add(&mut tally.counters, name, *value);
                    }
                }
            }
        }
        tally
    }

    /// Tasks at each stage once the batch is committed; empty if the job has no stages.
    fn reached_after(&self, batch: &InFlight) -> Vec<u32> {
        let succeeds = |(task, entry): &(&TaskNo, &Entry)| {
            entry.decided == Some(Verdict::Succeeded) && self.tasks.verdict(**task) != Some(Verdict::Succeeded)
        };
        let places = 0..self.record.stages.len();
        let after = |place| {
            let new = batch.entries.iter().filter(succeeds);
            let new = new
                .filter(|(task, _)| !self.tasks.marks.has_reached(**task, place))
                .count() as u32;
            let marked = self.tasks.succeeded_count() + self.tasks.marks.count(place) + new;
            marked.max(self.record.tally.reached.get(place).copied().unwrap_or(0))
        };
        places.map(after).collect()
    }

    /// Adds to the batch what is due by itself: a timed start, the end of the job.
    pub(super) fn end_if_due(&mut self, batch: &mut InFlight, now: UnixMs) {
        if self.storing.is_some() {
            return;
        }
        let (state, open, run) = match &batch.update {
            Some(update) => (update.state, update.open, update.run),
            None => (self.record.state, self.record.open, self.record.run),
        };
        if run != self.record.run || state.is_final() {
            return;
        }
        if state == State::Pending {
            if self.may_start_by_itself() && self.record.start_at.is_some_and(|at| at <= now) {
                let mut update = batch.update.take().unwrap_or_else(|| self.draft(now));
                self.start(&mut update, now);
                batch.update = Some(update);
            }
            return;
        }
        let Some((ending, error)) = self.ending(state, open, batch, now) else {
            return;
        };
        let mut update = batch.update.take().unwrap_or_else(|| self.draft(now));
        update.tally = self.tally_after(batch);
        self.finish(&mut update, ending, error, now);
        batch.update = Some(update);
    }

    /// The final state that is due once the batch is committed, if one is.
    fn ending(&self, state: State, open: bool, batch: &InFlight, now: UnixMs) -> Option<(State, Option<JobError>)> {
        let decided = self.tasks.decided_count() + batch.newly_decided;
        if !open && decided == self.tasks.total {
            return Some(self.verdict(self.policy_after(batch), &self.tally_after(batch)));
        }
        if self.is_doomed(state, open, batch) {
            return Some((State::Failed, Some(threshold_exceeded(&self.tally_after(batch)))));
        }
        let given_back = self.leases.len() <= batch.ends_leases && !self.may_hold_unknown_leases();
        let overdue = self.record.cancel_at.is_some_and(|at| at <= now);
        if state == State::Canceling && (given_back || overdue) {
            return Some((State::Canceled, Some(canceled(self.tasks.total - decided))));
        }
        None
    }

    /// Is the threshold certain to be passed, and is that reason enough to stop? Not while a cancel is under way: it has precedence.
    fn is_doomed(&self, state: State, open: bool, batch: &InFlight) -> bool {
        let policy = self.policy_after(batch);
        if !policy.abort_early || open || state == State::Canceling {
            return false;
        }
        let mut failed = i64::from(self.tasks.failed_count());
        for (&task, entry) in &batch.entries {
            failed += match (self.tasks.verdict(task), entry.decided) {
                (None, Some(Verdict::Failed)) => 1,
                (Some(Verdict::Failed), Some(Verdict::Succeeded)) => -1,
                _ => 0,
            };
        }
        policy.is_failed(failed.max(0) as u64, u64::from(self.tasks.total))
    }

    /// The policy as it will be once the batch is committed: a change of it and what that means for the job go together.
    fn policy_after<'a>(&'a self, batch: &'a InFlight) -> &'a Policy {
        batch
            .update
            .as_ref()
            .map_or(&self.record.policy, |update| &update.policy)
    }

    /// The verdict on a job whose every task is decided.
    pub(super) fn verdict(&self, policy: &Policy, tally: &Tally) -> (State, Option<JobError>) {
        if policy.is_failed(u64::from(tally.failed), u64::from(tally.total)) {
            return (State::Failed, Some(threshold_exceeded(tally)));
        }
        match (tally.succeeded, tally.failed) {
            (_, 0) => (State::Succeeded, None),
            (0, failed) => {
                let message = format!("none of {} succeeded", counted(failed, "task"));
                (
                    State::Failed,
                    Some(JobError {
                        code: "nothing_succeeded".into(),
                        message,
                    }),
                )
            }
            _ => (State::PartiallySucceeded, None),
        }
    }

    /// Starts a pending job; one without tasks ends in the same stroke.
    pub(super) fn start(&self, update: &mut JobUpdate, now: UnixMs) {
        update.start_at = None;
        update.started_at = Some(now);
        update.state = State::Running;
        if !update.open && self.tasks.total == 0 {
            self.finish(update, State::Succeeded, None, now);
        }
    }

    pub(super) fn finish(&self, update: &mut JobUpdate, ending: State, error: Option<JobError>, now: UnixMs) {
        debug_assert!(
            may_move(self.record.state, ending),
            "{} may not become {ending}",
            self.record.state
        );
        update.state = ending;
        update.error = error;
        update.finished_at = Some(now);
        update.cancel_at = None;
        update.start_at = None;
    }
}

pub(super) fn canceled(undecided: u32) -> JobError {
    JobError {
        code: "canceled".into(),
        message: format!("canceled with {} undecided", counted(undecided, "task")),
    }
}

fn threshold_exceeded(tally: &Tally) -> JobError {
    let message = format!("{} of {} failed", tally.failed, counted(tally.total, "task"));
    JobError {
        code: "threshold_exceeded".into(),
        message,
    }
}
