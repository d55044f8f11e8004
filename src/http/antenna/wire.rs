//! Bodies of the API for existing workers.
//!
//! Owns: their shapes. Never: checks a limit. Invariant: unknown members are ignored, ids may be text or numbers, and what is answered has no
//! null where a client wants a value.

use super::lenient::{self, Text};
use crate::http::wire::{Json, Timestamp};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use utoipa::openapi::schema::{AdditionalProperties, AnyOfBuilder, ArrayBuilder, ObjectBuilder, Schema, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

/// Any error. Of a request as a whole: `detail`, or while the node cannot take it `error`, or `detail` with `status` and `job_id`. Of one
/// member or more: `{"member":["…"]}`.
pub struct AntennaError;

impl PartialSchema for AntennaError {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let words = AdditionalProperties::RefOr(RefOr::T(ArrayBuilder::new().items(text()).into()));
        ObjectBuilder::new()
            .property("detail", text())
            .property("error", text())
            .property("status", text())
            .property("job_id", ObjectBuilder::new().schema_type(Type::Integer))
            .additional_properties(Some(words))
            .into()
    }
}

impl ToSchema for AntennaError {}

/// A job that has work.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct AntennaJobId {
    pub id: i64,
    pub pipeline_slug: String,
    /// Between nodes only, which merge their lists by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    pub priority: Option<i32>,
}

/// The same list as another node reads it.
#[derive(Deserialize)]
pub struct AntennaIdList {
    pub results: Vec<AntennaJobId>,
}

/// `GET /api/v2/jobs/`
#[derive(Serialize, ToSchema)]
pub struct AntennaJobList {
    /// Jobs in this answer.
    pub count: usize,
    /// Address of the next page.
    pub next: Option<String>,
    pub previous: Option<String>,
    /// With `ids_only`: id and pipeline_slug alone.
    pub results: Vec<AntennaListed>,
}

/// What another node serves of the jobs in that list, as it tells of them.
#[derive(Deserialize)]
pub struct AntennaJobsThere {
    pub results: Vec<Box<RawValue>>,
}

/// Which job it is that is told of.
#[derive(Deserialize)]
pub struct AntennaNumber {
    pub id: i64,
}

/// A row of the list.
#[derive(Serialize)]
#[serde(untagged)]
pub enum AntennaListed {
    Id(AntennaJobId),
    Job(Box<AntennaJob>),
    /// In the words of the node that serves it.
    There(Box<RawValue>),
}

impl PartialSchema for AntennaListed {
    fn schema() -> RefOr<Schema> {
        // A job has the members of the shorter form as well, so it is not exactly one of them.
        let forms = AnyOfBuilder::new()
            .item(Ref::from_schema_name("AntennaJob"))
            .item(Ref::from_schema_name("AntennaJobId"));
        forms.into()
    }
}

impl ToSchema for AntennaListed {}

/// A job.
#[derive(Serialize, ToSchema)]
pub struct AntennaJob {
    pub id: i64,
    pub name: String,
    pub pipeline_slug: String,
    pub project_id: i64,
    pub dispatch_mode: &'static str,
    /// CREATED, PENDING, STARTED, SUCCESS, FAILURE, RETRY, CANCELING or REVOKED.
    pub status: &'static str,
    pub progress: AntennaProgress,
    pub logs: AntennaLogs,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

#[derive(Serialize, ToSchema)]
pub struct AntennaProgress {
    pub summary: AntennaSummary,
    /// `collect`, `process`, `results`.
    pub stages: Vec<AntennaStage>,
    pub errors: Vec<String>,
}

#[derive(Serialize, ToSchema)]
pub struct AntennaSummary {
    pub status: &'static str,
    pub progress: f64,
}

#[derive(Serialize, ToSchema)]
pub struct AntennaStage {
    pub key: &'static str,
    pub name: &'static str,
    pub status: &'static str,
    pub progress: f64,
    pub params: Vec<AntennaParam>,
}

#[derive(Serialize, ToSchema)]
pub struct AntennaParam {
    pub key: &'static str,
    pub name: &'static str,
    pub value: i64,
}

/// Lines of the job's log, the newest last.
#[derive(Default, Serialize, ToSchema)]
pub struct AntennaLogs {
    pub stdout: Vec<String>,
    /// Errors alone.
    pub stderr: Vec<String>,
}

/// `POST /api/v2/jobs/`
#[derive(Deserialize, ToSchema)]
pub struct AntennaCreateJob {
    pub name: String,
    #[serde(deserialize_with = "lenient::text")]
    pub pipeline_slug: String,
    #[serde(default, deserialize_with = "lenient::text_if_any")]
    pub project_id: Option<String>,
    #[serde(default)]
    pub tasks: Vec<AntennaTaskIn>,
    #[serde(default, deserialize_with = "lenient::flag")]
    pub start_now: bool,
    /// As in `/v1`; without `lease_timeout_s` the default of this API.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub policy: Option<BTreeMap<String, serde_json::Value>>,
}

#[derive(Deserialize, ToSchema)]
pub struct AntennaTaskIn {
    /// Unique in its job.
    #[serde(deserialize_with = "lenient::text")]
    pub image_id: String,
    pub image_url: String,
}

/// `POST /api/v2/jobs/{id}/retry/`; the body may be absent.
#[derive(Default, Deserialize, ToSchema)]
pub struct AntennaRetry {
    /// `failed` (the default) or `all`.
    #[serde(default)]
    pub only: crate::http::wire::RetryOnly,
}

/// A body in which nothing matters.
#[derive(Default, Deserialize)]
pub struct Anything {}

/// `POST /api/v2/jobs/{id}/tasks/`
#[derive(Deserialize, ToSchema)]
pub struct AntennaTasksRequest {
    /// At least 1; clamped to the server's limit.
    #[serde(deserialize_with = "lenient::number")]
    pub batch_size: i64,
}

#[derive(Serialize, ToSchema)]
pub struct AntennaTasks {
    pub tasks: Vec<AntennaTask>,
}

/// A leased task; every member is text.
#[derive(Serialize, ToSchema)]
pub struct AntennaTask {
    pub id: String,
    pub image_id: String,
    pub image_url: String,
    /// Give it back with the result.
    pub reply_subject: String,
}

/// `POST /api/v2/jobs/{id}/result/`
#[derive(Deserialize, ToSchema)]
pub struct AntennaResults {
    pub results: Vec<AntennaResult>,
}

#[derive(Deserialize, ToSchema)]
pub struct AntennaResult {
    /// Null, or unreadable: the image names the task.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, required)]
    pub reply_subject: Option<Option<Text>>,
    /// A success with `source_images` and `detections`, or a failure with `error`.
    #[serde(default, deserialize_with = "given_json")]
    #[schema(value_type = Object, required)]
    pub result: Option<Json>,
}

/// Tells an absent member from one that is null.
pub(super) fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Text>>, D::Error> {
    Option::<Text>::deserialize(deserializer).map(Some)
}

fn given_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

#[derive(Serialize, ToSchema)]
pub struct AntennaResultsTaken {
    pub status: &'static str,
    pub job_id: i64,
    /// Results that were taken: all but unusable ones, unknown ones, and those of an older run.
    pub results_queued: usize,
    pub tasks: Vec<AntennaTaken>,
}

#[derive(Serialize, ToSchema)]
pub struct AntennaTaken {
    pub reply_subject: String,
    /// `queued` once it is durable, else why not: `stale_run`, `unknown_task`, `rejected`.
    pub status: &'static str,
    /// What it did, in the words of `/v1`.
    #[schema(value_type = String)]
    pub disposition: crate::coordinator::api::Disposition,
    /// Names this answer, nothing that could be asked for.
    pub task_id: String,
}

/// `GET /api/v2/projects/`
#[derive(Serialize, ToSchema)]
pub struct AntennaProjects {
    pub count: usize,
    pub next: Option<String>,
    pub previous: Option<String>,
    pub results: Vec<AntennaProject>,
}

#[derive(Serialize, ToSchema)]
pub struct AntennaProject {
    pub id: i64,
    pub name: &'static str,
}

/// `POST /api/v2/projects/{id}/pipelines/`
#[derive(Deserialize, ToSchema)]
pub struct AntennaRegister {
    /// Taken and not kept.
    #[serde(default, deserialize_with = "lenient::text_if_any")]
    pub processing_service_name: Option<String>,
    pub pipelines: Vec<AntennaPipeline>,
}

#[derive(Deserialize, ToSchema)]
pub struct AntennaPipeline {
    #[serde(deserialize_with = "lenient::text")]
    pub slug: String,
}

#[derive(Serialize, ToSchema)]
pub struct AntennaRegistered {
    /// Slugs that were no queue before.
    pub pipelines_created: Vec<String>,
    pub pipelines_updated: Vec<String>,
    pub processing_service_id: i64,
}
