//! Durable state: what must survive, behind traits whose every method is one domain transaction.
//!
//! Owns: the contract both stores obey, their SQL and migrations. Never: judges a job (a rule in SQL belongs into the ledger); names
//! an actor or HTTP. Invariant: every write of an owned job's state proves the queue's epoch first, in its own transaction, so a node
//! that lost its queue changes nothing. Each sentence of the contract below has a test in `tests/it/conformance.rs`.

use crate::domain::ids::{Epoch, JobId, QueueId, Run, Seq, TaskNo, UnixMs};
use crate::domain::job::{Fence, JobRecord, NewJob, NewTask};
use crate::domain::logs::{Entry, Level};
use crate::domain::rows::{Cause, Fact, JobBatch, Verdict};
use crate::domain::state::State;
use async_trait::async_trait;
use std::sync::Arc;

mod blobs;
mod census;
mod outbox;
pub mod postgres;
pub mod sqlite;

pub use blobs::{BlobRef, BlobStore};
pub use census::{Census, ClusterSecret, LivingNode, OwnedQueue, Ownership, QueueOwner};
pub use outbox::{Claiming, DueEvent, EventRow, EventStore};

/// What went wrong with a store call.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No answer, or one that says "not now": the transaction may or may not have committed. Repeating it is safe.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// The caller no longer owns what it writes. Nothing was written.
    #[error("ownership lost: {0}")]
    Fenced(String),
    /// The row is not in the state the caller assumed. Nothing was written.
    #[error("conflict: {0}")]
    Conflict(String),
    /// The named thing does not exist.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// A value the store refuses (SQLSTATE classes 22, 23, 54). Nothing was written; repeating it will fail again.
    #[error("value refused: {0}")]
    Rejected(String),
    /// The store holds something this version cannot read.
    #[error("corrupt: {0}")]
    Corrupt(String),
}

impl StoreError {
    /// May the identical call succeed later?
    pub fn is_retryable(&self) -> bool {
        matches!(self, StoreError::Unavailable(_))
    }
}

/// Answer of every store call.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Where the stores differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Short name for logs and metrics: `postgres` or `sqlite`.
    pub name: &'static str,
    /// Several processes may share it.
    pub shared: bool,
    /// Transactions that usefully run at the same time.
    pub commit_lanes: usize,
    /// Pieces of large results that are written at the same time.
    pub blob_lanes: usize,
}

/// The identity under which a process owns queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Stable across restarts.
    pub node: String,
    /// Random, new at each start.
    pub incarnation: String,
    /// How long the node counts as alive after a heartbeat, in seconds, by the store's clock.
    pub lease_s: u32,
    /// Where other nodes reach it; empty while it does not listen.
    pub address: String,
}

/// A node as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    pub node: String,
    pub incarnation: String,
    pub address: String,
    pub alive: bool,
    pub started_at: UnixMs,
    pub seen_at: UnixMs,
}

/// An idempotency key and the request it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Whose key it is: a token's id, or empty without authentication.
    pub scope: String,
    pub key: String,
    /// SHA-256 of the request's body.
    pub body_sha256: [u8; 32],
}

/// What `create_job` did.
#[derive(Debug, Clone, PartialEq)]
pub enum Created {
    New(JobRecord),
    /// The key was used before with the same body.
    Existing(JobRecord),
    /// The key was used before with another body.
    Mismatch,
}

/// What `append_tasks` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// `added` tasks were numbered from `first_task`; `existing` had keys that were there already (or twice in the chunk).
    Done { added: u32, existing: u32 },
    /// The job holds another number of tasks than `first_task`; nothing was written.
    WrongFirstTask { total: u32 },
}

/// What became of one job's part of a group commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchAnswer {
    Committed,
    /// The queue's epoch is another, or the job's row is not where its guarded UPDATE expects it: nothing of this job was written.
    Fenced,
    /// Somebody else holds the job's row, or takes its queue over: nothing of this job was written. Repeat later; the others did not wait.
    Blocked,
}

/// A snapshot as it was saved last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedSnapshot {
    /// Whatever is to replace it needs a larger one.
    pub version: i64,
    pub bytes: Vec<u8>,
}

/// A job's coalesced state. `bytes` are opaque to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRow {
    pub job: JobId,
    pub fence: Fence,
    pub seq: Seq,
    /// Grows with every snapshot of a job, also where `seq` stays (leases change without a commit).
    pub version: i64,
    pub bytes: Vec<u8>,
}

/// Which jobs to list. Every absent member means "any".
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Empty: any state.
    pub states: Vec<State>,
    pub queue: Option<String>,
    /// Only these queues, where a token is limited to some.
    pub queues: Option<Vec<String>>,
    /// `key=value`: the label must have this value.
    pub label: Option<(String, String)>,
    /// Text that must occur in the name, ignoring case.
    pub q: Option<String>,
    /// Only ids below this one: lists run from the newest to the oldest.
    pub before: Option<JobId>,
    pub limit: u32,
}

impl JobFilter {
    /// Would a list without `q`, `before` and `limit` hold this job?
    pub fn admits(&self, job: &JobRecord) -> bool {
        let in_queues = |queues: &Vec<String>| queues.contains(&job.queue);
        (self.states.is_empty() || self.states.contains(&job.state))
            && self.queue.as_ref().is_none_or(|queue| *queue == job.queue)
            && self.queues.as_ref().is_none_or(in_queues)
            && self
                .label
                .as_ref()
                .is_none_or(|(key, value)| job.labels.get(key) == Some(value))
    }
}

/// A task as it was submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRow {
    pub task: TaskNo,
    pub key: Option<String>,
    pub payload: Arc<str>,
}

/// A decided task, read back.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultRow {
    pub run: Run,
    pub task: TaskNo,
    pub key: Option<String>,
    pub verdict: Verdict,
    pub late: bool,
    pub attempt: u32,
    /// The text of a success, unless it was stored apart.
    pub result: Option<String>,
    pub blob: Option<BlobRef>,
    pub error: Option<String>,
    pub counters: Option<String>,
    pub worker: String,
    pub at: UnixMs,
    /// From the grant of the deciding lease to `at`, where it is known.
    pub took_ms: Option<u32>,
}

/// Which results to read.
#[derive(Debug, Clone)]
pub struct ResultFilter {
    pub job: JobId,
    /// Successes of runs from this one on stand.
    pub base_run: Run,
    /// The current run: its failures count.
    pub run: Run,
    pub verdict: Option<Verdict>,
    /// Only tasks above this one.
    pub after: Option<TaskNo>,
    pub limit: u32,
    /// Stop before the row with which the results would pass this many bytes; the first row comes all the same.
    pub max_bytes: usize,
}

/// A queue as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRow {
    pub queue: String,
    pub epoch: Epoch,
    /// None: nobody owns it.
    pub node: Option<String>,
    /// How many jobs are in each state; states without any are left out.
    pub jobs: Vec<(State, u64)>,
}

/// A task that failed for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureRow {
    pub task: TaskNo,
    pub error: String,
    pub worker: String,
    pub at: UnixMs,
}

/// A spent attempt, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpentAttempt {
    pub task: TaskNo,
    pub attempt: u32,
    pub cause: Cause,
    pub error: Option<String>,
    pub worker: String,
    pub at: UnixMs,
}

/// Which log entries to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter {
    pub job: JobId,
    /// Only entries with a larger number; none: the newest.
    pub after: Option<i64>,
    /// Only entries of this level or a graver one.
    pub level: Level,
    pub limit: u32,
}

/// A log entry, read back. Numbers rise with time and are never given out twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRow {
    pub id: i64,
    pub entry: Entry,
}

/// A stored access token; the secret itself is never stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    pub id: String,
    pub name: String,
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    pub scopes: Vec<String>,
    /// None: every queue.
    pub queues: Option<Vec<String>>,
    pub created_at: UnixMs,
    pub expires_at: Option<UnixMs>,
}

/// A browser's right to one request; the secret itself is never stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketRow {
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// The token that asked for it and whose rights it has; empty where authentication was off.
    pub token_id: String,
    /// The only path it is good for.
    pub path: String,
    pub expires_at: UnixMs,
}

/// Nodes and ownership. All of it is exempt from the fence, since it makes the fence.
#[async_trait]
pub trait NodeStore: Send + Sync {
    /// Brings the schema up to date; returns how many migrations ran. Safe to call from several processes at once.
    async fn migrate(&self) -> Result<u32>;

    /// The store's clock; also the health check.
    async fn clock(&self) -> Result<UnixMs>;

    /// Registers this incarnation. `Conflict` if another incarnation of the same node id is alive (its heartbeat is within its
    /// lease) and `replace` is false; otherwise the older incarnation is replaced and will find out at its next heartbeat. A shared
    /// store notices when the process of an older incarnation is gone: that one is dead at once, whatever is left of its lease.
    async fn register_node(&self, node: &NodeIdentity, replace: bool) -> Result<()>;

    /// A sign of life, which also says where the node is reached. `Fenced` if another incarnation has taken this node id.
    async fn heartbeat(&self, node: &NodeIdentity) -> Result<()>;

    /// Takes queues for this incarnation, +1 on the epoch of each one taken: those nobody owns, those of an older incarnation of the
    /// same node id, those whose owner's lease has run out. With `queue`, only that one, creating its row if there is none.
    /// A take-over waits until every transaction of the old owner has ended, and none of the old owner's commits after it.
    async fn take_queues(&self, node: &NodeIdentity, queue: Option<&str>) -> Result<Ownership>;

    /// Gives up one queue of this incarnation, or all of them; what is not its own stays as it is.
    async fn release_queues(&self, node: &NodeIdentity, queue: Option<QueueId>) -> Result<()>;

    /// Makes known that this incarnation takes no more queues, until it registers again.
    async fn announce_drain(&self, node: &NodeIdentity) -> Result<()>;

    /// Gives up every queue of this incarnation and marks the node as gone.
    async fn release_node(&self, node: &NodeIdentity) -> Result<()>;

    /// The living nodes by name, and every queue by id with its living owner.
    async fn census(&self) -> Result<Census>;

    /// What all nodes of this store know and nobody else does; it never changes.
    async fn cluster_secret(&self) -> Result<ClusterSecret>;

    async fn list_nodes(&self) -> Result<Vec<NodeRow>>;

    /// Every queue by name, with its owner and its jobs counted by state.
    async fn list_queues(&self) -> Result<Vec<QueueRow>>;
}

/// Writing jobs.
#[async_trait]
pub trait JobStore: Send + Sync {
    /// Creates a job with its first tasks and, if it is created in a final state, its completion event, in one transaction.
    /// Duplicate keys in `job.tasks` are `Rejected`. Exempt from the fence.
    async fn create_job(&self, job: &NewJob, idempotency: Option<&Idempotency>) -> Result<Created>;

    /// Appends one chunk if the job holds exactly `first_task` tasks: drops tasks whose key exists (in the job or earlier in the
    /// chunk), numbers the rest densely in order, moves the total. All in one transaction that proves ownership first (`Fenced`).
    async fn append_tasks(&self, job: JobId, fence: Fence, first_task: u32, tasks: &[NewTask]) -> Result<Appended>;

    /// Commits the batches of many jobs in ONE transaction that proves ownership first. Idempotent. Per batch: outcomes are inserted,
    /// or replace a failure by a success of the same (job, run, task); attempts and late results are inserted once; the guarded
    /// UPDATE, the promoted late results and, if it ends the job, the completion event go with them. A guarded UPDATE that finds the
    /// row elsewhere (state, run or number of tasks) is `Committed` if `changed_seq` shows it is our own, else that job is left out whole
    /// and answered `Fenced`. So is a job whose rows refer to a blob that is gone; the others are marked as referred to. A row that somebody
    /// else has locked is not waited for, nor is a take-over of the queue: its job is left out whole and answered `Blocked`.
    /// Answers are in the order of `batches`. `Rejected` if any value is refused: then nothing was written.
    async fn commit(&self, batches: &[JobBatch]) -> Result<Vec<BatchAnswer>>;

    /// Saves snapshots of many jobs in one transaction; each only if its `version` is larger than the stored one. A job whose epoch is
    /// another is skipped and answered `Fenced`, one whose queue is being taken over `Blocked`.
    async fn save_snapshots(&self, snapshots: &[SnapshotRow]) -> Result<Vec<BatchAnswer>>;

    /// Removes a final job's row, snapshot and idempotency key in one transaction that proves ownership first (`Fenced`), and notes that
    /// its other rows are to be purged. `Conflict` if the job is in another run or not final, `NotFound` if it is gone. Completion events
    /// that wait are sent all the same.
    async fn delete_job(&self, job: JobId, fence: Fence, run: Run) -> Result<()>;

    /// Removes at most so many rows of one deleted job; answers false once no deleted job has any left. Exempt from the fence.
    async fn purge_deleted(&self, limit: u32) -> Result<bool>;
}

/// Reading jobs. Reads never take locks and never block writers.
#[async_trait]
pub trait ReadStore: Send + Sync {
    async fn job(&self, job: JobId) -> Result<Option<JobRecord>>;

    /// Newest first, at most `limit`.
    async fn list_jobs(&self, filter: &JobFilter) -> Result<Vec<JobRecord>>;

    /// Ids of jobs that need an actor: every ACTIVE one, and pending ones with a `start_at`; ascending, above `after`.
    async fn list_unfinished(&self, queue: QueueId, after: JobId, limit: u32) -> Result<Vec<JobId>>;

    async fn snapshot(&self, job: JobId) -> Result<Option<SavedSnapshot>>;

    /// Facts with a larger `seq`, in order of `seq`, at most `limit`.
    async fn facts(&self, job: JobId, after: Seq, limit: u32) -> Result<Vec<Fact>>;

    /// The named tasks, in the order of their numbers, until `max_bytes` of payload are passed (at least one row if any exists).
    async fn tasks(&self, job: JobId, tasks: &[TaskNo], max_bytes: usize) -> Result<Vec<TaskRow>>;

    /// Which tasks have these keys, in the order of their numbers; a key that no task has is left out.
    async fn tasks_by_key(&self, job: JobId, keys: &[String]) -> Result<Vec<(String, TaskNo)>>;

    /// Results of the current view, one row per decided task in order of its number: the latest standing success, else the
    /// current run's failure. Late results that did not count are marked.
    async fn results(&self, filter: &ResultFilter) -> Result<Vec<ResultRow>>;

    /// Tasks that failed for good in this run, in order of their numbers, at most `limit`; of an error its first `max_chars` characters.
    async fn failures(&self, job: JobId, run: Run, limit: u32, max_chars: u32) -> Result<Vec<FailureRow>>;

    /// The last spent attempt in this run of each of the named tasks that has one, in the order of their numbers.
    async fn last_attempts(&self, job: JobId, run: Run, tasks: &[TaskNo]) -> Result<Vec<SpentAttempt>>;
}

/// Access tokens.
#[async_trait]
pub trait TokenStore: Send + Sync {
    async fn create_token(&self, token: &TokenRow) -> Result<()>;
    /// Every token that was not revoked, oldest first.
    async fn list_tokens(&self) -> Result<Vec<TokenRow>>;
    /// `NotFound` if there is none with this id.
    async fn revoke_token(&self, id: &str) -> Result<()>;
}

/// Tickets. Any node takes what any node made.
#[async_trait]
pub trait TicketStore: Send + Sync {
    /// Keeps a ticket, and forgets those that had expired by `now`.
    async fn create_ticket(&self, ticket: &TicketRow, now: UnixMs) -> Result<()>;
    /// Removes the ticket and answers it; none if there is none, or somebody took it. Of callers that race one gets it.
    async fn take_ticket(&self, hash: &[u8; 32]) -> Result<Option<TicketRow>>;
}

/// Logs of jobs: append-only, and exempt from the fence, since they say nothing that counts.
#[async_trait]
pub trait LogStore: Send + Sync {
    /// Appends entries of any jobs in one transaction; of each job they are numbered upwards in the order given. Entries of a job that
    /// does not exist are left out. Touches no row of a job.
    async fn append_logs(&self, entries: &[Entry]) -> Result<()>;

    /// Entries of a job in order of their numbers: those after `after`, else the newest ones; at most `limit`.
    async fn logs(&self, filter: &LogFilter) -> Result<Vec<LogRow>>;

    /// Removes all entries of a job but so many of the newest.
    async fn trim_logs(&self, job: JobId, keep: u32) -> Result<()>;
}

/// A whole store.
pub trait Store:
    NodeStore + JobStore + ReadStore + TokenStore + TicketStore + LogStore + BlobStore + EventStore + 'static
{
    fn capabilities(&self) -> Capabilities;
}
