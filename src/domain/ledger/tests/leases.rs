//! Leases: expiry, extension, release, adoption, caps, replay.

use super::Disposition::*;
use super::*;
use crate::domain::rows::Cause;

#[test]
fn fm14_fm53_an_expired_lease_alone_brings_its_task_back() {
    let mut bench = Bench::new(1);
    bench.grant("dead", 1);
    assert_eq!(bench.ledger.next_wake(), Some(START.plus_ms(LEASE_MS)));
    bench.pass(LEASE_MS - 1);
    assert_eq!(bench.counts(), [0, 1, 0, 0, 0]);
    bench.pass(1);
    assert_eq!(
        bench.counts(),
        [0, 0, 1, 0, 0],
        "the attempt is spent, so it waits like any other"
    );
    bench.pass(1_000);
    let lease = bench.grant("alive", 1)[0];
    assert_eq!(attempt(&lease), Attempt(2));
    let spent = bench.durable.attempts.values().next().expect("a row");
    assert_eq!((spent.cause, &*spent.worker), (Cause::Expired, "dead"));
}

#[test]
fn fm13_the_last_expiry_decides_the_task_and_ends_the_job() {
    let mut bench = Bench::with(1, one_attempt);
    bench.grant("w", 1);
    bench.pass(LEASE_MS);
    assert_eq!(bench.counts(), [0, 0, 0, 0, 1]);
    assert_eq!(bench.state(), State::Failed);
}

#[test]
fn a_lease_does_not_expire_while_its_result_waits_or_is_in_flight() {
    let mut bench = Bench::with(2, one_attempt);
    let leases = bench.grant("w", 2);
    bench.held = true;
    let first = bench.post("w", vec![failure(&leases[0])]);
    let second = bench.post("w", vec![success(&leases[1])]);
    bench.pass(10 * LEASE_MS);
    bench.play();
    assert_eq!(bench.dispositions(first), [Counted]);
    assert_eq!(bench.dispositions(second), [Counted]);
    assert!(
        bench
            .durable
            .attempts
            .values()
            .all(|attempt| attempt.cause == Cause::Reported)
    );
}

#[test]
fn a_claim_that_outlives_its_lease_does_not_free_the_next_one() {
    let mut bench = Bench::with(1, |record| record.policy.backoff.initial_s = 0.0);
    let first = bench.grant("a", 1)[0];
    bench.held = true;
    bench.post("a", vec![failure(&first)]);
    bench.post("a", vec![failure(&first)]);
    bench.settle(Settlement::default());
    let second = bench.grant("b", 1)[0];
    bench.post("b", vec![failure(&second)]);
    bench.pass(LEASE_MS);
    assert!(bench.durable.attempts.len() == 1 && bench.commit.is_some());
    bench.play();
    assert!(
        bench
            .durable
            .attempts
            .values()
            .all(|attempt| attempt.cause == Cause::Reported)
    );
}

fn hold(bench: &mut Bench, hold: u64, worker: Option<&str>, leases: &[Lease]) {
    let leases = leases.to_vec();
    let worker = worker.map(Arc::from);
    bench.apply(Command::Hold {
        hold: Hold(hold),
        worker,
        leases,
    });
}

fn end_hold(bench: &mut Bench, hold: u64) {
    bench.apply(Command::EndHold { hold: Hold(hold) });
}

#[test]
fn fm36_a_lease_does_not_expire_while_its_result_is_uploaded() {
    let mut bench = Bench::with(2, one_attempt);
    let leases = bench.grant("w", 2);
    hold(&mut bench, 1, None, &leases[..1]);
    bench.pass(10 * LEASE_MS);
    assert_eq!(bench.counts(), [0, 1, 0, 0, 1], "only the other one expired");
    let posted = bench.post("w", vec![success(&leases[0])]);
    assert_eq!(bench.dispositions(posted), [Counted]);
    end_hold(&mut bench, 1);
    assert_eq!(bench.state(), State::PartiallySucceeded);
}

#[test]
fn a_lease_expires_once_the_last_upload_that_holds_it_has_ended() {
    let mut bench = Bench::with(1, one_attempt);
    let lease = bench.grant("w", 1);
    hold(&mut bench, 1, None, &lease);
    hold(&mut bench, 2, Some("w"), &lease);
    bench.pass(LEASE_MS);
    end_hold(&mut bench, 1);
    end_hold(&mut bench, 1);
    end_hold(&mut bench, 3);
    assert_eq!(bench.counts(), [0, 1, 0, 0, 0]);
    end_hold(&mut bench, 2);
    assert_eq!(bench.counts(), [0, 0, 0, 0, 1]);
}

#[test]
fn an_upload_holds_only_what_is_current_and_adopts_only_under_a_name() {
    let mut bench = Bench::new(2);
    let lease = bench.grant("w", 1)[0];
    let other = Lease {
        task: TaskNo(1),
        ..lease
    };
    let wrong = Lease {
        seq: LeaseSeq(lease.seq.0 + 7),
        ..lease
    };
    let foreign = Lease {
        job: JobId(lease.job.0 + 1),
        ..lease
    };
    hold(&mut bench, 1, None, &[other, wrong, foreign]);
    hold(&mut bench, 1, Some("w"), &[wrong, foreign]);
    assert_eq!(bench.counts(), [1, 1, 0, 0, 0]);
    hold(&mut bench, 1, Some("w"), &[other]);
    assert_eq!(
        bench.counts(),
        [0, 2, 0, 0, 0],
        "a token of an undecided task that nobody holds is adopted"
    );
    bench.pass(LEASE_MS);
    assert_eq!(bench.counts(), [0, 1, 1, 0, 0]);
}

#[test]
fn an_extension_prolongs_and_never_shortens() {
    let mut bench = Bench::new(1);
    let leases = bench.grant("w", 1);
    bench.pass(LEASE_MS / 2);
    let until = bench.now.plus_ms(LEASE_MS);
    assert_eq!(bench.extend("w", &leases), [Some(until)]);
    bench.pass(LEASE_MS - 1);
    assert_eq!(bench.counts(), [0, 1, 0, 0, 0]);
    bench.pass(1);
    assert_eq!(bench.extend("w", &leases), [None], "too late: lost");
}

#[test]
fn extending_while_the_expiry_commits_is_lost() {
    let mut bench = Bench::new(1);
    let leases = bench.grant("w", 1);
    bench.held = true;
    bench.pass(LEASE_MS);
    assert_eq!(bench.extend("w", &leases), [None]);
    assert_eq!(bench.release("w", &leases), [false]);
    bench.play();
    assert_eq!(bench.counts(), [0, 0, 1, 0, 0]);
}

#[test]
fn a_release_spends_nothing() {
    let mut bench = Bench::with(1, one_attempt);
    let leases = bench.grant("w", 1);
    assert_eq!(bench.release("w", &leases), [true]);
    assert_eq!(bench.counts(), [1, 0, 0, 0, 0]);
    let again = bench.grant("w", 1);
    assert_eq!(attempt(&again[0]), Attempt(1));
    assert_eq!(bench.release("w", &leases), [false], "not the current lease any more");
    assert_eq!(bench.counts(), [0, 1, 0, 0, 0]);
}

#[test]
fn a_lease_whose_result_is_on_its_way_is_not_released() {
    let mut bench = Bench::new(1);
    let leases = bench.grant("w", 1);
    bench.held = true;
    bench.post("w", successes(&leases));
    assert_eq!(bench.release("w", &leases), [false]);
    bench.play();
    assert_eq!(bench.state(), State::Succeeded);
}

#[test]
fn an_undelivered_grant_is_given_back() {
    let mut bench = Bench::new(2);
    let leases = bench.grant("w", 2);
    let undelivered = leases.iter().map(|lease| (lease.task, lease.seq)).collect();
    bench.apply(Command::Ungrant { leases: undelivered });
    assert_eq!(bench.counts(), [2, 0, 0, 0, 0]);
}

#[test]
fn the_token_of_a_task_nobody_holds_is_adopted_after_a_crash() {
    let mut bench = Bench::new(3);
    let leases = bench.grant("w", 3);
    bench.crash();
    assert_eq!(bench.counts(), [3, 0, 0, 0, 0], "the memory of the leases is lost");
    assert!(bench.extend("w", &leases[..1])[0].is_some());
    assert_eq!(bench.report(vec![failure(&leases[1])]), [Retrying]);
    assert_eq!(bench.report(vec![success(&leases[2])]), [Counted]);
    assert_eq!(bench.counts(), [0, 1, 1, 1, 0]);
}

#[test]
fn a_token_is_not_adopted_once_another_worker_holds_the_task() {
    let mut bench = Bench::new(1);
    let old = bench.grant("a", 1);
    bench.crash();
    let new = bench.grant("b", 1);
    assert_eq!(bench.extend("a", &old), [None]);
    assert_eq!(bench.report(vec![failure(&old[0])]), [Superseded]);
    assert_eq!(bench.report(vec![failure(&new[0])]), [Retrying]);
}

#[test]
fn a_graceful_restart_hands_no_leased_task_out_twice() {
    let mut bench = Bench::new(5);
    let leases = bench.grant("w", 2);
    bench.save();
    bench.crash();
    assert_eq!(bench.counts(), [3, 2, 0, 0, 0]);
    let others = bench.grant("v", 5);
    assert!(
        others
            .iter()
            .all(|other| leases.iter().all(|lease| lease.task != other.task))
    );
    assert_eq!(bench.report(successes(&leases)), [Counted, Counted]);
}

#[test]
fn a_restored_lease_lives_a_minute_at_least() {
    let mut bench = Bench::new(1);
    bench.grant("w", 1);
    bench.save();
    bench.now = bench.now.plus_ms(2 * LEASE_MS);
    bench.crash();
    bench.pass(RESTORED_LEASE_MS - 1);
    assert_eq!(bench.counts(), [0, 1, 0, 0, 0]);
    bench.pass(1);
    assert_eq!(bench.counts(), [0, 0, 1, 0, 0]);
}

#[test]
fn caps_of_the_job_and_of_the_worker_bound_what_is_out() {
    let bounds = Bounds {
        worker_in_flight: 2,
        ..Bounds::default()
    };
    let mut bench = Bench::bounded(10, bounds, |record| record.policy.max_in_flight = Some(3));
    let leases = bench.grant("a", 10);
    assert_eq!(leases.len(), 2);
    assert_eq!(bench.grant("a", 10).len(), 0);
    assert_eq!(bench.grant("b", 10).len(), 1);
    assert!(bench.ledger.claimable() == 0);
    bench.report(vec![success(&leases[0])]);
    assert!(bench.ledger.claimable() > 0);
    assert_eq!(bench.grant("b", 10).len(), 1);
}

#[test]
fn a_repeated_lease_call_replays_the_last_grant() {
    let mut bench = Bench::new(5);
    let first = bench.grant_as("w", 2, Some("r1"));
    assert_eq!(bench.grant_as("w", 2, Some("r1")), first);
    assert_eq!(
        bench.grant_as("v", 1, Some("r1")).len(),
        1,
        "another worker's id is its own"
    );
    bench.report(vec![success(&first[0])]);
    assert_eq!(
        bench.grant_as("w", 2, Some("r1")),
        first[1..],
        "what is done is not leased again"
    );
    assert_eq!(bench.grant_as("w", 2, Some("r2")).len(), 2);
}

#[test]
fn a_repeated_lease_call_gets_work_if_its_first_grant_came_back() {
    let mut bench = Bench::new(2);
    let first = bench.grant_as("w", 2, Some("r1"));
    bench.release("w", &first);
    assert_eq!(bench.grant_as("w", 2, Some("r1")).len(), 2);
}

#[test]
fn a_grant_whose_answer_went_down_with_the_node_is_replayed_by_the_next_one() {
    let mut bench = Bench::new(5);
    let lost = bench.grant_as("w", 2, Some("r1"));
    bench.save();
    bench.crash();
    assert_eq!(bench.ledger.leased(), 2, "the snapshot carries the leases");
    assert_eq!(bench.grant_as("w", 2, Some("r1")), lost);
    assert_eq!(bench.grant_as("w", 2, Some("r2")).len(), 2);
    bench.report(successes(&lost));
    bench.save();
    bench.crash();
    assert_eq!(
        bench.grant_as("w", 2, Some("r1")).len(),
        1,
        "nothing is left of it: a new grant"
    );
}

#[test]
fn an_empty_grant_is_not_remembered() {
    let mut bench = Bench::with(1, |record| record.state = State::Paused);
    assert!(bench.grant_as("w", 1, Some("r1")).is_empty());
    bench.control(Control::Resume).unwrap();
    assert_eq!(
        bench.grant_as("w", 1, Some("r1")).len(),
        1,
        "a parked call asks again under its id"
    );
}

#[test]
fn leases_that_run_out_together_are_spent_in_bounded_batches() {
    let bounds = Bounds {
        batch_items: 4,
        ..Bounds::default()
    };
    let mut bench = Bench::bounded(10, bounds, |_| {});
    bench.grant("w", 10);
    bench.held = true;
    bench.pass(LEASE_MS);
    assert_eq!(bench.commit.as_ref().map(JobBatch::len), Some(4));
    bench.play();
    assert_eq!(bench.counts(), [0, 0, 10, 0, 0]);
}

#[test]
fn a_newer_token_asks_for_a_rebuild_once_and_is_rejected_after_it() {
    let mut bench = Bench::new(1);
    let lease = bench.grant("w", 1)[0];
    for newer in [
        Lease {
            epoch: Epoch(9),
            ..lease
        },
        Lease { run: Run(2), ..lease },
    ] {
        let ticket = bench.post("w", vec![success(&lease), success(&newer)]);
        assert_eq!(bench.reply(ticket), Reply::Stale, "nothing of it is judged");
        assert!(std::mem::take(&mut bench.rebuild));
        bench.ledger.newer_tokens = NewerTokens::Rejected;
        assert_eq!(bench.report(vec![success(&newer)]), [Rejected]);
        assert_eq!(bench.extend("w", &[newer]), [None]);
        assert!(!bench.rebuild);
        bench.ledger.newer_tokens = NewerTokens::Suspect;
    }
    assert_eq!(bench.counts(), [0, 1, 0, 0, 0]);
}
