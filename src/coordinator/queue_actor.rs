//! The owner of one queue: which of its jobs is served next, and who waits for work.
//!
//! Owns: the [`Rotation`], the parked polls, the job actors of the queue. Never: looks into a job. Invariant: a parked poll is passed on as
//! soon as a job of the queue has work, and is answered at most once.

mod counts;
mod listing;
mod poll;

pub(super) use counts::CountParked;
pub(super) use listing::{ListClaimable, Listed, Served};
pub(super) use poll::Poll;

use super::api::{CoordinatorError, Granted};
use super::directory::{HeadRank, JobHandle};
use super::job_actor::{Answer, JobActor, Load, Serve, StopJob};
use super::shared::Shared;
use crate::domain::ids::{Epoch, JobId, QueueId, UnixMs};
use crate::domain::job::Fence;
use crate::domain::ledger::NewerTokens;
use crate::domain::rotation::Rotation;
use crate::store::{OwnedQueue, StoreError};
use actix::prelude::*;
use counts::Gauges;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// A caller polls this queue.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct PollQueue(pub(super) Poll);

/// The job had nothing for this poll.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Unserved(pub(super) Poll);

/// How many tasks a job could hand out now.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub(super) struct Claimability {
    pub(super) job: JobId,
    pub(super) priority: i32,
    pub(super) ready: u32,
    /// False while the job is being loaded: what it has is not known then.
    pub(super) is_loaded: bool,
}

/// A job actor has stopped.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct JobGone {
    pub(super) job: JobId,
    pub(super) actor: Addr<JobActor>,
}

/// A job cannot prove that it is its only writer; find out who owns the queue.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub(super) struct OwnershipInDoubt {
    pub(super) job: JobId,
    pub(super) fence: Fence,
    pub(super) newer_tokens: NewerTokens,
}

/// Make sure that a job of this queue has its actor.
#[derive(Message)]
#[rtype(result = "Option<JobHandle>")]
pub(super) struct Activate(pub(super) JobId);

/// The queue is being handed over: no more grants, parked callers go. Answers the jobs that have to settle.
#[derive(Message)]
#[rtype(result = "Vec<(JobId, Addr<JobActor>)>")]
pub(super) struct StandDown;

/// The queue was given up: stop, with every job.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct StopQueue;

/// The store says that another node, or nobody, has the queue under this epoch. Answers whether it is given up here for that.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "bool")]
pub(super) struct OwnedElsewhere(pub(super) Epoch);

pub(super) struct QueueActor {
    name: Arc<str>,
    fence: Fence,
    /// Before it another process may have handed out tasks of this queue.
    owned_since: UnixMs,
    shared: Arc<Shared>,
    rotation: Rotation,
    /// How often a job said that it has work: a poll that came away with nothing asks again after a newer offer.
    offers: HashMap<JobId, u64>,
    /// Jobs that were not heard since they are being loaded. While there are any, nobody is told that there is nothing.
    loading: HashSet<JobId>,
    jobs: HashMap<JobId, JobHandle>,
    parked: BTreeMap<u64, Poll>,
    parked_ever: u64,
    sweep_at: usize,
    gauges: Gauges,
    head: Arc<Mutex<HeadRank>>,
    /// It is being handed over.
    is_leaving: bool,
}

impl QueueActor {
    pub(super) fn new(
        name: Arc<str>,
        id: QueueId,
        epoch: Epoch,
        shared: Arc<Shared>,
        head: Arc<Mutex<HeadRank>>,
    ) -> QueueActor {
        QueueActor {
            gauges: Gauges::of(&name),
            name,
            fence: Fence { queue: id, epoch },
            owned_since: match epoch {
                Epoch(..=1) => UnixMs(0), // Nobody had it before.
                _ => shared.clock.now(),
            },
            shared,
            rotation: Rotation::default(),
            offers: HashMap::new(),
            loading: HashSet::new(),
            jobs: HashMap::new(),
            parked: BTreeMap::new(),
            parked_ever: 0,
            sweep_at: 64,
            head,
            is_leaving: false,
        }
    }

    fn offer_of(&self, job: JobId) -> u64 {
        self.offers.get(&job).copied().unwrap_or(0)
    }

    /// Passes a poll to the next job whose offer it has not tried; without one it parks or is sent home. Returns its place among the parked if
    /// it took nothing.
    fn dispatch(&mut self, poll: Poll) -> Option<u64> {
        let place = self.pass_or_park(poll);
        self.show_counts();
        place
    }

    fn pass_or_park(&mut self, mut poll: Poll) -> Option<u64> {
        if !poll.is_waiting() {
            // What it was woken for is for whoever waits behind it.
            return poll.since;
        }
        if self.is_leaving {
            return self.send_away(&poll);
        }
        if let Err(lapsed) = self.shared.check_term() {
            poll.answer(Err(lapsed));
            return None;
        }
        let untried = |job: &JobId| !poll.tried.contains(&(*job, self.offer_of(*job)));
        let next = self.rotation.iter().find(untried);
        match next.and_then(|job| Some((job, self.jobs.get(&job)?.addr.clone()))) {
            Some((job, addr)) => {
                self.rotation.served(job, self.shared.next_serving());
                self.publish_head();
                poll.tried.push((job, self.offer_of(job)));
                addr.do_send(Serve(poll));
                None
            }
            None if (poll.may_park || !self.loading.is_empty()) && !self.shared.is_draining() => {
                poll.tried.clear();
                Some(self.park(poll))
            }
            None => {
                poll.answer(Ok(Answer::Granted(Granted::default())));
                None
            }
        }
    }

    fn park(&mut self, mut poll: Poll) -> u64 {
        let since = *poll.since.get_or_insert_with(|| {
            self.parked_ever += 1;
            self.parked_ever
        });
        self.parked.insert(since, poll);
        if self.parked.len() >= self.sweep_at {
            // Callers that went away leave their poll behind; drop those before they add up.
            self.parked.retain(|_, poll| poll.is_waiting());
            self.sweep_at = (2 * self.parked.len()).max(64);
        }
        since
    }

    /// What the poll parked at this place could not take may suit one that waits behind it (a worker below its cap, say).
    fn pass_on(&mut self, behind: u64) {
        while !self.rotation.is_empty()
            && let Some((&since, _)) = self.parked.range(behind + 1..).next()
            && let Some(poll) = self.parked.remove(&since)
        {
            if poll.is_waiting() {
                self.dispatch(poll);
                return;
            }
        }
    }

    /// The job is known, or gone. Callers who would not wait were only kept for that.
    fn heard(&mut self, job: JobId) {
        if self.loading.remove(&job) && self.loading.is_empty() {
            for (_, poll) in self.parked.extract_if(.., |_, poll| !poll.may_park).collect::<Vec<_>>() {
                self.dispatch(poll);
            }
        }
    }

    /// Passes on the longest waiting polls, at most as many as there are tasks. One whose caller is gone uses no task up.
    fn serve_parked(&mut self, most: u32) {
        let mut left = most;
        while left > 0
            && let Some((_, poll)) = self.parked.pop_first()
        {
            if poll.is_waiting() {
                left -= 1;
                self.dispatch(poll);
            }
        }
    }

    fn publish_head(&self) {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = self.rotation.head_rank();
    }

    /// Acts on what the store said about who owns this queue.
    fn resolve(&mut self, doubt: OwnershipInDoubt, owned: Option<OwnedQueue>, ctx: &mut Context<Self>) {
        let Some(owned) = owned else {
            tracing::warn!(queue = %self.name, "the queue belongs to another node now");
            return self.stop(ctx);
        };
        let fence = Fence {
            queue: owned.id,
            epoch: owned.epoch,
        };
        let moved = fence != self.fence;
        self.fence = fence;
        if moved {
            self.owned_since = self.shared.clock.now();
        }
        let newer_tokens = doubt.newer_tokens;
        if moved {
            self.loading.extend(self.jobs.keys());
            self.jobs
                .values()
                .for_each(|job| job.addr.do_send(Load { fence, newer_tokens }));
        } else if let Some(job) = self.jobs.get(&doubt.job) {
            self.loading.insert(doubt.job);
            job.addr.do_send(Load { fence, newer_tokens });
        }
    }

    /// Nothing more is served here. Parked callers are told where that was decided.
    fn stop(&mut self, ctx: &mut Context<Self>) {
        self.is_leaving = true;
        if self.shared.directory.leave_queue(&self.name, &ctx.address()) {
            // Should the row be ours after all, writes of this epoch may be under way: it is not served again under the same one.
            self.shared.abandon(self.fence.queue);
        }
        self.jobs.drain().for_each(|(_, job)| job.addr.do_send(StopJob));
        self.dismiss();
        ctx.stop();
    }

    fn dismiss(&mut self) {
        for (_, poll) in std::mem::take(&mut self.parked) {
            self.send_away(&poll);
        }
        self.show_counts();
    }

    /// Elsewhere there may be work; a node that ends says that there is none, so that its caller can go on.
    fn send_away(&self, poll: &Poll) -> Option<u64> {
        poll.answer(match self.shared.is_draining() {
            true => Ok(Answer::Granted(Granted::default())),
            false => Err(CoordinatorError::NotOwner),
        });
        None
    }
}

impl Actor for QueueActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(2 * self.shared.settings.parked_limit + 1_024);
    }
}

impl Handler<PollQueue> for QueueActor {
    type Result = ();

    fn handle(&mut self, PollQueue(poll): PollQueue, ctx: &mut Self::Context) {
        self.dispatch(poll);
        self.look_for_callers_later(ctx);
    }
}

impl Handler<Unserved> for QueueActor {
    type Result = ();

    fn handle(&mut self, Unserved(poll): Unserved, ctx: &mut Self::Context) {
        if let Some(place) = self.dispatch(poll) {
            self.pass_on(place);
        }
        self.look_for_callers_later(ctx);
    }
}

impl Handler<Claimability> for QueueActor {
    type Result = ();

    fn handle(&mut self, news: Claimability, _: &mut Self::Context) {
        let job = news.job;
        if news.ready > 0 && self.jobs.contains_key(&job) {
            self.rotation.offer(job, news.priority);
            *self.offers.entry(job).or_default() += 1;
        } else {
            self.rotation.withdraw(job);
        }
        self.publish_head();
        self.serve_parked(news.ready);
        if news.is_loaded {
            self.heard(job);
        }
    }
}

impl Handler<JobGone> for QueueActor {
    type Result = ();

    fn handle(&mut self, gone: JobGone, _: &mut Self::Context) {
        if self.jobs.get(&gone.job).is_some_and(|job| job.addr == gone.actor) {
            self.jobs.remove(&gone.job);
            self.rotation.forget(gone.job);
            self.offers.remove(&gone.job);
            self.publish_head();
            self.heard(gone.job);
            self.show_counts();
        }
    }
}

impl Handler<Activate> for QueueActor {
    type Result = MessageResult<Activate>;

    fn handle(&mut self, Activate(job): Activate, ctx: &mut Self::Context) -> Self::Result {
        if self.is_leaving {
            return MessageResult(None);
        }
        if let Some(handle) = self.jobs.get(&job).filter(|handle| handle.addr.connected()) {
            return MessageResult(Some(handle.clone()));
        }
        let actor = JobActor::new(job, self.shared.clone(), ctx.address(), self.fence, self.owned_since).start();
        let handle = JobHandle::new(actor, self.name.clone(), &self.shared.settings);
        self.jobs.insert(job, handle.clone());
        self.loading.insert(job);
        self.shared.directory.enter_job(job, handle.clone());
        self.show_counts();
        MessageResult(Some(handle))
    }
}

impl Handler<StandDown> for QueueActor {
    type Result = MessageResult<StandDown>;

    fn handle(&mut self, _: StandDown, _: &mut Self::Context) -> Self::Result {
        self.is_leaving = true;
        self.dismiss();
        MessageResult(
            self.jobs
                .iter()
                .map(|(job, handle)| (*job, handle.addr.clone()))
                .collect(),
        )
    }
}

impl Handler<StopQueue> for QueueActor {
    type Result = ();

    fn handle(&mut self, _: StopQueue, ctx: &mut Self::Context) {
        self.stop(ctx);
    }
}

impl Handler<OwnedElsewhere> for QueueActor {
    type Result = bool;

    fn handle(&mut self, OwnedElsewhere(epoch): OwnedElsewhere, ctx: &mut Self::Context) -> bool {
        // An older epoch was read before we took the queue. While it is being handed over its row is free.
        let is_lost = epoch >= self.fence.epoch && !self.is_leaving;
        if is_lost {
            tracing::warn!(queue = %self.name, "the queue is not ours any more");
            self.stop(ctx);
        }
        is_lost
    }
}

impl Handler<OwnershipInDoubt> for QueueActor {
    type Result = ();

    fn handle(&mut self, doubt: OwnershipInDoubt, ctx: &mut Self::Context) {
        if doubt.fence != self.fence {
            return; // Resolved since: every job was told to load under the new fence.
        }
        let asking = ask_until_known(self.shared.clone(), self.name.clone());
        ctx.wait(asking.into_actor(self).map(move |owned, actor, ctx| match owned {
            Ok(owned) => actor.resolve(doubt, owned, ctx),
            Err(error) => {
                tracing::error!(queue = %actor.name, %error, "ownership cannot be told");
                actor.resolve(doubt, None, ctx);
            }
        }));
    }
}

/// Takes the queue if nobody alive holds it, and says how it is owned; none if another node does.
async fn ask_until_known(shared: Arc<Shared>, queue: Arc<str>) -> Result<Option<OwnedQueue>, StoreError> {
    let mut wait = FIRST_RETRY;
    loop {
        match shared.store.take_queues(&shared.identity, Some(&queue)).await {
            Ok(ownership) => return Ok(ownership.owned.into_iter().find(|owned| owned.queue == *queue)),
            Err(error) if error.is_retryable() => {
                shared.store_failed(&error);
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LAST_RETRY);
            }
            Err(error) => return Err(error),
        }
    }
}
