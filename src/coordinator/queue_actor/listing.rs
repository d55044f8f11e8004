//! Looking at a queue's rotation, and turns that were taken without the queue.
//!
//! Owns: what is told of the order. Never: moves a job in it for being looked at. Invariant: a job that was given work goes behind its
//! equals, whichever way the worker came.

use super::QueueActor;
use crate::coordinator::directory::JobHandle;
use crate::domain::ids::JobId;
use crate::domain::rotation::Place;
use actix::prelude::*;

/// The first so many jobs that have work.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "Listed")]
pub(in crate::coordinator) struct ListClaimable(pub(in crate::coordinator) usize);

pub(in crate::coordinator) struct Listed {
    pub(in crate::coordinator) jobs: Vec<Place>,
    /// Jobs of which it is not known yet.
    pub(in crate::coordinator) loading: Vec<JobHandle>,
}

/// A caller that named the job was given work of it.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub(in crate::coordinator) struct Served(pub(in crate::coordinator) JobId);

impl Handler<ListClaimable> for QueueActor {
    type Result = MessageResult<ListClaimable>;

    fn handle(&mut self, ListClaimable(most): ListClaimable, _: &mut Self::Context) -> Self::Result {
        let loading = self.loading.iter().filter_map(|job| self.jobs.get(job).cloned());
        MessageResult(Listed {
            jobs: self.rotation.places().take(most).collect(),
            loading: loading.collect(),
        })
    }
}

impl Handler<Served> for QueueActor {
    type Result = ();

    fn handle(&mut self, Served(job): Served, _: &mut Self::Context) {
        if self.jobs.contains_key(&job) {
            self.rotation.served(job, self.shared.next_serving());
            self.publish_head();
        }
    }
}
