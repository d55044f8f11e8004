//! The share of the budget that one body has, while it comes.
//!
//! Owns: how much room a body takes, and when. Never: reads. Invariant: there is room for the next piece before it is read.

use super::Allowance;
use super::budget::Reservation;
use super::inflate::STEP_BYTES;
use crate::http::error::ApiResult;
use std::time::Duration;
use tokio::time::Instant;

/// Room that a body of unknown length begins with; most need no more.
const FIRST_BYTES: usize = 2 * STEP_BYTES;
/// It is made so many times as large when it is used up.
const GROWTH: usize = 8;

/// A body's room.
pub(super) struct Share {
    reservation: Reservation,
    /// Bytes of the body for which there is room, or was before they were given back.
    room: usize,
    /// The most that the body can be.
    most: usize,
    given_back: usize,
    /// Held besides what comes: a decoder's window.
    aside: usize,
    /// What is left of the time for which its reader waits for room.
    patience: Duration,
}

impl Share {
    /// Room for a body of so many bytes, or to begin one of unknown length.
    pub(super) async fn take(
        allowance: Allowance<'_>,
        announced: Option<usize>,
        aside: usize,
        patience: Duration,
    ) -> ApiResult<Share> {
        let budget = allowance.budget;
        let most = announced.unwrap_or(allowance.limit);
        let mut share = Share {
            reservation: budget.nothing(),
            room: 0,
            most,
            given_back: 0,
            // A budget that is hardly larger than the largest body still takes one.
            aside: aside.min(budget.largest_bytes().saturating_sub(most)),
            patience,
        };
        let first = announced.unwrap_or(FIRST_BYTES).min(share.most);
        share.grow_to(first).await?;
        Ok(share)
    }

    /// Makes sure of room for another piece after so many bytes.
    pub(super) async fn make_room(&mut self, seen: usize) -> ApiResult<()> {
        while self.room < self.most && seen + STEP_BYTES > self.room {
            self.grow_to(self.room.saturating_mul(GROWTH).min(self.most)).await?;
        }
        Ok(())
    }

    async fn grow_to(&mut self, room: usize) -> ApiResult<()> {
        let more = self.held(room) - self.held(self.room);
        // With less than all that it may need it could have to wait for more, and hold this meanwhile.
        let room = match room < self.most && self.reservation.pledge(more) {
            true => room,
            false => self.most,
        };
        let began = Instant::now();
        let until = began + self.patience;
        self.reservation.grow_to(self.held(room), until).await?;
        self.patience = self.patience.saturating_sub(began.elapsed());
        self.room = room;
        if room == self.most {
            self.reservation.redeem();
        }
        Ok(())
    }

    /// What is held with so much room; nothing without any.
    fn held(&self, room: usize) -> usize {
        match room {
            0 => 0,
            room => room + self.aside - self.given_back,
        }
    }

    /// So many bytes of what came are no longer held.
    pub(super) fn give_back(&mut self, bytes: usize) {
        self.reservation.give_back(bytes);
        self.given_back += bytes;
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// The body has come whole, and is so long.
    pub(super) fn settle(&mut self, seen: usize) {
        self.reservation.redeem();
        self.reservation.shrink_to(seen - self.given_back);
        (self.room, self.most, self.aside) = (seen, seen, 0);
    }

    pub(super) fn into_reservation(self) -> Reservation {
        self.reservation
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::budget::BodyBudget;
    use crate::http::settings::HttpSettings;
    use futures_util::future::join_all;

    const MIB: usize = 1 << 20;

    async fn grown(budget: BodyBudget, aside: usize, bytes: usize) -> ApiResult<()> {
        let settings = HttpSettings::default();
        let allowance = Allowance {
            limit: 8 * MIB,
            budget: &budget,
            settings: &settings,
        };
        let mut share = Share::take(allowance, None, aside, Duration::from_secs(15)).await?;
        for seen in (0..bytes).step_by(STEP_BYTES) {
            share.make_room(seen).await?;
            assert!(share.room >= (seen + STEP_BYTES).min(8 * MIB));
            tokio::task::yield_now().await;
        }
        share.settle(bytes);
        tokio::task::yield_now().await;
        Ok(())
    }

    /// If each waited for another, their patience would end.
    #[tokio::test]
    async fn fm36_of_bodies_that_hold_a_part_and_wait_for_more_all_get_it() {
        for budget in [16, 17, 24, 32, 64] {
            let budget = BodyBudget::new(budget * MIB, 16 * MIB);
            let growing = (0..60).map(|n| {
                let (budget, aside) = (budget.clone(), n % 3 / 2 * 8 * MIB);
                tokio::spawn(grown(budget, aside, [8, 3, 1][n % 3] * MIB))
            });
            for grown in join_all(growing).await {
                grown.unwrap().expect("nobody waits for ever");
            }
            drop(budget.reserve(budget.largest_bytes()).expect("all is given back"));
        }
    }

    #[tokio::test]
    async fn a_share_is_what_is_held() {
        let budget = BodyBudget::new(64 * MIB, 8 * MIB);
        let settings = HttpSettings::default();
        let allowance = Allowance {
            limit: 8 * MIB,
            budget: &budget,
            settings: &settings,
        };
        let whole = || budget.reserve(60 * MIB).is_ok();
        let mut share = Share::take(allowance, None, 0, Duration::ZERO).await.unwrap();
        assert!(budget.reserve(60 * MIB - FIRST_BYTES).is_ok() && !whole());
        share.make_room(FIRST_BYTES).await.unwrap();
        share.give_back(FIRST_BYTES);
        assert!(budget.reserve(60 * MIB - (GROWTH - 1) * FIRST_BYTES).is_ok());
        share.make_room(GROWTH * FIRST_BYTES).await.unwrap();
        share.settle(3 * MIB);
        assert!(budget.reserve(57 * MIB + FIRST_BYTES).is_ok() && !whole());
        drop(share.into_reservation());
        assert!(whole());
    }
}
