//! Deleting jobs.
//!
//! Owns: the end of a job's rows. Never: holds a lock for longer than one bounded piece. Invariant: the row goes first and leaves a note,
//! so that what a crash left over is found and purged later.

use super::session::Session;
use super::{Postgres, fence, row};
use crate::domain::ids::{JobId, Run};
use crate::domain::job::Fence;
use crate::store::{Result, StoreError};

const DELETE: &str = include_str!("queries/jobs/delete.sql");
const GET: &str = include_str!("queries/jobs/get.sql");
const WITH_IT: [&str; 3] = [
    include_str!("queries/snapshots/delete.sql"),
    include_str!("queries/idempotency/delete.sql"),
    include_str!("queries/deleted/insert.sql"),
];
const FIRST: &str = include_str!("queries/deleted/first.sql");
const DONE: &str = include_str!("queries/deleted/done.sql");
/// Whatever belongs to a job besides its row.
const PIECES: [&str; 7] = [
    include_str!("queries/deleted/tasks.sql"),
    include_str!("queries/deleted/outcomes.sql"),
    include_str!("queries/deleted/attempts.sql"),
    include_str!("queries/deleted/late.sql"),
    include_str!("queries/deleted/blobs.sql"),
    include_str!("queries/deleted/logs.sql"),
    include_str!("queries/deleted/events.sql"),
];

pub(super) async fn delete(store: &Postgres, job: JobId, fence: Fence, run: Run) -> Result<()> {
    let session = store.writer().await?;
    let deleted = delete_row(&session, job, fence, run).await;
    if session.settle(deleted).await? {
        return Ok(());
    }
    match session.first(GET, &[&job.0]).await? {
        Some(_) => Err(StoreError::Conflict(format!("job {job} is not final in run {run}"))),
        None => Err(StoreError::NotFound("job")),
    }
}

/// False if the row is not where the caller thinks; then nothing was written.
async fn delete_row(session: &Session, job: JobId, fence: Fence, run: Run) -> Result<bool> {
    let run = row::narrow("run", run.0)?;
    let proof = fence::open(session, std::iter::once(fence)).await?;
    proof.require(fence)?;
    let deleted = session.first(DELETE, &[&job.0, &fence.queue.0, &run]).await?.is_some();
    if deleted {
        for sql in WITH_IT {
            session.execute(sql, &[&job.0]).await?;
        }
    }
    session.commit().await?;
    Ok(deleted)
}

pub(super) async fn purge(store: &Postgres, limit: u32) -> Result<bool> {
    let session = store.writer().await?;
    let Some(first) = session.first(FIRST, &[]).await? else {
        return Ok(false);
    };
    let job: i64 = first.get(0);
    for sql in PIECES {
        if session.execute(sql, &[&job, &i64::from(limit)]).await? > 0 {
            return Ok(true);
        }
    }
    session.execute(DONE, &[&job]).await?;
    Ok(true)
}
