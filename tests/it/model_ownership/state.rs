//! What the model knows at one moment, and the steps that lead on.
//!
//! Owns: the state of the nodes and of the store. Never: decides which step is allowed when. Invariant: none of its own.

use super::{NODES, TASKS};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    Begun,
    Locked,
    Proved,
    /// Durable, but its node has not heard so.
    Committed,
}

/// A transaction that stores the outcome of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Write {
    pub(super) task: usize,
    pub(super) epoch: u8,
    pub(super) phase: Phase,
    /// The store's epoch as its first snapshot saw it.
    pub(super) seen_at_start: u8,
}

impl Write {
    pub(super) fn holds_lock(&self) -> bool {
        matches!(self.phase, Phase::Locked | Phase::Proved)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) enum Taking {
    #[default]
    No,
    /// Waits for the exclusive lock. With what it has loaded too early, where the protocol is broken so.
    Waiting([bool; TASKS]),
    Locked([bool; TASKS]),
    Owns(u8, [bool; TASKS]),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Node {
    /// The epoch under which it believes to own the queue.
    pub(super) believes: Option<u8>,
    /// Tasks its ledger knows as decided.
    pub(super) ledger: [bool; TASKS],
    pub(super) write: Option<Write>,
    pub(super) taking: Taking,
    /// The epoch that it gave up in doubt.
    pub(super) doubts: Option<u8>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) epoch: u8,
    pub(super) owner: Option<usize>,
    /// Its lease has run out by the store's clock; the node itself may not know, and act on.
    pub(super) lease_over: [bool; NODES],
    /// Outcome rows.
    pub(super) rows: [bool; TASKS],
    pub(super) nodes: [Node; NODES],
    /// Transactions whose process is gone: the store may still commit them, or not.
    pub(super) orphans: Vec<Write>,
    /// How often a result of this task was answered `counted`.
    pub(super) counted: [u8; TASKS],
    pub(super) crashes: u8,
    pub(super) cuts: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Action {
    Report {
        node: usize,
        task: usize,
    },
    Lock {
        node: usize,
    },
    Prove {
        node: usize,
    },
    Commit {
        node: usize,
    },
    Answer {
        node: usize,
    },
    /// The connection breaks, and the store goes on with what it got; the node repeats the identical transaction.
    Cut {
        node: usize,
    },
    Crash {
        node: usize,
    },
    OrphanCommits(usize),
    OrphanEnds(usize),
    LeaseEnds {
        node: usize,
    },
    Renew {
        node: usize,
    },
    BeginTaking {
        node: usize,
    },
    LockExclusively {
        node: usize,
    },
    Take {
        node: usize,
    },
    Load {
        node: usize,
    },
    /// The store says that the queue is still this node's, under the epoch it had.
    Reload {
        node: usize,
    },
}

impl State {
    pub(super) fn may_take(&self, node: usize) -> bool {
        self.owner.is_none_or(|owner| owner == node || self.lease_over[owner])
    }

    pub(super) fn writers(&self) -> impl Iterator<Item = &Write> {
        self.nodes
            .iter()
            .filter_map(|node| node.write.as_ref())
            .chain(&self.orphans)
    }

    pub(super) fn exclusively_locked(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node.taking, Taking::Locked(_)))
    }

    /// A shared lock is only tried, and refused as soon as somebody waits for the exclusive one.
    pub(super) fn shared_lock_refused(&self) -> bool {
        self.exclusively_locked() || self.nodes.iter().any(|node| matches!(node.taking, Taking::Waiting(_)))
    }

    pub(super) fn fence_off(&mut self, node: usize) {
        self.nodes[node] = Node {
            taking: self.nodes[node].taking,
            doubts: self.nodes[node].believes,
            ..Node::default()
        };
    }

    pub(super) fn orphan_writes(&self, task: usize) -> bool {
        self.orphans
            .iter()
            .any(|orphan| orphan.task == task && orphan.phase == Phase::Proved)
    }

    pub(super) fn count(&mut self, node: usize, task: usize) {
        self.nodes[node].ledger[task] = true;
        self.counted[task] += 1;
    }
}
