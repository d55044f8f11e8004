//! Handing tasks out, prolonging leases, taking them back.
//!
//! Owns: who gets which tasks, and which tokens are current. Never: spends an attempt. Invariant: only a ready task of a claimable job is
//! handed out, and with the attempt after the last spent one.

use super::leases::Held;
use super::{Command, Effects, Extend, Grant, Granted, Ledger, NewerTokens, Refusal, Reply, Ticket};
use crate::domain::ids::{Attempt, LeaseSeq, TaskNo, UnixMs};
use crate::domain::lease::Lease;
use crate::domain::rows::JobUpdate;
use std::sync::Arc;

impl Ledger {
    pub(super) fn grant(&mut self, grant: Grant, now: UnixMs, effects: &mut Effects) {
        let granted = self.hand_out(&grant.worker, grant.max_tasks, grant.request_id, now);
        effects.reply(grant.ticket, Reply::Granted(granted));
    }

    pub(super) fn hand_out(
        &mut self,
        worker: &Arc<str>,
        max_tasks: u32,
        request_id: Option<String>,
        now: UnixMs,
    ) -> Vec<Granted> {
        if !self.may_grant {
            return Vec::new();
        }
        if let Some(replayed) = request_id.as_ref().and_then(|id| self.leases.replay(worker, id)) {
            let current = replayed.into_iter().filter(|&(task, _)| !self.is_expiring(task));
            let granted: Vec<_> = current.map(|(task, held)| self.granted(task, held)).collect();
            // What came back, because nobody received it say, must not keep a repetition from getting work.
            if !granted.is_empty() {
                return granted;
            }
        }
        if !self.record.state.is_claimable() {
            return Vec::new();
        }
        self.tasks.wake(now);
        let most = max_tasks
            .min(self.bounds.worker_in_flight.saturating_sub(self.leases.held_by(worker)))
            .min(self.room_in_flight());
        let expires_at = now.plus_s(self.record.policy.lease_timeout_s);
        let mut granted = Vec::with_capacity(most.min(1_024) as usize);
        for task in self.tasks.take_ready(most) {
            let held = Held {
                attempt: Attempt(self.tasks.spent(task).attempts + 1),
                epoch: self.fence.epoch,
                seq: self.next_lease_seq(),
                worker: worker.clone(),
                granted_at: now,
                adopted: false,
                restored: false,
                expires_at,
                claims: 0,
                note: None,
            };
            granted.push(self.granted(task, &held));
            self.leases.insert(task, held);
            self.begun = true;
        }
        // An empty answer is not worth repeating: a parked call asks again under the same id once there is work.
        if let Some(request_id) = request_id.filter(|_| !granted.is_empty()) {
            let grant = granted
                .iter()
                .map(|granted| (granted.lease.task, granted.lease.seq))
                .collect();
            self.leases.remember_grant(worker, request_id, grant);
        }
        if !granted.is_empty() {
            self.changed();
        }
        granted
    }

    fn granted(&self, task: TaskNo, held: &Held) -> Granted {
        let lease = Lease {
            job: self.record.id,
            run: self.record.run,
            task,
            attempt: held.attempt,
            epoch: held.epoch,
            seq: held.seq,
        };
        Granted {
            lease,
            expires_at: self.leases.ends(held),
        }
    }

    fn room_in_flight(&self) -> u32 {
        match self.record.policy.max_in_flight {
            Some(limit) => limit.saturating_sub(self.leases.len()),
            None => u32::MAX,
        }
    }

    /// How many tasks could be handed out right now.
    pub fn claimable(&self) -> u32 {
        if !self.record.state.is_claimable() || self.tasks.ready.is_empty() {
            return 0;
        }
        self.room_in_flight().min(self.tasks.ready.len() as u32)
    }

    /// Is this task waiting to be handed out?
    pub fn is_ready(&self, task: TaskNo) -> bool {
        self.tasks.ready.contains(task.0)
    }

    /// The lowest tasks that would be handed out next, to read their payloads ahead.
    pub fn upcoming(&self, most: usize) -> Vec<TaskNo> {
        self.tasks.ready.iter().take(most).map(TaskNo).collect()
    }

    pub(super) fn extend(&mut self, extend: Extend, now: UnixMs, effects: &mut Effects) {
        let Extend {
            ticket,
            worker,
            leases,
            stage,
            note,
        } = extend;
        let named = stage.map(|key| self.record.stages.iter().position(|stage| stage.key == key));
        if named == Some(None) {
            return effects.reply(ticket, Reply::Refused(Refusal::UnknownStage));
        }
        if self.refuse_newer(ticket, leases.iter(), effects) {
            return;
        }
        // What ends the job was counted already; a mark that came after it would be shown now and be gone later.
        let ends = self.in_flight.as_ref().and_then(|batch| batch.update.as_ref());
        let place = named.flatten().filter(|_| !ends.is_some_and(JobUpdate::ends_job));
        let until = now.plus_s(self.record.policy.lease_timeout_s);
        let mut prolong = |token: &Option<Lease>| {
            let token = token.as_ref()?;
            let current = self.is_current(token, &worker, now) && !self.is_expiring(token.task);
            let ends = current.then(|| self.leases.extend(token.task, until))??;
            if let Some(place) = place {
                self.tasks.reach(token.task, place);
            }
            if let Some(note) = &note {
                self.leases.note(token.task, note);
            }
            Some(ends)
        };
        let extended = leases.iter().map(&mut prolong).collect();
        self.changed();
        effects.reply(
            ticket,
            Reply::Extended {
                extended,
                state: self.record.state,
            },
        );
    }

    pub(super) fn release(
        &mut self,
        ticket: Ticket,
        worker: &Arc<str>,
        leases: &[Option<Lease>],
        now: UnixMs,
        effects: &mut Effects,
    ) {
        if self.refuse_newer(ticket, leases.iter(), effects) {
            return;
        }
        let released = leases
            .iter()
            .map(|token| match token {
                Some(token) if self.is_current(token, worker, now) => self.give_back(token.task, token.seq),
                _ => false,
            })
            .collect();
        effects.reply(ticket, Reply::Released(released));
    }

    pub(super) fn ungrant(&mut self, leases: &[(TaskNo, LeaseSeq)]) {
        for &(task, seq) in leases {
            self.give_back(task, seq);
        }
    }

    /// Takes a lease back and makes its task ready, unless a result for it is on its way.
    fn give_back(&mut self, task: TaskNo, seq: LeaseSeq) -> bool {
        let free = self
            .leases
            .get(task)
            .is_some_and(|held| held.seq == seq && held.claims == 0);
        if !free || self.is_expiring(task) {
            return false;
        }
        self.leases.remove(task);
        if self.record.state.is_active() {
            self.tasks.put_ready(task);
        }
        self.changed();
        true
    }

    /// Is this token the current lease of its task? The token of an undecided task that nobody holds is adopted: a crash can lose the
    /// memory of a lease, but not the work behind it. A lease that a snapshot remembers holds the task only until a later one is heard of.
    pub(super) fn is_current(&mut self, token: &Lease, worker: &Arc<str>, now: UnixMs) -> bool {
        if token.job != self.record.id || token.run != self.record.run || token.task.0 >= self.tasks.total {
            return false;
        }
        if let Some(held) = self.leases.get(token.task).filter(|held| !held.gives_way_to(token)) {
            return held.is(token);
        }
        let next_attempt = Attempt(self.tasks.spent(token.task).attempts + 1);
        let adoptable = self.record.state.is_active()
            && token.attempt == next_attempt
            && token.epoch <= self.fence.epoch
            && self.tasks.verdict(token.task).is_none()
            && !self.is_in_flight(token.task);
        if adoptable {
            self.leases.remove(token.task);
            self.tasks.take(token.task);
            let expires_at = now.plus_s(self.record.policy.lease_timeout_s);
            let held = Held {
                attempt: token.attempt,
                epoch: token.epoch,
                seq: token.seq,
                worker: worker.clone(),
                granted_at: now,
                adopted: true,
                restored: false,
                expires_at,
                claims: 0,
                note: None,
            };
            self.leases.insert(token.task, held);
            self.begun = true;
            self.changed();
        }
        adoptable
    }

    /// A token from a later epoch or run means that this ledger is out of date, unless it was just rebuilt to find that out.
    pub(super) fn refuse_newer<'a>(
        &mut self,
        ticket: Ticket,
        mut tokens: impl Iterator<Item = &'a Option<Lease>>,
        effects: &mut Effects,
    ) -> bool {
        let suspect = self.newer_tokens == NewerTokens::Suspect && tokens.any(|token| self.is_newer(token));
        if suspect {
            effects.reply(ticket, Reply::Stale);
            effects.rebuild = true;
        }
        suspect
    }

    pub(super) fn is_newer(&self, token: &Option<Lease>) -> bool {
        token.as_ref().is_some_and(|token| {
            token.job == self.record.id && (token.run > self.record.run || token.epoch > self.fence.epoch)
        })
    }
}

impl Command {
    /// The ticket that waits for this command, if any.
    pub fn ticket(&self) -> Option<Ticket> {
        match self {
            Command::Grant(grant) => Some(grant.ticket),
            Command::Results(results) => Some(results.ticket),
            Command::Extend(extend) => Some(extend.ticket),
            Command::Release { ticket, .. } | Command::Control { ticket, .. } | Command::Append { ticket, .. } => {
                Some(*ticket)
            }
            Command::Hold { .. }
            | Command::EndHold { .. }
            | Command::Ungrant { .. }
            | Command::Renew { .. }
            | Command::Appended { .. }
            | Command::Settled(_)
            | Command::Tick { .. } => None,
        }
    }
}
