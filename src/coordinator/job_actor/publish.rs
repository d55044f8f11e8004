//! Showing the job to whoever watches it.
//!
//! Owns: when an update goes to the board. Never: prints one, or waits for a reader. Invariant: without readers a change costs a
//! comparison; with them at most one update per interval of the fastest reader, and a new state or run at once.

use super::JobActor;
use crate::coordinator::board::{Channel, Update};
use crate::domain::ids::Run;
use crate::domain::state::State;
use actix::prelude::*;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The rate falls while nothing happens: readers see that so often.
const REFRESH: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Publisher {
    /// None: nobody watches.
    readers: Option<Arc<Channel>>,
    /// Revision and content of what was shown last.
    shown: Option<(u64, Arc<Update>)>,
    shown_at: Option<Instant>,
    announced: Option<(State, Run)>,
    timer: Option<(Instant, SpawnHandle)>,
}

impl JobActor {
    /// Whoever came before this actor did is waiting on the board.
    pub(super) fn find_readers(&mut self) {
        self.publisher.readers = self.shared.board.audience(self.job);
    }

    /// A reader has come: what it sees first is the present.
    pub(super) fn show_to(&mut self, channel: Arc<Channel>, ctx: &mut Context<Self>) {
        let is_new = !self
            .publisher
            .readers
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, &channel));
        let is_empty = !channel.has_update();
        self.publisher.readers = Some(channel);
        if is_new || is_empty || !self.is_shown() {
            self.publish();
        }
        self.refresh_later(ctx);
    }

    /// Shows what changed: a new state or run at once, anything else in its time.
    pub(super) fn show_change(&mut self, ctx: &mut Context<Self>) {
        let Some(ledger) = self.ledger.as_ref() else { return };
        let standing = (ledger.record().state, ledger.record().run);
        let has_turned = self.publisher.announced.replace(standing) != Some(standing);
        let has_listeners = has_turned && self.shared.board.has_listeners();
        if has_turned && (has_listeners || self.publisher.readers.is_some()) {
            if !self.is_shown() {
                self.publish();
            }
            if let Some((_, update)) = self.publisher.shown.as_ref().filter(|_| has_listeners) {
                self.shared.board.announce(update);
            }
            self.refresh_later(ctx);
        } else if self.publisher.readers.is_some() && !self.is_shown() {
            self.publish_in_time(ctx);
        }
    }

    /// Shows what was not shown yet, since there will be no later.
    pub(super) fn show_last(&mut self) {
        if self.publisher.readers.is_some() && !self.is_shown() {
            self.publish();
        }
    }

    /// The ledger is not to be believed any more. The readers stay: what is loaded next is shown at once.
    pub(super) fn stop_showing(&mut self, ctx: &mut Context<Self>) {
        self.publisher.shown = None;
        self.publisher.announced = None;
        if let Some((_, timer)) = self.publisher.timer.take() {
            ctx.cancel_future(timer);
        }
    }

    fn is_shown(&self) -> bool {
        let shown = self.publisher.shown.as_ref().map(|(revision, _)| *revision);
        shown.is_some() && shown == self.ledger.as_ref().map(|ledger| ledger.revision())
    }

    fn publish(&mut self) {
        let Some(view) = self.view() else { return };
        let Some(revision) = self.ledger.as_ref().map(|ledger| ledger.revision()) else {
            return;
        };
        let update = Update::new(view);
        self.publisher.shown_at = Some(Instant::now());
        self.publisher.shown = Some((revision, update.clone()));
        if let Some(readers) = &self.publisher.readers {
            readers.publish(update);
        }
    }

    fn publish_in_time(&mut self, ctx: &mut Context<Self>) {
        let Some(rate) = self.publisher.readers.as_ref().and_then(|readers| readers.fastest()) else {
            self.publisher.readers = None;
            return;
        };
        let now = Instant::now();
        let due = self
            .publisher
            .shown_at
            .map_or(now, |shown_at| shown_at + self.shared.board.pace().interval(rate));
        if due <= now {
            self.publish();
            self.refresh_later(ctx);
        } else {
            self.publish_at(due, ctx);
        }
    }

    /// Looks again after a while, if what readers saw last goes stale by itself.
    fn refresh_later(&mut self, ctx: &mut Context<Self>) {
        let goes_stale = self
            .publisher
            .shown
            .as_ref()
            .is_some_and(|(_, update)| update.view.progress.rate_per_s.is_some_and(|rate| rate > 0.0));
        if goes_stale && self.publisher.readers.is_some() {
            self.publish_at(Instant::now() + REFRESH, ctx);
        }
    }

    fn publish_at(&mut self, due: Instant, ctx: &mut Context<Self>) {
        match self.publisher.timer {
            Some((planned, _)) if planned <= due => return,
            Some((_, later)) => drop(ctx.cancel_future(later)),
            None => {}
        }
        let wait = due.saturating_duration_since(Instant::now());
        let timer = ctx.run_later(wait, |actor, ctx| {
            actor.publisher.timer = None;
            if actor
                .publisher
                .readers
                .as_ref()
                .is_some_and(|readers| readers.is_empty())
            {
                actor.publisher.readers = None;
            }
            if actor.publisher.readers.is_some() {
                actor.publish();
                actor.refresh_later(ctx);
            }
        });
        self.publisher.timer = Some((due, timer));
    }
}
