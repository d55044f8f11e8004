//! What callers of the coordinator say and hear: plain values, no actors.
//!
//! Owns: the request and reply shapes and the errors of the [`Coordinator`](super::Coordinator) handle. Never: parses or prints the wire
//! form. Invariant: an `Ok` for a result is only ever built after its commit.

use crate::domain::failures::Group;
use crate::domain::ids::{Attempt, Epoch, JobId, Run, TaskNo, UnixMs};
use crate::domain::job::{InvalidJob, JobRecord};
use crate::domain::progress::Progress;
use crate::domain::state::State;
use crate::store::{SpentAttempt, StoreError};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// A job as anyone may see it: its row, its live progress, and who owns it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobView {
    pub record: JobRecord,
    pub progress: Progress,
    /// The owning node and its epoch, while the job is active here.
    pub node: Option<String>,
    pub epoch: Option<Epoch>,
    /// Something of the current run was handed out; of a final job without an actor: it was started.
    pub begun: bool,
}

/// One task handed to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantedTask {
    pub task: TaskNo,
    pub key: Option<String>,
    /// JSON text, verbatim.
    pub payload: Arc<str>,
    pub attempt: Attempt,
    /// The lease's token text.
    pub lease: String,
    pub expires_at: UnixMs,
}

/// Answer to a lease call. Without work: `job` is none and `tasks` is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Granted {
    pub job: Option<GrantedJob>,
    pub tasks: Vec<GrantedTask>,
}

/// The job whose tasks were handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantedJob {
    pub id: JobId,
    pub name: Arc<str>,
    pub queue: Arc<str>,
    pub run: Run,
}

/// A job that has work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimableJob {
    pub id: JobId,
    pub queue: Arc<str>,
    pub priority: i32,
}

/// A result that names its task by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedResult {
    pub key: String,
    pub succeeded: bool,
}

/// A worker asks any of some queues for work.
#[derive(Debug, Clone)]
pub struct LeaseAny {
    pub worker: Arc<str>,
    pub queues: Vec<String>,
    pub max_tasks: u32,
    pub wait: Duration,
    pub request_id: Option<String>,
}

/// A worker asks one job for work.
#[derive(Debug, Clone)]
pub struct LeaseJob {
    pub worker: Arc<str>,
    pub max_tasks: u32,
    pub request_id: Option<String>,
}

/// A worker keeps leases for longer, and may say how far it has come.
#[derive(Debug, Clone)]
pub struct ExtendLeases {
    pub worker: Arc<str>,
    /// Token texts as the worker sent them.
    pub leases: Vec<String>,
    /// Key of a stage that the tasks have come to.
    pub stage: Option<String>,
    /// What the worker is doing, for people.
    pub note: Option<Arc<str>>,
}

/// What a worker says became of one lease.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportedResult {
    /// Token text as the worker sent it.
    pub lease: String,
    pub report: Report,
}

/// A worker posts results.
#[derive(Debug, Clone)]
pub struct PostResults {
    pub worker: Arc<str>,
    pub items: Vec<ReportedResult>,
    /// Lease up to so many tasks of the same job in the same call.
    pub then_lease: Option<u32>,
}

pub use crate::domain::ledger::{Control, Disposition, Hint, Report, RetryOnly, TaskState, Undecided};

/// Answer to posted results, in the order of the items.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultsPosted {
    pub job: JobId,
    pub state: State,
    pub run: Run,
    pub dispositions: Vec<Disposition>,
    /// Present if `then_lease` was asked for.
    pub tasks: Option<Vec<GrantedTask>>,
}

/// Answer to `extend`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extended {
    pub extended: Vec<(String, UnixMs)>,
    pub lost: Vec<String>,
    pub job_state: State,
}

/// Answer to `release`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    pub released: Vec<String>,
    pub lost: Vec<String>,
}

/// Answer to `append`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ingested {
    pub added: u32,
    pub existing: u32,
    pub next_task: TaskNo,
}

/// One row of `/tasks`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskView {
    pub task: TaskNo,
    pub key: Option<String>,
    pub state: TaskState,
    /// The attempt under way, or the last one spent; 0 before the first. None once it has succeeded: its result tells in which.
    pub attempt: Option<Attempt>,
    pub worker: Option<Arc<str>>,
    pub expires_at: Option<UnixMs>,
}

/// A worker as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerView {
    pub worker: Arc<str>,
    pub alive: bool,
    /// It waits for work right now.
    pub waiting: bool,
    /// Queues it has asked, or whose tasks it held.
    pub queues: Vec<String>,
    pub first_seen: UnixMs,
    pub last_seen: UnixMs,
    /// Tasks it holds, by job.
    pub holds: Vec<(JobId, u32)>,
    /// Tasks it has reported since it was first seen.
    pub done: u64,
    pub failed: u64,
}

/// A queue as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueView {
    pub queue: String,
    pub node: Option<String>,
    pub epoch: Epoch,
    pub jobs: BTreeMap<State, u64>,
    /// Tasks that could be handed out now.
    pub claimable: u64,
    /// Calls that wait for work here.
    pub parked: u32,
    pub workers_alive: u32,
    /// None: not since this node started.
    pub last_polled: Option<UnixMs>,
}

/// Where a job in memory stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStanding {
    pub claimable: u32,
    pub holders: Vec<(Arc<str>, u32)>,
}

/// Why a job is not done.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    pub view: JobView,
    pub waits_for: Vec<Hint>,
    pub undecided: Vec<Undecided>,
    pub undecided_total: u32,
    /// Of the undecided tasks that were tried.
    pub last_attempts: HashMap<TaskNo, SpentAttempt>,
    pub keys: HashMap<TaskNo, Option<String>>,
}

/// Failures of a job, grouped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failures {
    pub groups: Vec<Group>,
    /// Failures in none of the groups.
    pub other: u32,
    /// All failures were read; else only the first.
    pub complete: bool,
}

/// Why a call could not be carried out. Nothing was changed unless said otherwise.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CoordinatorError {
    #[error("{0}")]
    Invalid(#[from] InvalidJob),
    #[error("job not found")]
    NotFound,
    #[error("a job that is {state} cannot {verb}")]
    InvalidTransition { state: State, verb: &'static str },
    #[error("the job is sealed")]
    Sealed,
    #[error("the job is in run {run}")]
    WrongRun { run: Run },
    #[error("the job holds {next_task} tasks")]
    WrongFirstTask { next_task: TaskNo },
    #[error("the idempotency key was used with another body")]
    IdempotencyMismatch,
    /// Too much is under way; repeat after the given time.
    #[error("busy: {0}")]
    Busy(&'static str),
    /// The store gave no answer in time. What was asked may still be committed; repeating it is safe.
    #[error("store unavailable")]
    StoreUnavailable,
    #[error("the node is draining")]
    Draining,
    #[error("another node owns this queue")]
    NotOwner,
    /// The store refused a value for good.
    #[error("value refused: {0}")]
    Refused(String),
    #[error("internal: {0}")]
    Internal(String),
}

impl From<StoreError> for CoordinatorError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => CoordinatorError::StoreUnavailable,
            StoreError::Fenced(_) => CoordinatorError::NotOwner,
            StoreError::NotFound(_) => CoordinatorError::NotFound,
            StoreError::Rejected(why) => CoordinatorError::Refused(why),
            StoreError::Conflict(why) | StoreError::Corrupt(why) => CoordinatorError::Internal(why),
        }
    }
}
