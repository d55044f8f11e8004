//! What workers send, with good tokens and bad ones.
//!
//! Owns: their names and tokens, and what the model makes of a call that is answered at once. Never: expects anything of what is not yet
//! committed. Invariant: three workers share two holders.

use super::super::super::model::STAGES;
use super::super::super::*;
use super::super::ops::{Pick, Told};
use super::{Asked, History};
use crate::domain::ledger::Refusal;
use proptest::sample::Index;

/// Three workers of two holders.
fn name(worker: u8) -> String {
    format!("h{}@{worker}", worker % 2)
}

/// Under which ticket, which no caller has, the model keeps what an upload holds.
fn holder(hold: u8) -> Ticket {
    Ticket(u64::MAX - u64::from(hold))
}

impl History {
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

    fn current(&mut self, token: &Lease, worker: &str) -> bool {
        let (in_flight, now) = (self.in_flight(), self.bench.now);
        self.model.current(token, worker, &in_flight, now)
    }

    pub(super) fn grant(&mut self, worker: u8, most: u32, id: Option<u8>) {
        let (worker, request_id) = (name(worker), id.map(|id| format!("r{id}")));
        let ticket = self.ask(Asked::Grant(worker.clone(), most, request_id.clone()));
        self.tell(Command::Grant(Grant {
            ticket,
            worker: named(&worker),
            max_tasks: most,
            request_id,
        }));
    }

    pub(super) fn report(&mut self, worker: u8, items: Vec<(Pick, Told)>, then_lease: Option<u32>) {
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

    pub(super) fn extend(&mut self, worker: u8, picks: Vec<Pick>, stage: Option<u8>) {
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

    pub(super) fn release(&mut self, worker: u8, picks: Vec<Pick>) {
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

    pub(super) fn ungrant(&mut self, picks: Vec<Pick>) {
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

    pub(super) fn hold(&mut self, hold: u8, worker: Option<u8>, picks: Vec<Pick>) {
        let worker = worker.map(name);
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

    pub(super) fn end_hold(&mut self, hold: u8) {
        self.model.claims.retain(|(claimed_by, _)| *claimed_by != holder(hold));
        self.tell(Command::EndHold {
            hold: Hold(u64::from(hold)),
        });
    }

    pub(super) fn renew(&mut self, worker: u8) {
        let holder = format!("h{}", worker % 2);
        self.model.renew(&holder, self.bench.now);
        self.tell(Command::Renew { holder: named(&holder) });
    }
}
