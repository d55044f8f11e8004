//! Appending a chunk of tasks.
//!
//! Owns: dedupe and dense numbering. Never: looks at payloads. Invariant: a job's tasks are numbered 0 to total - 1 without a gap, since
//! the guarded move of the total and the insert are one statement.

use super::Postgres;
use super::fence;
use super::row::{self, narrow};
use super::session::{Params, Session};
use crate::domain::ids::JobId;
use crate::domain::job::{Fence, NewTask};
use crate::store::{Appended, Result, StoreError};
use futures_util::future::join;
use std::collections::HashSet;
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

const APPEND: &str = include_str!("queries/tasks/append.sql");
const APPEND_KEYED: &str = include_str!("queries/tasks/append_keyed.sql");
const GET: &str = include_str!("queries/jobs/get.sql");

/// A chunk in columns, without the tasks whose key came earlier in it.
struct Chunk<'a> {
    keys: Vec<Option<&'a str>>,
    payloads: Vec<&'a str>,
}

impl<'a> Chunk<'a> {
    fn dedupe(tasks: &'a [NewTask]) -> Chunk<'a> {
        let mut seen = HashSet::new();
        let (keys, payloads) = tasks
            .iter()
            .filter(|task| task.key.as_deref().is_none_or(|key| seen.insert(key)))
            .map(|task| (task.key.as_deref(), task.payload.as_str()))
            .unzip();
        Chunk { keys, payloads }
    }

    fn has_keys(&self) -> bool {
        self.keys.iter().any(Option::is_some)
    }
}

pub(super) async fn append(
    store: &Postgres,
    job: JobId,
    fence: Fence,
    first_task: u32,
    tasks: &[NewTask],
) -> Result<Appended> {
    let chunk = Chunk::dedupe(tasks);
    let first = narrow("first_task", first_task)?;
    narrow("task", first_task.saturating_add(chunk.payloads.len() as u32))?;
    let session = store.writer().await?;
    let added = insert(&session, job, fence, first, &chunk).await;
    match session.settle(added).await? {
        Some(added) => Ok(Appended::Done {
            added,
            existing: tasks.len() as u32 - added,
        }),
        None => refused(&session, job, fence).await,
    }
}

/// How many tasks were added; none if the job is not where the caller thinks, and then nothing was written.
async fn insert(session: &Session, job: JobId, fence: Fence, first: i32, chunk: &Chunk<'_>) -> Result<Option<u32>> {
    let keyed = chunk.has_keys();
    let statement: Statement = session.prepare(if keyed { APPEND_KEYED } else { APPEND }).await?;
    let proof = fence::open(session, std::iter::once(fence)).await?;
    proof.require(fence)?;
    let keyed_params: [&(dyn ToSql + Sync); 5] = [&job.0, &fence.queue.0, &first, &chunk.keys, &chunk.payloads];
    let plain_params: [&(dyn ToSql + Sync); 4] = [&job.0, &fence.queue.0, &first, &chunk.payloads];
    let params: Params<'_> = if keyed { &keyed_params } else { &plain_params };
    // COMMIT need not wait for the answer: if the guard lets nothing through, nothing was written.
    let (rows, ended) = join(session.rows(&statement, params), session.commit()).await;
    let rows = rows?;
    ended?;
    let row = rows.first().ok_or(StoreError::NotFound("job"))?;
    let moved: i64 = row.get("moved");
    let added: i64 = row.get("added");
    Ok((moved > 0).then_some(added as u32))
}

/// Why the guard let nothing through.
async fn refused(session: &Session, job: JobId, fence: Fence) -> Result<Appended> {
    let row = session
        .first(GET, &[&job.0])
        .await?
        .ok_or(StoreError::NotFound("job"))?;
    let record = row::job(&row)?;
    if record.queue_id != fence.queue {
        return Err(StoreError::Fenced(format!("job {job} is not in queue {}", fence.queue)));
    }
    Ok(Appended::WrongFirstTask {
        total: record.tally.total,
    })
}
