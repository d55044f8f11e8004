//! The node's pulse: renew the lease, look who lives, keep a fair share of the queues.
//!
//! Owns: when the node looks around, and what it does about it. Never: waits for a hand-over or a take-over (the lease must be renewed
//! meanwhile). Invariant: after a lapse nothing is served before the store has said what is still ours.

use super::balance::{self, Plan};
use super::job_actor::StopJob;
use super::manner::Manner;
use super::node::Threads;
use super::queue_actor::OwnedElsewhere;
use super::shared::Shared;
use super::term::BootMs;
use super::{Coordinator, CoordinatorError};
use crate::store::{Census, StoreError};
use futures_util::future::join_all;
use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// After a beat that failed: the lease runs.
const RETRY: Duration = Duration::from_millis(250);
/// Beats after which jobs are looked for that nobody told us of.
const SWEEP_EVERY: u32 = 3;
/// Added to the moment at which another node's lease runs out.
const AFTER_ITS_END: Duration = Duration::from_millis(50);
/// Longest wait until what others own by now is stopped here.
const STOPPING: Duration = Duration::from_secs(1);
/// A step of the store's clock that no call takes by itself.
const SUDDEN_MS: i64 = 2_000;

/// What one beat leaves to the next.
#[derive(Default)]
struct Memory {
    had_surplus: bool,
    beats: u32,
}

/// Beats until the node has left. Holds the node's threads only while it beats, so that a node that is dropped ends.
pub(super) async fn run(shared: Arc<Shared>, threads: Weak<Threads>) {
    let interval = Duration::from_millis(u64::from(shared.settings.node_lease_s).max(1) * 1000 / 3);
    let mut memory = Memory::default();
    let mut nap = interval;
    loop {
        let _ = tokio::time::timeout(nap, shared.beat_now.notified()).await;
        if shared.has_left() || shared.is_deposed() {
            return;
        }
        let Some(threads) = threads.upgrade() else { return };
        let coordinator = Coordinator {
            shared: shared.clone(),
            threads,
            manner: Manner::default(),
        };
        nap = match beat(&coordinator, &mut memory).await {
            Ok(()) if shared.lets_others_come_back() => RETRY.min(interval),
            Ok(()) => interval.min(soonest_end(&shared)),
            Err(StoreError::Fenced(why)) => {
                tracing::error!(%why, "another incarnation of this node has started; this one ends");
                shared.depose();
                return;
            }
            Err(error) => {
                shared.store_failed(&error);
                RETRY.min(interval)
            }
        };
        shared.beat();
    }
}

/// When the next lease of another node runs out.
fn soonest_end(shared: &Shared) -> Duration {
    let census = shared.owners.census();
    let others = census.nodes.iter().filter(|node| node.node != shared.identity.node);
    let soonest = others.map(|node| node.left_ms.max(0) as u64).min();
    soonest.map_or(Duration::MAX, |left_ms| Duration::from_millis(left_ms) + AFTER_ITS_END)
}

async fn beat(coordinator: &Coordinator, memory: &mut Memory) -> Result<(), StoreError> {
    let shared = &coordinator.shared;
    let hung = |_| StoreError::Unavailable("no sign of life could be given in time".into());
    let patience = Duration::from_secs(u64::from(shared.settings.node_lease_s).max(1));
    let mut has_lapsed = !shared.term.holds();
    let sent = BootMs::now();
    let us = shared.identity();
    tokio::time::timeout(patience, shared.store.heartbeat(&us))
        .await
        .map_err(hung)??;
    // The renewal may have been on its way for so long that the lease ended first, and somebody took a queue.
    has_lapsed |= !shared.term.holds();
    if has_lapsed {
        shared.note_outage();
    } else {
        shared.term.renewed(sent);
    }
    let now = tokio::time::timeout(patience, shared.store.clock())
        .await
        .map_err(hung)??;
    if shared.clock.is_behind(now) > SUDDEN_MS {
        // The machine slept, or somebody set the database's clock: that is no time in which anybody was late.
        tracing::warn!("time has jumped ahead; leases get that back");
        shared.note_outage();
        shared.clock.anchor(now);
        shared.note_recovery();
    }
    shared.clock.anchor(now);
    if shared.is_store_shared() {
        let looked = shared.owners.look(shared, Instant::now()).await;
        looked.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let census = shared.owners.census();
        let is_given_up = believe(shared, &census, has_lapsed).await;
        if has_lapsed && !is_given_up {
            tracing::warn!("what another node owns by now has not stopped here yet; the term does not begin before");
            shared.beat_now.notify_one();
        } else if has_lapsed {
            tracing::warn!("the lease is renewed after a lapse; what nobody took meanwhile is served again");
            shared.term.renewed(sent);
            shared.note_renewal();
        }
        memory.beats += 1;
        if !shared.is_draining() && shared.is_started() && shared.term.holds() {
            tend(coordinator, &census, memory);
        }
    }
    shared.store_answered();
    Ok(())
}

/// Gives up what another node owns by now. False if it was not all stopped in time; jobs are waited for only after a lapse, since until it
/// ends they answer nobody.
async fn believe(shared: &Shared, census: &Census, has_lapsed: bool) -> bool {
    // Listed before the queues are looked up, so that jobs of a queue that is taken meanwhile are not among them.
    let jobs = if has_lapsed {
        shared.directory.jobs()
    } else {
        Vec::new()
    };
    let us = shared.identity.node.as_str();
    let others = census.queues.iter().filter(|owner| owner.node.as_deref() != Some(us));
    let giving_up = others.map(|owner| async move {
        let is_lost = match shared.directory.queue(&owner.queue) {
            // A closed mailbox has stopped by itself.
            Some(queue) => queue.addr.send(OwnedElsewhere(owner.epoch)).await.unwrap_or(true),
            // Its actor is gone; its jobs may still have requests before the word that they are to stop.
            None => true,
        };
        is_lost.then_some(owner.queue.as_str())
    });
    let stopping = async {
        let lost: HashSet<&str> = join_all(giving_up).await.into_iter().flatten().collect();
        let of_lost = jobs.iter().filter(|(_, job)| lost.contains(&*job.queue));
        join_all(of_lost.map(|(_, job)| job.addr.send(StopJob))).await;
    };
    tokio::time::timeout(STOPPING, stopping).await.is_ok()
}

/// Takes and gives queues, beside the beat: both may have to wait for other nodes.
fn tend(coordinator: &Coordinator, census: &Census, memory: &mut Memory) {
    let shared = &coordinator.shared;
    let us = shared.identity.node.as_str();
    let mut plan = balance::plan(census, us, memory.had_surplus);
    memory.had_surplus = balance::has_surplus(census, us);
    if shared.lets_others_come_back() {
        plan.take.clear();
    }
    let mine = census.queues.iter().filter(|queue| queue.node.as_deref() == Some(us));
    // Left by an older incarnation, or by an answer that was lost.
    plan.take.extend(
        mine.map(|queue| &queue.queue)
            .filter(|queue| shared.directory.queue(queue).is_none())
            .cloned(),
    );
    let sweeps = memory.beats.is_multiple_of(SWEEP_EVERY);
    if plan == Plan::default() && !sweeps && shared.abandoned().is_empty() {
        return;
    }
    let Ok(turn) = shared.tending.clone().try_lock_owned() else {
        return; // The last round is still at it.
    };
    let coordinator = coordinator.clone();
    actix::spawn(async move {
        if let Err(error) = carry_out(&coordinator, plan, sweeps).await {
            tracing::warn!(%error, "the share of queues could not be kept; the next beat tries again");
        }
        drop(turn);
    });
}

async fn carry_out(coordinator: &Coordinator, plan: Plan, sweeps: bool) -> Result<(), CoordinatorError> {
    let shared = &coordinator.shared;
    {
        let _no_take_over_meanwhile = shared.taking.lock().await;
        coordinator.release_abandoned().await?;
    }
    for queue in plan.take {
        match coordinator.take_queue(&queue).await {
            Ok(Some(_)) => tracing::info!(%queue, "queue taken"),
            Ok(None) => {}
            // A transaction of its dead owner may hold this one up; the others do not wait for that.
            Err(error) => tracing::warn!(%queue, %error, "the queue cannot be taken yet; the next beat tries again"),
        }
    }
    for queue in plan.give {
        // Nobody presses: a slow commit gets the time that it gets in a drain.
        let deadline = Instant::now() + shared.settings.drain_timeout;
        if let Some(queue) = shared.directory.queue(&queue).filter(|_| !shared.is_draining()) {
            coordinator.hand_over(queue, deadline).await?;
        }
    }
    if sweeps {
        for queue in shared.directory.queues() {
            coordinator.activate_unfinished(&queue).await?;
        }
    }
    Ok(())
}
