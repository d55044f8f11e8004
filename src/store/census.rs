//! Who lives and who owns what.
//!
//! Owns: the shapes. Never: decides who should own a queue (the coordinator's balance does). Invariant: an owner named in a
//! census was alive when it was taken, by the store's clock.

use crate::domain::ids::{Epoch, QueueId};
use std::fmt;

/// A queue this node now owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedQueue {
    pub queue: String,
    pub id: QueueId,
    pub epoch: Epoch,
}

/// What `take_queues` found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ownership {
    /// Queues this incarnation owns after the call (all of them, not only those just taken).
    pub owned: Vec<OwnedQueue>,
    /// Queues a living other node holds: (queue, node).
    pub held_by_others: Vec<(String, String)>,
}

/// A node whose lease has not run out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivingNode {
    pub node: String,
    pub incarnation: String,
    /// Where other nodes reach it; empty while it does not listen.
    pub address: String,
    /// It gives up its queues and takes no more.
    pub draining: bool,
    /// What is left of its lease, in milliseconds.
    pub left_ms: i64,
}

/// A queue and who serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueOwner {
    pub queue: String,
    pub id: QueueId,
    pub epoch: Epoch,
    /// None: nobody that is alive.
    pub node: Option<String>,
    /// It has jobs that need an actor.
    pub busy: bool,
}

/// What `census` finds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Census {
    pub nodes: Vec<LivingNode>,
    pub queues: Vec<QueueOwner>,
}

/// What nodes prove to each other that they belong together with.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret(String);

impl ClusterSecret {
    pub fn new(text: String) -> ClusterSecret {
        ClusterSecret(text)
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret")
    }
}
