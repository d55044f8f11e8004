//! The bench: a ledger, and a store that does for it what a real one would.
//!
//! Owns: applying commands, and what is checked after each. Never: lets the store act before it was asked. Invariant: every command of every
//! test goes through [`Bench::apply`], so every test checks the invariants.

use super::*;
use crate::domain::callback::Event;

pub(super) struct Bench {
    pub(super) ledger: Ledger,
    pub(super) durable: Durable,
    pub(super) now: UnixMs,
    /// Commits and appends wait until the test lets them through.
    pub(super) held: bool,
    pub(super) commit: Option<JobBatch>,
    pub(super) append: Option<(Ticket, u32)>,
    pub(super) rebuild: bool,
    pub(super) bounds: Bounds,
    pub(super) epoch: Epoch,
    pub(super) tickets: u64,
    pub(super) waiting: BTreeSet<Ticket>,
    pub(super) replies: BTreeMap<Ticket, Reply>,
    /// How many tasks the chunk of a ticket adds.
    pub(super) chunks: BTreeMap<Ticket, u32>,
    /// (run, seq, fraction, state) of the last progress.
    shown: (Run, Seq, f64, State),
    /// (reached, fraction) of each stage of the last progress.
    shown_stages: Vec<(u32, f64)>,
}

impl Bench {
    pub(super) fn new(total: u32) -> Bench {
        Bench::with(total, |_| {})
    }

    pub(super) fn with(total: u32, edit: impl FnOnce(&mut JobRecord)) -> Bench {
        Bench::bounded(total, Bounds::default(), edit)
    }

    pub(super) fn bounded(total: u32, bounds: Bounds, edit: impl FnOnce(&mut JobRecord)) -> Bench {
        let mut record = job(total);
        edit(&mut record);
        let durable = Durable::new(record);
        let epoch = Epoch(1);
        let fence = Fence {
            queue: QueueId(1),
            epoch,
        };
        let ledger = durable
            .load(None, fence, bounds, UnixMs(0), START)
            .expect("a new job loads");
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

    pub(super) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.waiting.insert(ticket);
        ticket
    }

    /// Applies a command and, unless held, whatever the store has to do for it. Returns the replies of the command itself.
    pub(super) fn apply(&mut self, command: Command) -> Vec<(Ticket, Reply)> {
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
    pub(super) fn play(&mut self) {
        self.held = false;
        if self.commit.is_some() {
            self.settle(Settlement::default());
        } else if self.append.is_some() {
            self.store_chunk(true);
        }
    }

    /// The store commits the batch in flight but for what it refuses.
    pub(super) fn settle(&mut self, settlement: Settlement) -> Vec<(Ticket, Reply)> {
        let batch = self.commit.take().expect("a batch in flight");
        self.durable.commit(&batch, &settlement);
        self.apply(Command::Settled(settlement))
    }

    pub(super) fn store_chunk(&mut self, done: bool) -> Vec<(Ticket, Reply)> {
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
    pub(super) fn check(&mut self) {
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
    pub(super) fn pass(&mut self, ms: i64) -> Vec<(Ticket, Reply)> {
        self.now = self.now.plus_ms(ms);
        let store_up = self.ledger.store_up;
        self.apply(Command::Tick { store_up })
    }

    pub(super) fn store_is(&mut self, store_up: bool) {
        self.apply(Command::Tick { store_up });
    }

    /// kill -9, and a new incarnation. Whatever was not committed is gone; callers get no answer.
    pub(super) fn crash(&mut self) {
        self.commit = None;
        self.append = None;
        self.waiting.clear();
        self.epoch.0 += 1;
        self.durable.orphan();
        self.reload();
    }

    /// Saves a snapshot, as before a graceful restart.
    pub(super) fn save(&mut self) {
        self.durable.snapshot = Some(self.ledger.snapshot().1);
    }

    pub(super) fn reload(&mut self) {
        let fence = Fence {
            queue: QueueId(1),
            epoch: self.epoch,
        };
        self.ledger = self
            .durable
            .load(self.durable.snapshot.as_deref(), fence, self.bounds, self.now, self.now)
            .expect("what was committed loads");
        // A crash may lose an appended chunk's floor, which only the snapshot carries.
        self.shown.2 = self.shown.2.min(self.ledger.progress(self.now).fraction.unwrap_or(0.0));
        // Marks since the last snapshot are lost, but for what the row has counted.
        self.shown_stages.clear();
        self.check();
    }

    pub(super) fn reply(&mut self, ticket: Ticket) -> Reply {
        self.replies.remove(&ticket).expect("the ticket was answered")
    }

    pub(super) fn has_reply(&self, ticket: Ticket) -> bool {
        self.replies.contains_key(&ticket)
    }

    pub(super) fn unanswered(&self) -> usize {
        self.waiting.len()
    }
}
