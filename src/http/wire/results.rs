//! Bodies of the result routes: posting and reading.
//!
//! Owns: their shapes. Never: judges an item. Invariant: `result` and `counters` are parsed as text only, so that one unusable value
//! cannot fail its neighbours.

use super::{Json, LeasedTask, Timestamp};
use crate::domain::ledger::Disposition;
use crate::domain::state::State;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// `POST /v1/jobs/{id}/results`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PostResults {
    pub worker: String,
    pub results: Vec<ResultIn>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then_lease: Option<ThenLease>,
}

/// Lease more of the same job in the same call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ThenLease {
    pub max_tasks: u64,
}

/// What became of one lease.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResultIn {
    pub lease: String,
    pub status: ResultStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub result: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// May a failed task be tried again?
    #[serde(default = "yes")]
    pub retryable: bool,
    /// Object of integers, summed once per task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, i64>>)]
    pub counters: Option<Json>,
}

pub(in crate::http) fn yes() -> bool {
    true
}

/// How a task went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResultStatus {
    Succeeded,
    Failed,
}

/// Answer to posted results, in the order of the request.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ResultsPosted {
    pub job: JobStanding,
    pub results: Vec<ItemDisposition>,
    /// Present if `then_lease` was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<LeasedTask>>,
}

/// Where the job stands after the commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobStanding {
    pub id: i64,
    pub state: State,
    pub run: u32,
}

/// What became of one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ItemDisposition {
    pub lease: String,
    pub disposition: Disposition,
}

/// `GET /v1/jobs/{id}/results` as a page.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ResultList {
    pub items: Vec<ResultOut>,
    pub next_cursor: Option<String>,
}

/// A decided task; also one line of the NDJSON stream.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ResultOut {
    pub task: u32,
    pub key: Option<String>,
    pub run: u32,
    pub status: ResultStatus,
    pub attempt: u32,
    /// Of a succeeded task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub result: Option<Json>,
    /// Of a failed task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub counters: BTreeMap<String, i64>,
    pub worker: String,
    pub committed_at: Timestamp,
    /// Milliseconds from the grant of the deciding lease to the commit; null where the grant is not known.
    #[serde(default)]
    pub took_ms: Option<u32>,
    /// Came after the job was final: kept, uncounted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub late: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}
