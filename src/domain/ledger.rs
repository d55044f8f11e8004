//! One job's whole state machine: `apply(command, now) -> effects`.
//!
//! Owns: every rule of a job: what is leasable, what a result does, when an attempt is spent, how the job ends. Never: does I/O, reads
//! a clock or draws randomness. Invariants: everything visible is committed; at most one batch is in flight; a task is decided at most
//! once per run, but for a failure that a late success corrects; `pending + leased + retrying + succeeded + failed = total`.
//!
//! # How a result becomes a count
//! Results and controls wait in the *inbox*, in the order in which they came. When no batch is in flight, the inbox is judged from its
//! front against committed facts and what the batch at hand already holds; the batch then goes to the store whole. Only its
//! [`Settled`](Command::Settled) moves the sets and sends the replies. A duplicate of a result in flight simply waits in the inbox, and is
//! judged when that result's fate is known.

mod batch;
mod command;
mod control;
mod explain;
mod grant;
mod hold;
mod ingest;
mod judge;
mod leases;
mod load;
mod marks;
mod renewal;
mod settle;
mod snapshot;
mod task_map;
mod tasks;
#[cfg(test)]
mod tests;
mod verdict;
mod view;

pub use command::*;
pub use explain::{Hint, Undecided};
pub use load::{CorruptJob, Loading, NewerTokens};

use super::ids::{LeaseSeq, Seq, UnixMs};
use super::job::{Fence, JobRecord};
use super::progress::Throughput;
use batch::InFlight;
use leases::{Claim, Leases};
use std::collections::{HashMap, VecDeque};
use tasks::Tasks;

/// Bounds that the ledger keeps; the node's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Tasks that one worker may hold.
    pub worker_in_flight: u32,
    /// Items judged into one batch.
    pub batch_items: usize,
    /// Bytes of results judged into one batch (at least one request is).
    pub batch_bytes: usize,
    /// Whether leases outlive the process that granted them. They do not where the workers were part of it.
    pub restores_leases: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            worker_in_flight: 2_000,
            batch_items: 20_000,
            batch_bytes: 32 << 20,
            restores_leases: true,
        }
    }
}

/// Leases restored after a restart, or kept through an outage of the store, live at least so long: their workers could not extend them.
pub const RESTORED_LEASE_MS: i64 = 60_000;

/// A request that waits to be judged.
#[derive(Debug)]
enum Waiting {
    /// With the leases it claimed when it came: they do not expire before it is answered.
    Results(Results, Vec<Claim>),
    Control(Ticket, Control),
}

/// A chunk of tasks that waits for its turn, or is being stored.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    ticket: Ticket,
    first_task: Option<u32>,
}

/// The state machine of one job.
#[derive(Debug)]
pub struct Ledger {
    record: JobRecord,
    fence: Fence,
    bounds: Bounds,
    tasks: Tasks,
    leases: Leases,
    /// Until then workers may hold leases that a crash has made us forget; none once it has passed. They report or let them run out; nobody
    /// else takes notice.
    unknown_leases_end: Option<UnixMs>,
    /// Something of this run was handed out, or is known to have been.
    begun: bool,
    /// Position of the last row or update that is durable, so that no crash takes it back. Late results, which change nothing that
    /// is visible, do not move it.
    committed: Seq,
    /// Last position given out; rows in flight are above `committed`.
    assigned: Seq,
    lease_seq: LeaseSeq,
    inbox: VecDeque<Waiting>,
    /// Leases whose results are still being uploaded.
    holds: HashMap<Hold, Vec<Claim>>,
    in_flight: Option<InFlight>,
    chunks: VecDeque<Chunk>,
    storing: Option<Chunk>,
    store_up: bool,
    may_grant: bool,
    newer_tokens: NewerTokens,
    throughput: Throughput,
    /// Largest fraction of this run that may have been shown: appending to an open job must not take it back.
    fraction_floor: f64,
    /// The same for each stage.
    stage_floors: Vec<f64>,
    /// Grows with everything that a snapshot or a reader would see differently.
    revision: u64,
}

impl Ledger {
    /// Applies one command. Commands that wait for the store are answered by the effects of a later one.
    pub fn apply(&mut self, command: Command, now: UnixMs) -> Effects {
        let mut effects = Effects::default();
        self.unknown_leases_end = self.unknown_leases_end.filter(|&end| now < end);
        match command {
            Command::Grant(grant) => self.grant(grant, now, &mut effects),
            Command::Extend(extend) => self.extend(extend, now, &mut effects),
            Command::Release { ticket, worker, leases } => self.release(ticket, &worker, &leases, now, &mut effects),
            Command::Ungrant { leases } => self.ungrant(&leases),
            Command::Renew { holder } => self.renew(&holder, now),
            Command::Results(results) => self.receive(results, now, &mut effects),
            Command::Hold { hold, worker, leases } => self.hold(hold, worker.as_ref(), &leases, now),
            Command::EndHold { hold } => self.end_hold(hold),
            Command::Control { ticket, control } => self.inbox.push_back(Waiting::Control(ticket, control)),
            Command::Append { ticket, first_task } => self.queue_chunk(ticket, first_task),
            Command::Appended { ticket, outcome } => self.appended(ticket, outcome, &mut effects),
            Command::Settled(settlement) => self.settle(settlement, now, &mut effects),
            Command::Tick { store_up } => self.tick(store_up, now),
        }
        self.tasks.wake(now);
        self.form_batch(now, &mut effects);
        // After the batch: a control that has had its turn no longer holds a chunk back, and what is due by itself (a timed start, a
        // cancel deadline) is not starved by chunk after chunk.
        self.start_chunk(&mut effects);
        effects
    }

    /// Notes the store's health, if it is news, before another command is applied.
    pub fn note_store(&mut self, store_up: bool, now: UnixMs) -> Effects {
        if store_up == self.store_up {
            return Effects::default();
        }
        self.apply(Command::Tick { store_up }, now)
    }

    /// Notes whether tasks may be handed out by the commands that follow. They may not while another owner may hand out the same ones, or
    /// once the job is being handed over.
    pub fn note_right_to_grant(&mut self, may_grant: bool) {
        self.may_grant = may_grant;
    }

    fn tick(&mut self, store_up: bool, now: UnixMs) {
        if store_up && !self.store_up {
            // Nobody could report or extend during the outage, so nobody is late yet.
            self.leases.extend_all(now.plus_ms(RESTORED_LEASE_MS));
            self.changed();
        }
        self.store_up = store_up;
    }

    /// When to send the next [`Command::Tick`]; none if only a command can change anything.
    pub fn next_wake(&mut self) -> Option<UnixMs> {
        // While a batch is in flight its settlement brings the next judgement anyway; so does the end of a chunk for what waits for it.
        let may_expire = self.in_flight.is_none() && self.store_up;
        let idle = self.in_flight.is_none() && self.storing.is_none();
        let expiry = if may_expire { self.leases.next_expiry() } else { None };
        let start = self.record.start_at.filter(|_| idle && self.may_start_by_itself());
        let cancel = self
            .record
            .cancel_at
            .filter(|_| idle && self.record.state == super::state::State::Canceling);
        let unknown = self
            .unknown_leases_end
            .filter(|_| cancel.is_some() && self.leases.is_empty());
        [self.tasks.next_due(), expiry, start, cancel, unknown]
            .into_iter()
            .flatten()
            .min()
    }

    fn may_hold_unknown_leases(&self) -> bool {
        self.unknown_leases_end.is_some()
    }

    fn next_seq(&mut self) -> Seq {
        self.assigned.0 += 1;
        self.assigned
    }

    fn next_lease_seq(&mut self) -> LeaseSeq {
        self.lease_seq.0 += 1;
        self.lease_seq
    }

    /// Notes that readers and snapshots would see something else from now on.
    fn changed(&mut self) {
        self.revision += 1;
    }
}
