//! Tests of the ledger: a bench that plays worker, operator and store.
//!
//! Owns: the bench and what every step is checked for. Never: asserts on a private field where a reply or a progress says the same.
//! Invariant: every command of every test goes through [`Bench::apply`], so every test checks the invariants.

mod durable;
mod leases;
mod lifecycle;
mod loading;
mod marks;
mod model;
mod outage;
mod property;
mod renewal;
mod results;
mod tasks_added;

use super::*;
use crate::domain::callback::Event;
use crate::domain::ids::{Attempt, Epoch, JobId, QueueId, Run, TaskNo};
use crate::domain::lease::Lease;
use crate::domain::policy::{Backoff, FailureThreshold, Policy};
use crate::domain::progress::Progress;
use crate::domain::rows::JobBatch;
use crate::domain::state::State;
use durable::Durable;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const START: UnixMs = UnixMs(1_700_000_000_000);
/// The lease time of the bench's jobs.
const LEASE_MS: i64 = 300_000;

/// A running, sealed job of so many tasks whose backoff is exactly 1 s, 2 s, 4 s, ….
fn job(total: u32) -> JobRecord {
    JobRecord {
        id: JobId(42),
        name: "job".into(),
        queue: "q".into(),
        queue_id: QueueId(1),
        state: State::Running,
        run: Run(1),
        base_run: Run(1),
        priority: 0,
        open: false,
        expected_total: None,
        stages: Vec::new(),
        policy: Policy {
            backoff: Backoff {
                jitter: 0.0,
                ..Backoff::default()
            },
            ..Policy::default()
        },
        labels: BTreeMap::new(),
        callback_url: None,
        tally: crate::domain::job::Tally {
            total,
            ..Default::default()
        },
        error: None,
        start_at: None,
        cancel_at: None,
        created_at: START,
        started_at: Some(START),
        finished_at: None,
        updated_at: START,
        changed_seq: Seq(0),
    }
}

struct Bench {
    ledger: Ledger,
    durable: Durable,
    now: UnixMs,
    /// Commits and appends wait until the test lets them through.
    held: bool,
    commit: Option<JobBatch>,
    append: Option<(Ticket, u32)>,
    rebuild: bool,
    bounds: Bounds,
    epoch: Epoch,
    tickets: u64,
    waiting: BTreeSet<Ticket>,
    replies: BTreeMap<Ticket, Reply>,
    /// How many tasks the chunk of a ticket adds.
    chunks: BTreeMap<Ticket, u32>,
    /// (run, seq, fraction, state) of the last progress.
    shown: (Run, Seq, f64, State),
    /// (reached, fraction) of each stage of the last progress.
    shown_stages: Vec<(u32, f64)>,
}

impl Bench {
    fn new(total: u32) -> Bench {
        Bench::with(total, |_| {})
    }

    fn with(total: u32, edit: impl FnOnce(&mut JobRecord)) -> Bench {
        Bench::bounded(total, Bounds::default(), edit)
    }

    fn bounded(total: u32, bounds: Bounds, edit: impl FnOnce(&mut JobRecord)) -> Bench {
        let mut record = job(total);
        edit(&mut record);
        let durable = Durable::new(record);
        let epoch = Epoch(1);
        let fence = Fence {
            queue: QueueId(1),
            epoch,
        };
        let ledger = durable.load(None, fence, bounds, START).expect("a new job loads");
        Bench {
            ledger,
            durable,
            now: START,
            held: false,
            commit: None,
            append: None,
            rebuild: false,
            bounds,
            epoch,
            tickets: 0,
            waiting: BTreeSet::new(),
            replies: BTreeMap::new(),
            chunks: BTreeMap::new(),
            shown: (Run(1), Seq(0), 0.0, State::Pending),
            shown_stages: Vec::new(),
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.waiting.insert(ticket);
        ticket
    }

    /// Applies a command and, unless held, whatever the store has to do for it. Returns the replies of the command itself.
    fn apply(&mut self, command: Command) -> Vec<(Ticket, Reply)> {
        let effects = self.ledger.apply(command, self.now);
        for (ticket, reply) in &effects.replies {
            assert!(self.waiting.remove(ticket), "{ticket:?} was answered twice: {reply:?}");
            self.replies.insert(*ticket, reply.clone());
        }
        if let Some(batch) = effects.commit {
            assert!(!batch.is_empty());
            assert!(self.commit.replace(batch).is_none(), "two batches in flight");
        }
        if let Some(append) = effects.append {
            assert!(self.append.replace(append).is_none(), "two chunks in flight");
        }
        self.rebuild |= effects.rebuild;
        self.check();
        if !self.held {
            self.play();
        }
        effects.replies
    }

    /// Lets the store do everything that waits for it.
    fn play(&mut self) {
        self.held = false;
        if self.commit.is_some() {
            self.settle(Settlement::default());
        } else if self.append.is_some() {
            self.store_chunk(true);
        }
    }

    /// The store commits the batch in flight but for what it refuses.
    fn settle(&mut self, settlement: Settlement) -> Vec<(Ticket, Reply)> {
        let batch = self.commit.take().expect("a batch in flight");
        self.durable.commit(&batch, &settlement);
        self.apply(Command::Settled(settlement))
    }

    fn store_chunk(&mut self, done: bool) -> Vec<(Ticket, Reply)> {
        let (ticket, first_task) = self.append.take().expect("a chunk in flight");
        let outcome = if done {
            let added = self.chunks[&ticket];
            self.durable.append(first_task, added);
            AppendOutcome::Done { added, existing: 0 }
        } else {
            AppendOutcome::Refused
        };
        self.apply(Command::Appended { ticket, outcome })
    }

    /// What anyone can see, and whether it may follow what was seen before.
    fn check(&mut self) {
        let progress = self.ledger.progress(self.now);
        let sum = progress.pending + progress.leased + progress.retrying + progress.succeeded + progress.failed;
        assert_eq!(sum, progress.total);
        assert_eq!(
            self.ledger.tasks.ready.len(),
            u64::from(progress.pending),
            "pending tasks can be handed out"
        );
        let (run, state) = (self.ledger.record().run, self.ledger.record().state);
        let fraction = progress.fraction.unwrap_or(0.0);
        let (old_run, old_seq, old_fraction, old_state) = self.shown;
        assert!(progress.seq >= old_seq, "seq fell from {old_seq} to {}", progress.seq);
        if run == old_run {
            assert!(
                fraction >= old_fraction,
                "the fraction fell from {old_fraction} to {fraction}"
            );
            assert!(!old_state.is_final() || old_state == state, "{old_state} -> {state}");
        }
        assert!(fraction < 1.0 || !self.ledger.record().open);
        self.shown = (run, progress.seq, fraction, state);
        self.check_stages(&progress, run == old_run);
        self.check_against_rows(&progress);
        assert_eq!(self.commit.is_some(), self.ledger.in_flight.is_some());
    }

    fn check_stages(&mut self, progress: &Progress, same_run: bool) {
        let stages = progress.stages.iter();
        let stages: Vec<_> = stages.map(|s| (s.reached, s.fraction.unwrap_or(0.0))).collect();
        for pair in stages.windows(2) {
            assert!(
                pair[0].0 >= pair[1].0,
                "a later stage implies those before it: {stages:?}"
            );
        }
        for &(reached, fraction) in &stages {
            assert!((progress.succeeded..=progress.total).contains(&reached), "{stages:?}");
            assert!((0.0..=1.0).contains(&fraction));
        }
        if same_run {
            for (new, old) in stages.iter().zip(&self.shown_stages) {
                assert!(new.0 >= old.0 && new.1 >= old.1, "a stage fell: {old:?} -> {new:?}");
            }
        }
        self.shown_stages = stages;
    }

    fn check_against_rows(&self, progress: &Progress) {
        let decided = (self.durable.succeeded(), self.durable.failed());
        assert_eq!(
            (progress.succeeded, progress.failed),
            (decided.0.len() as u32, decided.1.len() as u32)
        );
        assert!(
            decided
                .0
                .iter()
                .all(|task| self.ledger.tasks.succeeded.contains(task.0))
        );
        assert_eq!(progress.counters, self.durable.counters());
        let row = &self.durable.record;
        if row.state.is_final() {
            assert_eq!(row.tally.succeeded, progress.succeeded);
            assert_eq!(row.tally.failed, progress.failed);
            assert_eq!(row.tally.counters, progress.counters);
            let reached: Vec<u32> = progress.stages.iter().map(|stage| stage.reached).collect();
            assert_eq!(row.tally.reached, reached, "the row says the same of an ended job");
            assert!(row.finished_at.is_some());
            assert!(self.durable.events.contains(&Event::of(row).id));
        }
        assert_eq!(self.ledger.record(), row, "the ledger's record is the row");
    }

    /// Time passes, and the timer fires.
    fn pass(&mut self, ms: i64) -> Vec<(Ticket, Reply)> {
        self.now = self.now.plus_ms(ms);
        let store_up = self.ledger.store_up;
        self.apply(Command::Tick { store_up })
    }

    fn store_is(&mut self, store_up: bool) {
        self.apply(Command::Tick { store_up });
    }

    /// kill -9, and a new incarnation. Whatever was not committed is gone; callers get no answer.
    fn crash(&mut self) {
        self.commit = None;
        self.append = None;
        self.waiting.clear();
        self.epoch.0 += 1;
        self.durable.orphan();
        self.reload();
    }

    /// Saves a snapshot, as before a graceful restart.
    fn save(&mut self) {
        self.durable.snapshot = Some(self.ledger.snapshot().1);
    }

    fn reload(&mut self) {
        let fence = Fence {
            queue: QueueId(1),
            epoch: self.epoch,
        };
        self.ledger = self
            .durable
            .load(self.durable.snapshot.as_deref(), fence, self.bounds, self.now)
            .expect("what was committed loads");
        // A crash may lose an appended chunk's floor, which only the snapshot carries.
        self.shown.2 = self.shown.2.min(self.ledger.progress(self.now).fraction.unwrap_or(0.0));
        // Marks since the last snapshot are lost, but for what the row has counted.
        self.shown_stages.clear();
        self.check();
    }

    fn reply(&mut self, ticket: Ticket) -> Reply {
        self.replies.remove(&ticket).expect("the ticket was answered")
    }

    fn has_reply(&self, ticket: Ticket) -> bool {
        self.replies.contains_key(&ticket)
    }

    fn unanswered(&self) -> usize {
        self.waiting.len()
    }

    // --- workers -------------------------------------------------------------------------------------------------------------------

    fn grant(&mut self, worker: &str, max_tasks: u32) -> Vec<Lease> {
        self.grant_as(worker, max_tasks, None)
    }

    fn grant_as(&mut self, worker: &str, max_tasks: u32, request_id: Option<&str>) -> Vec<Lease> {
        let ticket = self.ticket();
        self.apply(Command::Grant(Grant {
            ticket,
            worker: worker.into(),
            max_tasks,
            request_id: request_id.map(str::to_owned),
        }));
        match self.reply(ticket) {
            Reply::Granted(granted) => granted.into_iter().map(|granted| granted.lease).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Sends results; the answer may have to wait.
    fn post(&mut self, worker: &str, items: Vec<Item>) -> Ticket {
        self.post_then(worker, items, None)
    }

    fn post_then(&mut self, worker: &str, items: Vec<Item>, then_lease: Option<u32>) -> Ticket {
        let ticket = self.ticket();
        self.apply(Command::Results(Results {
            ticket,
            worker: worker.into(),
            items,
            then_lease,
        }));
        ticket
    }

    fn dispositions(&mut self, ticket: Ticket) -> Vec<Disposition> {
        match self.reply(ticket) {
            Reply::Results { dispositions, .. } => dispositions,
            other => panic!("{other:?}"),
        }
    }

    /// Sends results and has them committed.
    fn report(&mut self, items: Vec<Item>) -> Vec<Disposition> {
        let ticket = self.post("w", items);
        self.dispositions(ticket)
    }

    fn extend(&mut self, worker: &str, leases: &[Lease]) -> Vec<Option<UnixMs>> {
        self.extend_at(worker, leases, None, None)
    }

    fn extend_at(
        &mut self,
        worker: &str,
        leases: &[Lease],
        stage: Option<&str>,
        note: Option<&str>,
    ) -> Vec<Option<UnixMs>> {
        let ticket = self.ticket();
        self.apply(Command::Extend(Extend {
            ticket,
            worker: worker.into(),
            leases: leases.iter().copied().map(Some).collect(),
            stage: stage.map(str::to_owned),
            note: note.map(Into::into),
        }));
        match self.reply(ticket) {
            Reply::Extended { extended, .. } => extended,
            other => panic!("{other:?}"),
        }
    }

    fn release(&mut self, worker: &str, leases: &[Lease]) -> Vec<bool> {
        let ticket = self.ticket();
        self.apply(Command::Release {
            ticket,
            worker: worker.into(),
            leases: leases.iter().copied().map(Some).collect(),
        });
        match self.reply(ticket) {
            Reply::Released(released) => released,
            other => panic!("{other:?}"),
        }
    }

    // --- operators -----------------------------------------------------------------------------------------------------------------

    fn order(&mut self, control: Control) -> Ticket {
        let ticket = self.ticket();
        self.apply(Command::Control { ticket, control });
        ticket
    }

    fn control(&mut self, control: Control) -> Result<(), Refusal> {
        let ticket = self.order(control);
        self.ruling(ticket)
    }

    fn ruling(&mut self, ticket: Ticket) -> Result<(), Refusal> {
        match self.reply(ticket) {
            Reply::Control(ruling) => ruling,
            other => panic!("{other:?}"),
        }
    }

    fn send_chunk(&mut self, tasks: u32, first_task: Option<u32>) -> Ticket {
        let ticket = self.ticket();
        self.chunks.insert(ticket, tasks);
        self.apply(Command::Append { ticket, first_task });
        ticket
    }

    fn chunk(&mut self, ticket: Ticket) -> Result<Appended, Refusal> {
        match self.reply(ticket) {
            Reply::Appended(appended) => appended,
            other => panic!("{other:?}"),
        }
    }

    // --- what is seen --------------------------------------------------------------------------------------------------------------

    fn state(&self) -> State {
        self.durable.record.state
    }

    /// pending, leased, retrying, succeeded, failed
    fn counts(&mut self) -> [u32; 5] {
        let p = self.ledger.progress(self.now);
        [p.pending, p.leased, p.retrying, p.succeeded, p.failed]
    }

    fn error_code(&self) -> Option<&str> {
        self.durable.record.error.as_ref().map(|error| error.code.as_str())
    }
}

fn stage(key: &str) -> crate::domain::job::Stage {
    crate::domain::job::Stage {
        key: key.into(),
        name: key.to_uppercase(),
    }
}

fn success(lease: &Lease) -> Item {
    counted(lease, &[])
}

fn counted(lease: &Lease, counters: &[(&str, i64)]) -> Item {
    Item {
        lease: Some(*lease),
        report: Report::Succeeded {
            result: Some("{}".into()),
            counters: counters.iter().map(|&(name, value)| (name.to_owned(), value)).collect(),
        },
    }
}

fn failure(lease: &Lease) -> Item {
    fails(lease, true)
}

fn fatal(lease: &Lease) -> Item {
    fails(lease, false)
}

fn fails(lease: &Lease, retryable: bool) -> Item {
    Item {
        lease: Some(*lease),
        report: Report::Failed {
            error: "boom".into(),
            retryable,
        },
    }
}

fn successes(leases: &[Lease]) -> Vec<Item> {
    leases.iter().map(success).collect()
}

/// A worker's name as commands carry it.
fn named(worker: &str) -> Arc<str> {
    worker.into()
}

/// The same attempt of the same task, handed out by another token.
fn other_token(lease: &Lease) -> Lease {
    Lease {
        seq: super::LeaseSeq(lease.seq.0 + 1_000_000),
        ..*lease
    }
}

fn one_attempt(record: &mut JobRecord) {
    record.policy.max_attempts = 1;
}

fn attempt(lease: &Lease) -> Attempt {
    lease.attempt
}

fn task(lease: &Lease) -> TaskNo {
    lease.task
}

fn threshold_count(count: u32) -> impl FnOnce(&mut JobRecord) {
    move |record| record.policy.failure_threshold = FailureThreshold::Count(count)
}
