//! Leases that a snapshot has kept, though they were given back after it.
//!
//! Owns: who holds a task once the one who really has it is heard of. Never: takes a snapshot for more than a memory. Invariant: none of its own.

use super::Disposition::*;
use super::*;
use crate::domain::rows::Cause;

/// Kept in the snapshot for the first worker, who gave it back; handed to the second after it. Then kill -9.
fn handed_on(bench: &mut Bench) -> (Lease, Lease) {
    let kept = bench.grant("first", 1)[0];
    bench.save();
    bench.release("first", &[kept]);
    let later = bench.grant("second", 1)[0];
    assert_eq!((kept.task, kept.attempt), (later.task, later.attempt));
    bench.crash();
    assert_eq!(bench.counts(), [0, 1, 0, 0, 0], "restored for the first");
    (kept, later)
}

fn hold(bench: &mut Bench, worker: &str, lease: Lease) {
    bench.apply(Command::Hold {
        hold: Hold(1),
        worker: Some(named(worker)),
        leases: vec![lease],
    });
}

#[test]
fn a_release_and_a_restart_spend_no_attempt_of_the_worker_that_got_the_task_next() {
    let mut bench = Bench::with(1, one_attempt);
    let (kept, later) = handed_on(&mut bench);
    bench.pass(RESTORED_LEASE_MS - 1);
    let until = bench.now.plus_ms(LEASE_MS);
    assert_eq!(bench.extend("second", &[later]), [Some(until)]);
    assert_eq!(bench.ledger.holders(), [(named("second"), 1)]);
    bench.pass(LEASE_MS - 1);
    assert_eq!(
        bench.counts(),
        [0, 1, 0, 0, 0],
        "nothing runs out in the first one's name"
    );
    assert_eq!(bench.extend("first", &[kept]), [None]);
    assert_eq!(bench.release("first", &[kept]), [false]);
    assert_eq!(bench.report(vec![failure(&kept)]), [Superseded]);
    assert_eq!(bench.report(vec![success(&later)]), [Counted]);
    assert_eq!(bench.state(), State::Succeeded);
}

#[test]
fn a_failure_under_the_later_lease_spends_the_attempt() {
    let mut bench = Bench::new(1);
    let (kept, later) = handed_on(&mut bench);
    let posted = bench.post("second", vec![failure(&later)]);
    assert_eq!(bench.dispositions(posted), [Retrying]);
    assert_eq!(
        bench.report(vec![failure(&kept)]),
        [Duplicate],
        "the attempt was reported"
    );
    let spent = bench.durable.attempts.values().next().expect("a row");
    assert_eq!((spent.cause, &*spent.worker), (Cause::Reported, "second"));
}

#[test]
fn an_upload_under_the_later_lease_keeps_it_and_a_release_gives_it_back() {
    let mut bench = Bench::with(1, one_attempt);
    let (_, later) = handed_on(&mut bench);
    hold(&mut bench, "second", later);
    bench.pass(10 * LEASE_MS);
    assert_eq!(bench.counts(), [0, 1, 0, 0, 0]);

    let mut bench = Bench::with(1, one_attempt);
    let (_, later) = handed_on(&mut bench);
    assert_eq!(bench.release("second", &[later]), [true]);
    assert_eq!(bench.counts(), [1, 0, 0, 0, 0]);
}

#[test]
fn the_later_lease_is_what_the_next_snapshot_keeps() {
    let mut bench = Bench::new(1);
    let (kept, later) = handed_on(&mut bench);
    bench.extend("second", &[later]);
    bench.save();
    bench.crash();
    assert_eq!(bench.ledger.holders(), [(named("second"), 1)]);
    assert_eq!(
        bench.extend("first", &[kept]),
        [None],
        "an earlier one does not come back"
    );
    assert!(bench.extend("second", &[later])[0].is_some());
}

#[test]
fn a_replayed_grant_does_not_bring_back_what_a_later_one_has_taken() {
    let mut bench = Bench::new(1);
    let undelivered = bench.grant_as("first", 1, Some("r"))[0];
    bench.save();
    let leases = vec![(undelivered.task, undelivered.seq)];
    bench.apply(Command::Ungrant { leases });
    let later = bench.grant("second", 1);
    bench.crash();
    assert!(bench.extend("second", &later)[0].is_some());
    assert!(bench.grant_as("first", 1, Some("r")).is_empty());
}

#[test]
fn a_kept_lease_whose_result_is_on_its_way_gives_way_to_nobody() {
    let mut bench = Bench::new(1);
    let (kept, later) = handed_on(&mut bench);
    bench.held = true;
    let posted = bench.post("first", vec![failure(&kept)]);
    assert_eq!(bench.extend("second", &[later]), [None]);
    bench.play();
    assert_eq!(bench.dispositions(posted), [Retrying]);

    let mut bench = Bench::new(1);
    let (kept, later) = handed_on(&mut bench);
    hold(&mut bench, "first", kept);
    assert_eq!(bench.extend("second", &[later]), [None], "its result is being uploaded");
}

#[test]
fn a_kept_lease_whose_expiry_commits_gives_way_to_nobody() {
    let mut bench = Bench::new(1);
    let (_, later) = handed_on(&mut bench);
    bench.held = true;
    bench.pass(LEASE_MS);
    assert_eq!(bench.extend("second", &[later]), [None]);
    bench.play();
    assert_eq!(bench.counts(), [0, 0, 1, 0, 0]);
}

#[test]
fn what_this_ledger_has_handed_out_itself_gives_way_to_no_token() {
    let mut bench = Bench::new(1);
    let (kept, _) = handed_on(&mut bench);
    bench.release("first", &[kept]);
    let own = bench.grant("third", 1)[0];
    assert_eq!(own.task, kept.task);
    let forged = other_token(&own);
    assert_eq!(bench.extend("forger", &[forged]), [None]);
    assert_eq!(bench.release("forger", &[forged]), [false]);
    assert_eq!(bench.report(vec![failure(&forged)]), [Superseded]);
    assert!(bench.extend("third", &[own])[0].is_some());
}

#[test]
fn a_result_that_names_its_task_only_takes_no_kept_lease_away() {
    let mut bench = Bench::new(1);
    let kept = bench.grant("mine@a", 1);
    bench.save();
    bench.crash();
    let by_name = bench.ledger.token_of(TaskNo(0), true, "theirs@b");
    bench.held = true;
    let posted = bench.post("theirs@b", vec![success(&by_name)]);
    assert_eq!(bench.ledger.holders(), [(named("mine@a"), 1)]);
    bench.settle(Settlement {
        refused: vec![TaskNo(0)],
        update_dropped: true,
    });
    assert_eq!(bench.dispositions(posted), [Rejected]);
    assert!(bench.extend("mine@a", &kept)[0].is_some());
}
