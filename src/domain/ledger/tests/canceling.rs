//! How a job is canceled, and what still counts meanwhile.

use super::Disposition::*;
use super::*;

#[test]
fn fm03_fm05_nothing_moves_a_canceled_job() {
    let mut bench = Bench::with(2, one_attempt);
    let leases = bench.grant("w", 2);
    bench.report(vec![failure(&leases[0])]);
    bench.control(CANCEL).unwrap();
    bench.pass(100 * LEASE_MS);
    assert_eq!(
        bench.report(vec![success(&leases[0]), success(&leases[1])]),
        [Late, Late]
    );
    for control in [Control::Start, Control::Pause, Control::Resume] {
        assert!(bench.control(control).is_err());
    }
    assert_eq!((bench.state(), bench.error_code()), (State::Canceled, Some("canceled")));
    assert_eq!(bench.durable.events.len(), 1);
}

#[test]
fn fm26_nothing_is_leasable_the_moment_a_job_is_canceled() {
    let mut bench = Bench::new(3);
    let leases = bench.grant("w", 1);
    bench.control(CANCEL).unwrap();
    assert!(bench.grant("w", 3).is_empty() && bench.ledger.claimable() == 0);
    assert_eq!(bench.extend("w", &leases), [None]);
    assert_eq!(bench.counts(), [3, 0, 0, 0, 0], "leases are void");
    assert_eq!(bench.ledger.tasks_in(Some(TaskState::Pending), None, 9).len(), 3);
}

#[test]
fn a_cancel_with_grace_waits_for_what_is_leased() {
    let mut bench = Bench::new(3);
    let leases = bench.grant("w", 2);
    bench.control(Control::Cancel { grace_s: 60 }).unwrap();
    assert_eq!(bench.state(), State::Canceling);
    assert!(bench.grant("w", 1).is_empty());
    assert_eq!(bench.report(vec![success(&leases[0])]), [Counted]);
    assert_eq!(bench.state(), State::Canceling);
    bench.release("w", &leases[1..]);
    assert_eq!(bench.state(), State::Canceled);
    assert_eq!(bench.counts(), [2, 0, 0, 1, 0]);
}

#[test]
fn fm05_a_last_attempt_that_expires_does_not_overtake_a_cancel() {
    let mut bench = Bench::with(1, one_attempt);
    let leases = bench.grant("dead", 1);
    bench.control(Control::Cancel { grace_s: 6_000 }).unwrap();
    bench.pass(LEASE_MS);
    assert_eq!((bench.state(), bench.error_code()), (State::Canceled, Some("canceled")));
    assert_eq!(bench.counts(), [1, 0, 0, 0, 0]);
    assert_eq!(bench.report(successes(&leases)), [Late]);
}

#[test]
fn a_cancel_ends_when_its_grace_does() {
    let mut bench = Bench::new(1);
    let leases = bench.grant("w", 1);
    bench.control(Control::Cancel { grace_s: 60 }).unwrap();
    bench.control(Control::Cancel { grace_s: 90 }).unwrap();
    assert_eq!(
        bench.ledger.next_wake(),
        Some(bench.now.plus_s(60)),
        "a later deadline changes nothing"
    );
    bench.pass(60_000);
    assert_eq!(bench.state(), State::Canceled);
    assert_eq!(bench.report(successes(&leases)), [Late]);
}

#[test]
fn a_cancel_cut_short_and_one_without_leases_end_at_once() {
    let mut bench = Bench::new(1);
    bench.grant("w", 1);
    bench.control(Control::Cancel { grace_s: 60 }).unwrap();
    bench.control(CANCEL).unwrap();
    assert_eq!(bench.state(), State::Canceled);

    let mut idle = Bench::new(1);
    idle.control(Control::Cancel { grace_s: 60 }).unwrap();
    assert_eq!(idle.state(), State::Canceled);
}

#[test]
fn the_last_outcome_beats_a_cancel_under_way() {
    let mut bench = Bench::new(1);
    let leases = bench.grant("w", 1);
    bench.control(Control::Cancel { grace_s: 60 }).unwrap();
    assert_eq!(bench.report(successes(&leases)), [Counted]);
    assert_eq!(bench.state(), State::Succeeded);
}

#[test]
fn a_control_is_judged_on_committed_facts() {
    let mut bench = Bench::new(1);
    let leases = bench.grant("w", 1);
    bench.held = true;
    let results = bench.post("w", successes(&leases));
    let order = bench.order(CANCEL);
    bench.play();
    assert_eq!(bench.dispositions(results), [Counted]);
    assert_eq!(bench.ruling(order), impossible(State::Succeeded, "be canceled"));
}

#[test]
fn fm23_a_job_canceled_while_pending_never_starts() {
    let mut bench = Bench::with(1, |record| {
        pending(record);
        record.start_at = Some(START.plus_ms(5_000));
    });
    bench.control(CANCEL).unwrap();
    bench.pass(10_000);
    assert_eq!(bench.state(), State::Canceled);
    assert_eq!(bench.control(Control::Start), impossible(State::Canceled, "be started"));
    assert_eq!(bench.ledger.next_wake(), None);
}
