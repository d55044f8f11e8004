//! Leases that live on because their holder was heard of.
//!
//! Owns: which holder was heard of when, and what that makes of a lease's end. Never: touches a lease: a call costs the same whether its
//! holder has one or thousands. Invariant: a renewal shortens no lease, and none outlives twice its time after its grant by it.

use super::Ledger;
use super::leases::Held;
use crate::domain::ids::{Attempt, Epoch, LeaseSeq, Run, TaskNo, UnixMs};
use crate::domain::lease::Lease;
use std::collections::HashMap;
use std::sync::Arc;

/// Holders remembered per job; beyond it what they were given is written into their leases.
pub(super) const HOLDERS_KEPT: usize = 1_024;

/// On whose behalf a worker works: its name up to the first `@`. Workers that share a holder keep each other's leases alive.
pub(super) fn holder_of(worker: &str) -> &str {
    worker.split_once('@').map_or(worker, |(holder, _)| holder)
}

#[derive(Debug, Clone, Copy)]
struct Renewal {
    /// The end that a lease granted at that moment would have.
    until: UnixMs,
    lease_ms: i64,
}

/// The last sign of life of each holder.
#[derive(Debug, Clone, Default)]
pub(super) struct Renewals(HashMap<Arc<str>, Renewal>);

impl Renewals {
    pub(super) fn note(&mut self, holder: &Arc<str>, now: UnixMs, lease_ms: i64) {
        let until = now.plus_ms(lease_ms);
        self.0.insert(holder.clone(), Renewal { until, lease_ms });
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= HOLDERS_KEPT
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// When the lease ends, all in all.
    pub(super) fn ends(&self, held: &Held) -> UnixMs {
        if self.0.is_empty() {
            return held.expires_at;
        }
        let renewed = self.0.get(holder_of(&held.worker)).map(|renewal| {
            let at_most = held.granted_at.plus_ms(2 * renewal.lease_ms);
            renewal.until.min(at_most)
        });
        renewed.map_or(held.expires_at, |until| held.expires_at.max(until))
    }
}

impl Ledger {
    /// A holder was heard of. What has run out but was not taken back yet lives on as well.
    pub(super) fn renew(&mut self, holder: &Arc<str>, now: UnixMs) {
        let lease_ms = i64::from(self.record.policy.lease_timeout_s) * 1_000;
        if self.leases.renew(holder, now, lease_ms) {
            self.changed();
        }
    }

    /// The token under which a result is judged that names its task, but no lease that can be read. The current lease, if the task is held
    /// by the worker's own holder. Else a success counts where one of this run can have been made: the task was handed out in this run, or
    /// there was no other run. A failure needs its lease.
    pub fn token_of(&self, task: TaskNo, succeeded: bool, worker: &str) -> Lease {
        let spent = self.tasks.spent(task).attempts;
        let held = self.leases.get(task);
        let mut token = Lease {
            job: self.record.id,
            run: self.record.run,
            task,
            attempt: Attempt(spent),
            // Given to no lease and earlier than every one, so it is current only where nobody holds the task.
            epoch: Epoch(0),
            seq: LeaseSeq(0),
        };
        match held {
            Some(held) if holder_of(&held.worker) == holder_of(worker) => {
                token.attempt = held.attempt;
                token.epoch = held.epoch;
                token.seq = held.seq;
            }
            None if self.record.run > Run(1) && spent == 0 => token.run = Run(self.record.run.0 - 1),
            // The attempt under way, or the next one.
            _ if succeeded => token.attempt.0 += 1,
            // The last attempt that is over: recorded already, or superseded.
            _ => {}
        }
        token
    }

    /// Was anything of this run handed out?
    pub fn has_begun(&self) -> bool {
        self.begun
    }
}
