//! Where committed progress hangs for everyone to see: one slot per watched job, and the news of the node.
//!
//! Owns: the slots, the number of streams, the pace at which they may be fed. Never: queues anything for a reader, or prints the wire form.
//! Invariant: a slot holds one complete update, the newest; what a reader does not come to see is simply replaced.

mod pace;
mod update;
mod watch;

pub use pace::{Rate, Seat};
pub use update::{Form, Update};
pub use watch::{Sight, Watch};

use super::Result;
use super::api::CoordinatorError;
use crate::domain::ids::JobId;
use pace::Pace;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, broadcast, watch as slot};
pub(super) use watch::Channel;

/// News that a reader may lag behind before it has to look for itself.
const NEWS_KEPT: usize = 1_024;

/// What becomes of a job, for those who watch many.
#[derive(Debug, Clone)]
pub enum News {
    /// It was created, loaded, or changed its state or run.
    Turned(Arc<Update>),
    Deleted(JobId),
}

pub(super) struct Board {
    channels: Mutex<HashMap<JobId, Arc<Channel>>>,
    news: broadcast::Sender<News>,
    closed: slot::Sender<bool>,
    seats: Arc<Semaphore>,
    pace: Arc<Pace>,
}

impl Board {
    pub(super) fn new(seats: usize, frames_per_s: u32) -> Board {
        Board {
            channels: Mutex::default(),
            news: broadcast::Sender::new(NEWS_KEPT),
            closed: slot::Sender::new(false),
            seats: Arc::new(Semaphore::new(seats)),
            pace: Arc::new(Pace::new(frames_per_s)),
        }
    }

    fn channels(&self) -> MutexGuard<'_, HashMap<JobId, Arc<Channel>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place among the node's streams.
    pub(super) fn seat(&self, rate: Rate) -> Result<Seat> {
        let permit = self.seats.clone().try_acquire_owned();
        let permit = permit.map_err(|_| CoordinatorError::Busy("too many streams are open"))?;
        Ok(Seat::new(permit, self.pace.clone(), rate))
    }

    /// Joins the readers of a job.
    pub(super) fn join(self: &Arc<Self>, job: JobId, rate: Rate) -> Result<Watch> {
        let mut channels = self.channels();
        // Under the lock: a board that closes finds every channel that was joined before.
        if *self.closed.borrow() {
            return Err(CoordinatorError::Draining);
        }
        let channel = channels.entry(job).or_default().clone();
        channel.enter(rate);
        drop(channels);
        Ok(Watch::new(job, rate, channel, self.clone()))
    }

    fn leave(&self, job: JobId, channel: &Arc<Channel>, rate: Rate) {
        let mut channels = self.channels();
        channel.leave(rate);
        // Under the lock: nobody joins a channel that is being removed.
        if channel.is_empty() && channels.get(&job).is_some_and(|known| Arc::ptr_eq(known, channel)) {
            channels.remove(&job);
        }
    }

    /// The readers of a job, if it has any.
    pub(super) fn audience(&self, job: JobId) -> Option<Arc<Channel>> {
        self.channels().get(&job).cloned()
    }

    pub(super) fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Does anybody listen to the node's news?
    pub(super) fn has_listeners(&self) -> bool {
        self.news.receiver_count() > 0
    }

    pub(super) fn announce(&self, update: &Arc<Update>) {
        // Nobody listening is no failure.
        let _ = self.news.send(News::Turned(update.clone()));
    }

    pub(super) fn announce_deleted(&self, job: JobId) {
        let _ = self.news.send(News::Deleted(job));
    }

    pub(super) fn news(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    /// Resolves to true when the board closes.
    pub(super) fn closed(&self) -> slot::Receiver<bool> {
        self.closed.subscribe()
    }

    /// The job is served elsewhere from now on: its readers have to ask again.
    pub(super) fn move_away(&self, job: JobId) {
        let channel = self.channels().remove(&job);
        if let Some(channel) = channel {
            channel.move_away();
        }
    }

    /// Sends every reader away, and lets nobody in any more.
    pub(super) fn close(&self) {
        let channels = {
            let mut channels = self.channels();
            self.closed.send_replace(true);
            std::mem::take(&mut *channels)
        };
        channels.values().for_each(|channel| channel.move_away());
    }
}

#[cfg(test)]
mod tests;
