//! A caller that waits for work.
//!
//! Owns: its answer, which several queues may try to give. Never: chooses who serves it. Invariant: it is answered at most once.

use crate::coordinator::api::CoordinatorError;
use crate::coordinator::directory::Permit;
use crate::coordinator::job_actor::{Answer, Replier};
use crate::domain::ids::JobId;
use std::sync::{Arc, Mutex, PoisonError};

/// A worker that waits for work of any job; it may wait in several queues at once.
#[derive(Clone)]
pub(in crate::coordinator) struct Poll {
    pub(in crate::coordinator) worker: Arc<str>,
    pub(in crate::coordinator) max_tasks: u32,
    pub(in crate::coordinator) request_id: Option<String>,
    reply: Arc<Mutex<Option<Replier>>>,
    _permit: Arc<Permit>,
    /// Jobs that were asked in this round, and which of their offers that was.
    pub(super) tried: Vec<(JobId, u64)>,
    /// Whether it may stay when there is nothing; else it is told so once that is certain.
    pub(super) may_park: bool,
    /// Its place among the parked.
    pub(super) since: Option<u64>,
}

impl Poll {
    pub(in crate::coordinator) fn new(
        worker: Arc<str>,
        max_tasks: u32,
        request_id: Option<String>,
        reply: Replier,
        permit: Arc<Permit>,
        may_park: bool,
    ) -> Poll {
        let reply = Arc::new(Mutex::new(Some(reply)));
        Poll {
            worker,
            max_tasks,
            request_id,
            reply,
            _permit: permit,
            tried: Vec::new(),
            may_park,
            since: None,
        }
    }

    /// Does its caller still wait?
    pub(super) fn is_waiting(&self) -> bool {
        let reply = self.reply.lock().unwrap_or_else(PoisonError::into_inner);
        reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    pub(in crate::coordinator) fn answer(&self, answer: Result<Answer, CoordinatorError>) {
        self.try_answer(answer);
    }

    /// Answers unless somebody else did, or the caller is gone.
    pub(in crate::coordinator) fn try_answer(&self, answer: Result<Answer, CoordinatorError>) -> bool {
        let reply = self.reply.lock().unwrap_or_else(PoisonError::into_inner).take();
        reply.is_some_and(|reply| reply.send(answer).is_ok())
    }
}
