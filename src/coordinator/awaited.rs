//! An answer that a caller waits for, and what becomes of it when the caller no longer does.
//!
//! Owns: giving back leases that arrive in the moment in which their caller gives up. Never: holds an answer that was taken. Invariant: a
//! grant that left its actor is either returned to the caller or given back.

use super::Coordinator;
use super::api::{CoordinatorError, GrantedTask};
use super::job_actor::Answer;
use crate::domain::ids::JobId;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

type Reply = Result<Answer, CoordinatorError>;

/// The receiving end of a reply. Dropping it takes back what nobody will read: sending and giving up can cross.
pub(super) struct Awaited<'a> {
    reply: oneshot::Receiver<Reply>,
    coordinator: &'a Coordinator,
}

impl<'a> Awaited<'a> {
    pub(super) fn new(reply: oneshot::Receiver<Reply>, coordinator: &'a Coordinator) -> Awaited<'a> {
        Awaited { reply, coordinator }
    }
}

impl Future for Awaited<'_> {
    type Output = Result<Reply, oneshot::error::RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.reply).poll(cx)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        // Once closed, sending fails and the actor itself takes the leases back; what was sent before is here.
        self.reply.close();
        if let Ok(Ok(answer)) = self.reply.try_recv()
            && let Some((job, tasks)) = granted(answer)
        {
            let leases = tasks.into_iter().map(|task| task.lease).collect();
            self.coordinator.release_undelivered(job, leases);
        }
    }
}

fn granted(answer: Answer) -> Option<(JobId, Vec<GrantedTask>)> {
    match answer {
        Answer::Granted(granted) => Some((granted.job?.id, granted.tasks)),
        Answer::Results(posted) => Some((posted.job, posted.tasks?)),
        _ => None,
    }
}
