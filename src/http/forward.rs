//! Requests for jobs of other nodes: passed on once, to the owner.
//!
//! Owns: which routes are bound to a job's owner, and what happens if the owner moves meanwhile. Never: forwards what another node forwarded.
//! Invariant: a request is carried out by one node at most, unless repeating it is harmless; whatever cannot be passed on is a 503 with
//! Retry-After.

pub mod neighbours;
pub mod relay;

use super::antenna;
use super::auth::Caller;
use super::error::ApiError;
use super::extract::{JobPath, Query};
use super::hop::Hop;
use super::routes::Entry;
use super::state::AppState;
use super::{auth::Access, tickets};
use crate::coordinator::api::CoordinatorError;
use crate::coordinator::{Asker, Neighbour, Place};
use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use actix_web::{HttpMessage, HttpResponse, ResponseError, web};
use relay::{Outgoing, Sent};
use std::time::{Duration, Instant};

/// What every route of one job has in its path.
const OF_A_JOB: &str = "/jobs/{id}";
/// Between two looks for an owner.
const NAP: Duration = Duration::from_millis(100);
/// Beyond what the owner itself waits for.
const SLACK: Duration = Duration::from_secs(2);

/// Answers a request whose job another node serves. None: it is served here.
pub async fn divert(entry: &Entry, caller: &Caller, req: &mut ServiceRequest) -> Option<HttpResponse> {
    // Streams are joined to the owner's by their handler, which frames them anew.
    if !entry.path.contains(OF_A_JOB) || matches!(entry.access, Access::Streams(_)) {
        return None;
    }
    let JobPath(job) = JobPath::of(req.request())?;
    let state = req.app_data::<web::Data<AppState>>()?.clone();
    let is_hop = req.extensions().contains::<Hop>();
    let asker = if is_hop { Asker::Node } else { Asker::Client };
    // A refusal is written as the client's API writes it; between nodes always as a problem, which the other node reads.
    let path = req.path().to_owned();
    let refuse = |error: ApiError| match is_hop {
        true => error.error_response(),
        false => error.response_at(&path),
    };
    let until = Instant::now() + waits_for_owner(&state, req);
    let mut to = loop {
        match state.coordinator().place_of_job(job, asker).await {
            Ok(Place::Here) => return None,
            // The handler says so in its own way.
            Err(CoordinatorError::NotFound) => return None,
            Ok(Place::There(to)) => break to,
            Err(_) if !is_hop && Instant::now() + NAP < until => tokio::time::sleep(NAP).await,
            Err(error) => return Some(refuse(error.into())),
        }
    };
    let patience = patience(&state, req);
    let mut outgoing = match Outgoing::take(&state, caller, req, patience, until).await {
        Ok(outgoing) => outgoing,
        Err(error) => return Some(refuse(error)),
    };
    let mut sent_before = false;
    loop {
        let reachable = match outgoing.send(&state, &to).await {
            Sent::Answered(response) => return Some(response),
            Sent::Lost => return Some(refuse(lost(&to))),
            Sent::NotTaken { reached } => reached,
        };
        let may_wait = Instant::now() + NAP < until;
        if (sent_before && !may_wait) || !outgoing.is_repeatable() {
            return Some(refuse(lost(&to)));
        }
        if std::mem::replace(&mut sent_before, true) {
            tokio::time::sleep(NAP).await;
        }
        // Somebody else owns it by now, or will: looked at once more, and asked once more; more often only for those who wait.
        match state.coordinator().place_of_job(job, Asker::Again(&to)).await {
            Ok(Place::Here) => {
                outgoing.put_back(req);
                return None;
            }
            // Nobody else, and it cannot be reached.
            Ok(Place::There(same)) if same == to && !reachable && !may_wait => return Some(refuse(lost(&to))),
            Ok(Place::There(next)) => to = next,
            Err(_) if may_wait => {}
            Err(error) => return Some(refuse(error.into())),
        }
    }
}

/// How long a request waits until its job has an owner that answers: not at all, but for posts of clients that never repeat one.
fn waits_for_owner(state: &AppState, req: &ServiceRequest) -> Duration {
    match antenna::serves(req.path()) && req.method() == Method::POST {
        true => Duration::from_millis(state.settings().antenna_post_wait_ms),
        false => Duration::ZERO,
    }
}

fn lost(to: &Neighbour) -> ApiError {
    tracing::debug!(node = %to.node, "the owner of a job does not take it");
    ApiError::from(CoordinatorError::NotOwner)
}

/// How long an answer may take that is not a stream.
fn patience(state: &AppState, req: &ServiceRequest) -> Duration {
    let longest = f64::from(state.settings().lease_wait_max_s);
    let asked = Query::of(req.request())
        .ok()
        .and_then(|mut query| query.parsed::<f64>("wait_s", "").ok().flatten());
    let waits = asked.filter(|wait| *wait > 0.0).unwrap_or(0.0).min(longest);
    state.coordinator().store_wait() + SLACK + Duration::from_secs_f64(waits)
}

/// Path and query as the owner gets them: a ticket has been used up here.
pub fn target(path: &str, query: &str) -> String {
    let is_ticket = |pair: &&str| pair.split('=').next() != Some(tickets::PARAMETER);
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .filter(is_ticket)
        .collect();
    match kept.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", kept.join("&")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_stays_where_it_was_used() {
        assert_eq!(target("/v1/progress", "ticket=tkt_1"), "/v1/progress");
        assert_eq!(target("/a", "x=1&ticket=t&y=%20"), "/a?x=1&y=%20");
        assert_eq!(target("/a", ""), "/a");
    }
}
