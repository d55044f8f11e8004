//! Bodies of the routes that show workers, queues, nodes, failures, and why a job is not done.
//!
//! Owns: their shapes. Never: validates. Invariant: every moment is RFC 3339.

use super::{Job, TaskState, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// `GET /v1/workers`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerList {
    pub items: Vec<Worker>,
}

/// A worker as this node has seen it since it started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    pub worker: String,
    pub alive: bool,
    /// It waits for work right now.
    pub waiting: bool,
    pub queues: Vec<String>,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
    pub held: u32,
    pub holds: Vec<Holding>,
    /// Tasks it reported as succeeded, and attempts as failed.
    pub done: u64,
    pub failed: u64,
}

/// Tasks of one job that a worker holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Holding {
    pub job: i64,
    pub tasks: u32,
}

/// `GET /v1/queues`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueueList {
    pub items: Vec<Queue>,
}

/// A queue and who serves it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Queue {
    pub queue: String,
    /// The owning node.
    pub node: Option<String>,
    pub epoch: i64,
    /// Jobs by state; states without any are left out.
    pub jobs: BTreeMap<String, u64>,
    /// Tasks that could be handed out now.
    pub claimable: u64,
    /// Calls that wait for work here.
    pub parked: u32,
    pub workers_alive: u32,
    /// When a worker last asked for work; null: not since this node started.
    pub last_polled: Option<Timestamp>,
}

/// `GET /v1/nodes`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeList {
    pub items: Vec<Node>,
}

/// A server process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    pub node: String,
    pub incarnation: String,
    pub address: String,
    pub alive: bool,
    pub started_at: Timestamp,
    pub seen_at: Timestamp,
}

/// `GET /healthz`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Alive {
    /// `ok`
    pub status: String,
}

/// `GET /readyz`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ready {
    pub ready: bool,
    /// Why not, in stable words such as `store_unavailable`.
    pub reasons: Vec<String>,
}

/// `POST /v1/nodes/{node}/drain`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Draining {
    pub node: String,
}

/// `GET /v1/jobs/{id}/explain`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explained {
    pub job: Job,
    /// What it waits for, the most telling first.
    pub waits_for: Vec<Reason>,
    /// Leased tasks first, then those that wait for their retry, then the rest.
    pub undecided: Vec<UndecidedTask>,
    /// All of them, shown or not.
    pub undecided_total: u32,
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// Stable word, such as `paused`.
    pub code: String,
    pub message: String,
}

/// A task that is not decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UndecidedTask {
    pub task: u32,
    pub key: Option<String>,
    pub state: TaskState,
    /// Attempts used up.
    pub attempts: u32,
    /// Who holds it.
    pub worker: Option<String>,
    pub leased_at: Option<Timestamp>,
    pub lease_age_s: Option<f64>,
    pub expires_at: Option<Timestamp>,
    /// When it may be handed out again.
    pub retry_at: Option<Timestamp>,
    /// Key of the last stage it has come to.
    pub stage: Option<String>,
    /// What its holder last said of it.
    pub note: Option<String>,
    /// Why its last attempt ended.
    pub last_error: Option<String>,
    pub last_worker: Option<String>,
}

/// `GET /v1/jobs/{id}/failures`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FailureList {
    /// The largest first.
    pub groups: Vec<FailureGroup>,
    /// Failures in none of these groups.
    pub other: u32,
    /// False: there are more failures than were read.
    pub complete: bool,
}

/// Failed tasks whose errors differ in numbers only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FailureGroup {
    /// With `#` for every number.
    pub error: String,
    pub count: u32,
    /// One error of the group as it was.
    pub example: String,
    /// The first few tasks.
    pub tasks: Vec<u32>,
    pub last_at: Timestamp,
}
