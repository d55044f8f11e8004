//! Rows read back, and numbers narrowed on their way in.
//!
//! Owns: the mapping between columns and domain values. Never: runs a statement. Invariant: what cannot be read is `Corrupt`, what cannot
//! be written is `Rejected`; nothing is cut.

use crate::domain::ids::{Attempt, BlobId, Epoch, JobId, QueueId, Run, Seq, TaskNo, UnixMs};
use crate::domain::job::{JobError, JobRecord, Tally};
use crate::domain::logs::{Entry, Level, Source};
use crate::domain::rows::{Cause, Fact, FactKind, Verdict};
use crate::domain::state::State;
use crate::store::{
    BlobRef, DueEvent, EventRow, FailureRow, LivingNode, LogRow, NodeRow, OwnedQueue, QueueOwner, QueueRow, Result,
    ResultRow, SpentAttempt, StoreError, TaskRow, TicketRow, TokenRow,
};
use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

/// A number as the column's four bytes.
pub(super) fn narrow(what: &str, number: u32) -> Result<i32> {
    i32::try_from(number).map_err(|_| StoreError::Rejected(format!("{what} {number} is above {}", i32::MAX)))
}

fn corrupt(why: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(why.to_string())
}

fn get<'a, T: FromSql<'a>>(row: &'a Row, column: &str) -> Result<T> {
    row.try_get(column).map_err(|why| super::sqlstate::store_error(&why))
}

fn unsigned(row: &Row, column: &str) -> Result<u32> {
    u32::try_from(get::<i32>(row, column)?).map_err(corrupt)
}

fn wide_unsigned(row: &Row, column: &str) -> Result<u32> {
    u32::try_from(get::<i64>(row, column)?).map_err(corrupt)
}

fn time(row: &Row, column: &str) -> Result<UnixMs> {
    get(row, column).map(UnixMs)
}

fn optional_time(row: &Row, column: &str) -> Result<Option<UnixMs>> {
    Ok(get::<Option<i64>>(row, column)?.map(UnixMs))
}

fn json<T: DeserializeOwned>(row: &Row, column: &str) -> Result<T> {
    serde_json::from_str(get(row, column)?).map_err(|why| corrupt(format_args!("{column}: {why}")))
}

fn boxed(row: &Row, column: &str) -> Result<Option<Box<str>>> {
    Ok(get::<Option<&str>>(row, column)?.map(Box::from))
}

pub(super) fn job(row: &Row) -> Result<JobRecord> {
    let error = match (get(row, "error_code")?, get(row, "error_message")?) {
        (Some(code), Some(message)) => Some(JobError { code, message }),
        _ => None,
    };
    let expected: Option<i64> = get(row, "expected_total")?;
    Ok(JobRecord {
        id: JobId(get(row, "id")?),
        name: get(row, "name")?,
        queue: get(row, "queue")?,
        queue_id: QueueId(get(row, "queue_id")?),
        state: get::<&str>(row, "state")?.parse().map_err(corrupt)?,
        run: Run(unsigned(row, "run")?),
        base_run: Run(unsigned(row, "base_run")?),
        priority: get(row, "priority")?,
        open: get(row, "open")?,
        expected_total: expected.map(u32::try_from).transpose().map_err(corrupt)?,
        stages: json(row, "stages")?,
        policy: json(row, "policy")?,
        labels: json(row, "labels")?,
        callback_url: get(row, "callback_url")?,
        tally: Tally {
            total: wide_unsigned(row, "total")?,
            succeeded: wide_unsigned(row, "succeeded")?,
            failed: wide_unsigned(row, "failed")?,
            counters: json(row, "counters")?,
            reached: json(row, "reached")?,
        },
        error,
        start_at: optional_time(row, "start_at")?,
        cancel_at: optional_time(row, "cancel_at")?,
        created_at: time(row, "created_at")?,
        started_at: optional_time(row, "started_at")?,
        finished_at: optional_time(row, "finished_at")?,
        updated_at: time(row, "updated_at")?,
        changed_seq: Seq(get(row, "changed_seq")?),
    })
}

fn verdict(row: &Row) -> Result<Verdict> {
    Ok(if get(row, "succeeded")? {
        Verdict::Succeeded
    } else {
        Verdict::Failed
    })
}

pub(super) fn fact(row: &Row) -> Result<Fact> {
    let kind = match get(row, "kind")? {
        "outcome" => FactKind::Outcome {
            verdict: verdict(row)?,
            counters: boxed(row, "counters")?,
        },
        "late" => FactKind::Late {
            verdict: verdict(row)?,
            counters: boxed(row, "counters")?,
        },
        "attempt" => FactKind::Attempt {
            attempt: Attempt(unsigned(row, "attempt")?),
            cause: cause(row)?,
            at: time(row, "at")?,
        },
        other => return Err(corrupt(format_args!("unknown fact {other}"))),
    };
    Ok(Fact {
        seq: Seq(get(row, "seq")?),
        run: Run(unsigned(row, "run")?),
        task: TaskNo(unsigned(row, "task")?),
        kind,
    })
}

fn cause(row: &Row) -> Result<Cause> {
    let text: &str = get(row, "cause")?;
    [Cause::Reported, Cause::Expired]
        .into_iter()
        .find(|cause| cause.as_str() == text)
        .ok_or_else(|| corrupt(format_args!("unknown cause {text}")))
}

pub(super) fn task(row: &Row) -> Result<TaskRow> {
    Ok(TaskRow {
        task: TaskNo(unsigned(row, "task")?),
        key: get(row, "key")?,
        payload: get::<&str>(row, "payload")?.into(),
    })
}

pub(super) fn keyed_task(row: &Row) -> Result<(String, TaskNo)> {
    Ok((get(row, "key")?, TaskNo(unsigned(row, "task")?)))
}

pub(super) fn result(row: &Row) -> Result<ResultRow> {
    Ok(ResultRow {
        run: Run(unsigned(row, "run")?),
        task: TaskNo(unsigned(row, "task")?),
        key: get(row, "key")?,
        verdict: verdict(row)?,
        late: get(row, "late")?,
        attempt: unsigned(row, "attempt")?,
        result: get(row, "result")?,
        blob: blob(row)?,
        error: get(row, "error")?,
        counters: get(row, "counters")?,
        worker: get(row, "worker")?,
        at: time(row, "at")?,
        took_ms: get::<Option<i32>>(row, "took_ms")?.map(i32::unsigned_abs),
    })
}

fn blob(row: &Row) -> Result<Option<BlobRef>> {
    let id: Option<i64> = get(row, "blob_id")?;
    let bytes: Option<i64> = get(row, "blob_bytes")?;
    let referred = |id| match bytes {
        Some(bytes) => Ok(BlobRef {
            id: BlobId(id),
            bytes: bytes.unsigned_abs(),
        }),
        None => Err(corrupt(format_args!("blob {id} is gone"))),
    };
    id.map(referred).transpose()
}

pub(super) fn failure(row: &Row) -> Result<FailureRow> {
    Ok(FailureRow {
        task: TaskNo(unsigned(row, "task")?),
        error: get(row, "error")?,
        worker: get(row, "worker")?,
        at: time(row, "at")?,
    })
}

pub(super) fn spent_attempt(row: &Row) -> Result<SpentAttempt> {
    Ok(SpentAttempt {
        task: TaskNo(unsigned(row, "task")?),
        attempt: unsigned(row, "attempt")?,
        cause: cause(row)?,
        error: get(row, "error")?,
        worker: get(row, "worker")?,
        at: time(row, "at")?,
    })
}

pub(super) fn log(job: JobId, row: &Row) -> Result<LogRow> {
    let (level, source): (i16, &str) = (get(row, "level")?, get(row, "source")?);
    let task: Option<i64> = get(row, "task")?;
    let entry = Entry {
        job,
        at: time(row, "at")?,
        level: Level::from_number(level).ok_or_else(|| corrupt(format_args!("level {level}")))?,
        source: Source::parse(source).ok_or_else(|| corrupt(format_args!("source {source:?}")))?,
        worker: get(row, "worker")?,
        task: task.map(u32::try_from).transpose().map_err(corrupt)?.map(TaskNo),
        message: get(row, "message")?,
    };
    let id = get(row, "id")?;
    Ok(LogRow { id, entry })
}

/// A queue and how many of its jobs are in one state; none if it has no jobs.
pub(super) fn queue(row: &Row) -> Result<(QueueRow, Option<(State, u64)>)> {
    let state: Option<&str> = get(row, "state")?;
    let count = get::<i64>(row, "jobs")?.unsigned_abs();
    let count = state.map(|state| state.parse().map(|state| (state, count)));
    let queue = QueueRow {
        queue: get(row, "queue")?,
        epoch: Epoch(get(row, "epoch")?),
        node: get(row, "node")?,
        jobs: Vec::new(),
    };
    Ok((queue, count.transpose().map_err(corrupt)?))
}

pub(super) fn node(row: &Row) -> Result<NodeRow> {
    Ok(NodeRow {
        node: get(row, "node")?,
        incarnation: get(row, "incarnation")?,
        address: get(row, "address")?,
        alive: get(row, "alive")?,
        started_at: time(row, "started_at")?,
        seen_at: time(row, "seen_at")?,
    })
}

pub(super) fn living_node(row: &Row) -> Result<LivingNode> {
    Ok(LivingNode {
        node: get(row, "node")?,
        incarnation: get(row, "incarnation")?,
        address: get(row, "address")?,
        draining: get(row, "draining")?,
        left_ms: get(row, "left_ms")?,
    })
}

pub(super) fn queue_owner(row: &Row) -> Result<QueueOwner> {
    Ok(QueueOwner {
        queue: get(row, "queue")?,
        id: QueueId(get(row, "queue_id")?),
        epoch: Epoch(get(row, "epoch")?),
        node: get(row, "node")?,
        busy: get(row, "busy")?,
    })
}

pub(super) fn owned_queue(row: &Row) -> Result<OwnedQueue> {
    Ok(OwnedQueue {
        queue: get(row, "queue")?,
        id: QueueId(get(row, "queue_id")?),
        epoch: Epoch(get(row, "epoch")?),
    })
}

pub(super) fn token(row: &Row) -> Result<TokenRow> {
    Ok(TokenRow {
        id: get(row, "id")?,
        name: get(row, "name")?,
        hash: get::<&[u8]>(row, "hash")?.try_into().map_err(corrupt)?,
        scopes: get(row, "scopes")?,
        queues: get(row, "queues")?,
        created_at: time(row, "created_at")?,
        expires_at: optional_time(row, "expires_at")?,
    })
}

pub(super) fn ticket(hash: [u8; 32], row: &Row) -> Result<TicketRow> {
    Ok(TicketRow {
        hash,
        token_id: get(row, "token_id")?,
        path: get(row, "path")?,
        expires_at: time(row, "expires_at")?,
    })
}

/// Reads a row of `events/claim.sql`.
pub(super) fn due_event(row: &Row) -> Result<DueEvent> {
    Ok(DueEvent {
        id: get(row, "id")?,
        job: JobId(get(row, "job")?),
        run: Run(unsigned(row, "run")?),
        payload: get(row, "payload")?,
        url: get(row, "url")?,
        receiver: get(row, "receiver")?,
        claim: get(row, "claim")?,
        attempts: unsigned(row, "attempts")?,
        since: time(row, "since")?,
    })
}

/// Reads a row of `events/list.sql` or `events/resend.sql`.
pub(super) fn event(row: &Row) -> Result<EventRow> {
    Ok(EventRow {
        id: get(row, "id")?,
        run: Run(unsigned(row, "run")?),
        url: get(row, "url")?,
        created_at: time(row, "created_at")?,
        due_at: optional_time(row, "due_at")?,
        attempts: unsigned(row, "attempts")?,
        last_error: get(row, "last_error")?,
        delivered_at: optional_time(row, "delivered_at")?,
        given_up_at: optional_time(row, "given_up_at")?,
    })
}
