//! The owner of one active job: applies commands to its ledger and carries out the effects.
//!
//! Owns: one [`Ledger`], the callers that wait for it, its timer. Never: judges anything, or awaits inside a handler (a second message would
//! slip in between). Invariant: it is the only writer of its job; when it cannot prove that any more, it throws the ledger away.

mod deliver;
mod handlers;
mod ingest;
mod journal;
mod load;
mod messages;
mod payloads;
mod publish;
mod request;

pub(super) use messages::{
    Answer, Ask, EndHold, HoldLeases, JobDeleted, Load, Replier, Request, Serve, Settle, StopJob, TakeSnapshot,
    Undelivered, Wake,
};

use super::api::*;
use super::committer::CommitBatch;
use super::queue_actor::{Claimability, JobGone, OwnershipInDoubt, Poll, Unserved};
use super::shared::Shared;
use crate::domain::ids::{JobId, UnixMs};
use crate::domain::job::{Fence, NewTask};
use crate::domain::ledger::{Command, Effects, Ledger, NewerTokens, Settlement, Ticket};
use crate::domain::state::State;
use actix::prelude::*;
use messages::Waiter;
use payloads::Payloads;
use publish::Publisher;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Decided tasks after which a job is saved before its interval is over.
const SAVE_AFTER_DECIDED: u32 = 100_000;

pub(super) struct JobActor {
    job: JobId,
    shared: Arc<Shared>,
    queue: Addr<super::queue_actor::QueueActor>,
    fence: Fence,
    /// What was handed out since then is known to the ledger.
    grants_known_since: UnixMs,
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
    /// A poll came away with nothing although there was something.
    turned_away: bool,
    last_leased: u32,
    saved_revision: u64,
    saved_version: i64,
    /// Outages of the store and of this node that the ledger knows of.
    seen_outages: u64,
    saved_decided: u32,
    is_dirty: bool,
    idle_check: Option<SpawnHandle>,
    settling: Option<oneshot::Sender<()>>,
    /// The queue is being handed over: nothing new is taken in.
    is_closing: bool,
    /// Batches and chunks whose fate the store has not told yet.
    writes_under_way: u32,
    /// A load that waits for them: read before their fate is known, the job would be loaded without them.
    deferred_load: Option<Load>,
    publisher: Publisher,
}

impl JobActor {
    pub(super) fn new(
        job: JobId,
        shared: Arc<Shared>,
        queue: Addr<super::queue_actor::QueueActor>,
        fence: Fence,
        grants_known_since: UnixMs,
    ) -> JobActor {
        JobActor {
            job,
            shared,
            queue,
            fence,
            grants_known_since,
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
            turned_away: false,
            last_leased: 0,
            saved_revision: 0,
            saved_version: 0,
            seen_outages: 0,
            saved_decided: 0,
            is_dirty: false,
            idle_check: None,
            settling: None,
            is_closing: false,
            writes_under_way: 0,
            deferred_load: None,
            publisher: Publisher::default(),
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
        let may_grant = !self.is_closing && self.shared.check_term().is_ok();
        let Some(ledger) = self.ledger.as_mut() else { return };
        ledger.note_right_to_grant(may_grant);
        let mut effects = Effects::default();
        let outages = self.shared.outages();
        if std::mem::replace(&mut self.seen_outages, outages) != outages {
            // It may have come and gone unnoticed here: nothing of this job was due, and nobody asked for it.
            effects.absorb(ledger.note_store(false, now));
        }
        effects.absorb(ledger.note_store(store_up, now));
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
        if !effects.replies.is_empty() {
            // Whoever hears the answer and asks the queue finds it informed.
            self.tell_queue();
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

    /// Tells the queue how much could be handed out, if that is news.
    fn tell_queue(&mut self) {
        let Some(ledger) = self.ledger.as_ref() else { return };
        let ready = ledger.claimable();
        let priority = ledger.record().priority;
        let moved = std::mem::replace(&mut self.offered_priority, priority) != priority && ready > 0;
        let news = (ready == 0) != (self.offered == 0) || ready > self.offered || moved;
        let leased = ledger.leased();
        // A worker that was turned away at its cap may have room now.
        let room = self.turned_away && leased < self.last_leased;
        self.last_leased = leased;
        if room || ready == 0 {
            self.turned_away = false;
        }
        if news || std::mem::take(&mut self.has_served) || (room && ready > 0) {
            self.offered = ready;
            self.queue.do_send(Claimability {
                job: self.job,
                priority,
                ready,
                is_loaded: true,
            });
        }
    }

    /// Tells the others what changed: the queue, the snapshotter, the timer, the read-ahead.
    fn after_change(&mut self, ctx: &mut Context<Self>) {
        self.tell_queue();
        let Some(ledger) = self.ledger.as_mut() else { return };
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
        // Before a drain hears that nothing is under way: what was committed last is to be seen as well.
        self.show_change(ctx);
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
        self.show_last();
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
        self.grants_known_since = self.shared.clock.now();
        self.stop_showing(ctx);
        self.payloads = Payloads::default();
        self.journal.take();
        self.chunks.clear();
        self.is_dirty = false;
        if let Some(waiting) = self.settling.take() {
            // Without a ledger there is nothing left to settle.
            let _ = waiting.send(());
        }
        if let Some((_, handle)) = self.wake.take() {
            ctx.cancel_future(handle);
        }
        if std::mem::take(&mut self.offered) > 0 {
            self.queue.do_send(Claimability {
                job: self.job,
                priority: 0,
                ready: 0,
                is_loaded: false,
            });
        }
        for (_, waiter) in self.waiters.drain() {
            match waiter {
                Waiter::Caller { reply, .. } => drop(reply.send(Err(reason.clone()))),
                Waiter::Poll(poll) => self.queue.do_send(Unserved(poll)),
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
            begun: ledger.has_begun(),
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
