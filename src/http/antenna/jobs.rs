//! Jobs of this API: create, show, run, retry, cancel.
//!
//! Owns: what a submission here becomes. Never: judges whether a move is legal. Invariant: a job created here leases for as long as this API's
//! workers need, unless its policy says otherwise.

use super::shown::{self, PROJECT_LABEL};
use super::wire::{AntennaCreateJob, AntennaLogs, AntennaRetry, Anything};
use super::{Call, Refusal, answered, json, patiently};
use crate::coordinator::api::{Control, RetryOnly};
use crate::domain::ids::UnixMs;
use crate::domain::job::{InvalidJob, Limits, NewJob, NewTask};
use crate::domain::logs::Level;
use crate::domain::policy::Policy;
use crate::http::body::parse;
use crate::http::error::{ApiError, ApiResult};
use crate::http::extract::Query;
use crate::http::wire;
use crate::store::{Idempotency, LogFilter};
use actix_web::HttpResponse;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

const LOGS_MAX: u32 = 5_000;
const LOGS_DEFAULT: u32 = 1_000;

/// `POST /api/v2/jobs/`
pub async fn create(mut call: Call) -> Result<HttpResponse, Refusal> {
    let settings = call.state.settings();
    let (body_max, inline_max) = (settings.body_max_bytes, settings.parse_inline_max_bytes);
    let (lease_s, limits, now) = (
        settings.antenna_lease_timeout_s,
        call.state.limits().clone(),
        call.state.now(),
    );
    let start = Query::of(&call.req)?.one("start_now")?;
    let start = start.and_then(|text| super::lenient::flag_of(&text)).unwrap_or(false);
    let body = call.read(body_max).await?;
    let parsed = parse::off_thread(&body, inline_max, move |bytes| {
        let mut job: AntennaCreateJob = super::object(bytes, "name")?;
        job.start_now |= start;
        new_job(job, lease_s, now, &limits)
    });
    let job = parsed.await?;
    if !call.caller.sees(&job.queue) {
        return Err(ApiError::not_found("pipeline").into());
    }
    // A key of its own: the call may be tried again while it waits for the store, and still makes one job.
    let key = Idempotency {
        scope: call.caller.token_id().to_owned(),
        key: format!("antenna-{:032x}", rand::random::<u128>()),
        body_sha256: [0; 32],
    };
    let (coordinator, until) = call.patient();
    let (view, _) = patiently(until, async || {
        answered(coordinator.create_job(job.clone(), Some(key.clone())).await)
    })
    .await?;
    json(HttpResponse::Created(), &shown::job(view, AntennaLogs::default()))
}

fn new_job(job: AntennaCreateJob, lease_s: u32, now: UnixMs, limits: &Limits) -> ApiResult<NewJob> {
    let tasks: Vec<NewTask> = job
        .tasks
        .into_iter()
        .map(|task| NewTask {
            key: Some(task.image_id),
            payload: json!({ "image_url": task.image_url }).to_string(),
        })
        .collect();
    let mut seen = HashSet::new();
    if let Some(i) = tasks.iter().position(|task| !seen.insert(&task.key)) {
        return Err(ApiError::invalid(
            format!("tasks[{i}].image_id"),
            "different from every other task's",
        ));
    }
    let project = job.project_id.map(|id| match id.parse::<i64>() {
        Ok(number) if number > 0 => Ok((PROJECT_LABEL.to_owned(), number.to_string())),
        _ => Err(ApiError::invalid("project_id", "a positive number")),
    });
    let new = NewJob {
        name: job.name,
        queue: job.pipeline_slug,
        priority: 0,
        stages: Vec::new(),
        open: false,
        expected_total: None,
        state: NewJob::initial_state(job.start_now, None, now, false, tasks.len()),
        tasks,
        start_at: None,
        policy: policy(job.policy.unwrap_or_default(), lease_s)?,
        labels: project.transpose()?.into_iter().collect(),
        callback_url: None,
        created_at: now,
    };
    new.check(limits).map_err(renamed)?;
    Ok(new)
}

/// The given policy, which need not say how long a lease lives.
fn policy(mut members: BTreeMap<String, Value>, lease_s: u32) -> ApiResult<Policy> {
    members.entry("lease_timeout_s".to_owned()).or_insert(lease_s.into());
    let members = Value::Object(members.into_iter().collect());
    serde_json::from_value(members).map_err(|error| ApiError::malformed(error.to_string()).at_field("policy"))
}

/// Speaks of the member that the client sent.
fn renamed(error: InvalidJob) -> ApiError {
    let field = match error.field.as_str() {
        "queue" => "pipeline_slug".to_owned(),
        field if field.starts_with("tasks[") => field.replace(".key", ".image_id").replace(".payload", ".image_url"),
        _ => error.field,
    };
    InvalidJob { field, ..error }.into()
}

/// `GET /api/v2/jobs/{id}/`
pub async fn show(call: Call) -> Result<HttpResponse, Refusal> {
    let job = call.job()?;
    let words = format!("from 1 to {LOGS_MAX}");
    let limit = Query::of(&call.req)?
        .parsed::<u32>("logs_limit", &words)?
        .unwrap_or(LOGS_DEFAULT);
    if !(1..=LOGS_MAX).contains(&limit) {
        return Err(ApiError::invalid("logs_limit", words).into());
    }
    let coordinator = call.coordinator();
    call.caller.check_job(&coordinator, job).await?;
    let view = answered(coordinator.job(job).await)?;
    call.note_life(&[&view.record.queue]);
    let filter = LogFilter {
        job,
        after: None,
        level: Level::Debug,
        limit,
    };
    let logs = answered(coordinator.logs(filter, Duration::ZERO).await)?;
    json(HttpResponse::Ok(), &shown::job(view, shown::logs(logs)))
}

async fn control(call: &Call, control: Control) -> Result<HttpResponse, Refusal> {
    let job = call.job()?;
    let (coordinator, until) = call.patient();
    patiently(until, async || {
        answered(coordinator.queue_of(job).await)?;
        call.caller.check_job(&coordinator, job).await
    })
    .await?;
    // Once: a retry whose answer got lost would find the new run, which cannot be retried.
    let view = answered(coordinator.control(job, control).await)?;
    json(HttpResponse::Ok(), &shown::job(view, AntennaLogs::default()))
}

/// `POST /api/v2/jobs/{id}/run/`
pub async fn run(mut call: Call) -> Result<HttpResponse, Refusal> {
    call.object_or_default::<Anything>().await?;
    control(&call, Control::Start).await
}

/// `POST /api/v2/jobs/{id}/retry/`
pub async fn retry(mut call: Call) -> Result<HttpResponse, Refusal> {
    let AntennaRetry { only } = call.object_or_default().await?;
    let only = match only {
        wire::RetryOnly::Failed => RetryOnly::Failed,
        wire::RetryOnly::All => RetryOnly::All,
    };
    control(&call, Control::Retry { only, if_run: None }).await
}

/// `POST /api/v2/jobs/{id}/cancel/`
pub async fn cancel(mut call: Call) -> Result<HttpResponse, Refusal> {
    call.object_or_default::<Anything>().await?;
    control(&call, Control::Cancel { grace_s: 0 }).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::state::State;

    fn submitted(text: &str) -> ApiResult<NewJob> {
        new_job(
            super::super::object(text.as_bytes(), "name")?,
            1_800,
            UnixMs(5),
            &Limits::default(),
        )
    }

    #[test]
    fn a_submission_becomes_a_sealed_job_with_long_leases() {
        let job = submitted(
            r#"{"name":"n","pipeline_slug":"moths","project_id":"18","more":{},"tasks":[{"image_id":7,"image_url":"http://x/\"1\"","w":1}]}"#,
        )
        .unwrap();
        assert_eq!(
            (job.queue.as_str(), job.state, job.open),
            ("moths", State::Pending, false)
        );
        assert_eq!(
            (job.tasks[0].key.as_deref(), job.tasks[0].payload.as_str()),
            (Some("7"), r#"{"image_url":"http://x/\"1\""}"#)
        );
        assert_eq!(
            (job.policy.lease_timeout_s, job.labels["project"].as_str()),
            (1_800, "18")
        );
        let job = submitted(
            r#"{"name":"n","pipeline_slug":1,"start_now":true,"tasks":[{"image_id":"a","image_url":""}],"policy":{"max_attempts":9}}"#,
        );
        let job = job.unwrap();
        assert_eq!(
            (job.state, job.policy.max_attempts, job.policy.lease_timeout_s),
            (State::Running, 9, 1_800)
        );
        let job = submitted(r#"{"name":"n","pipeline_slug":"q","policy":{"lease_timeout_s":60}}"#).unwrap();
        assert_eq!(job.policy.lease_timeout_s, 60);
    }

    #[test]
    fn a_bad_submission_names_the_member_that_was_sent() {
        for (text, field) in [
            (r#"{"pipeline_slug":"q"}"#, "name"),
            (r#"{"name":"n"}"#, "pipeline_slug"),
            (r#"{"name":"n","pipeline_slug":""}"#, "pipeline_slug"),
            (r#"{"name":"n","pipeline_slug":"q","project_id":"x"}"#, "project_id"),
            (r#"{"name":"n","pipeline_slug":"q","policy":{"attempts":1}}"#, "policy"),
            (
                r#"{"name":"n","pipeline_slug":"q","policy":{"max_attempts":0}}"#,
                "policy.max_attempts",
            ),
            (
                r#"{"name":"n","pipeline_slug":"q","tasks":[{"image_id":"","image_url":"u"}]}"#,
                "tasks[0].image_id",
            ),
            (
                r#"{"name":"n","pipeline_slug":"q","tasks":[{"image_id":1,"image_url":"u"},{"image_id":"1","image_url":"u"}]}"#,
                "tasks[1].image_id",
            ),
            (
                r#"{"name":"n","pipeline_slug":"q","tasks":[{"image_id":1}]}"#,
                "tasks[0].image_url",
            ),
            ("[]", "name"),
        ] {
            assert_eq!(
                submitted(text).unwrap_err().problem().field.as_deref(),
                Some(field),
                "{text}"
            );
        }
    }
}
