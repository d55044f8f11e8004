//! Which jobs have work, in the order in which they would be served.
//!
//! Owns: merging the rotations of several queues. Never: serves a job, so that looking changes nothing. Invariant: what is listed is what the
//! rotations hold, which is what can be leased.

use super::api::ClaimableJob;
use super::directory::{JobHandle, Lane, QueueHandle};
use super::job_actor::Request;
use super::queue_actor::{ListClaimable, Listed};
use super::{Coordinator, Result};
use crate::domain::rotation::Place;
use futures_util::future::join_all;
use std::cmp::Reverse;
use std::sync::Arc;

/// Jobs that are being loaded for which one list waits.
const LOADING_WAITED_FOR: usize = 64;

impl Coordinator {
    /// A worker asks these queues for work without taking any: a sign of its life, and of theirs.
    pub fn note_asking(&self, worker: &Arc<str>, queues: &[String]) {
        drop(self.shared.sightings.asks(worker, queues, self.now()));
    }

    /// A worker has made a call about these queues, or about none: a sign of its life.
    pub fn note_calling(&self, worker: &Arc<str>, queues: &[&str]) {
        let (sightings, now) = (&self.shared.sightings, self.now());
        match queues {
            [] => sightings.see_elsewhere(worker, now),
            queues => queues
                .iter()
                .for_each(|&queue| sightings.see(worker, &queue.into(), now)),
        }
    }

    /// The names of the queues that this node serves.
    pub fn served_queues(&self) -> Vec<String> {
        let handles = self.shared.directory.queues();
        handles.iter().map(|queue| queue.name.to_string()).collect()
    }

    /// At most so many jobs of these queues that have work, the one to be served next first.
    pub async fn claimable_jobs(&self, queues: &[String], limit: usize) -> Result<Vec<ClaimableJob>> {
        self.refuse_when_draining()?;
        self.shared.check_term()?;
        let known = queues.iter().filter_map(|queue| self.shared.directory.queue(queue));
        let mut handles: Vec<QueueHandle> = known.collect();
        handles.sort_by_key(|queue| queue.id);
        handles.dedup_by_key(|queue| queue.id);
        let (mut found, loading) = self.list_in(&handles, limit).await?;
        if found.len() < limit && !loading.is_empty() {
            // What a job that is being loaded has will be known in a moment; a job that was just created would be missed else.
            let asked = loading.iter().take(LOADING_WAITED_FOR);
            join_all(asked.map(|job| self.ask(job, Lane::Controls, Request::Standing))).await;
            found = self.list_in(&handles, limit).await?.0;
        }
        // Once more after the looks: a node that slept meanwhile shows none of the rotations it had.
        self.shared.check_term()?;
        Ok(found)
    }

    async fn list_in(&self, queues: &[QueueHandle], limit: usize) -> Result<(Vec<ClaimableJob>, Vec<JobHandle>)> {
        let (mut places, mut loading): (Vec<(Place, Arc<str>)>, Vec<JobHandle>) = (Vec::new(), Vec::new());
        for queue in queues {
            // A mailbox that closed is a queue that has moved away: nothing of it is served here.
            if let Ok(Listed { jobs, loading: more }) =
                self.within_store_wait(queue.addr.send(ListClaimable(limit))).await?
            {
                places.extend(jobs.into_iter().map(|place| (place, queue.name.clone())));
                loading.extend(more);
            }
        }
        places.sort_unstable_by_key(|&(place, _)| place);
        let shown = places.into_iter().take(limit);
        let jobs = shown
            .map(|((Reverse(priority), _, id), queue)| ClaimableJob { id, queue, priority })
            .collect();
        Ok((jobs, loading))
    }

    /// Makes sure that there is such a queue; false if there was one.
    pub async fn make_queue(&self, queue: &str) -> Result<bool> {
        self.refuse_when_draining()?;
        if self.shared.directory.queue(queue).is_some() {
            return Ok(false);
        }
        let rows = self.within_store_wait(self.shared.store.list_queues()).await??;
        if rows.iter().any(|row| row.queue == queue) {
            // Whoever owns it, or will when it has work.
            return Ok(false);
        }
        self.own_queue(queue).await?;
        Ok(true)
    }
}
