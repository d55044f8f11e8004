//! Logs of jobs.
//!
//! Owns: their rows. Never: touches or locks a job's row. Invariant: an entry is never changed.

use super::{Postgres, row};
use crate::domain::ids::JobId;
use crate::domain::logs::Entry;
use crate::store::{LogFilter, LogRow, LogStore, Result};
use async_trait::async_trait;

const INSERT: &str = include_str!("queries/logs/insert.sql");
const PAGE: &str = include_str!("queries/logs/page.sql");
const TAIL: &str = include_str!("queries/logs/tail.sql");
const TRIM: &str = include_str!("queries/logs/trim.sql");

#[async_trait]
impl LogStore for Postgres {
    async fn append_logs(&self, entries: &[Entry]) -> Result<()> {
        let column = |number: fn(&Entry) -> i64| entries.iter().map(number).collect::<Vec<i64>>();
        let jobs = column(|entry| entry.job.0);
        let moments = column(|entry| entry.at.0);
        let levels: Vec<i16> = entries.iter().map(|entry| entry.level.number()).collect();
        let sources: Vec<&str> = entries.iter().map(|entry| entry.source.as_str()).collect();
        let workers: Vec<Option<&str>> = entries.iter().map(|entry| entry.worker.as_deref()).collect();
        let tasks: Vec<Option<i64>> = entries.iter().map(|entry| entry.task.map(|t| i64::from(t.0))).collect();
        let messages: Vec<&str> = entries.iter().map(|entry| entry.message.as_str()).collect();
        self.writer()
            .await?
            .execute(
                INSERT,
                &[&jobs, &moments, &levels, &sources, &workers, &tasks, &messages],
            )
            .await
            .map(drop)
    }

    async fn logs(&self, filter: &LogFilter) -> Result<Vec<LogRow>> {
        let (job, level, limit) = (filter.job.0, filter.level.number(), i64::from(filter.limit));
        let session = self.reader().await?;
        let Some(after) = filter.after else {
            let rows = session.query(TAIL, &[&job, &level, &limit]).await?;
            return rows.iter().rev().map(|row| row::log(filter.job, row)).collect();
        };
        let rows = session.query(PAGE, &[&job, &after, &level, &limit]).await?;
        rows.iter().map(|row| row::log(filter.job, row)).collect()
    }

    async fn trim_logs(&self, job: JobId, keep: u32) -> Result<()> {
        self.writer()
            .await?
            .execute(TRIM, &[&job.0, &i64::from(keep)])
            .await
            .map(drop)
    }
}
