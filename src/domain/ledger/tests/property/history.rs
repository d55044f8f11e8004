//! One random history: the ledger on its bench, and beside it the naive model.
//!
//! Owns: the steps, the operators, the clock, the store and crashes. Never: lets a step go unchecked. Invariant: the model learns of a commit
//! only from its rows, and of a lease only from a reply.

mod comparison;
mod workers;

use super::super::model::{GRACE_MS, Holding, Model};
use super::super::*;
use super::ops::Op;
use super::setup::Setup;
use crate::domain::ledger::Refusal;
use crate::domain::rows::{Cause, Verdict};
use proptest::sample::Index;

#[derive(Debug, Clone)]
enum Asked {
    Grant(String, u32, Option<String>),
    Results(Results),
    Control(Control),
    Chunk(Option<u32>),
    /// Answered at once and checked by its caller.
    Checked,
}

pub(super) struct History {
    bench: Bench,
    model: Model,
    worker_cap: u32,
    tokens: Vec<Lease>,
    asked: BTreeMap<Ticket, Asked>,
    /// What the results in flight must come to once they are committed.
    expected: BTreeMap<Ticket, Vec<Disposition>>,
    saved: Vec<Holding>,
    saved_marks: Vec<u8>,
    saved_run: (Run, Run),
    /// The last change of the row that the snapshot knows.
    saved_change: Seq,
    /// Until when there may have been leases that the snapshot does not know either.
    saved_forgotten: Option<UnixMs>,
    /// Last grants, as far as they were still held.
    saved_grants: BTreeMap<String, (String, Vec<Lease>)>,
    /// Every verdict a worker was told counts.
    acknowledged: BTreeSet<(Run, TaskNo, bool)>,
}

impl History {
    pub(super) fn new(setup: &Setup) -> History {
        let mut bench = setup.bench();
        bench.held = true;
        let model = Model::from_rows(&bench.durable, Epoch(1), &[], &[], START);
        let mut history = History {
            bench,
            model,
            worker_cap: setup.bounds.worker_in_flight,
            tokens: Vec::new(),
            asked: BTreeMap::new(),
            expected: BTreeMap::new(),
            saved: Vec::new(),
            saved_marks: Vec::new(),
            saved_run: (Run(0), Run(0)),
            saved_change: Seq(0),
            saved_forgotten: None,
            saved_grants: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
        };
        history.step(Op::Pass(0));
        history
    }

    pub(super) fn step(&mut self, op: Op) {
        match op {
            Op::Grant(worker, most, id) => self.grant(worker, most, id),
            Op::Report(worker, items, then_lease) => self.report(worker, items, then_lease),
            Op::Extend(worker, picks, stage) => self.extend(worker, picks, stage),
            Op::Release(worker, picks) => self.release(worker, picks),
            Op::Ungrant(picks) => self.ungrant(picks),
            Op::Hold(hold, worker, picks) => self.hold(hold, worker, picks),
            Op::EndHold(hold) => self.end_hold(hold),
            Op::Renew(worker) => self.renew(worker),
            Op::Control(control) => {
                let ticket = self.ask(Asked::Control(control));
                self.tell(Command::Control { ticket, control });
            }
            Op::Append(tasks, first) => self.append(tasks, first),
            Op::Settle(refuse) => self.settle(refuse),
            Op::Chunk(done) => self.store_chunk(done),
            Op::Pass(ms) => {
                self.bench.now = self.bench.now.plus_ms(ms);
                let store_up = self.bench.ledger.store_up;
                self.tell(Command::Tick { store_up });
            }
            Op::Store(store_up) => self.store(store_up),
            Op::Save => self.save(),
            Op::Crash(committed, stored, kept) => self.crash(committed, stored, kept),
        }
        self.compare();
    }

    fn ask(&mut self, asked: Asked) -> Ticket {
        let ticket = self.bench.ticket();
        self.asked.insert(ticket, asked);
        ticket
    }

    /// Applies a command and checks every reply and every row that comes of it.
    fn tell(&mut self, command: Command) -> Vec<(Ticket, Reply)> {
        let was_in_flight = self.bench.commit.is_some();
        let replies = self.bench.apply(command);
        for (ticket, reply) in &replies {
            self.hear(*ticket, reply);
        }
        if !was_in_flight && self.bench.commit.is_some() {
            self.foresee();
        }
        replies
    }

    fn in_flight(&self) -> BTreeSet<TaskNo> {
        let Some(batch) = &self.bench.commit else {
            return BTreeSet::new();
        };
        let outcomes = batch.outcomes.iter().chain(&batch.late).map(|row| row.task);
        outcomes.chain(batch.attempts.iter().map(|row| row.task)).collect()
    }

    fn expiring(&self) -> BTreeSet<TaskNo> {
        let rows = self.bench.commit.iter().flat_map(|batch| &batch.attempts);
        rows.filter(|row| row.cause == Cause::Expired)
            .map(|row| row.task)
            .collect()
    }

    fn append(&mut self, tasks: u32, first: Option<Index>) {
        let first_task = first.map(|first| first.index(self.model.tasks.len() + 2) as u32);
        let ticket = self.ask(Asked::Chunk(first_task));
        self.bench.chunks.insert(ticket, tasks);
        self.tell(Command::Append { ticket, first_task });
    }

    fn settle(&mut self, refuse: Option<Index>) {
        let Some(batch) = self.bench.commit.take() else { return };
        let rows: Vec<TaskNo> = {
            let outcomes = batch.outcomes.iter().chain(&batch.late).map(|row| row.task);
            outcomes.chain(batch.attempts.iter().map(|row| row.task)).collect()
        };
        let refused: Vec<TaskNo> = refuse
            .filter(|_| !rows.is_empty())
            .map(|at| *at.get(&rows))
            .into_iter()
            .collect();
        let settlement = Settlement {
            update_dropped: !refused.is_empty() && batch.update.is_some(),
            refused: refused.clone(),
        };
        self.bench.durable.commit(&batch, &settlement);
        self.model.committed(&batch, &refused, self.bench.now);
        for (ticket, expected) in &mut self.expected {
            let Some(Asked::Results(results)) = self.asked.get(ticket) else {
                continue;
            };
            for (item, expected) in results.items.iter().zip(expected) {
                if item.lease.is_some_and(|token| refused.contains(&token.task)) {
                    *expected = Disposition::Rejected;
                }
            }
        }
        self.tell(Command::Settled(settlement));
    }

    fn store_chunk(&mut self, done: bool) {
        let Some((ticket, first_task)) = self.bench.append.take() else {
            return;
        };
        let outcome = if done {
            let added = self.bench.chunks[&ticket];
            self.bench.durable.append(first_task, added);
            self.model
                .tasks
                .resize((first_task + added) as usize, Default::default());
            AppendOutcome::Done { added, existing: 0 }
        } else {
            AppendOutcome::Refused
        };
        self.asked.insert(ticket, Asked::Checked);
        let replies = self.tell(Command::Appended { ticket, outcome });
        let total = self.model.tasks.len() as u32;
        let answer = replies
            .iter()
            .find(|(answered, _)| *answered == ticket)
            .expect("the chunk is answered");
        match (done, &answer.1) {
            (true, Reply::Appended(Ok(appended))) => assert_eq!((appended.total, appended.existing), (total, 0)),
            (false, Reply::Appended(Err(Refusal::NotStored))) => {}
            (_, reply) => panic!("{reply:?}"),
        }
    }

    fn store(&mut self, store_up: bool) {
        if store_up && !self.bench.ledger.store_up {
            let until = self.bench.now.plus_ms(GRACE_MS);
            for lease in self.model.tasks.iter_mut().filter_map(|task| task.lease.as_mut()) {
                lease.expires_at = lease.expires_at.max(until);
            }
        }
        self.tell(Command::Tick { store_up });
    }

    fn save(&mut self) {
        self.bench.save();
        self.saved = self.model.holdings();
        self.saved_marks = self.model.tasks.iter().map(|task| task.marks).collect();
        self.saved_run = (self.model.run, self.model.base_run);
        self.saved_change = self.bench.durable.record.changed_seq;
        self.saved_forgotten = self.model.forgotten_until.filter(|&until| self.bench.now < until);
        self.saved_grants = self.model.grants.clone();
        for (_, leases) in self.saved_grants.values_mut() {
            leases.retain(|lease| self.saved.iter().any(|holding| holding.token == *lease));
        }
        self.saved_grants.retain(|_, (_, leases)| !leases.is_empty());
    }

    fn crash(&mut self, committed: bool, stored: bool, kept: bool) {
        if let Some(batch) = self.bench.commit.take().filter(|_| committed) {
            self.bench.durable.commit(&batch, &Settlement::default());
        }
        if let Some((ticket, first_task)) = self.bench.append.take().filter(|_| stored) {
            self.bench.durable.append(first_task, self.bench.chunks[&ticket]);
        }
        if !kept {
            self.bench.durable.snapshot = None;
        }
        self.bench.crash();
        self.bench.held = true;
        self.asked.clear();
        self.expected.clear();
        let row = &self.bench.durable.record;
        let usable = self.bench.durable.snapshot.is_some() && self.saved_run == (row.run, row.base_run);
        let outlived = self.bench.bounds.restores_leases;
        let kept: &[Holding] = if usable && outlived { &self.saved } else { &[] };
        let marks: &[u8] = if usable { &self.saved_marks } else { &[] };
        self.model = Model::from_rows(&self.bench.durable, self.bench.epoch, kept, marks, self.bench.now);
        // A cancel is under way only because of leases; a snapshot since then holds them, but for those that were forgotten before it.
        let all_saved = usable && self.model.state == State::Canceling && self.saved_change == row.changed_seq;
        let unsaved_until = match self.saved_forgotten {
            until if all_saved => until.map(|until| until.max(self.bench.now.plus_ms(GRACE_MS))),
            _ => Some(self.bench.now.plus_s(row.policy.lease_timeout_s)),
        };
        if self.model.state.is_active() && outlived {
            self.model.forgotten_until = unsaved_until;
            if usable {
                self.model.grants = self.saved_grants.clone();
            }
        }
        // The node looks at what is due as soon as it has loaded the job.
        self.tell(Command::Tick { store_up: true });
    }

    /// Everything that waits is let through: nobody may be left without an answer.
    pub(super) fn finish(&mut self) {
        for _ in 0..1_000 {
            if self.bench.commit.is_some() {
                self.step(Op::Settle(None));
            } else if self.bench.append.is_some() {
                self.step(Op::Chunk(true));
            } else {
                break;
            }
        }
        assert_eq!(self.bench.unanswered(), 0, "{:?}", self.asked);
        for (run, task, success) in &self.acknowledged {
            let row = &self.bench.durable.outcomes[&(*run, *task)];
            assert!(
                !success || row.verdict == Verdict::Succeeded,
                "an acknowledged success was lost"
            );
        }
        let finals = self.bench.durable.events.len() as u32;
        let ended = self.model.run.0 - u32::from(!self.model.state.is_final());
        assert_eq!(finals, ended, "one completion per run that ended");
    }
}
