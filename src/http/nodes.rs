//! The server processes: listing them, and asking one to go.
//!
//! Owns: who is asked. Never: waits for a drain to end (it takes as long as work under way). Invariant: the node that is named drains, and
//! no other, whichever node is asked.

use super::auth::Caller;
use super::error::{ApiError, ApiResult};
use super::extract::{SmallOrDefault, json_with, ok_json};
use super::hop::is_hop;
use super::state::AppState;
use super::wire;
use crate::coordinator::api::CoordinatorError;
use actix_web::{HttpRequest, HttpResponse, web};
use std::time::Duration;

/// `GET /v1/nodes`
pub async fn list(state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let found = state.coordinator().nodes().await?;
    let shown = found.into_iter().map(|row| wire::Node {
        node: row.node,
        incarnation: row.incarnation,
        address: row.address,
        alive: row.alive,
        started_at: row.started_at.into(),
        seen_at: row.seen_at.into(),
    });
    ok_json(&wire::NodeList { items: shown.collect() })
}

/// `POST /v1/nodes/{node}/drain`
pub async fn drain(
    state: web::Data<AppState>,
    caller: Caller,
    path: web::Path<String>,
    req: HttpRequest,
    SmallOrDefault(wire::Empty {}): SmallOrDefault<wire::Empty>,
) -> ApiResult<HttpResponse> {
    let (coordinator, node) = (state.coordinator(), path.into_inner());
    if node == coordinator.node_id() {
        tracing::info!("asked to drain");
        coordinator.ask_to_drain();
    } else if is_hop(&req) {
        return Err(CoordinatorError::NotOwner.into());
    } else {
        let found = coordinator.find_neighbour(&node).await?;
        let found = found.ok_or_else(|| ApiError::not_found("living node"))?;
        let question = ("POST", req.path());
        let asking = state.neighbours().ask::<wire::Draining>(
            coordinator,
            &found,
            question,
            caller.token_id(),
            None::<&()>,
            Duration::ZERO,
        );
        asking.await?;
    }
    json_with(HttpResponse::Accepted(), &wire::Draining { node })
}
