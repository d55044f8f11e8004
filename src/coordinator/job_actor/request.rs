//! From a caller's request to the ledger's command.
//!
//! Owns: which requests are answered from what is there, and which wait. Never: decides one. Invariant: every request that is not answered
//! here waits under a ticket.

use super::deliver;
use super::messages::Waiter;
use super::{Answer, Ask, JobActor, Request};
use crate::coordinator::api::*;
use crate::domain::lease::Lease;
use crate::domain::ledger::{Command, Extend, Grant, Ledger, Results};
use actix::prelude::*;

impl JobActor {
    /// Answers a reading at once; puts everything else to the ledger, noting who waits for it.
    pub(super) fn take_request(&mut self, ask: Ask, ctx: &mut Context<Self>) {
        let Ask { request, reply, permit } = ask;
        if reply.is_closed() {
            return;
        }
        let caller = |tokens| Waiter::Caller {
            reply,
            tokens,
            _permit: permit,
        };
        let command = match request {
            Request::View => {
                let view = self.view().map(|view| Answer::View(Box::new(view)));
                return self.answer(caller(Vec::new()), view.ok_or(CoordinatorError::NotOwner));
            }
            Request::Watch(channel) => {
                self.show_to(channel, ctx);
                return self.answer(caller(Vec::new()), Ok(Answer::Watched));
            }
            Request::Standing => {
                let standing = self.ledger.as_ref().map(|ledger| JobStanding {
                    claimable: ledger.claimable(),
                    holders: ledger.holders(),
                });
                let answer = standing.map(Answer::Standing).ok_or(CoordinatorError::NotOwner);
                self.answer(caller(Vec::new()), answer);
                return;
            }
            Request::Explain { limit } => {
                let told = self.explain(limit as usize).ok_or(CoordinatorError::NotOwner);
                self.answer(caller(Vec::new()), told.map(|told| Answer::Explained(Box::new(told))));
                return;
            }
            Request::ProveDeletable => {
                let ruling = self.ledger.as_ref().map(Ledger::may_be_deleted);
                let answer = ruling.ok_or(CoordinatorError::NotOwner);
                let answer = answer.and_then(|ruling| ruling.map_err(deliver::refused));
                self.answer(
                    caller(Vec::new()),
                    answer.map(|(fence, run)| Answer::Deletable(fence, run)),
                );
                return;
            }
            Request::Tasks { state, after, limit } => {
                let ledger = self.ledger.as_ref();
                let tasks = ledger.map(|ledger| Answer::Tasks(ledger.tasks_in(state, after, limit as usize)));
                return self.answer(caller(Vec::new()), tasks.ok_or(CoordinatorError::NotOwner));
            }
            Request::Grant {
                worker,
                max_tasks,
                request_id,
            } => {
                let ticket = self.admit(caller(Vec::new()));
                Command::Grant(Grant {
                    ticket,
                    worker,
                    max_tasks,
                    request_id,
                })
            }
            Request::Extend(call) => {
                let leases = decode(&call.leases);
                Command::Extend(Extend {
                    ticket: self.admit(caller(call.leases)),
                    worker: call.worker,
                    leases,
                    stage: call.stage,
                    note: call.note,
                })
            }
            Request::Release { worker, leases } => {
                let decoded = decode(&leases);
                Command::Release {
                    ticket: self.admit(caller(leases)),
                    worker,
                    leases: decoded,
                }
            }
            Request::Results {
                worker,
                items,
                then_lease,
            } => {
                let ticket = self.admit(caller(Vec::new()));
                Command::Results(Results {
                    ticket,
                    worker,
                    items,
                    then_lease,
                })
            }
            Request::Control(control) => Command::Control {
                ticket: self.admit(caller(Vec::new())),
                control,
            },
            Request::Append { tasks, first_task } => {
                let ticket = self.admit(caller(Vec::new()));
                self.chunks.insert(ticket, tasks);
                Command::Append { ticket, first_task }
            }
        };
        self.apply(command, ctx);
    }
}

fn decode(leases: &[String]) -> Vec<Option<Lease>> {
    leases.iter().map(|text| Lease::decode(text).ok()).collect()
}
