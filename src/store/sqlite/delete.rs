//! Deleting jobs.
//!
//! Owns: the end of a job's rows. Never: removes more than a bounded piece at once, since every other write waits meanwhile. Invariant: the
//! row goes first and leaves a note, so that what a crash left over is found and purged later.

use super::fence::Fences;
use crate::domain::ids::{JobId, Run};
use crate::domain::job::Fence;
use crate::store::{Result, StoreError};
use rusqlite::{OptionalExtension, Transaction, params};

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

pub(super) fn delete(tx: &Transaction<'_>, job: JobId, fence: Fence, run: Run) -> Result<()> {
    if !Fences::new(tx)?.holds(fence)? {
        return Err(StoreError::Fenced(format!("queue {} has another epoch", fence.queue)));
    }
    let deleted = tx
        .prepare_cached(include_str!("queries/jobs/delete.sql"))?
        .execute(params![job.0, fence.queue.0, run.0])?;
    if deleted == 0 {
        let exists = tx
            .prepare_cached(include_str!("queries/jobs/total.sql"))?
            .exists([job.0])?;
        return Err(match exists {
            true => StoreError::Conflict(format!("job {job} is not final in run {run}")),
            false => StoreError::NotFound("job"),
        });
    }
    for sql in [
        include_str!("queries/snapshots/delete.sql"),
        include_str!("queries/idempotency/delete.sql"),
        include_str!("queries/deleted/insert.sql"),
    ] {
        tx.prepare_cached(sql)?.execute([job.0])?;
    }
    Ok(())
}

pub(super) fn purge(tx: &Transaction<'_>, limit: u32) -> Result<bool> {
    let first: Option<i64> = tx
        .prepare_cached(include_str!("queries/deleted/first.sql"))?
        .query_row([], |row| row.get(0))
        .optional()?;
    let Some(job) = first else { return Ok(false) };
    for sql in PIECES {
        if tx.prepare_cached(sql)?.execute(params![job, limit])? > 0 {
            return Ok(true);
        }
    }
    tx.prepare_cached(include_str!("queries/deleted/done.sql"))?
        .execute([job])?;
    Ok(true)
}
