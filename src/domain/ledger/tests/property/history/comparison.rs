//! Every reply, every row and every number of the ledger, held against the model.
//!
//! Owns: what is compared, and what a batch in flight must come to. Never: acts. Invariant: what the model expects is worked out before the
//! ledger's answer is looked at.

use super::super::super::model::{Holding, Model, Ruling};
use super::super::super::*;
use super::{Asked, History};
use crate::domain::rows::{Cause, Verdict};

impl History {
    pub(super) fn compare(&mut self) {
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

    pub(super) fn hear(&mut self, ticket: Ticket, reply: &Reply) {
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
                restored: false,
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
    pub(super) fn foresee(&mut self) {
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
            if let (Control::Cancel { grace_s }, Some(update)) = (control, &batch.update) {
                let waits = *grace_s > 0 && self.model.has_leases(self.bench.now) && !self.is_grace_over();
                assert_eq!(update.state == State::Canceling, waits, "{:?}", update.state);
            }
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

    fn is_grace_over(&self) -> bool {
        self.model.cancel_at.is_some_and(|at| at <= self.bench.now)
    }

    fn foresee_end(&self, after: &Model, controlled: bool) {
        if !after.state.is_final() || self.model.state.is_final() {
            return;
        }
        let decided = !after.open && after.undecided() == 0;
        match after.state {
            state if decided && !controlled => assert_eq!(state, after.natural_end()),
            State::Canceled if controlled => {}
            State::Canceled => {
                let given_back = !after.has_leases(self.bench.now);
                assert!(self.model.state == State::Canceling && (given_back || self.is_grace_over()));
            }
            State::Failed if !decided => {
                assert!(after.policy.abort_early && !after.open && after.is_past_threshold());
                assert_ne!(self.model.state, State::Canceling);
            }
            state => assert_eq!((decided, state), (true, after.natural_end())),
        }
    }
}
