//! A store in memory that does with one job's batches what `store.rs` documents, and refuses what it forbids.
//!
//! Owns: the rows. Never: judges. Invariant: a batch is applied whole or not at all, but for what the test says the store refused.

use crate::domain::callback::Event;
use crate::domain::ids::{Attempt, LeaseSeq, Run, Seq, TaskNo, UnixMs};
use crate::domain::job::{Fence, JobRecord};
use crate::domain::ledger::{Bounds, CorruptJob, Ledger, Loading, NewerTokens, Settlement};
use crate::domain::rows::{AttemptRow, Fact, FactKind, JobBatch, JobUpdate, OutcomeRow, Verdict};
use crate::domain::state::may_move;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone)]
pub(super) struct Durable {
    pub(super) record: JobRecord,
    pub(super) outcomes: BTreeMap<(Run, TaskNo), OutcomeRow>,
    pub(super) attempts: BTreeMap<(Run, TaskNo, Attempt), AttemptRow>,
    pub(super) late: BTreeMap<(Run, TaskNo), OutcomeRow>,
    /// Completion events, by their stable id.
    pub(super) events: BTreeSet<String>,
    pub(super) snapshot: Option<Vec<u8>>,
    highest: Seq,
}

impl Durable {
    pub(super) fn new(record: JobRecord) -> Durable {
        Durable {
            record,
            outcomes: BTreeMap::new(),
            attempts: BTreeMap::new(),
            late: BTreeMap::new(),
            events: BTreeSet::new(),
            snapshot: None,
            highest: Seq(0),
        }
    }

    pub(super) fn commit(&mut self, batch: &JobBatch, settlement: &Settlement) {
        self.check_shape(batch);
        let kept = |task: &TaskNo| !settlement.refused.contains(task);
        for row in batch.outcomes.iter().filter(|row| kept(&row.task)) {
            self.put_outcome(row.clone());
        }
        for row in batch.attempts.iter().filter(|row| kept(&row.task)) {
            let key = (row.run, row.task, row.attempt);
            assert!(
                self.attempts.insert(key, row.clone()).is_none(),
                "attempt spent twice: {key:?}"
            );
        }
        for row in batch.late.iter().filter(|row| kept(&row.task)) {
            let known = self.late.get(&(row.run, row.task));
            if known.is_none_or(|old| old.verdict == Verdict::Failed && row.verdict == Verdict::Succeeded) {
                self.late.insert((row.run, row.task), row.clone());
            }
        }
        if let Some(update) = batch.update.as_ref().filter(|_| !settlement.update_dropped) {
            self.update(update);
        }
    }

    /// Within a job: one outcome per task and batch, seqs unique and above everything before.
    fn check_shape(&mut self, batch: &JobBatch) {
        let tasks: BTreeSet<TaskNo> = batch.outcomes.iter().map(|row| row.task).collect();
        assert_eq!(tasks.len(), batch.outcomes.len(), "two outcomes of one task in a batch");
        let mut seqs: Vec<Seq> = batch.outcomes.iter().chain(&batch.late).map(|row| row.seq).collect();
        seqs.extend(batch.attempts.iter().map(|row| row.seq));
        seqs.extend(batch.update.iter().map(|update| update.changed_seq));
        let unique: BTreeSet<Seq> = seqs.iter().copied().collect();
        assert_eq!(unique.len(), seqs.len(), "a seq was given out twice");
        assert!(
            unique.first().is_some_and(|&first| first > self.highest),
            "seqs go on rising"
        );
        self.highest = *unique.last().expect("a batch is never empty");
    }

    fn put_outcome(&mut self, row: OutcomeRow) {
        let key = (row.run, row.task);
        if let Some(old) = self.outcomes.get(&key) {
            let corrects = old.verdict == Verdict::Failed && row.verdict == Verdict::Succeeded;
            assert!(corrects, "an outcome was written twice: {key:?}");
        }
        self.outcomes.insert(key, row);
    }

    fn update(&mut self, update: &JobUpdate) {
        let row = &mut self.record;
        assert!(
            update.from.contains(&row.state) && update.from_run == row.run,
            "the guard misses"
        );
        let same_run = update.run == row.run;
        assert!(
            row.state == update.state || may_move(row.state, update.state) || (!same_run && row.state.is_final()),
            "{} -> {}",
            row.state,
            update.state
        );
        assert!(same_run || update.run == row.run.next());
        assert_eq!(update.tally.total, row.tally.total, "only appending moves the total");
        row.state = update.state;
        row.run = update.run;
        row.base_run = update.base_run;
        row.priority = update.priority;
        row.policy = update.policy.clone();
        row.open = update.open;
        row.tally = update.tally.clone();
        row.error = update.error.clone();
        row.start_at = update.start_at;
        row.cancel_at = update.cancel_at;
        row.started_at = update.started_at;
        row.finished_at = update.finished_at;
        row.updated_at = update.updated_at;
        row.changed_seq = update.changed_seq;
        if update.promote_late {
            self.promote(update);
        }
        assert_eq!(update.event.is_some(), update.ends_job());
        if let Some(event) = &update.event {
            assert_eq!(**event, Event::of(&self.record), "what is told is what the row says");
            assert!(self.events.insert(event.id.clone()), "two completions of one run");
        }
    }

    /// As the stores do: the latest late success of each task without a standing one, numbered after the update.
    fn promote(&mut self, update: &JobUpdate) {
        let standing = self.standing();
        let chosen: BTreeMap<TaskNo, OutcomeRow> = self
            .late
            .iter()
            .filter(|((run, task), row)| {
                (update.base_run..update.run).contains(run)
                    && row.verdict == Verdict::Succeeded
                    && !standing.contains_key(task)
            })
            .map(|((_, task), row)| (*task, row.clone()))
            .collect();
        let mut seq = Seq(update.changed_seq.0 + 1);
        for (task, row) in chosen {
            seq.0 += 1;
            let run = update.run;
            self.outcomes.insert((run, task), OutcomeRow { run, seq, ..row });
            self.highest = seq;
        }
    }

    /// A node died: positions it gave out for what did not become durable may be given out again.
    pub(super) fn orphan(&mut self) {
        let facts = self.facts().last().map_or(Seq(0), |fact| fact.seq);
        self.highest = facts.max(self.record.changed_seq);
    }

    pub(super) fn append(&mut self, first_task: u32, added: u32) {
        assert_eq!(self.record.tally.total, first_task, "a chunk goes behind the last task");
        self.record.tally.total += added;
    }

    /// Successes that count now, with the row of the latest run.
    pub(super) fn standing(&self) -> BTreeMap<TaskNo, &OutcomeRow> {
        self.outcomes
            .iter()
            .filter(|((run, _), row)| {
                (self.record.base_run..=self.record.run).contains(run) && row.verdict == Verdict::Succeeded
            })
            .map(|((_, task), row)| (*task, row))
            .collect()
    }

    pub(super) fn succeeded(&self) -> BTreeSet<TaskNo> {
        self.standing().into_keys().collect()
    }

    pub(super) fn failed(&self) -> BTreeSet<TaskNo> {
        let succeeded = self.succeeded();
        self.outcomes
            .iter()
            .filter(|((run, task), row)| {
                *run == self.record.run && row.verdict == Verdict::Failed && !succeeded.contains(task)
            })
            .map(|((_, task), _)| *task)
            .collect()
    }

    /// Sums of the counters of what stands.
    pub(super) fn counters(&self) -> BTreeMap<String, i64> {
        let mut sums = BTreeMap::new();
        for row in self.standing().values() {
            let counters: BTreeMap<String, i64> = row
                .counters
                .as_deref()
                .map(|text| serde_json::from_str(text).expect("counters are an object of integers"))
                .unwrap_or_default();
            for (name, value) in counters {
                *sums.entry(name).or_insert(0) += value;
            }
        }
        sums
    }

    pub(super) fn facts(&self) -> Vec<Fact> {
        let outcome = |row: &OutcomeRow| Fact {
            seq: row.seq,
            run: row.run,
            task: row.task,
            kind: FactKind::Outcome {
                verdict: row.verdict,
                counters: row.counters.clone(),
            },
        };
        let late = |row: &OutcomeRow| Fact {
            seq: row.seq,
            run: row.run,
            task: row.task,
            kind: FactKind::Late {
                verdict: row.verdict,
                counters: row.counters.clone(),
            },
        };
        let attempt = |row: &AttemptRow| Fact {
            seq: row.seq,
            run: row.run,
            task: row.task,
            kind: FactKind::Attempt {
                attempt: row.attempt,
                cause: row.cause,
                at: row.at,
            },
        };
        let mut facts: Vec<Fact> = self.outcomes.values().map(outcome).collect();
        facts.extend(self.late.values().map(late));
        facts.extend(self.attempts.values().map(attempt));
        facts.sort_by_key(|fact| fact.seq);
        facts
    }

    pub(super) fn load(
        &self,
        snapshot: Option<&[u8]>,
        fence: Fence,
        bounds: Bounds,
        grants_known_since: UnixMs,
        now: UnixMs,
    ) -> Result<Ledger, CorruptJob> {
        let mut loading = Loading::new(self.record.clone(), snapshot);
        let after = loading.after();
        let facts: Vec<Fact> = self.facts().into_iter().filter(|fact| fact.seq > after).collect();
        for page in facts.chunks(3) {
            loading.fold(page.to_vec())?;
        }
        loading.finish(
            fence,
            bounds,
            LeaseSeq(0),
            grants_known_since,
            NewerTokens::Suspect,
            now,
        )
    }
}
