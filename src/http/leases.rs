//! Leases: asking for work, extending, giving back; and the task list.
//!
//! Owns: the bounds on these calls. Never: decides who gets what. Invariant: a grant is guarded by [`delivery`](super::delivery) from
//! the moment it is held.

use super::auth::Caller;
use super::delivery::Undelivered;
use super::error::{ApiError, ApiResult};
use super::extract::{JobPath, Query, Small, ok_json, to_json};
use super::forward::neighbours::{REPLAY_ONLY, UNDELIVERED};
use super::hop::{is_hop, is_nodes_own};
use super::state::AppState;
use super::{views, wire};
use crate::coordinator::api::{CoordinatorError, ExtendLeases, Granted, LeaseAny, LeaseJob, TaskState};
use crate::coordinator::{Asker, Place};
use crate::domain::ids::TaskNo;
use crate::domain::job::check_name;
use actix_web::{HttpRequest, HttpResponse, web};
use std::sync::Arc;
use std::time::Duration;

const MAX_NOTE_BYTES: usize = 256;

/// A worker's name, checked.
pub fn worker(state: &AppState, name: &str) -> ApiResult<Arc<str>> {
    check_name("worker", name, state.limits().name_bytes)?;
    Ok(name.into())
}

/// Zero is refused, too much is clamped.
pub fn max_tasks(field: &str, asked: u64, limit: u32) -> ApiResult<u32> {
    if asked == 0 {
        return Err(ApiError::invalid(field, "at least 1"));
    }
    Ok(u32::try_from(asked).unwrap_or(u32::MAX).min(limit))
}

/// A negative wait is refused, a long one is clamped.
pub fn wait(asked_s: Option<f64>, limit_s: u32) -> ApiResult<Duration> {
    let asked_s = asked_s.unwrap_or(0.0);
    if asked_s < 0.0 || asked_s.is_nan() {
        return Err(ApiError::invalid("wait_s", "at least 0"));
    }
    Ok(Duration::from_secs_f64(asked_s.min(f64::from(limit_s))))
}

fn request_id(state: &AppState, id: Option<String>) -> ApiResult<Option<String>> {
    if let Some(id) = &id {
        check_name("request_id", id, state.limits().name_bytes)?;
    }
    Ok(id)
}

fn lease_list(state: &AppState, leases: &[String]) -> ApiResult<()> {
    at_most(state.settings().batch_items_max, leases)
}

fn at_most(limit: usize, leases: &[String]) -> ApiResult<()> {
    if leases.len() > limit {
        return Err(ApiError::invalid("leases", format!("at most {limit} leases")));
    }
    Ok(())
}

fn respond(state: &AppState, granted: &Granted) -> ApiResult<HttpResponse> {
    match &granted.job {
        None => ok_json(&views::granted(granted)),
        Some(job) => {
            let guard = Undelivered::hold(state.coordinator(), job.id, &granted.tasks);
            let json = to_json(&views::granted(granted))?;
            Ok(guard.respond(json))
        }
    }
}

/// `POST /v1/leases`
pub async fn lease_any(
    state: web::Data<AppState>,
    caller: Caller,
    req: HttpRequest,
    Small(call): Small<wire::LeaseAny>,
) -> ApiResult<HttpResponse> {
    let settings = state.settings();
    if call.queues.is_empty() || call.queues.len() > settings.batch_items_max {
        return Err(ApiError::invalid(
            "queues",
            format!("1 to {} names", settings.batch_items_max),
        ));
    }
    for (i, queue) in call.queues.iter().enumerate() {
        check_name(&format!("queues[{i}]"), queue, state.limits().name_bytes)?;
    }
    let call = LeaseAny {
        worker: worker(&state, &call.worker)?,
        queues: call.queues.into_iter().filter(|queue| caller.sees(queue)).collect(),
        max_tasks: max_tasks("max_tasks", call.max_tasks, settings.lease_tasks_max)?,
        wait: wait(call.wait_s, settings.lease_wait_max_s)?,
        request_id: request_id(&state, call.request_id)?,
    };
    if call.queues.is_empty() {
        return respond(&state, &Granted::default());
    }
    if is_hop(&req) {
        return respond(&state, &lease_for_node(&state, &req, call).await?);
    }
    respond(&state, &state.coordinator().lease_any(call).await?)
}

/// Another node asks for work of queues that it believes are served here.
async fn lease_for_node(state: &AppState, req: &HttpRequest, call: LeaseAny) -> ApiResult<Granted> {
    for queue in &call.queues {
        // Nobody forwards twice: whoever is wrong looks again.
        if state.coordinator().place_of_queue(queue, Asker::Node).await? != Place::Here {
            return Err(CoordinatorError::NotOwner.into());
        }
    }
    if is_nodes_own(req) && Query::of(req)?.one(REPLAY_ONLY)?.is_some() {
        return Ok(state.coordinator().replay(&call).await?.unwrap_or_default());
    }
    Ok(state.coordinator().lease_here(call).await?)
}

/// `POST /v1/jobs/{id}/leases`
pub async fn lease_job(
    state: web::Data<AppState>,
    caller: Caller,
    path: JobPath,
    Small(call): Small<wire::LeaseJob>,
) -> ApiResult<HttpResponse> {
    let settings = state.settings();
    wait(call.wait_s, settings.lease_wait_max_s)?;
    let call = LeaseJob {
        worker: worker(&state, &call.worker)?,
        max_tasks: max_tasks("max_tasks", call.max_tasks, settings.lease_tasks_max)?,
        request_id: request_id(&state, call.request_id)?,
    };
    caller.check_job(state.coordinator(), path.0).await?;
    respond(&state, &state.coordinator().lease_job(path.0, call).await?)
}

/// `POST /v1/jobs/{id}/leases/extend`
pub async fn extend(
    state: web::Data<AppState>,
    caller: Caller,
    path: JobPath,
    Small(call): Small<wire::Extend>,
) -> ApiResult<HttpResponse> {
    let worker = worker(&state, &call.worker)?;
    lease_list(&state, &call.leases)?;
    if let Some(stage) = &call.stage {
        check_name("stage", stage, state.limits().name_bytes)?;
    }
    if call.note.as_ref().is_some_and(|note| note.len() > MAX_NOTE_BYTES) {
        return Err(ApiError::invalid("note", format!("at most {MAX_NOTE_BYTES} bytes")));
    }
    caller.check_job(state.coordinator(), path.0).await?;
    let call = ExtendLeases {
        worker,
        leases: call.leases,
        stage: call.stage,
        note: call.note.map(Into::into),
    };
    let done = state.coordinator().extend(path.0, call).await?;
    let renewed = |(lease, at)| wire::ExtendedLease {
        lease,
        expires_at: wire::Timestamp(at),
    };
    ok_json(&wire::Extended {
        extended: done.extended.into_iter().map(renewed).collect(),
        lost: done.lost,
        job_state: done.job_state,
    })
}

/// `POST /v1/jobs/{id}/leases/release`
pub async fn release(
    state: web::Data<AppState>,
    caller: Caller,
    path: JobPath,
    req: HttpRequest,
    Small(call): Small<wire::Release>,
) -> ApiResult<HttpResponse> {
    if is_nodes_own(&req) && Query::of(&req)?.one(UNDELIVERED)?.is_some() {
        // All of one grant at most, which may be more than a client may list.
        let settings = state.settings();
        let most = settings.batch_items_max.max(settings.lease_tasks_max as usize);
        at_most(most, &call.leases)?;
        state.coordinator().release_undelivered(path.0, call.leases.clone());
        return ok_json(&wire::Released {
            released: call.leases,
            lost: Vec::new(),
        });
    }
    let worker = worker(&state, &call.worker)?;
    lease_list(&state, &call.leases)?;
    caller.check_job(state.coordinator(), path.0).await?;
    let done = state.coordinator().release(path.0, worker, call.leases).await?;
    ok_json(&wire::Released {
        released: done.released,
        lost: done.lost,
    })
}

/// `GET /v1/jobs/{id}/tasks`
pub async fn tasks(
    state: web::Data<AppState>,
    caller: Caller,
    path: JobPath,
    mut query: Query,
) -> ApiResult<HttpResponse> {
    let wanted = query.one("state")?.map(|text| task_state(&text)).transpose()?;
    let after = query.cursor()?.map(TaskNo);
    let limit = query.list_limit(state.settings())?;
    query.finish()?;
    caller.check_job(state.coordinator(), path.0).await?;
    let mut found = state.coordinator().tasks(path.0, wanted, after, limit + 1).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let items: Vec<_> = found.into_iter().map(views::task).collect();
    let next_cursor = items.last().filter(|_| more).map(|task| task.task.to_string());
    ok_json(&wire::TaskList { items, next_cursor })
}

fn task_state(text: &str) -> ApiResult<TaskState> {
    match text {
        "pending" => Ok(TaskState::Pending),
        "leased" => Ok(TaskState::Leased),
        "retrying" => Ok(TaskState::Retrying),
        "succeeded" => Ok(TaskState::Succeeded),
        "failed" => Ok(TaskState::Failed),
        _ => Err(ApiError::invalid(
            "state",
            "pending, leased, retrying, succeeded or failed",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oversized_asks_are_clamped_and_senseless_ones_refused() {
        assert_eq!(max_tasks("max_tasks", 5, 1000).unwrap(), 5);
        assert_eq!(max_tasks("max_tasks", u64::MAX, 1000).unwrap(), 1000);
        let error = max_tasks("then_lease.max_tasks", 0, 1000).unwrap_err();
        assert_eq!(error.problem().field.as_deref(), Some("then_lease.max_tasks"));
        assert_eq!(wait(None, 60).unwrap(), Duration::ZERO);
        assert_eq!(wait(Some(0.25), 60).unwrap(), Duration::from_millis(250));
        assert_eq!(wait(Some(1e300), 60).unwrap(), Duration::from_secs(60));
        assert!(wait(Some(-1.0), 60).is_err());
    }

    #[test]
    fn every_task_state_of_the_wire_can_be_filtered_by() {
        use wire::TaskState::*;
        for state in [Pending, Leased, Retrying, Succeeded, Failed] {
            let text = serde_json::to_value(state).unwrap();
            assert!(task_state(text.as_str().unwrap()).is_ok());
        }
        assert!(task_state("done").is_err());
    }
}
