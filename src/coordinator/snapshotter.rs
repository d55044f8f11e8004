//! Coalesced snapshots: many changed jobs in one transaction, every few seconds.
//!
//! Owns: when jobs are saved. Never: decides what is in a snapshot. Invariant: losing a snapshot loses no result, only the memory of
//! leases; the last ones, written when the node drains, must not be lost.

use super::job_actor::TakeSnapshot;
use super::shared::Shared;
use crate::domain::ids::JobId;
use crate::store::{BatchAnswer, SnapshotRow, StoreError};
use actix::Recipient;
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Jobs and bytes in one transaction.
const JOBS_AT_ONCE: usize = 256;
const BYTES_AT_ONCE: usize = 8 << 20;
const RETRY: Duration = Duration::from_millis(200);

/// Saves changed jobs until the node drains.
pub(super) async fn run(shared: Arc<Shared>) {
    while !shared.is_draining() {
        let early = shared.snapshot_now.notified();
        let _ = tokio::time::timeout(shared.settings.snapshot_interval, early).await;
        if shared.is_store_up()
            && let Err(error) = save_dirty(&shared, Instant::now() + shared.settings.store_wait).await
        {
            tracing::warn!(%error, "snapshots could not be saved; they will be tried again");
        }
    }
}

/// Saves every job that changed since it was last saved.
pub(super) async fn save_dirty(shared: &Shared, deadline: Instant) -> Result<(), StoreError> {
    let _one_at_a_time = shared.saving.lock().await;
    let mut dirty = shared.take_dirty();
    while !dirty.is_empty() {
        let rest = dirty.split_off(dirty.len().min(JOBS_AT_ONCE));
        let result = save_some(shared, &dirty, deadline).await;
        if let Err(error) = result {
            for (job, actor) in dirty.into_iter().chain(rest) {
                shared.mark_dirty(job, actor);
            }
            return Err(error);
        }
        dirty = rest;
    }
    Ok(())
}

/// Saves those of a queue's jobs that changed since they were last saved.
pub(super) async fn save_jobs(shared: &Shared, jobs: &[JobId], deadline: Instant) -> Result<(), StoreError> {
    let _one_at_a_time = shared.saving.lock().await;
    let mut dirty = shared.take_dirty_of(jobs);
    while !dirty.is_empty() {
        let rest = dirty.split_off(dirty.len().min(JOBS_AT_ONCE));
        save_some(shared, &dirty, deadline).await?;
        dirty = rest;
    }
    Ok(())
}

async fn save_some(
    shared: &Shared,
    jobs: &[(JobId, Recipient<TakeSnapshot>)],
    deadline: Instant,
) -> Result<(), StoreError> {
    let taken = join_all(jobs.iter().map(|(_, actor)| actor.send(TakeSnapshot))).await;
    let mut rows: Vec<SnapshotRow> = taken.into_iter().flatten().flatten().collect();
    while !rows.is_empty() {
        let mut bytes = 0;
        let fit = rows.iter().take_while(|row| {
            let fits = bytes == 0 || bytes + row.bytes.len() <= BYTES_AT_ONCE;
            bytes += row.bytes.len();
            fits
        });
        let rest = rows.split_off(fit.count());
        save_until(shared, rows, deadline).await?;
        rows = rest;
    }
    Ok(())
}

async fn save_until(shared: &Shared, mut rows: Vec<SnapshotRow>, deadline: Instant) -> Result<(), StoreError> {
    loop {
        match shared.store.save_snapshots(&rows).await {
            Ok(answers) => {
                let of = |kind| answers.iter().filter(|answer| **answer == kind).count();
                if of(BatchAnswer::Fenced) > 0 {
                    let fenced = of(BatchAnswer::Fenced);
                    tracing::warn!(fenced, "snapshots of queues that belong to another node were not saved");
                }
                metrics::counter!("tallykeeper_snapshots_total").increment(of(BatchAnswer::Committed) as u64);
                let mut answers = answers.into_iter();
                rows.retain(|_| answers.next() == Some(BatchAnswer::Blocked));
                if rows.is_empty() {
                    return Ok(());
                }
                if Instant::now() >= deadline {
                    return Err(StoreError::Unavailable("take-overs of queues are under way".into()));
                }
                tokio::time::sleep(RETRY).await;
            }
            Err(error) if error.is_retryable() && Instant::now() < deadline => tokio::time::sleep(RETRY).await,
            Err(error) => return Err(error),
        }
    }
}
