//! A naive job: plain maps, obvious code, one task at a time. It says what every reply and every row must be.
//!
//! Owns: the expectation. Never: shares code with the ledger, but for the backoff's formula. Invariant: it holds only what is committed,
//! plus leases and the results that wait.

mod ending;

use super::durable::Durable;
use crate::domain::ids::{Epoch, Run, TaskNo, UnixMs};
use crate::domain::lease::Lease;
use crate::domain::ledger::{Control, Disposition, Item, Refusal, Report, RetryOnly, Ticket};
use crate::domain::policy::Policy;
use crate::domain::rows::{Cause, JobBatch, JobUpdate, Verdict};
use crate::domain::state::State;
use std::collections::{BTreeMap, BTreeSet};

pub(super) const GRACE_MS: i64 = 60_000;
/// Stages of every job.
pub(super) const STAGES: u8 = 3;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Holding {
    pub(super) token: Lease,
    pub(super) worker: String,
    /// Known from a snapshot only.
    pub(super) restored: bool,
    pub(super) granted_at: UnixMs,
    pub(super) expires_at: UnixMs,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Task {
    pub(super) verdict: Option<Verdict>,
    pub(super) spent: u32,
    pub(super) reported: BTreeSet<u32>,
    pub(super) due: Option<UnixMs>,
    pub(super) lease: Option<Holding>,
    /// Stages that it was said to have come to.
    pub(super) marks: u8,
}

#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) state: State,
    pub(super) run: Run,
    pub(super) base_run: Run,
    pub(super) open: bool,
    pub(super) cancel_at: Option<UnixMs>,
    /// Until then workers may hold leases that the last crash took with it.
    pub(super) forgotten_until: Option<UnixMs>,
    pub(super) start_at: Option<UnixMs>,
    pub(super) priority: i32,
    pub(super) policy: Policy,
    pub(super) epoch: Epoch,
    pub(super) tasks: Vec<Task>,
    /// Tasks with a late success that would be promoted.
    pub(super) late: BTreeSet<TaskNo>,
    /// Tokens whose results wait for an answer.
    pub(super) claims: Vec<(Ticket, Lease)>,
    /// Each worker's last grant by request id.
    pub(super) grants: BTreeMap<String, (String, Vec<Lease>)>,
    /// What the row has counted of each stage in this run.
    pub(super) counted: Vec<u32>,
}

/// What a control must come to.
#[derive(Debug, PartialEq)]
pub(super) enum Ruling {
    Already,
    Refused,
    Change,
}

impl Model {
    /// The committed state, recomputed from rows alone, with the leases a snapshot has kept.
    pub(super) fn from_rows(durable: &Durable, epoch: Epoch, kept: &[Holding], marks: &[u8], now: UnixMs) -> Model {
        let row = &durable.record;
        let mut tasks = vec![Task::default(); row.tally.total as usize];
        for task in durable.failed() {
            tasks[task.0 as usize].verdict = Some(Verdict::Failed);
        }
        for attempt in durable.attempts.values().filter(|attempt| attempt.run == row.run) {
            tasks[attempt.task.0 as usize].spend(
                &row.policy,
                attempt.attempt.0,
                attempt.cause,
                attempt.at,
                attempt.task,
            );
        }
        for (task, &marks) in tasks.iter_mut().zip(marks) {
            task.marks = marks;
        }
        let succeeded = durable.succeeded();
        for task in &succeeded {
            tasks[task.0 as usize].verdict = Some(Verdict::Succeeded);
        }
        let late = durable
            .late
            .iter()
            .filter(|((run, task), late)| {
                (row.base_run..=row.run).contains(run)
                    && late.verdict == Verdict::Succeeded
                    && !succeeded.contains(task)
            })
            .map(|((_, task), _)| *task)
            .collect();
        for holding in kept {
            let task = &mut tasks[holding.token.task.0 as usize];
            if row.state.is_active() && task.verdict.is_none() && task.spent < holding.token.attempt.0 {
                task.lease = Some(Holding {
                    restored: true,
                    expires_at: holding.expires_at.max(now.plus_ms(GRACE_MS)),
                    ..holding.clone()
                });
            }
        }
        Model {
            state: row.state,
            run: row.run,
            base_run: row.base_run,
            open: row.open,
            cancel_at: row.cancel_at,
            forgotten_until: None,
            start_at: row.start_at,
            priority: row.priority,
            policy: row.policy.clone(),
            epoch,
            tasks,
            late,
            claims: Vec::new(),
            grants: BTreeMap::new(),
            counted: row.tally.reached.clone(),
        }
    }

    pub(super) fn holdings(&self) -> Vec<Holding> {
        self.tasks.iter().filter_map(|task| task.lease.clone()).collect()
    }

    /// Are there leases that a cancel with grace waits for?
    pub(super) fn has_leases(&self, now: UnixMs) -> bool {
        self.numbers(|task| task.lease.is_some()) > 0 || self.may_have_forgotten(now)
    }

    fn may_have_forgotten(&self, now: UnixMs) -> bool {
        self.forgotten_until.is_some_and(|until| now < until)
    }

    pub(super) fn is_claimed(&self, token: &Lease) -> bool {
        self.claims.iter().any(|(_, claimed)| claimed == token)
    }

    fn numbers(&self, state: impl Fn(&Task) -> bool) -> u32 {
        self.tasks.iter().filter(|task| state(task)).count() as u32
    }

    /// Tasks at each stage.
    pub(super) fn reached(&self) -> Vec<u32> {
        let at = |place: u8| self.numbers(|task| task.verdict == Some(Verdict::Succeeded) || task.marks > place);
        let counted = self.counted.iter().copied().chain(std::iter::repeat(0));
        (0..STAGES)
            .map(at)
            .zip(counted)
            .map(|(now, counted)| now.max(counted))
            .collect()
    }

    /// pending, leased, retrying, succeeded, failed
    pub(super) fn counts(&self, now: UnixMs) -> [u32; 5] {
        let leased = self.numbers(|task| task.lease.is_some());
        let retrying = if self.state.is_active() {
            self.numbers(|task| task.verdict.is_none() && task.lease.is_none() && task.due.is_some_and(|due| due > now))
        } else {
            0
        };
        let succeeded = self.numbers(|task| task.verdict == Some(Verdict::Succeeded));
        let failed = self.numbers(|task| task.verdict == Some(Verdict::Failed));
        let pending = self.tasks.len() as u32 - leased - retrying - succeeded - failed;
        [pending, leased, retrying, succeeded, failed]
    }

    /// The tasks a grant must hand out now, in order.
    pub(super) fn offered(&self, worker: &str, most: u32, worker_cap: u32, now: UnixMs) -> Vec<TaskNo> {
        if self.state != State::Running {
            return Vec::new();
        }
        let leased = self.numbers(|task| task.lease.is_some());
        let holds = self.numbers(|task| task.lease.as_ref().is_some_and(|lease| lease.worker == worker));
        let room = self.policy.max_in_flight.unwrap_or(u32::MAX).saturating_sub(leased);
        let most = most.min(room).min(worker_cap.saturating_sub(holds));
        let free =
            |task: &Task| task.verdict.is_none() && task.lease.is_none() && task.due.is_none_or(|due| due <= now);
        let numbers = (0u32..).zip(&self.tasks).filter(|(_, task)| free(task));
        numbers.map(|(number, _)| TaskNo(number)).take(most as usize).collect()
    }

    /// Is the token current for its task? Adopts it if nobody holds the undecided task, or only a snapshot says so and the token is later.
    pub(super) fn current(&mut self, token: &Lease, worker: &str, in_flight: &BTreeSet<TaskNo>, now: UnixMs) -> bool {
        let active = self.state.is_active();
        let expires_at = now.plus_s(self.policy.lease_timeout_s);
        let Some(lease) = self.tasks.get(token.task.0 as usize).map(|task| &task.lease) else {
            return false;
        };
        if token.job.0 != 42 || token.run != self.run {
            return false;
        }
        if let Some(lease) = lease {
            let later = (token.epoch, token.seq) > (lease.token.epoch, lease.token.seq);
            let gives_way = lease.restored && later && !self.is_claimed(&lease.token);
            if lease.token == *token || !gives_way {
                return lease.token == *token;
            }
        }
        let task = &mut self.tasks[token.task.0 as usize];
        let adoptable = active
            && task.verdict.is_none()
            && token.attempt.0 == task.spent + 1
            && token.epoch <= self.epoch
            && !in_flight.contains(&token.task);
        if adoptable {
            task.lease = Some(Holding {
                token: *token,
                worker: worker.into(),
                restored: false,
                granted_at: now,
                expires_at,
            });
        }
        adoptable
    }

    /// Every lease of this holder's workers gets the time of a new one, but none more than twice that since it was granted.
    pub(super) fn renew(&mut self, holder: &str, now: UnixMs) {
        let time = i64::from(self.policy.lease_timeout_s) * 1_000;
        for lease in self.tasks.iter_mut().filter_map(|task| task.lease.as_mut()) {
            if lease.worker.split('@').next() == Some(holder) {
                let renewed = now.plus_ms(time).min(lease.granted_at.plus_ms(2 * time));
                lease.expires_at = lease.expires_at.max(renewed);
            }
        }
    }

    /// What one item must come to, and what it changes.
    pub(super) fn judge(&mut self, item: &Item) -> Disposition {
        let Some(token) = item.lease.filter(|token| token.job.0 == 42) else {
            return Disposition::Rejected;
        };
        if item.report == Report::Unusable || token.run > self.run || token.epoch > self.epoch {
            return Disposition::Rejected;
        }
        let (is_final, run, max_attempts) = (self.state.is_final(), self.run, self.policy.max_attempts);
        let Some(task) = self.tasks.get_mut(token.task.0 as usize) else {
            return Disposition::UnknownTask;
        };
        match (&item.report, task.verdict) {
            (Report::Succeeded { .. }, Some(Verdict::Succeeded)) => Disposition::Duplicate,
            (_, Some(Verdict::Succeeded)) => Disposition::Superseded,
            _ if token.run < run => Disposition::StaleRun,
            (Report::Succeeded { .. }, _) if is_final => Disposition::Late,
            (Report::Succeeded { .. }, _) => {
                task.verdict = Some(Verdict::Succeeded);
                Disposition::Counted
            }
            _ if task.reported.contains(&token.attempt.0) => Disposition::Duplicate,
            _ if is_final => Disposition::Late,
            (Report::Failed { retryable, .. }, None) if task.lease.as_ref().is_some_and(|l| l.token == token) => {
                task.lease = None;
                task.spent = token.attempt.0;
                task.reported.insert(token.attempt.0);
                if !retryable || task.spent >= max_attempts {
                    task.verdict = Some(Verdict::Failed);
                    return Disposition::Counted;
                }
                Disposition::Retrying
            }
            _ => Disposition::Superseded,
        }
    }

    pub(super) fn ruling(&self, control: Control, now: UnixMs) -> Ruling {
        use State::*;
        let undone = self.numbers(|task| task.verdict != Some(Verdict::Succeeded));
        let leased = self.has_leases(now);
        match (control, self.state) {
            (Control::Start, Pending) | (Control::Pause, Running) | (Control::Resume, Paused) => Ruling::Change,
            (Control::Start | Control::Resume, Running) | (Control::Pause, Paused) => Ruling::Already,
            (Control::Cancel { .. }, Canceled) => Ruling::Already,
            (Control::Cancel { grace_s }, Canceling) if grace_s > 0 && leased => {
                match self.cancel_at.is_some_and(|at| at <= now.plus_s(grace_s)) {
                    true => Ruling::Already,
                    false => Ruling::Change,
                }
            }
            (Control::Cancel { .. }, state) if !state.is_final() => Ruling::Change,
            (
                Control::Change {
                    priority,
                    failure_threshold,
                },
                state,
            ) => {
                let same = priority.is_none_or(|priority| priority == self.priority)
                    && failure_threshold.is_none_or(|threshold| threshold == self.policy.failure_threshold);
                match (same, state.is_final()) {
                    (true, _) => Ruling::Already,
                    (false, true) => Ruling::Refused,
                    (false, false) => Ruling::Change,
                }
            }
            (Control::Seal, _) if !self.open => Ruling::Already,
            (Control::Seal, state) if !state.is_final() => Ruling::Change,
            (Control::Retry { only, if_run }, state)
                if state.is_final() && if_run.is_none_or(|run| run == self.run) =>
            {
                match (only, undone, self.tasks.len()) {
                    (RetryOnly::Failed, 1.., _) | (RetryOnly::All, _, 1..) => Ruling::Change,
                    _ => Ruling::Refused,
                }
            }
            _ => Ruling::Refused,
        }
    }

    /// Why the store must not take more tasks, if it must not.
    pub(super) fn refuses_chunk(&self, first_task: Option<u32>) -> Option<Refusal> {
        let total = self.tasks.len() as u32;
        match first_task {
            _ if self.state.is_final() => Some(Refusal::InvalidTransition {
                state: self.state,
                verb: "take more tasks",
            }),
            _ if !self.open => Some(Refusal::Sealed),
            Some(first) if first != total => Some(Refusal::WrongFirstTask { total }),
            _ => None,
        }
    }

    /// The store has committed the batch but for some tasks.
    pub(super) fn committed(&mut self, batch: &JobBatch, refused: &[TaskNo], now: UnixMs) {
        for row in batch.attempts.iter().filter(|row| !refused.contains(&row.task)) {
            let task = &mut self.tasks[row.task.0 as usize];
            task.spend(&self.policy, row.attempt.0, row.cause, row.at, row.task);
            task.lease = None;
        }
        for row in batch.outcomes.iter().filter(|row| !refused.contains(&row.task)) {
            let task = &mut self.tasks[row.task.0 as usize];
            task.verdict = Some(row.verdict);
            task.lease = None;
        }
        for row in batch.late.iter().filter(|row| !refused.contains(&row.task)) {
            if row.verdict == Verdict::Succeeded {
                self.late.insert(row.task);
            }
        }
        for task in refused {
            if let Some(lease) = &mut self.tasks[task.0 as usize].lease {
                lease.expires_at = lease.expires_at.max(now.plus_ms(GRACE_MS));
            }
        }
        if let Some(update) = batch.update.as_ref().filter(|_| refused.is_empty()) {
            self.update(update);
        }
    }

    fn update(&mut self, update: &JobUpdate) {
        let new_run = update.run > self.run;
        if new_run || update.state.is_final() {
            self.tasks.iter_mut().for_each(|task| task.lease = None);
            self.grants.clear();
        }
        if new_run {
            let keeps = update.promote_late;
            for (number, task) in (0u32..).zip(&mut self.tasks) {
                let stands = keeps && (task.verdict == Some(Verdict::Succeeded) || self.late.contains(&TaskNo(number)));
                *task = Task {
                    verdict: stands.then_some(Verdict::Succeeded),
                    ..Task::default()
                };
            }
            self.late.clear();
            self.counted.clear();
            self.forgotten_until = None;
        }
        let reached = self.reached();
        // Marks may have come while the update was in flight, but never one that it counted in vain.
        assert!(
            update
                .tally
                .reached
                .iter()
                .zip(&reached)
                .all(|(counted, now)| counted <= now)
        );
        assert!(!update.state.is_final() || update.tally.reached == reached);
        self.counted = update.tally.reached.clone();
        self.state = update.state;
        self.run = update.run;
        self.base_run = update.base_run;
        self.priority = update.priority;
        self.policy = update.policy.clone();
        self.open = update.open;
        self.cancel_at = update.cancel_at;
        self.start_at = update.start_at;
    }
}

impl Task {
    fn spend(&mut self, policy: &Policy, attempt: u32, cause: Cause, at: UnixMs, number: TaskNo) {
        let wait = policy.backoff.delay_ms(
            crate::domain::ids::JobId(42),
            number,
            crate::domain::ids::Attempt(attempt),
        );
        self.spent = self.spent.max(attempt);
        self.due = self.due.max(Some(at.plus_ms(wait)));
        if cause == Cause::Reported {
            self.reported.insert(attempt);
        }
    }
}
