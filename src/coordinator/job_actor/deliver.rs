//! Turning the ledger's replies into answers.
//!
//! Owns: attaching payloads to leases and names to refusals. Never: changes what was decided. Invariant: a lease whose answer cannot be
//! delivered whole is given back.

use super::super::queue_actor::{Served, Unserved};
use super::{Answer, JobActor, Waiter};
use crate::coordinator::api::*;
use crate::domain::ids::{LeaseSeq, Run, TaskNo};
use crate::domain::job::InvalidJob;
use crate::domain::ledger::{self, Command, Disposition, Refusal, Reply, Ticket};
use crate::domain::state::State;
use crate::store::{Result as StoreResult, TaskRow};
use actix::prelude::*;
use std::sync::Arc;

/// Leases that wait for their payloads, and what else their answer holds.
pub(super) struct Granting {
    ticket: Ticket,
    granted: Vec<ledger::Granted>,
    /// The dispositions, if results came with the lease.
    results: Option<(Vec<Disposition>, State, Run)>,
}

impl JobActor {
    pub(super) fn deliver(&mut self, ticket: Ticket, reply: Reply, ctx: &mut Context<Self>) {
        match reply {
            Reply::Granted(granted) => self.grant_or_return(ticket, granted, ctx),
            Reply::Results {
                dispositions,
                state,
                run,
                granted,
            } => {
                count_dispositions(&dispositions);
                match granted {
                    Some(granted) if !granted.is_empty() => {
                        self.attach(
                            Granting {
                                ticket,
                                granted,
                                results: Some((dispositions, state, run)),
                            },
                            ctx,
                        );
                    }
                    granted => self.post(ticket, dispositions, state, run, granted.map(|_| Vec::new())),
                }
            }
            Reply::Extended { extended, state } => self.finish(ticket, |_, tokens| {
                let mut reply = Extended {
                    extended: Vec::new(),
                    lost: Vec::new(),
                    job_state: state,
                };
                for (token, until) in tokens.into_iter().zip(extended) {
                    match until {
                        Some(until) => reply.extended.push((token, until)),
                        None => reply.lost.push(token),
                    }
                }
                Ok(Answer::Extended(reply))
            }),
            Reply::Released(given_back) => self.finish(ticket, |_, tokens| {
                let (released, lost): (Vec<_>, Vec<_>) =
                    tokens.into_iter().zip(given_back).partition(|(_, back)| *back);
                let texts = |pairs: Vec<(String, bool)>| pairs.into_iter().map(|(token, _)| token).collect();
                Ok(Answer::Released(Released {
                    released: texts(released),
                    lost: texts(lost),
                }))
            }),
            Reply::Control(ruling) => self.finish(ticket, |actor, _| {
                ruling.map_err(refused)?;
                actor
                    .view()
                    .map(|view| Answer::View(Box::new(view)))
                    .ok_or(CoordinatorError::NotOwner)
            }),
            Reply::Appended(outcome) => {
                self.chunks.remove(&ticket);
                self.finish(ticket, |_, _| {
                    let done = outcome.map_err(refused)?;
                    let next_task = TaskNo(done.total);
                    Ok(Answer::Appended(Ingested {
                        added: done.added,
                        existing: done.existing,
                        next_task,
                    }))
                });
            }
            Reply::Refused(refusal) => self.finish(ticket, |_, _| Err(refused(refusal))),
            Reply::Stale => self.finish(ticket, |_, _| Err(CoordinatorError::NotOwner)),
        }
    }

    fn finish(
        &mut self,
        ticket: Ticket,
        make: impl FnOnce(&mut Self, Vec<String>) -> Result<Answer, CoordinatorError>,
    ) {
        match self.waiters.remove(&ticket) {
            Some(Waiter::Caller { reply, tokens, _permit }) => {
                let answer = make(self, tokens);
                drop(reply.send(answer));
            }
            Some(waiter @ Waiter::Poll(_)) => {
                let answer = make(self, Vec::new());
                self.answer(waiter, answer);
            }
            None => {}
        }
    }

    fn post(
        &mut self,
        ticket: Ticket,
        dispositions: Vec<Disposition>,
        state: State,
        run: Run,
        tasks: Option<Vec<GrantedTask>>,
    ) {
        let job = self.job;
        self.finish(ticket, |_, _| {
            Ok(Answer::Results(ResultsPosted {
                job,
                state,
                run,
                dispositions,
                tasks,
            }))
        });
    }

    /// A poll without luck goes back to its queue; everybody else is told that there is nothing.
    fn grant_or_return(&mut self, ticket: Ticket, granted: Vec<ledger::Granted>, ctx: &mut Context<Self>) {
        if !granted.is_empty() {
            if let Some(Waiter::Caller { .. }) = self.waiters.get(&ticket) {
                // A poll's turn was noted by the queue that passed it on.
                self.queue.do_send(Served(self.job));
            }
            self.attach(
                Granting {
                    ticket,
                    granted,
                    results: None,
                },
                ctx,
            );
            return;
        }
        match self.waiters.remove(&ticket) {
            Some(Waiter::Poll(poll)) => {
                self.turned_away |= self.ledger.as_ref().is_some_and(|ledger| ledger.claimable() > 0);
                self.queue.do_send(Unserved(poll));
            }
            Some(waiter) => self.answer(waiter, Ok(Answer::Granted(Granted::default()))),
            None => {}
        }
    }

    /// Answers with payloads from memory, or after reading those that are missing.
    fn attach(&mut self, granting: Granting, ctx: &mut Context<Self>) {
        let tasks: Vec<TaskNo> = granting.granted.iter().map(|granted| granted.lease.task).collect();
        let missing = self.payloads.missing(&tasks);
        if missing.is_empty() {
            let rows = tasks.iter().filter_map(|task| self.payloads.take(*task)).collect();
            self.attached(granting, rows, ctx);
            return;
        }
        self.payloads.missed(tasks.len());
        let (store, job, bytes) = (
            self.shared.store.clone(),
            self.job,
            self.shared.settings.lease_payload_bytes,
        );
        let reading = async move { store.tasks(job, &missing, bytes).await };
        let answered = reading
            .into_actor(self)
            .map(move |read, actor, ctx| actor.payloads_read(granting, read, ctx));
        ctx.spawn(answered);
    }

    fn payloads_read(&mut self, granting: Granting, read: StoreResult<Vec<TaskRow>>, ctx: &mut Context<Self>) {
        match read {
            Ok(mut rows) => {
                let cached = granting
                    .granted
                    .iter()
                    .filter_map(|granted| self.payloads.take(granted.lease.task));
                rows.extend(cached.collect::<Vec<_>>());
                rows.sort_unstable_by_key(|row| row.task);
                self.attached(granting, rows, ctx);
            }
            Err(error) => {
                // A payload that cannot be read spends no attempt: the tasks simply go back.
                tracing::warn!(job = %self.job, %error, "payloads could not be read; leases given back");
                self.give_back(granting.granted.iter(), ctx);
                self.reply_unavailable(granting.ticket);
            }
        }
    }

    fn attached(&mut self, granting: Granting, rows: Vec<TaskRow>, ctx: &mut Context<Self>) {
        let Granting {
            ticket,
            granted,
            results,
        } = granting;
        if self.shared.check_term().is_err() {
            // The lease of the node lapsed while payloads were read: whoever owns the job now may hand out the same tasks.
            self.give_back(granted.iter(), ctx);
            return match results {
                Some((dispositions, state, run)) => self.post(ticket, dispositions, state, run, Some(Vec::new())),
                None => self.reply_unavailable(ticket),
            };
        }
        let mut rows: std::collections::BTreeMap<TaskNo, TaskRow> =
            rows.into_iter().map(|row| (row.task, row)).collect();
        let (mut tasks, mut unread) = (Vec::with_capacity(granted.len()), Vec::new());
        let mut handed_out = Vec::with_capacity(granted.len());
        for granted in granted {
            match rows.remove(&granted.lease.task) {
                Some(row) => {
                    handed_out.push((granted.lease.task, granted.lease.seq));
                    tasks.push(GrantedTask {
                        task: row.task,
                        key: row.key,
                        payload: row.payload,
                        attempt: granted.lease.attempt,
                        lease: granted.lease.encode(),
                        expires_at: granted.expires_at,
                    });
                }
                // The answer is full: what did not fit in was never handed out.
                None => unread.push(granted),
            }
        }
        if self.send_granted(ticket, tasks, results) {
            metrics::counter!("tallykeeper_leases_granted_total").increment(handed_out.len() as u64);
            self.give_back(unread.iter(), ctx);
        } else {
            // The caller is gone, so nobody knows of these leases.
            self.give_back(unread.iter(), ctx);
            self.apply(Command::Ungrant { leases: handed_out }, ctx);
        }
    }

    /// Sends the answer; false if its caller is gone.
    fn send_granted(
        &mut self,
        ticket: Ticket,
        tasks: Vec<GrantedTask>,
        results: Option<(Vec<Disposition>, State, Run)>,
    ) -> bool {
        let Some(waiter) = self.waiters.remove(&ticket) else {
            return false;
        };
        let answer = match results {
            Some((dispositions, state, run)) => Answer::Results(ResultsPosted {
                job: self.job,
                state,
                run,
                dispositions,
                tasks: Some(tasks),
            }),
            None => Answer::Granted(Granted {
                job: self.granted_job(),
                tasks,
            }),
        };
        match waiter {
            Waiter::Caller { reply, .. } => reply.send(Ok(answer)).is_ok(),
            Waiter::Poll(poll) => {
                self.has_served = true;
                poll.try_answer(Ok(answer))
            }
        }
    }

    fn give_back<'a>(&mut self, granted: impl Iterator<Item = &'a ledger::Granted>, ctx: &mut Context<Self>) {
        let leases: Vec<(TaskNo, LeaseSeq)> = granted.map(|granted| (granted.lease.task, granted.lease.seq)).collect();
        if !leases.is_empty() {
            self.apply(Command::Ungrant { leases }, ctx);
        }
    }

    fn granted_job(&mut self) -> Option<GrantedJob> {
        let record = self.ledger.as_ref()?.record();
        let (name, queue) = self
            .names
            .get_or_insert_with(|| (Arc::from(record.name.as_str()), Arc::from(record.queue.as_str())))
            .clone();
        Some(GrantedJob {
            id: self.job,
            name,
            queue,
            run: record.run,
        })
    }
}

pub(super) fn refused(refusal: Refusal) -> CoordinatorError {
    match refusal {
        Refusal::InvalidTransition { state, verb } => CoordinatorError::InvalidTransition { state, verb },
        Refusal::Sealed => CoordinatorError::Sealed,
        Refusal::WrongRun { run } => CoordinatorError::WrongRun { run },
        Refusal::WrongFirstTask { total } => CoordinatorError::WrongFirstTask {
            next_task: TaskNo(total),
        },
        Refusal::UnknownStage => CoordinatorError::Invalid(InvalidJob {
            field: "stage".into(),
            limit: "the key of one of the job's stages".into(),
        }),
        Refusal::NotStored => CoordinatorError::Refused("a task of this chunk".into()),
    }
}

fn count_dispositions(dispositions: &[Disposition]) {
    let mut counts = std::collections::BTreeMap::new();
    for disposition in dispositions {
        *counts.entry(disposition.as_str()).or_insert(0u64) += 1;
    }
    for (disposition, count) in counts {
        metrics::counter!("tallykeeper_results_total", "disposition" => disposition).increment(count);
    }
}
