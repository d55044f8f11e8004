//! The node's budget of body bytes.
//!
//! Owns: how much of all bodies together is in memory. Never: waits; a request that does not fit is told to come back. Invariant: the
//! sum of living reservations is at most the budget.

use crate::http::error::{ApiError, ApiResult};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes are counted in these, so that budgets above 4 GiB fit the semaphore's permits.
const UNIT_BYTES: usize = 1024;

/// Bytes of bodies the node may hold at once; clones share one budget.
#[derive(Clone)]
pub struct BodyBudget {
    units: Arc<Semaphore>,
}

/// A share of the budget, given back on drop.
#[derive(Debug)]
pub struct Reservation {
    _permit: Option<OwnedSemaphorePermit>,
}

impl BodyBudget {
    pub fn new(bytes: usize) -> Self {
        BodyBudget {
            units: Arc::new(Semaphore::new(bytes.div_ceil(UNIT_BYTES).min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Takes a share, or says busy.
    pub fn reserve(&self, bytes: usize) -> ApiResult<Reservation> {
        if bytes == 0 {
            return Ok(Reservation { _permit: None });
        }
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).map_err(|_| ApiError::busy("request bodies"))?;
        match Arc::clone(&self.units).try_acquire_many_owned(units) {
            Ok(permit) => Ok(Reservation { _permit: Some(permit) }),
            Err(_) => Err(ApiError::busy("request bodies")),
        }
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
}
