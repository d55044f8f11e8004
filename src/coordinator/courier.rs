//! How an event leaves the node.
//!
//! Owns: the question. Never: knows how a call travels (HTTP does), or what its answer means (the domain does). Invariant: every call ends.

use crate::domain::callback::Heard;
use crate::domain::ids::UnixMs;
use crate::store::DueEvent;
use async_trait::async_trait;

/// Makes calls.
#[async_trait]
pub trait Courier: Send + Sync {
    /// Calls once, at `now` by the store's clock. Whatever goes wrong is an answer, in words that hold no secret.
    async fn call(&self, event: &DueEvent, now: UnixMs) -> Heard;
}
