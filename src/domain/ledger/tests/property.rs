//! Random histories of a job, each step of which the naive [`Model`] must agree with.
//!
//! Owns: the random workers, operators, clock, store and crashes. Never: relies on a fixed history; proptest prints the failing one.
//! Invariant: the model learns of a commit only from its rows, and of a lease only from a reply.

use super::model::{GRACE_MS, Holding, Model, Ruling, STAGES};
use super::*;
use crate::domain::ledger::Refusal;
use crate::domain::rows::{Cause, Verdict};
use proptest::prelude::*;
use proptest::sample::Index;

/// Picks a token that some worker may send.
#[derive(Debug, Clone)]
enum Pick {
    Seen(Index),
    /// The youngest tokens, so that results for what is leased are common.
    Recent(usize),
    OtherToken(Index),
    OtherJob(Index),
    NoSuchTask(Index),
    Newer(Index),
    /// No token, but the name of a task: what the ledger makes of a success or a failure of it.
    Named(Index, bool),
    Garbage,
}

#[derive(Debug, Clone, Copy)]
enum Told {
    Success(i64),
    Failure,
    Fatal,
    Unusable,
}

#[derive(Debug, Clone)]
enum Op {
    Grant(u8, u32, Option<u8>),
    Report(u8, Vec<(Pick, Told)>, Option<u32>),
    Extend(u8, Vec<Pick>, Option<u8>),
    Release(u8, Vec<Pick>),
    Ungrant(Vec<Pick>),
    /// An upload holds leases; none: it has not said who it is.
    Hold(u8, Option<u8>, Vec<Pick>),
    EndHold(u8),
    /// A call on behalf of the worker's holder.
    Renew(u8),
    Control(Control),
    Append(u32, Option<Index>),
    /// The batch in flight is committed; sometimes without some of its tasks.
    Settle(Option<Index>),
    Chunk(bool),
    Pass(i64),
    Store(bool),
    Save,
    /// kill -9: was the batch in flight committed, was the chunk stored, and is the snapshot found?
    Crash(bool, bool, bool),
}

/// Under which ticket, which no caller has, the model keeps what an upload holds.
fn holder(hold: u8) -> Ticket {
    Ticket(u64::MAX - u64::from(hold))
}

fn pick() -> impl Strategy<Value = Pick> {
    prop_oneof![
        6 => any::<Index>().prop_map(Pick::Seen),
        12 => (0usize..8).prop_map(Pick::Recent),
        1 => any::<Index>().prop_map(Pick::OtherToken),
        1 => any::<Index>().prop_map(Pick::OtherJob),
        1 => any::<Index>().prop_map(Pick::NoSuchTask),
        1 => any::<Index>().prop_map(Pick::Newer),
        1 => Just(Pick::Garbage),
    ]
}

/// What a result may name its task by.
fn reported() -> impl Strategy<Value = Pick> {
    prop_oneof![
        12 => pick(),
        1 => (any::<Index>(), any::<bool>()).prop_map(|(index, succeeded)| Pick::Named(index, succeeded)),
    ]
}

fn told() -> impl Strategy<Value = Told> {
    prop_oneof![
        6 => (-3i64..9).prop_map(Told::Success),
        4 => Just(Told::Failure),
        1 => Just(Told::Fatal),
        1 => Just(Told::Unusable),
    ]
}

fn control() -> impl Strategy<Value = Control> {
    let retry = (
        any::<bool>(),
        prop_oneof![3 => Just(None), 1 => (1u32..4).prop_map(|run| Some(Run(run)))],
    );
    prop_oneof![
        2 => Just(Control::Start),
        1 => Just(Control::Pause),
        2 => Just(Control::Resume),
        1 => prop_oneof![Just(0u32), Just(30), Just(400)].prop_map(|grace_s| Control::Cancel { grace_s }),
        1 => Just(Control::Seal),
        3 => retry.prop_map(|(all, if_run)| Control::Retry {
            only: if all { RetryOnly::All } else { RetryOnly::Failed },
            if_run,
        }),
        1 => (prop::option::of(-1i32..2), prop::option::of(0u32..4)).prop_map(|(priority, count)| Control::Change {
            priority,
            failure_threshold: count.map(FailureThreshold::Count),
        }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let worker = || 0u8..3;
    let picks = || prop::collection::vec(pick(), 0..4);
    prop_oneof![
        6 => (worker(), 0u32..6, prop::option::weighted(0.3, 0u8..3)).prop_map(|(w, n, id)| Op::Grant(w, n, id)),
        12 => (worker(), prop::collection::vec((reported(), told()), 0..6), prop::option::weighted(0.2, 0u32..4))
            .prop_map(|(w, items, then)| Op::Report(w, items, then)),
        4 => (worker(), picks(), prop::option::of(0..STAGES + 1)).prop_map(|(w, p, stage)| Op::Extend(w, p, stage)),
        2 => (worker(), picks()).prop_map(|(w, picks)| Op::Release(w, picks)),
        1 => picks().prop_map(Op::Ungrant),
        3 => (0u8..3, prop::option::of(worker()), picks()).prop_map(|(hold, w, picks)| Op::Hold(hold, w, picks)),
        2 => (0u8..3).prop_map(Op::EndHold),
        3 => worker().prop_map(Op::Renew),
        4 => control().prop_map(Op::Control),
        2 => (0u32..5, prop::option::weighted(0.3, any::<Index>())).prop_map(|(n, first)| Op::Append(n, first)),
        12 => prop::option::weighted(0.1, any::<Index>()).prop_map(Op::Settle),
        4 => prop::bool::weighted(0.9).prop_map(Op::Chunk),
        4 => prop_oneof![Just(0i64), 1i64..3_000, Just(LEASE_MS), 50_000i64..900_000].prop_map(Op::Pass),
        1 => any::<bool>().prop_map(Op::Store),
        1 => Just(Op::Save),
        1 => (any::<bool>(), any::<bool>(), prop::bool::weighted(0.7)).prop_map(|(c, s, k)| Op::Crash(c, s, k)),
    ]
}

/// Three workers of two holders.
fn name(worker: u8) -> String {
    format!("h{}@{worker}", worker % 2)
}

#[derive(Debug, Clone)]
struct Setup {
    total: u32,
    open: bool,
    expected_total: Option<u32>,
    state: State,
    start_in: Option<i64>,
    max_attempts: u32,
    backoff_s: f64,
    threshold: FailureThreshold,
    abort_early: bool,
    max_in_flight: Option<u32>,
    bounds: Bounds,
}

fn setup() -> impl Strategy<Value = Setup> {
    let threshold = prop_oneof![
        (0u32..4).prop_map(FailureThreshold::Count),
        prop_oneof![Just(0.0), Just(0.5), Just(1.0)].prop_map(FailureThreshold::Ratio)
    ];
    let shape = (
        0u32..9,
        any::<bool>(),
        prop::option::of(0u32..20),
        any::<bool>(),
        prop::option::of(0i64..90_000),
    );
    let policy = (
        1u32..4,
        prop_oneof![Just(0.0), Just(1.0)],
        threshold,
        any::<bool>(),
        prop::option::of(1u32..5),
    );
    let bounds = (1u32..8, prop_oneof![Just(1usize), Just(3), Just(20_000)]);
    (shape, policy, bounds).prop_map(|(shape, policy, bounds)| {
        let (total, open, expected_total, running, start_in) = shape;
        let (max_attempts, backoff_s, threshold, abort_early, max_in_flight) = policy;
        Setup {
            total,
            open,
            expected_total,
            // A sealed job without tasks is created final when it starts at once.
            state: if running && (open || total > 0) {
                State::Running
            } else {
                State::Pending
            },
            start_in,
            max_attempts,
            backoff_s,
            threshold,
            abort_early,
            max_in_flight,
            bounds: Bounds {
                worker_in_flight: bounds.0,
                batch_items: bounds.1,
                ..Bounds::default()
            },
        }
    })
}

#[derive(Debug, Clone)]
enum Asked {
    Grant(String, u32, Option<String>),
    Results(Results),
    Control(Control),
    Chunk(Option<u32>),
    /// Answered at once and checked by its caller.
    Checked,
}

struct History {
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
    /// Last grants, as far as they were still held.
    saved_grants: BTreeMap<String, (String, Vec<Lease>)>,
    /// Every verdict a worker was told counts.
    acknowledged: BTreeSet<(Run, TaskNo, bool)>,
}

impl History {
    fn new(setup: &Setup) -> History {
        let mut bench = Bench::bounded(setup.total, setup.bounds, |record| {
            record.stages = (0..STAGES).map(|place| stage(&format!("s{place}"))).collect();
            record.open = setup.open;
            record.expected_total = setup.expected_total;
            record.state = setup.state;
            record.start_at = setup
                .start_in
                .filter(|_| setup.state == State::Pending)
                .map(|ms| START.plus_ms(ms));
            record.started_at = None;
            record.policy.max_attempts = setup.max_attempts;
            record.policy.backoff.initial_s = setup.backoff_s;
            record.policy.failure_threshold = setup.threshold;
            record.policy.abort_early = setup.abort_early;
            record.policy.max_in_flight = setup.max_in_flight;
        });
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
            saved_grants: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
        };
        history.step(Op::Pass(0));
        history
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Grant(worker, most, id) => self.grant(worker, most, id),
            Op::Report(worker, items, then_lease) => self.report(worker, items, then_lease),
            Op::Extend(worker, picks, stage) => self.extend(worker, picks, stage),
            Op::Release(worker, picks) => self.release(worker, picks),
            Op::Ungrant(picks) => self.ungrant(picks),
            Op::Hold(hold, worker, picks) => self.hold(hold, worker, picks),
            Op::EndHold(hold) => {
                self.model.claims.retain(|(claimed_by, _)| *claimed_by != holder(hold));
                self.tell(Command::EndHold {
                    hold: Hold(u64::from(hold)),
                });
            }
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
            Op::Save => {
                self.bench.save();
                self.saved = self.model.holdings();
                self.saved_marks = self.model.tasks.iter().map(|task| task.marks).collect();
                self.saved_run = (self.model.run, self.model.base_run);
                self.saved_change = self.bench.durable.record.changed_seq;
                self.saved_grants = self.model.grants.clone();
                for (_, leases) in self.saved_grants.values_mut() {
                    leases.retain(|lease| self.saved.iter().any(|holding| holding.token == *lease));
                }
                self.saved_grants.retain(|_, (_, leases)| !leases.is_empty());
            }
            Op::Crash(committed, stored, kept) => self.crash(committed, stored, kept),
        }
        self.compare();
    }

    fn compare(&mut self) {
        let now = self.bench.now;
        assert_eq!(
            self.bench.counts(),
            self.model.counts(now),
            "pending, leased, retrying, succeeded, failed"
        );
        let reached = self.bench.ledger.progress(now).stages.into_iter().map(|s| s.reached);
        assert_eq!(reached.collect::<Vec<_>>(), self.model.reached(), "stages");
        let record = self.bench.ledger.record();
        assert_eq!(
            (record.state, record.run, record.open),
            (self.model.state, self.model.run, self.model.open)
        );
        if self.bench.commit.is_none() && self.bench.append.is_none() {
            assert_eq!(self.model.overdue(self.bench.ledger.store_up, now), None, "left undone");
            assert!(self.bench.ledger.is_settled());
            assert!(self.asked.is_empty(), "nothing will ever answer {:?}", self.asked);
            let wake = self.bench.ledger.next_wake();
            assert!(wake.is_none_or(|wake| wake > now), "the timer would spin");
        }
        for holding in self.model.holdings() {
            let held = self
                .bench
                .ledger
                .leases
                .get(holding.token.task)
                .expect("the ledger knows the lease");
            assert!(held.is(&holding.token));
            assert_eq!(self.bench.ledger.leases.ends(held), holding.expires_at);
        }
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

    fn hear(&mut self, ticket: Ticket, reply: &Reply) {
        let asked = self.asked.remove(&ticket).expect("a reply to a question");
        match (asked, reply) {
            (Asked::Checked, _) => {}
            (Asked::Grant(worker, most, id), Reply::Granted(granted)) => self.hear_grant(&worker, most, id, granted),
            (Asked::Results(results), Reply::Results { .. }) => self.hear_results(ticket, results, reply),
            (Asked::Control(control), Reply::Control(result)) => {
                if !self.expected.contains_key(&ticket) {
                    let ruling = self.model.ruling(control, self.bench.now);
                    assert_eq!(
                        ruling,
                        if result.is_ok() {
                            Ruling::Already
                        } else {
                            Ruling::Refused
                        }
                    );
                } else {
                    assert_eq!(*result, Ok(()));
                    self.expected.remove(&ticket);
                }
            }
            (Asked::Chunk(first_task), Reply::Appended(result)) => {
                assert_eq!(result.err(), self.model.refuses_chunk(first_task));
            }
            (asked, reply) => panic!("{asked:?} was answered {reply:?}"),
        }
    }

    fn hear_grant(&mut self, worker: &str, most: u32, id: Option<String>, granted: &[Granted]) {
        let last = self
            .model
            .grants
            .get(worker)
            .filter(|(last, _)| Some(last) == id.as_ref());
        if let Some((_, leases)) = last {
            let expiring = self.expiring();
            let holdings = self.model.holdings();
            let still: Vec<Lease> = leases
                .iter()
                .filter(|lease| {
                    holdings.iter().any(|h| h.token == **lease && h.worker == worker) && !expiring.contains(&lease.task)
                })
                .copied()
                .collect();
            if !still.is_empty() {
                assert_eq!(
                    granted.iter().map(|g| g.lease).collect::<Vec<_>>(),
                    still,
                    "a replayed grant"
                );
                return;
            }
        }
        let offered = self.model.offered(worker, most, self.worker_cap, self.bench.now);
        assert_eq!(
            granted.iter().map(|g| g.lease.task).collect::<Vec<_>>(),
            offered,
            "what is handed out"
        );
        for granted in granted {
            let token = granted.lease;
            let task = &mut self.model.tasks[token.task.0 as usize];
            assert_eq!(
                (token.attempt.0, token.run, token.epoch),
                (task.spent + 1, self.model.run, self.model.epoch)
            );
            assert_eq!(granted.expires_at, self.bench.now.plus_ms(LEASE_MS));
            let expires_at = granted.expires_at;
            task.lease = Some(Holding {
                token,
                worker: worker.into(),
                granted_at: self.bench.now,
                expires_at,
            });
            self.tokens.push(token);
        }
        if let Some(id) = id.filter(|_| !granted.is_empty()) {
            let leases = granted.iter().map(|granted| granted.lease).collect();
            self.model.grants.insert(worker.into(), (id, leases));
        }
    }

    fn hear_results(&mut self, ticket: Ticket, results: Results, reply: &Reply) {
        let Reply::Results {
            dispositions,
            state,
            run,
            granted,
        } = reply
        else {
            return;
        };
        self.model.claims.retain(|(claimed_by, _)| *claimed_by != ticket);
        assert_eq!((*state, *run), (self.model.state, self.model.run));
        let expected = match self.expected.remove(&ticket) {
            Some(expected) => expected,
            // Answered without a commit: nothing may have changed.
            None => {
                let mut after = self.model.clone();
                let expected: Vec<Disposition> = results.items.iter().map(|item| after.judge(item)).collect();
                assert_eq!(after.tasks, self.model.tasks, "answered before it was durable");
                expected
            }
        };
        assert_eq!(*dispositions, expected);
        for (item, disposition) in results.items.iter().zip(dispositions) {
            let Some(token) = item.lease else { continue };
            let success = matches!(item.report, Report::Succeeded { .. });
            if *disposition == Disposition::Counted {
                let row = &self.bench.durable.outcomes[&(token.run, token.task)];
                assert!(!success || row.verdict == Verdict::Succeeded);
                assert!(
                    self.acknowledged.insert((token.run, token.task, success)),
                    "counted twice: {token}"
                );
            }
            if *disposition == Disposition::Late && success {
                assert_eq!(
                    self.bench.durable.late[&(token.run, token.task)].verdict,
                    Verdict::Succeeded
                );
            }
        }
        assert_eq!(granted.is_some(), results.then_lease.is_some());
        if let (Some(most), Some(granted)) = (results.then_lease, granted) {
            self.hear_grant(&results.worker, most, None, granted);
        }
    }

    /// A batch was just handed out: works out what its requests must come to, and that its rows say just that.
    fn foresee(&mut self) {
        let batch = self.bench.commit.clone().expect("a batch in flight");
        let in_flight = self.bench.ledger.in_flight.as_ref().expect("the ledger knows of it");
        let mut after = self.model.clone();
        for owed in &in_flight.owed {
            let Some(Asked::Results(results)) = self.asked.get(&owed.ticket) else {
                panic!("owed to nobody")
            };
            let expected = results.items.iter().map(|item| after.judge(item)).collect();
            self.expected.insert(owed.ticket, expected);
        }
        if let Some(ticket) = in_flight.control {
            let Some(Asked::Control(control)) = self.asked.get(&ticket) else {
                panic!("owed to nobody")
            };
            assert_eq!(self.model.ruling(*control, self.bench.now), Ruling::Change);
            self.expected.insert(ticket, Vec::new());
        }
        for row in batch.attempts.iter().filter(|row| row.cause == Cause::Expired) {
            let task = &mut after.tasks[row.task.0 as usize];
            let lease = task.lease.take().expect("only a lease expires");
            assert!(self.bench.ledger.store_up && lease.expires_at <= self.bench.now);
            assert!(!self.model.is_claimed(&lease.token), "expired while its result waits");
            assert_eq!((row.attempt, task.verdict), (lease.token.attempt, None));
            task.spent = row.attempt.0;
            // While a cancel is under way silence fails nothing.
            if task.spent >= self.model.policy.max_attempts && self.model.state != State::Canceling {
                task.verdict = Some(Verdict::Failed);
            }
        }
        let mut committed = self.model.clone();
        committed.committed(&batch, &[], self.bench.now);
        if batch.update.as_ref().is_none_or(|update| update.run == self.model.run) {
            let verdicts = |model: &Model| model.tasks.iter().map(|t| (t.verdict, t.spent)).collect::<Vec<_>>();
            assert_eq!(
                verdicts(&committed),
                verdicts(&after),
                "the rows say what the results say"
            );
        }
        self.foresee_end(&committed, in_flight.control.is_some());
    }

    fn foresee_end(&self, after: &Model, controlled: bool) {
        if !after.state.is_final() || self.model.state.is_final() {
            return;
        }
        let decided = !after.open && after.undecided() == 0;
        match after.state {
            state if decided && !controlled => assert_eq!(state, after.natural_end()),
            State::Canceled => assert!(controlled || self.model.state == State::Canceling),
            State::Failed if !decided => {
                assert!(after.policy.abort_early && !after.open && after.is_past_threshold());
                assert_ne!(self.model.state, State::Canceling);
            }
            state => assert_eq!((decided, state), (true, after.natural_end())),
        }
    }

    fn token(&self, pick: &Pick) -> Option<Lease> {
        let seen = |index: &Index| (!self.tokens.is_empty()).then(|| *index.get(&self.tokens));
        match pick {
            Pick::Seen(index) => seen(index),
            Pick::Recent(back) => self.tokens.iter().rev().nth(*back).copied(),
            Pick::OtherToken(index) => seen(index).map(|token| other_token(&token)),
            Pick::OtherJob(index) => seen(index).map(|token| Lease {
                job: JobId(43),
                ..token
            }),
            Pick::NoSuchTask(index) => seen(index).map(|token| Lease {
                task: TaskNo(1_000),
                ..token
            }),
            Pick::Newer(index) => seen(index).map(|token| Lease {
                epoch: Epoch(1_000),
                ..token
            }),
            Pick::Named(index, succeeded) => {
                let task = TaskNo(index.index(self.model.tasks.len() + 1) as u32);
                let token = self.bench.ledger.token_of(task, *succeeded, &name(0));
                let held = self
                    .model
                    .holdings()
                    .into_iter()
                    .find(|holding| holding.token.task == task);
                match held {
                    Some(held) if held.worker.starts_with("h0@") => assert_eq!(token, held.token),
                    _ => assert!(!self.tokens.contains(&token), "the token of another lease"),
                }
                Some(token)
            }
            Pick::Garbage => None,
        }
    }

    fn is_suspicious(&self, tokens: &[Option<Lease>]) -> bool {
        tokens
            .iter()
            .flatten()
            .any(|token| token.epoch > self.model.epoch || token.run > self.model.run)
    }

    /// Tells a command that proves this ledger out of date, and expects it to say so and change nothing.
    fn tell_newer(&mut self, ticket: Ticket, command: Command) {
        self.asked.insert(ticket, Asked::Checked);
        let replies = self.tell(command);
        assert_eq!(replies.first(), Some(&(ticket, Reply::Stale)));
        assert!(std::mem::take(&mut self.bench.rebuild));
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

    fn current(&mut self, token: &Lease, worker: &str) -> bool {
        let (in_flight, now) = (self.in_flight(), self.bench.now);
        self.model.current(token, worker, &in_flight, now)
    }

    fn grant(&mut self, worker: u8, most: u32, id: Option<u8>) {
        let (worker, request_id) = (name(worker), id.map(|id| format!("r{id}")));
        let ticket = self.ask(Asked::Grant(worker.clone(), most, request_id.clone()));
        self.tell(Command::Grant(Grant {
            ticket,
            worker: named(&worker),
            max_tasks: most,
            request_id,
        }));
    }

    fn report(&mut self, worker: u8, items: Vec<(Pick, Told)>, then_lease: Option<u32>) {
        let worker = name(worker);
        let items: Vec<Item> = items
            .iter()
            .map(|(pick, told)| Item {
                lease: self.token(pick),
                report: match told {
                    Told::Success(n) => Report::Succeeded {
                        result: Some("1".into()),
                        counters: vec![("n".into(), *n)],
                    },
                    Told::Failure => Report::Failed {
                        error: "no".into(),
                        retryable: true,
                    },
                    Told::Fatal => Report::Failed {
                        error: "never".into(),
                        retryable: false,
                    },
                    Told::Unusable => Report::Unusable,
                },
            })
            .collect();
        let tokens: Vec<Option<Lease>> = items.iter().map(|item| item.lease).collect();
        let ticket = self.bench.ticket();
        let results = Results {
            ticket,
            worker: named(&worker),
            items,
            then_lease,
        };
        if self.is_suspicious(&tokens) {
            return self.tell_newer(ticket, Command::Results(results));
        }
        for token in tokens.into_iter().flatten() {
            if self.current(&token, &worker) {
                self.model.claims.push((ticket, token));
            }
        }
        self.asked.insert(ticket, Asked::Results(results.clone()));
        self.tell(Command::Results(results));
    }

    fn extend(&mut self, worker: u8, picks: Vec<Pick>, stage: Option<u8>) {
        let worker = name(worker);
        let leases: Vec<Option<Lease>> = picks.iter().map(|pick| self.token(pick)).collect();
        let ticket = self.bench.ticket();
        let command = Command::Extend(Extend {
            ticket,
            worker: named(&worker),
            leases: leases.clone(),
            stage: stage.map(|place| format!("s{place}")),
            note: None,
        });
        if stage.is_some_and(|place| place >= STAGES) {
            self.asked.insert(ticket, Asked::Checked);
            let replies = self.tell(command);
            assert_eq!(replies.first(), Some(&(ticket, Reply::Refused(Refusal::UnknownStage))));
            return;
        }
        let update = self.bench.commit.as_ref().and_then(|batch| batch.update.as_ref());
        let stage = stage.filter(|_| !update.is_some_and(|update| update.state.is_final()));
        if self.is_suspicious(&leases) {
            return self.tell_newer(ticket, command);
        }
        let (expiring, until) = (self.expiring(), self.bench.now.plus_ms(LEASE_MS));
        let mut extended = Vec::new();
        for token in leases {
            let token = token.filter(|token| self.current(token, &worker) && !expiring.contains(&token.task));
            extended.push(token.and_then(|token| {
                let task = &mut self.model.tasks[token.task.0 as usize];
                task.marks = task.marks.max(stage.map_or(0, |place| place + 1));
                let lease = task.lease.as_mut()?;
                lease.expires_at = lease.expires_at.max(until);
                Some(lease.expires_at)
            }));
        }
        let state = self.model.state;
        self.asked.insert(ticket, Asked::Checked);
        let replies = self.tell(command);
        assert_eq!(replies.first(), Some(&(ticket, Reply::Extended { extended, state })));
    }

    fn release(&mut self, worker: u8, picks: Vec<Pick>) {
        let worker = name(worker);
        let leases: Vec<Option<Lease>> = picks.iter().map(|pick| self.token(pick)).collect();
        let ticket = self.bench.ticket();
        let command = Command::Release {
            ticket,
            worker: named(&worker),
            leases: leases.clone(),
        };
        if self.is_suspicious(&leases) {
            return self.tell_newer(ticket, command);
        }
        let released = leases
            .iter()
            .map(|token| token.is_some_and(|token| self.current(&token, &worker) && self.give_back(&token)))
            .collect();
        self.asked.insert(ticket, Asked::Checked);
        let replies = self.tell(command);
        assert_eq!(replies.first(), Some(&(ticket, Reply::Released(released))));
    }

    fn give_back(&mut self, token: &Lease) -> bool {
        let free = !self.model.is_claimed(token) && !self.expiring().contains(&token.task);
        if free {
            self.model.tasks[token.task.0 as usize].lease = None;
        }
        free
    }

    fn ungrant(&mut self, picks: Vec<Pick>) {
        let tokens: Vec<Lease> = picks.iter().filter_map(|pick| self.token(pick)).collect();
        for token in &tokens {
            // An ungrant speaks of this incarnation's own leases, by number.
            let held = self
                .model
                .holdings()
                .into_iter()
                .find(|h| h.token.task == token.task && h.token.seq == token.seq);
            if let Some(holding) = held {
                self.give_back(&holding.token);
            }
        }
        let leases = tokens.iter().map(|token| (token.task, token.seq)).collect();
        self.tell(Command::Ungrant { leases });
    }

    fn hold(&mut self, hold: u8, worker: Option<u8>, picks: Vec<Pick>) {
        let worker = worker.map(|worker| format!("w{worker}"));
        let leases: Vec<Lease> = picks.iter().filter_map(|pick| self.token(pick)).collect();
        for token in &leases {
            let is_current = match &worker {
                Some(worker) => token.epoch <= self.bench.epoch && self.current(token, worker),
                None => self.model.holdings().iter().any(|held| held.token == *token),
            };
            if is_current {
                self.model.claims.push((holder(hold), *token));
            }
        }
        self.tell(Command::Hold {
            hold: Hold(u64::from(hold)),
            worker: worker.as_deref().map(named),
            leases,
        });
    }

    fn renew(&mut self, worker: u8) {
        let holder = format!("h{}", worker % 2);
        self.model.renew(&holder, self.bench.now);
        self.tell(Command::Renew { holder: named(&holder) });
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
        let saved: (&[Holding], &[u8]) = if usable {
            (&self.saved, &self.saved_marks)
        } else {
            (&[], &[])
        };
        self.model = Model::from_rows(&self.bench.durable, self.bench.epoch, saved.0, saved.1, self.bench.now);
        // A cancel is under way only because of leases; a snapshot since then holds them.
        let all_saved = usable && self.model.state == State::Canceling && self.saved_change == row.changed_seq;
        if self.model.state.is_active() && !all_saved {
            let until = self.bench.now.plus_s(row.policy.lease_timeout_s);
            self.model.forgotten_until = Some(until);
        }
        if usable && self.model.state.is_active() {
            self.model.grants = self.saved_grants.clone();
        }
        // The node looks at what is due as soon as it has loaded the job.
        self.tell(Command::Tick { store_up: true });
    }

    /// Everything that waits is let through: nobody may be left without an answer.
    fn finish(&mut self) {
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

fn config() -> ProptestConfig {
    // The environment's PROPTEST_CASES overrides the default, so that a long run needs no other code.
    let asked = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(1_000),
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn fm48_fm57_every_history_agrees_with_the_naive_model(
        setup in setup(),
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let mut history = History::new(&setup);
        for op in ops {
            history.step(op);
        }
        history.finish();
    }
}
