//! What this node asks of the others.
//!
//! Owns: the questions. Never: knows how they travel (HTTP does). Invariant: every question is harmless to ask twice.

use super::api::{Granted, LeaseAny};
use super::owners::Neighbour;
use super::{Coordinator, Result};
use crate::domain::ids::JobId;
use async_trait::async_trait;

/// Speaks to other nodes. An answer is bounded in time; a neighbour that gives none is `NotOwner`.
#[async_trait]
pub trait Peers: Send + Sync {
    /// Makes sure that a new job has its actor.
    async fn wake(&self, from: &Coordinator, to: &Neighbour, job: JobId) -> Result<()>;

    /// Asks for work of queues that the neighbour owns; with `replay_only` only for the grant that this call got before.
    async fn lease(&self, from: &Coordinator, to: &Neighbour, call: &LeaseAny, replay_only: bool) -> Result<Granted>;

    /// Gives back leases that nobody received.
    async fn give_back(&self, from: &Coordinator, to: &Neighbour, job: JobId, leases: &[String]) -> Result<()>;
}
