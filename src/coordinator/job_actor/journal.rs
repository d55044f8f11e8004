//! What the coordinator itself writes into a job's log: how the job moved, and which tasks failed for good.
//!
//! Owns: the words. Never: decides anything, or waits. Invariant: only what is committed is written, and of failures only the first so many
//! of a run, so that a job of failures does not bury its log.

use super::JobActor;
use crate::domain::counted::counted;
use crate::domain::ids::{Run, TaskNo, UnixMs};
use crate::domain::job::JobRecord;
use crate::domain::logs::{Entry, Level};
use crate::domain::policy::FailureThreshold;
use crate::domain::rows::{JobBatch, Verdict};
use crate::domain::state::State;
use std::sync::Arc;

/// Failures written per run, as long as the job stays in memory.
const FAILURES_PER_RUN: u32 = 1_000;
const MAX_ERROR_CHARS: usize = 512;

/// A task that fails for good with the batch in flight.
pub(super) struct Failing {
    task: TaskNo,
    worker: Arc<str>,
    message: String,
}

/// What was written so far.
#[derive(Default)]
pub(super) struct Journal {
    in_flight: Vec<Failing>,
    run: Run,
    failures: u32,
}

/// Where a job stood.
pub(super) struct Standing {
    state: State,
    run: Run,
    open: bool,
    priority: i32,
    threshold: FailureThreshold,
}

impl Standing {
    pub(super) fn of(record: &JobRecord) -> Standing {
        Standing {
            state: record.state,
            run: record.run,
            open: record.open,
            priority: record.priority,
            threshold: record.policy.failure_threshold,
        }
    }
}

impl Journal {
    /// Notes what a batch will make final, until its fate is known.
    pub(super) fn sent(&mut self, batch: &JobBatch) {
        let failed = batch.outcomes.iter().filter(|row| row.verdict == Verdict::Failed);
        let room = FAILURES_PER_RUN.saturating_sub(self.failures) as usize + 1;
        self.in_flight = failed
            .take(room)
            .map(|row| Failing {
                task: row.task,
                worker: row.worker.clone(),
                message: format!(
                    "task {} failed for good at attempt {}: {}",
                    row.task,
                    row.attempt,
                    cut(row.error.as_deref().unwrap_or("no error was given"))
                ),
            })
            .collect();
    }

    pub(super) fn take(&mut self) -> Vec<Failing> {
        std::mem::take(&mut self.in_flight)
    }
}

impl JobActor {
    /// Writes what a settled batch has made so.
    pub(super) fn write_journal(&mut self, failed: Vec<Failing>, refused: &[TaskNo], before: &Standing, now: UnixMs) {
        let Some(ledger) = self.ledger.as_ref() else { return };
        let record = ledger.record();
        if self.journal.run != before.run {
            (self.journal.run, self.journal.failures) = (before.run, 0);
        }
        let mut entries = Vec::new();
        for failing in failed {
            if refused.contains(&failing.task) || self.journal.failures > FAILURES_PER_RUN {
                continue;
            }
            self.journal.failures += 1;
            if self.journal.failures > FAILURES_PER_RUN {
                let words = "more tasks failed for good; only the first are written here".to_owned();
                entries.push(Entry::own(self.job, now, Level::Warn, words));
                break;
            }
            entries.push(Entry {
                worker: Some(failing.worker.to_string()),
                task: Some(failing.task),
                ..Entry::own(self.job, now, Level::Error, failing.message)
            });
        }
        let undecided = ledger.undecided_count();
        entries.extend(moves(before, record, undecided).map(|(level, words)| Entry::own(self.job, now, level, words)));
        self.shared.log_book.note(entries);
    }
}

fn cut(text: &str) -> String {
    let mut chars = text.chars();
    let mut kept: String = chars.by_ref().take(MAX_ERROR_CHARS).collect();
    if chars.next().is_some() {
        kept.push('…');
    }
    kept
}

/// How the job moved, in words.
fn moves(before: &Standing, now: &JobRecord, undecided: u32) -> impl Iterator<Item = (Level, String)> {
    let mut words = Vec::new();
    if now.priority != before.priority {
        words.push((
            Level::Info,
            format!("priority changed from {} to {}", before.priority, now.priority),
        ));
    }
    if now.policy.failure_threshold != before.threshold {
        words.push((Level::Info, "failure threshold changed".to_owned()));
    }
    if before.open && !now.open {
        words.push((Level::Info, format!("sealed with {}", counted(now.tally.total, "task"))));
    }
    if now.run != before.run {
        words.push((Level::Info, format!("retried: run {} started", now.run)));
    } else if now.state != before.state {
        words.push(match (before.state, now.state) {
            (State::Paused, State::Running) => (Level::Info, "resumed".to_owned()),
            (_, State::Running) => (Level::Info, "started".to_owned()),
            (_, State::Canceling) => (Level::Warn, "canceling: leased tasks may still report".to_owned()),
            (_, state) if state.is_final() => ended(now, undecided),
            (_, state) => (Level::Info, state.to_string()),
        });
    }
    words.into_iter()
}

/// How the job ended, and why.
fn ended(record: &JobRecord, undecided: u32) -> (Level, String) {
    let level = match record.state {
        State::Failed => Level::Error,
        State::Succeeded => Level::Info,
        _ => Level::Warn,
    };
    let tally = &record.tally;
    let why = record.error.as_ref().map(|error| format!(": {}", error.message));
    let words = format!(
        "ended as {}{}; {} of {} succeeded, {} failed, {undecided} undecided",
        record.state,
        why.unwrap_or_default(),
        tally.succeeded,
        counted(tally.total, "task"),
        tally.failed,
    );
    (level, words)
}
