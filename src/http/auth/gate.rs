//! The one door before every route.
//!
//! Owns: the order of the checks. Never: knows what a route does. Invariant: it is bound to the resource it guards, so no other match of
//! the path can lead around it.

use super::{Access, Caller, local};
use crate::coordinator::api::CoordinatorError;
use crate::http::antenna::{self, WaitsUntil};
use crate::http::envelope::RoutePattern;
use crate::http::error::{ApiError, ApiResult};
use crate::http::extract::Query;
use crate::http::forward;
use crate::http::hop::{HOP, Hop, NODE, Refusal, is_nodes_own};
use crate::http::routes::Entry;
use crate::http::state::AppState;
use crate::http::tickets;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{Method, header};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpRequest, ResponseError, web};
use bytes::Bytes;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

/// Lets a request through to the resource whose entries these are, or answers it. HEAD is a GET whose answer has lost its body.
pub async fn pass<B: MessageBody + 'static>(
    entries: &[&'static Entry],
    mut req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let is_head = *req.method() == Method::HEAD && entries.iter().any(|entry| entry.answers_head());
    if is_head {
        req.head_mut().method = Method::GET;
    }
    let response = admitted(entries, req, next).await?;
    Ok(match is_head {
        true => response.map_body(|_, body| NoBody(body.size()).boxed()),
        false => response,
    })
}

/// Empty, and as long as the body it stands for, if that is known.
struct NoBody(BodySize);

impl MessageBody for NoBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        match self.0 {
            // The end of its chunks would be written, which the client takes for the beginning of the next answer.
            BodySize::Stream => BodySize::None,
            known => known,
        }
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        Poll::Ready(None)
    }
}

async fn admitted<B: MessageBody + 'static>(
    entries: &[&'static Entry],
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let arrived = Instant::now();
    if let Some(entry) = entries.first() {
        req.extensions_mut().insert(RoutePattern(entry.path));
    }
    // A method without an entry reaches only the resource's answer 405.
    let Some(entry) = entries.iter().find(|entry| entry.method == *req.method()) else {
        return Ok(next.call(req).await?.map_into_boxed_body());
    };
    // Between nodes every refusal is a problem, whatever clients of the path are told: the other node reads it, and tells its client.
    let is_from_node = req.headers().contains_key(HOP) && entry.access != Access::Open;
    let admission = admit(entry.access, &req).await;
    match admission.and_then(|caller| check_query(entry, req.request()).map(|()| caller)) {
        Ok(caller) => {
            let state = req.app_data::<web::Data<AppState>>().expect("configure adds it");
            WaitsUntil::note(&req, state, arrived);
            req.extensions_mut().insert(caller.clone());
            let response = forward::carry_out(entry, &caller, req, &next).await?;
            let refused = ApiError::of_answer(response.response()).filter(|_| is_from_node);
            Ok(match refused.map(ApiError::error_response) {
                Some(problem) => response.into_response(problem),
                None => response,
            })
        }
        Err(error) => {
            let response = match is_from_node {
                true => error.error_response(),
                false => error.response_at(req.path()),
            };
            Ok(req.into_response(response))
        }
    }
}

async fn admit(access: Access, req: &ServiceRequest) -> ApiResult<Caller> {
    let state = req.app_data::<web::Data<AppState>>().expect("configure adds it");
    if let Some(proof) = req.headers().get(HOP).filter(|_| access != Access::Open) {
        let (caller, hop) = admit_hop(state, req, proof.to_str().unwrap_or("")).await?;
        req.extensions_mut().insert(hop);
        return check_scopes(access, caller);
    }
    let caller = match access {
        Access::Open => Caller::local(),
        Access::Needs(_) | Access::Streams(_) | Access::Either(..) | Access::WholeNode(_) => {
            let header = req.headers().get(header::AUTHORIZATION);
            let header = header.map(|value| value.to_str().unwrap_or(""));
            let loopback_only = state.is_loopback_only();
            let ticket = match (access, header) {
                (Access::Streams(_), None) => ticket_of(req)?,
                _ => None,
            };
            match ticket {
                Some(ticket) => tickets::redeem(state, &ticket, req.path()).await?,
                None => state.tokens().authenticate(header, state.now(), loopback_only).await?,
            }
        }
    };
    if state.tokens().are_stored() == Some(false) {
        local::check_request(req.request())?;
    }
    check_scopes(access, caller)
}

/// The caller of a request that another node has let in. That node has looked at the host and the origin.
async fn admit_hop(state: &AppState, req: &ServiceRequest, proof: &str) -> ApiResult<(Caller, Hop)> {
    let target = req.uri().path_and_query().map_or("", |target| target.as_str());
    let hops = state.neighbours().hops();
    match hops.check(proof, req.method().as_str(), target, state.now()) {
        Ok(NODE) => Ok((Caller::local(), Hop { by_node: true })),
        Ok(id) => {
            let caller = state.tokens().caller(id, state.now(), state.is_loopback_only());
            Ok((caller.await?, Hop { by_node: false }))
        }
        // Honest, as far as one can tell: whoever sent it looks again, and its caller may come back.
        Err(Refusal::Misdirected | Refusal::Stale) => Err(CoordinatorError::NotOwner.into()),
        Err(refusal) => {
            tracing::warn!(?refusal, "a proof of another node was refused");
            Err(ApiError::forbidden("not a request of a node of this store"))
        }
    }
}

fn check_scopes(access: Access, caller: Caller) -> ApiResult<Caller> {
    match access.scopes() {
        Some((scope, None)) if !caller.may(scope) => {
            Err(ApiError::forbidden(format!("the token lacks the scope {scope}")))
        }
        Some((one, Some(other))) if !caller.may(one) && !caller.may(other) => Err(ApiError::forbidden(format!(
            "the token lacks the scope {one} or {other}"
        ))),
        _ if matches!(access, Access::WholeNode(_)) && caller.queues().is_some() => Err(ApiError::forbidden(
            "this is about the whole node, and the token is bound to some queues",
        )),
        _ => Ok(caller),
    }
}

/// Refuses a parameter that the route does not have: it would be a filter or a bound that is silently not applied. Nodes add some of their
/// own, pages are opened with anything, and clients of the older API may send what they like.
fn check_query(entry: &Entry, req: &HttpRequest) -> ApiResult<()> {
    if req.query_string().is_empty() || entry.access == Access::Open || antenna::serves(entry.path) || is_nodes_own(req)
    {
        return Ok(());
    }
    Query::of(req)?.only(entry.query)
}

fn ticket_of(req: &ServiceRequest) -> ApiResult<Option<String>> {
    Query::of(req.request())?.one(tickets::PARAMETER)
}
