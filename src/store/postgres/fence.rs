//! The proof of ownership that opens every write transaction of an owned job.
//!
//! Owns: the advisory locks and the order of the two statements. Never: writes. Invariant: once [`open`] has answered, no take-over of a
//! proven queue ends before this transaction does.
//!
//! Two statements, because the order matters. The shared lock comes first; the epoch is read by a *second* statement, whose snapshot is
//! therefore newer than the lock. A take-over holds the exclusive lock while it bumps the epoch. So either the take-over came first, and
//! the second statement sees its epoch; or the lock came first, and the take-over waits for this transaction to end. One statement doing
//! both would read the epoch as it was before the lock was granted. The lock is only tried: while a take-over waits it is refused, which
//! keeps overlapping old writers from starving the take-over, and no writer ever waits for one. A refused lock says nothing about who will own
//! the queue: its writer tries again later, and then meets another epoch, or gets the lock. It must not start over under the epoch it has: a
//! transaction of its own may still be under way, unseen.

use super::session::Session;
use crate::domain::ids::{Epoch, QueueId};
use crate::domain::job::Fence;
use crate::store::{Result, StoreError};
use futures_util::future::join3;
use std::collections::{BTreeSet, HashMap};

/// First key of the advisory locks on queues; the second is the queue's id.
pub const LOCK_NAMESPACE: i32 = 0x5441_4c59;

const TRY_LOCK: &str = include_str!("queries/queues/try_lock.sql");
const FENCE: &str = include_str!("queries/queues/fence.sql");

/// What a transaction knows of the queues it wants to write to.
pub(super) struct Proof {
    epochs: HashMap<QueueId, Epoch>,
    locked: BTreeSet<QueueId>,
}

/// Where a writer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It owns the queue until its transaction ends.
    Proven,
    /// A take-over waits, and nobody knows yet whether it comes about: it may be waiting for a transaction of this very writer, whose answer
    /// got lost. Only repeating the call tells.
    Undecided,
    /// The queue has another epoch, or is gone.
    Lost,
}

impl Proof {
    pub(super) fn standing(&self, fence: Fence) -> Standing {
        if self.epochs.get(&fence.queue) != Some(&fence.epoch) {
            Standing::Lost
        } else if self.locked.contains(&fence.queue) {
            Standing::Proven
        } else {
            Standing::Undecided
        }
    }

    /// For calls about one queue.
    pub(super) fn require(&self, fence: Fence) -> Result<()> {
        let Fence { queue, epoch } = fence;
        match self.standing(fence) {
            Standing::Proven => Ok(()),
            Standing::Undecided => Err(StoreError::Unavailable(format!(
                "a take-over of queue {queue} is under way"
            ))),
            Standing::Lost => Err(StoreError::Fenced(format!("queue {queue} at epoch {epoch}"))),
        }
    }
}

/// Begins a transaction and proves what it can of the ownership of these queues, in one round trip.
pub(super) async fn open(session: &Session, fences: impl Iterator<Item = Fence>) -> Result<Proof> {
    let queues: Vec<i32> = fences
        .map(|fence| fence.queue.0)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let try_lock = session.prepare(TRY_LOCK).await?;
    let fence = session.prepare(FENCE).await?;
    let (begun, locks, epochs) = join3(
        session.begin(),
        session.rows(&try_lock, &[&LOCK_NAMESPACE, &queues]),
        session.rows(&fence, &[&queues]),
    )
    .await;
    begun?;
    let locked = locks?
        .iter()
        .filter(|row| row.get("locked"))
        .map(|row| QueueId(row.get("queue_id")))
        .collect();
    let epochs = epochs?
        .iter()
        .map(|row| (QueueId(row.get("queue_id")), Epoch(row.get("epoch"))))
        .collect();
    Ok(Proof { epochs, locked })
}
