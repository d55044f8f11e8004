//! What a crash makes a ledger forget: the leases since its last snapshot.
//!
//! Owns: what is decided without knowing them. Never: takes "none known" for "none there". Invariant: none of its own.

use super::Disposition::*;
use super::*;

const GRACE: Control = Control::Cancel { grace_s: 600 };

#[test]
fn fm45_a_cancel_with_grace_survives_a_crash_that_forgets_its_leases() {
    let mut bench = Bench::new(2);
    let leases = bench.grant("w", 1);
    bench.control(GRACE).unwrap();
    bench.crash();
    assert_eq!(bench.ledger.leased(), 0, "no snapshot was taken");
    bench.pass(1);
    assert_eq!(bench.state(), State::Canceling);
    bench.control(GRACE).unwrap();
    assert_eq!(bench.state(), State::Canceling, "asked for again");
    assert_eq!(bench.report(successes(&leases)), [Counted]);
    assert_eq!(bench.state(), State::Canceling, "there may be others");
    bench.pass(LEASE_MS);
    assert_eq!(
        bench.state(),
        State::Canceled,
        "whoever held one has reported or let it run out"
    );
    assert_eq!(bench.counts(), [1, 0, 0, 1, 0]);
}

#[test]
fn a_cancel_under_way_ends_with_its_grace_whatever_was_forgotten() {
    let mut bench = Bench::new(1);
    bench.grant("w", 1);
    bench.control(Control::Cancel { grace_s: 60 }).unwrap();
    bench.crash();
    bench.pass(59_000);
    assert_eq!(bench.state(), State::Canceling);
    bench.pass(1_000);
    assert_eq!(bench.state(), State::Canceled);
}

#[test]
fn a_snapshot_taken_since_the_cancel_knows_every_lease() {
    let mut bench = Bench::new(2);
    let leases = bench.grant("w", 1);
    bench.control(GRACE).unwrap();
    bench.save();
    bench.crash();
    assert_eq!((bench.state(), bench.ledger.leased()), (State::Canceling, 1));
    assert_eq!(bench.report(successes(&leases)), [Counted]);
    assert_eq!(bench.state(), State::Canceled, "it was the last one");
}

#[test]
fn a_snapshot_taken_since_the_cancel_does_not_know_what_was_forgotten_before_it() {
    let mut bench = Bench::new(3);
    let leases = bench.grant("w", 2);
    bench.report(successes(&leases[..1]));
    bench.crash();
    let forgotten_until = bench.now.plus_ms(LEASE_MS);
    bench.control(GRACE).unwrap();
    for _ in 0..3 {
        bench.pass(1_000);
        bench.save();
        bench.crash();
        bench.pass(0);
        assert_eq!(bench.state(), State::Canceling);
    }
    assert_eq!(
        bench.ledger.next_wake(),
        Some(forgotten_until),
        "no restart puts it off"
    );
    assert_eq!(bench.report(successes(&leases[1..])), [Counted]);
    assert_eq!(bench.state(), State::Canceling, "there may be others");
    bench.now = forgotten_until;
    bench.pass(0);
    assert_eq!(bench.state(), State::Canceled);
    assert_eq!(bench.counts(), [1, 0, 0, 2, 0]);
}

#[test]
fn who_was_forgotten_gets_a_minute_after_a_restart_too() {
    let mut bench = Bench::new(2);
    let leases = bench.grant("w", 1);
    bench.crash();
    bench.control(GRACE).unwrap();
    bench.save();
    bench.now = bench.now.plus_ms(LEASE_MS + 1);
    bench.crash();
    bench.pass(RESTORED_LEASE_MS - 1);
    assert_eq!(bench.state(), State::Canceling, "nobody could report while it was down");
    assert_eq!(bench.report(successes(&leases)), [Counted]);
    bench.pass(1);
    assert_eq!(bench.state(), State::Canceled);
}

#[test]
fn what_was_forgotten_and_is_over_is_not_waited_for_again() {
    let mut bench = Bench::new(2);
    bench.crash();
    bench.pass(LEASE_MS);
    let leases = bench.grant("w", 1);
    bench.control(GRACE).unwrap();
    bench.save();
    bench.crash();
    bench.pass(0);
    assert_eq!(bench.state(), State::Canceling);
    assert_eq!(bench.report(successes(&leases)), [Counted]);
    assert_eq!(bench.state(), State::Canceled);
}

#[test]
fn a_cancel_after_an_early_crash_waits_although_nothing_shows_that_the_job_has_begun() {
    let mut bench = Bench::new(2);
    let leases = bench.grant("w", 1);
    bench.crash();
    bench.control(GRACE).unwrap();
    assert_eq!(bench.state(), State::Canceling);
    assert_eq!(bench.report(successes(&leases)), [Counted]);
    bench.pass(LEASE_MS);
    assert_eq!(bench.state(), State::Canceled);
    assert_eq!(bench.counts(), [1, 0, 0, 1, 0]);
}

#[test]
fn nothing_is_forgotten_of_a_run_that_started_after_the_crash() {
    let mut bench = Bench::with(1, pending);
    bench.crash();
    bench.pass(1);
    bench.control(Control::Start).unwrap();
    bench.control(GRACE).unwrap();
    assert_eq!(bench.state(), State::Canceled);
    bench.control(RETRY_ALL).unwrap();
    bench.control(GRACE).unwrap();
    assert_eq!(bench.state(), State::Canceled, "nor of the next run");
}

#[test]
fn a_cancel_waits_for_nobody_where_no_lease_outlives_its_process() {
    let private = Bounds {
        restores_leases: false,
        ..Bounds::default()
    };
    let mut bench = Bench::bounded(2, private, |_| {});
    let leases = bench.grant("w", 1);
    bench.report(vec![failure(&leases[0])]);
    bench.crash();
    bench.control(GRACE).unwrap();
    assert_eq!(bench.state(), State::Canceled);

    let mut bench = Bench::bounded(2, private, |_| {});
    bench.grant("w", 1);
    bench.control(GRACE).unwrap();
    bench.crash();
    bench.pass(0);
    assert_eq!(bench.state(), State::Canceled, "its workers are gone");
}

#[test]
fn a_cancel_after_a_crash_waits_for_leases_that_may_be_forgotten() {
    let mut bench = Bench::new(3);
    let leases = bench.grant("w", 2);
    assert_eq!(bench.report(successes(&leases[..1])), [Counted]);
    bench.crash();
    bench.control(GRACE).unwrap();
    assert_eq!(bench.state(), State::Canceling);
    assert_eq!(bench.report(successes(&leases[1..])), [Counted]);
    bench.control(Control::Cancel { grace_s: 0 }).unwrap();
    assert_eq!(bench.state(), State::Canceled, "cut short");
    assert_eq!(bench.counts(), [1, 0, 0, 2, 0]);
}

#[test]
fn fm02_late_results_move_no_position_not_even_by_a_restart() {
    let mut bench = Bench::new(2);
    let leases = bench.grant("w", 2);
    bench.control(Control::Cancel { grace_s: 0 }).unwrap();
    let shown = bench.ledger.progress(bench.now).seq;
    assert_eq!(bench.report(successes(&leases)), [Late, Late]);
    assert_eq!(bench.ledger.progress(bench.now).seq, shown);
    bench.crash();
    assert_eq!(bench.ledger.progress(bench.now).seq, shown);
    // The positions that they did take are not given out again.
    bench
        .control(Control::Retry {
            only: RetryOnly::Failed,
            if_run: None,
        })
        .unwrap();
    assert_eq!(bench.state(), State::Succeeded);
    assert_eq!(bench.counts(), [0, 0, 0, 2, 0]);
}

#[test]
fn fm50_a_change_that_dooms_a_job_ends_it_in_the_same_stroke() {
    let mut bench = Bench::with(3, |record| {
        record.policy.abort_early = true;
        record.policy.failure_threshold = FailureThreshold::Ratio(0.9);
        one_attempt(record);
    });
    let leases = bench.grant("w", 3);
    assert_eq!(bench.report(vec![failure(&leases[0])]), [Counted]);
    bench.held = true;
    let order = bench.order(Control::Change {
        priority: None,
        failure_threshold: Some(FailureThreshold::Count(0)),
    });
    let update = bench.commit.as_ref().and_then(|batch| batch.update.as_ref());
    assert_eq!(update.map(|update| update.state), Some(State::Failed));
    bench.play();
    assert_eq!(bench.ruling(order), Ok(()));
    assert_eq!(
        (bench.state(), bench.error_code()),
        (State::Failed, Some("threshold_exceeded"))
    );
}
