//! The budget, share by share.
//!
//! Owns: what may be taken, by whom, in which order. Never: waits long. Invariant: none of its own.

use super::*;
use std::time::Duration;

/// Without anything kept or pledged.
fn plain(units: usize) -> BodyBudget {
    BodyBudget::new(units * UNIT_BYTES, units * UNIT_BYTES)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(20)
}

#[test]
fn fm36_reservations_never_pass_the_budget_and_come_back() {
    let budget = plain(10);
    let first = budget.reserve(6 * UNIT_BYTES).unwrap();
    assert_eq!(budget.reserve(5 * UNIT_BYTES).unwrap_err().problem().code, "busy");
    let second = budget.clone().reserve(4 * UNIT_BYTES).unwrap();
    assert!(budget.reserve(1).is_err());
    assert!(budget.reserve(0).is_ok());
    drop((first, second));
    assert!(budget.reserve(10 * UNIT_BYTES).is_ok());
}

#[tokio::test]
async fn fm36_a_share_grows_within_the_budget_and_is_given_back_in_part() {
    let budget = plain(10);
    let mut share = budget.reserve(2 * UNIT_BYTES).unwrap();
    share.grow_to(8 * UNIT_BYTES, Instant::now()).await.unwrap();
    share.grow_to(1, Instant::now()).await.unwrap();
    let more = share.grow_to(11 * UNIT_BYTES, Instant::now()).await;
    assert_eq!(more.unwrap_err().problem().code, "busy");
    assert!(budget.reserve(3 * UNIT_BYTES).is_err());
    share.give_back(3 * UNIT_BYTES + 1);
    let mut other = budget.reserve(5 * UNIT_BYTES).unwrap();
    assert!(budget.reserve(1).is_err());
    other.shrink_to(4 * UNIT_BYTES);
    other.shrink_to(9 * UNIT_BYTES);
    assert!(budget.reserve(UNIT_BYTES + 1).is_err() && budget.reserve(UNIT_BYTES).is_ok());
    share.give_back(usize::MAX);
    drop((share, other));
    assert!(budget.reserve(10 * UNIT_BYTES).is_ok());
}

#[tokio::test]
async fn fm36_small_bodies_do_not_wait_behind_large_ones() {
    let budget = BodyBudget::new(64 << 20, 8 << 20);
    let held = budget.reserve(56 << 20).unwrap();
    let waiting = budget.clone();
    let large = tokio::spawn(async move {
        waiting
            .reserve_by(8 << 20, Instant::now() + Duration::from_secs(60))
            .await
    });
    tokio::task::yield_now().await;
    assert!(budget.reserve(2 << 20).is_err(), "the large one takes up what is free");
    let small: Vec<Reservation> = (0..2).map(|_| budget.reserve(SMALL_BYTES).unwrap()).collect();
    assert!(budget.reserve(SMALL_BYTES).is_err(), "small ones have taken theirs");
    let tiny = budget.reserve(20).unwrap();
    let tiny_waits = budget.clone();
    let many = async move { tiny_waits.reserve_by(3 << 19, soon()).await };
    drop((small, tiny));
    assert!(many.await.is_err(), "what is kept for small ones is for small ones");
    drop(held);
    let large = large.await.unwrap().unwrap();
    assert!(budget.reserve((64 - 8 - 4) << 20).is_ok());
    drop(large);
    assert!(budget.reserve(60 << 20).is_ok() && budget.reserve(61 << 20).is_err());
}

#[tokio::test]
async fn fm36_who_waits_in_vain_leaves_nothing_taken() {
    let budget = BodyBudget::new(64 << 20, 8 << 20);
    let all: Vec<Reservation> = std::iter::from_fn(|| budget.reserve(TINY_BYTES).ok()).collect();
    assert_eq!(all.len(), (64 << 20) / TINY_BYTES);
    for bytes in [20, TINY_BYTES, SMALL_BYTES, 8 << 20] {
        let refused = budget.reserve_by(bytes, soon()).await;
        assert_eq!(refused.unwrap_err().problem().code, "busy");
    }
    drop(all);
    assert!(budget.reserve(60 << 20).is_ok());
}

#[test]
fn pledges_leave_room_for_the_largest_body() {
    let budget = BodyBudget::new(64 << 20, 8 << 20);
    let mut share = budget.nothing();
    assert!(share.pledge(40 << 20) && share.pledge(12 << 20));
    assert!(!share.pledge(1));
    share.redeem();
    assert!(share.pledge(52 << 20));
    assert!(!plain(10).nothing().pledge(1));
}
