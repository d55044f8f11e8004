//! The write half of the contract, one file per transaction.
//!
//! Owns: nothing but the table of contents. Never: runs a statement. Invariant: none of its own.

use super::{Postgres, append, commit, create, delete, snapshots};
use crate::domain::ids::{JobId, Run};
use crate::domain::job::{Fence, NewJob, NewTask};
use crate::domain::rows::JobBatch;
use crate::store::{Appended, BatchAnswer, Created, Idempotency, JobStore, Result, SnapshotRow};
use async_trait::async_trait;

#[async_trait]
impl JobStore for Postgres {
    async fn create_job(&self, job: &NewJob, idempotency: Option<&Idempotency>) -> Result<Created> {
        create::create(self, job, idempotency).await
    }

    async fn append_tasks(&self, job: JobId, fence: Fence, first_task: u32, tasks: &[NewTask]) -> Result<Appended> {
        append::append(self, job, fence, first_task, tasks).await
    }

    async fn commit(&self, batches: &[JobBatch]) -> Result<Vec<BatchAnswer>> {
        commit::commit(self, batches).await
    }

    async fn save_snapshots(&self, snapshots: &[SnapshotRow]) -> Result<Vec<BatchAnswer>> {
        snapshots::save(self, snapshots).await
    }

    async fn delete_job(&self, job: JobId, fence: Fence, run: Run) -> Result<()> {
        delete::delete(self, job, fence, run).await
    }

    async fn purge_deleted(&self, limit: u32) -> Result<bool> {
        delete::purge(self, limit).await
    }
}
