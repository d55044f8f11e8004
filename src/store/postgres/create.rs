//! Creating a job with its first tasks.
//!
//! Owns: idempotency keys. Never: decides the initial state. Invariant: job, tasks, key and completion event appear together or not at
//! all.

use super::Postgres;
use super::gather::EventColumns;
use super::row::{self, narrow};
use super::session::Session;
use crate::domain::callback::Event;
use crate::domain::ids::{JobId, QueueId, Run, Seq};
use crate::domain::job::{JobRecord, NewJob, NewTask, Tally};
use crate::store::{Created, Idempotency, Result, StoreError};

const ENSURE_QUEUE: &str = include_str!("queries/queues/ensure.sql");
const INSERT_JOB: &str = include_str!("queries/jobs/insert.sql");
const INSERT_TASKS: &str = include_str!("queries/tasks/insert.sql");
const INSERT_EVENTS: &str = include_str!("queries/events/insert.sql");
const GET_KEY: &str = include_str!("queries/idempotency/get.sql");
const INSERT_KEY: &str = include_str!("queries/idempotency/insert.sql");
const GET_JOB: &str = include_str!("queries/jobs/get.sql");

/// Tasks per insert: enough to hide the round trip, few enough to keep memory flat.
const CHUNK: usize = 2_000;
/// A queue that is being created by somebody else shows up as soon as that transaction has ended; more rounds than this mean trouble.
const ENSURE_ROUNDS: usize = 10;

pub(super) async fn create(store: &Postgres, job: &NewJob, key: Option<&Idempotency>) -> Result<Created> {
    let session = store.writer().await?;
    if let Some(key) = key
        && let Some(found) = existing(&session, key).await?
    {
        return Ok(found);
    }
    let queue = ensure_queue(&session, &job.queue).await?;
    let created = insert(&session, job, queue, key).await;
    match (session.settle(created).await?, key) {
        (Some(record), _) => Ok(Created::New(record)),
        // Somebody used the key while this transaction ran.
        (None, Some(key)) => existing(&session, key)
            .await?
            .ok_or_else(|| StoreError::Unavailable("the job of this idempotency key is being created".into())),
        (None, None) => Err(StoreError::Corrupt("a job without a key met one".into())),
    }
}

/// The queue's row, which is made if there is none. Outside the job's transaction, so that creators of jobs never wait for each other.
pub(super) async fn ensure_queue(session: &Session, queue: &str) -> Result<QueueId> {
    for _ in 0..ENSURE_ROUNDS {
        if let Some(row) = session.first(ENSURE_QUEUE, &[&queue]).await? {
            return Ok(QueueId(row.get(0)));
        }
    }
    Err(StoreError::Unavailable(format!("queue {queue} cannot be created")))
}

async fn existing(session: &Session, key: &Idempotency) -> Result<Option<Created>> {
    let Some(row) = session.first(GET_KEY, &[&key.scope, &key.key]).await? else {
        return Ok(None);
    };
    if row.get::<_, &[u8]>("body_sha256") != key.body_sha256 {
        return Ok(Some(Created::Mismatch));
    }
    let job: i64 = row.get("job");
    let row = session
        .first(GET_JOB, &[&job])
        .await?
        .ok_or(StoreError::NotFound("job"))?;
    Ok(Some(Created::Existing(row::job(&row)?)))
}

/// Nothing if the key was used by a transaction that committed first.
async fn insert(
    session: &Session,
    job: &NewJob,
    queue: QueueId,
    key: Option<&Idempotency>,
) -> Result<Option<JobRecord>> {
    let mut record = record(job, queue)?;
    session.begin().await?;
    record.id = insert_job(session, job, &record).await?;
    if let Some(key) = key {
        let params = (&key.scope, &key.key, key.body_sha256.as_slice());
        let inserted = session
            .execute(
                INSERT_KEY,
                &[params.0, params.1, &params.2, &record.id.0, &job.created_at.0],
            )
            .await?;
        if inserted == 0 {
            session.rollback().await?;
            return Ok(None);
        }
    }
    insert_tasks(session, record.id, &job.tasks).await?;
    if record.state.is_final() {
        let mut events = EventColumns::default();
        events.push(&Event::of(&record))?;
        session.execute(INSERT_EVENTS, &events.params()).await?;
    }
    session.commit().await?;
    Ok(Some(record))
}

async fn insert_job(session: &Session, job: &NewJob, record: &JobRecord) -> Result<JobId> {
    let json = |value: serde_json::Result<String>| value.map_err(|why| StoreError::Rejected(why.to_string()));
    let row = session
        .first(
            INSERT_JOB,
            &[
                &job.name,
                &job.queue,
                &record.queue_id.0,
                &job.state.as_str(),
                &job.priority,
                &job.open,
                &job.expected_total.map(i64::from),
                &json(serde_json::to_string(&job.stages))?,
                &json(serde_json::to_string(&job.policy))?,
                &json(serde_json::to_string(&job.labels))?,
                &job.callback_url,
                &i64::from(record.tally.total),
                &job.start_at.map(|at| at.0),
                &job.created_at.0,
                &record.started_at.map(|at| at.0),
                &record.finished_at.map(|at| at.0),
            ],
        )
        .await?
        .ok_or_else(|| StoreError::Corrupt("an insert returned no id".into()))?;
    Ok(JobId(row.get("id")))
}

async fn insert_tasks(session: &Session, job: JobId, tasks: &[NewTask]) -> Result<()> {
    for (index, chunk) in tasks.chunks(CHUNK).enumerate() {
        let first = narrow("task", (index * CHUNK) as u32)?;
        let keys: Vec<Option<&str>> = chunk.iter().map(|task| task.key.as_deref()).collect();
        let payloads: Vec<&str> = chunk.iter().map(|task| task.payload.as_str()).collect();
        session
            .execute(INSERT_TASKS, &[&job.0, &first, &keys, &payloads])
            .await?;
    }
    Ok(())
}

/// The row as it will be stored; only the id is missing.
fn record(job: &NewJob, queue: QueueId) -> Result<JobRecord> {
    let total = u32::try_from(job.tasks.len()).map_err(|_| StoreError::Rejected("too many tasks".into()))?;
    narrow("task", total)?;
    let final_at = job.state.is_final().then_some(job.created_at);
    let started_at = if job.state.is_active() {
        Some(job.created_at)
    } else {
        final_at
    };
    Ok(JobRecord {
        id: JobId::default(),
        name: job.name.clone(),
        queue: job.queue.clone(),
        queue_id: queue,
        state: job.state,
        run: Run(1),
        base_run: Run(1),
        priority: job.priority,
        open: job.open,
        expected_total: job.expected_total,
        stages: job.stages.clone(),
        policy: job.policy.clone(),
        labels: job.labels.clone(),
        callback_url: job.callback_url.clone(),
        tally: Tally {
            total,
            ..Tally::default()
        },
        error: None,
        start_at: job.start_at,
        cancel_at: None,
        created_at: job.created_at,
        started_at,
        finished_at: final_at,
        updated_at: job.created_at,
        changed_seq: Seq(0),
    })
}
