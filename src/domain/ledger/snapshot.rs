//! The saved form of a ledger's committed state.
//!
//! Owns: its bytes. Never: saves anything uncommitted. Invariant: a snapshot is a cache of the rows, except that outstanding leases live
//! only here; bytes that fail their checksum are as good as none. Stage marks live only here, too, but they are for display: a crash may take the last of them.

use super::Ledger;
use super::leases::{Held, LastGrant};
use super::tasks::{Counters, Spent};
use crate::domain::ids::{Attempt, Epoch, LeaseSeq, Run, Seq, TaskNo, UnixMs};
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

/// First byte of every snapshot. Another one would be as good as none to the programs before it, also to those that run beside this one
/// during an upgrade: they would forget every lease. What is new goes behind the rest instead, where they do not look.
const FORMAT: u8 = 3;
const CHECKSUM_BYTES: usize = 8;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) run: Run,
    pub(super) base_run: Run,
    pub(super) seq: Seq,
    pub(super) succeeded: Vec<u8>,
    pub(super) failed: Vec<u8>,
    pub(super) spent: Vec<(TaskNo, u32, u64, UnixMs)>,
    pub(super) counters: BTreeMap<String, i64>,
    pub(super) fraction_floor: f64,
    pub(super) stage_floors: Vec<f64>,
    /// One set per stage that anyone has come to.
    pub(super) marks: Vec<Vec<u8>>,
    pub(super) late: Vec<(TaskNo, Run, Counters)>,
    pub(super) workers: Vec<Arc<str>>,
    pub(super) leases: Vec<SavedLease>,
    grants: Vec<SavedGrant>,
    /// Stands behind the rest; none from a program that did not save it.
    #[serde(skip)]
    pub(super) unknown_leases_end: Option<UnixMs>,
}

/// A worker's last grant, as far as it still holds it. A worker whose answer went down with the node knows no lease of it; only by
/// repeating its call can it learn them, or they would expire and spend attempts on our crash.
#[derive(Debug, Serialize, Deserialize)]
struct SavedGrant {
    /// Place in `workers`.
    worker: u32,
    request_id: String,
    tasks: Vec<(TaskNo, LeaseSeq)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedLease {
    task: TaskNo,
    attempt: Attempt,
    epoch: Epoch,
    seq: LeaseSeq,
    /// Place in `workers`.
    worker: u32,
    granted_at: UnixMs,
    adopted: bool,
    expires_at: UnixMs,
}

impl Ledger {
    /// Committed position and bytes of everything worth saving.
    pub fn snapshot(&self) -> (Seq, Vec<u8>) {
        let mut workers: Vec<Arc<str>> = Vec::new();
        let mut places: BTreeMap<Arc<str>, u32> = BTreeMap::new();
        let mut leases = Vec::with_capacity(self.leases.len() as usize);
        for (task, held) in self.leases.iter() {
            let worker = *places.entry(held.worker.clone()).or_insert_with(|| {
                workers.push(held.worker.clone());
                workers.len() as u32 - 1
            });
            leases.push(SavedLease {
                task,
                attempt: held.attempt,
                epoch: held.epoch,
                seq: held.seq,
                worker,
                granted_at: held.granted_at,
                adopted: held.adopted,
                expires_at: self.leases.ends(held),
            });
        }
        let grants = self.leases.last_grants().filter_map(|(worker, request_id, tasks)| {
            let worker = *places.get(worker)?;
            Some(SavedGrant {
                worker,
                request_id: request_id.to_owned(),
                tasks,
            })
        });
        let grants = grants.collect();
        let saved = Saved {
            run: self.record.run,
            base_run: self.record.base_run,
            seq: self.committed,
            succeeded: bitmap_bytes(&self.tasks.succeeded),
            failed: bitmap_bytes(&self.tasks.failed),
            spent: self
                .tasks
                .spent
                .iter()
                .map(|(&task, s)| (task, s.attempts, s.reported, s.due))
                .collect(),
            counters: self.tasks.counters.clone(),
            fraction_floor: self.fraction_floor,
            stage_floors: self.stage_floors.clone(),
            marks: self.tasks.marks.sets().iter().map(bitmap_bytes).collect(),
            late: self
                .tasks
                .late
                .iter()
                .map(|(&task, (run, counters))| (task, *run, counters.clone()))
                .collect(),
            workers,
            leases,
            grants,
            unknown_leases_end: self.unknown_leases_end,
        };
        (self.committed, saved.encode())
    }
}

impl Saved {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes = postcard::to_extend(self, bytes).expect("plain data always encodes");
        bytes = postcard::to_extend(&self.unknown_leases_end, bytes).expect("plain data always encodes");
        let checksum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&checksum[..CHECKSUM_BYTES]);
        bytes
    }

    /// Reads a snapshot back; none if it is damaged or of another format.
    pub(super) fn decode(bytes: &[u8]) -> Option<Saved> {
        let (body, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
        if Sha256::digest(body)[..CHECKSUM_BYTES] != *checksum || *body.first()? != FORMAT {
            return None;
        }
        let (mut saved, behind) = postcard::take_from_bytes::<Saved>(&body[1..]).ok()?;
        if !behind.is_empty() {
            saved.unknown_leases_end = postcard::from_bytes(behind).ok()?;
        }
        Some(saved)
    }

    pub(super) fn spent(&self) -> impl Iterator<Item = (TaskNo, Spent)> + '_ {
        self.spent.iter().map(|&(task, attempts, reported, due)| {
            (
                task,
                Spent {
                    attempts,
                    reported,
                    due,
                },
            )
        })
    }

    /// Worker, request id and tasks of the last grants.
    pub(super) fn last_grants(&self) -> impl Iterator<Item = LastGrant> + '_ {
        self.grants.iter().filter_map(|grant| {
            let worker = self.workers.get(grant.worker as usize)?.clone();
            Some((worker, grant.request_id.clone(), grant.tasks.clone()))
        })
    }

    pub(super) fn held(&self) -> impl Iterator<Item = (TaskNo, Held)> + '_ {
        self.leases.iter().filter_map(|lease| {
            let held = Held {
                attempt: lease.attempt,
                epoch: lease.epoch,
                seq: lease.seq,
                worker: self.workers.get(lease.worker as usize)?.clone(),
                granted_at: lease.granted_at,
                adopted: lease.adopted,
                restored: true,
                expires_at: lease.expires_at,
                claims: 0,
                note: None,
            };
            Some((lease.task, held))
        })
    }
}

fn bitmap_bytes(bitmap: &RoaringBitmap) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(bitmap.serialized_size());
    bitmap
        .serialize_into(&mut bytes)
        .expect("writing to memory cannot fail");
    bytes
}

pub(super) fn bitmap(bytes: &[u8]) -> Option<RoaringBitmap> {
    RoaringBitmap::deserialize_from(bytes).ok()
}
