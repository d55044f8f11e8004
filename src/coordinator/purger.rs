//! The rows that deleted jobs leave behind, and large results that nobody refers to, removed in pieces.
//!
//! Owns: when they are removed. Never: decides that a job is deleted; removes so much at once that other writes wait. Invariant: what a
//! crash left over is purged after the next start.

use super::shared::Shared;
use crate::store::StoreError;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rows in one transaction.
const ROWS_AT_ONCE: u32 = 2_000;
/// Pieces of large results in one transaction: four MiB or so.
const PIECES_AT_ONCE: u32 = 16;
const RETRY: Duration = Duration::from_secs(1);
/// Bounds how late a draining node sees that it drains.
const NAP: Duration = Duration::from_secs(5);
/// How often large results are looked for that grew old without a reference.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Purges after the start, after every deletion and every so often, until the node drains.
pub(super) async fn run(shared: Arc<Shared>) {
    let interval = SWEEP_INTERVAL.min(shared.settings.orphan_blob_age).max(RETRY);
    let nap = NAP.min(interval);
    let (mut pending, mut swept) = (true, Instant::now());
    while !shared.is_draining() {
        if !pending {
            let asked = tokio::time::timeout(nap, shared.purge_now.notified()).await.is_ok();
            pending = asked || swept.elapsed() >= interval;
            continue;
        }
        swept = Instant::now();
        match purge(&shared).await {
            Ok(more) => pending = more,
            Err(error) if error.is_retryable() => tokio::time::sleep(RETRY).await,
            Err(error) => {
                tracing::error!(%error, "rows of deleted jobs cannot be removed");
                pending = false;
            }
        }
    }
}

/// One step; answers whether there may be more to do.
async fn purge(shared: &Shared) -> Result<bool, StoreError> {
    let rows = shared.store.purge_deleted(ROWS_AT_ONCE).await?;
    let age_ms = i64::try_from(shared.settings.orphan_blob_age.as_millis()).unwrap_or(i64::MAX);
    let before = shared.clock.now().plus_ms(age_ms.saturating_neg());
    let blobs = shared.store.sweep_blobs(before, PIECES_AT_ONCE).await?;
    Ok(rows || blobs)
}
