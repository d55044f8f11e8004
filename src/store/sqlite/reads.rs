//! Reading jobs, on connections that cannot write.
//!
//! Owns: the trait's reads. Never: holds a read open longer than one call, since a long one keeps the write-ahead log from being folded
//! into the file. Invariant: see [`ReadStore`].

use super::record::{self, to_json};
use super::{Sqlite, results};
use crate::domain::ids::{Attempt, JobId, QueueId, Run, Seq, TaskNo, UnixMs};
use crate::domain::job::JobRecord;
use crate::domain::rows::{Cause, Fact, FactKind, Verdict};
use crate::domain::state::State;
use crate::store::{
    FailureRow, JobFilter, ReadStore, Result, ResultFilter, ResultRow, SavedSnapshot, SpentAttempt, StoreError, TaskRow,
};
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

#[async_trait]
impl ReadStore for Sqlite {
    async fn job(&self, job: JobId) -> Result<Option<JobRecord>> {
        self.readers.run(move |db| record::find(db, job)).await
    }

    async fn list_jobs(&self, filter: &JobFilter) -> Result<Vec<JobRecord>> {
        let filter = filter.clone();
        self.readers.run(move |db| list_jobs(db, &filter)).await
    }

    async fn list_unfinished(&self, queue: QueueId, after: JobId, limit: u32) -> Result<Vec<JobId>> {
        self.readers
            .run(move |db| {
                let ids = db
                    .prepare_cached(include_str!("queries/jobs/list_unfinished.sql"))?
                    .query_map(params![queue.0, after.0, limit], |row| row.get(0).map(JobId))?
                    .collect::<rusqlite::Result<_>>()?;
                Ok(ids)
            })
            .await
    }

    async fn snapshot(&self, job: JobId) -> Result<Option<SavedSnapshot>> {
        self.readers
            .run(move |db| {
                let read = |row: &rusqlite::Row<'_>| {
                    Ok(SavedSnapshot {
                        version: row.get("version")?,
                        bytes: row.get("bytes")?,
                    })
                };
                let saved = db
                    .prepare_cached(include_str!("queries/snapshots/get.sql"))?
                    .query_row([job.0], read)
                    .optional()?;
                Ok(saved)
            })
            .await
    }

    async fn facts(&self, job: JobId, after: Seq, limit: u32) -> Result<Vec<Fact>> {
        self.readers
            .run(move |db| {
                db.prepare_cached(include_str!("queries/facts/page.sql"))?
                    .query_and_then(params![job.0, after.0, limit], fact)?
                    .collect()
            })
            .await
    }

    async fn tasks(&self, job: JobId, tasks: &[TaskNo], max_bytes: usize) -> Result<Vec<TaskRow>> {
        let tasks = tasks.to_vec();
        self.readers.run(move |db| find_tasks(db, job, tasks, max_bytes)).await
    }

    async fn tasks_by_key(&self, job: JobId, keys: &[String]) -> Result<Vec<(String, TaskNo)>> {
        let keys = keys.to_vec();
        self.readers.run(move |db| find_keys(db, job, keys)).await
    }

    async fn results(&self, filter: &ResultFilter) -> Result<Vec<ResultRow>> {
        let filter = filter.clone();
        self.readers.run(move |db| results::page(db, &filter)).await
    }

    async fn failures(&self, job: JobId, run: Run, limit: u32, max_chars: u32) -> Result<Vec<FailureRow>> {
        self.readers
            .run(move |db| {
                let rows = db
                    .prepare_cached(include_str!("queries/results/failures.sql"))?
                    .query_map(params![job.0, run.0, limit, max_chars], |row| {
                        Ok(FailureRow {
                            task: TaskNo(row.get(0)?),
                            error: row.get(1)?,
                            worker: row.get(2)?,
                            at: UnixMs(row.get(3)?),
                        })
                    })?
                    .collect::<rusqlite::Result<_>>()?;
                Ok(rows)
            })
            .await
    }

    async fn last_attempts(&self, job: JobId, run: Run, tasks: &[TaskNo]) -> Result<Vec<SpentAttempt>> {
        let tasks = tasks.to_vec();
        self.readers.run(move |db| last_attempts(db, job, run, tasks)).await
    }
}

fn list_jobs(db: &Connection, filter: &JobFilter) -> Result<Vec<JobRecord>> {
    let states: Vec<&str> = filter.states.iter().copied().map(State::as_str).collect();
    let states = (!states.is_empty()).then(|| to_json(&states)).transpose()?;
    let queues = filter.queues.as_ref().map(to_json).transpose()?;
    let (label_key, label_value) = filter.label.as_ref().map(|(key, value)| (key, value)).unzip();
    let q = filter.q.as_ref().map(|q| q.to_lowercase());
    let before = filter.before.map_or(i64::MAX, |id| id.0);
    db.prepare_cached(include_str!("queries/jobs/list.sql"))?
        .query_and_then(
            params![
                states,
                filter.queue,
                queues,
                label_key,
                label_value,
                q,
                before,
                filter.limit
            ],
            record::from_row,
        )?
        .collect()
}

/// One lookup per task: their payloads may be large, and the reading ends in the middle of the list once enough bytes are there.
fn find_tasks(db: &Connection, job: JobId, mut tasks: Vec<TaskNo>, max_bytes: usize) -> Result<Vec<TaskRow>> {
    tasks.sort_unstable();
    tasks.dedup();
    let mut find = db.prepare_cached(include_str!("queries/tasks/get.sql"))?;
    let mut rows = Vec::new();
    let mut bytes = 0;
    for task in tasks {
        let found = find
            .query_row(params![job.0, task.0], |row| {
                let (key, payload) = (row.get(0)?, row.get(1)?);
                Ok(TaskRow { task, key, payload })
            })
            .optional()?;
        if let Some(row) = found {
            bytes += row.payload.len();
            rows.push(row);
        }
        if bytes > max_bytes {
            break;
        }
    }
    Ok(rows)
}

fn find_keys(db: &Connection, job: JobId, mut keys: Vec<String>) -> Result<Vec<(String, TaskNo)>> {
    keys.sort_unstable();
    keys.dedup();
    let mut find = db.prepare_cached(include_str!("queries/tasks/by_key.sql"))?;
    let mut found = Vec::new();
    for key in keys {
        let task = find.query_row(params![job.0, key], |row| row.get(0)).optional()?;
        found.extend(task.map(|task| (key, TaskNo(task))));
    }
    found.sort_unstable_by_key(|&(_, task)| task);
    Ok(found)
}

fn last_attempts(db: &Connection, job: JobId, run: Run, mut tasks: Vec<TaskNo>) -> Result<Vec<SpentAttempt>> {
    tasks.sort_unstable();
    tasks.dedup();
    let mut find = db.prepare_cached(include_str!("queries/attempts/last.sql"))?;
    let mut found = Vec::new();
    for task in tasks {
        let read = |row: &Row<'_>| -> Result<SpentAttempt> {
            Ok(SpentAttempt {
                task,
                attempt: row.get(0)?,
                cause: parse_cause(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?)?,
                worker: row.get(2)?,
                error: row.get(3)?,
                at: UnixMs(row.get(4)?),
            })
        };
        let row = find.query_row(params![job.0, run.0, task.0], |row| Ok(read(row)));
        found.extend(row.optional()?.transpose()?);
    }
    Ok(found)
}

pub(super) fn verdict(row: &Row<'_>, column: usize) -> rusqlite::Result<Verdict> {
    let succeeded = row.get(column)?;
    Ok(if succeeded { Verdict::Succeeded } else { Verdict::Failed })
}

fn parse_cause(text: &str) -> Result<Cause> {
    [Cause::Reported, Cause::Expired]
        .into_iter()
        .find(|cause| cause.as_str() == text)
        .ok_or_else(|| StoreError::Corrupt(format!("cause {text:?}")))
}

/// Reads a row of `facts/page.sql`: seq, run, task, kind, verdict, counters, attempt, cause, at.
fn fact(row: &Row<'_>) -> Result<Fact> {
    let text = |column: usize| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
    let counters = || row.get::<_, Option<Box<str>>>(5);
    let kind = match text(3)? {
        "outcome" => FactKind::Outcome {
            verdict: verdict(row, 4)?,
            counters: counters()?,
        },
        "attempt" => FactKind::Attempt {
            attempt: Attempt(row.get(6)?),
            cause: parse_cause(text(7)?)?,
            at: UnixMs(row.get(8)?),
        },
        "late" => FactKind::Late {
            verdict: verdict(row, 4)?,
            counters: counters()?,
        },
        other => return Err(StoreError::Corrupt(format!("fact {other:?}"))),
    };
    Ok(Fact {
        seq: Seq(row.get(0)?),
        run: Run(row.get(1)?),
        task: TaskNo(row.get(2)?),
        kind,
    })
}
