//! How a job starts, pauses, is canceled, ends and runs again.

use super::Disposition::*;
use super::*;

const RETRY_FAILED: Control = Control::Retry {
    only: RetryOnly::Failed,
    if_run: None,
};
const RETRY_ALL: Control = Control::Retry {
    only: RetryOnly::All,
    if_run: None,
};
const CANCEL: Control = Control::Cancel { grace_s: 0 };

fn pending(record: &mut JobRecord) {
    record.state = State::Pending;
    record.started_at = None;
}

fn impossible(state: State, verb: &'static str) -> Result<(), Refusal> {
    Err(Refusal::InvalidTransition { state, verb })
}

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
fn fm24_a_retry_repeats_what_failed_under_a_new_run_and_voids_old_leases() {
    let mut bench = Bench::with(3, one_attempt);
    let leases = bench.grant("w", 3);
    bench.report(vec![
        counted(&leases[0], &[("n", 5)]),
        failure(&leases[1]),
        failure(&leases[2]),
    ]);
    assert_eq!(bench.state(), State::Failed);
    assert_eq!(bench.control(RETRY_FAILED), Ok(()));
    assert_eq!(
        bench.counts(),
        [2, 0, 0, 1, 0],
        "nothing was added, nothing snapped to 0"
    );
    assert_eq!(
        (bench.durable.record.run, bench.durable.record.base_run),
        (Run(2), Run(1))
    );
    assert_eq!((bench.durable.record.finished_at, bench.error_code()), (None, None));
    assert_eq!(bench.extend("w", &leases), [None, None, None]);
    let again = bench.grant("w", 9);
    assert_eq!(again.iter().map(task).collect::<Vec<_>>(), [TaskNo(1), TaskNo(2)]);
    assert_eq!((attempt(&again[0]), again[0].run), (Attempt(1), Run(2)));
    bench.report(successes(&again));
    assert_eq!(bench.state(), State::Succeeded);
    assert_eq!(bench.durable.events.len(), 2);
}

#[test]
fn a_retry_of_everything_starts_from_nothing() {
    let mut bench = Bench::new(2);
    let leases = bench.grant("w", 2);
    bench.report(vec![counted(&leases[0], &[("n", 5)]), success(&leases[1])]);
    assert_eq!(
        bench.control(RETRY_FAILED),
        impossible(State::Succeeded, "be retried: no task would be repeated")
    );
    assert_eq!(bench.control(RETRY_ALL), Ok(()));
    assert_eq!(bench.counts(), [2, 0, 0, 0, 0]);
    assert!(bench.ledger.progress(bench.now).counters.is_empty());
    assert_eq!(bench.durable.record.base_run, Run(2));
    bench.crash();
    assert_eq!(bench.counts(), [2, 0, 0, 0, 0]);
}

#[test]
fn a_retry_of_another_run_is_refused() {
    let mut bench = Bench::new(1);
    bench.control(CANCEL).unwrap();
    let second = Control::Retry {
        only: RetryOnly::All,
        if_run: Some(Run(2)),
    };
    assert_eq!(bench.control(second), Err(Refusal::WrongRun { run: Run(1) }));
    let first = Control::Retry {
        only: RetryOnly::All,
        if_run: Some(Run(1)),
    };
    bench.held = true;
    let (one, two) = (bench.order(first), bench.order(first));
    bench.play();
    assert_eq!(bench.ruling(one), Ok(()));
    assert_eq!(
        bench.ruling(two),
        Err(Refusal::WrongRun { run: Run(2) }),
        "an impatient click starts one run"
    );
    assert_eq!(bench.durable.record.run, Run(2));
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
fn a_paused_job_still_takes_results_and_ends() {
    let mut bench = Bench::new(1);
    let leases = bench.grant("w", 1);
    bench.control(Control::Pause).unwrap();
    assert!(bench.extend("w", &leases)[0].is_some());
    assert_eq!(bench.report(successes(&leases)), [Counted]);
    assert_eq!(bench.state(), State::Succeeded);
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
