//! Workers, queues, grouped failures, and why a job is not done.
//!
//! Owns: what of them a caller may see. Never: changes anything. Invariant: workers and queues outside the caller's queues do not appear.

use super::auth::Caller;
use super::error::ApiResult;
use super::extract::{JobPath, Query, ok_json};
use super::hop::is_hop;
use super::state::AppState;
use super::wire::Timestamp;
use super::{gathered, views, wire};
use crate::coordinator::api::{Explanation, Undecided};
use crate::domain::ids::UnixMs;
use crate::domain::rows::Cause;
use actix_web::{HttpRequest, HttpResponse, web};

/// `GET /v1/workers`
pub async fn workers(state: web::Data<AppState>, caller: Caller, req: HttpRequest) -> ApiResult<HttpResponse> {
    let sees_all = caller.queues().is_none();
    let found = state
        .coordinator()
        .workers(|queue| caller.sees(queue), sees_all)
        .await?;
    let shown = found.into_iter().map(|view| wire::Worker {
        worker: view.worker.to_string(),
        alive: view.alive,
        waiting: view.waiting,
        queues: view.queues,
        first_seen: view.first_seen.into(),
        last_seen: view.last_seen.into(),
        held: view.holds.iter().map(|(_, tasks)| tasks).sum(),
        holds: view
            .holds
            .into_iter()
            .map(|(job, tasks)| wire::Holding { job: job.0, tasks })
            .collect(),
        done: view.done,
        failed: view.failed,
    });
    let mut items: Vec<_> = shown.collect();
    if !is_hop(&req) {
        let others = gathered::from_others(&state, &caller, "/v1/workers").await;
        items = gathered::workers(items, others.parts);
    }
    ok_json(&wire::WorkerList { items })
}

/// `GET /v1/queues`
pub async fn queues(state: web::Data<AppState>, caller: Caller, req: HttpRequest) -> ApiResult<HttpResponse> {
    let found = state.coordinator().queues(|queue| caller.sees(queue)).await?;
    let shown = found.into_iter().map(|view| wire::Queue {
        queue: view.queue,
        node: view.node,
        epoch: view.epoch.0,
        jobs: view
            .jobs
            .into_iter()
            .map(|(state, count)| (state.to_string(), count))
            .collect(),
        claimable: view.claimable,
        parked: view.parked,
        workers_alive: view.workers_alive,
        last_polled: view.last_polled.map(Timestamp),
    });
    let mut items: Vec<_> = shown.collect();
    if !is_hop(&req) {
        let others = gathered::from_others(&state, &caller, "/v1/queues").await;
        gathered::queues(&mut items, others.parts);
    }
    ok_json(&wire::QueueList { items })
}

/// `GET /v1/jobs/{id}/explain`
pub async fn explain(
    state: web::Data<AppState>,
    caller: Caller,
    path: JobPath,
    mut query: Query,
) -> ApiResult<HttpResponse> {
    let limit = query.list_limit(state.settings())?;
    query.finish()?;
    caller.check_job(state.coordinator(), path.0).await?;
    let told = state.coordinator().explain(path.0, limit).await?;
    ok_json(&explained(told, state.now()))
}

fn explained(mut told: Explanation, now: UnixMs) -> wire::Explained {
    let undecided = std::mem::take(&mut told.undecided);
    let undecided = undecided.into_iter().map(|about| undecided_task(about, &mut told, now));
    wire::Explained {
        undecided: undecided.collect(),
        undecided_total: told.undecided_total,
        waits_for: told
            .waits_for
            .into_iter()
            .map(|hint| wire::Reason {
                code: hint.code.into(),
                message: hint.message,
            })
            .collect(),
        job: views::job(told.view),
    }
}

fn undecided_task(about: Undecided, told: &mut Explanation, now: UnixMs) -> wire::UndecidedTask {
    let (last_error, last_worker) = match told.last_attempts.remove(&about.task) {
        None => (None, None),
        Some(last) => {
            let expired = (last.cause == Cause::Expired).then(|| "the lease expired".to_owned());
            (last.error.or(expired), Some(last.worker))
        }
    };
    let stages = &told.view.record.stages;
    wire::UndecidedTask {
        task: about.task.0,
        key: told.keys.remove(&about.task).flatten(),
        state: views::task_state(about.status.state),
        attempts: about.spent,
        worker: about.status.worker.map(|worker| worker.to_string()),
        leased_at: about.leased_at.map(Timestamp),
        lease_age_s: about.leased_at.map(|at| (now.0 - at.0).max(0) as f64 / 1000.0),
        expires_at: about.status.expires_at.map(Timestamp),
        retry_at: about.retry_at.map(Timestamp),
        stage: about
            .stage
            .and_then(|place| stages.get(place))
            .map(|stage| stage.key.clone()),
        note: about.note.map(|note| note.to_string()),
        last_error,
        last_worker,
    }
}

/// `GET /v1/jobs/{id}/failures`
pub async fn failures(state: web::Data<AppState>, caller: Caller, path: JobPath) -> ApiResult<HttpResponse> {
    caller.check_job(state.coordinator(), path.0).await?;
    let found = state.coordinator().failures(path.0).await?;
    let groups = found.groups.into_iter().map(|group| wire::FailureGroup {
        error: group.error,
        count: group.count,
        example: group.example,
        tasks: group.tasks.iter().map(|task| task.0).collect(),
        last_at: group.last_at.into(),
    });
    ok_json(&wire::FailureList {
        groups: groups.collect(),
        other: found.other,
        complete: found.complete,
    })
}
