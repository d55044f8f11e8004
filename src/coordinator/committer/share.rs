//! A batch, or a share of one, on its way through the committer.
//!
//! Owns: which answers of the store make up a batch's answer. Never: orders commits. Invariant: a job hears of its batch once, when no
//! share of it is on its way any more; until then what has been committed of it is as good as unknown, like after a lost connection.

use super::{BatchCommitted, CommitBatch};
use crate::domain::ledger::Settlement;
use crate::domain::rows::JobBatch;
use actix::Recipient;
use std::sync::{Arc, Mutex, PoisonError};

/// Rows of one job that are committed together.
pub(super) struct Share {
    batch: JobBatch,
    answer: Answer,
}

/// Where the fate of a share is told.
pub(super) struct Answer(Arc<Awaited>);

struct Awaited {
    answer_to: Recipient<BatchCommitted>,
    heard: Mutex<Heard>,
}

/// What the store has said so far of one batch.
struct Heard {
    under_way: usize,
    settlement: Settlement,
    fenced: bool,
}

impl Share {
    pub(super) fn whole(commit: CommitBatch) -> Share {
        let heard = Heard {
            under_way: 1,
            settlement: Settlement::default(),
            fenced: false,
        };
        Share {
            batch: commit.batch,
            answer: Answer(Arc::new(Awaited {
                answer_to: commit.answer_to,
                heard: Mutex::new(heard),
            })),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.batch.len()
    }

    /// Keeps so many rows and answers the others, if the batch may be committed in shares.
    pub(super) fn split_off(&mut self, keep: usize) -> Option<Share> {
        let batch = self.batch.split_off(keep)?;
        self.answer.0.heard().under_way += 1;
        Some(Share {
            batch,
            answer: Answer(self.answer.0.clone()),
        })
    }

    pub(super) fn into_parts(self) -> (JobBatch, Answer) {
        (self.batch, self.answer)
    }

    pub(super) fn from_parts(batch: JobBatch, answer: Answer) -> Share {
        Share { batch, answer }
    }
}

impl Answer {
    /// The store has given its definite answer to this share.
    pub(super) fn settle(self, answer: BatchCommitted) {
        let mut heard = self.0.heard();
        match answer {
            BatchCommitted::Settled(settlement) => {
                heard.settlement.refused.extend(settlement.refused);
                heard.settlement.update_dropped |= settlement.update_dropped;
            }
            BatchCommitted::Fenced => heard.fenced = true,
        }
        heard.under_way -= 1;
        if heard.under_way == 0 {
            let answer = match heard.fenced {
                true => BatchCommitted::Fenced,
                false => BatchCommitted::Settled(std::mem::take(&mut heard.settlement)),
            };
            // A stopped actor has thrown its ledger away; the rows are committed all the same.
            self.0.answer_to.do_send(answer);
        }
    }
}

impl Awaited {
    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
