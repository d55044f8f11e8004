//! Completion events that wait to be sent.
//!
//! Owns: the tests of `EventStore`. Never: makes a call. Invariant: none of its own.

use super::fixture::*;
use futures_util::future::join_all;
use std::collections::BTreeSet;
use tallykeeper::domain::callback::Fate;
use tallykeeper::domain::ids::{JobId, Run, UnixMs};
use tallykeeper::domain::job::{Fence, JobRecord};
use tallykeeper::domain::state::State;
use tallykeeper::store::{Claiming, DueEvent, StoreError};

const URL: &str = "https://a.example/hook";
const LATER: UnixMs = UnixMs(THEN.0 + 60_000);

/// A job that ended at `THEN` plus `seq` milliseconds and has `url` called.
async fn ended(store: &AnyStore, url: Option<&str>, seq: i64) -> (JobRecord, Fence) {
    let fence = own(store, "q").await;
    let mut new = job("q");
    new.callback_url = url.map(str::to_owned);
    let record = create(store, &new).await;
    let end = with_update(record.id, fence, update(&record, State::Succeeded, seq));
    commit(store, end).await;
    (record, fence)
}

fn claiming(now: UnixMs, limit: u32) -> Claiming {
    Claiming {
        now,
        until: now.plus_s(20),
        limit,
        per_receiver: 100,
        under_way: Vec::new(),
    }
}

async fn claim(store: &AnyStore, claiming: &Claiming) -> Vec<DueEvent> {
    store.claim_events(claiming).await.expect("a claim")
}

fn jobs(events: &[DueEvent]) -> BTreeSet<JobId> {
    events.iter().map(|event| event.job).collect()
}

async fn waiting(store: &AnyStore) -> u64 {
    store.waiting_events().await.expect("a count")
}

pub(super) async fn fm56_an_end_leaves_an_event_that_waits_if_somebody_is_to_be_called(store: AnyStore) {
    ended(&store, None, 1).await;
    assert_eq!(waiting(&store).await, 0);
    let (record, _) = ended(&store, Some(URL), 2).await;
    let mut empty = job("q");
    empty.state = State::Succeeded;
    empty.callback_url = Some("http://b.example:81/".into());
    let empty = create(&store, &empty).await;
    assert_eq!(waiting(&store).await, 2);
    let mut due = claim(&store, &claiming(LATER, 10)).await;
    due.sort_by_key(|event| event.job);
    let said: serde_json::Value = serde_json::from_str(&due[0].payload).expect("an event is JSON");
    assert_eq!(
        (&said["type"], &said["data"]["state"], &said["data"]["id"]),
        (&"job.completed".into(), &"succeeded".into(), &record.id.0.into())
    );
    assert_eq!(said["id"], due[0].id.as_str());
    let first = &due[0];
    assert_eq!(
        (first.job, first.run, first.url.as_str(), first.receiver.as_str()),
        (record.id, Run(1), URL, "a.example")
    );
    assert_eq!((first.attempts, first.since), (1, LATER));
    assert_eq!((due[1].job, due[1].receiver.as_str()), (empty.id, "b.example:81"));
}

pub(super) async fn fm56_a_replayed_end_leaves_its_event_as_it_is(store: AnyStore) {
    let (record, fence) = ended(&store, Some(URL), 1).await;
    let due = claim(&store, &claiming(LATER, 1)).await;
    let delivered = Fate::Delivered { at: LATER };
    assert!(store.settle_event(&due[0].id, due[0].claim, &delivered).await.unwrap());
    commit(
        &store,
        with_update(record.id, fence, update(&record, State::Succeeded, 1)),
    )
    .await;
    assert_eq!(waiting(&store).await, 0);
    let rows = store.events(record.id, 10).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].delivered_at, Some(LATER));
}

pub(super) async fn due_events_are_claimed_oldest_first_and_put_off(store: AnyStore) {
    let mut made = Vec::new();
    for seq in [3, 1, 2] {
        made.push(ended(&store, Some(URL), seq).await.0.id);
    }
    let at = |ms| claiming(THEN.plus_ms(ms), 2);
    assert_eq!(claim(&store, &at(0)).await, [], "none is due yet");
    let first = claim(&store, &at(3)).await;
    assert_eq!(jobs(&first), BTreeSet::from([made[1], made[2]]));
    let second = claim(&store, &at(3)).await;
    assert_eq!(jobs(&second), BTreeSet::from([made[0]]));
    assert_eq!(claim(&store, &at(3)).await, []);
    assert_eq!(waiting(&store).await, 3);
    let next = async |ms| store.next_event(THEN.plus_ms(ms)).await.expect("a moment");
    assert_eq!(next(0).await, Some(THEN.plus_ms(20_003)), "all were put off until then");
    assert_eq!(next(20_003).await, None);
}

pub(super) async fn fm56_a_claim_that_was_not_settled_ends_by_itself(store: AnyStore) {
    ended(&store, Some(URL), 1).await;
    let first = claim(&store, &claiming(LATER, 1)).await.remove(0);
    assert_eq!(claim(&store, &claiming(LATER.plus_ms(19_999), 1)).await, []);
    let again = claim(&store, &claiming(LATER.plus_s(20), 1)).await.remove(0);
    let expected = DueEvent {
        attempts: 2,
        claim: again.claim,
        ..first.clone()
    };
    assert_eq!(again, expected, "the same event, first tried when it was first tried");
    assert!(again.claim > first.claim);
}

pub(super) async fn of_racing_claimers_one_gets_an_event(store: AnyStore) {
    let mut made = BTreeSet::new();
    for seq in 0..12 {
        made.insert(ended(&store, Some(URL), seq).await.0.id);
    }
    let claims = (0..6).map(|_| async { claim(&store, &claiming(LATER, 4)).await });
    let mut got: Vec<JobId> = join_all(claims).await.concat().iter().map(|event| event.job).collect();
    let count = got.len();
    got.sort_unstable();
    got.dedup();
    assert_eq!(got.len(), count, "nothing was handed out twice");
    // A claimer that lost a race may have got less than its limit; nothing is lost by that.
    loop {
        let rest = claim(&store, &claiming(LATER, 4)).await;
        if rest.is_empty() {
            break;
        }
        got.extend(rest.iter().map(|event| event.job));
    }
    assert_eq!(got.len(), 12);
    assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), made);
}

pub(super) async fn a_receiver_gets_no_more_than_its_share(store: AnyStore) {
    let mut slow = BTreeSet::new();
    for seq in 0..5 {
        slow.insert(ended(&store, Some("http://slow.example/x"), seq).await.0.id);
    }
    let (other, _) = ended(&store, Some(URL), 9).await;
    let limited = |under_way: &[(&str, u32)]| Claiming {
        per_receiver: 2,
        under_way: under_way
            .iter()
            .map(|&(name, calls)| (name.to_owned(), calls))
            .collect(),
        ..claiming(LATER, 10)
    };
    let first = claim(&store, &limited(&[("slow.example", 1), ("a.example", 1)])).await;
    assert_eq!(first.len(), 2);
    assert!(jobs(&first).contains(&other.id));
    assert_eq!(claim(&store, &limited(&[("slow.example", 2)])).await, []);
    assert_eq!(claim(&store, &limited(&[("slow.example", 7)])).await, []);
    let second = claim(&store, &limited(&[("elsewhere.example", 9)])).await;
    assert_eq!(second.len(), 2);
    assert!(jobs(&second).is_subset(&slow));
}

pub(super) async fn a_receiver_with_fewer_calls_goes_first(store: AnyStore) {
    for seq in 0..6 {
        let url = format!("http://slow{}.example/", seq % 2);
        ended(&store, Some(&url), seq).await;
    }
    let (quick, _) = ended(&store, Some(URL), 9).await;
    let one = |under_way: &[(&str, u32)]| Claiming {
        under_way: under_way
            .iter()
            .map(|&(name, calls)| (name.to_owned(), calls))
            .collect(),
        ..claiming(LATER, 1)
    };
    let busy = [("slow0.example", 1), ("slow1.example", 2)];
    assert_eq!(jobs(&claim(&store, &one(&busy)).await), BTreeSet::from([quick.id]));
    let next = claim(&store, &one(&busy)).await;
    assert_eq!(
        next[0].receiver, "slow0.example",
        "what has been due for longest comes second"
    );
    // Nobody has any: each gets one before one gets two.
    let all = claim(&store, &claiming(LATER, 2)).await;
    let receivers: BTreeSet<&str> = all.iter().map(|event| event.receiver.as_str()).collect();
    assert_eq!(receivers, BTreeSet::from(["slow0.example", "slow1.example"]));
}

pub(super) async fn what_became_of_a_call_is_kept(store: AnyStore) {
    let (record, _) = ended(&store, Some(URL), 1).await;
    let row = async || store.events(record.id, 10).await.unwrap().remove(0);
    let due = claim(&store, &claiming(LATER, 1)).await.remove(0);
    let error = "the receiver answered 500 \u{1F41B}".to_owned();
    let again = Fate::Again {
        at: LATER.plus_s(5),
        error: error.clone(),
    };
    assert!(store.settle_event(&due.id, due.claim, &again).await.unwrap());
    let found = row().await;
    assert_eq!((found.due_at, found.attempts), (Some(LATER.plus_s(5)), 1));
    assert_eq!(found.last_error.as_ref(), Some(&error));
    assert_eq!((found.url.as_str(), found.created_at), (URL, THEN.plus_ms(1)));
    assert_eq!((found.delivered_at, found.given_up_at), (None, None));
    assert_eq!(claim(&store, &claiming(LATER.plus_ms(4_999), 1)).await, []);
    let due = claim(&store, &claiming(LATER.plus_s(5), 1)).await.remove(0);
    assert_eq!((due.attempts, due.since), (2, LATER));
    let given_up = Fate::GivenUp {
        at: LATER.plus_s(6),
        error,
    };
    assert!(store.settle_event(&due.id, due.claim, &given_up).await.unwrap());
    let found = row().await;
    assert_eq!((found.due_at, found.given_up_at), (None, Some(LATER.plus_s(6))));
    assert!(found.last_error.is_some());
    assert_eq!(waiting(&store).await, 0);
    assert_eq!(claim(&store, &claiming(LATER.plus_s(999), 1)).await, []);
}

pub(super) async fn an_older_claim_settles_nothing(store: AnyStore) {
    let (record, _) = ended(&store, Some(URL), 1).await;
    let old = claim(&store, &claiming(LATER, 1)).await.remove(0);
    let new = claim(&store, &claiming(LATER.plus_s(20), 1)).await.remove(0);
    let delivered = Fate::Delivered { at: LATER };
    assert!(!store.settle_event(&old.id, old.claim, &delivered).await.unwrap());
    assert!(!store.settle_event("job-0", new.claim, &delivered).await.unwrap());
    assert_eq!(store.events(record.id, 1).await.unwrap()[0].delivered_at, None);
    assert!(store.settle_event(&new.id, new.claim, &delivered).await.unwrap());
    let row = store.events(record.id, 1).await.unwrap().remove(0);
    assert_eq!((row.delivered_at, row.last_error), (Some(LATER), None));
}

pub(super) async fn events_are_listed_from_the_last_run(store: AnyStore) {
    let (record, fence) = ended(&store, Some(URL), 1).await;
    commit(&store, with_update(record.id, fence, retry(&record, 1, 2, 2))).await;
    let second = reread(&store, record.id).await;
    commit(&store, with_update(record.id, fence, update(&second, State::Failed, 3))).await;
    ended(&store, Some(URL), 4).await;
    let (unheard, _) = ended(&store, None, 5).await;
    let runs = |limit| {
        let store = &store;
        async move {
            let rows = store.events(record.id, limit).await.unwrap();
            rows.iter().map(|row| row.run.0).collect::<Vec<_>>()
        }
    };
    assert_eq!(runs(10).await, [2, 1]);
    assert_eq!(runs(1).await, [2]);
    assert_eq!(store.events(unheard.id, 10).await.unwrap(), []);
}

pub(super) async fn an_event_is_sent_again_as_if_it_were_new(store: AnyStore) {
    let (record, _) = ended(&store, Some(URL), 1).await;
    let (other, _) = ended(&store, None, 2).await;
    let under_way = claim(&store, &claiming(LATER, 1)).await.remove(0);
    let row = store
        .resend_event(record.id, &under_way.id, LATER.plus_ms(1))
        .await
        .unwrap();
    assert_eq!((row.due_at, row.attempts), (Some(LATER.plus_ms(1)), 0));
    // What was under way says nothing about what was asked for after it.
    let delivered = Fate::Delivered { at: LATER };
    assert!(
        !store
            .settle_event(&under_way.id, under_way.claim, &delivered)
            .await
            .unwrap()
    );
    let due = claim(&store, &claiming(LATER.plus_ms(1), 1)).await.remove(0);
    assert_eq!((due.attempts, due.since), (1, LATER.plus_ms(1)));
    let given_up = Fate::GivenUp {
        at: LATER,
        error: "no".into(),
    };
    assert!(store.settle_event(&due.id, due.claim, &given_up).await.unwrap());
    let row = store.resend_event(record.id, &due.id, LATER.plus_ms(2)).await.unwrap();
    assert_eq!(
        (row.given_up_at, row.last_error, row.due_at),
        (None, None, Some(LATER.plus_ms(2)))
    );
    let unheard = format!("job-{}-run-1-{:x}", other.id, THEN.0);
    for (job, id) in [
        (record.id, "job-0"),
        (other.id, due.id.as_str()),
        (other.id, unheard.as_str()),
        (JobId(999), due.id.as_str()),
    ] {
        let refused = store.resend_event(job, id, LATER).await;
        assert!(matches!(refused, Err(StoreError::NotFound(_))), "{id}: {refused:?}");
    }
}

pub(super) async fn fm56_the_event_of_a_deleted_job_is_sent_and_then_goes(store: AnyStore) {
    let (record, fence) = ended(&store, Some(URL), 1).await;
    let (settled, _) = ended(&store, Some(URL), 2).await;
    let mut due = claim(&store, &claiming(LATER, 2)).await;
    due.sort_by_key(|event| event.job);
    let delivered = Fate::Delivered { at: LATER };
    assert!(store.settle_event(&due[1].id, due[1].claim, &delivered).await.unwrap());
    for job in [record.id, settled.id] {
        store.delete_job(job, fence, Run(1)).await.unwrap();
    }
    while store.purge_deleted(1).await.unwrap() {}
    assert_eq!(
        store.events(settled.id, 10).await.unwrap(),
        [],
        "nothing was left to do"
    );
    let again = Fate::Again {
        at: LATER.plus_s(1),
        error: "no".into(),
    };
    assert!(store.settle_event(&due[0].id, due[0].claim, &again).await.unwrap());
    assert_eq!(waiting(&store).await, 1, "it waits, job or not");
    let last = claim(&store, &claiming(LATER.plus_s(1), 1)).await.remove(0);
    assert_eq!(last.payload, due[0].payload);
    assert!(store.settle_event(&last.id, last.claim, &delivered).await.unwrap());
    assert_eq!(store.events(record.id, 10).await.unwrap(), []);
}
