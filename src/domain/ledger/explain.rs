//! Why a job is not done, in words.
//!
//! Owns: what a job waits for, as far as the job itself knows. Never: changes anything. Invariant: a job that is not final waits for
//! something, and it is named.

use super::{Ledger, TaskState, TaskStatus};
use crate::domain::counted::{counted, verb};
use crate::domain::ids::{TaskNo, UnixMs};
use crate::domain::state::State;
use std::sync::Arc;

/// One reason, as a stable word and in words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    pub code: &'static str,
    pub message: String,
}

impl Hint {
    pub fn new(code: &'static str, message: impl Into<String>) -> Hint {
        Hint {
            code,
            message: message.into(),
        }
    }
}

/// A task that is not decided, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecided {
    pub task: TaskNo,
    pub status: TaskStatus,
    /// Attempts that it has used up.
    pub spent: u32,
    pub leased_at: Option<UnixMs>,
    /// When it may be handed out again.
    pub retry_at: Option<UnixMs>,
    /// Place of the last stage that it has come to.
    pub stage: Option<usize>,
    /// What its holder last said of it.
    pub note: Option<Arc<str>>,
}

impl Ledger {
    /// What the job waits for, the most telling first.
    pub fn waits_for(&self, now: UnixMs) -> Vec<Hint> {
        let record = &self.record;
        let (leased, retrying) = (self.leases.len(), self.tasks.retrying.len());
        let mut hints = Vec::new();
        let mut hint = |code, message: String| hints.push(Hint::new(code, message));
        match (record.state, record.start_at) {
            (state, _) if state.is_final() => {
                hint("ended", format!("the job has ended as {state}"));
                return hints;
            }
            (State::Pending, Some(at)) => hint("starts_later", starts_at(at, now)),
            (State::Pending, None) => hint("not_started", "the job has not been started".into()),
            (State::Paused, _) => hint(
                "paused",
                "the job is paused; no task is handed out until it is resumed".into(),
            ),
            (State::Canceling, _) => {
                let left = record.cancel_at.map_or(0, |at| seconds_to(at, now));
                hint(
                    "canceling",
                    format!(
                        "canceling: {} may report for {left} s more",
                        counted(leased, "leased task")
                    ),
                );
            }
            _ => {}
        }
        if leased > 0 {
            hint(
                "leased",
                format!("{} {} leased", counted(leased, "task"), verb(leased, "is", "are")),
            );
        }
        if let (State::Running, Some(limit)) = (record.state, record.policy.max_in_flight)
            && leased >= limit
        {
            hint(
                "max_in_flight",
                format!(
                    "max_in_flight is reached: no more than {} may be leased at once",
                    counted(limit, "task")
                ),
            );
        }
        if retrying > 0 {
            let next = self.tasks.next_due().map_or(0, |at| seconds_to(at, now));
            hint(
                "retrying",
                match retrying {
                    1 => format!("1 failed task waits for its next attempt, for {next} s"),
                    many => format!("{many} failed tasks wait for their next attempt, the first for {next} s"),
                },
            );
        }
        if record.state == State::Running && self.claimable() > 0 {
            hint(
                "claimable",
                format!(
                    "{} {} for a worker of queue {:?}",
                    counted(self.claimable(), "task"),
                    verb(self.claimable(), "waits", "wait"),
                    record.queue
                ),
            );
        }
        if record.open {
            hint(
                "open",
                "the job is open: more tasks may be appended until it is sealed".into(),
            );
        }
        if !self.is_settled() {
            hint("committing", "something is being written to the store".into());
        }
        hints
    }

    /// Undecided tasks, at most so many: leased ones first, then those that wait for their retry, then the rest.
    pub fn undecided(&self, most: usize) -> Vec<Undecided> {
        let mut found = Vec::new();
        for state in [TaskState::Leased, TaskState::Retrying, TaskState::Pending] {
            let page = self.tasks_in(Some(state), None, most - found.len());
            found.extend(page.into_iter().map(|(task, status)| self.about(task, status)));
        }
        found
    }

    fn about(&self, task: TaskNo, status: TaskStatus) -> Undecided {
        let (held, spent) = (self.leases.get(task), self.tasks.spent(task));
        Undecided {
            task,
            spent: spent.attempts,
            leased_at: held.map(|held| held.granted_at),
            retry_at: (status.state == TaskState::Retrying).then_some(spent.due),
            stage: self.tasks.marks.last(task),
            note: held.and_then(|held| held.note.clone()),
            status,
        }
    }

    /// Who holds how many tasks.
    pub fn holders(&self) -> Vec<(Arc<str>, u32)> {
        self.leases.holders()
    }
}

fn starts_at(at: UnixMs, now: UnixMs) -> String {
    let left = seconds_to(at, now);
    match at.to_rfc3339() {
        Some(moment) => format!("starts at {moment}, in {left} s"),
        None => format!("starts in {left} s"),
    }
}

/// Whole seconds until then, rounded up; 0 if it has passed.
fn seconds_to(at: UnixMs, now: UnixMs) -> i64 {
    ((at.0 - now.0).max(0) + 999) / 1000
}
