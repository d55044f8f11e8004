//! What the ledger is told and what it answers.
//!
//! Owns: the shapes of commands, replies and effects. Never: holds state. Invariant: every command that carries a [`Ticket`] is
//! answered exactly once, unless the ledger is thrown away.

use crate::domain::ids::{Attempt, LeaseSeq, Run, TaskNo, UnixMs};
use crate::domain::lease::Lease;
use crate::domain::policy::FailureThreshold;
use crate::domain::rows::{JobBatch, Kept};
use crate::domain::state::State;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Names a caller who waits for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Names an upload under way, which holds the leases it reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hold(pub u64);

/// Everything that can happen to a job.
#[derive(Debug, Clone)]
pub enum Command {
    Grant(Grant),
    Extend(Extend),
    Release {
        ticket: Ticket,
        worker: Arc<str>,
        leases: Vec<Option<Lease>>,
    },
    /// Leases that never reached their worker: given back, spending nothing.
    Ungrant {
        leases: Vec<(TaskNo, LeaseSeq)>,
    },
    /// Some worker of this holder made a call: what the holder's workers hold lives on. Workers are named `holder@where`.
    Renew {
        holder: Arc<str>,
    },
    Results(Results),
    /// Results for these leases are on their way: they do not expire before the hold ends, or this ledger does.
    Hold {
        hold: Hold,
        /// None while the upload has not said who it is.
        worker: Option<Arc<str>>,
        leases: Vec<Lease>,
    },
    /// What was on its way is here, or will not come.
    EndHold {
        hold: Hold,
    },
    Control {
        ticket: Ticket,
        control: Control,
    },
    Append {
        ticket: Ticket,
        first_task: Option<u32>,
    },
    Appended {
        ticket: Ticket,
        outcome: AppendOutcome,
    },
    Settled(Settlement),
    /// Something may be due, or the store's health changed.
    Tick {
        store_up: bool,
    },
}

/// A worker asks for tasks.
#[derive(Debug, Clone)]
pub struct Grant {
    pub ticket: Ticket,
    pub worker: Arc<str>,
    pub max_tasks: u32,
    /// Repeating a call with the same id replays that worker's last grant.
    pub request_id: Option<String>,
}

/// A worker keeps leases for longer, and may say how far it has come.
#[derive(Debug, Clone)]
pub struct Extend {
    pub ticket: Ticket,
    pub worker: Arc<str>,
    pub leases: Vec<Option<Lease>>,
    /// Key of a stage that the tasks have come to; marks only move forward.
    pub stage: Option<String>,
    /// Replaces the last note on these leases.
    pub note: Option<Arc<str>>,
}

/// A worker reports results; items apply in order.
#[derive(Debug, Clone)]
pub struct Results {
    pub ticket: Ticket,
    pub worker: Arc<str>,
    pub items: Vec<Item>,
    pub then_lease: Option<u32>,
}

/// One reported result. `lease` is none if the token could not be decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub lease: Option<Lease>,
    pub report: Report,
}

/// Success or failure, with what belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    Succeeded {
        result: Option<Kept>,
        counters: Vec<(String, i64)>,
    },
    Failed {
        error: Box<str>,
        retryable: bool,
    },
    /// The item itself cannot be kept (its result is no JSON the store can hold, say); only this item is refused.
    Unusable,
}

/// A control command.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Control {
    Start,
    Pause,
    Resume,
    Cancel {
        grace_s: u32,
    },
    Seal,
    Retry {
        only: RetryOnly,
        if_run: Option<Run>,
    },
    /// Absent members stay as they are.
    Change {
        priority: Option<i32>,
        failure_threshold: Option<FailureThreshold>,
    },
}

/// Which tasks a new run repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryOnly {
    Failed,
    All,
}

/// What became of one reported result; the words are the wire's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disposition {
    /// Changed the tally.
    Counted,
    /// The same attempt was reported before, or a success of a succeeded task.
    Duplicate,
    /// Failure recorded; the task will be tried again.
    Retrying,
    /// A failure with a token that is no longer current, or of a succeeded task.
    Superseded,
    /// Of an older run, for a task this run has not decided.
    StaleRun,
    /// The job had ended: kept, uncounted.
    Late,
    /// No such task.
    UnknownTask,
    /// Undecodable, another job's lease, or an unusable result.
    Rejected,
}

impl Disposition {
    pub fn as_str(self) -> &'static str {
        match self {
            Disposition::Counted => "counted",
            Disposition::Duplicate => "duplicate",
            Disposition::Retrying => "retrying",
            Disposition::Superseded => "superseded",
            Disposition::StaleRun => "stale_run",
            Disposition::Late => "late",
            Disposition::UnknownTask => "unknown_task",
            Disposition::Rejected => "rejected",
        }
    }
}

/// What the store did with a chunk of appended tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendOutcome {
    Done {
        added: u32,
        existing: u32,
    },
    /// Nothing was written; the job is as it was.
    Refused,
}

/// What the store did with the batch in flight. (A batch that was fenced has no settlement: its ledger is thrown away.)
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settlement {
    /// Tasks whose rows the store refused for good; the rest was committed without them.
    pub refused: Vec<TaskNo>,
    /// The update was left out because it had been judged with a refused row.
    pub update_dropped: bool,
}

/// A task handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    pub lease: Lease,
    pub expires_at: UnixMs,
}

/// Why a control or an append was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    InvalidTransition {
        state: State,
        verb: &'static str,
    },
    Sealed,
    WrongRun {
        run: Run,
    },
    WrongFirstTask {
        total: u32,
    },
    /// The job has no stage of this key.
    UnknownStage,
    /// The chunk was refused by the store.
    NotStored,
}

/// The answer to a ticket.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Granted(Vec<Granted>),
    Extended {
        extended: Vec<Option<UnixMs>>,
        state: State,
    },
    /// For each lease: was it given back?
    Released(Vec<bool>),
    /// Sent only once everything it speaks of is committed.
    Results {
        dispositions: Vec<Disposition>,
        state: State,
        run: Run,
        granted: Option<Vec<Granted>>,
    },
    Control(Result<(), Refusal>),
    Appended(Result<Appended, Refusal>),
    /// The call asks for something this job does not have; nothing was done.
    Refused(Refusal),
    /// The call carries proof that another node or a later run exists; this ledger is to be rebuilt.
    Stale,
}

/// What an append did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub added: u32,
    pub existing: u32,
    pub total: u32,
}

/// What is to be done after a command was applied; carried out in one place.
#[derive(Debug, Default)]
pub struct Effects {
    pub replies: Vec<(Ticket, Reply)>,
    /// Commit this and answer with [`Command::Settled`]. Never handed out while another batch is in flight.
    pub commit: Option<JobBatch>,
    /// Append the chunk of this ticket to a job that holds exactly so many tasks, and answer with [`Command::Appended`].
    pub append: Option<(Ticket, u32)>,
    /// Load the job anew: this ledger may be out of date.
    pub rebuild: bool,
}

impl Effects {
    /// Adds the effects of a command that was applied after this one.
    pub fn absorb(&mut self, later: Effects) {
        self.replies.extend(later.replies);
        // A second batch or chunk is never handed out while the first is under way, so at most one of each pair is there.
        self.commit = self.commit.take().or(later.commit);
        self.append = self.append.take().or(later.append);
        self.rebuild |= later.rebuild;
    }

    pub(super) fn reply(&mut self, ticket: Ticket, reply: Reply) {
        self.replies.push((ticket, reply));
    }
}

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    Pending,
    Leased,
    Retrying,
    Succeeded,
    Failed,
}

/// One task as the ledger knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskStatus {
    pub state: TaskState,
    /// The attempt under way, or the last one spent; 0 before the first. None once it has succeeded: its result tells in which.
    pub attempt: Option<Attempt>,
    pub worker: Option<Arc<str>>,
    pub expires_at: Option<UnixMs>,
}
