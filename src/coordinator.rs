//! The running node: actors that own jobs, and the one handle through which everything else speaks to them.
//!
//! Owns: who runs where, waiting, bounds, group commit, timers. Never: decides a rule of a job (the ledger does) or names HTTP.
//! Invariant: one actor owns each active job and is its only writer.

pub mod api;
mod awaited;
mod balance;
mod beat;
mod blobs;
mod board;
mod claimable;
mod clock;
mod committer;
mod courier;
mod creating;
mod directory;
mod hand_over;
mod handle;
mod job_actor;
mod log_book;
mod manner;
mod naming;
mod node;
mod outbox;
mod overview;
mod owners;
mod peers;
mod place;
mod polling;
mod purger;
mod queue_actor;
mod scattered;
mod shared;
mod sightings;
mod snapshotter;
mod term;
mod traffic;
mod watching;

pub use blobs::LeaseHold;
pub use board::{Form, News, Rate, Seat, Sight, Update, Watch};
pub use courier::Courier;
pub use node::StartError;
pub use outbox::CallbackSettings;
pub use owners::Neighbour;
pub use peers::Peers;
pub use place::{Asker, Place};
pub use watching::Watched;

use api::CoordinatorError;
use manner::Manner;
use node::Threads;
use shared::Shared;
use std::sync::Arc;
use std::time::Duration;

/// Answer of every call of the handle.
pub type Result<T> = std::result::Result<T, CoordinatorError>;

/// The node's bounds and intervals.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Stable name of this node.
    pub node_id: String,
    /// How long the node counts as alive after a heartbeat, in seconds.
    pub node_lease_s: u32,
    /// How often changed jobs are saved.
    pub snapshot_interval: Duration,
    /// How long a caller waits for the store before it is told to come back.
    pub store_wait: Duration,
    /// Requests that post results to one job and have not been answered.
    pub result_permits: usize,
    /// Lease, extend and release requests of one job that have not been answered.
    pub lease_permits: usize,
    /// Control and append requests of one job that have not been answered.
    pub control_permits: usize,
    /// Long polls parked in the node.
    pub parked_limit: usize,
    /// Streams of progress open in the node.
    pub streams_max: usize,
    /// Messages per second that all streams together are sent; beyond it all of them slow down.
    pub stream_messages_per_s: u32,
    /// Tasks of one job that one worker may hold.
    pub worker_in_flight: u32,
    /// Bytes of payload in one lease answer; what would pass it is not leased.
    pub lease_payload_bytes: usize,
    /// Bytes of results gathered for one commit of one job.
    pub batch_bytes: usize,
    /// A result longer than this, in bytes, is stored apart, before its outcome.
    pub inline_result_bytes: usize,
    /// How long a large result that nobody refers to is kept: longer than any upload and its commit take.
    pub orphan_blob_age: Duration,
    /// A worker counts as alive for so long after its last call, in seconds.
    pub worker_alive_s: u32,
    /// Workers remembered; beyond it those seen longest ago are forgotten.
    pub workers_kept: usize,
    /// Log entries a job keeps; about a tenth more until they are trimmed.
    pub log_entries_per_job: u32,
    /// Bytes of log entries that wait to be written.
    pub log_queue_bytes: usize,
    /// Jobs that are final leave memory after being idle for so long.
    pub passivate_after: Duration,
    /// Longest wait for the last commits and snapshots when draining.
    pub drain_timeout: Duration,
    pub callbacks: CallbackSettings,
    /// Whether leases outlive this process. They do not where its workers are part of it, as in `run`.
    pub restores_leases: bool,
    /// Threads on which actors live; a queue and its jobs share one.
    pub actor_threads: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            node_id: "local".into(),
            node_lease_s: 10,
            snapshot_interval: Duration::from_secs(5),
            store_wait: Duration::from_secs(5),
            result_permits: 512,
            lease_permits: 512,
            control_permits: 64,
            parked_limit: 10_000,
            streams_max: 2_000,
            stream_messages_per_s: 2_000,
            worker_in_flight: 2_000,
            lease_payload_bytes: 16 << 20,
            batch_bytes: 32 << 20,
            inline_result_bytes: 64 << 10,
            orphan_blob_age: Duration::from_secs(3_600),
            worker_alive_s: 120,
            workers_kept: 10_000,
            log_entries_per_job: 10_000,
            log_queue_bytes: 16 << 20,
            passivate_after: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
            callbacks: CallbackSettings::default(),
            restores_leases: true,
            actor_threads: 1,
        }
    }
}

/// Is the node fit to serve, and if not, why?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    pub ready: bool,
    /// Stable words such as `store_unavailable`, `draining`, `starting`, `timers_stalled`.
    pub reasons: Vec<&'static str>,
}

/// Handle to the running node; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Coordinator {
    shared: Arc<Shared>,
    threads: Arc<Threads>,
    manner: Manner,
}
