//! Nodes and the ownership of queues.
//!
//! Owns: the tests of `NodeStore`. Never: waits for a lease; a lease of no length has run out at once. Invariant: none of its own.

use super::fixture::*;
use tallykeeper::store::StoreError;

pub(super) async fn migrating_again_runs_nothing(store: AnyStore) {
    assert_eq!(store.migrate().await.unwrap(), 0);
}

pub(super) async fn the_clock_does_not_run_backwards(store: AnyStore) {
    let (first, second) = (store.clock().await.unwrap(), store.clock().await.unwrap());
    assert!(first <= second, "{first} {second}");
    // Milliseconds, not seconds or microseconds: between the years 2020 and 2100.
    assert!((1_577_836_800_000..4_102_444_800_000).contains(&first.0), "{first}");
}

pub(super) async fn a_second_living_incarnation_conflicts(store: AnyStore) {
    let first = node("n", "1", ALIVE_S);
    store.register_node(&first, false).await.unwrap();
    let second = store.register_node(&node("n", "2", ALIVE_S), false).await;
    assert!(matches!(second, Err(StoreError::Conflict(_))), "{second:?}");
    store.heartbeat(&first).await.unwrap();
}

pub(super) async fn a_dead_or_gone_incarnation_is_replaced_without_asking(store: AnyStore) {
    store.register_node(&node("n", "1", DEAD_S), false).await.unwrap();
    let second = node("n", "2", ALIVE_S);
    store.register_node(&second, false).await.unwrap();
    store.release_node(&second).await.unwrap();
    store.register_node(&node("n", "3", ALIVE_S), false).await.unwrap();
    assert_eq!(store.list_nodes().await.unwrap()[0].incarnation, "3");
}

pub(super) async fn fm55_a_replaced_incarnation_finds_out_and_takes_nothing(store: AnyStore) {
    let first = registered(&store, "n", "1", ALIVE_S).await;
    store.take_queues(&first, Some("q")).await.unwrap();
    let second = registered(&store, "n", "2", ALIVE_S).await;
    let beat = store.heartbeat(&first).await;
    assert!(matches!(beat, Err(StoreError::Fenced(_))), "{beat:?}");
    store.take_queues(&second, None).await.unwrap();
    let taken = store.take_queues(&first, None).await;
    assert!(matches!(taken, Err(StoreError::Fenced(_))), "{taken:?}");
    let still = store.take_queues(&second, None).await.unwrap();
    assert!(fence_of(&still, "q").is_some(), "{still:?}");
}

pub(super) async fn registering_again_is_no_conflict(store: AnyStore) {
    let same = node("n", "1", ALIVE_S);
    store.register_node(&same, false).await.unwrap();
    store.register_node(&same, false).await.unwrap();
    store.heartbeat(&same).await.unwrap();
}

pub(super) async fn taking_a_named_queue_creates_it(store: AnyStore) {
    let home = registered(&store, "n", "1", ALIVE_S).await;
    let before = store.take_queues(&home, None).await.unwrap();
    assert!(before.owned.is_empty(), "{before:?}");
    let after = store.take_queues(&home, Some("q")).await.unwrap();
    assert_eq!(after.owned.len(), 1);
    assert_eq!(fence_of(&after, "q").unwrap().epoch.0, 1);
}

pub(super) async fn taking_takes_what_nobody_owns_and_answers_everything_owned(store: AnyStore) {
    let home = registered(&store, "n", "1", ALIVE_S).await;
    store.take_queues(&home, Some("a")).await.unwrap();
    create(&store, &job("b")).await;
    create(&store, &job("c")).await;
    let named = store.take_queues(&home, Some("b")).await.unwrap();
    assert!(fence_of(&named, "a").is_some() && fence_of(&named, "b").is_some());
    assert!(fence_of(&named, "c").is_none(), "only the named queue is taken");
    let all = store.take_queues(&home, None).await.unwrap();
    assert_eq!(all.owned.len(), 3);
}

pub(super) async fn taking_again_keeps_the_epoch(store: AnyStore) {
    let home = registered(&store, "n", "1", ALIVE_S).await;
    let first = store.take_queues(&home, Some("q")).await.unwrap();
    let second = store.take_queues(&home, Some("q")).await.unwrap();
    assert_eq!(first, second);
}

pub(super) async fn a_new_incarnation_takes_its_own_queues_back(store: AnyStore) {
    let first = registered(&store, "n", "1", ALIVE_S).await;
    let before = store.take_queues(&first, Some("q")).await.unwrap();
    let second = registered(&store, "n", "2", ALIVE_S).await;
    let after = store.take_queues(&second, None).await.unwrap();
    let (before, after) = (fence_of(&before, "q").unwrap(), fence_of(&after, "q").unwrap());
    assert_eq!(after.queue, before.queue);
    assert_eq!(after.epoch.0, before.epoch.0 + 1);
}

pub(super) async fn a_dead_owners_queues_are_taken_and_a_living_ones_are_not(store: AnyStore) {
    let dead = registered(&store, "dead", "1", DEAD_S).await;
    store.take_queues(&dead, Some("orphan")).await.unwrap();
    let living = registered(&store, "living", "1", ALIVE_S).await;
    store.take_queues(&living, Some("held")).await.unwrap();
    let home = registered(&store, "home", "1", ALIVE_S).await;
    let taken = store.take_queues(&home, None).await.unwrap();
    assert_eq!(fence_of(&taken, "orphan").unwrap().epoch.0, 2);
    assert!(fence_of(&taken, "held").is_none());
    assert_eq!(taken.held_by_others, [("held".to_owned(), "living".to_owned())]);
    let named = store.take_queues(&home, Some("held")).await.unwrap();
    assert!(fence_of(&named, "held").is_none());
}

pub(super) async fn a_released_node_is_gone_and_its_queues_are_free(store: AnyStore) {
    let first = registered(&store, "first", "1", ALIVE_S).await;
    store.take_queues(&first, Some("q")).await.unwrap();
    store.release_node(&first).await.unwrap();
    assert!(!store.list_nodes().await.unwrap()[0].alive);
    let beat = store.heartbeat(&first).await;
    assert!(matches!(beat, Err(StoreError::Fenced(_))), "{beat:?}");
    let second = registered(&store, "second", "1", ALIVE_S).await;
    let taken = store.take_queues(&second, None).await.unwrap();
    assert_eq!(fence_of(&taken, "q").unwrap().epoch.0, 2);
}

pub(super) async fn nodes_are_listed_with_their_signs_of_life(store: AnyStore) {
    registered(&store, "b", "1", DEAD_S).await;
    let living = registered(&store, "a", "1", ALIVE_S).await;
    let before = store.list_nodes().await.unwrap();
    assert_eq!((before[0].node.as_str(), before[0].alive), ("a", true));
    assert_eq!((before[1].node.as_str(), before[1].alive), ("b", false));
    assert_eq!(before[0].address, "http://a");
    store.heartbeat(&living).await.unwrap();
    let after = store.list_nodes().await.unwrap();
    assert!(after[0].seen_at >= before[0].seen_at);
    assert_eq!(after[0].started_at, before[0].started_at);
}
