//! Asking for work of queues that several nodes own.
//!
//! Owns: who is asked, in which order, and for how long at a time. Never: waits for one owner while another has work. Invariant: at most one
//! grant reaches the caller; any other that arrives is given back at once, and spends no attempt. An answer without tasks means that every
//! owner said so; an owner that could not be asked is an error, never "no work".

use super::api::{CoordinatorError, Granted, LeaseAny};
use super::owners::{Neighbour, Owner};
use super::place::{Asker, Place};
use super::{Coordinator, Result};
use crate::domain::ids::JobId;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Longest wait at the owners before who owns what is looked at again.
const SLICE: Duration = Duration::from_secs(2);
/// What is known of others may be so old when a caller begins to wait.
const FRESH: Duration = Duration::from_secs(1);
/// Between two looks while an owner cannot be asked, or nobody owns a queue yet.
const NAP: Duration = Duration::from_millis(100);

/// Who has to be asked.
struct Owned {
    here: Vec<String>,
    there: Vec<(Neighbour, Vec<String>)>,
    /// Queues with work that nobody could be found for just now.
    unserved: Option<CoordinatorError>,
    /// Every queue has an owner.
    is_whole: bool,
}

/// What one owner said; none: ourselves.
type Said = (Option<Neighbour>, Result<Granted>);

impl Coordinator {
    /// The fair next job among some queues gives tasks, whoever owns them; without any the call waits, at most as long as it says.
    pub async fn lease_any(&self, call: LeaseAny) -> Result<Granted> {
        if !self.shared.is_store_shared() {
            return self.lease_alone(call).await;
        }
        self.refuse_when_draining()?;
        let deadline = Instant::now() + call.wait;
        let mut is_first = true;
        loop {
            self.shared.check_term()?;
            let is_first = std::mem::replace(&mut is_first, false);
            let owned = self.owners_of(&call.queues, is_first).await?;
            let wait = deadline.saturating_duration_since(Instant::now());
            let said = if owned.there.is_empty() && owned.unserved.is_none() {
                // A queue that has no work yet may get some through any node.
                let wait = if owned.is_whole { wait } else { wait.min(SLICE) };
                self.lease_here(LeaseAny { wait, ..call.clone() }).await
            } else {
                self.ask_owners(&call, owned, wait, is_first).await
            };
            match said {
                Ok(granted) if !granted.tasks.is_empty() => return Ok(granted),
                // An owner that could not be asked may have had work.
                answer if Instant::now() >= deadline || self.shared.is_draining() => return answer,
                Ok(_) => {}
                Err(CoordinatorError::NotOwner) => {
                    tokio::time::sleep(NAP.min(wait)).await;
                    let _ = self.shared.owners.look(&self.shared, Instant::now()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sorts queues by owner. One with work that nobody owns gets one.
    async fn owners_of(&self, queues: &[String], is_first: bool) -> Result<Owned> {
        let shared = &self.shared;
        let us = shared.identity.node.as_str();
        let mut owned = Owned {
            here: Vec::new(),
            there: Vec::new(),
            unserved: None,
            is_whole: true,
        };
        let mut elsewhere = queues
            .iter()
            .filter(|queue| shared.directory.queue(queue).is_none())
            .peekable();
        if elsewhere.peek().is_some() {
            // A queue may have got its first job, through another node, just before this call.
            let serves = |queue: &String| matches!(shared.owners.owner(queue, us), Owner::Other(_));
            let age = if is_first && !elsewhere.all(serves) {
                Duration::ZERO
            } else {
                FRESH
            };
            shared.owners.look_if_older(shared, age).await?;
        }
        for queue in queues {
            if shared.directory.queue(queue).is_some() {
                owned.here.push(queue.clone());
                continue;
            }
            let place = match shared.owners.owner(queue, us) {
                Owner::Other(other) => Ok(Place::There(other)),
                Owner::Us | Owner::Nobody { busy: true } => self.place_of_queue(queue, Asker::Client).await,
                // Without work there is nothing to ask for.
                Owner::Nobody { busy: false } | Owner::Unknown => {
                    owned.is_whole = false;
                    continue;
                }
            };
            match place {
                Ok(Place::Here) => owned.here.push(queue.clone()),
                Ok(Place::There(other)) => match owned.there.iter_mut().find(|(known, _)| *known == other) {
                    Some((_, theirs)) => theirs.push(queue.clone()),
                    None => owned.there.push((other, vec![queue.clone()])),
                },
                Err(error) => owned.unserved = Some(error),
            }
        }
        Ok(owned)
    }

    /// One round: everybody is asked without waiting, one after the other; then all of them at once, for a while.
    async fn ask_owners(&self, call: &LeaseAny, mut owned: Owned, wait: Duration, is_first: bool) -> Result<Granted> {
        let turn = self.shared.scattered.fetch_add(1, Ordering::Relaxed) as usize;
        let others = owned.there.len().max(1);
        owned.there.rotate_left(turn % others);
        let mut failed = owned.unserved.take();
        if is_first
            && call.request_id.is_some()
            && let Some(granted) = self.replay_anywhere(call, &owned).await
        {
            return Ok(granted);
        }
        let mut order: Vec<Option<usize>> = (0..owned.there.len()).map(Some).collect();
        if !owned.here.is_empty() {
            // In our turn, like everybody: work at hand costs no way, but it would keep workers from all that others own.
            order.insert(turn % (order.len() + 1), None);
        }
        for owner in order {
            match self.ask_owner(call, &owned, owner, Duration::ZERO, false).await.1 {
                Ok(granted) if !granted.tasks.is_empty() => return Ok(granted),
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if wait.is_zero() {
            return Ok(Granted::default());
        }
        self.wait_at_owners(call, &owned, wait.min(SLICE)).await
    }

    fn ask_owner(
        &self,
        call: &LeaseAny,
        owned: &Owned,
        owner: Option<usize>,
        wait: Duration,
        replay_only: bool,
    ) -> BoxFuture<'static, Said> {
        let (coordinator, mut call) = (self.clone(), LeaseAny { wait, ..call.clone() });
        let Some((other, queues)) = owner.and_then(|owner| owned.there.get(owner)).cloned() else {
            call.queues = owned.here.clone();
            return async move { (None, coordinator.lease_here(call).await) }.boxed();
        };
        call.queues = queues;
        async move {
            let said = match coordinator.shared.peers() {
                Some(peers) => peers.lease(&coordinator, &other, &call, replay_only).await,
                None => Err(CoordinatorError::NotOwner),
            };
            (Some(other), said)
        }
        .boxed()
    }

    async fn wait_at_owners(&self, call: &LeaseAny, owned: &Owned, wait: Duration) -> Result<Granted> {
        let mut waiting: FuturesUnordered<BoxFuture<'static, Said>> = FuturesUnordered::new();
        let here = (!owned.here.is_empty()).then(|| self.ask_owner(call, owned, None, wait, false));
        // Apart from the others: dropped, it gives back by itself what it was granted.
        let mut here = here.unwrap_or_else(|| std::future::pending().boxed());
        let mut here_left = !owned.here.is_empty();
        for owner in 0..owned.there.len() {
            waiting.push(self.ask_owner(call, owned, Some(owner), wait, false));
        }
        let mut failed = None;
        let end = Instant::now() + wait;
        while here_left || !waiting.is_empty() {
            let (_, said) = tokio::select! {
                said = &mut here, if here_left => {
                    here_left = false;
                    said
                }
                Some(said) = waiting.next(), if !waiting.is_empty() => said,
            };
            match said {
                Ok(granted) if !granted.tasks.is_empty() => {
                    self.clone().give_back_rest(waiting);
                    return Ok(granted);
                }
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
            // Whoever is left learns at once that an owner has gone.
            if failed.is_some() && Instant::now() < end {
                self.clone().give_back_rest(waiting);
                break;
            }
        }
        failed.map_or(Ok(Granted::default()), Err)
    }

    /// The caller has its answer: what other owners still grant goes back.
    fn give_back_rest(self, mut waiting: FuturesUnordered<BoxFuture<'static, Said>>) {
        if waiting.is_empty() {
            return;
        }
        tokio::spawn(async move {
            while let Some((other, said)) = waiting.next().await {
                let (Some(other), Ok(granted)) = (other, said) else {
                    continue;
                };
                if let Some(job) = granted.job {
                    let leases: Vec<String> = granted.tasks.into_iter().map(|task| task.lease).collect();
                    self.give_back_to(&other, job.id, &leases).await;
                }
            }
        });
    }

    async fn give_back_to(&self, other: &Neighbour, job: JobId, leases: &[String]) {
        if let Some(peers) = self.shared.peers()
            && let Err(error) = peers.give_back(self, other, job, leases).await
        {
            tracing::warn!(%job, leases = leases.len(), %error, "leases could not be given back; they run out");
        }
    }

    /// Gives back leases of a job that another node serves.
    pub(super) fn give_back_elsewhere(&self, job: JobId, leases: Vec<String>) {
        let coordinator = self.clone();
        tokio::spawn(async move {
            if let Ok(Place::There(other)) = coordinator.place_of_job(job, Asker::Client).await {
                coordinator.give_back_to(&other, job, &leases).await;
            }
        });
    }

    /// The grant that this very call got before, from whichever owner.
    async fn replay_anywhere(&self, call: &LeaseAny, owned: &Owned) -> Option<Granted> {
        if let Ok(Some(granted)) = self.replay(call).await {
            return Some(granted);
        }
        let asking: FuturesUnordered<_> = (0..owned.there.len())
            .map(|owner| self.ask_owner(call, owned, Some(owner), Duration::ZERO, true))
            .collect();
        let mut answers: Vec<Said> = asking.collect().await;
        let found = answers
            .iter()
            .position(|(_, said)| said.as_ref().is_ok_and(|granted| !granted.tasks.is_empty()))?;
        let found = answers.swap_remove(found).1.ok();
        // One grant reaches the caller.
        let rest: FuturesUnordered<BoxFuture<'static, Said>> = answers
            .into_iter()
            .map(|said| std::future::ready(said).boxed())
            .collect();
        self.clone().give_back_rest(rest);
        found
    }
}
