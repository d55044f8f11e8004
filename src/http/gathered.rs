//! Lists put together from what several nodes say.
//!
//! Owns: asking the others, and whose word counts for what. Never: waits for a node longer than a list is worth. Invariant: of a queue and
//! its jobs the owner's word counts; a node that gives none is left out, as it is when it has just died.

use super::auth::Caller;
use super::state::AppState;
use super::wire;
use crate::coordinator::Neighbour;
use futures_util::future::join_all;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest wait for another node's part of a list.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the other nodes said.
pub struct Gathered<T> {
    pub parts: Vec<(Neighbour, T)>,
    /// Nodes that said nothing.
    pub missing: usize,
}

/// What every other node answers to this GET on behalf of a caller.
pub async fn from_others<T: DeserializeOwned>(state: &AppState, caller: &Caller, target: &str) -> Gathered<T> {
    let (neighbours, coordinator) = (state.neighbours(), state.coordinator());
    let asking = coordinator.neighbours().into_iter().map(|node| async move {
        let question = ("GET", target);
        let answer = neighbours.ask(
            coordinator,
            &node,
            question,
            caller.token_id(),
            None::<&()>,
            Duration::ZERO,
        );
        let said = tokio::time::timeout(PATIENCE, answer).await;
        match said {
            Ok(Ok(said)) => Some((node, said)),
            _ => {
                tracing::debug!(node = %node.node, target, "another node's part of a list is missing");
                None
            }
        }
    });
    let said = join_all(asking).await;
    let asked = said.len();
    let parts: Vec<_> = said.into_iter().flatten().collect();
    Gathered {
        missing: asked - parts.len(),
        parts,
    }
}

/// Live views of jobs that others own, in the place of what their rows say.
pub fn jobs(items: &mut [wire::Job], others: Vec<(Neighbour, wire::JobList)>) {
    for (node, list) in others {
        for theirs in list
            .items
            .into_iter()
            .filter(|job| job.node.as_deref() == Some(node.node.as_str()))
        {
            if let Some(item) = items.iter_mut().find(|item| item.id == theirs.id) {
                *item = theirs;
            }
        }
    }
}

/// Queues with what their owners know of them.
pub fn queues(items: &mut [wire::Queue], others: Vec<(Neighbour, wire::QueueList)>) {
    for (node, list) in others {
        for theirs in list.items {
            let Some(item) = items.iter_mut().find(|item| item.queue == theirs.queue) else {
                continue;
            };
            // Workers ask any node; the owner hears of all that get as far as the queue.
            item.last_polled = item.last_polled.max(theirs.last_polled);
            if theirs.node.as_deref() == Some(node.node.as_str()) {
                *item = wire::Queue {
                    last_polled: item.last_polled,
                    ..theirs
                };
            }
        }
    }
}

/// Workers as all nodes together have seen them, by name.
pub fn workers(items: Vec<wire::Worker>, others: Vec<(Neighbour, wire::WorkerList)>) -> Vec<wire::Worker> {
    let mut known: BTreeMap<String, wire::Worker> = BTreeMap::new();
    let theirs = others.into_iter().flat_map(|(_, list)| list.items);
    for worker in items.into_iter().chain(theirs) {
        match known.get_mut(&worker.worker) {
            Some(seen) => add(seen, worker),
            None => drop(known.insert(worker.worker.clone(), worker)),
        }
    }
    known.into_values().collect()
}

fn add(seen: &mut wire::Worker, more: wire::Worker) {
    seen.alive |= more.alive;
    seen.waiting |= more.waiting;
    seen.queues.extend(more.queues);
    seen.queues.sort_unstable();
    seen.queues.dedup();
    seen.first_seen = seen.first_seen.min(more.first_seen);
    seen.last_seen = seen.last_seen.max(more.last_seen);
    seen.held += more.held;
    seen.holds.extend(more.holds);
    seen.holds.sort_unstable_by_key(|holding| holding.job);
    seen.done += more.done;
    seen.failed += more.failed;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::UnixMs;

    fn worker(queues: &[&str], seen: i64, held: u32) -> wire::Worker {
        wire::Worker {
            worker: "w".into(),
            alive: held > 0,
            waiting: false,
            queues: queues.iter().map(|&queue| queue.to_owned()).collect(),
            first_seen: UnixMs(seen).into(),
            last_seen: UnixMs(seen).into(),
            held,
            holds: Vec::new(),
            done: 1,
            failed: 2,
        }
    }

    fn node(name: &str) -> Neighbour {
        Neighbour {
            node: name.into(),
            incarnation: "1".into(),
            address: String::new(),
        }
    }

    #[test]
    fn fm41_a_worker_of_two_nodes_is_one_worker() {
        let others = vec![(
            node("b"),
            wire::WorkerList {
                items: vec![worker(&["y", "x"], 5, 3)],
            },
        )];
        let found = workers(vec![worker(&["x"], 7, 0)], others);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].queues, ["x", "y"]);
        assert_eq!(
            (found[0].alive, found[0].held, found[0].done, found[0].failed),
            (true, 3, 2, 4)
        );
        assert_eq!(
            (found[0].first_seen, found[0].last_seen),
            (UnixMs(5).into(), UnixMs(7).into())
        );
    }
}
