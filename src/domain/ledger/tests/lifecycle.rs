//! How a job starts, pauses and goes on.

use super::Disposition::*;
use super::*;

#[test]
fn fm08_only_a_running_job_hands_out() {
    let mut bench = Bench::with(1, pending);
    assert!(bench.grant("w", 1).is_empty() && bench.ledger.claimable() == 0);
    bench.control(Control::Start).unwrap();
    assert!(bench.ledger.claimable() > 0);
    bench.control(Control::Pause).unwrap();
    assert!(bench.grant("w", 1).is_empty() && bench.ledger.claimable() == 0);
    bench.control(Control::Resume).unwrap();
    let lease = bench.grant("w", 1);
    assert!(bench.ledger.claimable() == 0, "running, but nothing to lease");
    bench.report(successes(&lease));
    assert!(bench.grant("w", 1).is_empty());
}

#[test]
fn what_is_so_already_is_no_error_and_what_cannot_be_is_one() {
    let mut bench = Bench::with(1, pending);
    assert_eq!(bench.control(Control::Resume), impossible(State::Pending, "be resumed"));
    assert_eq!(bench.control(Control::Pause), impossible(State::Pending, "be paused"));
    assert_eq!(bench.control(RETRY_ALL), impossible(State::Pending, "be retried"));
    for control in [
        Control::Start,
        Control::Start,
        Control::Resume,
        Control::Pause,
        Control::Pause,
        Control::Seal,
    ] {
        assert_eq!(bench.control(control), Ok(()), "{control:?}");
    }
    assert_eq!(bench.control(Control::Start), impossible(State::Paused, "be started"));
    assert_eq!(bench.control(CANCEL), Ok(()));
    assert_eq!(bench.control(CANCEL), Ok(()));
    assert_eq!(bench.control(Control::Pause), impossible(State::Canceled, "be paused"));
}

#[test]
fn a_timed_start_comes_at_its_time_and_not_twice() {
    let mut bench = Bench::with(1, |record| {
        pending(record);
        record.start_at = Some(START.plus_ms(5_000));
    });
    assert_eq!(bench.ledger.next_wake(), Some(START.plus_ms(5_000)));
    bench.pass(4_999);
    assert_eq!(bench.state(), State::Pending);
    bench.pass(1);
    assert_eq!(
        (bench.state(), bench.durable.record.started_at),
        (State::Running, Some(bench.now))
    );
    assert_eq!(bench.ledger.next_wake(), None);
}

#[test]
fn fm27_fm29_a_job_nobody_works_on_is_left_alone() {
    for setup in [pending, |_: &mut JobRecord| {}] {
        let mut bench = Bench::with(3, setup);
        assert_eq!(bench.ledger.next_wake(), None, "no timer looks at progress");
        let state = bench.state();
        bench.pass(365 * 24 * 3_600_000);
        assert_eq!(bench.state(), state);
        assert!(bench.durable.attempts.is_empty());
    }
}

#[test]
fn fm29_a_slow_worker_that_extends_is_never_reaped() {
    let mut bench = Bench::with(1, one_attempt);
    let leases = bench.grant("w", 1);
    for _ in 0..500 {
        bench.pass(LEASE_MS - 1);
        assert!(bench.extend("w", &leases)[0].is_some());
    }
    assert_eq!(bench.report(successes(&leases)), [Counted]);
}

#[test]
fn a_paused_job_still_takes_results_and_ends() {
    let mut bench = Bench::new(1);
    let leases = bench.grant("w", 1);
    bench.control(Control::Pause).unwrap();
    assert!(bench.extend("w", &leases)[0].is_some());
    assert_eq!(bench.report(successes(&leases)), [Counted]);
    assert_eq!(bench.state(), State::Succeeded);
}
