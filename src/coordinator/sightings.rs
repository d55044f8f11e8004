//! Which workers were seen, where, and when.
//!
//! Owns: signs of life, in memory only. Never: writes one to the store, or decides who gets work. Invariant: every call of a worker is a sign
//! of life, a call that waits is one for as long as it waits, and the map is bounded.

use crate::domain::ids::UnixMs;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Queues remembered per worker.
const QUEUES_KEPT: usize = 64;
/// Queues whose last poll is remembered.
const POLLED_KEPT: usize = 10_000;

/// What a worker did in one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InQueue {
    pub(super) first_seen: UnixMs,
    pub(super) last_seen: UnixMs,
    pub(super) done: u64,
    pub(super) failed: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Sighting {
    pub(super) queues: BTreeMap<Arc<str>, InQueue>,
    /// Its first and its last call that were about no queue.
    pub(super) elsewhere: Option<(UnixMs, UnixMs)>,
    /// Calls that wait for work right now.
    pub(super) waiting: u32,
}

impl Sighting {
    fn last_seen(&self) -> UnixMs {
        let seen = self.queues.values().map(|queue| queue.last_seen);
        let elsewhere = self.elsewhere.map(|(_, last)| last);
        seen.chain(elsewhere).max().unwrap_or(UnixMs(0))
    }
}

pub(super) struct Sightings {
    workers: Mutex<HashMap<Arc<str>, Sighting>>,
    /// When a queue was last asked for work.
    polled: Mutex<HashMap<Arc<str>, UnixMs>>,
    kept: usize,
}

impl Sightings {
    pub(super) fn new(kept: usize) -> Sightings {
        Sightings {
            workers: Mutex::default(),
            polled: Mutex::default(),
            kept: kept.max(1),
        }
    }

    fn workers(&self) -> MutexGuard<'_, HashMap<Arc<str>, Sighting>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker has made a call that concerns this queue.
    pub(super) fn see(&self, worker: &Arc<str>, queue: &Arc<str>, now: UnixMs) {
        self.count(worker, queue, 0, 0, now);
    }

    /// A worker has made a call that concerns no queue, or none that is known.
    pub(super) fn see_elsewhere(&self, worker: &Arc<str>, now: UnixMs) {
        let mut workers = self.workers();
        let elsewhere = &mut self.sighting(&mut workers, worker).elsewhere;
        let (first, last) = elsewhere.unwrap_or((now, now));
        *elsewhere = Some((first, last.max(now)));
    }

    fn sighting<'a>(&self, workers: &'a mut HashMap<Arc<str>, Sighting>, worker: &Arc<str>) -> &'a mut Sighting {
        if workers.len() >= self.kept && !workers.contains_key(worker) {
            forget_oldest(workers);
        }
        workers.entry(worker.clone()).or_default()
    }

    /// A worker has reported so many tasks of this queue done and failed.
    pub(super) fn count(&self, worker: &Arc<str>, queue: &Arc<str>, done: u64, failed: u64, now: UnixMs) {
        let mut workers = self.workers();
        let sighting = self.sighting(&mut workers, worker);
        if sighting.queues.len() >= QUEUES_KEPT && !sighting.queues.contains_key(queue) {
            let oldest = sighting.queues.iter().min_by_key(|(_, seen)| seen.last_seen);
            if let Some(oldest) = oldest.map(|(queue, _)| queue.clone()) {
                sighting.queues.remove(&oldest);
            }
        }
        let seen = sighting.queues.entry(queue.clone()).or_insert(InQueue {
            first_seen: now,
            last_seen: now,
            done: 0,
            failed: 0,
        });
        seen.last_seen = seen.last_seen.max(now);
        seen.done += done;
        seen.failed += failed;
    }

    /// A worker asks these queues for work, and may wait: it is alive until the answer drops.
    pub(super) fn asks(&self, worker: &Arc<str>, queues: &[String], now: UnixMs) -> Asking<'_> {
        let queues: Vec<Arc<str>> = queues.iter().map(|queue| Arc::from(queue.as_str())).collect();
        queues.iter().for_each(|queue| self.see(worker, queue, now));
        if queues.is_empty() {
            self.see_elsewhere(worker, now);
        }
        self.note_polled(&queues, now);
        if let Some(sighting) = self.workers().get_mut(worker) {
            sighting.waiting += 1;
        }
        Asking {
            sightings: self,
            worker: worker.clone(),
        }
    }

    pub(super) fn note_polled(&self, queues: &[Arc<str>], now: UnixMs) {
        let mut polled = self.polled.lock().unwrap_or_else(PoisonError::into_inner);
        if polled.len() > POLLED_KEPT {
            polled.clear();
        }
        polled.extend(queues.iter().map(|queue| (queue.clone(), now)));
    }

    /// When this queue was last asked for work; none: not since the node started.
    pub(super) fn last_polled(&self, queue: &str) -> Option<UnixMs> {
        let polled = self.polled.lock().unwrap_or_else(PoisonError::into_inner);
        polled.get(queue).copied()
    }

    pub(super) fn all(&self) -> Vec<(Arc<str>, Sighting)> {
        let workers = self.workers();
        workers
            .iter()
            .map(|(name, sighting)| (name.clone(), sighting.clone()))
            .collect()
    }
}

/// Makes room by forgetting the quarter that was seen longest ago, waiting ones aside.
fn forget_oldest(workers: &mut HashMap<Arc<str>, Sighting>) {
    let mut seen: Vec<UnixMs> = workers.values().map(Sighting::last_seen).collect();
    seen.sort_unstable();
    let limit = seen[seen.len() / 4];
    workers.retain(|_, sighting| sighting.waiting > 0 || sighting.last_seen() > limit);
}

/// A call that asks for work.
pub(super) struct Asking<'a> {
    sightings: &'a Sightings,
    worker: Arc<str>,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Some(sighting) = self.sightings.workers().get_mut(&self.worker) {
            sighting.waiting = sighting.waiting.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fm41_a_worker_that_only_waits_is_alive_and_is_nobody_else() {
        let sightings = Sightings::new(10);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let asking = sightings.asks(&a, &["q".to_owned()], UnixMs(1));
        sightings.see(&b, &"q".into(), UnixMs(5));
        let of = |name: &str| {
            sightings
                .all()
                .into_iter()
                .find(|(found, _)| &**found == name)
                .unwrap()
                .1
        };
        assert_eq!((of("a").waiting, of("b").waiting), (1, 0));
        drop(asking);
        assert_eq!(
            (of("a").waiting, of("a").last_seen(), of("b").last_seen()),
            (0, UnixMs(1), UnixMs(5))
        );
        assert_eq!(sightings.last_polled("q"), Some(UnixMs(1)));
    }

    #[test]
    fn fm41_a_call_about_no_queue_is_a_sign_of_life() {
        let sightings = Sightings::new(8);
        let worker: Arc<str> = "w".into();
        let asking = sightings.asks(&worker, &[], UnixMs(3));
        sightings.see_elsewhere(&worker, UnixMs(7));
        let seen = sightings.all().remove(0).1;
        assert_eq!((seen.waiting, seen.elsewhere), (1, Some((UnixMs(3), UnixMs(7)))));
        drop(asking);
        for n in 0..100 {
            sightings.see_elsewhere(&format!("w{n}").into(), UnixMs(n));
        }
        assert!(sightings.all().len() <= 8);
    }

    #[test]
    fn fm40_sightings_are_bounded_and_the_oldest_go_first() {
        let sightings = Sightings::new(8);
        let waiting = sightings.asks(&"w".into(), &["q".to_owned()], UnixMs(0));
        for n in 1..100 {
            sightings.see(&format!("w{n}").into(), &"q".into(), UnixMs(n));
        }
        let names: Vec<String> = sightings.all().into_iter().map(|(name, _)| name.to_string()).collect();
        assert!(names.len() <= 8, "{names:?}");
        assert!(
            names.contains(&"w99".to_owned()) && names.contains(&"w".to_owned()),
            "{names:?}"
        );
        for n in 0..200 {
            sightings.see(&"w".into(), &format!("q{n}").into(), UnixMs(200 + n));
        }
        let all = sightings.all();
        let worker = all.iter().find(|(name, _)| &**name == "w").unwrap();
        assert_eq!(worker.1.queues.len(), QUEUES_KEPT);
        drop(waiting);
    }
}
