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
use std::sync::Arc;

impl JobActor {
    /// The answer to a request that only reads; none if it is no such request.
    fn read(&mut self, request: &Request, ctx: &mut Context<Self>) -> Option<Result<Answer, CoordinatorError>> {
        let answer = match request {
            Request::View => self.view().map(|view| Answer::View(Box::new(view))),
            Request::Name { worker, tasks } => self.ledger.as_ref().map(|ledger| {
                let token = |&(task, succeeded)| ledger.token_of(task, succeeded, worker);
                Answer::Named(tasks.iter().map(token).collect())
            }),
            Request::Watch(channel) => {
                self.show_to(channel.clone(), ctx);
                Some(Answer::Watched)
            }
            Request::Standing => self.ledger.as_ref().map(|ledger| {
                Answer::Standing(JobStanding {
                    claimable: ledger.claimable(),
                    holders: ledger.holders(),
                })
            }),
            Request::Explain { limit } => self
                .explain(*limit as usize)
                .map(|told| Answer::Explained(Box::new(told))),
            Request::ProveDeletable => match self.ledger.as_ref().map(Ledger::may_be_deleted) {
                Some(Err(refusal)) => return Some(Err(deliver::refused(refusal))),
                ruling => ruling
                    .and_then(Result::ok)
                    .map(|(fence, run)| Answer::Deletable(fence, run)),
            },
            Request::Tasks { state, after, limit } => self
                .ledger
                .as_ref()
                .map(|ledger| Answer::Tasks(ledger.tasks_in(*state, *after, *limit as usize))),
            _ => return None,
        };
        Some(answer.ok_or(CoordinatorError::NotOwner))
    }

    /// Comes before the request itself: a lease that ends now is not taken from a holder that is there to report it.
    fn renew(&mut self, holder: Option<Arc<str>>, ctx: &mut Context<Self>) {
        if let Some(holder) = holder.filter(|_| !self.shared.is_draining()) {
            self.apply(Command::Renew { holder }, ctx);
        }
    }

    /// Answers a reading at once; puts everything else to the ledger, noting who waits for it.
    pub(super) fn take_request(&mut self, mut ask: Ask, ctx: &mut Context<Self>) {
        self.renew(ask.renews.take(), ctx);
        let Ask {
            request, reply, permit, ..
        } = ask;
        if reply.is_closed() {
            return;
        }
        let caller = |tokens| Waiter::Caller {
            reply,
            tokens,
            _permit: permit,
        };
        if let Some(answer) = self.read(&request, ctx) {
            return self.answer(caller(Vec::new()), answer);
        }
        let command = match request {
            Request::Grant {
                worker,
                max_tasks,
                request_id,
            } => Command::Grant(Grant {
                ticket: self.admit(caller(Vec::new())),
                worker,
                max_tasks,
                request_id,
            }),
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
            // Answered above.
            Request::Name { .. }
            | Request::View
            | Request::Watch(_)
            | Request::Standing
            | Request::Explain { .. }
            | Request::ProveDeletable
            | Request::Tasks { .. } => return,
        };
        self.apply(command, ctx);
    }
}

fn decode(leases: &[String]) -> Vec<Option<Lease>> {
    leases.iter().map(|text| Lease::decode(text).ok()).collect()
}
