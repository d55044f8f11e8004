//! The leases that are out: who holds which task until when.
//!
//! Owns: held leases, their expiry order, what each worker holds. Never: decides what an expiry means. Invariant: a task is held at
//! most once; a lease that is claimed by a result on its way does not expire.

use super::renewal::{Renewals, holder_of};
use super::task_map::TaskMap;
use crate::domain::ids::{Attempt, Epoch, LeaseSeq, TaskNo, UnixMs};
use crate::domain::lease::Lease;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

/// Workers without leases that are remembered for replaying their last grant.
const IDLE_WORKERS_KEPT: usize = 4_096;

/// Names a lease that a waiting result keeps from expiring.
pub(super) type Claim = (TaskNo, LeaseSeq);

/// A lease of this job by its whole name: numbers alone repeat from one process to the next.
type Numbered = (TaskNo, Epoch, LeaseSeq);

/// Worker, request id, and what the worker got by it.
pub(super) type LastGrant = (Arc<str>, String, Vec<(TaskNo, LeaseSeq)>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) attempt: Attempt,
    pub(super) epoch: Epoch,
    pub(super) seq: LeaseSeq,
    pub(super) worker: Arc<str>,
    pub(super) granted_at: UnixMs,
    /// Its grant is not on record: it was taken up from its token, at `granted_at`.
    pub(super) adopted: bool,
    /// It is remembered from a snapshot, and may have been given back since.
    pub(super) restored: bool,
    /// Unless its holder was heard of since: see [`Leases::ends`].
    pub(super) expires_at: UnixMs,
    /// Results for this task that have arrived and are not settled; while there are any the lease does not expire.
    pub(super) claims: u32,
    /// What its worker last said of it, for people; not saved.
    pub(super) note: Option<Arc<str>>,
}

impl Held {
    /// Is this the lease the token names?
    pub(super) fn is(&self, token: &Lease) -> bool {
        self.epoch == token.epoch && self.seq == token.seq && self.attempt == token.attempt
    }

    /// Does the token prove that this lease was given back? The task's next grant came after the snapshot, and a crash has made us forget
    /// both. Only what is remembered from a snapshot gives way: tokens can be guessed, and what was handed out or taken up since is certain.
    pub(super) fn gives_way_to(&self, token: &Lease) -> bool {
        self.restored && self.claims == 0 && (self.epoch, self.seq) < (token.epoch, token.seq)
    }

    /// Time since the grant, if that is on record, as far as an `integer` column holds it.
    pub(super) fn age_ms(&self, now: UnixMs) -> Option<u32> {
        let age_ms = (now.0 - self.granted_at.0).clamp(0, i64::from(i32::MAX));
        (!self.adopted).then_some(age_ms as u32)
    }
}

/// What one worker holds, and its last grant.
#[derive(Debug, Clone, Default)]
struct Worker {
    leased: u32,
    last_grant: Option<(String, Vec<Numbered>)>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Leases {
    held: TaskMap<Held>,
    /// Earliest first. Entries are not removed with their lease; those that no longer match are skipped, and dropped wholesale once
    /// they outnumber the living.
    expiries: BinaryHeap<Reverse<(UnixMs, TaskNo, LeaseSeq)>>,
    workers: HashMap<Arc<str>, Worker>,
    renewals: Renewals,
}

impl Leases {
    pub(super) fn len(&self) -> u32 {
        self.held.len() as u32
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn get(&self, task: TaskNo) -> Option<&Held> {
        self.held.get(&task)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TaskNo, &Held)> {
        self.held.iter().map(|(&task, held)| (task, held))
    }

    pub(super) fn held_by(&self, worker: &str) -> u32 {
        self.workers.get(worker).map_or(0, |worker| worker.leased)
    }

    /// Who holds how many tasks.
    pub(super) fn holders(&self) -> Vec<(Arc<str>, u32)> {
        let holding = self.workers.iter().filter(|(_, worker)| worker.leased > 0);
        holding.map(|(name, worker)| (name.clone(), worker.leased)).collect()
    }

    pub(super) fn insert(&mut self, task: TaskNo, held: Held) {
        self.workers.entry(held.worker.clone()).or_default().leased += 1;
        self.expiries.push(Reverse((held.expires_at, task, held.seq)));
        self.held.insert(task, held);
        self.compact();
    }

    pub(super) fn remove(&mut self, task: TaskNo) -> Option<Held> {
        let held = self.held.remove(&task)?;
        if let Some(worker) = self.workers.get_mut(&held.worker) {
            worker.leased = worker.leased.saturating_sub(1);
            if worker.leased == 0 && worker.last_grant.is_none() {
                self.workers.remove(&held.worker);
            }
        }
        Some(held)
    }

    pub(super) fn clear(&mut self) {
        *self = Leases::default();
    }

    /// Prolongs a lease; never shortens it. Returns the moment it now ends.
    pub(super) fn extend(&mut self, task: TaskNo, until: UnixMs) -> Option<UnixMs> {
        let held = self.held.get_mut(&task)?;
        if until > held.expires_at {
            held.expires_at = until;
            self.expiries.push(Reverse((until, task, held.seq)));
        }
        let ends = self.renewals.ends(held);
        self.compact();
        Some(ends)
    }

    /// When a lease ends, with what its holder's calls have added.
    pub(super) fn ends(&self, held: &Held) -> UnixMs {
        self.renewals.ends(held)
    }

    /// A holder was heard of; false if none of its workers holds anything.
    pub(super) fn renew(&mut self, holder: &Arc<str>, now: UnixMs, lease_ms: i64) -> bool {
        let mut workers = self.workers.iter();
        if !workers.any(|(name, worker)| worker.leased > 0 && holder_of(name) == &**holder) {
            return false;
        }
        if self.renewals.is_full() {
            let ends: Vec<_> = self.iter().map(|(task, held)| (task, self.ends(held))).collect();
            for (task, at) in ends {
                self.extend(task, at);
            }
            self.renewals.clear();
        }
        self.renewals.note(holder, now, lease_ms);
        true
    }

    pub(super) fn note(&mut self, task: TaskNo, note: &Arc<str>) {
        if let Some(held) = self.held.get_mut(&task) {
            held.note = Some(note.clone());
        }
    }

    /// Lets every lease live at least until the given moment.
    pub(super) fn extend_all(&mut self, until: UnixMs) {
        let short: Vec<TaskNo> = self
            .held
            .iter()
            .filter(|(_, held)| held.expires_at < until)
            .map(|(&task, _)| task)
            .collect();
        for task in short {
            self.extend(task, until);
        }
    }

    /// A result for this task has arrived.
    pub(super) fn claim(&mut self, task: TaskNo) -> Option<Claim> {
        let held = self.held.get_mut(&task)?;
        held.claims += 1;
        Some((task, held.seq))
    }

    /// A result for this task is settled; its lease may expire again. A later lease of the same task keeps its own claims.
    pub(super) fn unclaim(&mut self, (task, seq): Claim) {
        if let Some(held) = self.held.get_mut(&task).filter(|held| held.seq == seq) {
            held.claims = held.claims.saturating_sub(1);
            if held.claims == 0 {
                self.expiries.push(Reverse((held.expires_at, task, held.seq)));
            }
        }
    }

    /// The tasks whose lease has run out, at most so many; each leaves the expiry order until it is extended.
    pub(super) fn take_expired(&mut self, now: UnixMs, most: usize) -> Vec<TaskNo> {
        let mut expired = Vec::new();
        while expired.len() < most {
            match self.next_expiry() {
                Some(at) if at <= now => {}
                _ => break,
            }
            if let Some(Reverse((_, task, _))) = self.expiries.pop() {
                expired.push(task);
            }
        }
        expired
    }

    /// The earliest moment at which a lease that may expire runs out.
    pub(super) fn next_expiry(&mut self) -> Option<UnixMs> {
        while let Some(&Reverse((at, task, seq))) = self.expiries.peek() {
            let is_meant = |held: &&Held| held.seq == seq && held.expires_at == at && held.claims == 0;
            match self.held.get(&task).filter(is_meant).map(|held| self.ends(held)) {
                Some(ends) if ends == at => return Some(at),
                Some(renewed) => {
                    self.expiries.pop();
                    self.extend(task, renewed);
                }
                None => drop(self.expiries.pop()),
            }
        }
        None
    }

    /// Remembers a grant of leases that are held now, so that repeating the call replays it.
    pub(super) fn remember_grant(&mut self, worker: &Arc<str>, request_id: String, grant: Vec<(TaskNo, LeaseSeq)>) {
        if self.workers.len() > IDLE_WORKERS_KEPT {
            self.workers.retain(|_, worker| worker.leased > 0);
        }
        let held = |(task, seq)| Some((task, self.held.get(&task).filter(|held| held.seq == seq)?.epoch, seq));
        let grant = grant.into_iter().filter_map(held).collect();
        self.workers.entry(worker.clone()).or_default().last_grant = Some((request_id, grant));
    }

    /// The tasks of the worker's last grant that it still holds, if the call is a repetition.
    pub(super) fn replay(&self, worker: &str, request_id: &str) -> Option<Vec<(TaskNo, &Held)>> {
        let (last, grant) = self.workers.get(worker)?.last_grant.as_ref()?;
        if last != request_id {
            return None;
        }
        Some(grant.iter().filter_map(|granted| self.still(worker, granted)).collect())
    }

    /// What the worker gave back, and another has taken up from its token, is no longer of its grant.
    fn still(&self, worker: &str, &(task, epoch, seq): &Numbered) -> Option<(TaskNo, &Held)> {
        let held = self.held.get(&task)?;
        (held.epoch == epoch && held.seq == seq && *held.worker == *worker).then_some((task, held))
    }

    /// The last grant of each worker that still holds part of it, and that part.
    pub(super) fn last_grants(&self) -> impl Iterator<Item = (&Arc<str>, &str, Vec<(TaskNo, LeaseSeq)>)> {
        self.workers.iter().filter_map(move |(name, worker)| {
            let (request_id, grant) = worker.last_grant.as_ref()?;
            let still = grant.iter().filter_map(|granted| self.still(name, granted));
            let still: Vec<_> = still.map(|(task, held)| (task, held.seq)).collect();
            (!still.is_empty()).then_some((name, request_id.as_str(), still))
        })
    }

    fn compact(&mut self) {
        if self.expiries.len() > 2 * self.held.len() + 1_024 {
            self.expiries = self
                .held
                .iter()
                .filter(|(_, held)| held.claims == 0)
                .map(|(&task, held)| Reverse((held.expires_at, task, held.seq)))
                .collect();
        }
    }
}
