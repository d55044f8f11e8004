//! The group commit: results, spent attempts and the moves of jobs between states.
//!
//! Owns: the one transaction of `commit`. Never: decides a verdict. Invariant: of one job either everything is written or nothing, and
//! committing a batch again changes nothing.

use super::blobs;
use super::fence::Fences;
use super::record::{parse_state, to_json};
use crate::domain::callback::Event;
use crate::domain::ids::{JobId, Run, Seq};
use crate::domain::rows::{AttemptRow, JobBatch, JobUpdate, OutcomeRow, Verdict};
use crate::domain::state::State;
use crate::store::{BatchAnswer, Result};
use rusqlite::{CachedStatement, OptionalExtension, Transaction, params};

pub(super) fn commit(tx: &Transaction<'_>, batches: &[JobBatch]) -> Result<Vec<BatchAnswer>> {
    let mut fences = Fences::new(tx)?;
    let mut rows = Rows::prepare(tx)?;
    let mut answers = Vec::with_capacity(batches.len());
    for batch in batches {
        let answer = if fences.holds(batch.fence)? {
            commit_job(tx, &mut rows, batch)?
        } else {
            BatchAnswer::Fenced
        };
        answers.push(answer);
    }
    Ok(answers)
}

/// The guarded UPDATE goes first: where it finds the row elsewhere nothing of the job was written yet, so there is nothing to undo. Only a
/// look at the blobs comes before it, for the same reason.
fn commit_job(tx: &Transaction<'_>, rows: &mut Rows<'_>, batch: &JobBatch) -> Result<BatchAnswer> {
    if !blobs::are_there(tx, batch)? {
        return Ok(BatchAnswer::Fenced);
    }
    let moved = match &batch.update {
        None => rows.position(batch)?.map(|_| false),
        Some(update) if update_job(tx, batch, update)? => Some(true),
        // Our own update, committed before its answer was lost, is there with all that went with it.
        Some(update) => rows
            .position(batch)?
            .filter(|row| *row == (update.state, update.run, update.changed_seq))
            .map(|_| false),
    };
    let Some(moved) = moved else {
        return Ok(BatchAnswer::Fenced);
    };
    blobs::claim(tx, batch)?;
    for row in &batch.outcomes {
        Rows::insert_outcome(&mut rows.outcome, batch.job, row)?;
    }
    for row in &batch.attempts {
        rows.insert_attempt(batch.job, row)?;
    }
    for row in &batch.late {
        Rows::insert_outcome(&mut rows.late, batch.job, row)?;
    }
    if let (Some(update), true) = (&batch.update, moved) {
        follow_up(tx, batch.job, update)?;
    }
    Ok(BatchAnswer::Committed)
}

/// Applies the guarded UPDATE; false if the row is not where it expects it.
fn update_job(tx: &Transaction<'_>, batch: &JobBatch, update: &JobUpdate) -> Result<bool> {
    let changed = tx
        .prepare_cached(include_str!("queries/jobs/update.sql"))?
        .execute(params![
            batch.job.0,
            batch.fence.queue.0,
            to_json(&update.from)?,
            update.from_run.0,
            update.state.as_str(),
            update.run.0,
            update.base_run.0,
            update.open,
            update.tally.total,
            update.tally.succeeded,
            update.tally.failed,
            to_json(&update.tally.counters)?,
            update.error.as_ref().map(to_json).transpose()?,
            update.start_at.map(|at| at.0),
            update.cancel_at.map(|at| at.0),
            update.started_at.map(|at| at.0),
            update.finished_at.map(|at| at.0),
            update.updated_at.0,
            update.changed_seq.0,
            to_json(&update.tally.reached)?,
            update.priority,
            to_json(&update.policy)?,
        ])?;
    Ok(changed == 1)
}

/// What goes with a move: late successes that count from now on, and the completion event.
fn follow_up(tx: &Transaction<'_>, job: JobId, update: &JobUpdate) -> Result<()> {
    if update.promote_late {
        tx.prepare_cached(include_str!("queries/late/promote.sql"))?
            .execute(params![job.0, update.base_run.0, update.run.0, update.changed_seq.0])?;
    }
    if let Some(event) = &update.event {
        insert_event(tx, event)?;
    }
    Ok(())
}

pub(super) fn insert_event(tx: &Transaction<'_>, event: &Event) -> Result<()> {
    let call = event.call.as_ref();
    tx.prepare_cached(include_str!("queries/events/insert.sql"))?
        .execute(params![
            event.id,
            event.job.0,
            event.run.0,
            event.kind,
            event.payload,
            event.at.0,
            call.map(|call| &call.url),
            call.map(|call| &call.receiver),
            call.map(|_| event.at.0),
        ])?;
    Ok(())
}

/// The statements a commit repeats, looked up once per transaction.
struct Rows<'tx> {
    outcome: CachedStatement<'tx>,
    attempt: CachedStatement<'tx>,
    late: CachedStatement<'tx>,
    position: CachedStatement<'tx>,
}

impl<'tx> Rows<'tx> {
    fn prepare(tx: &'tx Transaction<'_>) -> Result<Self> {
        Ok(Rows {
            outcome: tx.prepare_cached(include_str!("queries/outcomes/insert.sql"))?,
            attempt: tx.prepare_cached(include_str!("queries/attempts/insert.sql"))?,
            late: tx.prepare_cached(include_str!("queries/late/insert.sql"))?,
            position: tx.prepare_cached(include_str!("queries/jobs/guard.sql"))?,
        })
    }

    /// Where the job's row is now; none if the fenced queue has no such job.
    fn position(&mut self, batch: &JobBatch) -> Result<Option<(State, Run, Seq)>> {
        self.position
            .query_row([batch.job.0, i64::from(batch.fence.queue.0)], |row| {
                let state = parse_state(row.get_ref(0)?.as_str()?);
                Ok((state, Run(row.get(1)?), Seq(row.get(2)?)))
            })
            .optional()?
            .map(|(state, run, seq)| Ok((state?, run, seq)))
            .transpose()
    }

    fn insert_outcome(statement: &mut CachedStatement<'_>, job: JobId, row: &OutcomeRow) -> Result<()> {
        statement.execute(params![
            job.0,
            row.task.0,
            row.run.0,
            row.seq.0,
            row.verdict == Verdict::Succeeded,
            row.attempt.0,
            row.at.0,
            &*row.worker,
            row.counters,
            row.error,
            row.text(),
            row.took_ms,
            row.blob().map(|blob| blob.0),
        ])?;
        Ok(())
    }

    fn insert_attempt(&mut self, job: JobId, row: &AttemptRow) -> Result<()> {
        self.attempt.execute(params![
            job.0,
            row.task.0,
            row.run.0,
            row.attempt.0,
            row.seq.0,
            row.cause.as_str(),
            row.at.0,
            &*row.worker,
            row.error,
        ])?;
        Ok(())
    }
}
