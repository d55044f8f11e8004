//! The rows that deleted jobs leave behind, removed in pieces.
//!
//! Owns: when they are removed. Never: decides that a job is deleted; removes so much at once that other writes wait. Invariant: what a
//! crash left over is purged after the next start.

use super::shared::Shared;
use std::sync::Arc;
use std::time::Duration;

/// Rows in one transaction.
const ROWS_AT_ONCE: u32 = 2_000;
const RETRY: Duration = Duration::from_secs(1);
/// Bounds how late a draining node sees that it drains.
const NAP: Duration = Duration::from_secs(5);

/// Purges after the start and after every deletion, until the node drains.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut pending = true;
    while !shared.is_draining() {
        if !pending {
            pending = tokio::time::timeout(NAP, shared.purge_now.notified()).await.is_ok();
            continue;
        }
        match shared.store.purge_deleted(ROWS_AT_ONCE).await {
            Ok(more) => pending = more,
            Err(error) if error.is_retryable() => tokio::time::sleep(RETRY).await,
            Err(error) => {
                tracing::error!(%error, "rows of deleted jobs cannot be removed");
                pending = false;
            }
        }
    }
}
