//! Appending one chunk of tasks to a job.
//!
//! Owns: numbering, and the dropping of keys that exist. Never: renumbers a task. Invariant: after every transaction a job's tasks are
//! numbered `0..total` without a gap.

use super::fence::Fences;
use crate::domain::ids::JobId;
use crate::domain::job::{Fence, NewTask};
use crate::store::{Appended, Result, StoreError};
use rusqlite::{OptionalExtension, Transaction, params};

pub(super) fn append(
    tx: &Transaction<'_>,
    job: JobId,
    fence: Fence,
    first_task: u32,
    tasks: &[NewTask],
) -> Result<Appended> {
    if !Fences::new(tx)?.holds(fence)? {
        return Err(StoreError::Fenced(format!("queue {} has another epoch", fence.queue)));
    }
    let (total, queue): (u32, i32) = tx
        .prepare_cached(include_str!("queries/jobs/total.sql"))?
        .query_row([job.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?
        .ok_or(StoreError::NotFound("job"))?;
    if queue != fence.queue.0 {
        return Err(StoreError::Fenced(format!("job {job} is not in queue {}", fence.queue)));
    }
    if total != first_task {
        return Ok(Appended::WrongFirstTask { total });
    }
    let added = insert_tasks(tx, job, first_task, tasks)?;
    tx.prepare_cached(include_str!("queries/jobs/set_total.sql"))?
        .execute(params![job.0, first_task, first_task + added])?;
    Ok(Appended::Done {
        added,
        existing: tasks.len() as u32 - added,
    })
}

/// Inserts tasks numbered densely from `first`, passing over those whose key the job has; returns how many were added.
pub(super) fn insert_tasks(tx: &Transaction<'_>, job: JobId, first: u32, tasks: &[NewTask]) -> Result<u32> {
    let fits = u32::try_from(tasks.len()).is_ok_and(|count| first.checked_add(count).is_some());
    if !fits {
        return Err(StoreError::Rejected("more tasks than can be numbered".into()));
    }
    let mut insert = tx.prepare_cached(include_str!("queries/tasks/insert.sql"))?;
    let mut next = first;
    for task in tasks {
        // A key that exists leaves the statement without effect, whether it came before or earlier in this chunk.
        next += insert.execute(params![job.0, next, task.key, task.payload])? as u32;
    }
    Ok(next - first)
}
