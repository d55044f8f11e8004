//! Nodes and the ownership of queues.
//!
//! Owns: the tests of `NodeStore`. Never: waits for a lease; a lease of no length has run out at once. Invariant: none of its own.

use super::fixture::*;
use tallykeeper::domain::job::NewJob;
use tallykeeper::domain::state::State;
use tallykeeper::store::{Census, StoreError};

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

pub(super) async fn a_heartbeat_says_where_the_node_is_reached(store: AnyStore) {
    let mut home = registered(&store, "n", "1", ALIVE_S).await;
    home.address = "http://elsewhere:1".into();
    store.heartbeat(&home).await.unwrap();
    assert_eq!(store.list_nodes().await.unwrap()[0].address, "http://elsewhere:1");
}

pub(super) async fn one_queue_or_all_are_released_by_their_owner_only(store: AnyStore) {
    let home = registered(&store, "home", "1", ALIVE_S).await;
    for queue in ["a", "b", "c"] {
        store.take_queues(&home, Some(queue)).await.unwrap();
    }
    let owned = store.take_queues(&home, None).await.unwrap();
    let a = fence_of(&owned, "a").unwrap();
    for stranger in [node("home", "0", ALIVE_S), node("other", "1", ALIVE_S)] {
        store.release_queues(&stranger, Some(a.queue)).await.unwrap();
        store.release_queues(&stranger, None).await.unwrap();
    }
    let owners = |census: Census| {
        let queues = census.queues.into_iter();
        queues
            .map(|queue| (queue.queue, queue.node.is_some()))
            .collect::<Vec<_>>()
    };
    let expect = |owned: [bool; 3]| -> Vec<(String, bool)> {
        ["a", "b", "c"].into_iter().map(str::to_owned).zip(owned).collect()
    };
    assert_eq!(owners(store.census().await.unwrap()), expect([true; 3]));
    store.release_queues(&home, Some(a.queue)).await.unwrap();
    assert_eq!(owners(store.census().await.unwrap()), expect([false, true, true]));
    // The node is still there, and what it takes back has another epoch.
    let again = store.take_queues(&home, Some("a")).await.unwrap();
    assert_eq!(fence_of(&again, "a").unwrap().epoch.0, a.epoch.0 + 1);
    store.release_queues(&home, None).await.unwrap();
    assert_eq!(owners(store.census().await.unwrap()), expect([false; 3]));
    store.heartbeat(&home).await.unwrap();
}

pub(super) async fn a_drain_is_announced_until_the_node_registers_again(store: AnyStore) {
    let home = registered(&store, "n", "1", ALIVE_S).await;
    let draining = async || store.census().await.unwrap().nodes[0].draining;
    store.announce_drain(&node("n", "0", ALIVE_S)).await.unwrap();
    assert!(!draining().await, "another incarnation says nothing for this one");
    store.announce_drain(&home).await.unwrap();
    assert!(draining().await);
    store.heartbeat(&home).await.unwrap();
    assert!(draining().await);
    registered(&store, "n", "2", ALIVE_S).await;
    assert!(!draining().await);
}

pub(super) async fn a_census_shows_the_living_and_what_they_own(store: AnyStore) {
    let dead = registered(&store, "dead", "1", DEAD_S).await;
    store.take_queues(&dead, Some("orphan")).await.unwrap();
    let gone = registered(&store, "gone", "1", ALIVE_S).await;
    store.take_queues(&gone, Some("left")).await.unwrap();
    let living = registered(&store, "b", "1", ALIVE_S).await;
    let held = store.take_queues(&living, Some("held")).await.unwrap();
    registered(&store, "a", "7", ALIVE_S).await;
    store.release_node(&gone).await.unwrap();
    create(&store, &job("held")).await;
    let ended = NewJob {
        state: State::Pending,
        ..job("orphan")
    };
    create(&store, &ended).await;
    let census = store.census().await.unwrap();
    let nodes: Vec<_> = census
        .nodes
        .iter()
        .map(|node| {
            (
                node.node.as_str(),
                node.incarnation.as_str(),
                node.address.as_str(),
                node.draining,
            )
        })
        .collect();
    assert_eq!(nodes, [("a", "7", "http://a", false), ("b", "1", "http://b", false)]);
    for node in &census.nodes {
        assert!((1..=i64::from(ALIVE_S) * 1000).contains(&node.left_ms), "{node:?}");
    }
    let queues: Vec<_> = census
        .queues
        .iter()
        .map(|queue| (queue.queue.as_str(), queue.node.as_deref(), queue.busy))
        .collect();
    assert_eq!(
        queues,
        [
            ("orphan", None, false),
            ("left", None, false),
            ("held", Some("b"), true)
        ]
    );
    let found = &census.queues[2];
    let fence = fence_of(&held, "held").unwrap();
    assert_eq!((found.id, found.epoch), (fence.queue, fence.epoch));
}

pub(super) async fn the_secret_stays_what_it_is(store: AnyStore) {
    let secret = store.cluster_secret().await.unwrap();
    assert!(secret.as_bytes().len() >= 32);
    assert!(secret == store.cluster_secret().await.unwrap());
    assert_eq!(format!("{secret:?}"), "ClusterSecret");
}
