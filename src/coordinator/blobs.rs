//! Large results: stored before their outcome, apart from all commits.
//!
//! Owns: cutting them into pieces, how many pieces are written at once, the hold on leases meanwhile. Never: lets an outcome refer to a
//! blob whose pieces are not all durable. Invariant: whatever becomes of an upload, its blob is referred to by one committed row, or it is
//! given up: at once where the answer is known, by the sweep where it is not.

use super::api::*;
use super::directory::JobHandle;
use super::job_actor::{EndHold, HoldLeases};
use super::{Coordinator, Result};
use crate::domain::ids::{BlobId, JobId};
use crate::domain::lease::Lease;
use crate::domain::ledger::Hold;
use crate::domain::rows::Kept;
use crate::store::{self, StoreError};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Text in one transaction: what a small commit may have to wait for.
const PIECE_BYTES: usize = 256 << 10;
/// A store that is slow for another reason does not get faster by waiting for it.
const LONGEST_REST: Duration = Duration::from_millis(100);

impl Coordinator {
    /// Results longer than this are stored apart.
    pub fn inline_result_bytes(&self) -> usize {
        self.shared.settings.inline_result_bytes
    }

    /// Keeps leases of this job from expiring while their results are uploaded. Without effect where the job cannot be found now: what
    /// arrives is judged all the same.
    pub async fn hold_leases(&self, job: JobId) -> LeaseHold {
        let actor = self.within_store_wait(self.handle(job)).await;
        LeaseHold {
            actor: actor.ok().and_then(std::result::Result::ok),
            hold: Hold(self.shared.holds.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Stores a result apart; every piece of it is durable when this answers. Nothing refers to it yet.
    pub async fn store_result(&self, job: JobId, text: &str) -> Result<BlobId> {
        self.refuse_when_draining()?;
        // Known, or found in the store: nothing is kept for no job.
        self.queue_of(job).await?;
        let opening = self.shared.store.open_blob(job, text.len() as u64, self.now());
        let blob = self.in_lane(opening).await?;
        for (piece, text) in (0..).zip(pieces(text)) {
            if let Err(error) = self.in_lane(self.shared.store.write_piece(blob, piece, text)).await {
                self.discard_results(vec![blob]);
                return Err(error);
            }
        }
        metrics::counter!("tallykeeper_large_results_total").increment(1);
        metrics::counter!("tallykeeper_large_result_bytes_total").increment(text.len() as u64);
        Ok(blob)
    }

    /// Lanes are taken piece by piece, in turn: of many uploads none waits for the whole of another. A lane that had small commits beside
    /// it then rests as long as it worked: it takes at most half of a core and of the disk from them.
    async fn in_lane<T>(&self, call: impl Future<Output = store::Result<T>>) -> Result<T> {
        let commits = &self.shared.commits;
        let in_turn = async {
            let lane = self.shared.blob_lanes.acquire().await.expect("never closed");
            let (began, mark) = (Instant::now(), commits.mark());
            (call.await, lane, began.elapsed(), mark)
        };
        let (answered, lane, worked, mark) = self.within_store_wait(in_turn).await?;
        if commits.since(mark) {
            metrics::counter!("tallykeeper_large_result_rests_total").increment(1);
            tokio::time::sleep(worked.min(LONGEST_REST)).await;
        }
        drop(lane);
        match answered {
            Err(StoreError::NotFound(_)) => Err(CoordinatorError::Busy("a large result was too long under way")),
            answered => Ok(answered?),
        }
    }

    /// Gives up results that no row refers to; those that one does stay. What this misses is swept.
    pub fn discard_results(&self, blobs: Vec<BlobId>) {
        if blobs.is_empty() {
            return;
        }
        let shared = self.shared.clone();
        self.threads.spawn(async move {
            match shared.store.discard_blobs(&blobs).await {
                Ok(()) => shared.purge_now.notify_one(),
                Err(error) => tracing::debug!(%error, "large results are left for the sweep"),
            }
        });
    }

    /// Stores what is too large for a row apart. Answers the hold that goes with it, and for each item the blob it refers to.
    pub(super) async fn move_out(
        &self,
        job: JobId,
        call: &mut PostResults,
    ) -> Result<(Option<LeaseHold>, Vec<Option<BlobId>>)> {
        let most = self.shared.settings.inline_result_bytes;
        let is_large = |item: &ReportedResult| text_of(item).is_some_and(|text| text.len() > most);
        let mut hold = None;
        if call.items.iter().any(is_large) {
            let held = self.hold_leases(job).await;
            held.add(Some(&call.worker), call.items.iter().map(|item| item.lease.as_str()));
            hold = Some(held);
        }
        let mut blobs = Vec::with_capacity(call.items.len());
        for item in &mut call.items {
            if is_large(item) {
                let stored = self.store_result(job, text_of(item).unwrap_or_default()).await;
                let blob = stored.inspect_err(|_| self.discard_results(blobs.iter().copied().flatten().collect()))?;
                item.report = moved(std::mem::replace(&mut item.report, Report::Unusable), blob);
            }
            blobs.push(match &item.report {
                Report::Succeeded { result, .. } => result.as_ref().and_then(Kept::blob),
                _ => None,
            });
        }
        Ok((hold, blobs))
    }

    /// The answer is known: whose result did not count is given up. Whether a late one was kept only the store can tell; it does.
    pub(super) fn discard_uncounted(&self, blobs: &[Option<BlobId>], dispositions: &[Disposition]) {
        let uncounted = |(blob, disposition): (&Option<BlobId>, &Disposition)| {
            blob.filter(|_| *disposition != Disposition::Counted)
        };
        self.discard_results(blobs.iter().zip(dispositions).filter_map(uncounted).collect());
    }
}

fn text_of(item: &ReportedResult) -> Option<&str> {
    match &item.report {
        Report::Succeeded { result, .. } => result.as_ref().and_then(Kept::text),
        _ => None,
    }
}

fn moved(report: Report, blob: BlobId) -> Report {
    match report {
        Report::Succeeded { counters, .. } => Report::Succeeded {
            result: Some(Kept::Blob(blob)),
            counters,
        },
        other => other,
    }
}

/// The text in pieces of nearly the same length, cut between characters.
fn pieces(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (piece, rest) = text.split_at(text.floor_char_boundary(PIECE_BYTES));
        text = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Leases whose results are being uploaded do not expire before this is dropped.
pub struct LeaseHold {
    actor: Option<JobHandle>,
    hold: Hold,
}

impl LeaseHold {
    /// Holds these leases too, given as token texts.
    pub fn add<'a>(&self, worker: Option<&Arc<str>>, leases: impl Iterator<Item = &'a str>) {
        let Some(actor) = &self.actor else { return };
        let leases: Vec<Lease> = leases.filter_map(|text| Lease::decode(text).ok()).collect();
        if !leases.is_empty() {
            actor.addr.do_send(HoldLeases {
                hold: self.hold,
                worker: worker.cloned(),
                leases,
            });
        }
    }
}

impl Drop for LeaseHold {
    fn drop(&mut self) {
        if let Some(actor) = &self.actor {
            actor.addr.do_send(EndHold(self.hold));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_between_characters_and_make_up_the_text() {
        let text = "é".repeat(PIECE_BYTES) + "x";
        let cut: Vec<&str> = pieces(&text).collect();
        assert_eq!(cut.concat(), text);
        assert!(cut.len() == 3 && cut.iter().all(|piece| piece.len() <= PIECE_BYTES));
        let odd = format!("a{text}");
        assert_eq!(pieces(&odd).map(str::len).next(), Some(PIECE_BYTES - 1));
        assert_eq!(pieces("").count(), 0);
    }
}
