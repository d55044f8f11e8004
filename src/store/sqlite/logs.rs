//! Logs of jobs.
//!
//! Owns: their rows. Never: touches a job's row. Invariant: an entry is never changed.

use super::Sqlite;
use crate::domain::ids::{JobId, TaskNo, UnixMs};
use crate::domain::logs::{Entry, Level, Source};
use crate::store::{LogFilter, LogRow, LogStore, Result, StoreError};
use async_trait::async_trait;
use rusqlite::{Row, params};

#[async_trait]
impl LogStore for Sqlite {
    async fn append_logs(&self, entries: &[Entry]) -> Result<()> {
        let entries = entries.to_vec();
        self.writer
            .transact(move |tx| {
                let mut insert = tx.prepare_cached(include_str!("queries/logs/insert.sql"))?;
                for entry in &entries {
                    insert.execute(params![
                        entry.job.0,
                        entry.at.0,
                        entry.level.number(),
                        entry.source.as_str(),
                        entry.worker,
                        entry.task.map(|task| task.0),
                        entry.message,
                    ])?;
                }
                Ok(())
            })
            .await
    }

    async fn logs(&self, filter: &LogFilter) -> Result<Vec<LogRow>> {
        let filter = filter.clone();
        self.readers
            .run(move |db| {
                let (job, level) = (filter.job.0, filter.level.number());
                let from_row = |row: &Row<'_>| from_row(filter.job, row);
                let Some(after) = filter.after else {
                    let mut newest = db
                        .prepare_cached(include_str!("queries/logs/tail.sql"))?
                        .query_and_then(params![job, level, filter.limit], from_row)?
                        .collect::<Result<Vec<_>>>()?;
                    newest.reverse();
                    return Ok(newest);
                };
                db.prepare_cached(include_str!("queries/logs/page.sql"))?
                    .query_and_then(params![job, after, level, filter.limit], from_row)?
                    .collect()
            })
            .await
    }

    async fn trim_logs(&self, job: JobId, keep: u32) -> Result<()> {
        self.writer
            .transact(move |tx| {
                tx.prepare_cached(include_str!("queries/logs/trim.sql"))?
                    .execute(params![job.0, keep])?;
                Ok(())
            })
            .await
    }
}

/// Reads a row of `logs/page.sql` or `logs/tail.sql`.
fn from_row(job: JobId, row: &Row<'_>) -> Result<LogRow> {
    let level: i16 = row.get(2)?;
    let source: String = row.get(3)?;
    let entry = Entry {
        job,
        at: UnixMs(row.get(1)?),
        level: Level::from_number(level).ok_or_else(|| StoreError::Corrupt(format!("level {level}")))?,
        source: Source::parse(&source).ok_or_else(|| StoreError::Corrupt(format!("source {source:?}")))?,
        worker: row.get(4)?,
        task: row.get::<_, Option<u32>>(5)?.map(TaskNo),
        message: row.get(6)?,
    };
    let id = row.get(0)?;
    Ok(LogRow { id, entry })
}
