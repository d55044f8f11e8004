//! The rows of many jobs turned into the column arrays of one statement each.
//!
//! Owns: the order of a statement's parameters. Never: runs one. Invariant: the arrays of one statement have one length.

use super::row::narrow;
use crate::domain::callback::Event;
use crate::domain::ids::JobId;
use crate::domain::rows::{AttemptRow, JobBatch, JobUpdate, OutcomeRow, Verdict};
use crate::domain::state::State;
use crate::store::Result;
use tokio_postgres::types::ToSql;

/// Columns of `outcomes/insert.sql` and `late/insert.sql`.
#[derive(Default)]
pub(super) struct OutcomeColumns<'a> {
    job: Vec<i64>,
    run: Vec<i32>,
    task: Vec<i32>,
    succeeded: Vec<bool>,
    attempt: Vec<i32>,
    seq: Vec<i64>,
    result: Vec<Option<&'a str>>,
    error: Vec<Option<&'a str>>,
    counters: Vec<Option<&'a str>>,
    worker: Vec<&'a str>,
    at: Vec<i64>,
    took_ms: Vec<Option<i32>>,
    blob: Vec<Option<i64>>,
}

impl<'a> OutcomeColumns<'a> {
    /// Rows go in the order of the primary key, so that neighbours meet the same page of the index.
    pub(super) fn gather(rows: impl Iterator<Item = (JobId, &'a OutcomeRow)>) -> Result<Self> {
        let mut rows: Vec<_> = rows.collect();
        rows.sort_unstable_by_key(|(job, row)| (*job, row.run, row.task));
        let mut columns = OutcomeColumns::default();
        for (job, row) in rows {
            columns.job.push(job.0);
            columns.run.push(narrow("run", row.run.0)?);
            columns.task.push(narrow("task", row.task.0)?);
            columns.succeeded.push(row.verdict == Verdict::Succeeded);
            columns.attempt.push(narrow("attempt", row.attempt.0)?);
            columns.seq.push(row.seq.0);
            columns.result.push(row.text());
            columns.blob.push(row.blob().map(|blob| blob.0));
            columns.error.push(row.error.as_deref());
            columns.counters.push(row.counters.as_deref());
            columns.worker.push(&row.worker);
            columns.at.push(row.at.0);
            let took_ms = row.took_ms.map(|ms| narrow("took_ms", ms));
            columns.took_ms.push(took_ms.transpose()?);
        }
        Ok(columns)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.job.is_empty()
    }

    /// The jobs these rows belong to, for `jobs/share.sql`.
    pub(super) fn jobs(&self) -> &Vec<i64> {
        &self.job
    }

    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 13] {
        [
            &self.job,
            &self.run,
            &self.task,
            &self.succeeded,
            &self.attempt,
            &self.seq,
            &self.result,
            &self.error,
            &self.counters,
            &self.worker,
            &self.at,
            &self.took_ms,
            &self.blob,
        ]
    }
}

/// Columns of `attempts/insert.sql`.
#[derive(Default)]
pub(super) struct AttemptColumns<'a> {
    job: Vec<i64>,
    run: Vec<i32>,
    task: Vec<i32>,
    attempt: Vec<i32>,
    seq: Vec<i64>,
    cause: Vec<&'static str>,
    error: Vec<Option<&'a str>>,
    worker: Vec<&'a str>,
    at: Vec<i64>,
}

impl<'a> AttemptColumns<'a> {
    pub(super) fn gather(rows: impl Iterator<Item = (JobId, &'a AttemptRow)>) -> Result<Self> {
        let mut columns = AttemptColumns::default();
        for (job, row) in rows {
            columns.job.push(job.0);
            columns.run.push(narrow("run", row.run.0)?);
            columns.task.push(narrow("task", row.task.0)?);
            columns.attempt.push(narrow("attempt", row.attempt.0)?);
            columns.seq.push(row.seq.0);
            columns.cause.push(row.cause.as_str());
            columns.error.push(row.error.as_deref());
            columns.worker.push(&row.worker);
            columns.at.push(row.at.0);
        }
        Ok(columns)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.job.is_empty()
    }

    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 9] {
        [
            &self.job,
            &self.run,
            &self.task,
            &self.attempt,
            &self.seq,
            &self.cause,
            &self.error,
            &self.worker,
            &self.at,
        ]
    }
}

/// Columns of `jobs/update.sql`.
#[derive(Default)]
pub(super) struct UpdateColumns<'a> {
    id: Vec<i64>,
    queue_id: Vec<i32>,
    from_states: Vec<String>,
    from_run: Vec<i32>,
    state: Vec<&'static str>,
    run: Vec<i32>,
    base_run: Vec<i32>,
    open: Vec<bool>,
    total: Vec<i64>,
    succeeded: Vec<i64>,
    failed: Vec<i64>,
    counters: Vec<String>,
    error_code: Vec<Option<&'a str>>,
    error_message: Vec<Option<&'a str>>,
    start_at: Vec<Option<i64>>,
    cancel_at: Vec<Option<i64>>,
    started_at: Vec<Option<i64>>,
    finished_at: Vec<Option<i64>>,
    updated_at: Vec<i64>,
    changed_seq: Vec<i64>,
    reached: Vec<String>,
    priority: Vec<i32>,
    policy: Vec<String>,
}

impl<'a> UpdateColumns<'a> {
    pub(super) fn gather(batches: impl Iterator<Item = (&'a JobBatch, &'a JobUpdate)>) -> Result<Self> {
        let mut columns = UpdateColumns::default();
        for (batch, update) in batches {
            columns.id.push(batch.job.0);
            columns.queue_id.push(batch.fence.queue.0);
            columns.from_states.push(state_list(update.from));
            columns.from_run.push(narrow("run", update.from_run.0)?);
            columns.push(update)?;
        }
        Ok(columns)
    }

    fn push(&mut self, update: &'a JobUpdate) -> Result<()> {
        self.state.push(update.state.as_str());
        self.run.push(narrow("run", update.run.0)?);
        self.base_run.push(narrow("run", update.base_run.0)?);
        self.open.push(update.open);
        self.total.push(update.tally.total.into());
        self.succeeded.push(update.tally.succeeded.into());
        self.failed.push(update.tally.failed.into());
        self.counters.push(plain_json(&update.tally.counters));
        self.error_code.push(update.error.as_ref().map(|e| e.code.as_str()));
        self.error_message
            .push(update.error.as_ref().map(|e| e.message.as_str()));
        self.start_at.push(update.start_at.map(|at| at.0));
        self.cancel_at.push(update.cancel_at.map(|at| at.0));
        self.started_at.push(update.started_at.map(|at| at.0));
        self.finished_at.push(update.finished_at.map(|at| at.0));
        self.updated_at.push(update.updated_at.0);
        self.changed_seq.push(update.changed_seq.0);
        self.reached.push(plain_json(&update.tally.reached));
        self.priority.push(update.priority);
        self.policy.push(plain_json(&update.policy));
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.id.is_empty()
    }

    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 23] {
        [
            &self.id,
            &self.queue_id,
            &self.from_states,
            &self.from_run,
            &self.state,
            &self.run,
            &self.base_run,
            &self.open,
            &self.total,
            &self.succeeded,
            &self.failed,
            &self.counters,
            &self.error_code,
            &self.error_message,
            &self.start_at,
            &self.cancel_at,
            &self.started_at,
            &self.finished_at,
            &self.updated_at,
            &self.changed_seq,
            &self.reached,
            &self.priority,
            &self.policy,
        ]
    }
}

/// Columns of `late/promote.sql`.
#[derive(Default)]
pub(super) struct PromoteColumns {
    job: Vec<i64>,
    base_run: Vec<i32>,
    run: Vec<i32>,
    changed_seq: Vec<i64>,
}

impl PromoteColumns {
    pub(super) fn gather<'a>(batches: impl Iterator<Item = (&'a JobBatch, &'a JobUpdate)>) -> Result<Self> {
        let mut columns = PromoteColumns::default();
        for (batch, update) in batches.filter(|(_, update)| update.promote_late) {
            columns.job.push(batch.job.0);
            columns.base_run.push(narrow("run", update.base_run.0)?);
            columns.run.push(narrow("run", update.run.0)?);
            columns.changed_seq.push(update.changed_seq.0);
        }
        Ok(columns)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.job.is_empty()
    }

    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 4] {
        [&self.job, &self.base_run, &self.run, &self.changed_seq]
    }
}

/// Columns of `events/insert.sql`.
#[derive(Default)]
pub(super) struct EventColumns {
    id: Vec<String>,
    job: Vec<i64>,
    run: Vec<i32>,
    kind: Vec<&'static str>,
    payload: Vec<String>,
    created_at: Vec<i64>,
    url: Vec<Option<String>>,
    receiver: Vec<Option<String>>,
    due_at: Vec<Option<i64>>,
}

impl EventColumns {
    pub(super) fn gather<'a>(batches: impl Iterator<Item = (&'a JobBatch, &'a JobUpdate)>) -> Result<Self> {
        let mut columns = EventColumns::default();
        for event in batches.filter_map(|(_, update)| update.event.as_deref()) {
            columns.push(event)?;
        }
        Ok(columns)
    }

    pub(super) fn push(&mut self, event: &Event) -> Result<()> {
        let call = event.call.as_ref();
        self.id.push(event.id.clone());
        self.job.push(event.job.0);
        self.run.push(narrow("run", event.run.0)?);
        self.kind.push(event.kind);
        self.payload.push(event.payload.clone());
        self.created_at.push(event.at.0);
        self.url.push(call.map(|call| call.url.clone()));
        self.receiver.push(call.map(|call| call.receiver.clone()));
        self.due_at.push(call.map(|_| event.at.0));
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.id.is_empty()
    }

    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 9] {
        [
            &self.id,
            &self.job,
            &self.run,
            &self.kind,
            &self.payload,
            &self.created_at,
            &self.url,
            &self.receiver,
            &self.due_at,
        ]
    }
}

fn state_list(states: &[State]) -> String {
    states.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(",")
}

/// Of maps by text, numbers and lists of them.
fn plain_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain data is always json")
}
