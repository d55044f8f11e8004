//! What every part of the node can see.
//!
//! Owns: the store, settings, clock, directory, and the flags `draining` and `store_up`. Never: changes a job. Invariant: `store_up` turns
//! false at the first call the store did not answer, and true at the first one it did.

use super::board::Board;
use super::clock::Clock;
use super::committer::CommitBatch;
use super::directory::Directory;
use super::job_actor::TakeSnapshot;
use super::log_book::LogBook;
use super::sightings::Sightings;
use super::{Readiness, Settings};
use crate::domain::ids::{JobId, LeaseSeq, UnixMs};
use crate::store::{NodeIdentity, Store, StoreError};
use actix::Recipient;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::sync::{Notify, Semaphore};

/// Jobs loaded at the same time; more would only queue in the store.
const LOADS_AT_ONCE: usize = 8;
/// Workers whose last grant is remembered.
const WORKERS_REMEMBERED: usize = 65_536;
/// A heartbeat loop that was not heard for this many leases has stalled.
const STALLED_AFTER_LEASES: i64 = 2;

pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) settings: Settings,
    pub(super) identity: NodeIdentity,
    pub(super) clock: Clock,
    pub(super) directory: Directory,
    pub(super) board: Arc<Board>,
    pub(super) log_book: LogBook,
    pub(super) sightings: Sightings,
    pub(super) committer: OnceLock<Recipient<CommitBatch>>,
    /// Jobs that changed since their last snapshot.
    pub(super) dirty: Mutex<HashMap<JobId, Recipient<TakeSnapshot>>>,
    /// Wakes the snapshotter before its interval is over.
    pub(super) snapshot_now: Notify,
    /// Wakes the purger: a job was deleted.
    pub(super) purge_now: Notify,
    /// One save at a time, so that a drain cannot overtake a snapshot that is still being written.
    pub(super) saving: tokio::sync::Mutex<()>,
    /// One take-over of a new queue at a time.
    pub(super) taking: tokio::sync::Mutex<()>,
    /// Signalled when the store answers again after an outage.
    pub(super) recovered: Notify,
    pub(super) polls: Arc<Semaphore>,
    /// Pieces of large results that may be written at once.
    pub(super) blob_lanes: Semaphore,
    /// Counts the uploads that held leases.
    pub(super) holds: AtomicU64,
    pub(super) loads: Semaphore,
    pub(super) servings: AtomicU64,
    /// Which job gave a worker its last grant, and under which request id.
    last_grants: Mutex<HashMap<Arc<str>, (String, JobId)>>,
    activations: AtomicU64,
    draining: AtomicBool,
    started: AtomicBool,
    deposed: AtomicBool,
    store_up: AtomicBool,
    last_beat_ms: AtomicU64,
}

impl Shared {
    pub(super) fn new(store: Arc<dyn Store>, settings: Settings, identity: NodeIdentity, now: UnixMs) -> Shared {
        let log_book = LogBook::new(settings.log_queue_bytes);
        let sightings = Sightings::new(settings.workers_kept);
        let polls = Arc::new(Semaphore::new(settings.parked_limit));
        let blob_lanes = Semaphore::new(store.capabilities().blob_lanes.max(1));
        let board = Arc::new(Board::new(settings.streams_max, settings.stream_messages_per_s));
        Shared {
            store,
            settings,
            identity,
            clock: Clock::anchored(now),
            directory: Directory::default(),
            board,
            log_book,
            sightings,
            committer: OnceLock::new(),
            dirty: Mutex::default(),
            snapshot_now: Notify::new(),
            purge_now: Notify::new(),
            saving: tokio::sync::Mutex::new(()),
            taking: tokio::sync::Mutex::new(()),
            recovered: Notify::new(),
            polls,
            blob_lanes,
            holds: AtomicU64::new(0),
            loads: Semaphore::new(LOADS_AT_ONCE),
            servings: AtomicU64::new(0),
            last_grants: Mutex::default(),
            activations: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            started: AtomicBool::new(false),
            deposed: AtomicBool::new(false),
            store_up: AtomicBool::new(true),
            last_beat_ms: AtomicU64::new(now.0.max(0) as u64),
        }
    }

    /// A range of lease numbers that no other activation of this process uses.
    pub(super) fn next_lease_range(&self) -> LeaseSeq {
        LeaseSeq((self.activations.fetch_add(1, Ordering::Relaxed) + 1) << 32)
    }

    pub(super) fn next_serving(&self) -> u64 {
        self.servings.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn note_grant(&self, worker: Arc<str>, request_id: String, job: JobId) {
        let mut grants = self.last_grants.lock().unwrap_or_else(PoisonError::into_inner);
        if grants.len() >= WORKERS_REMEMBERED {
            grants.clear(); // A repetition then gets other work, and the first grant runs out.
        }
        grants.insert(worker, (request_id, job));
    }

    pub(super) fn granted_by(&self, worker: &str, request_id: &str) -> Option<JobId> {
        let grants = self.last_grants.lock().unwrap_or_else(PoisonError::into_inner);
        grants
            .get(worker)
            .filter(|(id, _)| id == request_id)
            .map(|&(_, job)| job)
    }

    pub(super) fn mark_dirty(&self, job: JobId, actor: Recipient<TakeSnapshot>) {
        self.dirty
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(job, actor);
    }

    pub(super) fn take_dirty(&self) -> Vec<(JobId, Recipient<TakeSnapshot>)> {
        self.dirty
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain()
            .collect()
    }

    pub(super) fn is_store_up(&self) -> bool {
        self.store_up.load(Ordering::Relaxed)
    }

    pub(super) fn store_failed(&self, error: &StoreError) {
        if self.store_up.swap(false, Ordering::Relaxed) {
            tracing::warn!(%error, "the store does not answer; results wait, leases do not expire");
        }
        metrics::gauge!("tallykeeper_store_up").set(0.0);
    }

    pub(super) fn store_answered(&self) {
        if !self.store_up.swap(true, Ordering::Relaxed) {
            tracing::info!("the store answers again");
            self.recovered.notify_one();
        }
        metrics::gauge!("tallykeeper_store_up").set(1.0);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(super) fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(super) fn set_started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// Another incarnation has taken this node's id: nothing may be served any more.
    pub(super) fn depose(&self) {
        self.deposed.store(true, Ordering::Relaxed);
        self.board.close();
    }

    pub(super) fn is_deposed(&self) -> bool {
        self.deposed.load(Ordering::Relaxed)
    }

    /// The heartbeat loop is alive, whether or not the store is.
    pub(super) fn beat(&self) {
        self.last_beat_ms
            .store(self.clock.now().0.max(0) as u64, Ordering::Relaxed);
    }

    pub(super) fn readiness(&self) -> Readiness {
        let silent_ms = self.clock.now().0 - self.last_beat_ms.load(Ordering::Relaxed) as i64;
        let stalled = silent_ms > STALLED_AFTER_LEASES * i64::from(self.settings.node_lease_s) * 1000;
        let reasons: Vec<&'static str> = [
            ("starting", !self.started.load(Ordering::Relaxed)),
            ("draining", self.is_draining()),
            ("store_unavailable", !self.is_store_up()),
            ("replaced", self.is_deposed()),
            ("timers_stalled", stalled),
        ]
        .into_iter()
        .filter_map(|(reason, holds)| holds.then_some(reason))
        .collect();
        Readiness {
            ready: reasons.is_empty(),
            reasons,
        }
    }
}
