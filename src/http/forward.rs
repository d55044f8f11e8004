//! Requests for jobs of other nodes: passed on once, to the owner.
//!
//! Owns: which routes are bound to a job's owner, and what happens if the owner moves meanwhile. Never: forwards what another node forwarded.
//! Invariant: a request is carried out by one node at most, unless repeating it is harmless; whatever cannot be passed on is a 503 with
//! Retry-After.

pub mod neighbours;
pub mod relay;

use super::auth::Caller;
use super::error::ApiError;
use super::extract::Query;
use super::hop::Hop;
use super::routes::Entry;
use super::state::AppState;
use super::{auth::Access, tickets};
use crate::coordinator::api::CoordinatorError;
use crate::coordinator::{Asker, Neighbour, Place};
use crate::domain::ids::JobId;
use actix_web::dev::ServiceRequest;
use actix_web::{HttpMessage, HttpResponse, ResponseError, web};
use relay::{Outgoing, Sent};
use std::time::Duration;

/// What every route of one job has in its path.
const OF_A_JOB: &str = "/jobs/{id}";
/// Beyond what the owner itself waits for.
const SLACK: Duration = Duration::from_secs(2);

/// Answers a request whose job another node serves. None: it is served here.
pub async fn divert(entry: &Entry, caller: &Caller, req: &mut ServiceRequest) -> Option<HttpResponse> {
    // Streams are joined to the owner's by their handler, which frames them anew.
    if !entry.path.contains(OF_A_JOB) || matches!(entry.access, Access::Streams(_)) {
        return None;
    }
    let id = req.match_info().get("id")?.parse::<i64>().ok();
    let job = JobId(id.filter(|id| (1..1 << 53).contains(id))?);
    let state = req.app_data::<web::Data<AppState>>()?.clone();
    let is_hop = req.extensions().contains::<Hop>();
    let asker = if is_hop { Asker::Node } else { Asker::Client };
    let mut to = match state.coordinator().place_of_job(job, asker).await {
        Ok(Place::Here) => return None,
        // The handler says so in its own way.
        Err(CoordinatorError::NotFound) => return None,
        Ok(Place::There(to)) => to,
        Err(error) => return Some(ApiError::from(error).error_response()),
    };
    let mut outgoing = match Outgoing::take(&state, caller, req).await {
        Ok(outgoing) => outgoing,
        Err(error) => return Some(error.error_response()),
    };
    for is_last in [false, true] {
        let sent = outgoing.send(&state, &to).await;
        let refused = match sent {
            Sent::Answered(response) => return Some(response),
            Sent::Lost => return Some(lost(&to)),
            Sent::NotTaken(refused) => refused,
        };
        if is_last || !outgoing.is_repeatable() {
            return Some(refused.unwrap_or_else(|| lost(&to)));
        }
        // Somebody else owns it by now, or will: looked at once more, and asked once more.
        match state.coordinator().place_of_job(job, Asker::Again(&to)).await {
            Ok(Place::Here) => {
                outgoing.put_back(req);
                return None;
            }
            // Nobody else, and it cannot be reached.
            Ok(Place::There(same)) if same == to && refused.is_none() => return Some(lost(&to)),
            Ok(Place::There(next)) => to = next,
            Err(error) => return Some(ApiError::from(error).error_response()),
        }
    }
    None
}

fn lost(to: &Neighbour) -> HttpResponse {
    tracing::debug!(node = %to.node, "the owner of a job cannot be reached");
    ApiError::from(CoordinatorError::NotOwner).error_response()
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
