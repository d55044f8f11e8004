//! Requests for jobs: carried out here, or passed on once, to the owner.
//!
//! Owns: which routes are bound to a job's owner, and what happens if the owner moves meanwhile. Never: forwards what another node forwarded.
//! Invariant: a request is carried out by one node at most, unless repeating it is harmless; whatever cannot be passed on is a 503 with
//! Retry-After. A refusal is written as the client's API writes it; between nodes it is always a problem, which the other node reads.

pub mod neighbours;
pub mod relay;

use super::antenna::{self, WaitsUntil};
use super::auth::Caller;
use super::error::ApiError;
use super::extract::{JobPath, Query};
use super::hop::Hop;
use super::routes::Entry;
use super::state::AppState;
use super::{auth::Access, body, tickets};
use crate::coordinator::api::CoordinatorError;
use crate::coordinator::{Asker, Coordinator, Neighbour, Peers, Place};
use crate::domain::ids::JobId;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpResponse, ResponseError, web};
use bytes::Bytes;
use relay::{Outgoing, Sent};
use std::time::{Duration, Instant};

/// What every route of one job has in its path.
const OF_A_JOB: &str = "/jobs/{id}";
/// Between two looks for an owner.
const NAP: Duration = Duration::from_millis(100);
/// Beyond what the owner itself waits for.
const SLACK: Duration = Duration::from_secs(2);

/// Answers a request where its job is served: by the handler behind `next`, or by another node.
pub async fn carry_out<B: MessageBody + 'static>(
    entry: &Entry,
    caller: &Caller,
    mut req: ServiceRequest,
    next: &Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some(mut course) = Course::of(entry, &req) else {
        return Ok(next.call(req).await?.map_into_boxed_body());
    };
    let state = course.state.clone();
    let mut outgoing: Option<Outgoing> = None;
    // Who did not take it, whether that node was reached, and what it said.
    let mut not_taken: Option<(Neighbour, bool, ApiError)> = None;
    loop {
        let asker = match &not_taken {
            _ if course.is_hop => Asker::Node,
            Some((avoided, ..)) => Asker::Again(avoided),
            None => Asker::Client,
        };
        let to = match course.coordinator.place_of_job(course.job, asker).await {
            // Of a job that does not exist the handler says so in its own way.
            Ok(Place::Here) | Err(CoordinatorError::NotFound) => {
                if let Some(outgoing) = outgoing.take() {
                    outgoing.put_back(&mut req);
                }
                match course.handle(req, next).await? {
                    Handled::Answered(response) => return Ok(response),
                    Handled::GoesOn(again) => req = again,
                }
                tokio::time::sleep(NAP).await;
                continue;
            }
            Ok(Place::There(to)) => to,
            Err(error) if course.may_wait() && !course.is_in_vain(&error) => {
                tokio::time::sleep(NAP).await;
                continue;
            }
            Err(error) => return Ok(req.into_response(course.refuse(&error.into()))),
        };
        if let Some((avoided, reached, error)) = &not_taken {
            // Nobody else, and it cannot be reached.
            if !course.may_wait() && (course.sent > 1 || (*avoided == to && !reached)) {
                return Ok(req.into_response(course.refuse(error)));
            }
            if course.sent > 1 {
                tokio::time::sleep(NAP).await;
            }
        }
        let leaves = match &mut outgoing {
            Some(leaves) => leaves,
            None => match Outgoing::take(&state, caller, &mut req, course.waits_until, course.patience()).await {
                Ok(taken) => {
                    course.stood_still(taken.arriving);
                    outgoing.insert(taken)
                }
                Err(error) => return Ok(req.into_response(course.refuse(&error))),
            },
        };
        let sent = match !leaves.is_repeatable() && course.may_wait() && !course.is_ready(&to).await {
            true => Sent::not_reached(),
            false => leaves.send(&state, &to, course.patience(), course.left()).await,
        };
        course.sent += 1;
        match sent {
            Sent::Answered(response) => return Ok(req.into_response(response)),
            Sent::Refused(error) => return Ok(req.into_response(course.refuse(&error))),
            Sent::Lost => return Ok(req.into_response(course.refuse(&lost(&to)))),
            Sent::NotTaken(said) => {
                let (reached, error) = (said.is_some(), said.unwrap_or_else(|| lost(&to)));
                if !leaves.is_left() {
                    return Ok(req.into_response(course.refuse(&error)));
                }
                // Somebody else owns it by now, or will: looked at once more, and asked once more; more often only for those who wait.
                not_taken = Some((to, reached, error));
            }
        }
    }
}

/// What became of a request at this node.
enum Handled {
    Answered(ServiceResponse<BoxBody>),
    /// Not here any more.
    GoesOn(ServiceRequest),
}

/// Whose job a request is about, and how long it goes on.
struct Course {
    state: web::Data<AppState>,
    coordinator: Coordinator,
    job: JobId,
    path: String,
    is_hop: bool,
    /// Until then it waits for an owner that takes it: not at all, but for posts of clients that never repeat one.
    waits_until: Instant,
    /// Until when all of its waiting must be over, wherever that is, if its client set a bound.
    deadline: Option<Instant>,
    /// How long an answer of another node may take without such a bound.
    ordinary: Duration,
    sent: u32,
}

impl Course {
    /// None: the request is bound to no job's owner. Streams are joined to the owner's by their handler, which frames them anew.
    fn of(entry: &Entry, req: &ServiceRequest) -> Option<Course> {
        if !entry.path.contains(OF_A_JOB) || matches!(entry.access, Access::Streams(_)) {
            return None;
        }
        let JobPath(job) = JobPath::of(req.request())?;
        let state = req.app_data::<web::Data<AppState>>()?.clone();
        let is_hop = req.extensions().contains::<Hop>();
        let deadline = WaitsUntil::of(req.request());
        let waiting = deadline.filter(|_| *req.method() == Method::POST);
        let coordinator = match waiting {
            Some(until) => state.coordinator().patient(until),
            None => state.coordinator().clone(),
        };
        Some(Course {
            ordinary: patience(&state, req),
            coordinator,
            job,
            path: req.path().to_owned(),
            is_hop,
            waits_until: waiting.filter(|_| !is_hop).unwrap_or_else(Instant::now),
            deadline,
            state,
            sent: 0,
        })
    }

    fn may_wait(&self) -> bool {
        Instant::now() + NAP < self.waits_until
    }

    /// What is left of the client's bound.
    fn left(&self) -> Option<Duration> {
        self.deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// How long an answer of another node may take from now on.
    fn patience(&self) -> Duration {
        self.left().map_or(self.ordinary, |left| left + SLACK)
    }

    /// So long its body took to arrive: its client did not wait meanwhile.
    fn stood_still(&mut self, arriving: Duration) {
        if self.deadline.is_some() {
            self.deadline = self.deadline.map(|deadline| deadline + arriving);
            self.waits_until += arriving;
            self.coordinator = self.coordinator.patient(self.waits_until);
        }
    }

    /// Has this node's own handler answer.
    async fn handle<B: MessageBody + 'static>(&self, req: ServiceRequest, next: &Next<B>) -> Result<Handled, Error> {
        if let Some(deadline) = self.deadline {
            req.extensions_mut().insert(WaitsUntil(deadline));
        }
        let response = next.call(req).await?.map_into_boxed_body();
        let arrived = antenna::take_arrived(response.request());
        Ok(match self.goes_on(&response, arrived) {
            None => Handled::Answered(response),
            Some(body) => {
                let mut req = ServiceRequest::from_request(response.into_parts().0);
                req.set_payload(Payload::from(body));
                Handled::GoesOn(req)
            }
        })
    }

    /// The body to go on with, if this node's own handler found that the job is being moved and the client waits for its next owner.
    fn goes_on(&self, response: &ServiceResponse<BoxBody>, arrived: Option<Bytes>) -> Option<Bytes> {
        let error = ApiError::of_answer(response.response())?;
        let in_vain = error.problem().code == "draining" && self.is_in_vain(&CoordinatorError::Draining);
        if self.is_hop || !error.is_not_taken() || !self.may_wait() || in_vain {
            return None;
        }
        match body::has_body(response.request()) {
            true => arrived,
            false => Some(Bytes::new()),
        }
    }

    /// A node that ends, and there is no other: nobody will answer.
    fn is_in_vain(&self, error: &CoordinatorError) -> bool {
        matches!(error, CoordinatorError::Draining) && self.coordinator.neighbours().is_empty()
    }

    /// Would the node take it? Asked before a body leaves that cannot be sent again.
    async fn is_ready(&self, to: &Neighbour) -> bool {
        let asked = self.state.neighbours().wake(&self.coordinator, to, self.job);
        !matches!(asked.await, Err(CoordinatorError::NotOwner))
    }

    fn refuse(&self, error: &ApiError) -> HttpResponse {
        match self.is_hop {
            true => error.error_response(),
            false => error.response_at(&self.path),
        }
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
