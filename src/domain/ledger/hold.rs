//! Leases whose results are on their way.
//!
//! Owns: which upload keeps which leases from expiring. Never: decides how long; whoever uploads ends the hold, and is bounded there.
//! Invariant: a hold ends at most once, and one from before the ledger was loaded is not known to it.

use super::{Hold, Ledger};
use crate::domain::ids::UnixMs;
use crate::domain::lease::Lease;
use std::sync::Arc;

impl Ledger {
    /// The current ones among these leases do not expire until the hold ends. The rest is judged when it arrives. Only for a worker whose
    /// name is known is a lease adopted: it will be shown as the holder.
    pub(super) fn hold(&mut self, hold: Hold, worker: Option<&Arc<str>>, leases: &[Lease], now: UnixMs) {
        let mut claimed = Vec::with_capacity(leases.len());
        for lease in leases {
            let holds = |held: &super::leases::Held| lease.job == self.record.id && held.is(lease);
            let is_current = match worker {
                Some(worker) => !self.is_newer(&Some(*lease)) && self.is_current(lease, worker, now),
                None => self.leases.get(lease.task).is_some_and(holds),
            };
            if is_current {
                claimed.extend(self.leases.claim(lease.task));
            }
        }
        self.holds.entry(hold).or_default().extend(claimed);
    }

    pub(super) fn end_hold(&mut self, hold: Hold) {
        for claim in self.holds.remove(&hold).unwrap_or_default() {
            self.leases.unclaim(claim);
        }
    }
}
