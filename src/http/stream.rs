//! Live progress: one job or many, as a WebSocket or as server-sent events.
//!
//! Owns: who gets a stream of what. Never: counts or queues anything. Invariant: whatever the transport, a reader sees the same messages,
//! and those of one update were printed once for all readers.

mod events;
mod line;
mod listed;
mod many;
mod message;
mod one;
mod outlet;
mod remote;
mod socket;

use super::auth::Caller;
use super::error::{ApiError, ApiResult};
use super::extract::{JobPath, Query, asks_for};
use super::hop::is_hop;
use super::state::AppState;
use super::{jobs as job_routes, tickets};
use crate::coordinator::{Rate, Seat, Sight};
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use line::Line;
use listed::Listed;
use many::Many;
use one::One;
use outlet::Transport;
use remote::Joined;
use std::sync::Arc;

const DEFAULT_RATE_HZ: f64 = 10.0;

/// `GET /v1/jobs/{id}/progress`
pub async fn job(
    state: web::Data<AppState>,
    caller: Caller,
    path: JobPath,
    req: HttpRequest,
    payload: web::Payload,
) -> ApiResult<HttpResponse> {
    let mut query = Query::of(&req)?;
    let rate = rate(&mut query, &state)?;
    query.finish()?;
    caller.check_job(state.coordinator(), path.0).await?;
    let transport = transport(&req)?;
    let seat = Arc::new(state.coordinator().seat(rate)?);
    if let Some(joined) = remote::join_owner(&state, &caller, path.0, &req).await? {
        let Joined::Events(events) = joined else {
            return Ok(HttpResponse::NoContent().finish());
        };
        let line = Line::new(&state, caller, transport, payload);
        return open(transport, &req, seat, line, move |outlet| events.run(outlet));
    }
    let mut watch = state.coordinator().watch(path.0, rate).await?;
    if transport == Transport::Events && events::has_seen_the_end(&req) && has_ended(&mut watch) {
        // A browser comes back after every end of a stream unless it is told this.
        return Ok(HttpResponse::NoContent().finish());
    }
    let line = Line::new(&state, caller, transport, payload);
    open(transport, &req, seat.clone(), line, move |outlet| {
        One::new(watch, seat).run(outlet)
    })
}

/// `GET /v1/progress`
pub async fn jobs(
    state: web::Data<AppState>,
    caller: Caller,
    req: HttpRequest,
    payload: web::Payload,
) -> ApiResult<HttpResponse> {
    let mut query = Query::of(&req)?;
    let rate = rate(&mut query, &state)?;
    let mut filter = job_routes::selection(&mut query)?;
    query.finish()?;
    filter.queues = caller.queues().map(<[String]>::to_vec);
    let transport = transport(&req)?;
    let seat = Arc::new(state.coordinator().seat(rate)?);
    let most = state.settings().stream_jobs_max;
    // Each node shows what it owns; the one that was asked also what nobody owns.
    let is_hop = is_hop(&req);
    state.coordinator().look_around().await?;
    // Looked up before they are joined: one that comes meanwhile is a change.
    let nodes = match is_hop {
        true => Vec::new(),
        false => state.coordinator().neighbours(),
    };
    let (others, is_whole) = remote::join_all(&state, &caller, &req, &nodes).await;
    let owners = state.coordinator().clone();
    let shows = move |queue: &str| owners.shows_queue(queue, is_hop);
    // A node that answers to another shows what it owns, whoever else lives.
    let among = (!is_hop).then(|| (state.coordinator().clone(), nodes));
    let listed = Listed::of(1 + others.len());
    let many = Many::new(state.coordinator().clone(), filter, most, rate, seat.clone());
    let many = many.among(Box::new(shows), listed.clone());
    let line = Line::new(&state, caller, transport, payload);
    open(transport, &req, seat, line, move |outlet| async move {
        let own = many.run(outlet.clone());
        remote::merge(own, others, listed, outlet, among, is_whole).await
    })
}

/// Starts a stream: its reader gets what the source sends, until either ends it.
fn open<S, F>(
    transport: Transport,
    req: &HttpRequest,
    seat: Arc<Seat>,
    line: Line,
    source: S,
) -> ApiResult<HttpResponse>
where
    S: FnOnce(outlet::Outlet) -> F + 'static,
    F: Future<Output = outlet::End>,
{
    let (outlet, body) = line.outlet(seat);
    let response = match transport {
        Transport::Socket => socket::accept(req, body)?,
        Transport::Events => events::answer(body),
    };
    actix_web::rt::spawn(async move {
        let sending = source(outlet.clone());
        line.run(&outlet, sending).await;
    });
    Ok(response)
}

fn has_ended(watch: &mut crate::coordinator::Watch) -> bool {
    matches!(watch.look(), Sight::Newest(update) if update.view.record.state.is_final())
}

/// Takes `rate_hz` and, since it was looked at before, `ticket`.
fn rate(query: &mut Query, state: &AppState) -> ApiResult<Rate> {
    query.one(tickets::PARAMETER)?;
    let hz = query.parsed::<f64>("rate_hz", "a number")?.unwrap_or(DEFAULT_RATE_HZ);
    Rate::clamped(hz, state.settings().stream_rate_max_hz).ok_or_else(|| ApiError::invalid("rate_hz", "a number"))
}

fn transport(req: &HttpRequest) -> ApiResult<Transport> {
    if req.headers().contains_key(header::UPGRADE) {
        socket::check(req)?;
        return Ok(Transport::Socket);
    }
    if asks_for(req, "text/event-stream") {
        return Ok(Transport::Events);
    }
    Err(ApiError::upgrade_required())
}
