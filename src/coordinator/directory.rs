//! Who is where: the actors of this node, and the permits that bound their mailboxes.
//!
//! Owns: the maps from queue and job to actor. Never: starts or stops an actor. Invariant: a job's permits together are fewer than its
//! actor's mailbox holds, so the committer's answers and ticks always fit.

use super::Settings;
use super::job_actor::JobActor;
use super::queue_actor::QueueActor;
use crate::domain::ids::{JobId, QueueId};
use actix::Addr;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Queues of jobs remembered to save a look into the store.
const QUEUES_OF_JOBS_KEPT: usize = 100_000;

/// The right to one unanswered request; given back when the request is forgotten.
pub(super) type Permit = OwnedSemaphorePermit;

/// Which bound a request counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Results,
    Leases,
    Controls,
}

/// An active job.
#[derive(Clone)]
pub(super) struct JobHandle {
    pub(super) addr: Addr<JobActor>,
    pub(super) queue: Arc<str>,
    results: Arc<Semaphore>,
    leases: Arc<Semaphore>,
    controls: Arc<Semaphore>,
}

impl JobHandle {
    pub(super) fn new(addr: Addr<JobActor>, queue: Arc<str>, settings: &Settings) -> JobHandle {
        JobHandle {
            addr,
            queue,
            results: Arc::new(Semaphore::new(settings.result_permits)),
            leases: Arc::new(Semaphore::new(settings.lease_permits)),
            controls: Arc::new(Semaphore::new(settings.control_permits)),
        }
    }

    /// A permit of the lane, unless all are taken.
    pub(super) fn permit(&self, lane: Lane) -> Option<Permit> {
        self.semaphore(lane).clone().try_acquire_owned().ok()
    }

    /// A permit of the lane, after those who asked before.
    pub(super) async fn permit_in_turn(&self, lane: Lane) -> Permit {
        let permit = self.semaphore(lane).clone().acquire_owned().await;
        permit.expect("no lane is ever closed")
    }

    fn semaphore(&self, lane: Lane) -> &Arc<Semaphore> {
        match lane {
            Lane::Results => &self.results,
            Lane::Leases => &self.leases,
            Lane::Controls => &self.controls,
        }
    }
}

/// Priority and last serving of a queue's next job.
pub(super) type HeadRank = Option<(Reverse<i32>, u64)>;

/// A queue this node owns.
#[derive(Clone)]
pub(super) struct QueueHandle {
    pub(super) name: Arc<str>,
    pub(super) id: QueueId,
    pub(super) addr: Addr<QueueActor>,
    head: Arc<Mutex<HeadRank>>,
}

impl QueueHandle {
    pub(super) fn new(name: Arc<str>, id: QueueId, addr: Addr<QueueActor>, head: Arc<Mutex<HeadRank>>) -> QueueHandle {
        QueueHandle { name, id, addr, head }
    }

    pub(super) fn head(&self) -> HeadRank {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
pub(super) struct Directory {
    jobs: RwLock<HashMap<JobId, JobHandle>>,
    queues: RwLock<HashMap<Arc<str>, QueueHandle>>,
    queues_of_jobs: Mutex<HashMap<JobId, Arc<str>>>,
    /// Signalled when a queue is entered.
    pub(super) entered: Notify,
    /// Queues that are being handed over.
    leaving: Mutex<HashSet<Arc<str>>>,
    /// Signalled when one of them has left.
    has_left: Notify,
}

impl Directory {
    pub(super) fn job(&self, job: JobId) -> Option<JobHandle> {
        self.jobs
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&job)
            .cloned()
    }

    pub(super) fn jobs(&self) -> Vec<(JobId, JobHandle)> {
        let jobs = self.jobs.read().unwrap_or_else(PoisonError::into_inner);
        jobs.iter().map(|(&id, handle)| (id, handle.clone())).collect()
    }

    pub(super) fn enter_job(&self, job: JobId, handle: JobHandle) {
        self.jobs
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(job, handle);
    }

    /// Removes a job if it is still this actor's.
    pub(super) fn leave_job(&self, job: JobId, addr: &Addr<JobActor>) {
        let mut jobs = self.jobs.write().unwrap_or_else(PoisonError::into_inner);
        if jobs.get(&job).is_some_and(|handle| handle.addr == *addr) {
            jobs.remove(&job);
        }
    }

    pub(super) fn queue(&self, queue: &str) -> Option<QueueHandle> {
        self.queues
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(queue)
            .cloned()
    }

    pub(super) fn queues(&self) -> Vec<QueueHandle> {
        self.queues
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    pub(super) fn enter_queue(&self, handle: QueueHandle) {
        self.queues
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(handle.name.clone(), handle);
        self.entered.notify_waiters();
    }

    /// Removes a queue if it is still this actor's; answers whether it was.
    pub(super) fn leave_queue(&self, queue: &str, addr: &Addr<QueueActor>) -> bool {
        let mut queues = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        let is_theirs = queues.get(queue).is_some_and(|handle| handle.addr == *addr);
        if is_theirs {
            queues.remove(queue);
        }
        is_theirs
    }

    /// The queue has been handed over, or given up.
    pub(super) fn end_leaving(&self, queue: &str) {
        self.leaving().remove(queue);
        self.has_left.notify_waiters();
    }

    fn leaving(&self) -> MutexGuard<'_, HashSet<Arc<str>>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue is found no more; whoever asks for it waits until it has left.
    pub(super) fn begin_leaving(&self, queue: &Arc<str>) {
        self.leaving().insert(queue.clone());
        self.queues
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(queue);
    }

    pub(super) fn is_leaving(&self, queue: &str) -> bool {
        self.leaving().contains(queue)
    }

    /// Waits until a queue is not leaving any more. The caller bounds the wait.
    pub(super) async fn left(&self, queue: &str) {
        loop {
            let mut left = std::pin::pin!(self.has_left.notified());
            left.as_mut().enable();
            if !self.is_leaving(queue) {
                return;
            }
            left.await;
        }
    }

    /// The queue of a job, if it is known without asking the store.
    pub(super) fn queue_of(&self, job: JobId) -> Option<Arc<str>> {
        if let Some(handle) = self.job(job) {
            return Some(handle.queue);
        }
        self.queues_of_jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&job)
            .cloned()
    }

    /// The job is gone.
    pub(super) fn forget_queue_of(&self, job: JobId) {
        let mut known = self.queues_of_jobs.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(&job);
    }

    /// Remembers a job's queue, which never changes.
    pub(super) fn note_queue_of(&self, job: JobId, queue: Arc<str>) {
        let mut known = self.queues_of_jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= QUEUES_OF_JOBS_KEPT {
            known.clear();
        }
        known.insert(job, queue);
    }
}
