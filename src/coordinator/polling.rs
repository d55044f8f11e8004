//! Asking any of some queues of this node for work.
//!
//! Owns: the order in which queues are asked, and waiting in all of them at once. Never: chooses among a queue's jobs (the rotation does).
//! Invariant: a call ends by its deadline, and an answer without tasks means that there was no work, not that something failed.

use super::api::*;
use super::awaited::Awaited;
use super::directory::{Lane, Permit};
use super::handle::mismatched;
use super::job_actor::{Answer, Request};
use super::queue_actor::{Poll, PollQueue};
use super::{Coordinator, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

impl Coordinator {
    /// The fair next job among some queues of this node gives tasks; without any the call waits, at most as long as it says.
    pub async fn lease_here(&self, call: LeaseAny) -> Result<Granted> {
        self.refuse_when_draining()?;
        let _asking = self.shared.sightings.asks(&call.worker, &call.queues, self.now());
        let deadline = Instant::now() + call.wait;
        let permit = self.shared.polls.clone().try_acquire_owned();
        let permit = Arc::new(permit.map_err(|_| CoordinatorError::Busy("too many callers wait for work"))?);
        if let Some(granted) = self.replay(&call).await? {
            return Ok(granted);
        }
        let mut queues: Vec<_> = call
            .queues
            .iter()
            .filter_map(|queue| self.shared.directory.queue(queue))
            .collect();
        if queues.is_empty() {
            // An unknown queue has no work. It may get some, though, so the caller is not sent into a busy loop.
            return self.wait_for_queues(&call, deadline, permit).await;
        }
        // Queues with work first: the larger priority, then the one served longer ago.
        queues.sort_by_key(|queue| queue.head().map_or((1, None), |rank| (0, Some(rank))));
        let last = queues.len() - 1;
        for (i, queue) in queues.iter().enumerate() {
            let may_park = i == last && !call.wait.is_zero();
            let (reply, answer) = oneshot::channel();
            let (worker, request_id) = (call.worker.clone(), call.request_id.clone());
            let poll = Poll::new(worker, call.max_tasks, request_id, reply, permit.clone(), may_park);
            let waits = match may_park {
                true => deadline,
                false => Instant::now() + self.shared.settings.store_wait,
            };
            // From here on the poll waits in every queue; whichever has work first answers it.
            let parked_in = if may_park {
                &queues[..]
            } else {
                std::slice::from_ref(queue)
            };
            for queue in parked_in.iter().rev() {
                queue.addr.do_send(PollQueue(poll.clone()));
            }
            drop(poll);
            match tokio::time::timeout_at(waits.into(), Awaited::new(answer, self)).await {
                Ok(Ok(Ok(Answer::Granted(granted)))) if granted.tasks.is_empty() && i != last => {}
                Ok(Ok(Ok(Answer::Granted(granted)))) => {
                    if let (Some(id), Some(job)) = (call.request_id, &granted.job) {
                        self.shared.note_grant(call.worker, id, job.id);
                    }
                    return Ok(granted);
                }
                Ok(Ok(Err(error))) => return Err(error),
                Ok(Ok(Ok(_))) => return Err(mismatched()),
                Ok(Err(_)) => return Err(CoordinatorError::NotOwner),
                Err(_) if may_park => return Ok(Granted::default()),
                Err(_) => return Err(CoordinatorError::StoreUnavailable),
            }
        }
        Ok(Granted::default())
    }

    /// As [`Coordinator::lease_here`] where no other node serves anything; a queue that gets its first job meanwhile is asked, too.
    pub(super) async fn lease_alone(&self, call: LeaseAny) -> Result<Granted> {
        let deadline = Instant::now() + call.wait;
        loop {
            let entered = self.shared.directory.entered.notified();
            let is_whole = call
                .queues
                .iter()
                .all(|queue| self.shared.directory.queue(queue).is_some());
            let wait = deadline.saturating_duration_since(Instant::now());
            let asking = self.lease_here(LeaseAny { wait, ..call.clone() });
            tokio::select! {
                biased;
                said = asking => return said,
                // Dropped, the call gives back by itself what it was granted.
                () = entered, if !is_whole => {}
            }
        }
    }

    /// The last grant again, if the call repeats the one that got it: the job that comes next by now may be another.
    pub async fn replay(&self, call: &LeaseAny) -> Result<Option<Granted>> {
        let Some(job) = call
            .request_id
            .as_ref()
            .and_then(|id| self.shared.granted_by(&call.worker, id))
        else {
            return Ok(None);
        };
        let handle = self.shared.directory.job(job);
        let Some(handle) = handle.filter(|handle| call.queues.iter().any(|queue| **queue == *handle.queue)) else {
            return Ok(None);
        };
        let request = Request::Grant {
            worker: call.worker.clone(),
            // Nothing new: of what it got before some may have gone back.
            max_tasks: 0,
            request_id: call.request_id.clone(),
        };
        match self.ask(&handle, Lane::Leases, request).await? {
            Answer::Granted(granted) => Ok(Some(granted).filter(|granted| !granted.tasks.is_empty())),
            _ => Err(mismatched()),
        }
    }

    async fn wait_for_queues(&self, call: &LeaseAny, deadline: Instant, permit: Arc<Permit>) -> Result<Granted> {
        while Instant::now() < deadline && !self.shared.is_draining() {
            let entered = self.shared.directory.entered.notified();
            if call
                .queues
                .iter()
                .any(|queue| self.shared.directory.queue(queue).is_some())
            {
                drop(permit);
                let wait = deadline.saturating_duration_since(Instant::now());
                return Box::pin(self.lease_here(LeaseAny { wait, ..call.clone() })).await;
            }
            // The bound lets a draining node answer in time.
            let nap = deadline.min(Instant::now() + Duration::from_millis(500));
            let _ = tokio::time::timeout_at(nap.into(), entered).await;
        }
        Ok(Granted::default())
    }
}
