//! The node's life: register, take queues, stay alive, drain.
//!
//! Owns: start, heartbeat, recovery after an outage, the order of draining. Never: touches a job but through its actor. Invariant: nothing
//! is loaded before ownership was proven, and nothing is given up before the last snapshot was written.

use super::api::CoordinatorError;
use super::committer::Committer;
use super::directory::{JobHandle, QueueHandle};
use super::job_actor::{Settle, Wake};
use super::manner::Manner;
use super::queue_actor::{Activate, DismissPolls, QueueActor};
use super::shared::Shared;
use super::{Coordinator, Result, Settings, log_book, purger, snapshotter};
use crate::domain::ids::JobId;
use crate::store::{NodeIdentity, OwnedQueue, Ownership, Store, StoreError};
use actix::{Actor, Arbiter};
use futures_util::future::join_all;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Unfinished jobs read at once while a queue is taken.
const JOBS_PER_PAGE: u32 = 1_000;

/// The threads on which actors live. A queue and its jobs share one.
pub(super) struct Threads {
    actors: Vec<Arbiter>,
    store: Arbiter,
}

impl Threads {
    fn start(settings: &Settings) -> Threads {
        let actors = (0..settings.actor_threads.max(1)).map(|_| Arbiter::new()).collect();
        Threads {
            actors,
            store: Arbiter::new(),
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
        for arbiter in self.actors.iter().chain([&self.store]) {
            arbiter.stop();
        }
    }
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "node {node:?} is alive and owns queue {queue:?}; this version serves a store from one node at a time: stop that node, or wait {lease_s} s if it died"
    )]
    QueuesHeld { node: String, queue: String, lease_s: u32 },
}

impl Coordinator {
    /// Registers the node, takes its queues and loads their unfinished jobs. Needs a running actix system. The schema must be up to date.
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
        register(&shared).await?;
        let coordinator = Coordinator {
            shared,
            threads: Arc::new(threads),
            manner: Manner::default(),
        };
        coordinator.run_duties();
        let ownership = take_queues(&coordinator.shared).await?;
        for queue in ownership.owned {
            let handle = coordinator.enter_queue(queue);
            coordinator.activate_unfinished(&handle).await?;
        }
        coordinator.shared.set_started();
        Ok(coordinator)
    }

    /// Starts the node's periodic duties, on the thread that talks to the store.
    fn run_duties(&self) {
        let shared = self.shared.clone();
        self.threads.store.spawn(async move {
            actix::spawn(snapshotter::run(shared.clone()));
            actix::spawn(wake_after_outages(shared.clone()));
            actix::spawn(purger::run(shared.clone()));
            actix::spawn(log_book::run(shared.clone()));
            actix::spawn(beat(shared));
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

    async fn activate_unfinished(&self, queue: &QueueHandle) -> std::result::Result<(), StoreError> {
        let mut after = JobId(0);
        loop {
            let jobs = self
                .shared
                .store
                .list_unfinished(queue.id, after, JOBS_PER_PAGE)
                .await?;
            for &job in &jobs {
                // A mailbox that closed means the node is stopping; its jobs are activated by the next one.
                let _ = queue.addr.send(Activate(job)).await;
            }
            match jobs.last() {
                Some(&last) if jobs.len() == JOBS_PER_PAGE as usize => after = last,
                _ => return Ok(()),
            }
        }
    }

    /// The handle of a queue that this node owns, taking the queue if nobody does.
    pub(super) async fn own_queue(&self, queue: &str) -> Result<QueueHandle> {
        if let Some(handle) = self.shared.directory.queue(queue) {
            return Ok(handle);
        }
        let _one_at_a_time = self.shared.taking.lock().await;
        if let Some(handle) = self.shared.directory.queue(queue) {
            return Ok(handle);
        }
        let ownership = self
            .shared
            .store
            .take_queues(&self.shared.identity, Some(queue))
            .await?;
        let owned = ownership.owned.into_iter().find(|owned| owned.queue == queue);
        owned
            .map(|owned| self.enter_queue(owned))
            .ok_or(CoordinatorError::NotOwner)
    }

    pub(super) async fn activate(&self, queue: &QueueHandle, job: JobId) -> Result<JobHandle> {
        queue
            .addr
            .send(Activate(job))
            .await
            .map_err(|_| CoordinatorError::NotOwner)
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
        shared.start_draining();
        shared.snapshot_now.notify_one();
        for queue in shared.directory.queues() {
            queue.addr.do_send(DismissPolls);
        }
        let settled = join_all(shared.directory.jobs().into_iter().map(|(_, job)| async move {
            let (reply, done) = oneshot::channel();
            job.addr.do_send(Settle(reply));
            let _ = done.await; // A dropped reply is an actor without a ledger: nothing of it is under way.
        }));
        tokio::time::timeout_at(deadline.into(), settled)
            .await
            .map_err(|_| CoordinatorError::StoreUnavailable)?;
        let saved = snapshotter::save_dirty(shared, deadline);
        tokio::time::timeout_at(deadline.into(), saved)
            .await
            .map_err(|_| CoordinatorError::StoreUnavailable)??;
        // A log is no promise: what cannot be written in time is left out.
        let _ = tokio::time::timeout_at(deadline.into(), shared.log_book.flush()).await;
        let released = shared.store.release_node(&shared.identity);
        tokio::time::timeout_at(deadline.into(), released)
            .await
            .map_err(|_| CoordinatorError::StoreUnavailable)??;
        Ok(())
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
    loop {
        match shared.store.register_node(&shared.identity, replace).await {
            Err(StoreError::Conflict(why)) if Instant::now() < deadline => {
                tracing::info!(%why, "waiting for the older incarnation of this node to end");
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            answered => return answered,
        }
    }
}

async fn take_queues(shared: &Shared) -> std::result::Result<Ownership, StartError> {
    let lease_s = shared.settings.node_lease_s;
    let deadline = Instant::now() + Duration::from_secs(u64::from(lease_s) + 2);
    loop {
        let ownership = shared.store.take_queues(&shared.identity, None).await?;
        let Some((queue, node)) = ownership.held_by_others.first().cloned() else {
            return Ok(ownership);
        };
        if Instant::now() >= deadline {
            return Err(StartError::QueuesHeld { node, queue, lease_s });
        }
        tracing::info!(%node, %queue, "waiting for the other node's lease to run out");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Renews the node's lease and re-anchors its clock.
async fn beat(shared: Arc<Shared>) {
    let interval = Duration::from_millis(u64::from(shared.settings.node_lease_s) * 1000 / 3);
    loop {
        tokio::time::sleep(interval).await;
        if shared.is_draining() {
            return;
        }
        match shared.store.heartbeat(&shared.identity).await {
            Ok(()) => match shared.store.clock().await {
                Ok(now) => {
                    shared.clock.anchor(now);
                    shared.store_answered();
                }
                Err(error) => shared.store_failed(&error),
            },
            Err(StoreError::Fenced(why)) => {
                tracing::error!(%why, "another incarnation of this node has started; this one ends");
                shared.depose();
                return;
            }
            Err(error) => shared.store_failed(&error),
        }
        shared.beat();
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
