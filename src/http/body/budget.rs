//! The node's budget of body bytes.
//!
//! Owns: how much of all bodies together is in memory, and who may have it. Never: waits longer than it was told; a request that does not fit is told to come
//! back. Invariant: the sum of living reservations is at most the budget, and of those that wait for more one at least will get it.
//!
//! Who waits for much is served in turn and takes up all that is given back meanwhile. So a part of the budget is kept for small bodies, and a part of
//! that for tiny ones: a worker that asks for tasks does not wait behind posts of many megabytes.
//!
//! A body whose length nobody knows takes more as it comes, and holds what it has while it waits. If such bodies could hold everything, each would
//! wait for the others. So what they hold while they may still wait is *pledged*, and pledges leave room for the largest body: whoever is first in turn
//! finds that room once those that wait for nothing have gone. Who finds no pledge takes all that it may ever need at once, before it holds anything.

use crate::http::error::{ApiError, ApiResult};
use futures_util::future::select_all;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Bytes are counted in these, so that budgets above 4 GiB fit the semaphore's permits.
const UNIT_BYTES: usize = 1024;
/// The longest body that may also take from what is kept for small ones, and for tiny ones.
const SMALL_BYTES: usize = 1 << 20;
const TINY_BYTES: usize = 64 << 10;
/// Of the budget so much is kept for small bodies, and again for tiny ones, if it holds a body of the largest size besides.
const KEPT_PART: usize = 32;

/// Bytes of bodies the node may hold at once; clones share one budget.
#[derive(Debug, Clone)]
pub struct BodyBudget {
    /// For all, for small bodies, for tiny ones.
    pools: [Arc<Semaphore>; 3],
    pledges: Arc<Semaphore>,
    largest_bytes: usize,
}

/// A share of the budget, given back on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: BodyBudget,
    /// By pool.
    permits: [Option<OwnedSemaphorePermit>; 3],
    pledged: Option<OwnedSemaphorePermit>,
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT_BYTES)
}

fn busy() -> ApiError {
    ApiError::busy("request bodies")
}

fn add(held: &mut Option<OwnedSemaphorePermit>, more: OwnedSemaphorePermit) {
    match held {
        Some(permit) => permit.merge(more),
        none => *none = Some(more),
    }
}

impl Reservation {
    fn units(&self) -> usize {
        let held = self.permits.iter().flatten();
        held.map(OwnedSemaphorePermit::num_permits).sum()
    }

    /// Makes the share as large as this as soon as there is room, or says busy when it is later than `until`; never makes it smaller. What
    /// waits while it holds something must have pledged it.
    pub async fn grow_to(&mut self, bytes: usize, until: Instant) -> ApiResult<()> {
        let more = units(bytes).saturating_sub(self.units());
        if more == 0 {
            return Ok(());
        }
        let more = u32::try_from(more).map_err(|_| busy())?;
        let (pool, permit) = match self.budget.take_now(bytes, more) {
            Some(taken) => taken,
            None => self.budget.take_by(bytes, more, until).await?,
        };
        add(&mut self.permits[pool], permit);
        Ok(())
    }

    /// Pledges so much more of what is held, or will be, so that it may be held while waiting. False if there are too many pledges.
    pub fn pledge(&mut self, bytes: usize) -> bool {
        let Ok(more) = u32::try_from(units(bytes)) else {
            return false;
        };
        let pledge = Arc::clone(&self.budget.pledges).try_acquire_many_owned(more);
        pledge.map(|pledge| add(&mut self.pledged, pledge)).is_ok()
    }

    /// Waits for nothing from now on.
    pub fn redeem(&mut self) {
        self.pledged = None;
    }

    /// Gives back what is no longer held, rounded down.
    pub fn give_back(&mut self, bytes: usize) {
        let mut units = bytes / UNIT_BYTES;
        for permit in self.permits.iter_mut().flatten() {
            let part = units.min(permit.num_permits());
            drop(permit.split(part));
            units -= part;
        }
    }

    /// Gives back all but so much.
    pub fn shrink_to(&mut self, bytes: usize) {
        self.give_back(self.units().saturating_sub(units(bytes)) * UNIT_BYTES);
    }
}

impl BodyBudget {
    /// `largest`: the most that one body takes.
    pub fn new(bytes: usize, largest: usize) -> Self {
        let whole = units(bytes).min(Semaphore::MAX_PERMITS);
        let spare = whole.saturating_sub(units(largest));
        let kept = (whole / KEPT_PART).min(spare / 2);
        let common = whole - 2 * kept;
        let pool = |units| Arc::new(Semaphore::new(units));
        BodyBudget {
            pools: [pool(common), pool(kept), pool(kept)],
            pledges: pool(common.saturating_sub(units(largest))),
            largest_bytes: largest.min(bytes),
        }
    }

    /// The most that one body takes.
    pub fn largest_bytes(&self) -> usize {
        self.largest_bytes
    }

    /// Nothing yet, to grow.
    pub fn nothing(&self) -> Reservation {
        Reservation {
            budget: self.clone(),
            permits: [const { None }; 3],
            pledged: None,
        }
    }

    /// Takes a share, or says busy.
    pub fn reserve(&self, bytes: usize) -> ApiResult<Reservation> {
        let mut reservation = self.nothing();
        if bytes > 0 {
            let units = u32::try_from(units(bytes)).map_err(|_| busy())?;
            let (pool, permit) = self.take_now(bytes, units).ok_or_else(busy)?;
            add(&mut reservation.permits[pool], permit);
        }
        Ok(reservation)
    }

    /// Takes a share as soon as there is one, or says busy when it is later than this.
    pub async fn reserve_by(&self, bytes: usize, until: Instant) -> ApiResult<Reservation> {
        let mut reservation = self.nothing();
        reservation.grow_to(bytes, until).await?;
        Ok(reservation)
    }

    /// Where a share of this size may come from.
    fn open_to(&self, bytes: usize) -> &[Arc<Semaphore>] {
        let pools = 1 + usize::from(bytes <= SMALL_BYTES) + usize::from(bytes <= TINY_BYTES);
        &self.pools[..pools]
    }

    /// So many units for a share that will have this size, and the pool they are from.
    fn take_now(&self, bytes: usize, units: u32) -> Option<(usize, OwnedSemaphorePermit)> {
        let pools = self.open_to(bytes).iter().enumerate();
        pools
            .filter_map(|(pool, semaphore)| Some((pool, Arc::clone(semaphore).try_acquire_many_owned(units).ok()?)))
            .next()
    }

    async fn take_by(&self, bytes: usize, units: u32, until: Instant) -> ApiResult<(usize, OwnedSemaphorePermit)> {
        let pools = self.open_to(bytes).iter();
        let takings = pools.map(|semaphore| Box::pin(Arc::clone(semaphore).acquire_many_owned(units)));
        // Whoever is in several queues leaves all of them with the first turn that comes.
        let (taken, pool, _) = timeout_at(until, select_all(takings)).await.map_err(|_| busy())?;
        Ok((pool, taken.map_err(|_| busy())?))
    }
}

#[cfg(test)]
#[path = "budget_test.rs"]
mod tests;
