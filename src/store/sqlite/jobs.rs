//! Writing jobs: the trait's methods, each one transaction on the writer.
//!
//! Owns: handing a copy of the arguments to the writer's thread. Never: writes outside a transaction. Invariant: see [`JobStore`].

use super::fence::Fences;
use super::{Sqlite, append, commit, create, delete};
use crate::domain::ids::{JobId, Run};
use crate::domain::job::{Fence, NewJob, NewTask};
use crate::domain::rows::JobBatch;
use crate::store::{Appended, BatchAnswer, Created, Idempotency, JobStore, Result, SnapshotRow};
use async_trait::async_trait;
use rusqlite::{Transaction, params};

#[async_trait]
impl JobStore for Sqlite {
    async fn create_job(&self, job: &NewJob, idempotency: Option<&Idempotency>) -> Result<Created> {
        let (job, idempotency) = (job.clone(), idempotency.cloned());
        self.writer
            .transact(move |tx| create::create(tx, &job, idempotency.as_ref()))
            .await
    }

    async fn append_tasks(&self, job: JobId, fence: Fence, first_task: u32, tasks: &[NewTask]) -> Result<Appended> {
        let tasks = tasks.to_vec();
        self.writer
            .transact(move |tx| append::append(tx, job, fence, first_task, &tasks))
            .await
    }

    async fn commit(&self, batches: &[JobBatch]) -> Result<Vec<BatchAnswer>> {
        let batches = batches.to_vec();
        self.writer.transact(move |tx| commit::commit(tx, &batches)).await
    }

    async fn save_snapshots(&self, snapshots: &[SnapshotRow]) -> Result<Vec<BatchAnswer>> {
        let snapshots = snapshots.to_vec();
        self.writer.transact(move |tx| save_snapshots(tx, &snapshots)).await
    }

    async fn delete_job(&self, job: JobId, fence: Fence, run: Run) -> Result<()> {
        self.writer
            .transact(move |tx| delete::delete(tx, job, fence, run))
            .await
    }

    async fn purge_deleted(&self, limit: u32) -> Result<bool> {
        self.writer.transact(move |tx| delete::purge(tx, limit)).await
    }
}

fn save_snapshots(tx: &Transaction<'_>, snapshots: &[SnapshotRow]) -> Result<Vec<BatchAnswer>> {
    let mut fences = Fences::new(tx)?;
    let mut save = tx.prepare_cached(include_str!("queries/snapshots/save.sql"))?;
    let mut answers = Vec::with_capacity(snapshots.len());
    for row in snapshots {
        if !fences.holds(row.fence)? {
            answers.push(BatchAnswer::Fenced);
            continue;
        }
        save.execute(params![row.job.0, row.seq.0, row.version, row.bytes])?;
        answers.push(BatchAnswer::Committed);
    }
    Ok(answers)
}
