//! Payloads read ahead of their leases.
//!
//! Owns: the cache of what will be handed out next. Never: holds more than its bounds, or a payload that was handed out. Invariant: a cache
//! that misses only costs a read; nothing depends on it.

use super::JobActor;
use crate::domain::ids::TaskNo;
use crate::store::TaskRow;
use actix::prelude::*;
use std::collections::HashMap;

/// Tasks read ahead at first, and at most once leases keep missing the cache.
const FIRST_AHEAD: usize = 64;
const MOST_AHEAD: usize = 8_192;
const MOST_BYTES: usize = 4 << 20;

#[derive(Default)]
pub(super) struct Payloads {
    cached: HashMap<TaskNo, TaskRow>,
    bytes: usize,
    ahead: usize,
    is_reading: bool,
}

impl Payloads {
    pub(super) fn missing(&self, tasks: &[TaskNo]) -> Vec<TaskNo> {
        tasks
            .iter()
            .filter(|task| !self.cached.contains_key(task))
            .copied()
            .collect()
    }

    pub(super) fn take(&mut self, task: TaskNo) -> Option<TaskRow> {
        let row = self.cached.remove(&task)?;
        self.bytes -= row.payload.len();
        Some(row)
    }

    /// A lease of so many tasks had to wait for the store: read further ahead from now on.
    pub(super) fn missed(&mut self, tasks: usize) {
        self.ahead = (self.ahead.max(FIRST_AHEAD) * 2).max(tasks * 4).min(MOST_AHEAD);
    }

    /// Is it worth reading more, while so many tasks can be handed out?
    fn is_low(&self, ready: usize) -> bool {
        // What is cached is (nearly always) ready, so with as many cached as are ready there is nothing left to read.
        !self.is_reading && self.cached.len() < ready.min(self.ahead / 2) && self.bytes < MOST_BYTES / 2
    }

    fn put(&mut self, row: TaskRow) {
        let bytes = row.payload.len();
        if self.bytes + bytes <= MOST_BYTES && self.cached.len() < MOST_AHEAD {
            self.bytes += bytes;
            if let Some(old) = self.cached.insert(row.task, row) {
                self.bytes -= old.payload.len();
            }
        }
    }
}

impl JobActor {
    /// Reads the payloads of the tasks that will be handed out next, if few are left.
    pub(super) fn read_ahead(&mut self, ctx: &mut Context<Self>) {
        let Some(ledger) = self.ledger.as_ref().filter(|ledger| ledger.claimable() > 0) else {
            return;
        };
        if !self.payloads.is_low(ledger.claimable() as usize) {
            return;
        }
        let upcoming = ledger.upcoming(self.payloads.ahead);
        let missing = self.payloads.missing(&upcoming);
        if missing.is_empty() {
            return;
        }
        if self.payloads.cached.len() + missing.len() > MOST_AHEAD {
            // What is cached is not what comes next (a retry went ahead of it, say).
            self.payloads.cached.clear();
            self.payloads.bytes = 0;
        }
        self.payloads.is_reading = true;
        let (store, job) = (self.shared.store.clone(), self.job);
        let reading = async move { store.tasks(job, &missing, MOST_BYTES).await };
        ctx.spawn(reading.into_actor(self).map(|read, actor, ctx| {
            actor.payloads.is_reading = false;
            match read {
                Ok(rows) => {
                    for row in rows {
                        // A task leased meanwhile has read its own payload.
                        if actor.ledger.as_ref().is_some_and(|ledger| ledger.is_ready(row.task)) {
                            actor.payloads.put(row);
                        }
                    }
                    actor.read_ahead(ctx);
                }
                Err(error) => tracing::debug!(job = %actor.job, %error, "payloads could not be read ahead"),
            }
        }));
    }
}
