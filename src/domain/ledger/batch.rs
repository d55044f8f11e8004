//! Forming the next batch: everything that is judged before the next commit.
//!
//! Owns: the order of judgement and what is in flight. Never: moves a committed set (settling does). Invariant: at most one batch is in
//! flight, and it holds at most one outcome per task.

use super::leases::Claim;
use super::task_map::TaskMap;
use super::tasks::Spent;
use super::{Disposition, Effects, Ledger, Reply, Results, Ticket, Waiting};
use crate::domain::ids::{Attempt, Seq, TaskNo, UnixMs};
use crate::domain::rows::{AttemptRow, Cause, JobBatch, JobUpdate, Kept, OutcomeRow, Verdict};
use crate::domain::state::State;
use std::sync::Arc;

/// What the batch at hand has decided about one task.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    pub(super) decided: Option<Verdict>,
    /// Place of its row in the batch's outcomes.
    pub(super) row: Option<usize>,
    /// Its spent attempts, if the batch spends one.
    pub(super) spent: Option<Spent>,
    pub(super) expired: bool,
    /// Position of the last row that counts for the task.
    pub(super) seq: Seq,
    pub(super) counters: Vec<(String, i64)>,
}

/// Replies owed to one request once the batch is settled.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) ticket: Ticket,
    pub(super) worker: Arc<str>,
    pub(super) dispositions: Vec<(Disposition, Option<TaskNo>)>,
    /// Leases these items claimed while they waited.
    pub(super) claimed: Vec<Claim>,
    pub(super) then_lease: Option<u32>,
}

/// The batch at hand, then in flight.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    pub(super) entries: TaskMap<Entry>,
    pub(super) owed: Vec<Owed>,
    pub(super) control: Option<Ticket>,
    pub(super) update: Option<JobUpdate>,
    /// Late successes that join the committed ones.
    pub(super) late: Vec<(TaskNo, Vec<(String, i64)>)>,
    /// Tasks decided by this batch that were undecided before.
    pub(super) newly_decided: u32,
    /// Leases that this batch ends.
    pub(super) ends_leases: u32,
}

/// The rows of the batch at hand.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) outcomes: Vec<OutcomeRow>,
    pub(super) attempts: Vec<AttemptRow>,
    pub(super) late: Vec<OutcomeRow>,
}

impl Ledger {
    /// A request with results has arrived: its leases stop expiring, and it waits for its turn.
    pub(super) fn receive(&mut self, results: Results, now: UnixMs, effects: &mut Effects) {
        if self.refuse_newer(results.ticket, results.items.iter().map(|item| &item.lease), effects) {
            return;
        }
        let mut claimed = Vec::with_capacity(results.items.len());
        for token in results.items.iter().filter_map(|item| item.lease.as_ref()) {
            if self.is_current(token, &results.worker, now) {
                claimed.extend(self.leases.claim(token.task));
            }
        }
        self.inbox.push_back(Waiting::Results(results, claimed));
    }

    pub(super) fn is_in_flight(&self, task: TaskNo) -> bool {
        self.in_flight
            .as_ref()
            .is_some_and(|batch| batch.entries.contains_key(&task))
    }

    pub(super) fn is_expiring(&self, task: TaskNo) -> bool {
        self.in_flight
            .as_ref()
            .and_then(|batch| batch.entries.get(&task))
            .is_some_and(|entry| entry.expired)
    }

    /// Judges what waits and hands the batch out, unless one is in flight.
    pub(super) fn form_batch(&mut self, now: UnixMs, effects: &mut Effects) {
        // A round that was judged on committed facts alone has no settlement to bring the next one. What its bounds left in the inbox
        // is judged at once, and a lease that its answers no longer keep from expiring may be due.
        while self.in_flight.is_none() {
            let answered = effects.replies.len();
            self.judge_round(now, effects);
            if effects.replies.len() == answered {
                return;
            }
        }
    }

    fn judge_round(&mut self, now: UnixMs, effects: &mut Effects) {
        let mut batch = InFlight::default();
        let mut rows = Rows::default();
        self.judge_inbox(&mut batch, &mut rows, now, effects);
        if self.store_up && batch.update.is_none() {
            self.expire(&mut batch, &mut rows, now);
        }
        self.end_if_due(&mut batch, now);
        if let Some(update) = &mut batch.update {
            update.event = update.completion(&self.record);
        }
        let formed = JobBatch {
            job: self.record.id,
            fence: self.fence,
            outcomes: rows.outcomes,
            attempts: rows.attempts,
            late: rows.late,
            update: batch.update.clone(),
        };
        if formed.is_empty() {
            self.answer(batch.owed, &[], now, effects);
        } else {
            self.in_flight = Some(batch);
            effects.commit = Some(formed);
        }
    }

    fn judge_inbox(&mut self, batch: &mut InFlight, rows: &mut Rows, now: UnixMs, effects: &mut Effects) {
        let (mut items, mut bytes) = (0, 0);
        while items < self.bounds.batch_items && bytes < self.bounds.batch_bytes {
            match self.inbox.pop_front() {
                None => return,
                Some(Waiting::Results(results, claimed)) => {
                    items += results.items.len();
                    bytes += results.items.iter().map(|item| item.report.bytes()).sum::<usize>();
                    self.judge_results(results, claimed, batch, rows, now);
                }
                Some(Waiting::Control(ticket, control)) => {
                    // A control is judged on committed facts, and not while a chunk of tasks is being stored.
                    if !batch.entries.is_empty() || self.storing.is_some() {
                        self.inbox.push_front(Waiting::Control(ticket, control));
                        return;
                    }
                    if self.judge_control(ticket, control, batch, now, effects) {
                        return;
                    }
                }
            }
        }
    }

    fn judge_results(
        &mut self,
        results: Results,
        claimed: Vec<Claim>,
        batch: &mut InFlight,
        rows: &mut Rows,
        now: UnixMs,
    ) {
        let mut owed = Owed {
            ticket: results.ticket,
            worker: results.worker,
            dispositions: Vec::with_capacity(results.items.len()),
            claimed,
            then_lease: results.then_lease,
        };
        for item in results.items {
            let task = item.lease.map(|lease| lease.task);
            let disposition = self.judge(item, &owed.worker, batch, rows, now);
            owed.dispositions.push((disposition, task));
        }
        batch.owed.push(owed);
    }

    /// Spends the attempt of every lease that has run out, as far as the batch has room; the rest is still due after it.
    fn expire(&mut self, batch: &mut InFlight, rows: &mut Rows, now: UnixMs) {
        let room = self.bounds.batch_items.saturating_sub(batch.entries.len());
        for task in self.leases.take_expired(now, room) {
            let Some(held) = self.leases.get(task).cloned() else {
                continue;
            };
            if batch.entries.contains_key(&task) {
                continue;
            }
            self.spend(
                task,
                held.attempt,
                Cause::Expired,
                None,
                false,
                &held.worker,
                batch,
                rows,
                now,
            );
            if let Some(entry) = batch.entries.get_mut(&task) {
                entry.expired = true;
            }
        }
    }

    /// Spends an attempt; decides the task as failed if it was the last one or must not be repeated. Returns whether it did.
    #[allow(clippy::too_many_arguments, reason = "each argument is a column of the row")]
    pub(super) fn spend(
        &mut self,
        task: TaskNo,
        attempt: Attempt,
        cause: Cause,
        error: Option<Box<str>>,
        fatal: bool,
        worker: &Arc<str>,
        batch: &mut InFlight,
        rows: &mut Rows,
        now: UnixMs,
    ) -> bool {
        let policy = &self.record.policy;
        let due = now.plus_ms(policy.backoff.delay_ms(self.record.id, task, attempt));
        // A lease that runs out while the job is being canceled is given back by force: silence must not turn the cancel into a failure.
        let reaped = cause == Cause::Expired && self.record.state == State::Canceling;
        let exhausted = fatal || (attempt.0 >= policy.max_attempts && !reaped);
        let run = self.record.run;
        let mut spent = self.tasks.spent(task);
        spent.spend(attempt, cause, due);
        let seq = self.next_seq();
        rows.attempts.push(AttemptRow {
            run,
            task,
            attempt,
            seq,
            cause,
            error: error.clone(),
            worker: worker.clone(),
            at: now,
        });
        let entry = batch.entries.entry(task).or_default();
        entry.spent = Some(spent);
        entry.seq = seq;
        batch.ends_leases += u32::from(self.leases.get(task).is_some());
        if exhausted {
            entry.decided = Some(Verdict::Failed);
            entry.row = Some(rows.outcomes.len());
            batch.newly_decided += 1;
            let error = error.unwrap_or_else(|| "the lease expired".into());
            let took_ms = self.leases.get(task).and_then(|held| held.age_ms(now));
            let seq = self.next_seq();
            entry.seq = seq;
            rows.outcomes.push(OutcomeRow {
                run,
                task,
                verdict: Verdict::Failed,
                attempt,
                seq,
                result: None,
                error: Some(error),
                counters: None,
                worker: worker.clone(),
                at: now,
                took_ms,
            });
        }
        exhausted
    }

    /// Sends the replies owed by a settled batch; items of refused tasks are `rejected`.
    pub(super) fn answer(&mut self, owed: Vec<Owed>, refused: &[TaskNo], now: UnixMs, effects: &mut Effects) {
        for owed in owed {
            for &claim in &owed.claimed {
                self.leases.unclaim(claim);
            }
            let dispositions = owed
                .dispositions
                .into_iter()
                .map(|(disposition, task)| match task {
                    Some(task) if refused.contains(&task) => Disposition::Rejected,
                    _ => disposition,
                })
                .collect();
            let granted = owed.then_lease.map(|most| self.hand_out(&owed.worker, most, None, now));
            let (state, run) = (self.record.state, self.record.run);
            effects.reply(
                owed.ticket,
                Reply::Results {
                    dispositions,
                    state,
                    run,
                    granted,
                },
            );
        }
    }

    pub(super) fn may_start_by_itself(&self) -> bool {
        self.record.state == State::Pending && self.record.start_at.is_some()
    }
}

impl super::Report {
    /// Bytes of text that this report brings into a batch.
    pub fn bytes(&self) -> usize {
        match self {
            super::Report::Succeeded { result, .. } => result.as_ref().and_then(Kept::text).map_or(0, str::len),
            super::Report::Failed { error, .. } => error.len(),
            super::Report::Unusable => 0,
        }
    }
}
