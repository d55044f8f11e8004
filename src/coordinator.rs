//! The running node: actors that own jobs, and the one handle through which everything else speaks to them.
//!
//! Owns: who runs where, waiting, bounds, group commit, timers. Never: decides a rule of a job (the ledger does) or names HTTP.
//! Invariant: one actor owns each active job and is its only writer.

pub mod api;

use crate::domain::ids::{JobId, TaskNo, UnixMs};
use crate::domain::job::{NewJob, NewTask};
use crate::store::{Idempotency, JobFilter, Store};
use api::*;
use std::sync::Arc;
use std::time::Duration;

/// Answer of every call of the handle.
pub type Result<T> = std::result::Result<T, CoordinatorError>;

/// The node's bounds and intervals.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Stable name of this node.
    pub node_id: String,
    /// How long the node counts as alive after a heartbeat, in seconds.
    pub node_lease_s: u32,
    /// How often changed jobs are saved.
    pub snapshot_interval: Duration,
    /// How long a caller waits for the store before it is told to come back.
    pub store_wait: Duration,
    /// Requests that post results to one job and have not been answered.
    pub result_permits: usize,
    /// Lease, extend and release requests of one job that have not been answered.
    pub lease_permits: usize,
    /// Control and append requests of one job that have not been answered.
    pub control_permits: usize,
    /// Long polls parked in the node.
    pub parked_limit: usize,
    /// Tasks of one job that one worker may hold.
    pub worker_in_flight: u32,
    /// Bytes of payload in one lease answer; what would pass it is not leased.
    pub lease_payload_bytes: usize,
    /// Bytes of results gathered for one commit of one job.
    pub batch_bytes: usize,
    /// Jobs that are final leave memory after being idle for so long.
    pub passivate_after: Duration,
    /// Longest wait for the last commits and snapshots when draining.
    pub drain_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            node_id: "local".into(),
            node_lease_s: 10,
            snapshot_interval: Duration::from_secs(5),
            store_wait: Duration::from_secs(5),
            result_permits: 512,
            lease_permits: 512,
            control_permits: 64,
            parked_limit: 10_000,
            worker_in_flight: 2_000,
            lease_payload_bytes: 16 << 20,
            batch_bytes: 32 << 20,
            passivate_after: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// Is the node fit to serve, and if not, why?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    pub ready: bool,
    /// Stable words such as `store_unavailable`, `draining`, `starting`, `timers_stalled`.
    pub reasons: Vec<&'static str>,
}

/// Handle to the running node; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Coordinator {
    store: Arc<dyn Store>,
}

impl Coordinator {
    /// The store, for reads that need no actor (results, tokens).
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The node's id.
    pub fn node_id(&self) -> &str {
        unimplemented!()
    }

    /// The store's time, kept up between calls by a monotonic clock.
    pub fn now(&self) -> UnixMs {
        unimplemented!()
    }

    pub fn readiness(&self) -> Readiness {
        unimplemented!()
    }

    /// Creates a job; the flag says whether it is new (false: the idempotency key named an existing one).
    pub async fn create_job(&self, _job: NewJob, _key: Option<Idempotency>) -> Result<(JobView, bool)> {
        unimplemented!()
    }

    /// The queue of a job, from memory where possible.
    pub async fn queue_of(&self, _job: JobId) -> Result<Arc<str>> {
        unimplemented!()
    }

    /// A job with its live progress.
    pub async fn job(&self, _job: JobId) -> Result<JobView> {
        unimplemented!()
    }

    /// Jobs from the newest to the oldest, active ones with their live progress.
    pub async fn list_jobs(&self, _filter: &JobFilter) -> Result<Vec<JobView>> {
        unimplemented!()
    }

    /// Appends one chunk of tasks; `first_task` must match the job's total if given.
    pub async fn append(&self, _job: JobId, _tasks: Vec<NewTask>, _first_task: Option<u32>) -> Result<Ingested> {
        unimplemented!()
    }

    pub async fn control(&self, _job: JobId, _control: Control) -> Result<JobView> {
        unimplemented!()
    }

    pub async fn lease_any(&self, _call: LeaseAny) -> Result<Granted> {
        unimplemented!()
    }

    pub async fn lease_job(&self, _job: JobId, _call: LeaseJob) -> Result<Granted> {
        unimplemented!()
    }

    pub async fn post_results(&self, _job: JobId, _call: PostResults) -> Result<ResultsPosted> {
        unimplemented!()
    }

    pub async fn extend(&self, _job: JobId, _worker: Arc<str>, _leases: Vec<String>) -> Result<Extended> {
        unimplemented!()
    }

    pub async fn release(&self, _job: JobId, _worker: Arc<str>, _leases: Vec<String>) -> Result<Released> {
        unimplemented!()
    }

    /// Gives leases back without waiting: the answer that carried them was never delivered.
    pub fn release_undelivered(&self, _job: JobId, _leases: Vec<String>) {
        unimplemented!()
    }

    /// Tasks above `after` in order of their numbers, at most `limit`, only those in `state` if given.
    pub async fn tasks(
        &self,
        _job: JobId,
        _state: Option<TaskState>,
        _after: Option<TaskNo>,
        _limit: u32,
    ) -> Result<Vec<TaskView>> {
        unimplemented!()
    }

    /// Stops granting, answers parked polls, settles commits, saves the last snapshots, gives up the queues. Fails if a last snapshot
    /// could not be saved in time.
    pub async fn drain(&self) -> Result<()> {
        unimplemented!()
    }
}
