//! Giving a queue up so that its next owner finds everything, leases included.
//!
//! Owns: the order. Never: gives up before the last snapshot is written, unless that cannot be. Invariant: from the first step on nothing is
//! granted or taken in, so what is saved last is the truth. A job that does not settle costs no other its last snapshot.
//!
//! Stop granting, answer polls, settle what is under way, save the last snapshots, release the row, stop the actors. A crash between any
//! two steps is a crash of the node: nothing acknowledged is lost, only leases since the last snapshot are forgotten.

use super::directory::QueueHandle;
use super::job_actor::Settle;
use super::queue_actor::{StandDown, StopQueue};
use super::snapshotter;
use super::{Coordinator, CoordinatorError, Result};
use crate::domain::ids::JobId;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

/// Queues handed over at the same time when the node drains.
const AT_ONCE: usize = 8;

/// Until when jobs may settle: a third of the time is kept for saving.
fn settle_by(now: Instant, deadline: Instant) -> Instant {
    let left: Duration = deadline.saturating_duration_since(now);
    now + left * 2 / 3
}

impl Coordinator {
    /// Hands one queue over to whoever takes it next. The queue is given up even if this fails; then leases may be forgotten.
    pub(super) async fn hand_over(&self, queue: QueueHandle, deadline: Instant) -> Result<()> {
        let shared = &self.shared;
        shared.directory.begin_leaving(&queue.name);
        let saved = timeout_at(deadline.into(), self.settle_and_save(&queue, deadline)).await;
        let mut done = saved.unwrap_or(Err(CoordinatorError::StoreUnavailable));
        if done.is_ok() {
            let releasing = shared.store.release_queues(&shared.identity, Some(queue.id));
            let released = timeout_at(deadline.into(), releasing).await;
            done = released
                .map_err(|_| CoordinatorError::StoreUnavailable)
                .and_then(|released| released.map_err(CoordinatorError::from));
        }
        if done.is_err() {
            // The row may still be ours; writes under way may be, too.
            shared.abandon(queue.id);
        }
        // Not a call: one whose caller has stopped waiting is not handled, and these actors must go however late it is. A closed mailbox has
        // stopped by itself; one that is busy finds the word when it is not.
        queue.addr.do_send(StopQueue);
        // Only to know when it was heard.
        let _ = timeout_at(deadline.into(), queue.addr.send(StopQueue)).await;
        // Before anybody asks again: what we know must not send the queue right back to us.
        if !shared.is_draining() {
            let _ = shared.owners.look(shared, Instant::now()).await;
        }
        shared.directory.end_leaving(&queue.name);
        match &done {
            Ok(()) => tracing::info!(queue = %queue.name, "queue handed over"),
            Err(error) => {
                tracing::warn!(queue = %queue.name, %error, "queue given up before everything was settled and saved")
            }
        }
        done
    }

    async fn settle_and_save(&self, queue: &QueueHandle, deadline: Instant) -> Result<()> {
        let jobs = queue.addr.send(StandDown).await.unwrap_or_default();
        let settle_by = settle_by(Instant::now(), deadline);
        let settling = jobs.iter().map(|(id, job)| async move {
            let (reply, done) = oneshot::channel();
            job.do_send(Settle(reply));
            // A dropped reply is an actor without a ledger: nothing of it is under way.
            (*id, timeout_at(settle_by.into(), done).await.is_ok())
        });
        let (settled, unsettled): (Vec<_>, Vec<_>) = join_all(settling).await.into_iter().partition(|(_, done)| *done);
        let ids = |jobs: Vec<(JobId, bool)>| jobs.into_iter().map(|(job, _)| job).collect::<Vec<_>>();
        snapshotter::save_jobs(&self.shared, &ids(settled), deadline).await?;
        if unsettled.is_empty() {
            return Ok(());
        }
        tracing::warn!(queue = %queue.name, jobs = unsettled.len(), "jobs did not settle before their queue was given up");
        // After the others: whatever holds these jobs up may hold up saving them. Nothing is granted any more, so their leases are known.
        snapshotter::save_jobs(&self.shared, &ids(unsettled), deadline).await?;
        Err(CoordinatorError::StoreUnavailable)
    }

    /// Hands every queue over; fails if one of them could not be saved.
    pub(super) async fn hand_over_all(&self, deadline: Instant) -> Result<()> {
        let queues = self.shared.directory.queues();
        for queue in &queues {
            self.shared.directory.begin_leaving(&queue.name);
        }
        let handing = queues.into_iter().map(|queue| self.hand_over(queue, deadline));
        let done: Vec<Result<()>> = stream::iter(handing).buffer_unordered(AT_ONCE).collect().await;
        done.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settling_ends_before_the_deadline_and_never_before_now() {
        let now = Instant::now();
        assert_eq!(
            settle_by(now, now + Duration::from_secs(30)),
            now + Duration::from_secs(20)
        );
        assert_eq!(
            settle_by(now + Duration::from_secs(1), now),
            now + Duration::from_secs(1)
        );
    }
}
