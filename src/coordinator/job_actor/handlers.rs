//! What the actor does with each message: a few lines that end in a command to the ledger, or in none.
//!
//! Owns: which messages are taken while there is no ledger, or while the node drains. Never: judges, or awaits. Invariant: every request is
//! answered, kept for later, or dropped with its reply channel, which its caller sees.

use super::{
    Ask, EndHold, HoldLeases, JobActor, JobDeleted, Load, Serve, Settle, StopJob, TakeSnapshot, Undelivered, Waiter,
    Wake,
};
use crate::coordinator::api::CoordinatorError;
use crate::coordinator::committer::BatchCommitted;
use crate::coordinator::queue_actor::Unserved;
use crate::domain::ledger::{Command, Grant, NewerTokens};
use crate::store::SnapshotRow;
use actix::prelude::*;

impl Actor for JobActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let settings = &self.shared.settings;
        let permits = settings.result_permits + settings.lease_permits + settings.control_permits;
        ctx.set_mailbox_capacity(2 * permits + 64);
        self.find_readers();
        self.load(NewerTokens::Suspect, ctx);
    }
}

impl Handler<Ask> for JobActor {
    type Result = ();

    fn handle(&mut self, ask: Ask, ctx: &mut Self::Context) {
        let reads_only = ask.request.reads_only();
        if let Err(lapsed) = self.shared.check_term() {
            drop(ask.reply.send(Err(lapsed)));
        } else if self.is_closing && !reads_only {
            drop(ask.reply.send(Err(CoordinatorError::NotOwner)));
        } else if self.shared.is_draining() && !reads_only {
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
        if self.is_closing || self.shared.check_term().is_err() {
            // The queue knows what to say.
            return self.queue.do_send(Unserved(poll));
        }
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
        if self.shared.is_draining() || self.is_closing {
            return; // The last snapshot may be written already; these leases run out by themselves.
        }
        let (job, epoch) = (self.job, self.fence.epoch);
        let leases = leases
            .into_iter()
            .filter(|lease| (lease.job, lease.epoch) == (job, epoch))
            .map(|lease| (lease.task, lease.seq));
        let leases = leases.collect();
        self.apply(Command::Ungrant { leases }, ctx);
    }
}

impl Handler<HoldLeases> for JobActor {
    type Result = ();

    fn handle(&mut self, message: HoldLeases, ctx: &mut Self::Context) {
        if self.shared.is_draining() {
            return; // Nothing expires any more.
        }
        let HoldLeases { hold, worker, leases } = message;
        self.apply(Command::Hold { hold, worker, leases }, ctx);
    }
}

impl Handler<EndHold> for JobActor {
    type Result = ();

    fn handle(&mut self, EndHold(hold): EndHold, ctx: &mut Self::Context) {
        self.apply(Command::EndHold { hold }, ctx);
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
        self.send_early_away();
        self.shared.directory.leave_job(self.job, &ctx.address());
        self.shared.board.move_away(self.job);
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
        // Set by a clock that may have jumped since.
        if let Some((_, handle)) = self.wake.take() {
            ctx.cancel_future(handle);
        }
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
        self.is_closing = true;
        match &self.ledger {
            Some(ledger) if !ledger.is_settled() => self.settling = Some(reply),
            Some(_) => {
                let _ = reply.send(());
            }
            None => {
                self.send_early_away();
                // Nobody waiting any more is nobody to tell.
                let _ = reply.send(());
            }
        }
    }
}

impl JobActor {
    /// Whoever waits for a ledger that will not come, or not be used, asks elsewhere.
    pub(super) fn send_early_away(&mut self) {
        for ask in self.early.drain(..) {
            drop(ask.reply.send(Err(CoordinatorError::NotOwner)));
        }
        for poll in self.early_polls.drain(..) {
            self.queue.do_send(Unserved(poll));
        }
    }
}
