//! Bodies of the lease routes: lease, extend, release; and the task list.
//!
//! Owns: their shapes. Never: validates or clamps. Invariant: a lease token is opaque text.

use super::{Json, Timestamp};
use crate::domain::state::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/leases`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaseAny {
    pub worker: String,
    pub queues: Vec<String>,
    /// At least 1; clamped to the server's limit.
    pub max_tasks: u64,
    /// How long to wait for work, in seconds; clamped to the server's limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_s: Option<f64>,
    /// Repeating a call with the same id gives the same grant again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// `POST /v1/jobs/{id}/leases`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaseJob {
    pub worker: String,
    pub max_tasks: u64,
    /// Taken so that both lease calls may send it; this one answers at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_s: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// Answer to a lease call; without work `job` is null and `tasks` is empty.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Granted {
    pub job: Option<GrantedJob>,
    pub tasks: Vec<LeasedTask>,
}

/// The job whose tasks were handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GrantedJob {
    pub id: i64,
    pub name: String,
    pub queue: String,
    pub run: u32,
}

/// One task handed to a worker.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LeasedTask {
    pub task: u32,
    pub key: Option<String>,
    #[schema(value_type = Value)]
    pub payload: Json,
    pub attempt: u32,
    pub lease: String,
    pub expires_at: Timestamp,
}

/// `POST /v1/jobs/{id}/leases/extend`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Extend {
    pub worker: String,
    pub leases: Vec<String>,
    /// Key of the stage the tasks have reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// What the worker is doing, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Answer to `extend`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Extended {
    pub extended: Vec<ExtendedLease>,
    pub lost: Vec<String>,
    pub job_state: State,
}

/// A lease and its new end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExtendedLease {
    pub lease: String,
    pub expires_at: Timestamp,
}

/// `POST /v1/jobs/{id}/leases/release`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Release {
    pub worker: String,
    pub leases: Vec<String>,
}

/// Answer to `release`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Released {
    pub released: Vec<String>,
    pub lost: Vec<String>,
}

/// `GET /v1/jobs/{id}/tasks`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskList {
    pub items: Vec<Task>,
    pub next_cursor: Option<String>,
}

/// Where one task is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Task {
    pub task: u32,
    pub key: Option<String>,
    pub state: TaskState,
    /// The attempt under way, or the last one spent; 0 before the first. Null once it has succeeded: its result (`/results`) tells in which.
    pub attempt: Option<u32>,
    pub worker: Option<String>,
    pub expires_at: Option<Timestamp>,
}

/// The five places a task can be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    Pending,
    Leased,
    Retrying,
    Succeeded,
    Failed,
}
