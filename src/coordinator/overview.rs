//! What people ask of a whole node: workers, queues, and why a job is not done.
//!
//! Owns: putting together what actors, sightings and the store know. Never: changes anything. Invariant: what lies outside the queues that
//! the caller may see is left out, and every wait ends.

use super::api::*;
use super::directory::{JobHandle, Lane};
use super::job_actor::{Answer, Request};
use super::queue_actor::CountParked;
use super::{Coordinator, Result, outbox};
use crate::domain::failures::Groups;
use crate::domain::ids::{JobId, UnixMs};
use crate::domain::ledger::Hint;
use crate::domain::state::State;
use crate::store::{NodeRow, SpentAttempt};
use futures_util::StreamExt;
use futures_util::stream;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Jobs asked at the same time.
const ASKED_AT_ONCE: usize = 64;
/// Failures read to group them, and the characters of their errors.
const FAILURES_READ: u32 = 10_000;
const ERROR_CHARS: u32 = 512;
const GROUPS_SHOWN: usize = 50;
/// A queue that was asked by nobody for so long has no workers worth waiting for.
const UNASKED_AFTER_MS: i64 = 60_000;

impl Coordinator {
    /// Workers that were seen in queues that `sees` lets through, and if `sees_all` those that were seen in none, by name.
    pub async fn workers(&self, sees: impl Fn(&str) -> bool, sees_all: bool) -> Result<Vec<WorkerView>> {
        let mut holds: HashMap<Arc<str>, Vec<(JobId, u32)>> = HashMap::new();
        for (job, queue, standing) in self.standings().await {
            for (worker, tasks) in standing.holders {
                if sees(&queue) {
                    holds.entry(worker).or_default().push((job, tasks));
                }
            }
        }
        let alive_since = self.alive_since();
        let mut views = Vec::new();
        for (worker, sighting) in self.shared.sightings.all() {
            let seen: Vec<_> = sighting.queues.iter().filter(|(queue, _)| sees(queue)).collect();
            if seen.is_empty() && !sees_all {
                continue;
            }
            let elsewhere = sighting.elsewhere;
            let first = seen.iter().map(|(_, seen)| seen.first_seen);
            let last = seen.iter().map(|(_, seen)| seen.last_seen);
            let (Some(first_seen), Some(last_seen)) = (
                first.chain(elsewhere.map(|(first, _)| first)).min(),
                last.chain(elsewhere.map(|(_, last)| last)).max(),
            ) else {
                continue;
            };
            let mut holding = holds.remove(&worker).unwrap_or_default();
            holding.sort_unstable();
            views.push(WorkerView {
                alive: sighting.waiting > 0 || last_seen >= alive_since,
                waiting: sighting.waiting > 0,
                queues: seen.iter().map(|(queue, _)| queue.to_string()).collect(),
                first_seen,
                last_seen,
                holds: holding,
                done: seen.iter().map(|(_, seen)| seen.done).sum(),
                failed: seen.iter().map(|(_, seen)| seen.failed).sum(),
                worker,
            });
        }
        views.sort_by(|a, b| a.worker.cmp(&b.worker));
        Ok(views)
    }

    fn alive_since(&self) -> UnixMs {
        let alive_ms = i64::from(self.shared.settings.worker_alive_s) * 1000;
        UnixMs(self.now().0 - alive_ms)
    }

    /// Queues that `sees` lets through, by name.
    pub async fn queues(&self, sees: impl Fn(&str) -> bool) -> Result<Vec<QueueView>> {
        let rows = self.within_store_wait(self.shared.store.list_queues()).await??;
        let mut claimable: HashMap<Arc<str>, u64> = HashMap::new();
        for (_, queue, standing) in self.standings().await {
            *claimable.entry(queue).or_default() += u64::from(standing.claimable);
        }
        let alive_since = self.alive_since();
        let mut alive: HashMap<Arc<str>, u32> = HashMap::new();
        for (_, sighting) in self.shared.sightings.all() {
            for (queue, seen) in sighting.queues {
                if sighting.waiting > 0 || seen.last_seen >= alive_since {
                    *alive.entry(queue).or_default() += 1;
                }
            }
        }
        let mut views = Vec::new();
        for row in rows.into_iter().filter(|row| sees(&row.queue)) {
            let parked = match self.shared.directory.queue(&row.queue) {
                Some(handle) => self
                    .within_store_wait(handle.addr.send(CountParked))
                    .await?
                    .unwrap_or(0),
                None => 0,
            };
            let name = row.queue.as_str();
            views.push(QueueView {
                claimable: claimable.get(name).copied().unwrap_or(0),
                parked,
                workers_alive: alive.get(name).copied().unwrap_or(0),
                last_polled: self.shared.sightings.last_polled(name),
                jobs: row.jobs.iter().copied().collect::<BTreeMap<State, u64>>(),
                node: row.node,
                epoch: row.epoch,
                queue: row.queue,
            });
        }
        Ok(views)
    }

    pub async fn nodes(&self) -> Result<Vec<NodeRow>> {
        Ok(self.within_store_wait(self.shared.store.list_nodes()).await??)
    }

    /// Where every job in memory stands; one that does not answer is left out.
    async fn standings(&self) -> Vec<(JobId, Arc<str>, JobStanding)> {
        let ask = |(job, handle): (JobId, JobHandle)| async move {
            match self.ask(&handle, Lane::Controls, Request::Standing).await {
                Ok(Answer::Standing(standing)) => Some((job, handle.queue, standing)),
                _ => None,
            }
        };
        let answers = stream::iter(self.shared.directory.jobs().into_iter().map(ask));
        answers
            .buffer_unordered(ASKED_AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await
    }

    /// Why a job is not done: what it waits for, and its undecided tasks, at most so many.
    pub async fn explain(&self, job: JobId, limit: u32) -> Result<Explanation> {
        let Answer::Explained(mut told) = self.ask_job(job, Lane::Controls, Request::Explain { limit }).await? else {
            return Err(CoordinatorError::Internal(
                "an actor gave an answer of another kind".into(),
            ));
        };
        if !self.shared.is_store_up() {
            let words = "the store does not answer; nothing is committed until it does";
            told.waits_for.insert(0, Hint::new("store_unavailable", words));
        }
        if told.waits_for.iter().any(|hint| hint.code == "claimable") {
            told.waits_for.extend(self.unasked(&told.view.record.queue));
        }
        let record = &told.view.record;
        if record.state.is_final() && record.callback_url.is_some() {
            let last = self
                .callbacks(job, 1)
                .await?
                .into_iter()
                .find(|row| row.run == record.run);
            let unheard = last.as_ref().and_then(outbox::unheard);
            told.waits_for
                .extend(unheard.map(|(code, words)| Hint::new(code, words)));
        }
        let tried = told.undecided.iter().filter(|about| about.spent > 0);
        let tried: Vec<_> = tried.map(|about| about.task).collect();
        if !tried.is_empty() {
            let run = told.view.record.run;
            let found = self
                .within_store_wait(self.shared.store.last_attempts(job, run, &tried))
                .await??;
            told.last_attempts = found.into_iter().map(|row: SpentAttempt| (row.task, row)).collect();
        }
        let tasks: Vec<_> = told.undecided.iter().map(|about| about.task).collect();
        told.keys = self.keys_of(job, tasks).await?;
        Ok(*told)
    }

    /// Says so if nobody has asked this queue for work lately.
    fn unasked(&self, queue: &str) -> Option<Hint> {
        let words = match self.shared.sightings.last_polled(queue) {
            None => format!("no worker has asked queue {queue:?} since this node started"),
            Some(at) => {
                let silent_ms = self.now().0 - at.0;
                if silent_ms < UNASKED_AFTER_MS {
                    return None;
                }
                format!("no worker has asked queue {queue:?} for {} s", silent_ms / 1000)
            }
        };
        Some(Hint::new("no_workers", words))
    }

    /// Tasks of the current run that failed for good, grouped by error.
    pub async fn failures(&self, job: JobId) -> Result<Failures> {
        let record = self.job(job).await?.record;
        let reading = self.shared.store.failures(job, record.run, FAILURES_READ, ERROR_CHARS);
        let rows = self.within_store_wait(reading).await??;
        let mut groups = Groups::default();
        for row in &rows {
            groups.add(row.task, &row.error, row.at);
        }
        let (groups, other) = groups.finish(GROUPS_SHOWN);
        Ok(Failures {
            groups,
            other,
            complete: rows.len() < FAILURES_READ as usize,
        })
    }
}
