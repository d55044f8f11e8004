//! One job's slot, and a reader's view of it.
//!
//! Owns: who reads a job and how often at most. Never: keeps an older update for a slower reader. Invariant: a reader who looks sees the
//! newest update, and one who waits is woken by a newer one or by the job's leaving this node.

use super::pace::Rate;
use super::{Board, Update};
use crate::domain::ids::JobId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch as slot;

#[derive(Default)]
struct Slot {
    update: Option<Arc<Update>>,
    /// The job is not served here any more.
    moved: bool,
}

impl Slot {
    fn sight(&self) -> Sight {
        match (&self.update, self.moved) {
            (update, true) => Sight::Moved(update.clone()),
            (Some(update), false) => Sight::Newest(update.clone()),
            (None, false) => Sight::Nothing,
        }
    }
}

/// The one slot of a watched job.
pub(in crate::coordinator) struct Channel {
    slot: slot::Sender<Slot>,
    /// Readers by their rate.
    readers: Mutex<BTreeMap<Rate, usize>>,
    /// The fastest reader's rate in thousandths of a hertz; 0 without readers.
    fastest_mhz: AtomicU32,
}

impl Default for Channel {
    fn default() -> Self {
        Channel {
            slot: slot::Sender::new(Slot::default()),
            readers: Mutex::default(),
            fastest_mhz: AtomicU32::new(0),
        }
    }
}

impl Channel {
    pub(super) fn enter(&self, rate: Rate) {
        self.count(|readers| *readers.entry(rate).or_insert(0) += 1);
    }

    pub(super) fn leave(&self, rate: Rate) {
        self.count(|readers| {
            if let Some(count) = readers.get_mut(&rate) {
                *count -= 1;
                if *count == 0 {
                    readers.remove(&rate);
                }
            }
        });
    }

    fn count(&self, change: impl FnOnce(&mut BTreeMap<Rate, usize>)) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut readers);
        let fastest = readers.last_key_value().map_or(0, |(rate, _)| rate.mhz());
        self.fastest_mhz.store(fastest, Ordering::Relaxed);
    }

    pub(in crate::coordinator) fn is_empty(&self) -> bool {
        self.fastest().is_none()
    }

    /// The fastest reader's rate.
    pub(in crate::coordinator) fn fastest(&self) -> Option<Rate> {
        Rate::of_mhz(self.fastest_mhz.load(Ordering::Relaxed))
    }

    pub(in crate::coordinator) fn has_update(&self) -> bool {
        self.slot.borrow().update.is_some()
    }

    pub(in crate::coordinator) fn publish(&self, update: Arc<Update>) {
        self.slot.send_modify(|slot| slot.update = Some(update));
    }

    /// Shows what the store says of a job without an actor, unless an actor has shown something since.
    pub(in crate::coordinator) fn publish_stored(&self, update: Arc<Update>) {
        self.slot.send_if_modified(|slot| {
            let is_empty = slot.update.is_none();
            if is_empty {
                slot.update = Some(update);
            }
            is_empty
        });
    }

    pub(super) fn move_away(&self) {
        self.slot.send_modify(|slot| slot.moved = true);
    }
}

/// What a reader sees when it looks.
#[derive(Debug, Clone)]
pub enum Sight {
    Newest(Arc<Update>),
    /// Nothing more will come from this node. The last update comes along.
    Moved(Option<Arc<Update>>),
    Nothing,
}

/// A reader of one job.
pub struct Watch {
    job: JobId,
    rate: Rate,
    channel: Arc<Channel>,
    board: Arc<Board>,
    slot: slot::Receiver<Slot>,
}

impl Watch {
    pub(super) fn new(job: JobId, rate: Rate, channel: Arc<Channel>, board: Arc<Board>) -> Watch {
        let slot = channel.slot.subscribe();
        Watch {
            job,
            rate,
            channel,
            board,
            slot,
        }
    }

    pub(in crate::coordinator) fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    /// Waits for something newer than what was last looked at.
    pub async fn changed(&mut self) {
        // The channel is ours as well, so its sending half outlives this wait.
        let _ = self.slot.changed().await;
    }

    /// Is there something newer than what was last looked at?
    pub fn has_changed(&self) -> bool {
        self.slot.has_changed().unwrap_or(false)
    }

    /// The newest update.
    pub fn look(&mut self) -> Sight {
        self.slot.borrow_and_update().sight()
    }

    /// The newest update, which still counts as not looked at.
    pub fn peek(&self) -> Sight {
        self.slot.borrow().sight()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.board.leave(self.job, &self.channel, self.rate);
    }
}
