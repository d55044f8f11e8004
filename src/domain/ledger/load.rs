//! Building a ledger from what is durable: row, snapshot, and the facts after it.
//!
//! Owns: the folding of facts. Never: starts a ledger from a load that does not add up. Invariant: loading at any moment gives the
//! committed state at that moment, whether or not there was a snapshot; only leases since the last snapshot are unknown.

use super::batch::InFlight;
use super::judge::counters_from_text;
use super::leases::{Held, LastGrant, Leases};
use super::marks::Marks;
use super::snapshot::{Saved, bitmap};
use super::tasks::Tasks;
use super::{Bounds, Ledger, RESTORED_LEASE_MS};
use crate::domain::ids::{LeaseSeq, Run, Seq, TaskNo, UnixMs};
use crate::domain::job::{Fence, JobRecord};
use crate::domain::progress::Throughput;
use crate::domain::rows::{Fact, FactKind, Verdict};
use crate::domain::state::State;
use roaring::RoaringBitmap;
use std::collections::{HashMap, VecDeque};

/// What a token from a later epoch or run means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewerTokens {
    /// This ledger may be out of date: it asks to be rebuilt.
    Suspect,
    /// Ownership was proven since such a token was seen: the token is wrong.
    Rejected,
}

/// What is stored of a job contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("job {job}: {what}")]
pub struct CorruptJob {
    job: i64,
    what: &'static str,
}

/// A ledger being loaded: fold every fact after [`after`](Self::after), in order, then [`finish`](Self::finish).
#[derive(Debug)]
pub struct Loading {
    record: JobRecord,
    tasks: Tasks,
    held: Vec<(TaskNo, Held)>,
    last_grants: Vec<LastGrant>,
    fraction_floor: f64,
    stage_floors: Vec<f64>,
    seq: Seq,
    snapshot_seq: Seq,
    /// As the snapshot has it.
    unknown_leases_end: Option<UnixMs>,
}

impl Loading {
    /// Starts from the row and the snapshot's bytes. A snapshot that is damaged or of another run is not used: then every fact is folded.
    pub fn new(record: JobRecord, snapshot: Option<&[u8]>) -> Loading {
        let usable = snapshot
            .and_then(Saved::decode)
            .filter(|saved| saved.run == record.run && saved.base_run == record.base_run)
            .and_then(|saved| Some((bitmap(&saved.succeeded)?, bitmap(&saved.failed)?, saved)));
        let mut loading = Loading {
            record,
            tasks: Tasks::default(),
            held: Vec::new(),
            last_grants: Vec::new(),
            fraction_floor: 0.0,
            stage_floors: Vec::new(),
            seq: Seq(0),
            snapshot_seq: Seq(0),
            unknown_leases_end: None,
        };
        loading.tasks.total = loading.record.tally.total;
        if let Some((succeeded, failed, saved)) = usable {
            loading.tasks.restore(succeeded, failed);
            loading.tasks.spent = saved.spent().collect();
            loading.tasks.late = saved
                .late
                .iter()
                .map(|(task, run, counters)| (*task, (*run, counters.clone())))
                .collect();
            loading.held = saved.held().collect();
            loading.last_grants = saved.last_grants().collect();
            loading.tasks.counters = saved.counters;
            // Marks are display only: one that cannot be read is no reason to read every fact again.
            let marks = saved.marks.iter().map_while(|bytes| bitmap(bytes)).collect();
            loading.tasks.marks = Marks::restored(marks, loading.tasks.total);
            loading.fraction_floor = saved.fraction_floor;
            loading.stage_floors = saved.stage_floors;
            loading.seq = saved.seq;
            loading.snapshot_seq = saved.seq;
            loading.unknown_leases_end = saved.unknown_leases_end;
        }
        loading
    }

    /// Facts up to here are folded already.
    pub fn after(&self) -> Seq {
        self.seq
    }

    /// Folds one page of facts.
    pub fn fold(&mut self, facts: Vec<Fact>) -> Result<(), CorruptJob> {
        for fact in facts {
            if fact.seq <= self.seq {
                return Err(self.corrupt("facts out of order"));
            }
            self.seq = fact.seq;
            self.fold_one(fact)?;
        }
        Ok(())
    }

    fn fold_one(&mut self, fact: Fact) -> Result<(), CorruptJob> {
        let task = fact.task;
        let current = fact.run == self.record.run;
        let stands = fact.run >= self.record.base_run && fact.run <= self.record.run;
        if task.0 >= self.tasks.total {
            return Err(self.corrupt("a fact of a task that does not exist"));
        }
        match fact.kind {
            FactKind::Outcome {
                verdict: Verdict::Succeeded,
                counters,
            } if stands => {
                let counters = self.counters(counters)?;
                self.tasks.late.remove(&task);
                self.tasks.decide(task, Verdict::Succeeded, &counters);
            }
            FactKind::Outcome {
                verdict: Verdict::Failed,
                ..
            } if current => {
                self.tasks.decide(task, Verdict::Failed, &[]);
            }
            FactKind::Attempt { attempt, cause, at } if current => {
                let due = at.plus_ms(self.record.policy.backoff.delay_ms(self.record.id, task, attempt));
                self.tasks.spent.entry(task).or_default().spend(attempt, cause, due);
            }
            FactKind::Late {
                verdict: Verdict::Succeeded,
                counters,
            } if stands && !self.tasks.succeeded.contains(task.0) => {
                let counters = self.counters(counters)?;
                self.tasks.late.insert(task, (fact.run, counters));
            }
            _ => {}
        }
        Ok(())
    }

    fn counters(&self, text: Option<Box<str>>) -> Result<Vec<(String, i64)>, CorruptJob> {
        counters_from_text(text.as_deref()).map_err(|_| self.corrupt("counters that are no object of integers"))
    }

    fn corrupt(&self, what: &'static str) -> CorruptJob {
        CorruptJob {
            job: self.record.id.0,
            what,
        }
    }

    /// The row's tally was written together with outcomes it counted: all of them must have been found again, and once the job is final
    /// there can be no others.
    fn prove_complete(&self, tasks: &Tasks) -> Result<(), CorruptJob> {
        let row = &self.record.tally;
        let found = (tasks.succeeded_count(), tasks.decided_count());
        let written = (row.succeeded, row.succeeded + row.failed);
        if found.0 < written.0 || found.1 < written.1 {
            return Err(self.corrupt("fewer outcomes than its row has counted"));
        }
        if self.record.state.is_final() && found != written {
            return Err(self.corrupt("more outcomes than its row has counted"));
        }
        Ok(())
    }

    /// Can these facts only come of something handed out in this run? The successes that a run begins with are in its row, until a later
    /// change of the row counts them together with its own.
    fn has_begun(&self, tasks: &Tasks) -> bool {
        let row = &self.record;
        let since_start = row.started_at.is_some_and(|at| at < row.updated_at);
        let known = if row.run == Run(1) { 0 } else { row.tally.succeeded };
        tasks.failed_count() > 0
            || !tasks.spent.is_empty()
            || tasks.succeeded_count() > known
            || (since_start && tasks.succeeded_count() > 0)
    }

    /// Until when there may be leases that no snapshot holds. A job that was running may have handed some out after its last snapshot,
    /// before a crash, if it ran before every grant of it was known. A job is only being canceled because there were leases, and grants
    /// none since: a snapshot that was taken since then holds all that are left, but for what was unknown to it as well.
    fn unknown_leases_end(&self, grants_known_since: UnixMs, now: UnixMs) -> Option<UnixMs> {
        let record = &self.record;
        let all_run_out = now.plus_s(record.policy.lease_timeout_s);
        match record.state {
            State::Canceling if self.snapshot_seq >= record.changed_seq => {
                // Like those that are known: nobody could report to the node that was away.
                self.unknown_leases_end
                    .map(|end| end.max(now.plus_ms(RESTORED_LEASE_MS)))
            }
            State::Canceling => Some(all_run_out),
            state => {
                let ran_before = record.started_at.is_none_or(|at| at <= grants_known_since);
                (state.is_active() && ran_before).then_some(all_run_out)
            }
        }
    }

    /// The ledger at what is committed. `lease_seq` must be above every one this epoch has used for the job. Before `grants_known_since`
    /// another process may have granted leases of it, or a ledger that was thrown away.
    pub fn finish(
        self,
        fence: Fence,
        bounds: Bounds,
        lease_seq: LeaseSeq,
        grants_known_since: UnixMs,
        newer_tokens: NewerTokens,
        now: UnixMs,
    ) -> Result<Ledger, CorruptJob> {
        let mut tasks = self.tasks.clone();
        let highest = tasks.succeeded.max().max(tasks.failed.max());
        if highest.is_some_and(|task| task >= tasks.total) {
            return Err(self.corrupt("a decided task that does not exist"));
        }
        let mut leases = Leases::default();
        let mut leased = RoaringBitmap::new();
        let grace = now.plus_ms(RESTORED_LEASE_MS);
        if self.record.state.is_active() && bounds.restores_leases {
            for (task, mut held) in self.held.clone() {
                let over = tasks.verdict(task).is_some() || tasks.spent(task).attempts >= held.attempt.0;
                if !over && task.0 < tasks.total {
                    held.expires_at = held.expires_at.max(grace);
                    leased.insert(task.0);
                    leases.insert(task, held);
                }
            }
            for (worker, request_id, grant) in self.last_grants.clone() {
                leases.remember_grant(&worker, request_id, grant);
            }
        }
        tasks.derive(&leased, now);
        if !self.record.state.is_active() {
            tasks.stop();
        }
        self.prove_complete(&tasks)?;
        let begun = !leases.is_empty() || self.has_begun(&tasks);
        let assigned = self.seq.max(self.record.changed_seq);
        // What comes after the end is kept beside the job and changes nothing that is shown of it.
        let committed = match self.record.state.is_final() {
            true => self.record.changed_seq,
            false => assigned,
        };
        // Where no lease outlives its process there is nobody to wait for.
        let unknown_leases_end = self
            .unknown_leases_end(grants_known_since, now)
            .filter(|_| bounds.restores_leases);
        Ok(Ledger {
            record: self.record,
            fence,
            bounds,
            tasks,
            leases,
            begun,
            committed,
            assigned,
            unknown_leases_end,
            lease_seq,
            inbox: VecDeque::new(),
            holds: HashMap::new(),
            in_flight: None::<InFlight>,
            chunks: VecDeque::new(),
            storing: None,
            store_up: true,
            may_grant: true,
            newer_tokens,
            throughput: Throughput::default(),
            fraction_floor: self.fraction_floor,
            stage_floors: self.stage_floors,
            revision: 0,
        })
    }
}
