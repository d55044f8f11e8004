//! New jobs: made durable by any node, then taken up by the owner of their queue.
//!
//! Owns: telling the owner. Never: takes a job back because its owner could not be told. Invariant: once the store has the job it will be
//! activated: by whoever is told here, by the owner's next look for unfinished jobs, or by its successor.

use super::api::*;
use super::directory::QueueHandle;
use super::job_actor::needs_actor;
use super::place::{Asker, Place};
use super::{Coordinator, Result};
use crate::domain::counted::counted;
use crate::domain::ids::JobId;
use crate::domain::job::NewJob;
use crate::domain::logs::{Entry, Level};
use crate::store::{Created, Idempotency};
use std::sync::Arc;

impl Coordinator {
    /// Creates a job; the flag says whether it is new (false: the idempotency key named an existing one).
    pub async fn create_job(&self, job: NewJob, key: Option<Idempotency>) -> Result<(JobView, bool)> {
        self.refuse_when_draining()?;
        let creating = self.shared.store.create_job(&job, key.as_ref());
        let (record, is_new) = match self.within_store_wait(creating).await?? {
            Created::New(record) => (record, true),
            Created::Existing(record) => (record, false),
            Created::Mismatch => return Err(CoordinatorError::IdempotencyMismatch),
        };
        self.shared
            .directory
            .note_queue_of(record.id, Arc::from(record.queue.as_str()));
        if !is_new {
            return match self.job(record.id).await {
                // Where it stands its owner can tell; that it is there is what whoever repeats a call wants to know.
                Err(CoordinatorError::NotOwner) => Ok((self.stored_view(record), false)),
                shown => Ok((shown?, false)),
            };
        }
        if record.state.is_final() && record.callback_url.is_some() {
            self.shared.outbox.look_now();
        }
        let words = format!("created {} with {}", record.state, counted(record.tally.total, "task"));
        let created = Entry::own(record.id, self.now(), Level::Info, words);
        self.shared.log_book.note(vec![created]);
        // The job is durable; whatever happens to its activation, it will be activated again.
        match self.place_of_queue(&record.queue, Asker::Client).await {
            Ok(Place::Here) => match self.own_queue(&record.queue).await {
                Ok(queue) if needs_actor(record.state, record.start_at) => {
                    let served = self.within_store_wait(self.serve(&queue, record.id)).await;
                    if let Err(error) = served.and_then(|served| served) {
                        tracing::debug!(job = %record.id, %error, "the new job is not served yet");
                    }
                }
                Ok(_) => self.announce_stored(&record),
                Err(error) => tracing::warn!(job = %record.id, %error, "the new job's queue cannot be served yet"),
            },
            Ok(Place::There(_)) => {
                let woken = self
                    .within_store_wait(self.wake_elsewhere(record.id, &record.queue))
                    .await;
                if let Err(error) = woken.and_then(|woken| woken) {
                    tracing::warn!(job = %record.id, %error, "the new job's owner could not be told; it will find out");
                }
            }
            Err(error) => tracing::warn!(job = %record.id, %error, "the new job's queue cannot be served yet"),
        }
        Ok((self.stored_view(record), true))
    }

    /// Tells the owner of a queue that there is a new job, wherever the queue is by now.
    async fn wake_elsewhere(&self, job: JobId, queue: &str) -> Result<()> {
        let Some(peers) = self.shared.peers() else {
            return Err(CoordinatorError::NotOwner);
        };
        let mut place = self.place_of_queue(queue, Asker::Client).await?;
        for _ in 0..2 {
            let Place::There(other) = &place else { break };
            match peers.wake(self, other, job).await {
                Err(CoordinatorError::NotOwner) => {
                    let other = other.clone();
                    place = self.place_of_queue(queue, Asker::Again(&other)).await?;
                }
                woken => return woken,
            }
        }
        match place {
            Place::Here => self.activate_here(job, queue).await,
            Place::There(_) => Err(CoordinatorError::NotOwner),
        }
    }

    async fn activate_here(&self, job: JobId, queue: &str) -> Result<()> {
        let queue = self.own_queue(queue).await?;
        self.serve(&queue, job).await
    }

    /// Activates a new job and waits until its queue knows of its tasks: whoever made it may lease them the next moment.
    async fn serve(&self, queue: &QueueHandle, job: JobId) -> Result<()> {
        let actor = self.activate(queue, job).await?;
        self.live_view(&actor).await.map(drop)
    }
}
