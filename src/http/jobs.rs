//! Jobs: create, list, show, and the calls that move them.
//!
//! Owns: the checks of a submission and of list filters. Never: judges whether a move is legal. Invariant: a job outside the caller's
//! queues looks like none.

use super::auth::Caller;
use super::body::{self, parse};
use super::callbacks::{Callbacks, check_url};
use super::error::{ApiError, ApiResult};
use super::extract::{JobPath, Query, Small, SmallOrDefault, json_with, ok_json};
use super::gathered;
use super::hop::is_hop;
use super::settings::HttpSettings;
use super::state::AppState;
use super::views;
use super::wire::{self, CreateJob};
use crate::coordinator::api::{Control, RetryOnly};
use crate::domain::ids::{JobId, Run, UnixMs};
use crate::domain::job::{Limits, NewJob, NewTask};
use crate::domain::policy::Policy;
use crate::domain::state::State;
use crate::store::{Idempotency, JobFilter};
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::str::FromStr;
use std::time::Duration;

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
const MAX_IDEMPOTENCY_KEY_BYTES: usize = 256;
const MAX_QUERY_TEXT_BYTES: usize = 256;

/// `POST /v1/jobs`
pub async fn create(
    state: web::Data<AppState>,
    caller: Caller,
    req: HttpRequest,
    mut payload: web::Payload,
) -> ApiResult<HttpResponse> {
    body::require_json(&req)?;
    let key = idempotency_key(&req)?;
    let settings = state.settings();
    let body = body::read(
        &req,
        &mut payload,
        state.allowance(settings.body_max_bytes),
        Duration::ZERO,
    )
    .await?;
    let (limits, now, hashed) = (state.limits().clone(), state.now(), key.is_some());
    let callbacks = state.callbacks().cloned();
    let parsed = parse::off_thread(&body, settings.parse_inline_max_bytes, move |bytes| {
        let job = new_job(parse::json(bytes)?, now, &limits, callbacks.as_ref())?;
        Ok((job, hashed.then(|| <[u8; 32]>::from(Sha256::digest(bytes)))))
    });
    let (job, body_sha256) = parsed.await?;
    if !caller.sees(&job.queue) {
        return Err(ApiError::not_found("queue"));
    }
    let idempotency = key.zip(body_sha256).map(|(key, body_sha256)| Idempotency {
        scope: caller.token_id().to_owned(),
        key,
        body_sha256,
    });
    let (view, is_new) = state.coordinator().create_job(job, idempotency).await?;
    let job = views::job(view);
    let mut response = if is_new {
        HttpResponse::Created()
    } else {
        HttpResponse::Ok()
    };
    response.insert_header((header::LOCATION, format!("/v1/jobs/{}", job.id)));
    json_with(response, &job)
}

fn idempotency_key(req: &HttpRequest) -> ApiResult<Option<String>> {
    let Some(value) = req.headers().get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or("");
    if text.is_empty() || text.len() > MAX_IDEMPOTENCY_KEY_BYTES {
        let limit = format!("1 to {MAX_IDEMPOTENCY_KEY_BYTES} bytes of printable ASCII");
        return Err(ApiError::invalid(IDEMPOTENCY_KEY, limit));
    }
    Ok(Some(text.to_owned()))
}

/// Checks a submission and gives it the state it starts in.
fn new_job(job: CreateJob, now: UnixMs, limits: &Limits, callbacks: Option<&Callbacks>) -> ApiResult<NewJob> {
    let start_at = job.start_at.map(|at| at.0);
    if start_at.is_some() && !job.start {
        return Err(ApiError::invalid("start_at", "absent when start is false"));
    }
    if let Some(url) = &job.callback_url {
        check_url(callbacks, url)?;
    }
    let state = NewJob::initial_state(job.start, start_at, now, job.open, job.tasks.len());
    let new = NewJob {
        name: job.name,
        queue: job.queue,
        priority: job.priority,
        stages: job.stages,
        tasks: job.tasks.into_iter().map(new_task).collect(),
        open: job.open,
        expected_total: job.expected_total,
        state,
        start_at: start_at.filter(|_| state == State::Pending),
        policy: job.policy,
        labels: job.labels,
        callback_url: job.callback_url,
        created_at: now,
    };
    new.check(limits)?;
    check_distinct_keys(&new.tasks)?;
    Ok(new)
}

/// A task as the domain takes it.
pub fn new_task(task: wire::TaskIn) -> NewTask {
    NewTask {
        key: task.key,
        payload: Box::<str>::from(task.payload).into_string(),
    }
}

fn check_distinct_keys(tasks: &[NewTask]) -> ApiResult<()> {
    let mut seen = HashSet::new();
    for (i, task) in tasks.iter().enumerate() {
        if let Some(key) = &task.key
            && !seen.insert(key.as_str())
        {
            return Err(ApiError::invalid(
                format!("tasks[{i}].key"),
                "different from every other task's key",
            ));
        }
    }
    Ok(())
}

/// `GET /v1/jobs`
pub async fn list(
    state: web::Data<AppState>,
    caller: Caller,
    req: HttpRequest,
    query: Query,
) -> ApiResult<HttpResponse> {
    let (mut filter, limit) = filter(query, state.settings())?;
    filter.queues = caller.queues().map(<[String]>::to_vec);
    let mut views = state.coordinator().list_jobs(&filter).await?;
    // One more than asked for was read, to know whether there is a next page.
    let more = views.len() > limit as usize;
    views.truncate(limit as usize);
    let mut items: Vec<_> = views.into_iter().map(views::job).collect();
    if !is_hop(&req) {
        let target = format!("{}?{}", req.path(), req.query_string());
        let others = gathered::from_others(&state, &caller, &target).await;
        gathered::jobs(&mut items, others.parts);
    }
    let next_cursor = items.last().filter(|_| more).map(|job| job.id.to_string());
    ok_json(&wire::JobList { items, next_cursor })
}

/// Takes the parameters that every selection of jobs has: `state`, `queue`, `label`.
pub(super) fn selection(query: &mut Query) -> ApiResult<JobFilter> {
    let parse_state = |text: String| {
        text.parse::<State>()
            .map_err(|_| ApiError::invalid("state", crate::domain::state::ALL.map(State::as_str).join(", ")))
    };
    let states = query.all("state").into_iter().map(parse_state);
    let label = query.one("label")?.map(|text| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(ApiError::invalid("label", "of the form key=value")),
    });
    Ok(JobFilter {
        states: states.collect::<ApiResult<Vec<_>>>()?,
        queue: query.one("queue")?,
        label: label.transpose()?,
        ..JobFilter::default()
    })
}

/// A job's number in a query.
struct JobNumber(JobId);

impl FromStr for JobNumber {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let id = text.parse::<i64>().map_err(drop)?;
        (id > 0).then_some(JobNumber(JobId(id))).ok_or(())
    }
}

fn filter(mut query: Query, settings: &HttpSettings) -> ApiResult<(JobFilter, u32)> {
    let selection = selection(&mut query)?;
    let q = query.one("q")?.filter(|text| !text.is_empty());
    if q.as_ref()
        .is_some_and(|text| text.len() > MAX_QUERY_TEXT_BYTES || text.contains('\0'))
    {
        return Err(ApiError::invalid("q", format!("at most {MAX_QUERY_TEXT_BYTES} bytes")));
    }
    let limit = query.list_limit(settings)?;
    let filter = JobFilter {
        q,
        before: query.cursor()?.map(|JobNumber(id)| id),
        limit: limit + 1,
        ..selection
    };
    query.finish()?;
    Ok((filter, limit))
}

/// `GET /v1/jobs/{id}`
pub async fn get(
    state: web::Data<AppState>,
    caller: Caller,
    path: JobPath,
    req: HttpRequest,
) -> ApiResult<HttpResponse> {
    let view = state.coordinator().job(path.0).await?;
    if !caller.sees(&view.record.queue) {
        return Err(ApiError::not_found("job"));
    }
    if is_hop(&req) {
        // Created through another node, it may be news to those who watch here.
        state.coordinator().announce_pending(&view);
    }
    ok_json(&views::job(view))
}

async fn control(state: &AppState, caller: &Caller, job: JobId, control: Control) -> ApiResult<HttpResponse> {
    caller.check_job(state.coordinator(), job).await?;
    ok_json(&views::job(state.coordinator().control(job, control).await?))
}

macro_rules! plain_control {
    ($($(#[$doc:meta])* $name:ident => $control:expr;)+) => {$(
        $(#[$doc])*
        pub async fn $name(
            state: web::Data<AppState>,
            caller: Caller,
            path: JobPath,
            _: SmallOrDefault<wire::Empty>,
        ) -> ApiResult<HttpResponse> {
            control(&state, &caller, path.0, $control).await
        }
    )+};
}

plain_control! {
    /// `POST /v1/jobs/{id}/start`
    start => Control::Start;
    /// `POST /v1/jobs/{id}/pause`
    pause => Control::Pause;
    /// `POST /v1/jobs/{id}/resume`
    resume => Control::Resume;
    /// `POST /v1/jobs/{id}/seal`
    seal => Control::Seal;
}

/// `POST /v1/jobs/{id}/cancel`
pub async fn cancel(
    state: web::Data<AppState>,
    caller: Caller,
    path: JobPath,
    SmallOrDefault(wire::Cancel { grace_s }): SmallOrDefault<wire::Cancel>,
) -> ApiResult<HttpResponse> {
    let max = crate::domain::policy::MAX_DURATION_S;
    if grace_s > max {
        return Err(ApiError::invalid("grace_s", format!("from 0 to {max}")));
    }
    control(&state, &caller, path.0, Control::Cancel { grace_s }).await
}

/// `PATCH /v1/jobs/{id}`
pub async fn change(
    state: web::Data<AppState>,
    caller: Caller,
    path: JobPath,
    Small(change): Small<wire::ChangeJob>,
) -> ApiResult<HttpResponse> {
    if let Some(failure_threshold) = change.failure_threshold {
        let policy = Policy {
            failure_threshold,
            ..Policy::default()
        };
        policy
            .check()
            .map_err(|error| ApiError::invalid(error.field.trim_start_matches("policy."), error.limit))?;
    }
    let change = Control::Change {
        priority: change.priority,
        failure_threshold: change.failure_threshold,
    };
    control(&state, &caller, path.0, change).await
}

/// `DELETE /v1/jobs/{id}`
pub async fn delete(state: web::Data<AppState>, caller: Caller, path: JobPath) -> ApiResult<HttpResponse> {
    caller.check_job(state.coordinator(), path.0).await?;
    state.coordinator().delete(path.0).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `POST /v1/jobs/{id}/retry`
pub async fn retry(
    state: web::Data<AppState>,
    caller: Caller,
    path: JobPath,
    SmallOrDefault(wire::Retry { only, if_run }): SmallOrDefault<wire::Retry>,
) -> ApiResult<HttpResponse> {
    let only = match only {
        wire::RetryOnly::Failed => RetryOnly::Failed,
        wire::RetryOnly::All => RetryOnly::All,
    };
    let if_run = if_run.map(Run);
    control(&state, &caller, path.0, Control::Retry { only, if_run }).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::state::ALL;
    use actix_web::test::TestRequest;

    fn submitted(text: &str) -> ApiResult<NewJob> {
        new_job(
            parse::json(text.as_bytes())?,
            UnixMs(1_000_000),
            &Limits::default(),
            None,
        )
    }

    fn refused_field(text: &str) -> String {
        submitted(text)
            .unwrap_err()
            .problem()
            .field
            .clone()
            .expect("names the field")
    }

    #[test]
    fn a_submission_starts_where_start_and_start_at_say() {
        let job = submitted(r#"{"name":"n","queue":"q","tasks":[{"payload":{"b" : 1}}]}"#).unwrap();
        assert_eq!(job.state, State::Running);
        assert_eq!(job.tasks[0].payload, r#"{"b" : 1}"#);
        assert_eq!(
            submitted(r#"{"name":"n","queue":"q"}"#).unwrap().state,
            State::Succeeded
        );
        assert_eq!(
            submitted(r#"{"name":"n","queue":"q","start":false}"#).unwrap().state,
            State::Pending
        );
        let past = submitted(r#"{"name":"n","queue":"q","open":true,"start_at":"1970-01-01T00:00:01Z"}"#).unwrap();
        assert_eq!((past.state, past.start_at), (State::Running, None));
        let future = submitted(r#"{"name":"n","queue":"q","start_at":"2100-01-01T00:00:00Z"}"#).unwrap();
        assert_eq!(future.state, State::Pending);
        assert!(future.start_at.is_some());
    }

    #[test]
    fn a_bad_submission_names_its_field() {
        assert_eq!(refused_field(r#"{"name":"","queue":"q"}"#), "name");
        assert_eq!(
            refused_field(r#"{"name":"n","queue":"q","callback_url":"https://example.org"}"#),
            "callback_url"
        );
        assert_eq!(
            refused_field(r#"{"name":"n","queue":"q","start":false,"start_at":"2100-01-01T00:00:00Z"}"#),
            "start_at"
        );
        assert_eq!(
            refused_field(r#"{"name":"n","queue":"q","tasks":[{"key":"a","payload":1},{"key":"a","payload":2}]}"#),
            "tasks[1].key"
        );
        assert_eq!(
            refused_field(r#"{"name":"n","queue":"q","policy":{"max_attempts":0}}"#),
            "policy.max_attempts"
        );
        assert!(refused_field(r#"{"name":"n","queue":"q","policy":{"attempts":0}}"#).starts_with("policy"));
    }

    fn filtered(text: &str) -> ApiResult<(JobFilter, u32)> {
        let req = TestRequest::get().uri(&format!("/?{text}")).to_http_request();
        filter(Query::of(&req)?, &HttpSettings::default())
    }

    #[test]
    fn fm09_every_state_can_be_filtered_by_and_nothing_else() {
        for state in ALL {
            assert_eq!(filtered(&format!("state={state}")).unwrap().0.states, [state]);
        }
        let (filter, limit) = filtered("state=failed,canceled&state=running&label=k=v=w&q=x&cursor=9&queue=a").unwrap();
        assert_eq!(filter.states, [State::Failed, State::Canceled, State::Running]);
        assert_eq!(filter.label, Some(("k".into(), "v=w".into())));
        assert_eq!((filter.before, filter.limit, limit), (Some(JobId(9)), 51, 50));
        for bad in ["state=done", "label=k", "cursor=x", "limit=501", "status=failed"] {
            assert!(filtered(bad).is_err(), "{bad}");
        }
    }
}
