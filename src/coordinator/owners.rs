//! What this node knows of the others: who lives, where, and who owns which queue.
//!
//! Owns: the latest census. Never: believes it further than to choose whom to ask: the one that is asked knows for itself. Invariant: a
//! look that began earlier never replaces one that began later.

use super::shared::Shared;
use super::{CoordinatorError, Result};
use crate::store::Census;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Another node that is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    pub node: String,
    pub incarnation: String,
    /// Where it is reached; empty while it does not listen.
    pub address: String,
}

/// Who serves a queue, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// This node, in this or an older incarnation.
    Us,
    Other(Neighbour),
    /// The queue exists and nobody alive owns it.
    Nobody {
        busy: bool,
    },
    /// There is no such queue.
    Unknown,
}

#[derive(Default)]
struct Known {
    census: Census,
    /// Place of each queue in the census.
    queues: HashMap<String, usize>,
    began: Option<Instant>,
}

pub(super) struct Owners {
    known: RwLock<Arc<Known>>,
    looking: tokio::sync::Mutex<()>,
    /// Grows when the set of living nodes, or an owner, is another.
    version: watch::Sender<u64>,
}

impl Default for Owners {
    fn default() -> Self {
        Owners {
            known: RwLock::default(),
            looking: tokio::sync::Mutex::default(),
            version: watch::Sender::new(0),
        }
    }
}

impl Owners {
    fn known(&self) -> Arc<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks again, unless somebody has begun a look since `asked`. Callers that come together share one look.
    pub(super) async fn look(&self, shared: &Shared, asked: Instant) -> Result<()> {
        let _turn = self.looking.lock().await;
        if self.known().began.is_some_and(|began| began >= asked) {
            return Ok(());
        }
        let began = Instant::now();
        let looked = tokio::time::timeout(shared.settings.store_wait, shared.store.census()).await;
        let census = looked.map_err(|_| CoordinatorError::StoreUnavailable)??;
        let queues = census.queues.iter().enumerate();
        let queues = queues.map(|(place, queue)| (queue.queue.clone(), place)).collect();
        let before = self.known();
        let moved = differs(&before.census, &census);
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Known {
            census,
            queues,
            began: Some(began),
        });
        if moved {
            self.version.send_modify(|version| *version += 1);
        }
        Ok(())
    }

    /// Looks again if what is known is older than this.
    pub(super) async fn look_if_older(&self, shared: &Shared, age: Duration) -> Result<()> {
        match Instant::now().checked_sub(age) {
            Some(asked) => self.look(shared, asked).await,
            None => Ok(()),
        }
    }

    pub(super) fn census(&self) -> Census {
        self.known().census.clone()
    }

    pub(super) fn owner(&self, queue: &str, us: &str) -> Owner {
        let known = self.known();
        let Some(found) = known.queues.get(queue).map(|place| &known.census.queues[*place]) else {
            return Owner::Unknown;
        };
        match &found.node {
            None => Owner::Nobody { busy: found.busy },
            Some(node) if node == us => Owner::Us,
            // An owner that is alive and not listed has died between two statements.
            Some(node) => known
                .neighbour(node)
                .map_or(Owner::Nobody { busy: found.busy }, Owner::Other),
        }
    }

    pub(super) fn neighbour(&self, node: &str) -> Option<Neighbour> {
        self.known().neighbour(node)
    }

    /// The other living nodes, by name.
    pub(super) fn neighbours(&self, us: &str) -> Vec<Neighbour> {
        let known = self.known();
        let others = known.census.nodes.iter().filter(|node| node.node != us);
        others.filter_map(|node| known.neighbour(&node.node)).collect()
    }

    /// Who should take a queue that nobody owns: of those that take queues the one with the fewest; ourselves if others have as many. None:
    /// only we could.
    pub(super) fn taker(&self, us: &str) -> Option<Neighbour> {
        let known = self.known();
        let load = |node: &str| {
            let owned = known
                .census
                .queues
                .iter()
                .filter(|queue| queue.node.as_deref() == Some(node));
            owned.count()
        };
        let takes = |node: &&crate::store::LivingNode| !node.draining && !node.address.is_empty() && node.node != us;
        let others = known.census.nodes.iter().filter(takes);
        let best = others.min_by_key(|node| (load(&node.node), node.node.clone()))?;
        let we_take = known.census.nodes.iter().any(|node| node.node == us && !node.draining);
        if we_take && load(us) <= load(&best.node) {
            return None;
        }
        known.neighbour(&best.node)
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

impl Known {
    fn neighbour(&self, node: &str) -> Option<Neighbour> {
        let found = self.census.nodes.iter().find(|living| living.node == node)?;
        Some(Neighbour {
            node: found.node.clone(),
            incarnation: found.incarnation.clone(),
            address: found.address.clone(),
        })
    }
}

fn differs(before: &Census, now: &Census) -> bool {
    let nodes = |census: &Census| -> Vec<(String, String, String)> {
        let nodes = census.nodes.iter();
        nodes
            .map(|node| (node.node.clone(), node.incarnation.clone(), node.address.clone()))
            .collect()
    };
    let owners = |census: &Census| -> Vec<(i32, i64, Option<String>)> {
        let queues = census.queues.iter();
        queues
            .map(|queue| (queue.id.0, queue.epoch.0, queue.node.clone()))
            .collect()
    };
    nodes(before) != nodes(now) || owners(before) != owners(now)
}
