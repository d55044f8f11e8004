//! After the commit: what was in flight becomes fact.
//!
//! Owns: moving the committed sets. Never: judges anything. Invariant: this is the only place where an outcome, an attempt or an update
//! becomes visible, and its replies leave in the same stroke.

use super::batch::{Entry, InFlight};
use super::{Effects, Ledger, RESTORED_LEASE_MS, Refusal, Reply, Settlement};
use crate::domain::ids::{TaskNo, UnixMs};
use crate::domain::progress::Throughput;
use crate::domain::rows::JobUpdate;

impl Ledger {
    pub(super) fn settle(&mut self, settlement: Settlement, now: UnixMs, effects: &mut Effects) {
        let Some(batch) = self.in_flight.take() else { return };
        let InFlight {
            entries,
            owed,
            control,
            update,
            late,
            ..
        } = batch;
        let (mut newly_decided, mut durable) = (0, self.committed);
        for (task, entry) in entries {
            if settlement.refused.contains(&task) {
                // The lease stays; an expiry that could not be recorded is tried again later.
                self.leases.extend(task, now.plus_ms(RESTORED_LEASE_MS));
            } else {
                durable = durable.max(entry.seq);
                newly_decided += u32::from(self.settle_task(task, entry));
            }
        }
        self.throughput.record(newly_decided, now);
        for (task, counters) in late {
            if !settlement.refused.contains(&task) {
                self.tasks.late.insert(task, (self.record.run, counters));
            }
        }
        if let Some(update) = update.filter(|_| !settlement.update_dropped) {
            durable = durable.max(update.changed_seq);
            self.settle_update(update);
        }
        self.committed = durable;
        self.changed();
        if let Some(ticket) = control {
            let done = if settlement.update_dropped {
                Err(Refusal::NotStored)
            } else {
                Ok(())
            };
            effects.reply(ticket, Reply::Control(done));
        }
        self.answer(owed, &settlement.refused, now, effects);
    }

    /// Returns whether the task was undecided before.
    fn settle_task(&mut self, task: TaskNo, entry: Entry) -> bool {
        let was_undecided = self.tasks.verdict(task).is_none();
        if entry.spent.is_some() {
            // Before its attempts are replaced: its place among the retries is found by when they said it was due.
            self.tasks.take(task);
        }
        match (entry.decided, entry.spent) {
            (Some(verdict), spent) => {
                self.leases.remove(task);
                if let Some(spent) = spent {
                    self.tasks.spent.insert(task, spent);
                }
                self.tasks.decide(task, verdict, &entry.counters);
                was_undecided
            }
            (None, Some(spent)) => {
                self.leases.remove(task);
                self.tasks.park(task, spent);
                false
            }
            (None, None) => false,
        }
    }

    fn settle_update(&mut self, update: JobUpdate) {
        if update.run > self.record.run {
            self.begun = false;
            self.unknown_leases_end = None;
            self.leases.clear();
            self.throughput = Throughput::default();
            self.fraction_floor = 0.0;
            self.stage_floors.clear();
            if update.promote_late {
                self.tasks.repeat_failed();
            } else {
                self.tasks.repeat_all();
            }
        } else if update.state.is_final() {
            let leased: Vec<TaskNo> = self.leases.iter().map(|(task, _)| task).collect();
            self.leases.clear();
            leased.into_iter().for_each(|task| self.tasks.put_ready(task));
            self.tasks.stop();
        }
        update.apply_to(&mut self.record);
    }
}
