//! Reading jobs, their tasks, facts and results.
//!
//! Owns: the read statements. Never: locks a row or writes. Invariant: each call is one short statement with a limit.

use super::Postgres;
use super::row::{self, narrow};
use crate::domain::ids::{JobId, QueueId, Run, Seq, TaskNo};
use crate::domain::job::JobRecord;
use crate::domain::rows::{Fact, Verdict};
use crate::store::{
    FailureRow, JobFilter, ReadStore, Result, ResultFilter, ResultRow, SavedSnapshot, SpentAttempt, TaskRow,
};
use async_trait::async_trait;

const JOB: &str = include_str!("queries/jobs/get.sql");
const JOBS: &str = include_str!("queries/jobs/list.sql");
const UNFINISHED: &str = include_str!("queries/jobs/list_unfinished.sql");
const SNAPSHOT: &str = include_str!("queries/snapshots/get.sql");
const FACTS: &str = include_str!("queries/facts/page.sql");
const TASKS: &str = include_str!("queries/tasks/get.sql");
const TASKS_BY_KEY: &str = include_str!("queries/tasks/by_key.sql");
const FAILURES: &str = include_str!("queries/results/failures.sql");
const LAST_ATTEMPTS: &str = include_str!("queries/attempts/last.sql");
const RESULTS: &str = include_str!("queries/results/page.sql");

#[async_trait]
impl ReadStore for Postgres {
    async fn job(&self, job: JobId) -> Result<Option<JobRecord>> {
        let row = self.reader().await?.first(JOB, &[&job.0]).await?;
        row.as_ref().map(row::job).transpose()
    }

    async fn list_jobs(&self, filter: &JobFilter) -> Result<Vec<JobRecord>> {
        let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
        let states = (!states.is_empty()).then_some(states);
        let (label, value) = filter.label.as_ref().map(|(key, value)| (key, value)).unzip();
        let before = filter.before.map(|job| job.0);
        let rows = self
            .reader()
            .await?
            .query(
                JOBS,
                &[
                    &states,
                    &filter.queue,
                    &filter.queues,
                    &label,
                    &value,
                    &filter.q,
                    &before,
                    &i64::from(filter.limit),
                ],
            )
            .await?;
        rows.iter().map(row::job).collect()
    }

    async fn list_unfinished(&self, queue: QueueId, after: JobId, limit: u32) -> Result<Vec<JobId>> {
        let rows = self
            .reader()
            .await?
            .query(UNFINISHED, &[&queue.0, &after.0, &i64::from(limit)])
            .await?;
        Ok(rows.iter().map(|row| JobId(row.get(0))).collect())
    }

    async fn snapshot(&self, job: JobId) -> Result<Option<SavedSnapshot>> {
        let row = self.reader().await?.first(SNAPSHOT, &[&job.0]).await?;
        Ok(row.map(|row| SavedSnapshot {
            version: row.get("version"),
            bytes: row.get("bytes"),
        }))
    }

    async fn facts(&self, job: JobId, after: Seq, limit: u32) -> Result<Vec<Fact>> {
        let rows = self
            .reader()
            .await?
            .query(FACTS, &[&job.0, &after.0, &i64::from(limit)])
            .await?;
        rows.iter().map(row::fact).collect()
    }

    async fn tasks(&self, job: JobId, tasks: &[TaskNo], max_bytes: usize) -> Result<Vec<TaskRow>> {
        // A number that does not fit names no task.
        let tasks: Vec<i32> = tasks.iter().filter_map(|task| i32::try_from(task.0).ok()).collect();
        let rows = self
            .reader()
            .await?
            .query(TASKS, &[&job.0, &tasks, &bytes(max_bytes)])
            .await?;
        rows.iter().map(row::task).collect()
    }

    async fn tasks_by_key(&self, job: JobId, keys: &[String]) -> Result<Vec<(String, TaskNo)>> {
        let rows = self.reader().await?.query(TASKS_BY_KEY, &[&job.0, &keys]).await?;
        rows.iter().map(row::keyed_task).collect()
    }

    async fn results(&self, filter: &ResultFilter) -> Result<Vec<ResultRow>> {
        let verdict = filter.verdict.map(|verdict| verdict == Verdict::Succeeded);
        let after = filter.after.map_or(Ok(-1), |task| narrow("task", task.0))?;
        let rows = self
            .reader()
            .await?
            .query(
                RESULTS,
                &[
                    &filter.job.0,
                    &narrow("run", filter.base_run.0)?,
                    &narrow("run", filter.run.0)?,
                    &verdict,
                    &after,
                    &i64::from(filter.limit),
                    &bytes(filter.max_bytes),
                ],
            )
            .await?;
        rows.iter().map(row::result).collect()
    }

    async fn failures(&self, job: JobId, run: Run, limit: u32, max_chars: u32) -> Result<Vec<FailureRow>> {
        let (run, chars) = (narrow("run", run.0)?, narrow("max_chars", max_chars)?);
        let rows = self
            .reader()
            .await?
            .query(FAILURES, &[&job.0, &run, &i64::from(limit), &chars])
            .await?;
        rows.iter().map(row::failure).collect()
    }

    async fn last_attempts(&self, job: JobId, run: Run, tasks: &[TaskNo]) -> Result<Vec<SpentAttempt>> {
        let tasks: Vec<i32> = tasks.iter().filter_map(|task| i32::try_from(task.0).ok()).collect();
        let run = narrow("run", run.0)?;
        let rows = self
            .reader()
            .await?
            .query(LAST_ATTEMPTS, &[&job.0, &run, &tasks])
            .await?;
        rows.iter().map(row::spent_attempt).collect()
    }
}

fn bytes(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}
