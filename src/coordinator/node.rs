//! The node's life: register, take queues, drain.
//!
//! Owns: start, recovery after an outage, the order of draining. Never: touches a job but through its actor. Invariant: nothing
//! is loaded before ownership was proven, and nothing is given up before the last snapshot was written.

use super::api::CoordinatorError;
use super::committer::Committer;
use super::directory::{JobHandle, QueueHandle};
use super::job_actor::Wake;
use super::manner::Manner;
use super::queue_actor::{Activate, QueueActor};
use super::shared::Shared;
use super::term::BootMs;
use super::{Coordinator, Result, Settings, beat, log_book, outbox, purger, snapshotter};
use crate::domain::ids::JobId;
use crate::store::{NodeIdentity, OwnedQueue, QueueOwner, Store, StoreError};
use actix::{Actor, Arbiter};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Unfinished jobs read at once while a queue is taken.
const JOBS_PER_PAGE: u32 = 1_000;
/// Longest wait to tell others that this node drains.
const ANNOUNCE: Duration = Duration::from_secs(1);

/// The threads on which actors live. A queue and its jobs share one.
pub(super) struct Threads {
    actors: Vec<Arbiter>,
    store: Arbiter,
    /// Calls to others, whose handshakes must not stand before a commit.
    calls: Arbiter,
}

impl Threads {
    fn start(settings: &Settings) -> Threads {
        let actors = (0..settings.actor_threads.max(1)).map(|_| Arbiter::new()).collect();
        Threads {
            actors,
            store: Arbiter::new(),
            calls: Arbiter::new(),
        }
    }

    /// Runs something that talks to the store and that nobody waits for.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.store.spawn(work);
    }

    fn of_queue(&self, queue: &OwnedQueue) -> &Arbiter {
        &self.actors[queue.id.0.unsigned_abs() as usize % self.actors.len()]
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for arbiter in self.actors.iter().chain([&self.store, &self.calls]) {
            arbiter.stop();
        }
    }
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Coordinator(#[from] CoordinatorError),
}

impl Coordinator {
    /// Registers the node, takes its queues and loads their unfinished jobs. Needs a running actix system. The schema must be up to date.
    /// `address`: where other nodes reach it; empty until [`Coordinator::listens_at`] says so.
    pub async fn start(
        store: Arc<dyn Store>,
        settings: Settings,
        address: String,
    ) -> std::result::Result<Coordinator, StartError> {
        let identity = NodeIdentity {
            node: settings.node_id.clone(),
            incarnation: format!("{:016x}", rand::random::<u64>()),
            lease_s: settings.node_lease_s,
            address,
        };
        let now = store.clock().await?;
        let threads = Threads::start(&settings);
        let shared = Arc::new(Shared::new(store, settings, identity, now));
        let committer = {
            let shared = shared.clone();
            Committer::start_in_arbiter(&threads.store.handle(), move |_| Committer::new(shared))
        };
        let _ = shared.committer.set(committer.recipient());
        let _ = shared.secret.set(shared.store.cluster_secret().await?);
        register(&shared).await?;
        let coordinator = Coordinator {
            shared,
            threads: Arc::new(threads),
            manner: Manner::default(),
        };
        coordinator.run_duties();
        coordinator.take_first_queues().await?;
        coordinator.shared.set_started();
        coordinator.shared.beat_now.notify_one();
        Ok(coordinator)
    }

    /// Takes what an older incarnation of this node left, or everything if there is no other node; the beat takes a share of the rest.
    async fn take_first_queues(&self) -> std::result::Result<(), StartError> {
        let shared = &self.shared;
        shared.owners.look(shared, Instant::now()).await?;
        if self.neighbours().is_empty() {
            let ownership = shared.store.take_queues(&shared.identity, None).await?;
            for queue in ownership.owned {
                let handle = self.enter_queue(queue);
                self.activate_unfinished(&handle).await?;
            }
            return Ok(());
        }
        let census = shared.owners.census();
        let ours = |owner: &&QueueOwner| owner.node.as_deref() == Some(shared.identity.node.as_str());
        for owner in census.queues.iter().filter(ours) {
            self.take_queue(&owner.queue).await?;
        }
        Ok(())
    }

    /// The node listens there: other nodes may send requests, and it takes its share of the queues.
    pub fn listens_at(&self, address: String) {
        self.shared.set_address(address);
    }

    /// Asks this node to drain and to end; [`Coordinator::drain_asked`] resolves.
    pub fn ask_to_drain(&self) {
        self.shared.drain_asked.notify_one();
    }

    /// Resolves when somebody wants this node to drain and to end.
    pub async fn drain_asked(&self) {
        self.shared.drain_asked.notified().await;
    }

    /// Starts the node's periodic duties, on the thread that talks to the store.
    fn run_duties(&self) {
        let (shared, threads) = (self.shared.clone(), Arc::downgrade(&self.threads));
        self.threads.calls.spawn(outbox::run(shared.clone()));
        self.threads.store.spawn(async move {
            actix::spawn(snapshotter::run(shared.clone()));
            actix::spawn(wake_after_outages(shared.clone()));
            actix::spawn(purger::run(shared.clone()));
            actix::spawn(log_book::run(shared.clone()));
            actix::spawn(beat::run(shared, threads));
        });
    }

    pub(super) fn enter_queue(&self, queue: OwnedQueue) -> QueueHandle {
        let name: Arc<str> = Arc::from(queue.queue.as_str());
        let head = Arc::new(Mutex::new(None));
        let addr = {
            let (name, shared, head) = (name.clone(), self.shared.clone(), head.clone());
            let thread = self.threads.of_queue(&queue).handle();
            QueueActor::start_in_arbiter(&thread, move |_| {
                QueueActor::new(name, queue.id, queue.epoch, shared, head)
            })
        };
        let handle = QueueHandle::new(name, queue.id, addr, head);
        self.shared.directory.enter_queue(handle.clone());
        handle
    }

    /// Gives every unfinished job of a queue its actor.
    pub(super) async fn activate_unfinished(&self, queue: &QueueHandle) -> std::result::Result<(), StoreError> {
        let mut after = JobId(0);
        loop {
            let jobs = self
                .shared
                .store
                .list_unfinished(queue.id, after, JOBS_PER_PAGE)
                .await?;
            // One of an actor that had the queue before may still be on its way out.
            let is_active = |job: JobId| {
                let known = self.shared.directory.job(job);
                known.is_some_and(|handle| Arc::ptr_eq(&handle.queue, &queue.name))
            };
            for &job in jobs.iter().filter(|job| !is_active(**job)) {
                // A mailbox that closed means the node is stopping; its jobs are activated by the next one.
                let _ = queue.addr.send(Activate(job)).await;
            }
            match jobs.last() {
                Some(&last) if jobs.len() == JOBS_PER_PAGE as usize => after = last,
                _ => return Ok(()),
            }
        }
    }

    pub(super) async fn activate(&self, queue: &QueueHandle, job: JobId) -> Result<JobHandle> {
        let activated = queue.addr.send(Activate(job)).await;
        activated.ok().flatten().ok_or(CoordinatorError::NotOwner)
    }

    /// Stops granting, answers parked polls, settles what is under way, saves the last snapshots, gives up the queues, closes the streams.
    /// Fails if something was not settled or saved in time.
    pub async fn drain(&self) -> Result<()> {
        let drained = self.drain_jobs().await;
        // Last, so that a reader who comes back at once finds the queues free; and also where draining failed.
        self.shared.board.close();
        drained
    }

    async fn drain_jobs(&self) -> Result<()> {
        let shared = &self.shared;
        let deadline = Instant::now() + shared.settings.drain_timeout;
        let in_time = |_| CoordinatorError::StoreUnavailable;
        shared.start_draining();
        shared.snapshot_now.notify_one();
        shared.outbox.look_now();
        let us = shared.identity();
        // Others take queues sooner if they know; if the store does not answer they find out all the same.
        let _ = tokio::time::timeout(ANNOUNCE, shared.store.announce_drain(&us)).await;
        let handed_over = self.hand_over_all(deadline).await;
        // Each call ends by itself, and before that its claim keeps others from it.
        if !shared.outbox.finish(deadline).await {
            tracing::warn!("a callback is still under way; it will be sent again");
        }
        // A log is no promise: what cannot be written in time is left out.
        let _ = tokio::time::timeout_at(deadline.into(), shared.log_book.flush()).await;
        let released = tokio::time::timeout_at(deadline.into(), shared.store.release_node(&us)).await;
        shared.leave();
        handed_over?;
        Ok(released.map_err(in_time)??)
    }

    /// Returns when another incarnation has taken this node's id: the process must exit.
    pub async fn deposed(&self) {
        while !self.shared.is_deposed() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Registers this incarnation, replacing an older one of the same node id only once that has died.
async fn register(shared: &Shared) -> std::result::Result<(), StoreError> {
    let deadline = Instant::now() + Duration::from_secs(u64::from(shared.settings.node_lease_s) + 2);
    // A store that one process alone can open has no other living incarnation.
    let replace = !shared.store.capabilities().shared;
    let mut is_told = false;
    loop {
        let sent = BootMs::now();
        match shared.store.register_node(&shared.identity, replace).await {
            Ok(()) => {
                shared.term.renewed(sent);
                return Ok(());
            }
            Err(StoreError::Conflict(why)) if Instant::now() < deadline => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::info!(%why, "waiting for the older incarnation of this node to end");
                }
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            Err(refused) => return Err(refused),
        }
    }
}

/// Lets every job know when the store answers again: leases get the time back that the outage took.
async fn wake_after_outages(shared: Arc<Shared>) {
    loop {
        shared.recovered.notified().await;
        for (_, job) in shared.directory.jobs() {
            job.addr.do_send(Wake);
        }
    }
}
