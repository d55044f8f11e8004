//! The calls of the [`Coordinator`] handle that watch jobs.
//!
//! Owns: joining the board before looking at the job. Never: sends a message anywhere. Invariant: between the first update a reader sees
//! and the next ones nothing is missed, whether the job has an actor, gets one meanwhile, or loses it.

use super::api::{CoordinatorError, JobView};
use super::board::{News, Rate, Seat, Update, Watch};
use super::directory::Lane;
use super::handle::mismatched;
use super::job_actor::{Answer, Request, needs_actor};
use super::{Coordinator, Result};
use crate::domain::ids::JobId;
use crate::domain::job::JobRecord;
use crate::domain::state::State;
use crate::store::JobFilter;
use futures_util::future::join_all;
use std::sync::Arc;
use tokio::sync::{broadcast, watch as slot};

/// An actor may stop between look-up and message; its successor is found at the next look.
const ATTEMPTS: u32 = 3;

/// A job of a list: what is known of it, and its updates if it may have any that are no news.
pub struct Watched {
    pub update: Arc<Update>,
    pub watch: Option<Watch>,
}

impl Coordinator {
    /// A place among the node's streams; `Busy` without one.
    pub fn seat(&self, rate: Rate) -> Result<Seat> {
        self.refuse_when_draining()?;
        self.shared.board.seat(rate)
    }

    /// Watches a job, whose present is on the board already.
    pub async fn watch(&self, job: JobId, rate: Rate) -> Result<Watch> {
        self.refuse_when_draining()?;
        // Joined before the job is looked at: an actor that starts in between finds its reader, and one that was there is found.
        let watch = self.shared.board.join(job, rate)?;
        for attempt in 1.. {
            match self.show(job, &watch).await {
                Err(CoordinatorError::Busy(_)) if attempt < ATTEMPTS => {}
                shown => return shown.map(|()| watch),
            }
        }
        unreachable!("the last attempt returns")
    }

    async fn show(&self, job: JobId, watch: &Watch) -> Result<()> {
        let handle = match self.shared.directory.job(job) {
            Some(handle) => handle,
            None => {
                let record = self.record(job).await?;
                if !needs_actor(record.state, record.start_at) {
                    watch.channel().publish_stored(Update::new(self.stored_view(record)));
                    return Ok(());
                }
                self.handle(job).await?
            }
        };
        // Many readers may come at once, as after a restart: they take turns instead of being sent away.
        let permit = self.within_store_wait(handle.permit_in_turn(Lane::Controls)).await?;
        let request = Request::Watch(watch.channel().clone());
        match self.ask_with(&handle, request, permit).await? {
            Answer::Watched => Ok(()),
            _ => Err(mismatched()),
        }
    }

    /// Of the newest jobs that match those in queues that `shows` lets through, each with its present.
    pub async fn watch_listed(
        &self,
        filter: &JobFilter,
        rate: Rate,
        shows: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<Watched>> {
        self.refuse_when_draining()?;
        let mut records = self.within_store_wait(self.shared.store.list_jobs(filter)).await??;
        records.retain(|record| shows(&record.queue));
        let watched = join_all(records.into_iter().map(|record| self.watch_record(record, rate))).await;
        // A job that has moved since is shown by its new owner.
        let stays = |watched: &Result<Watched>| !matches!(watched, Err(CoordinatorError::NotOwner));
        watched.into_iter().filter(stays).collect()
    }

    async fn watch_record(&self, record: JobRecord, rate: Rate) -> Result<Watched> {
        // A job without an actor changes by getting one, which is news.
        if self.shared.directory.job(record.id).is_none() && !needs_actor(record.state, record.start_at) {
            let update = Update::new(self.stored_view(record));
            return Ok(Watched { update, watch: None });
        }
        let mut watch = self.watch(record.id, rate).await?;
        let update = match watch.look() {
            super::Sight::Newest(update) => update,
            super::Sight::Moved(_) => return Err(CoordinatorError::NotOwner),
            super::Sight::Nothing => Update::new(self.stored_view(record)),
        };
        let watch = Some(watch);
        Ok(Watched { update, watch })
    }

    /// What becomes of this node's jobs, from now on.
    pub fn news(&self) -> broadcast::Receiver<News> {
        self.shared.board.news()
    }

    /// Turns true when every stream has to end: the node hands over what it owns.
    pub fn streams_closed(&self) -> slot::Receiver<bool> {
        self.shared.board.closed()
    }

    /// Makes a job known that waits to be started, and has no actor to do it.
    pub fn announce_pending(&self, view: &JobView) {
        if view.record.state == State::Pending && self.shared.board.has_listeners() {
            self.shared.board.announce(&Update::new(view.clone()));
        }
    }

    /// Makes a new job known that has no actor to do it.
    pub(super) fn announce_stored(&self, record: &JobRecord) {
        if self.shared.board.has_listeners() {
            let view = self.stored_view(record.clone());
            self.shared.board.announce(&Update::new(view));
        }
    }
}
