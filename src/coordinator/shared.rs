//! What every part of the node can see.
//!
//! Owns: the store, settings, clock, term, directories, and the flags `draining` and `store_up`. Never: changes a job. Invariant: `store_up` turns
//! false at the first call the store did not answer, and true at the first one it did.

use super::board::Board;
use super::clock::Clock;
use super::committer::CommitBatch;
use super::directory::Directory;
use super::job_actor::TakeSnapshot;
use super::log_book::LogBook;
use super::outbox::Outbox;
use super::owners::Owners;
use super::peers::Peers;
use super::sightings::Sightings;
use super::term::Term;
use super::traffic::CommitTraffic;
use super::{CoordinatorError, Readiness, Settings};
use crate::domain::ids::{JobId, LeaseSeq, QueueId, UnixMs};
use crate::store::{ClusterSecret, NodeIdentity, Store, StoreError};
use actix::Recipient;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore};

/// Jobs loaded at the same time; more would only queue in the store.
const LOADS_AT_ONCE: usize = 8;
/// Workers whose last grant is remembered.
const WORKERS_REMEMBERED: usize = 65_536;
/// After an outage that everybody had, the others get so long to come back before anything is taken from them.
const OTHERS_COME_BACK: Duration = Duration::from_secs(1);
/// A heartbeat loop that was not heard for this many leases has stalled.
const STALLED_AFTER_LEASES: i64 = 2;

pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) settings: Settings,
    pub(super) identity: NodeIdentity,
    pub(super) clock: Clock,
    pub(super) term: Term,
    pub(super) owners: Owners,
    pub(super) secret: OnceLock<ClusterSecret>,
    peers: OnceLock<Arc<dyn Peers>>,
    /// Where other nodes reach this one; empty until it listens.
    address: Mutex<String>,
    /// Queues given up here but maybe not in the store.
    abandoned: Mutex<BTreeSet<QueueId>>,
    /// One round of taking and giving at a time.
    pub(super) tending: Arc<tokio::sync::Mutex<()>>,
    /// Wakes the heartbeat before its interval is over.
    pub(super) beat_now: Notify,
    /// Somebody wants this node to drain.
    pub(super) drain_asked: Notify,
    pub(super) directory: Directory,
    pub(super) board: Arc<Board>,
    pub(super) log_book: LogBook,
    pub(super) outbox: Outbox,
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
    /// What the pieces make way for.
    pub(super) commits: CommitTraffic,
    /// Counts the uploads that held leases.
    pub(super) holds: AtomicU64,
    pub(super) loads: Semaphore,
    pub(super) servings: AtomicU64,
    /// Calls that asked several owners.
    pub(super) scattered: AtomicU64,
    /// Which job gave a worker its last grant, and under which request id.
    last_grants: Mutex<HashMap<Arc<str>, (String, JobId)>>,
    activations: AtomicU64,
    draining: AtomicBool,
    left: AtomicBool,
    started: AtomicBool,
    deposed: AtomicBool,
    store_up: AtomicBool,
    /// How often nobody could report or extend for a while: the store was away, the term had ended, or the machine slept.
    outages: AtomicU64,
    last_beat_ms: AtomicU64,
    /// When the lease was renewed after a lapse.
    renewed_at: Mutex<Option<Instant>>,
}

impl Shared {
    pub(super) fn new(store: Arc<dyn Store>, settings: Settings, identity: NodeIdentity, now: UnixMs) -> Shared {
        let log_book = LogBook::new(settings.log_queue_bytes);
        let outbox = Outbox::new(&settings.callbacks);
        let sightings = Sightings::new(settings.workers_kept);
        let polls = Arc::new(Semaphore::new(settings.parked_limit));
        let blob_lanes = Semaphore::new(store.capabilities().blob_lanes.max(1));
        let board = Arc::new(Board::new(settings.streams_max, settings.stream_messages_per_s));
        let term = match store.capabilities().shared {
            true => Term::of_lease(settings.node_lease_s),
            false => Term::endless(),
        };
        Shared {
            store,
            settings,
            clock: Clock::anchored(now),
            term,
            owners: Owners::default(),
            secret: OnceLock::new(),
            peers: OnceLock::new(),
            address: Mutex::new(identity.address.clone()),
            identity,
            abandoned: Mutex::default(),
            tending: Arc::default(),
            beat_now: Notify::new(),
            drain_asked: Notify::new(),
            directory: Directory::default(),
            board,
            log_book,
            outbox,
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
            commits: CommitTraffic::default(),
            holds: AtomicU64::new(0),
            loads: Semaphore::new(LOADS_AT_ONCE),
            servings: AtomicU64::new(0),
            scattered: AtomicU64::new(0),
            last_grants: Mutex::default(),
            activations: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            left: AtomicBool::new(false),
            started: AtomicBool::new(false),
            deposed: AtomicBool::new(false),
            store_up: AtomicBool::new(true),
            outages: AtomicU64::new(0),
            last_beat_ms: AtomicU64::new(now.0.max(0) as u64),
            renewed_at: Mutex::default(),
        }
    }

    /// Who this node is, and where it is reached by now.
    pub(super) fn identity(&self) -> NodeIdentity {
        NodeIdentity {
            address: self.address.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            ..self.identity.clone()
        }
    }

    pub(super) fn set_address(&self, address: String) {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner) = address;
        self.beat_now.notify_one();
    }

    pub(super) fn peers(&self) -> Option<&Arc<dyn Peers>> {
        self.peers.get()
    }

    pub(super) fn set_peers(&self, peers: Arc<dyn Peers>) {
        // Set twice only by a test that mounts the API twice; both speak the same way.
        let _ = self.peers.set(peers);
    }

    pub(super) fn is_store_shared(&self) -> bool {
        self.store.capabilities().shared
    }

    /// While the lease has lapsed another node may be the owner of everything here.
    pub(super) fn check_term(&self) -> Result<(), CoordinatorError> {
        match self.term.holds() && !self.is_deposed() {
            true => Ok(()),
            false => Err(CoordinatorError::StoreUnavailable),
        }
    }

    /// The lease holds again after a lapse: leases of tasks get back the time it took.
    pub(super) fn note_renewal(&self) {
        *self.renewed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.note_recovery();
    }

    /// Every job is told, since what was due meanwhile may have moved.
    pub(super) fn note_recovery(&self) {
        self.recovered.notify_one();
    }

    /// Before it is over: a job that acts right after the end must know of it.
    pub(super) fn note_outage(&self) {
        self.outages.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn outages(&self) -> u64 {
        self.outages.load(Ordering::SeqCst)
    }

    /// Has everybody's lease lapsed a moment ago, as ours has? Then an owner that looks dead is likely to come back.
    pub(super) fn lets_others_come_back(&self) -> bool {
        let renewed_at = *self.renewed_at.lock().unwrap_or_else(PoisonError::into_inner);
        renewed_at.is_some_and(|at| at.elapsed() < OTHERS_COME_BACK)
    }

    pub(super) fn abandon(&self, queue: QueueId) {
        self.abandoned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(queue);
    }

    pub(super) fn abandoned(&self) -> Vec<QueueId> {
        let abandoned = self.abandoned.lock().unwrap_or_else(PoisonError::into_inner);
        abandoned.iter().copied().collect()
    }

    pub(super) fn forget_abandoned(&self, queue: QueueId) {
        self.abandoned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&queue);
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

    pub(super) fn take_dirty_of(&self, jobs: &[JobId]) -> Vec<(JobId, Recipient<TakeSnapshot>)> {
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.iter().filter_map(|job| dirty.remove_entry(job)).collect()
    }

    /// Does the store answer, and may we act on what it said? Nothing expires otherwise.
    pub(super) fn is_store_up(&self) -> bool {
        self.store_up.load(Ordering::Relaxed) && self.term.holds()
    }

    pub(super) fn store_failed(&self, error: &StoreError) {
        if self.store_up.swap(false, Ordering::Relaxed) {
            self.note_outage();
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

    /// Everything is given up, and the node counts as gone.
    pub(super) fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
        self.beat_now.notify_one();
    }

    pub(super) fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    pub(super) fn set_started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_started(&self) -> bool {
        self.started.load(Ordering::Relaxed)
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
            ("starting", !self.is_started()),
            ("draining", self.is_draining()),
            ("store_unavailable", !self.store_up.load(Ordering::Relaxed)),
            ("lease_lapsed", !self.term.holds()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::Sqlite;

    fn shared(path: &std::path::Path) -> Shared {
        let store = Arc::new(Sqlite::open(path).expect("a new file opens"));
        let settings = Settings::default();
        let identity = NodeIdentity {
            node: "n".into(),
            incarnation: "1".into(),
            lease_s: settings.node_lease_s,
            address: String::new(),
        };
        Shared::new(store, settings, identity, UnixMs(1_000_000))
    }

    #[test]
    fn fm47_a_heartbeat_that_stalls_turns_readiness_false_until_it_beats_again() {
        let path = std::env::temp_dir().join(format!("tk-stalled-{:016x}.db", rand::random::<u64>()));
        let shared = shared(&path);
        shared.set_started();
        shared.beat();
        assert!(shared.readiness().ready, "{:?}", shared.readiness());
        // No beat for a while, though the store answers and nothing else is amiss.
        let stalled_ms = STALLED_AFTER_LEASES * i64::from(shared.settings.node_lease_s) * 1000 + 1;
        shared.clock.anchor(UnixMs(shared.clock.now().0 + stalled_ms));
        assert_eq!(shared.readiness().reasons, ["timers_stalled"]);
        shared.beat();
        assert!(shared.readiness().ready);
        drop(shared);
        for suffix in ["", "-wal", "-shm", ".lock"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
        }
    }
}
