//! How many jobs and callers a queue has.
//!
//! Owns: the two gauges of a queue. Never: changes what it counts, but for callers that went away. Invariant: a gauge falls as well as it
//! rises: a caller that went away is counted for one look at most, and a queue that was given up has nothing.

use super::QueueActor;
use actix::prelude::*;
use metrics::Gauge;
use std::time::Duration;

/// Callers that went away are looked for so often, while there are callers.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How many callers wait here?
#[derive(Message)]
#[rtype(result = "u32")]
pub(in crate::coordinator) struct CountParked;

pub(super) struct Gauges {
    active_jobs: Gauge,
    parked_polls: Gauge,
    /// Somebody was counted as parked, and nobody has looked since whether they are still there.
    look: Option<SpawnHandle>,
}

impl Gauges {
    pub(super) fn of(queue: &str) -> Gauges {
        Gauges {
            active_jobs: metrics::gauge!("tallykeeper_active_jobs", "queue" => queue.to_owned()),
            parked_polls: metrics::gauge!("tallykeeper_parked_polls", "queue" => queue.to_owned()),
            look: None,
        }
    }
}

impl QueueActor {
    pub(super) fn show_counts(&self) {
        self.gauges.active_jobs.set(self.jobs.len() as f64);
        self.gauges.parked_polls.set(self.parked.len() as f64);
    }

    /// Nobody tells the queue that a caller went away.
    pub(super) fn look_for_callers_later(&mut self, ctx: &mut Context<Self>) {
        if self.parked.is_empty() || self.gauges.look.is_some() {
            return;
        }
        self.gauges.look = Some(ctx.run_later(LOOK_EVERY, |queue, ctx| {
            queue.gauges.look = None;
            queue.parked.retain(|_, poll| poll.is_waiting());
            queue.show_counts();
            queue.look_for_callers_later(ctx);
        }));
    }
}

impl Handler<CountParked> for QueueActor {
    type Result = u32;

    fn handle(&mut self, _: CountParked, _: &mut Self::Context) -> u32 {
        self.parked.values().filter(|poll| poll.is_waiting()).count() as u32
    }
}
