//! How a job that ended runs again.

use super::*;

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
