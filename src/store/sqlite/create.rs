//! Creating a job with its first tasks.
//!
//! Owns: the one transaction of `create_job`. Never: changes a job that exists. Invariant: an idempotency key and the job it stands for
//! are written together, so a key never points to a job that is not there.

use super::append::insert_tasks;
use super::commit::insert_event;
use super::record::{self, to_json};
use crate::domain::callback::Event;
use crate::domain::ids::JobId;
use crate::domain::job::NewJob;
use crate::domain::state::State;
use crate::store::{Created, Idempotency, Result, StoreError};
use rusqlite::{OptionalExtension, Transaction, params};

pub(super) fn create(tx: &Transaction<'_>, job: &NewJob, idempotency: Option<&Idempotency>) -> Result<Created> {
    if let Some(idempotency) = idempotency
        && let Some(before) = find_before(tx, idempotency)?
    {
        return Ok(before);
    }
    let id = insert(tx, job)?;
    let added = insert_tasks(tx, id, 0, &job.tasks)?;
    if added as usize != job.tasks.len() {
        return Err(StoreError::Rejected("a task's key occurs twice".into()));
    }
    if let Some(idempotency) = idempotency {
        tx.prepare_cached(include_str!("queries/idempotency/insert.sql"))?
            .execute(params![
                idempotency.scope,
                idempotency.key,
                idempotency.body_sha256.as_slice(),
                id.0,
                job.created_at.0
            ])?;
    }
    let record = record::find(tx, id)?.ok_or(StoreError::NotFound("job"))?;
    if record.state.is_final() {
        insert_event(tx, &Event::of(&record))?;
    }
    Ok(Created::New(record))
}

/// What the key stands for already, if anything.
fn find_before(tx: &Transaction<'_>, idempotency: &Idempotency) -> Result<Option<Created>> {
    let found = tx
        .prepare_cached(include_str!("queries/idempotency/get.sql"))?
        .query_row(params![idempotency.scope, idempotency.key], |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, JobId(row.get(1)?)))
        })
        .optional()?;
    match found {
        None => Ok(None),
        Some((sha, _)) if sha != idempotency.body_sha256 => Ok(Some(Created::Mismatch)),
        Some((_, id)) => {
            let record = record::find(tx, id)?.ok_or(StoreError::NotFound("job"))?;
            Ok(Some(Created::Existing(record)))
        }
    }
}

fn insert(tx: &Transaction<'_>, job: &NewJob) -> Result<JobId> {
    let queue_id: i32 = tx
        .prepare_cached(include_str!("queries/queues/ensure.sql"))?
        .query_row([&job.queue], |row| row.get(0))?;
    let total =
        u32::try_from(job.tasks.len()).map_err(|_| StoreError::Rejected("more tasks than can be numbered".into()))?;
    let started_at = (job.state != State::Pending).then_some(job.created_at.0);
    let finished_at = job.state.is_final().then_some(job.created_at.0);
    let id = tx
        .prepare_cached(include_str!("queries/jobs/insert.sql"))?
        .insert(params![
            job.name,
            job.name.to_lowercase(),
            queue_id,
            job.state.as_str(),
            job.priority,
            job.open,
            job.expected_total,
            to_json(&job.stages)?,
            to_json(&job.policy)?,
            to_json(&job.labels)?,
            job.callback_url,
            total,
            job.start_at.map(|at| at.0),
            job.created_at.0,
            started_at,
            finished_at,
        ])?;
    Ok(JobId(id))
}
