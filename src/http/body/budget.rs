//! The node's budget of body bytes.
//!
//! Owns: how much of all bodies together is in memory. Never: waits longer than it was told; a request that does not fit is told to come back. Invariant: the
//! sum of living reservations is at most the budget.

use crate::http::error::{ApiError, ApiResult};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Bytes are counted in these, so that budgets above 4 GiB fit the semaphore's permits.
const UNIT_BYTES: usize = 1024;

/// Bytes of bodies the node may hold at once; clones share one budget.
#[derive(Debug, Clone)]
pub struct BodyBudget {
    units: Arc<Semaphore>,
}

/// A share of the budget, given back on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: BodyBudget,
    permit: Option<OwnedSemaphorePermit>,
}

impl Reservation {
    /// Makes the share as large as this, or says busy; never makes it smaller.
    pub fn grow_to(&mut self, bytes: usize) -> ApiResult<()> {
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.div_ceil(UNIT_BYTES).saturating_sub(held);
        if more == 0 {
            return Ok(());
        }
        let more = self.budget.take(more)?;
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    /// Gives back what is no longer held, rounded down.
    pub fn give_back(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.permit {
            let units = (bytes / UNIT_BYTES).min(permit.num_permits());
            drop(permit.split(units));
        }
    }
}

impl BodyBudget {
    pub fn new(bytes: usize) -> Self {
        BodyBudget {
            units: Arc::new(Semaphore::new(bytes.div_ceil(UNIT_BYTES).min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Takes a share, or says busy.
    pub fn reserve(&self, bytes: usize) -> ApiResult<Reservation> {
        let mut reservation = Reservation {
            budget: self.clone(),
            permit: None,
        };
        reservation.grow_to(bytes)?;
        Ok(reservation)
    }

    /// Takes a share as soon as there is one, or says busy when it is later than this.
    pub async fn reserve_by(&self, bytes: usize, until: Instant) -> ApiResult<Reservation> {
        let busy = || ApiError::busy("request bodies");
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).map_err(|_| busy())?;
        let taking = Arc::clone(&self.units).acquire_many_owned(units);
        let taken = timeout_at(until, taking).await.map_err(|_| busy())?;
        Ok(Reservation {
            budget: self.clone(),
            permit: Some(taken.map_err(|_| busy())?),
        })
    }

    fn take(&self, units: usize) -> ApiResult<OwnedSemaphorePermit> {
        let busy = || ApiError::busy("request bodies");
        let units = u32::try_from(units).map_err(|_| busy())?;
        Arc::clone(&self.units)
            .try_acquire_many_owned(units)
            .map_err(|_| busy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fm36_reservations_never_pass_the_budget_and_come_back() {
        let budget = BodyBudget::new(10 * UNIT_BYTES);
        let first = budget.reserve(6 * UNIT_BYTES).unwrap();
        assert_eq!(budget.reserve(5 * UNIT_BYTES).unwrap_err().problem().code, "busy");
        let second = budget.clone().reserve(4 * UNIT_BYTES).unwrap();
        assert!(budget.reserve(1).is_err());
        assert!(budget.reserve(0).is_ok());
        drop((first, second));
        assert!(budget.reserve(10 * UNIT_BYTES).is_ok());
    }

    #[test]
    fn fm36_a_share_grows_within_the_budget_and_is_given_back_in_part() {
        let budget = BodyBudget::new(10 * UNIT_BYTES);
        let mut share = budget.reserve(2 * UNIT_BYTES).unwrap();
        share.grow_to(8 * UNIT_BYTES).unwrap();
        share.grow_to(1).unwrap();
        assert_eq!(share.grow_to(11 * UNIT_BYTES).unwrap_err().problem().code, "busy");
        assert!(budget.reserve(3 * UNIT_BYTES).is_err());
        share.give_back(3 * UNIT_BYTES + 1);
        let other = budget.reserve(5 * UNIT_BYTES).unwrap();
        assert!(budget.reserve(1).is_err());
        share.give_back(usize::MAX);
        drop((share, other));
        assert!(budget.reserve(10 * UNIT_BYTES).is_ok());
    }
}
