//! Where a queue is served: here, there, or here from now on.
//!
//! Owns: finding the owner, and taking what nobody owns. Never: forwards anything. Invariant: an answer `There` names a living node that was
//! the owner when we last looked, or that should become it; that node knows for itself and says so if we are wrong.

use super::directory::QueueHandle;
use super::owners::{Neighbour, Owner};
use super::{Coordinator, CoordinatorError, Result};
use crate::domain::ids::JobId;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A queue may change hands while we look: looks before the caller is told to come back.
const LOOKS: u32 = 4;

/// Where a request has to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Here,
    There(Neighbour),
}

/// Who asks where a queue is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker<'a> {
    Client,
    /// A client whose request a node did not take: that one is not named again.
    Again(&'a Neighbour),
    /// Another node, which believes that it is here.
    Node,
}

impl Coordinator {
    /// Where a job is served.
    pub async fn place_of_job(&self, job: JobId, asker: Asker<'_>) -> Result<Place> {
        if !self.shared.is_store_shared() {
            return Ok(Place::Here);
        }
        self.shared.check_term()?;
        if let Some(handle) = self.shared.directory.job(job)
            && self.shared.directory.queue(&handle.queue).is_some()
        {
            return Ok(Place::Here);
        }
        let queue = self.queue_of(job).await?;
        self.place_of_queue(&queue, asker).await
    }

    /// Where a queue is served; taken by this node if nobody serves it and nobody else should.
    pub async fn place_of_queue(&self, queue: &str, asker: Asker<'_>) -> Result<Place> {
        if !self.shared.is_store_shared() || self.shared.directory.queue(queue).is_some() {
            return Ok(Place::Here);
        }
        self.within_store_wait(self.find_place(queue, asker)).await?
    }

    async fn find_place(&self, queue: &str, asker: Asker<'_>) -> Result<Place> {
        let shared = &self.shared;
        let us = shared.identity.node.as_str();
        let mut asked = (asker != Asker::Client).then(Instant::now);
        for _ in 0..LOOKS {
            shared.check_term()?;
            if shared.directory.queue(queue).is_some() {
                return Ok(Place::Here);
            }
            if shared.directory.is_leaving(queue) {
                if shared.is_draining() && shared.owners.neighbours(us).is_empty() {
                    return Err(CoordinatorError::Draining);
                }
                shared.directory.left(queue).await;
                asked = Some(Instant::now());
            }
            if let Some(asked) = asked {
                shared.owners.look(shared, asked).await?;
            }
            let owner = shared.owners.owner(queue, us);
            if asked.is_none() && !matches!(owner, Owner::Other(_)) {
                // What looks free may have been taken since.
                shared.owners.look_if_older(shared, Duration::from_millis(200)).await?;
            }
            if let Owner::Other(other) = shared.owners.owner(queue, us) {
                return match asker {
                    Asker::Node => Err(CoordinatorError::NotOwner),
                    Asker::Client | Asker::Again(_) => Ok(Place::There(other)),
                };
            }
            if shared.lets_others_come_back() && !matches!(shared.owners.owner(queue, us), Owner::Us) {
                return Err(CoordinatorError::NotOwner);
            }
            if let Some(other) = self.taker(asker) {
                return Ok(Place::There(other));
            }
            if shared.is_draining() {
                return Err(CoordinatorError::Draining);
            }
            if self.take_queue(queue).await?.is_some() {
                return Ok(Place::Here);
            }
            // Somebody was faster.
            asked = Some(Instant::now());
        }
        Err(CoordinatorError::NotOwner)
    }

    /// Another node that should take a queue which nobody owns. One that is asked takes it itself.
    fn taker(&self, asker: Asker<'_>) -> Option<Neighbour> {
        let taker = self.shared.owners.taker(&self.shared.identity.node)?;
        match asker {
            Asker::Node => None,
            Asker::Client => Some(taker),
            Asker::Again(avoided) => Some(taker).filter(|taker| taker != avoided),
        }
    }

    /// The handle of a queue that this node owns, taking the queue if nobody does.
    pub(super) async fn own_queue(&self, queue: &str) -> Result<QueueHandle> {
        self.take_queue(queue).await?.ok_or(CoordinatorError::NotOwner)
    }

    /// Takes a queue, unless somebody alive owns it, and loads its unfinished jobs.
    pub(super) async fn take_queue(&self, queue: &str) -> Result<Option<QueueHandle>> {
        let shared = &self.shared;
        if let Some(handle) = shared.directory.queue(queue) {
            return Ok(Some(handle));
        }
        let _one_at_a_time = shared.taking.lock().await;
        if let Some(handle) = shared.directory.queue(queue) {
            return Ok(Some(handle));
        }
        if shared.directory.is_leaving(queue) {
            return Ok(None);
        }
        shared.check_term()?;
        // Given up first: its old epoch may have writes under way that the new one has to fence off.
        self.release_abandoned().await?;
        let ownership = shared.store.take_queues(&shared.identity, Some(queue)).await?;
        let Some(owned) = ownership.owned.into_iter().find(|owned| owned.queue == queue) else {
            return Ok(None);
        };
        let handle = self.enter_queue(owned);
        if let Err(error) = self.activate_unfinished(&handle).await {
            tracing::warn!(queue, %error, "unfinished jobs could not be listed; the next round does it");
        }
        Ok(Some(handle))
    }

    /// Gives up in the store what was given up here without the store. The caller holds `taking`: what was taken again must not be meant.
    pub(super) async fn release_abandoned(&self) -> Result<()> {
        for queue in self.shared.abandoned() {
            self.shared
                .store
                .release_queues(&self.shared.identity, Some(queue))
                .await?;
            self.shared.forget_abandoned(queue);
        }
        Ok(())
    }

    /// The other living nodes, by name.
    pub fn neighbours(&self) -> Vec<Neighbour> {
        self.shared.owners.neighbours(&self.shared.identity.node)
    }

    /// Finds out who lives and who owns what by now.
    pub async fn look_around(&self) -> Result<()> {
        match self.shared.is_store_shared() {
            true => self.shared.owners.look(&self.shared, Instant::now()).await,
            false => Ok(()),
        }
    }

    /// Is it still the process that it was?
    pub fn is_there(&self, neighbour: &Neighbour) -> bool {
        self.shared.owners.neighbour(&neighbour.node).as_ref() == Some(neighbour)
    }

    /// A living node by its name; none if it is this one, or unknown.
    pub async fn find_neighbour(&self, node: &str) -> Result<Option<Neighbour>> {
        self.shared.owners.look(&self.shared, Instant::now()).await?;
        Ok(self.neighbour(node))
    }

    fn neighbour(&self, node: &str) -> Option<Neighbour> {
        self.shared
            .owners
            .neighbour(node)
            .filter(|found| found.node != self.shared.identity.node)
    }

    /// Changes when nodes come or go, or a queue changes hands.
    pub fn ownership_changes(&self) -> watch::Receiver<u64> {
        self.shared.owners.changes()
    }

    /// Is this queue served here, or by nobody else?
    pub fn shows_queue(&self, queue: &str, others_ask: bool) -> bool {
        if !self.shared.is_store_shared() || self.shared.directory.queue(queue).is_some() {
            return true;
        }
        !others_ask
            && !matches!(
                self.shared.owners.owner(queue, &self.shared.identity.node),
                Owner::Other(_)
            )
    }

    /// Whoever is thought to serve a queue.
    pub(super) fn node_of(&self, queue: &str) -> Option<String> {
        let us = self.shared.identity.node.as_str();
        match self.shared.owners.owner(queue, us) {
            _ if self.shared.directory.queue(queue).is_some() => Some(us.to_owned()),
            Owner::Other(other) => Some(other.node),
            _ => None,
        }
    }

    /// Sets how other nodes are spoken to; once.
    pub fn speak_through(&self, peers: Arc<dyn super::Peers>) {
        self.shared.set_peers(peers);
    }
}
