//! What the ledger asks the store to make durable, and what the store gives back when a job is loaded.
//!
//! Owns: the shape of one job's batch and of its facts. Never: knows SQL. Invariant: a batch holds at most one outcome per task, and
//! committing the same batch twice leaves what committing it once does.

use super::callback::Event;
use super::ids::{Attempt, BlobId, JobId, Run, Seq, TaskNo, UnixMs};
use super::job::{Fence, JobError, JobRecord, Tally};
use super::policy::Policy;
use super::state::State;
use std::sync::Arc;

/// How a task was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    Succeeded,
    Failed,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Succeeded => "succeeded",
            Verdict::Failed => "failed",
        }
    }
}

/// The result of a success: its JSON text, verbatim, or where a text too large for a row was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    Text(Box<str>),
    Blob(BlobId),
}

impl Kept {
    /// The text, if it is at hand.
    pub fn text(&self) -> Option<&str> {
        match self {
            Kept::Text(text) => Some(text),
            Kept::Blob(_) => None,
        }
    }

    pub fn blob(&self) -> Option<BlobId> {
        match self {
            Kept::Text(_) => None,
            Kept::Blob(blob) => Some(*blob),
        }
    }
}

impl<T: Into<Box<str>>> From<T> for Kept {
    fn from(text: T) -> Kept {
        Kept::Text(text.into())
    }
}

/// The durable fact about a (job, run, task).
#[derive(Debug, Clone, PartialEq)]
pub struct OutcomeRow {
    pub run: Run,
    pub task: TaskNo,
    pub verdict: Verdict,
    pub attempt: Attempt,
    pub seq: Seq,
    pub result: Option<Kept>,
    pub error: Option<Box<str>>,
    /// JSON object of integers.
    pub counters: Option<Box<str>>,
    pub worker: Arc<str>,
    pub at: UnixMs,
    /// From the grant of the deciding lease to `at`; none if its grant is not known here (a late result, a lease of a crashed node).
    pub took_ms: Option<u32>,
}

impl OutcomeRow {
    /// The text of its result, if it is at hand.
    pub fn text(&self) -> Option<&str> {
        self.result.as_ref().and_then(Kept::text)
    }

    /// The blob it refers to.
    pub fn blob(&self) -> Option<BlobId> {
        self.result.as_ref().and_then(Kept::blob)
    }
}

/// Why an attempt was spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A worker reported the failure.
    Reported,
    /// The lease ran out.
    Expired,
}

impl Cause {
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Reported => "reported",
            Cause::Expired => "expired",
        }
    }
}

/// A spent attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptRow {
    pub run: Run,
    pub task: TaskNo,
    pub attempt: Attempt,
    pub seq: Seq,
    pub cause: Cause,
    pub error: Option<Box<str>>,
    pub worker: Arc<str>,
    pub at: UnixMs,
}

/// The new values of a job's changing columns, written by one guarded UPDATE: it applies only while the row is in one of `from`,
/// in run `from_run`, and holds `tally.total` tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct JobUpdate {
    pub from: &'static [State],
    pub from_run: Run,
    pub state: State,
    pub run: Run,
    pub base_run: Run,
    pub priority: i32,
    pub policy: Policy,
    pub open: bool,
    pub tally: Tally,
    pub error: Option<JobError>,
    pub start_at: Option<UnixMs>,
    pub cancel_at: Option<UnixMs>,
    pub started_at: Option<UnixMs>,
    pub finished_at: Option<UnixMs>,
    pub updated_at: UnixMs,
    pub changed_seq: Seq,
    /// Copy the late successes of runs `base_run..run` into this run's outcomes (`retry only:"failed"`).
    pub promote_late: bool,
    /// The completion event, if this update ends the job: written in the same transaction.
    pub event: Option<Box<Event>>,
}

impl JobUpdate {
    /// Does this update end the job, so that its completion event belongs into the same transaction?
    pub fn ends_job(&self) -> bool {
        self.state.is_final()
    }

    /// The completion event that belongs to this update of a job; none unless it ends the job.
    pub fn completion(&self, record: &JobRecord) -> Option<Box<Event>> {
        let ended = self.ends_job().then(|| {
            let mut ended = record.clone();
            self.apply_to(&mut ended);
            ended
        });
        ended.map(|ended| Box::new(Event::of(&ended)))
    }

    /// Moves a job's row to where this update puts it.
    pub fn apply_to(&self, record: &mut JobRecord) {
        record.state = self.state;
        record.run = self.run;
        record.base_run = self.base_run;
        record.priority = self.priority;
        record.policy = self.policy.clone();
        record.open = self.open;
        record.tally = self.tally.clone();
        record.error = self.error.clone();
        record.start_at = self.start_at;
        record.cancel_at = self.cancel_at;
        record.started_at = self.started_at;
        record.finished_at = self.finished_at;
        record.updated_at = self.updated_at;
        record.changed_seq = self.changed_seq;
    }
}

/// One job's part of a group commit.
#[derive(Debug, Clone, PartialEq)]
pub struct JobBatch {
    pub job: JobId,
    pub fence: Fence,
    pub outcomes: Vec<OutcomeRow>,
    pub attempts: Vec<AttemptRow>,
    /// Results that came after the job was final: kept, uncounted. A success replaces a failure of the same (job, run, task).
    pub late: Vec<OutcomeRow>,
    pub update: Option<JobUpdate>,
}

impl JobBatch {
    /// The blobs that its rows refer to.
    pub fn blobs(&self) -> impl Iterator<Item = BlobId> {
        self.outcomes.iter().chain(&self.late).filter_map(OutcomeRow::blob)
    }

    /// Does it end a job whose end somebody wants to be told of?
    pub fn calls_somebody(&self) -> bool {
        let event = self.update.as_ref().and_then(|update| update.event.as_ref());
        event.is_some_and(|event| event.call.is_some())
    }

    /// Rows in all, the update included.
    pub fn len(&self) -> usize {
        self.outcomes.len() + self.attempts.len() + self.late.len() + usize::from(self.update.is_some())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes all outcomes but the first `keep` into a batch of their own, which may be committed before this one, after it or without it: each
    /// outcome is a fact by itself. None where the batch holds something that was judged by its outcomes, or goes with one of them.
    pub fn split_off(&mut self, keep: usize) -> Option<JobBatch> {
        let outcomes_only = self.attempts.is_empty() && self.late.is_empty() && self.update.is_none();
        (outcomes_only && keep > 0 && keep < self.outcomes.len()).then(|| JobBatch {
            job: self.job,
            fence: self.fence,
            outcomes: self.outcomes.split_off(keep),
            attempts: Vec::new(),
            late: Vec::new(),
            update: None,
        })
    }
}

/// A committed fact, read back while a job is loaded. Facts come in order of `seq`, each `seq` once per job.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    pub seq: Seq,
    pub run: Run,
    pub task: TaskNo,
    pub kind: FactKind,
}

/// What a [`Fact`] says.
#[derive(Debug, Clone, PartialEq)]
pub enum FactKind {
    Outcome {
        verdict: Verdict,
        /// JSON object of integers.
        counters: Option<Box<str>>,
    },
    Attempt {
        attempt: Attempt,
        cause: Cause,
        at: UnixMs,
    },
    Late {
        verdict: Verdict,
        counters: Option<Box<str>>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{Epoch, QueueId};

    fn batch(seqs: std::ops::Range<i64>) -> JobBatch {
        let outcome = |seq| OutcomeRow {
            run: Run(1),
            task: TaskNo(seq as u32),
            verdict: Verdict::Succeeded,
            attempt: Attempt(1),
            seq: Seq(seq),
            result: None,
            error: None,
            counters: None,
            worker: "w".into(),
            at: UnixMs(1),
            took_ms: None,
        };
        JobBatch {
            job: JobId(1),
            fence: Fence {
                queue: QueueId(1),
                epoch: Epoch(1),
            },
            outcomes: seqs.map(outcome).collect(),
            attempts: Vec::new(),
            late: Vec::new(),
            update: None,
        }
    }

    #[test]
    fn outcomes_are_split_where_wanted_and_none_is_lost() {
        let mut first = batch(1..11);
        let rest = first.split_off(4).expect("outcomes only");
        assert_eq!((first, rest), (batch(1..5), batch(5..11)));
        assert_eq!(batch(1..3).split_off(0), None);
        assert_eq!(batch(1..3).split_off(2), None);
    }

    #[test]
    fn what_belongs_together_stays_together() {
        let mut with_late = batch(1..5);
        with_late.late = with_late.outcomes.clone();
        let mut with_attempt = batch(1..5);
        with_attempt.attempts.push(AttemptRow {
            run: Run(1),
            task: TaskNo(1),
            attempt: Attempt(1),
            seq: Seq(9),
            cause: Cause::Reported,
            error: None,
            worker: "w".into(),
            at: UnixMs(1),
        });
        for mut whole in [with_late, with_attempt] {
            let before = whole.clone();
            assert_eq!(whole.split_off(2), None);
            assert_eq!(whole, before);
        }
    }
}
