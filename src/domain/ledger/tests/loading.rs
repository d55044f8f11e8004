//! Snapshots and loading: whatever was committed is found again, with or without a snapshot.

use super::durable::Durable;
use super::*;
use crate::domain::rows::Verdict;

/// A life with every kind of row in it; the store's state after every commit.
fn life() -> (Vec<Durable>, Vec<(usize, Vec<u8>)>) {
    let mut bench = Bench::with(6, |record| record.policy.max_attempts = 2);
    let mut seen = vec![bench.durable.clone()];
    let mut snapshots = Vec::new();
    let mut note = |bench: &Bench, seen: &mut Vec<Durable>| {
        seen.push(bench.durable.clone());
        snapshots.push((seen.len() - 1, bench.ledger.snapshot().1));
    };
    let leases = bench.grant("w", 5);
    bench.report(vec![counted(&leases[0], &[("n", 1)]), failure(&leases[1])]);
    note(&bench, &mut seen);
    bench.report(vec![fatal(&leases[2])]);
    note(&bench, &mut seen);
    bench.pass(LEASE_MS);
    note(&bench, &mut seen);
    bench.report(vec![counted(&leases[2], &[("n", 2), ("m", 1)])]);
    note(&bench, &mut seen);
    bench.control(Control::Cancel { grace_s: 0 }).expect("it runs");
    note(&bench, &mut seen);
    bench.report(vec![failure(&leases[4]), counted(&leases[3], &[("n", 4)])]);
    note(&bench, &mut seen);
    bench
        .control(Control::Retry {
            only: RetryOnly::Failed,
            if_run: None,
        })
        .expect("it is final");
    note(&bench, &mut seen);
    let again = bench.grant("v", 9);
    bench.report(again.iter().map(success).collect());
    note(&bench, &mut seen);
    bench
        .control(Control::Retry {
            only: RetryOnly::All,
            if_run: None,
        })
        .expect("it is final");
    note(&bench, &mut seen);
    (seen, snapshots)
}

fn fence() -> Fence {
    Fence {
        queue: QueueId(1),
        epoch: Epoch(5),
    }
}

/// What is committed of a ledger, as text.
fn committed(ledger: &mut Ledger, now: UnixMs) -> String {
    let tasks = &ledger.tasks;
    let mut spent: Vec<_> = tasks.spent.iter().map(|(task, spent)| (*task, *spent)).collect();
    spent.sort_by_key(|(task, _)| *task);
    let sets = (tasks.succeeded.clone(), tasks.failed.clone(), tasks.late.clone());
    let progress = ledger.progress(now);
    format!(
        "{:?} {spent:?} {sets:?} {:?} {:?}",
        ledger.record(),
        progress.counters,
        progress.total
    )
}

#[test]
fn loading_at_every_commit_gives_the_same_with_any_earlier_snapshot() {
    let (seen, snapshots) = life();
    let now = START.plus_ms(LEASE_MS);
    for (at, durable) in seen.iter().enumerate() {
        let mut plain = durable
            .load(None, fence(), Bounds::default(), now, now)
            .expect("it loads");
        let expected = committed(&mut plain, now);
        for (_, bytes) in snapshots.iter().filter(|(taken, _)| *taken <= at) {
            let mut loaded = durable
                .load(Some(bytes), fence(), Bounds::default(), now, now)
                .expect("it loads");
            assert_eq!(committed(&mut loaded, now), expected, "at commit {at}");
        }
    }
}

#[test]
fn a_snapshot_round_trips_with_its_leases() {
    let mut bench = Bench::new(9);
    bench.crash();
    let leases = bench.grant("a", 4);
    bench.grant("b", 2);
    bench.report(vec![counted(&leases[0], &[("n", 3)]), failure(&leases[1])]);
    let (seq, bytes) = bench.ledger.snapshot();
    let before = (bench.counts(), bench.ledger.task(leases[2].task), seq);
    bench.save();
    bench.crash();
    let (seq, again) = bench.ledger.snapshot();
    assert_eq!((bench.counts(), bench.ledger.task(leases[2].task), seq), before);
    assert_eq!(again.len(), bytes.len());
    assert_eq!(bench.ledger.leases.held_by("b"), 2);
}

#[test]
fn a_damaged_snapshot_is_as_good_as_none() {
    let mut bench = Bench::new(3);
    let leases = bench.grant("w", 2);
    bench.report(successes(&leases[..1]));
    let (_, bytes) = bench.ledger.snapshot();
    let mut damaged: Vec<Vec<u8>> = (0..bytes.len()).map(|cut| bytes[..cut].to_vec()).collect();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x20;
        damaged.push(flipped);
    }
    for bytes in damaged {
        let loaded = bench
            .durable
            .load(Some(&bytes), fence(), Bounds::default(), bench.now, bench.now)
            .expect("from the rows");
        assert_eq!((loaded.decided(), loaded.leased()), (1, 0));
    }
}

#[test]
fn fm24_a_snapshot_of_an_older_run_is_not_used() {
    let mut bench = Bench::new(2);
    let leases = bench.grant("w", 2);
    bench.report(successes(&leases[..1]));
    bench.save();
    bench.control(Control::Cancel { grace_s: 0 }).unwrap();
    bench
        .control(Control::Retry {
            only: RetryOnly::All,
            if_run: None,
        })
        .unwrap();
    bench.crash();
    assert_eq!(bench.counts(), [2, 0, 0, 0, 0], "neither its successes nor its leases");
}

#[test]
fn a_load_that_is_not_complete_does_not_start() {
    let mut bench = Bench::new(2);
    let leases = bench.grant("w", 2);
    bench.report(successes(&leases));
    let load = |durable: &Durable| durable.load(None, fence(), Bounds::default(), START, START).map(|_| ());
    assert_eq!(load(&bench.durable), Ok(()));
    let mut lost = bench.durable.clone();
    lost.outcomes.pop_first();
    assert!(load(&lost).is_err(), "an outcome its row has counted is missing");
    let mut more = bench.durable.clone();
    more.record.tally.succeeded = 1;
    assert!(load(&more).is_err(), "an outcome the end has not counted");
    let mut beyond = bench.durable.clone();
    beyond.record.tally.total = 1;
    assert!(load(&beyond).is_err(), "an outcome of no task");
    let mut garbled = bench.durable.clone();
    for row in garbled
        .outcomes
        .values_mut()
        .filter(|row| row.verdict == Verdict::Succeeded)
    {
        row.counters = Some("[]".into());
    }
    assert!(load(&garbled).is_err());
}

#[test]
fn facts_out_of_order_are_refused() {
    let mut bench = Bench::new(2);
    let leases = bench.grant("w", 2);
    bench.report(successes(&leases));
    let mut facts = bench.durable.facts();
    facts.reverse();
    let mut loading = Loading::new(bench.durable.record.clone(), None);
    assert!(loading.fold(facts).is_err());
}

#[test]
fn a_retry_wait_goes_on_where_it_was_after_a_restart() {
    let mut bench = Bench::new(1);
    let lease = bench.grant("w", 1);
    bench.report(vec![failure(&lease[0])]);
    bench.pass(400);
    bench.crash();
    assert_eq!(bench.counts(), [0, 0, 1, 0, 0]);
    assert_eq!(bench.ledger.next_wake(), Some(bench.now.plus_ms(600)));
}

#[test]
fn tasks_are_listed_by_state_in_order() {
    let mut bench = Bench::with(6, one_attempt);
    let leases = bench.grant("w", 4);
    bench.report(vec![success(&leases[1]), failure(&leases[2])]);
    let list = |bench: &Bench, state, after: Option<u32>| -> Vec<u32> {
        let page = bench.ledger.tasks_in(state, after.map(TaskNo), 2);
        page.into_iter().map(|(task, _)| task.0).collect()
    };
    assert_eq!(list(&bench, Some(TaskState::Pending), None), [4, 5]);
    assert_eq!(list(&bench, Some(TaskState::Pending), Some(4)), [5]);
    assert_eq!(list(&bench, Some(TaskState::Leased), None), [0, 3]);
    assert_eq!(list(&bench, Some(TaskState::Succeeded), None), [1]);
    assert_eq!(list(&bench, Some(TaskState::Failed), None), [2]);
    assert_eq!(list(&bench, None, Some(1)), [2, 3]);
    assert_eq!(bench.ledger.task(TaskNo(6)), None);
}
