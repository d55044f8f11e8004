//! The owner of one active job: applies commands to its ledger and carries out the effects.
//!
//! Owns: one [`Ledger`], the callers that wait for it, its timer. Never: judges anything, or awaits inside a handler (a second message would
//! slip in between). Invariant: it is the only writer of its job; when it cannot prove that any more, it throws the ledger away.

mod deliver;
mod ingest;
mod journal;
mod load;
mod payloads;

use super::api::*;
use super::committer::{BatchCommitted, CommitBatch};
use super::directory::Permit;
use super::queue_actor::{Claimability, JobGone, OwnershipInDoubt, Poll, Unserved};
use super::shared::Shared;
use crate::domain::ids::{JobId, Run, TaskNo, UnixMs};
use crate::domain::job::{Fence, NewTask};
use crate::domain::lease::Lease;
use crate::domain::ledger::{
    Command, Effects, Extend, Grant, Item, Ledger, NewerTokens, Results, Settlement, TaskStatus, Ticket,
};
use crate::domain::state::State;
use crate::store::SnapshotRow;
use actix::prelude::*;
use payloads::Payloads;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Decided tasks after which a job is saved before its interval is over.
const SAVE_AFTER_DECIDED: u32 = 100_000;

/// What a caller wants of a job.
pub(super) enum Request {
    Grant {
        worker: Arc<str>,
        max_tasks: u32,
        request_id: Option<String>,
    },
    Extend(ExtendLeases),
    Release {
        worker: Arc<str>,
        leases: Vec<String>,
    },
    Results {
        worker: Arc<str>,
        items: Vec<Item>,
        then_lease: Option<u32>,
    },
    Control(Control),
    Append {
        tasks: Arc<Vec<NewTask>>,
        first_task: Option<u32>,
    },
    View,
    Standing,
    Explain {
        limit: u32,
    },
    /// May it be deleted, and under which fence and run?
    ProveDeletable,
    Tasks {
        state: Option<TaskState>,
        after: Option<TaskNo>,
        limit: u32,
    },
}

/// What a caller gets.
pub(super) enum Answer {
    Granted(Granted),
    Extended(Extended),
    Released(Released),
    Results(ResultsPosted),
    Appended(Ingested),
    View(Box<JobView>),
    Tasks(Vec<(TaskNo, TaskStatus)>),
    Deletable(Fence, Run),
    Standing(JobStanding),
    Explained(Box<Explanation>),
}

impl Request {
    /// The worker whose sign of life this is.
    pub(super) fn worker(&self) -> Option<&Arc<str>> {
        match self {
            Request::Grant { worker, .. } | Request::Release { worker, .. } | Request::Results { worker, .. } => {
                Some(worker)
            }
            Request::Extend(call) => Some(&call.worker),
            _ => None,
        }
    }

    /// Does it only read?
    fn reads_only(&self) -> bool {
        matches!(
            self,
            Request::View | Request::Tasks { .. } | Request::Standing | Request::Explain { .. }
        )
    }
}

pub(super) type Replier = oneshot::Sender<Result<Answer, CoordinatorError>>;

/// A caller's request, with the permit that is held until it is answered.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Ask {
    pub(super) request: Request,
    pub(super) reply: Replier,
    pub(super) permit: Option<Permit>,
}

/// The queue passes a poll on: answer it, or give it back.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Serve(pub(super) Poll);

/// Leases whose answer was never delivered.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Undelivered(pub(super) Vec<Lease>);

/// Ownership was proven (again): load the job under this fence.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(super) struct Load {
    pub(super) fence: Fence,
    pub(super) newer_tokens: NewerTokens,
}

/// Ownership was lost: stop, telling every caller to ask elsewhere.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct StopJob;

/// The job's row is gone: stop, telling every caller so.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct JobDeleted;

/// Time may have come for something.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(super) struct Wake;

/// Hand over what is worth saving.
#[derive(Message)]
#[rtype(result = "Option<SnapshotRow>")]
pub(super) struct TakeSnapshot;

/// Take no more requests and answer when nothing is under way.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Settle(pub(super) oneshot::Sender<()>);

/// Who waits for a ticket.
pub(super) enum Waiter {
    Caller {
        reply: Replier,
        tokens: Vec<String>,
        _permit: Option<Permit>,
    },
    Poll(Poll),
}

pub(super) struct JobActor {
    job: JobId,
    shared: Arc<Shared>,
    queue: Addr<super::queue_actor::QueueActor>,
    fence: Fence,
    /// None while it is being loaded, or while ownership is in doubt.
    ledger: Option<Ledger>,
    /// Requests that came while there was no ledger.
    early: Vec<Ask>,
    early_polls: Vec<Poll>,
    waiters: HashMap<Ticket, Waiter>,
    last_ticket: u64,
    chunks: HashMap<Ticket, Arc<Vec<NewTask>>>,
    payloads: Payloads,
    journal: journal::Journal,
    names: Option<(Arc<str>, Arc<str>)>,
    wake: Option<(UnixMs, SpawnHandle)>,
    /// Tasks that the queue was told could be handed out.
    offered: u32,
    offered_priority: i32,
    has_served: bool,
    saved_revision: u64,
    saved_version: i64,
    saved_decided: u32,
    is_dirty: bool,
    idle_check: Option<SpawnHandle>,
    settling: Option<oneshot::Sender<()>>,
    /// Batches and chunks whose fate the store has not told yet.
    writes_under_way: u32,
    /// A load that waits for them: read before their fate is known, the job would be loaded without them.
    deferred_load: Option<Load>,
}

impl JobActor {
    pub(super) fn new(
        job: JobId,
        shared: Arc<Shared>,
        queue: Addr<super::queue_actor::QueueActor>,
        fence: Fence,
    ) -> JobActor {
        JobActor {
            job,
            shared,
            queue,
            fence,
            ledger: None,
            early: Vec::new(),
            early_polls: Vec::new(),
            waiters: HashMap::new(),
            last_ticket: 0,
            chunks: HashMap::new(),
            payloads: Payloads::default(),
            journal: journal::Journal::default(),
            names: None,
            wake: None,
            offered: 0,
            offered_priority: 0,
            has_served: false,
            saved_revision: 0,
            saved_version: 0,
            saved_decided: 0,
            is_dirty: false,
            idle_check: None,
            settling: None,
            writes_under_way: 0,
            deferred_load: None,
        }
    }

    fn next_ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    fn admit(&mut self, waiter: Waiter) -> Ticket {
        let ticket = self.next_ticket();
        self.waiters.insert(ticket, waiter);
        ticket
    }

    /// Applies one command and carries out its effects.
    fn apply(&mut self, command: Command, ctx: &mut Context<Self>) {
        let now = self.shared.clock.now();
        let store_up = self.shared.is_store_up();
        let Some(ledger) = self.ledger.as_mut() else { return };
        let mut effects = ledger.note_store(store_up, now);
        effects.absorb(ledger.apply(command, now));
        self.execute(effects, ctx);
    }

    fn execute(&mut self, effects: Effects, ctx: &mut Context<Self>) {
        if let Some(batch) = effects.commit
            && let Some(committer) = self.shared.committer.get()
        {
            self.writes_under_way += 1;
            self.journal.sent(&batch);
            committer.do_send(CommitBatch {
                batch,
                answer_to: ctx.address().recipient(),
            });
        }
        if let Some((ticket, first_task)) = effects.append {
            self.store_chunk(ticket, first_task, ctx);
        }
        for (ticket, reply) in effects.replies {
            self.deliver(ticket, reply, ctx);
        }
        if effects.rebuild {
            self.doubt(NewerTokens::Rejected, ctx);
        } else {
            self.after_change(ctx);
        }
    }

    /// Tells the others what changed: the queue, the snapshotter, the timer, the read-ahead.
    fn after_change(&mut self, ctx: &mut Context<Self>) {
        let Some(ledger) = self.ledger.as_mut() else { return };
        let ready = ledger.claimable();
        let priority = ledger.record().priority;
        let moved = std::mem::replace(&mut self.offered_priority, priority) != priority && ready > 0;
        let news = (ready == 0) != (self.offered == 0) || ready > self.offered || moved;
        if news || std::mem::take(&mut self.has_served) {
            self.offered = ready;
            self.queue.do_send(Claimability {
                job: self.job,
                priority,
                ready,
            });
        }
        if ledger.revision() != self.saved_revision && !self.is_dirty {
            self.is_dirty = true;
            self.shared.mark_dirty(self.job, ctx.address().recipient());
        }
        if ledger.decided().saturating_sub(self.saved_decided) >= SAVE_AFTER_DECIDED {
            self.saved_decided = ledger.decided();
            self.shared.snapshot_now.notify_one();
        }
        let wake_at = ledger.next_wake();
        let settled = ledger.is_settled();
        let resting = !ledger.record().state.is_active() && ledger.record().start_at.is_none();
        self.schedule(wake_at, ctx);
        self.read_ahead(ctx);
        if settled && let Some(waiting) = self.settling.take() {
            let _ = waiting.send(());
        }
        if resting && self.idle_check.is_none() {
            self.check_idle_later(ctx);
        }
    }

    fn settled(&mut self, settlement: Settlement, ctx: &mut Context<Self>) {
        // The next batch is on its way before this call ends, so what the last one did is taken out first.
        let failed = self.journal.take();
        let before = self
            .ledger
            .as_ref()
            .map(|ledger| journal::Standing::of(ledger.record()));
        let refused = settlement.refused.clone();
        self.apply(Command::Settled(settlement), ctx);
        if let Some(before) = before {
            self.write_journal(failed, &refused, &before, self.shared.clock.now());
        }
    }

    fn schedule(&mut self, wake_at: Option<UnixMs>, ctx: &mut Context<Self>) {
        let Some(at) = wake_at else { return };
        if self.wake.is_some_and(|(planned, _)| planned <= at) {
            return;
        }
        if let Some((_, handle)) = self.wake.take() {
            ctx.cancel_future(handle);
        }
        let wait_ms = (at.0 - self.shared.clock.now().0).clamp(1, 3_600_000) as u64;
        let handle = ctx.run_later(Duration::from_millis(wait_ms), |actor, ctx| {
            actor.wake = None;
            actor.tick(ctx);
        });
        self.wake = Some((at, handle));
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let store_up = self.shared.is_store_up();
        self.apply(Command::Tick { store_up }, ctx);
    }

    /// Leaves memory once nothing has happened for a while. The job's row says all there is to know.
    fn check_idle_later(&mut self, ctx: &mut Context<Self>) {
        let seen = self.last_ticket;
        let handle = ctx.run_later(self.shared.settings.passivate_after, move |actor, ctx| {
            actor.idle_check = None;
            let Some(ledger) = actor.ledger.as_ref() else { return };
            let resting = !ledger.record().state.is_active() && ledger.record().start_at.is_none();
            if resting
                && ledger.is_settled()
                && !actor.is_dirty
                && actor.last_ticket == seen
                && actor.waiters.is_empty()
            {
                actor.leave(ctx);
            } else if resting {
                actor.check_idle_later(ctx);
            }
        });
        self.idle_check = Some(handle);
    }

    fn leave(&mut self, ctx: &mut Context<Self>) {
        self.shared.directory.leave_job(self.job, &ctx.address());
        self.queue.do_send(JobGone {
            job: self.job,
            actor: ctx.address(),
        });
        ctx.stop();
    }

    /// This actor may not be the only writer any more: it forgets what it knows, and its callers come back later.
    fn doubt(&mut self, newer_tokens: NewerTokens, ctx: &mut Context<Self>) {
        self.forget(CoordinatorError::NotOwner, ctx);
        self.queue.do_send(OwnershipInDoubt {
            job: self.job,
            fence: self.fence,
            newer_tokens,
        });
    }

    fn forget(&mut self, reason: CoordinatorError, ctx: &mut Context<Self>) {
        self.ledger = None;
        self.payloads = Payloads::default();
        self.chunks.clear();
        self.is_dirty = false;
        if let Some((_, handle)) = self.wake.take() {
            ctx.cancel_future(handle);
        }
        if std::mem::take(&mut self.offered) > 0 {
            self.queue.do_send(Claimability {
                job: self.job,
                priority: 0,
                ready: 0,
            });
        }
        for (_, waiter) in self.waiters.drain() {
            match waiter {
                Waiter::Caller { reply, .. } => drop(reply.send(Err(reason.clone()))),
                Waiter::Poll(poll) => self.queue.do_send(Unserved { poll, job: self.job }),
            }
        }
    }

    fn view(&mut self) -> Option<JobView> {
        let now = self.shared.clock.now();
        let ledger = self.ledger.as_mut()?;
        let progress = ledger.progress(now);
        Some(JobView {
            record: ledger.record().clone(),
            progress,
            node: Some(self.shared.identity.node.clone()),
            epoch: Some(self.fence.epoch),
        })
    }

    fn explain(&mut self, limit: usize) -> Option<Explanation> {
        let view = self.view()?;
        let ledger = self.ledger.as_ref()?;
        Some(Explanation {
            waits_for: ledger.waits_for(self.shared.clock.now()),
            undecided: ledger.undecided(limit),
            undecided_total: ledger.undecided_count(),
            last_attempts: HashMap::new(),
            keys: HashMap::new(),
            view,
        })
    }

    fn take_request(&mut self, ask: Ask, ctx: &mut Context<Self>) {
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
                let view = self.view().ok_or(CoordinatorError::NotOwner);
                self.answer(caller(Vec::new()), view.map(|view| Answer::View(Box::new(view))));
                return;
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
                let tasks = self
                    .ledger
                    .as_ref()
                    .map(|ledger| ledger.tasks_in(state, after, limit as usize));
                self.answer(
                    caller(Vec::new()),
                    tasks.map(Answer::Tasks).ok_or(CoordinatorError::NotOwner),
                );
                return;
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

impl Actor for JobActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let settings = &self.shared.settings;
        let permits = settings.result_permits + settings.lease_permits + settings.control_permits;
        ctx.set_mailbox_capacity(2 * permits + 64);
        self.load(NewerTokens::Suspect, ctx);
    }
}

impl Handler<Ask> for JobActor {
    type Result = ();

    fn handle(&mut self, ask: Ask, ctx: &mut Self::Context) {
        let reads_only = ask.request.reads_only();
        if self.shared.is_draining() && !reads_only {
            drop(ask.reply.send(Err(CoordinatorError::Draining)));
        } else if self.ledger.is_none() {
            self.early.push(ask);
        } else {
            self.take_request(ask, ctx);
        }
    }
}

impl Handler<Serve> for JobActor {
    type Result = ();

    fn handle(&mut self, Serve(poll): Serve, ctx: &mut Self::Context) {
        if self.ledger.is_none() {
            self.early_polls.push(poll);
            return;
        }
        let (worker, max_tasks, request_id) = (poll.worker.clone(), poll.max_tasks, poll.request_id.clone());
        let ticket = self.admit(Waiter::Poll(poll));
        self.apply(
            Command::Grant(Grant {
                ticket,
                worker,
                max_tasks,
                request_id,
            }),
            ctx,
        );
    }
}

impl Handler<Undelivered> for JobActor {
    type Result = ();

    fn handle(&mut self, Undelivered(leases): Undelivered, ctx: &mut Self::Context) {
        if self.shared.is_draining() {
            return; // The last snapshot may be written already; these leases run out by themselves.
        }
        let epoch = self.fence.epoch;
        let leases = leases
            .into_iter()
            .filter(|lease| lease.epoch == epoch)
            .map(|lease| (lease.task, lease.seq));
        let leases = leases.collect();
        self.apply(Command::Ungrant { leases }, ctx);
    }
}

impl Handler<BatchCommitted> for JobActor {
    type Result = ();

    fn handle(&mut self, committed: BatchCommitted, ctx: &mut Self::Context) {
        if !self.write_ended(ctx) {
            return;
        }
        match committed {
            BatchCommitted::Settled(settlement) => self.settled(settlement, ctx),
            BatchCommitted::Fenced => self.doubt(NewerTokens::Suspect, ctx),
        }
    }
}

impl Handler<Load> for JobActor {
    type Result = ();

    fn handle(&mut self, load: Load, ctx: &mut Self::Context) {
        self.forget(CoordinatorError::NotOwner, ctx);
        self.fence = load.fence;
        if self.writes_under_way > 0 {
            self.deferred_load = Some(load);
        } else {
            self.load(load.newer_tokens, ctx);
        }
    }
}

impl Handler<StopJob> for JobActor {
    type Result = ();

    fn handle(&mut self, _: StopJob, ctx: &mut Self::Context) {
        self.forget(CoordinatorError::NotOwner, ctx);
        for ask in self.early.drain(..) {
            drop(ask.reply.send(Err(CoordinatorError::NotOwner)));
        }
        self.shared.directory.leave_job(self.job, &ctx.address());
        ctx.stop();
    }
}

impl Handler<JobDeleted> for JobActor {
    type Result = ();

    fn handle(&mut self, _: JobDeleted, ctx: &mut Self::Context) {
        self.forget(CoordinatorError::NotFound, ctx);
        for ask in self.early.drain(..) {
            drop(ask.reply.send(Err(CoordinatorError::NotFound)));
        }
        self.leave(ctx);
    }
}

impl Handler<Wake> for JobActor {
    type Result = ();

    fn handle(&mut self, _: Wake, ctx: &mut Self::Context) {
        self.tick(ctx);
    }
}

impl Handler<TakeSnapshot> for JobActor {
    type Result = MessageResult<TakeSnapshot>;

    fn handle(&mut self, _: TakeSnapshot, _: &mut Self::Context) -> Self::Result {
        self.is_dirty = false;
        let Some(ledger) = self.ledger.as_ref() else {
            return MessageResult(None);
        };
        self.saved_revision = ledger.revision();
        self.saved_decided = ledger.decided();
        self.saved_version = self.shared.clock.now().0.max(self.saved_version + 1);
        let (seq, bytes) = ledger.snapshot();
        MessageResult(Some(SnapshotRow {
            job: self.job,
            fence: self.fence,
            seq,
            version: self.saved_version,
            bytes,
        }))
    }
}

impl Handler<Settle> for JobActor {
    type Result = ();

    fn handle(&mut self, Settle(reply): Settle, _: &mut Self::Context) {
        match &self.ledger {
            Some(ledger) if !ledger.is_settled() => self.settling = Some(reply),
            _ => drop(reply.send(())),
        }
    }
}

/// Does a job of this state need an actor even when nobody asks for it?
pub(super) fn needs_actor(state: State, start_at: Option<UnixMs>) -> bool {
    state.is_active() || (state == State::Pending && start_at.is_some())
}

impl JobActor {
    /// The store has told the fate of a write. Returns whether the ledger that asked for it is still there.
    fn write_ended(&mut self, ctx: &mut Context<Self>) -> bool {
        self.writes_under_way -= 1;
        if self.writes_under_way == 0
            && let Some(load) = self.deferred_load.take()
        {
            self.load(load.newer_tokens, ctx);
        }
        self.ledger.is_some()
    }

    fn reply_unavailable(&mut self, ticket: Ticket) {
        if let Some(waiter) = self.waiters.remove(&ticket) {
            self.answer(waiter, Err(CoordinatorError::StoreUnavailable));
        }
    }

    fn answer(&mut self, waiter: Waiter, answer: Result<Answer, CoordinatorError>) {
        match waiter {
            Waiter::Caller { reply, .. } => drop(reply.send(answer)),
            Waiter::Poll(poll) => poll.answer(answer),
        }
    }
}
