//! The protocol of ownership and commit as a model, every interleaving of which is checked.
//!
//! Owns: what two nodes and one store may do to one queue: results, commits whose answer comes late or never, crashes, leases that run out
//! under a node that does not notice, take-overs. Never: checks the code; the conformance suite and the tests with real processes do.
//! Invariant: each step of the protocol that is left out lets the checker find a history that breaks a promise, so the check can fail.
#![allow(clippy::print_stderr, reason = "how much was checked is worth reading")]

mod state;

use state::{Action, Node, Phase, State, Taking, Write};
use stateright::{Checker, HasDiscoveries, Model, Property};

const NODES: usize = 2;
const TASKS: usize = 2;
const MOST_EPOCHS: u8 = 3;
const MOST_CRASHES: u8 = 1;
/// Connections that break while the store goes on with what it got.
const MOST_CUTS: u8 = 1;

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
    /// A writer whose shared lock is refused believes that it lost the queue, asks, and starts over under the epoch it had.
    RefusedIsFenced,
}

impl Protocol {
    fn write_actions(self, state: &State, node: usize, write: Write, actions: &mut Vec<Action>) {
        match write.phase {
            Phase::Begun => actions.push(Action::Lock { node }),
            Phase::Locked => actions.push(Action::Prove { node }),
            // Two inserts of one row: the later one waits for the transaction of the earlier.
            Phase::Proved if state.orphan_writes(write.task) => {}
            Phase::Proved => actions.push(Action::Commit { node }),
            Phase::Committed => actions.push(Action::Answer { node }),
        }
        if write.phase != Phase::Begun && state.cuts < MOST_CUTS {
            actions.push(Action::Cut { node });
        }
        debug_assert!(state.nodes[node].write.is_some());
    }

    fn lock(self, state: &mut State, node: usize) {
        let refused = self != Protocol::NoSharedLock && state.shared_lock_refused();
        match &mut state.nodes[node].write {
            Some(write) if !refused => write.phase = Phase::Locked,
            // Tried again later: nobody knows yet who will own the queue.
            _ if self != Protocol::RefusedIsFenced => {}
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
            if it.doubts == Some(state.epoch) && state.owner == Some(node) && it.taking == Taking::No {
                actions.push(Action::Reload { node });
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
                let write = state.nodes[node].write?;
                state.cuts += 1;
                state.orphans.extend(Some(write).filter(Write::holds_lock));
                state.nodes[node].write = Some(Write {
                    phase: Phase::Begun,
                    seen_at_start,
                    ..write
                });
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
            Action::Reload { node } => {
                state.nodes[node] = Node {
                    believes: state.nodes[node].doubts,
                    ledger: state.rows,
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
        (
            Protocol::RefusedIsFenced,
            "the owner knows every row that is not its own in flight",
        ),
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
