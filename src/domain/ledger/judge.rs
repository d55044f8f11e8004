//! What one reported result does.
//!
//! Owns: the disposition of an item. Never: moves a committed set. Invariant: an item changes the batch only if its disposition is
//! `counted`, `retrying` or `late`.

use super::batch::{InFlight, Rows};
use super::tasks::add;
use super::{Disposition, Item, Ledger, Report};
use crate::domain::ids::UnixMs;
use crate::domain::lease::Lease;
use crate::domain::rows::{Cause, Kept, OutcomeRow, Verdict};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Ledger {
    /// Judges one item against the committed facts and what the batch at hand already holds.
    pub(super) fn judge(
        &mut self,
        item: Item,
        worker: &Arc<str>,
        batch: &mut InFlight,
        rows: &mut Rows,
        now: UnixMs,
    ) -> Disposition {
        let Some(lease) = item.lease.filter(|lease| lease.job == self.record.id) else {
            return Disposition::Rejected;
        };
        if item.report == Report::Unusable || self.is_newer(&item.lease) {
            return Disposition::Rejected;
        }
        if lease.task.0 >= self.tasks.total {
            return Disposition::UnknownTask;
        }
        let entry = batch.entries.get(&lease.task);
        let decided = entry
            .and_then(|entry| entry.decided)
            .or_else(|| self.tasks.verdict(lease.task));
        let succeeds = matches!(item.report, Report::Succeeded { .. });
        if decided == Some(Verdict::Succeeded) {
            return if succeeds {
                Disposition::Duplicate
            } else {
                Disposition::Superseded
            };
        }
        if lease.run < self.record.run {
            return Disposition::StaleRun;
        }
        if self.record.state.is_final() {
            return self.keep_late(lease, item.report, worker, batch, rows, now);
        }
        match item.report {
            Report::Succeeded { result, counters } => {
                self.succeed(lease, result, counters, decided, worker, batch, rows, now);
                Disposition::Counted
            }
            Report::Failed { error, retryable } => {
                self.fail(lease, error, retryable, decided, worker, batch, rows, now)
            }
            Report::Unusable => Disposition::Rejected,
        }
    }

    #[allow(clippy::too_many_arguments, reason = "each argument is a column of the row")]
    fn succeed(
        &mut self,
        lease: Lease,
        result: Option<Kept>,
        counters: Vec<(String, i64)>,
        decided: Option<Verdict>,
        worker: &Arc<str>,
        batch: &mut InFlight,
        rows: &mut Rows,
        now: UnixMs,
    ) {
        let row = self.outcome_row(lease, Verdict::Succeeded, result, None, &counters, worker, now);
        let leased = self.leases.get(lease.task).is_some();
        let entry = batch.entries.entry(lease.task).or_default();
        // A failed attempt earlier in this batch has ended the lease already.
        batch.ends_leases += u32::from(leased && entry.spent.is_none());
        batch.newly_decided += u32::from(decided.is_none());
        entry.decided = Some(Verdict::Succeeded);
        entry.seq = row.seq;
        entry.counters = counters;
        match entry.row {
            // One row per task: the success replaces the failure that this same batch was about to record.
            Some(at) => rows.outcomes[at] = row,
            None => {
                entry.row = Some(rows.outcomes.len());
                rows.outcomes.push(row);
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "each argument is a column of the row")]
    fn fail(
        &mut self,
        lease: Lease,
        error: Box<str>,
        retryable: bool,
        decided: Option<Verdict>,
        worker: &Arc<str>,
        batch: &mut InFlight,
        rows: &mut Rows,
        now: UnixMs,
    ) -> Disposition {
        let entry = batch.entries.get(&lease.task);
        let spent = entry
            .and_then(|entry| entry.spent)
            .unwrap_or_else(|| self.tasks.spent(lease.task));
        if spent.was_reported(lease.attempt) {
            return Disposition::Duplicate;
        }
        let current = self.leases.get(lease.task).is_some_and(|held| held.is(&lease));
        if decided.is_some() || !current || entry.is_some() {
            return Disposition::Superseded;
        }
        let fatal = !retryable;
        if self.spend(
            lease.task,
            lease.attempt,
            Cause::Reported,
            Some(error),
            fatal,
            worker,
            batch,
            rows,
            now,
        ) {
            Disposition::Counted
        } else {
            Disposition::Retrying
        }
    }

    /// The job has ended: the result is kept beside it, and may count in the next run.
    fn keep_late(
        &mut self,
        lease: Lease,
        report: Report,
        worker: &Arc<str>,
        batch: &mut InFlight,
        rows: &mut Rows,
        now: UnixMs,
    ) -> Disposition {
        let (verdict, result, error, counters) = match report {
            Report::Succeeded { result, counters } => (Verdict::Succeeded, result, None, counters),
            Report::Failed { error, .. } => (Verdict::Failed, None, Some(error), Vec::new()),
            Report::Unusable => return Disposition::Rejected,
        };
        if verdict == Verdict::Failed && self.tasks.spent(lease.task).was_reported(lease.attempt) {
            return Disposition::Duplicate;
        }
        // A final job's batch holds nothing but late rows, so an entry's row is a late one.
        let in_batch = batch.entries.get(&lease.task).and_then(|entry| entry.row);
        let worse =
            in_batch.is_some_and(|at| verdict == Verdict::Failed || rows.late[at].verdict == Verdict::Succeeded);
        if worse || self.tasks.late.contains_key(&lease.task) {
            return Disposition::Late;
        }
        let row = self.outcome_row(lease, verdict, result, error, &counters, worker, now);
        match in_batch {
            Some(at) => rows.late[at] = row,
            None => {
                batch.entries.entry(lease.task).or_default().row = Some(rows.late.len());
                rows.late.push(row);
            }
        }
        if verdict == Verdict::Succeeded {
            batch.late.push((lease.task, counters));
        }
        Disposition::Late
    }

    /// How long the reporting worker held the task; none if this is not its current lease.
    fn took_ms(&self, lease: &Lease, now: UnixMs) -> Option<u32> {
        self.leases.get(lease.task).filter(|held| held.is(lease))?.age_ms(now)
    }

    #[allow(clippy::too_many_arguments, reason = "each argument is a column of the row")]
    fn outcome_row(
        &mut self,
        lease: Lease,
        verdict: Verdict,
        result: Option<Kept>,
        error: Option<Box<str>>,
        counters: &[(String, i64)],
        worker: &Arc<str>,
        now: UnixMs,
    ) -> OutcomeRow {
        OutcomeRow {
            run: lease.run,
            task: lease.task,
            verdict,
            attempt: lease.attempt,
            seq: self.next_seq(),
            result,
            error,
            counters: counters_text(counters),
            worker: worker.clone(),
            at: now,
            took_ms: self.took_ms(&lease, now),
        }
    }
}

/// The stored form of a task's counters: a JSON object, or nothing.
fn counters_text(counters: &[(String, i64)]) -> Option<Box<str>> {
    if counters.is_empty() {
        return None;
    }
    let mut object = BTreeMap::new();
    for (name, value) in counters {
        add(&mut object, name, *value);
    }
    serde_json::to_string(&object).ok().map(String::into_boxed_str)
}

/// Reads the stored form back.
pub(super) fn counters_from_text(text: Option<&str>) -> Result<Vec<(String, i64)>, serde_json::Error> {
    match text {
        None => Ok(Vec::new()),
        Some(text) => serde_json::from_str::<BTreeMap<String, i64>>(text).map(|object| object.into_iter().collect()),
    }
}
