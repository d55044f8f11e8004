//! Tickets.
//!
//! Owns: the tests of `TicketStore`. Never: makes a secret. Invariant: none of its own.

use super::fixture::*;
use futures_util::future::join_all;
use tallykeeper::store::TicketRow;

fn ticket(name: u8, expires_s: u32) -> TicketRow {
    TicketRow {
        hash: [name; 32],
        token_id: "t1".into(),
        path: "/v1/jobs/7/progress".into(),
        expires_at: THEN.plus_s(expires_s),
    }
}

pub(super) async fn a_ticket_is_taken_once_and_as_it_was_made(store: AnyStore) {
    let (mine, mut other) = (ticket(1, 30), ticket(2, 30));
    other.token_id = String::new();
    store.create_ticket(&mine, THEN).await.unwrap();
    store.create_ticket(&other, THEN).await.unwrap();
    assert_eq!(store.take_ticket(&[1; 32]).await.unwrap(), Some(mine));
    assert_eq!(store.take_ticket(&[1; 32]).await.unwrap(), None);
    assert_eq!(store.take_ticket(&[3; 32]).await.unwrap(), None);
    assert_eq!(store.take_ticket(&[2; 32]).await.unwrap(), Some(other));
}

pub(super) async fn of_racing_takers_one_gets_the_ticket(store: AnyStore) {
    store.create_ticket(&ticket(1, 30), THEN).await.unwrap();
    let taken = join_all((0..8).map(|_| store.take_ticket(&[1; 32]))).await;
    assert_eq!(taken.into_iter().filter_map(|taken| taken.unwrap()).count(), 1);
}

pub(super) async fn expired_tickets_are_forgotten_when_one_is_made(store: AnyStore) {
    store.create_ticket(&ticket(1, 30), THEN).await.unwrap();
    store.create_ticket(&ticket(2, 31), THEN).await.unwrap();
    store.create_ticket(&ticket(3, 60), THEN.plus_s(30)).await.unwrap();
    assert_eq!(store.take_ticket(&[1; 32]).await.unwrap(), None);
    assert_eq!(store.take_ticket(&[2; 32]).await.unwrap(), Some(ticket(2, 31)));
}
