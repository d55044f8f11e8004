//! How a job ends by itself: when, as what, and with which reason.

use super::Disposition::*;
use super::*;

#[test]
fn fm04_fm19_fm21_the_verdict_comes_with_the_last_task_and_counts_every_one() {
    let mut bench = Bench::with(10, one_attempt);
    let leases = bench.grant("w", 10);
    bench.report(leases[..5].iter().map(failure).collect());
    assert_eq!(bench.state(), State::Running, "five of five failed so far");
    bench.report(successes(&leases[5..9]));
    assert_eq!(bench.state(), State::Running);
    bench.report(successes(&leases[9..]));
    assert_eq!(
        bench.state(),
        State::PartiallySucceeded,
        "five of ten is not more than half"
    );
    assert_eq!(bench.durable.record.tally.failed, 5);
}

#[test]
fn fm20_fm49_the_verdicts_have_an_explicit_order() {
    let cases = [
        (4, 0, FailureThreshold::Ratio(0.0), State::Succeeded, None),
        (
            3,
            1,
            FailureThreshold::Ratio(0.0),
            State::Failed,
            Some("threshold_exceeded"),
        ),
        (2, 2, FailureThreshold::Ratio(0.5), State::PartiallySucceeded, None),
        (
            1,
            3,
            FailureThreshold::Ratio(0.5),
            State::Failed,
            Some("threshold_exceeded"),
        ),
        (
            0,
            4,
            FailureThreshold::Ratio(1.0),
            State::Failed,
            Some("nothing_succeeded"),
        ),
        (3, 1, FailureThreshold::Count(1), State::PartiallySucceeded, None),
        (
            2,
            2,
            FailureThreshold::Count(1),
            State::Failed,
            Some("threshold_exceeded"),
        ),
    ];
    for (succeed, fail, threshold, state, code) in cases {
        let mut bench = Bench::with(4, |record| {
            one_attempt(record);
            record.policy.failure_threshold = threshold;
        });
        let leases = bench.grant("w", 4);
        let mut items = successes(&leases[..succeed]);
        items.extend(leases[succeed..].iter().map(failure));
        bench.report(items);
        assert_eq!(
            (bench.state(), bench.error_code()),
            (state, code),
            "{succeed} of 4 under {threshold:?}"
        );
        assert_eq!(bench.counts(), [0, 0, 0, succeed as u32, fail]);
    }
}

#[test]
fn fm50_abort_early_ends_a_doomed_job() {
    let doomed = |record: &mut JobRecord| {
        one_attempt(record);
        record.policy.abort_early = true;
    };
    let mut bench = Bench::with(10, doomed);
    let leases = bench.grant("w", 10);
    bench.report(leases[..5].iter().map(failure).collect());
    assert_eq!(bench.state(), State::Running, "not certain yet");
    bench.report(vec![failure(&leases[5])]);
    assert_eq!(
        (bench.state(), bench.error_code()),
        (State::Failed, Some("threshold_exceeded"))
    );
    assert_eq!(bench.report(vec![success(&leases[6])]), [Late]);
}

#[test]
fn fm50_abort_early_looks_again_when_the_job_is_sealed_and_yields_to_a_cancel() {
    let doomed = |record: &mut JobRecord| {
        one_attempt(record);
        threshold_count(0)(record);
        record.policy.abort_early = true;
        record.open = true;
    };
    let mut bench = Bench::with(3, doomed);
    let leases = bench.grant("w", 2);
    bench.report(vec![failure(&leases[0])]);
    assert_eq!(bench.state(), State::Running, "an open job may yet grow");
    bench.control(Control::Seal).unwrap();
    assert_eq!(bench.state(), State::Failed);

    let mut bench = Bench::with(3, |record| {
        doomed(record);
        record.open = false;
    });
    let leases = bench.grant("w", 2);
    bench.control(Control::Cancel { grace_s: 60 }).unwrap();
    bench.report(vec![failure(&leases[0])]);
    assert_eq!(bench.state(), State::Canceling);
    bench.pass(60_000);
    assert_eq!(bench.state(), State::Canceled);
}

#[test]
fn fm58_a_job_ends_only_once_it_is_sealed() {
    let mut bench = Bench::with(1, |record| record.open = true);
    let leases = bench.grant("w", 1);
    bench.report(successes(&leases));
    assert_eq!(bench.state(), State::Running);
    assert_eq!(bench.control(Control::Seal), Ok(()));
    assert_eq!(bench.state(), State::Succeeded, "in the same transaction");
    assert_eq!(bench.control(Control::Seal), Ok(()));
}

#[test]
fn a_job_without_tasks_succeeds_as_it_starts_or_is_sealed() {
    let mut bench = Bench::with(0, pending);
    bench.control(Control::Start).unwrap();
    assert_eq!(bench.state(), State::Succeeded);
    assert_eq!(bench.durable.record.started_at, bench.durable.record.finished_at);

    let mut open = Bench::with(0, |record| record.open = true);
    open.control(Control::Seal).unwrap();
    assert_eq!(open.state(), State::Succeeded);

    let mut timed = Bench::with(0, |record| {
        pending(record);
        record.open = true;
        record.start_at = Some(START.plus_ms(1));
    });
    timed.control(Control::Seal).unwrap();
    assert_eq!(timed.state(), State::Pending);
    timed.pass(1);
    assert_eq!(timed.state(), State::Succeeded);
}

#[test]
fn fm18_every_end_but_success_has_a_recorded_reason() {
    let mut bench = Bench::new(2);
    bench.control(CANCEL).unwrap();
    let error = bench.durable.record.error.clone().expect("a reason");
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        ("canceled", "canceled with 2 tasks undecided")
    );
}

#[test]
fn a_new_threshold_judges_at_once_and_an_ended_job_keeps_its_own() {
    let mut bench = Bench::with(4, |record| {
        record.policy.abort_early = true;
        record.policy.max_attempts = 1;
    });
    let leases = bench.grant("w", 2);
    bench.report(vec![fatal(&leases[0])]);
    let change = |priority, count: Option<u32>| Control::Change {
        priority,
        failure_threshold: count.map(FailureThreshold::Count),
    };
    assert_eq!(bench.control(change(Some(7), None)), Ok(()));
    assert_eq!(bench.durable.record.priority, 7);
    assert_eq!(bench.state(), State::Running);
    assert!(bench.ledger.may_be_deleted().is_err());
    assert_eq!(bench.control(change(None, Some(0))), Ok(()));
    assert_eq!(
        (bench.state(), bench.error_code()),
        (State::Failed, Some("threshold_exceeded"))
    );
    assert_eq!(bench.control(change(Some(7), Some(0))), Ok(()), "it is so already");
    assert!(matches!(
        bench.control(change(Some(8), None)),
        Err(Refusal::InvalidTransition { .. })
    ));
    assert_eq!(bench.ledger.may_be_deleted(), Ok((bench.ledger.fence(), Run(1))));
}
