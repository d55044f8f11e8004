//! A job's row as a [`JobRecord`].
//!
//! Owns: how members become columns and back. Never: judges a value. Invariant: what was written is read back equal; a row that cannot
//! be read is `Corrupt`, never a default.

use crate::domain::ids::{JobId, QueueId, Run, Seq, UnixMs};
use crate::domain::job::{JobRecord, Tally};
use crate::domain::state::State;
use crate::store::{Result, StoreError};
use rusqlite::{Connection, OptionalExtension, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A member kept as JSON text.
pub(super) fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Rejected(error.to_string()))
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt(error.to_string()))
}

pub(super) fn parse_state(text: &str) -> Result<State> {
    text.parse().map_err(|_| StoreError::Corrupt(format!("state {text:?}")))
}

/// Reads a row of `jobs/get.sql` or `jobs/list.sql`.
pub(super) fn from_row(row: &Row<'_>) -> Result<JobRecord> {
    let text = |column: &str| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
    let moment = |column: &str| row.get::<_, Option<i64>>(column).map(|at| at.map(UnixMs));
    let error: Option<String> = row.get("error")?;
    Ok(JobRecord {
        id: JobId(row.get("id")?),
        name: row.get("name")?,
        queue: row.get("queue")?,
        queue_id: QueueId(row.get("queue_id")?),
        state: parse_state(text("state")?)?,
        run: Run(row.get("run")?),
        base_run: Run(row.get("base_run")?),
        priority: row.get("priority")?,
        open: row.get("open")?,
        expected_total: row.get("expected_total")?,
        stages: from_json(text("stages")?)?,
        policy: from_json(text("policy")?)?,
        labels: from_json(text("labels")?)?,
        callback_url: row.get("callback_url")?,
        tally: Tally {
            total: row.get("total")?,
            succeeded: row.get("succeeded")?,
            failed: row.get("failed")?,
            counters: from_json(text("counters")?)?,
            reached: from_json(text("reached")?)?,
        },
        error: error.as_deref().map(from_json).transpose()?,
        start_at: moment("start_at")?,
        cancel_at: moment("cancel_at")?,
        created_at: UnixMs(row.get("created_at")?),
        started_at: moment("started_at")?,
        finished_at: moment("finished_at")?,
        updated_at: UnixMs(row.get("updated_at")?),
        changed_seq: Seq(row.get("changed_seq")?),
    })
}

pub(super) fn find(db: &Connection, job: JobId) -> Result<Option<JobRecord>> {
    db.prepare_cached(include_str!("queries/jobs/get.sql"))?
        .query_row([job.0], |row| Ok(from_row(row)))
        .optional()?
        .transpose()
}
