//! The protocol of ownership and commit as a model, every interleaving of which is checked.
//!
//! Owns: what two nodes and one store may do to one queue: results, commits whose answer comes late or never, crashes, leases that run out
//! under a node that does not notice, take-overs. Never: checks the code; the conformance suite and the tests with real processes do.
//! Invariant: each step of the protocol that is left out lets the checker find a history that breaks a promise, so the check can fail.
#![allow(clippy::print_stderr, reason = "how much was checked is worth reading")]

use stateright::{Checker, HasDiscoveries, Model, Property};

const NODES: usize = 2;
const TASKS: usize = 2;
const MOST_EPOCHS: u8 = 3;
const MOST_CRASHES: u8 = 1;

/// Which of the fence's steps are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Protocol {
    /// As built: the shared lock, then the epoch in a later snapshot; the exclusive lock, then the epoch, then the load.
    AsBuilt,
    /// The epoch is read with the snapshot from before the lock was granted.
    EpochBeforeLock,
    /// Writers prove the epoch without any lock.
    NoSharedLock,
    /// A take-over does not wait for old transactions.
    NoExclusiveLock,
    /// A take-over reads the facts before it owns the queue.
    LoadBeforeEpoch,
    /// An answer goes out before the commit.
    AnswerBeforeCommit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Begun,
    Locked,
    Proved,
    /// Durable, but its node has not heard so.
    Committed,
}

/// A transaction that stores the outcome of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Write {
    task: usize,
    epoch: u8,
    phase: Phase,
    /// The store's epoch as its first snapshot saw it.
    seen_at_start: u8,
}

impl Write {
    fn holds_lock(&self) -> bool {
        matches!(self.phase, Phase::Locked | Phase::Proved)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Taking {
    #[default]
    No,
    /// Waits for the exclusive lock. With what it has loaded too early, where the protocol is broken so.
    Waiting([bool; TASKS]),
    Locked([bool; TASKS]),
    Owns(u8, [bool; TASKS]),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Node {
    /// The epoch under which it believes to own the queue.
    believes: Option<u8>,
    /// Tasks its ledger knows as decided.
    ledger: [bool; TASKS],
    write: Option<Write>,
    taking: Taking,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct State {
    epoch: u8,
    owner: Option<usize>,
    /// Its lease has run out by the store's clock; the node itself may not know, and act on.
    lease_over: [bool; NODES],
    /// Outcome rows.
    rows: [bool; TASKS],
    nodes: [Node; NODES],
    /// Transactions whose process is gone: the store may still commit them, or not.
    orphans: Vec<Write>,
    /// How often a result of this task was answered `counted`.
    counted: [u8; TASKS],
    crashes: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Action {
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
    /// The connection breaks; the node repeats the identical transaction.
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
}

impl State {
    fn may_take(&self, node: usize) -> bool {
        self.owner.is_none_or(|owner| owner == node || self.lease_over[owner])
    }

    fn writers(&self) -> impl Iterator<Item = &Write> {
        self.nodes
            .iter()
            .filter_map(|node| node.write.as_ref())
            .chain(&self.orphans)
    }

    fn exclusively_locked(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node.taking, Taking::Locked(_)))
    }

    /// A shared lock is only tried, and refused as soon as somebody waits for the exclusive one.
    fn shared_lock_refused(&self) -> bool {
        self.exclusively_locked() || self.nodes.iter().any(|node| matches!(node.taking, Taking::Waiting(_)))
    }

    fn fence_off(&mut self, node: usize) {
        self.nodes[node] = Node {
            taking: self.nodes[node].taking,
            ..Node::default()
        };
    }

    fn count(&mut self, node: usize, task: usize) {
        self.nodes[node].ledger[task] = true;
        self.counted[task] += 1;
    }
}

impl Protocol {
    fn write_actions(self, state: &State, node: usize, write: Write, actions: &mut Vec<Action>) {
        match write.phase {
            Phase::Begun => actions.push(Action::Lock { node }),
            Phase::Locked => actions.push(Action::Prove { node }),
            Phase::Proved => actions.push(Action::Commit { node }),
            Phase::Committed => actions.push(Action::Answer { node }),
        }
        if write.phase != Phase::Begun {
            actions.push(Action::Cut { node });
        }
        debug_assert!(state.nodes[node].write.is_some());
    }

    fn lock(self, state: &mut State, node: usize) {
        let refused = self != Protocol::NoSharedLock && state.shared_lock_refused();
        match &mut state.nodes[node].write {
            Some(write) if !refused => write.phase = Phase::Locked,
            _ => state.fence_off(node),
        }
    }

    fn prove(self, state: &mut State, node: usize) {
        let epoch = state.epoch;
        let Some(write) = &mut state.nodes[node].write else {
            return;
        };
        let seen = if self == Protocol::EpochBeforeLock {
            write.seen_at_start
        } else {
            epoch
        };
        let (proved, task) = (seen == write.epoch, write.task);
        write.phase = Phase::Proved;
        if !proved {
            state.fence_off(node);
        } else if self == Protocol::AnswerBeforeCommit {
            state.count(node, task);
        }
    }

    fn blocks_take_over(self, write: &Write) -> bool {
        !matches!(self, Protocol::NoSharedLock | Protocol::NoExclusiveLock) && write.holds_lock()
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (node, it) in state.nodes.iter().enumerate() {
            match it.write {
                Some(write) => self.write_actions(state, node, write, actions),
                None if it.believes.is_some() => {
                    let open = (0..TASKS).filter(|task| !it.ledger[*task]);
                    actions.extend(open.map(|task| Action::Report { node, task }));
                }
                None => {}
            }
            let idle = it.believes.is_none() && it.taking == Taking::No;
            match it.taking {
                Taking::No if idle && state.epoch < MOST_EPOCHS && state.may_take(node) => {
                    actions.push(Action::BeginTaking { node });
                }
                Taking::No => {}
                Taking::Waiting(_) => {
                    let blocked =
                        state.exclusively_locked() || state.writers().any(|write| self.blocks_take_over(write));
                    if !blocked {
                        actions.push(Action::LockExclusively { node });
                    }
                }
                Taking::Locked(_) => actions.push(Action::Take { node }),
                Taking::Owns(..) => actions.push(Action::Load { node }),
            }
            if state.crashes < MOST_CRASHES && *it != Node::default() {
                actions.push(Action::Crash { node });
            }
            actions.push(if state.lease_over[node] {
                Action::Renew { node }
            } else {
                Action::LeaseEnds { node }
            });
        }
        for at in 0..state.orphans.len() {
            if state.orphans[at].phase == Phase::Proved {
                actions.push(Action::OrphanCommits(at));
            }
            actions.push(Action::OrphanEnds(at));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Report { node, task } => {
                let epoch = state.nodes[node].believes?;
                let (phase, seen_at_start) = (Phase::Begun, state.epoch);
                state.nodes[node].write = Some(Write {
                    task,
                    epoch,
                    phase,
                    seen_at_start,
                });
            }
            Action::Lock { node } => self.lock(&mut state, node),
            Action::Prove { node } => self.prove(&mut state, node),
            Action::Commit { node } => {
                let write = state.nodes[node].write.as_mut()?;
                write.phase = Phase::Committed;
                state.rows[write.task] = true;
            }
            Action::Answer { node } => {
                let write = state.nodes[node].write.take()?;
                if *self != Protocol::AnswerBeforeCommit {
                    state.count(node, write.task);
                }
            }
            Action::Cut { node } => {
                let seen_at_start = state.epoch;
                let write = state.nodes[node].write.as_mut()?;
                *write = Write {
                    phase: Phase::Begun,
                    seen_at_start,
                    ..*write
                };
            }
            Action::Crash { node } => {
                let gone = std::mem::take(&mut state.nodes[node]);
                state.orphans.extend(gone.write.filter(Write::holds_lock));
                state.crashes += 1;
            }
            Action::OrphanCommits(at) => {
                let write = state.orphans.remove(at);
                state.rows[write.task] = true;
            }
            Action::OrphanEnds(at) => {
                state.orphans.remove(at);
            }
            Action::LeaseEnds { node } => state.lease_over[node] = true,
            Action::Renew { node } => state.lease_over[node] = false,
            Action::BeginTaking { node } => state.nodes[node].taking = Taking::Waiting(state.rows),
            Action::LockExclusively { node } => {
                let Taking::Waiting(early) = state.nodes[node].taking else {
                    return None;
                };
                state.nodes[node].taking = Taking::Locked(early);
            }
            Action::Take { node } => {
                let Taking::Locked(early) = state.nodes[node].taking else {
                    return None;
                };
                // Judged again under the lock: the owner may have come back.
                if state.may_take(node) {
                    state.epoch += 1;
                    state.owner = Some(node);
                    state.nodes[node].taking = Taking::Owns(state.epoch, early);
                } else {
                    state.nodes[node].taking = Taking::No;
                }
            }
            Action::Load { node } => {
                let Taking::Owns(epoch, early) = state.nodes[node].taking else {
                    return None;
                };
                let ledger = if *self == Protocol::LoadBeforeEpoch {
                    early
                } else {
                    state.rows
                };
                state.nodes[node] = Node {
                    believes: Some(epoch),
                    ledger,
                    ..Node::default()
                };
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("an acknowledged result is durable", |_, state: &State| {
                (0..TASKS).all(|task| state.counted[task] == 0 || state.rows[task])
            }),
            Property::always("a result is counted once", |_, state: &State| {
                state.counted.iter().all(|&times| times <= 1)
            }),
            Property::always(
                "the owner knows every row that is not its own in flight",
                |_, state: &State| {
                    let owners = state.nodes.iter().filter(|node| node.believes == Some(state.epoch));
                    owners.into_iter().all(|owner| {
                        let own = |task| owner.write.is_some_and(|write| write.task == task);
                        (0..TASKS).all(|task| !state.rows[task] || owner.ledger[task] || own(task))
                    })
                },
            ),
            Property::sometimes(
                "a node that lost its queue still believes to own it",
                |_, state: &State| {
                    let believers = state.nodes.iter().filter(|node| node.believes.is_some());
                    believers.count() == NODES
                },
            ),
            Property::sometimes("a result is counted under the second owner", |_, state: &State| {
                state.epoch > 1 && state.counted == [1; TASKS]
            }),
            Property::sometimes(
                "a crashed node's transaction is committed by the store",
                |_, state: &State| state.crashes > 0 && state.counted == [0; TASKS] && state.rows[0],
            ),
        ]
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.epoch <= MOST_EPOCHS
    }
}

#[test]
fn fm55_no_history_of_two_nodes_loses_or_doubles_an_acknowledged_result() {
    let checked = Protocol::AsBuilt.checker().threads(2).spawn_bfs().join();
    let states = checked.unique_state_count();
    eprintln!("{states} states");
    assert!(states > 10_000, "{states} states");
    checked.assert_properties();
}

#[test]
fn every_step_of_the_fence_is_needed() {
    for (protocol, broken) in [
        (
            Protocol::EpochBeforeLock,
            "the owner knows every row that is not its own in flight",
        ),
        (
            Protocol::NoSharedLock,
            "the owner knows every row that is not its own in flight",
        ),
        (
            Protocol::NoExclusiveLock,
            "the owner knows every row that is not its own in flight",
        ),
        (
            Protocol::LoadBeforeEpoch,
            "the owner knows every row that is not its own in flight",
        ),
        (Protocol::AnswerBeforeCommit, "an acknowledged result is durable"),
    ] {
        let any_failure = HasDiscoveries::AnyFailures;
        let checked = protocol
            .checker()
            .finish_when(any_failure)
            .threads(2)
            .spawn_bfs()
            .join();
        assert!(
            checked.discovery(broken).is_some(),
            "{protocol:?} keeps the promise that {broken}"
        );
    }
}
