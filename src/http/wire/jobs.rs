//! Bodies of the job routes: create, show, list, append, cancel, retry.
//!
//! Owns: their shapes. Never: validates. Invariant: unknown members of a request are refused.

use super::schemas::PolicyIn;
use super::{Json, Timestamp};
use crate::domain::job::{JobError, Stage};
use crate::domain::policy::{FailureThreshold, Policy};
use crate::domain::progress::Progress;
use crate::domain::state::State;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// `POST /v1/jobs`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateJob {
    pub name: String,
    pub queue: String,
    /// Larger goes first.
    #[serde(default)]
    pub priority: i32,
    #[serde(default)]
    pub stages: Vec<Stage>,
    #[serde(default)]
    pub tasks: Vec<TaskIn>,
    /// More tasks may be appended until the job is sealed.
    #[serde(default)]
    pub open: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_total: Option<u32>,
    /// Start at once, or at `start_at`.
    #[serde(default = "yes")]
    pub start: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Timestamp>,
    #[serde(default)]
    #[schema(value_type = PolicyIn)]
    pub policy: Policy,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_url: Option<String>,
}

fn yes() -> bool {
    true
}

impl CreateJob {
    /// A sealed job without tasks that starts at once, everything else at its default.
    pub fn named(name: impl Into<String>, queue: impl Into<String>) -> Self {
        CreateJob {
            name: name.into(),
            queue: queue.into(),
            priority: 0,
            stages: Vec::new(),
            tasks: Vec::new(),
            open: false,
            expected_total: None,
            start: true,
            start_at: None,
            policy: Policy::default(),
            labels: BTreeMap::new(),
            callback_url: None,
        }
    }
}

/// One task of a create or append request; also one line of an NDJSON append.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskIn {
    /// Unique in its job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[schema(value_type = Value)]
    pub payload: Json,
}

/// A job as everyone sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    pub id: i64,
    pub name: String,
    pub queue: String,
    pub state: State,
    pub run: u32,
    pub priority: i32,
    pub open: bool,
    /// As it was created with: how many tasks an open job is going to have.
    #[serde(default)]
    pub expected_total: Option<u32>,
    pub labels: BTreeMap<String, String>,
    pub policy: Policy,
    /// When a pending job starts by itself.
    #[serde(default)]
    pub start_at: Option<Timestamp>,
    /// The owning node, while the job is active.
    pub node: Option<String>,
    pub epoch: Option<i64>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub updated_at: Timestamp,
    pub progress: Progress,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<JobError>,
}

/// `GET /v1/jobs`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobList {
    pub items: Vec<Job>,
    /// Give it back as `cursor` for the next page; absent on the last.
    pub next_cursor: Option<String>,
}

/// Answer to an append.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Appended {
    pub added: u64,
    /// Tasks left out because their key was there already.
    pub existing: u64,
    pub next_task: u32,
}

/// `PATCH /v1/jobs/{id}`; absent members stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ChangeJob {
    /// Larger goes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_threshold: Option<FailureThreshold>,
}

/// `POST /v1/jobs/{id}/cancel`; the body may be absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cancel {
    /// How long leased tasks may still report, in seconds.
    pub grace_s: u32,
}

/// `POST /v1/jobs/{id}/retry`; the body may be absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    pub only: RetryOnly,
    /// Refuse unless the job is in this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub if_run: Option<u32>,
}

/// Which tasks the new run repeats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryOnly {
    #[default]
    Failed,
    All,
}

/// The body of calls that take none: `{}`, or nothing at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Empty {}
