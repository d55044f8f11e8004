//! Tickets: what a browser opens a stream with, since it can send no header then.
//!
//! Owns: making and redeeming them. Never: gives one more rights than the token it was made with, or keeps its secret. Invariant: a
//! ticket opens one stream, at one path, within its lifetime, as long as its token is in force.

use super::auth::{Access, Caller, secret};
use super::error::{ApiError, ApiResult};
use super::extract::{Small, json_with};
use super::routes;
use super::state::AppState;
use super::wire;
use crate::store::TicketRow;
use actix_web::http::header;
use actix_web::{HttpResponse, web};

/// The query parameter that holds a ticket.
pub const PARAMETER: &str = "ticket";

/// `POST /v1/tickets`
pub async fn create(
    state: web::Data<AppState>,
    caller: Caller,
    Small(wire::CreateTicket { path }): Small<wire::CreateTicket>,
) -> ApiResult<HttpResponse> {
    let access = routes::get_at(&path).map(|entry| entry.access);
    let Some(Access::Streams(scope)) = access else {
        return Err(ApiError::invalid(
            "path",
            "the path of a stream, such as /v1/jobs/1/progress, without a query",
        ));
    };
    if !caller.may(scope) {
        return Err(ApiError::forbidden(format!("the token lacks the scope {scope}")));
    }
    let (now, ticket) = (state.now(), secret::new_ticket());
    let lifetime_ms = i64::try_from(state.settings().ticket_lifetime_ms).unwrap_or(i64::MAX);
    let row = TicketRow {
        hash: secret::hash(&ticket),
        token_id: caller.token_id().to_owned(),
        path,
        expires_at: now.plus_ms(lifetime_ms),
    };
    state.coordinator().store().create_ticket(&row, now).await?;
    let created = wire::TicketCreated {
        ticket,
        expires_at: row.expires_at.into(),
    };
    let mut response = HttpResponse::Created();
    response.insert_header((header::CACHE_CONTROL, "no-store"));
    json_with(response, &created)
}

/// Uses a ticket up for a request of this path; answers whose it was.
pub async fn redeem(state: &AppState, ticket: &str, path: &str) -> ApiResult<Caller> {
    let refused = || ApiError::unauthenticated("the ticket is unknown, used, expired, or for another path");
    let taken = state.coordinator().store().take_ticket(&secret::hash(ticket)).await?;
    let row = taken.ok_or_else(refused)?;
    let now = state.now();
    if row.path != path || now >= row.expires_at {
        return Err(refused());
    }
    state
        .tokens()
        .caller(&row.token_id, now, state.is_loopback_only())
        .await
}
