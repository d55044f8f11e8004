//! The sets of a job's tasks: what is ready, what waits for its retry, what is decided.
//!
//! Owns: those sets, spent attempts, summed counters. Never: knows leases or what is in flight; everything here is committed.
//! Invariant: ready, retrying, succeeded and failed are disjoint, every member is below `total`, and a task in none of them is leased.

use super::marks::Marks;
use super::task_map::TaskMap;
use crate::domain::ids::{Attempt, Run, TaskNo, UnixMs};
use crate::domain::rows::{Cause, Verdict};
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, BTreeSet};

/// Attempts a task has used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Spent {
    pub(super) attempts: u32,
    /// Bit `n - 1`: attempt `n` was ended by a report (not by expiry).
    pub(super) reported: u64,
    /// When the task may be handed out again.
    pub(super) due: UnixMs,
}

impl Spent {
    pub(super) fn spend(&mut self, attempt: Attempt, cause: Cause, due: UnixMs) {
        self.attempts = self.attempts.max(attempt.0);
        self.due = self.due.max(due);
        if cause == Cause::Reported {
            self.reported |= bit(attempt);
        }
    }

    pub(super) fn was_reported(&self, attempt: Attempt) -> bool {
        self.reported & bit(attempt) != 0
    }
}

/// The attempt's bit in `reported`; none for an attempt outside the policy's limit.
fn bit(attempt: Attempt) -> u64 {
    attempt.0.checked_sub(1).and_then(|n| 1u64.checked_shl(n)).unwrap_or(0)
}

/// What one result adds to the job's counters.
pub(super) type Counters = Vec<(String, i64)>;

/// Late successes that would count again after `retry only:"failed"`: task to (run, counters).
pub(super) type LateSuccesses = BTreeMap<TaskNo, (Run, Counters)>;

#[derive(Debug, Clone, Default)]
pub(super) struct Tasks {
    pub(super) total: u32,
    pub(super) ready: RoaringBitmap,
    pub(super) retrying: RoaringBitmap,
    due: BTreeSet<(UnixMs, TaskNo)>,
    pub(super) succeeded: RoaringBitmap,
    pub(super) failed: RoaringBitmap,
    pub(super) spent: TaskMap<Spent>,
    pub(super) counters: BTreeMap<String, i64>,
    pub(super) late: LateSuccesses,
    pub(super) marks: Marks,
    /// Sizes of the decided sets, kept beside them: counting a bitmap costs a walk over its containers.
    succeeded_count: u32,
    failed_count: u32,
}

impl Tasks {
    pub(super) fn verdict(&self, task: TaskNo) -> Option<Verdict> {
        if self.succeeded.contains(task.0) {
            Some(Verdict::Succeeded)
        } else if self.failed.contains(task.0) {
            Some(Verdict::Failed)
        } else {
            None
        }
    }

    pub(super) fn succeeded_count(&self) -> u32 {
        self.succeeded_count
    }

    pub(super) fn failed_count(&self) -> u32 {
        self.failed_count
    }

    pub(super) fn decided_count(&self) -> u32 {
        self.succeeded_count + self.failed_count
    }

    pub(super) fn spent(&self, task: TaskNo) -> Spent {
        self.spent.get(&task).copied().unwrap_or_default()
    }

    /// Adds so many new tasks behind the last one; all of them are ready.
    pub(super) fn grow(&mut self, added: u32) {
        self.ready.insert_range(self.total..self.total + added);
        self.total += added;
    }

    /// Takes an undecided task out of ready and retrying: it is leased or decided from here on.
    pub(super) fn take(&mut self, task: TaskNo) {
        if !self.ready.remove(task.0) && self.retrying.remove(task.0) {
            let due = self.spent(task).due;
            self.due.remove(&(due, task));
        }
    }

    /// The lowest ready tasks, taken out.
    pub(super) fn take_ready(&mut self, most: u32) -> Vec<TaskNo> {
        let taken: Vec<TaskNo> = self.ready.iter().take(most as usize).map(TaskNo).collect();
        match taken.as_slice() {
            [] => {}
            // A dense run is the common case, and one range removal is cheaper than one search per task.
            [first, .., last] if (last.0 - first.0) as usize == taken.len() - 1 => {
                self.ready.remove_range(first.0..=last.0);
            }
            some => some.iter().for_each(|task| {
                self.ready.remove(task.0);
            }),
        }
        taken
    }

    /// Gives an undecided task back.
    pub(super) fn put_ready(&mut self, task: TaskNo) {
        self.ready.insert(task.0);
    }

    /// Parks an undecided task until its retry is due.
    pub(super) fn park(&mut self, task: TaskNo, spent: Spent) {
        self.take(task);
        self.spent.insert(task, spent);
        self.retrying.insert(task.0);
        self.due.insert((spent.due, task));
    }

    /// Moves every task whose retry is due to ready.
    pub(super) fn wake(&mut self, now: UnixMs) {
        while let Some(&(due, task)) = self.due.first() {
            if due > now {
                break;
            }
            self.due.pop_first();
            self.retrying.remove(task.0);
            self.ready.insert(task.0);
        }
    }

    pub(super) fn next_due(&self) -> Option<UnixMs> {
        self.due.first().map(|&(due, _)| due)
    }

    /// Records a verdict; a success replaces a failure, nothing replaces a success.
    pub(super) fn decide(&mut self, task: TaskNo, verdict: Verdict, counters: &[(String, i64)]) {
        self.take(task);
        match verdict {
            Verdict::Succeeded => {
                if !self.succeeded.insert(task.0) {
                    return;
                }
                self.succeeded_count += 1;
                if self.failed.remove(task.0) {
                    self.failed_count -= 1;
                }
                for (name, value) in counters {
                    add(&mut self.counters, name, *value);
                }
                // Its attempts cannot matter again within this run.
                self.spent.remove(&task);
                self.marks.imply(task);
            }
            Verdict::Failed => {
                if !self.succeeded.contains(task.0) && self.failed.insert(task.0) {
                    self.failed_count += 1;
                }
            }
        }
    }

    /// Begins a new run that keeps the successes: what failed or was left undecided is ready again, late successes count.
    pub(super) fn repeat_failed(&mut self) {
        let late = std::mem::take(&mut self.late);
        self.failed.clear();
        self.failed_count = 0;
        for (task, (_, counters)) in late {
            self.decide(task, Verdict::Succeeded, &counters);
        }
        self.reopen();
    }

    /// Begins a new run from nothing.
    pub(super) fn repeat_all(&mut self) {
        *self = Tasks {
            total: self.total,
            ..Tasks::default()
        };
        self.reopen();
    }

    fn reopen(&mut self) {
        self.spent.clear();
        self.marks = Marks::default();
        self.retrying.clear();
        self.due.clear();
        self.ready = RoaringBitmap::new();
        self.ready.insert_range(0..self.total);
        self.ready -= &self.succeeded;
        self.ready -= &self.failed;
    }

    /// Marks a task as having come to the stage at this place; a succeeded one has come to all of them.
    pub(super) fn reach(&mut self, task: TaskNo, place: usize) {
        if !self.succeeded.contains(task.0) {
            self.marks.reach(task, place);
        }
    }

    /// Nothing is handed out any more: undecided tasks are merely pending.
    pub(super) fn stop(&mut self) {
        self.ready |= &self.retrying;
        self.retrying.clear();
        self.due.clear();
    }

    /// Takes over decided sets as a snapshot kept them.
    pub(super) fn restore(&mut self, succeeded: RoaringBitmap, failed: RoaringBitmap) {
        self.succeeded_count = succeeded.len() as u32;
        self.failed_count = failed.len() as u32;
        self.succeeded = succeeded;
        self.failed = failed;
    }

    /// Rebuilds ready and retrying from the decided sets, the spent attempts and what is leased.
    pub(super) fn derive(&mut self, leased: &RoaringBitmap, now: UnixMs) {
        self.succeeded_count = self.succeeded.len() as u32;
        self.failed -= &self.succeeded;
        self.failed_count = self.failed.len() as u32;
        let decided = &self.succeeded | &self.failed;
        self.spent.retain(|task, _| !self.succeeded.contains(task.0));
        self.ready = RoaringBitmap::new();
        self.ready.insert_range(0..self.total);
        self.ready -= &decided;
        self.ready -= leased;
        self.retrying.clear();
        self.due.clear();
        for (&task, spent) in &self.spent {
            if spent.due > now && self.ready.contains(task.0) {
                self.ready.remove(task.0);
                self.retrying.insert(task.0);
                self.due.insert((spent.due, task));
            }
        }
    }
}

/// Adds to a counter, saturating: a wrong sum at the edge of 64 bits is better than a crash.
pub(super) fn add(counters: &mut BTreeMap<String, i64>, name: &str, value: i64) {
    match counters.get_mut(name) {
        Some(sum) => *sum = sum.saturating_add(value),
        None => {
            counters.insert(name.to_owned(), value);
        }
    }
}
