//! Control commands: start, pause, resume, cancel, seal, retry, change; and whether a job may be deleted.
//!
//! Owns: which command is legal when, and what it changes. Never: acts on uncommitted facts. Invariant: every change of state goes
//! through the transition table, and asking for what is already so is no error.

use super::batch::InFlight;
use super::verdict::canceled;
use super::{Control, Effects, Ledger, Refusal, Reply, RetryOnly, Ticket};
use crate::domain::ids::{Run, Seq, UnixMs};
use crate::domain::job::Fence;
use crate::domain::policy::FailureThreshold;
use crate::domain::rows::JobUpdate;
use crate::domain::state::{State, may_move};

/// What a control command comes to.
enum Ruling {
    /// It is so already.
    Already,
    Refused(Refusal),
    Change(Box<JobUpdate>),
}

impl Ledger {
    /// Judges one control command; returns whether it put an update into the batch, which then is complete.
    pub(super) fn judge_control(
        &mut self,
        ticket: Ticket,
        control: Control,
        batch: &mut InFlight,
        now: UnixMs,
        effects: &mut Effects,
    ) -> bool {
        let ruling = match control {
            Control::Start => self.rule_start(now),
            Control::Pause => self.rule_move(State::Paused, "be paused", now),
            Control::Resume => self.rule_resume(now),
            Control::Cancel { grace_s } => self.rule_cancel(grace_s, now),
            Control::Seal => self.rule_seal(now),
            Control::Retry { only, if_run } => self.rule_retry(only, if_run, now),
            Control::Change {
                priority,
                failure_threshold,
            } => self.rule_change(priority, failure_threshold, now),
        };
        match ruling {
            Ruling::Already => effects.reply(ticket, Reply::Control(Ok(()))),
            Ruling::Refused(refusal) => effects.reply(ticket, Reply::Control(Err(refusal))),
            Ruling::Change(update) => {
                batch.update = Some(*update);
                batch.control = Some(ticket);
                return true;
            }
        }
        false
    }

    fn refuse(&self, verb: &'static str) -> Ruling {
        Ruling::Refused(Refusal::InvalidTransition {
            state: self.record.state,
            verb,
        })
    }

    fn change(&mut self, now: UnixMs, edit: impl FnOnce(&Self, &mut JobUpdate)) -> Ruling {
        let mut update = self.draft(now);
        edit(self, &mut update);
        Ruling::Change(Box::new(update))
    }

    fn rule_start(&mut self, now: UnixMs) -> Ruling {
        match self.record.state {
            State::Pending => self.change(now, |ledger, update| ledger.start(update, now)),
            State::Running => Ruling::Already,
            _ => self.refuse("be started"),
        }
    }

    fn rule_move(&mut self, to: State, verb: &'static str, now: UnixMs) -> Ruling {
        if self.record.state == to {
            Ruling::Already
        } else if may_move(self.record.state, to) {
            self.change(now, |_, update| update.state = to)
        } else {
            self.refuse(verb)
        }
    }

    fn rule_resume(&mut self, now: UnixMs) -> Ruling {
        // `pending → running` is legal, but that is starting.
        match self.record.state {
            State::Pending => self.refuse("be resumed"),
            _ => self.rule_move(State::Running, "be resumed", now),
        }
    }

    fn rule_cancel(&mut self, grace_s: u32, now: UnixMs) -> Ruling {
        let deadline = now.plus_s(grace_s);
        let waits = grace_s > 0 && (!self.leases.is_empty() || self.may_hold_unknown_leases());
        match self.record.state {
            State::Canceled => Ruling::Already,
            state if state.is_final() => self.refuse("be canceled"),
            State::Running | State::Paused if waits => self.change(now, |_, update| {
                update.state = State::Canceling;
                update.cancel_at = Some(deadline);
            }),
            State::Canceling if waits => match self.record.cancel_at {
                Some(at) if at <= deadline => Ruling::Already,
                _ => self.change(now, |_, update| update.cancel_at = Some(deadline)),
            },
            _ => self.change(now, |ledger, update| {
                let undecided = ledger.tasks.total - ledger.tasks.decided_count();
                ledger.finish(update, State::Canceled, Some(canceled(undecided)), now);
            }),
        }
    }

    fn rule_seal(&mut self, now: UnixMs) -> Ruling {
        if !self.record.open {
            Ruling::Already
        } else if self.record.state.is_final() {
            self.refuse("be sealed")
        } else {
            // Whether this ends the job is for the verdict, which looks at every batch.
            self.change(now, |_, update| update.open = false)
        }
    }

    fn rule_change(&mut self, priority: Option<i32>, threshold: Option<FailureThreshold>, now: UnixMs) -> Ruling {
        let priority = priority.unwrap_or(self.record.priority);
        let threshold = threshold.unwrap_or(self.record.policy.failure_threshold);
        if (priority, threshold) == (self.record.priority, self.record.policy.failure_threshold) {
            Ruling::Already
        } else if self.record.state.is_final() {
            // Its verdict was computed with what it had.
            self.refuse("be changed")
        } else {
            self.change(now, |_, update| {
                update.priority = priority;
                update.policy.failure_threshold = threshold;
            })
        }
    }

    /// Proof that the job may be deleted as it stands: the fence and the run to delete it in.
    pub fn may_be_deleted(&self) -> Result<(Fence, Run), Refusal> {
        if self.record.state.is_final() {
            Ok((self.fence, self.record.run))
        } else {
            Err(Refusal::InvalidTransition {
                state: self.record.state,
                verb: "be deleted",
            })
        }
    }

    fn rule_retry(&mut self, only: RetryOnly, if_run: Option<Run>, now: UnixMs) -> Ruling {
        if if_run.is_some_and(|run| run != self.record.run) {
            return Ruling::Refused(Refusal::WrongRun { run: self.record.run });
        }
        if !self.record.state.is_final() {
            return self.refuse("be retried");
        }
        let repeats = match only {
            RetryOnly::Failed => self.tasks.total > self.tasks.succeeded_count(),
            RetryOnly::All => self.tasks.total > 0,
        };
        if !repeats {
            return self.refuse("be retried: no task would be repeated");
        }
        let ruling = self.change(now, |ledger, update| {
            update.state = State::Running;
            update.run = ledger.record.run.next();
            update.error = None;
            update.started_at = Some(now);
            update.finished_at = None;
            update.cancel_at = None;
            match only {
                RetryOnly::Failed => update.promote_late = true,
                RetryOnly::All => update.base_run = update.run,
            }
            update.tally = ledger.tally_of_next_run(only);
        });
        // The store numbers the promoted rows from the update's own position on.
        self.assigned = Seq(self.assigned.0 + 1 + self.tasks.late.len() as i64);
        ruling
    }

    fn tally_of_next_run(&self, only: RetryOnly) -> crate::domain::job::Tally {
        let mut next = self.tasks.clone();
        match only {
            RetryOnly::Failed => next.repeat_failed(),
            RetryOnly::All => next.repeat_all(),
        }
        crate::domain::job::Tally {
            total: next.total,
            succeeded: next.succeeded_count(),
            failed: next.failed_count(),
            reached: vec![next.succeeded_count(); self.record.stages.len()],
            counters: next.counters,
        }
    }
}
