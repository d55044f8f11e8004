//! What a reported result does: every disposition, duplicates, retries, the failure that a late success corrects.

use super::Disposition::*;
use super::*;
use crate::domain::rows::Verdict;

#[test]
fn fm15_a_result_is_answered_only_after_its_commit() {
    let mut bench = Bench::new(1);
    let leases = bench.grant("w", 1);
    bench.held = true;
    let ticket = bench.post("w", successes(&leases));
    assert!(!bench.has_reply(ticket));
    assert_eq!(bench.counts(), [0, 1, 0, 0, 0], "nothing is visible yet");
    bench.play();
    assert_eq!(bench.dispositions(ticket), [Counted]);
    assert_eq!(bench.state(), State::Succeeded);
}

#[test]
fn fm16_a_replay_counts_nothing() {
    let mut bench = Bench::new(2);
    let leases = bench.grant("w", 1);
    let items = vec![counted(&leases[0], &[("pages", 7)])];
    assert_eq!(bench.report(items.clone()), [Counted]);
    assert_eq!(bench.report(items.clone()), [Duplicate]);
    bench.crash();
    assert_eq!(bench.report(items), [Duplicate]);
    assert_eq!(bench.ledger.progress(bench.now).counters["pages"], 7);
    assert_eq!(bench.counts(), [1, 0, 0, 1, 0]);
}

#[test]
fn a_duplicate_within_a_request_a_batch_and_in_flight_shares_the_fate_of_the_first() {
    let mut bench = Bench::new(3);
    let lease = bench.grant("w", 2)[0];
    assert_eq!(
        bench.report(vec![success(&lease), success(&lease)]),
        [Counted, Duplicate]
    );

    let lease = bench.grant("w", 1)[0];
    bench.held = true;
    let first = bench.post("w", vec![success(&lease)]);
    let second = bench.post("w", vec![success(&lease)]);
    let third = bench.post("w", vec![success(&lease)]);
    assert!(!bench.has_reply(second), "its fate is not known yet");
    let refused = vec![lease.task];
    bench.settle(Settlement {
        refused,
        update_dropped: false,
    });
    assert_eq!(bench.dispositions(first), [Rejected]);
    bench.play();
    assert_eq!(
        bench.dispositions(second),
        [Counted],
        "the first was not committed after all"
    );
    assert_eq!(bench.dispositions(third), [Duplicate]);
}

#[test]
fn a_refused_row_rejects_its_duplicates_and_leaves_its_neighbours_alone() {
    let mut bench = Bench::new(2);
    let leases = bench.grant("w", 2);
    bench.held = true;
    let ticket = bench.post("w", vec![success(&leases[0]), success(&leases[1]), success(&leases[0])]);
    let seq = bench.ledger.progress(bench.now).seq;
    bench.settle(Settlement {
        refused: vec![leases[0].task],
        update_dropped: true,
    });
    assert_eq!(bench.dispositions(ticket), [Rejected, Counted, Rejected]);
    assert_eq!(bench.state(), State::Running, "the verdict had counted the refused row");
    assert_eq!(bench.counts(), [0, 1, 0, 1, 0], "its lease stays until it runs out");
    assert!(bench.ledger.progress(bench.now).seq > seq);
    bench.play();
    assert_eq!(bench.report(vec![failure(&leases[0])]), [Retrying]);
}

#[test]
fn a_seq_that_was_refused_is_not_shown() {
    let mut bench = Bench::new(1);
    let leases = bench.grant("w", 1);
    bench.held = true;
    bench.post("w", vec![failure(&leases[0])]);
    let seq = bench.ledger.progress(bench.now).seq;
    bench.settle(Settlement {
        refused: vec![leases[0].task],
        update_dropped: false,
    });
    assert_eq!(
        bench.ledger.progress(bench.now).seq,
        seq,
        "a restart would take it back"
    );
}

#[test]
fn fm13_fm34_exhausted_attempts_decide_the_task_at_once() {
    let mut bench = Bench::with(1, |record| record.policy.max_attempts = 2);
    let lease = bench.grant("w", 1)[0];
    assert_eq!(bench.report(vec![failure(&lease)]), [Retrying]);
    assert_eq!(bench.counts(), [0, 0, 1, 0, 0]);
    assert!(bench.grant("w", 1).is_empty(), "its backoff has not passed");
    bench.pass(1_000);
    let lease = bench.grant("w", 1)[0];
    assert_eq!(attempt(&lease), Attempt(2));
    assert_eq!(bench.report(vec![failure(&lease)]), [Counted]);
    assert_eq!(bench.counts(), [0, 0, 0, 0, 1]);
    assert_eq!(
        (bench.state(), bench.error_code()),
        (State::Failed, Some("threshold_exceeded"))
    );
    assert_eq!(bench.durable.attempts.len(), 2);
}

#[test]
fn an_outcome_says_how_long_its_lease_was_held() {
    let mut bench = Bench::with(4, |record| record.policy.max_attempts = 1);
    let leases = bench.grant("w", 4);
    bench.pass(1_234);
    bench.report(vec![success(&leases[0]), fatal(&leases[1])]);
    let lease = bench.extend("w", &leases[2..3]);
    assert!(lease[0].is_some(), "extending begins nothing anew");
    bench.pass(766);
    bench.report(vec![success(&leases[2])]);
    // Its grant was forgotten with the process.
    bench.crash();
    bench.report(vec![success(&leases[3])]);
    let took: Vec<Option<u32>> = bench.durable.outcomes.values().map(|row| row.took_ms).collect();
    assert_eq!(took, [Some(1_234), Some(1_234), Some(2_000), None]);
}

#[test]
fn backoff_doubles_with_every_attempt() {
    let mut bench = Bench::with(1, |record| record.policy.max_attempts = 4);
    for wait_s in [1, 2, 4] {
        let lease = bench.grant("w", 1)[0];
        bench.report(vec![failure(&lease)]);
        bench.pass(wait_s * 1000 - 1);
        assert_eq!(bench.counts(), [0, 0, 1, 0, 0]);
        assert_eq!(bench.ledger.next_wake(), Some(bench.now.plus_ms(1)));
        bench.pass(1);
        assert_eq!(bench.counts(), [1, 0, 0, 0, 0]);
    }
}

#[test]
fn a_failure_that_must_not_be_repeated_is_final_at_the_first_attempt() {
    let mut bench = Bench::new(2);
    let lease = bench.grant("w", 1)[0];
    assert_eq!(bench.report(vec![fatal(&lease), fatal(&lease)]), [Counted, Duplicate]);
    assert_eq!(bench.counts(), [1, 0, 0, 0, 1]);
}

#[test]
fn a_failure_reported_twice_spends_one_attempt() {
    let mut bench = Bench::new(1);
    let lease = bench.grant("w", 1)[0];
    assert_eq!(
        bench.report(vec![failure(&lease), failure(&lease)]),
        [Retrying, Duplicate]
    );
    assert_eq!(bench.report(vec![failure(&lease)]), [Duplicate]);
    bench.save();
    bench.crash();
    assert_eq!(bench.report(vec![failure(&lease)]), [Duplicate]);
    assert_eq!(bench.durable.attempts.len(), 1);
}

#[test]
fn a_failure_and_a_success_in_one_batch_are_one_row() {
    for first in [failure, fatal] {
        let mut bench = Bench::new(2);
        let lease = bench.grant("w", 1)[0];
        bench.held = true;
        let ticket = bench.post("w", vec![first(&lease), success(&lease)]);
        let batch = bench.commit.as_ref().expect("a batch");
        assert_eq!(batch.outcomes.len(), 1);
        assert_eq!(batch.outcomes[0].verdict, Verdict::Succeeded);
        assert_eq!(batch.attempts.len(), 1, "the attempt was spent all the same");
        bench.play();
        assert_eq!(bench.dispositions(ticket)[1], Counted);
        assert_eq!(bench.counts(), [1, 0, 0, 1, 0]);
    }
}

#[test]
fn fm31_a_late_success_corrects_a_failure_until_the_job_is_final() {
    let mut bench = Bench::with(2, one_attempt);
    let leases = bench.grant("w", 2);
    assert_eq!(bench.report(vec![failure(&leases[0])]), [Counted]);
    assert_eq!(bench.counts(), [0, 1, 0, 0, 1]);
    assert_eq!(bench.report(vec![success(&leases[0])]), [Counted]);
    assert_eq!(bench.counts(), [0, 1, 0, 1, 0]);
    assert_eq!(bench.report(vec![success(&leases[1])]), [Counted]);
    assert_eq!(bench.state(), State::Succeeded);
}

#[test]
fn fm31_a_success_after_the_end_is_kept_and_counts_in_the_next_run() {
    let mut bench = Bench::with(2, one_attempt);
    let leases = bench.grant("w", 2);
    bench.report(vec![counted(&leases[0], &[("n", 1)]), failure(&leases[1])]);
    assert_eq!(bench.state(), State::PartiallySucceeded);
    let late = vec![counted(&leases[1], &[("n", 10)])];
    assert_eq!(bench.report(vec![failure(&leases[1])]), [Duplicate]);
    assert_eq!(bench.report(late.clone()), [Late]);
    assert_eq!(bench.report(late.clone()), [Late]);
    assert_eq!(bench.counts(), [0, 0, 0, 1, 1], "kept, uncounted");
    bench.crash();
    let retry = Control::Retry {
        only: RetryOnly::Failed,
        if_run: None,
    };
    assert_eq!(bench.control(retry), Ok(()));
    assert_eq!(bench.counts(), [0, 0, 0, 2, 0]);
    assert_eq!((bench.state(), bench.durable.record.run), (State::Succeeded, Run(2)));
    assert_eq!(bench.ledger.progress(bench.now).counters["n"], 11);
    assert_eq!(bench.report(late), [Duplicate]);
}

#[test]
fn a_late_success_replaces_a_late_failure_in_its_batch_and_after_it() {
    let mut bench = Bench::new(3);
    let leases = bench.grant("w", 3);
    bench.control(Control::Cancel { grace_s: 0 }).unwrap();
    assert_eq!(
        bench.report(vec![failure(&leases[0]), success(&leases[0]), failure(&leases[0])]),
        [Late; 3]
    );
    assert_eq!(bench.report(vec![failure(&leases[1])]), [Late]);
    assert_eq!(bench.report(vec![success(&leases[1])]), [Late]);
    for lease in &leases[..2] {
        assert_eq!(bench.durable.late[&(Run(1), lease.task)].verdict, Verdict::Succeeded);
    }
}

#[test]
fn superseded_is_a_failure_of_another_token_or_of_a_succeeded_task() {
    let mut bench = Bench::new(2);
    let leases = bench.grant("w", 2);
    assert_eq!(bench.report(vec![failure(&other_token(&leases[0]))]), [Superseded]);
    assert_eq!(bench.counts(), [0, 2, 0, 0, 0], "the lease stands");
    bench.report(vec![success(&leases[0])]);
    assert_eq!(bench.report(vec![failure(&leases[0])]), [Superseded]);
    bench.pass(LEASE_MS);
    assert_eq!(
        bench.report(vec![failure(&leases[1])]),
        [Superseded],
        "the attempt was spent by its expiry"
    );
}

#[test]
fn a_success_counts_from_any_token_of_the_run() {
    let mut bench = Bench::new(1);
    let lease = bench.grant("a", 1)[0];
    bench.pass(LEASE_MS);
    bench.pass(1_000);
    let again = bench.grant("b", 1)[0];
    assert_eq!((task(&again), attempt(&again)), (task(&lease), Attempt(2)));
    assert_eq!(bench.report(vec![success(&lease)]), [Counted]);
    assert_eq!(bench.report(vec![success(&again)]), [Duplicate]);
}

#[test]
fn fm25_results_of_an_old_run_are_not_credited_to_the_new_one() {
    let mut bench = Bench::new(2);
    let leases = bench.grant("w", 2);
    bench.report(vec![success(&leases[0])]);
    bench.control(Control::Cancel { grace_s: 0 }).unwrap();
    bench
        .control(Control::Retry {
            only: RetryOnly::Failed,
            if_run: Some(Run(1)),
        })
        .unwrap();
    assert_eq!(
        bench.report(vec![success(&leases[1]), failure(&leases[1])]),
        [StaleRun, StaleRun]
    );
    assert_eq!(
        bench.report(vec![success(&leases[0]), failure(&leases[0])]),
        [Duplicate, Superseded]
    );
    assert_eq!(bench.counts(), [1, 0, 0, 1, 0]);
}

#[test]
fn fm33_fm35_one_bad_item_never_fails_its_neighbours() {
    let mut bench = Bench::new(1);
    let lease = bench.grant("w", 1)[0];
    let unusable = Item {
        lease: Some(lease),
        report: Report::Unusable,
    };
    let garbage = Item {
        lease: None,
        ..success(&lease)
    };
    let elsewhere = success(&Lease { job: JobId(7), ..lease });
    let nowhere = success(&Lease {
        task: TaskNo(1),
        ..lease
    });
    let items = vec![unusable, garbage, elsewhere, nowhere, success(&lease)];
    assert_eq!(
        bench.report(items),
        [Rejected, Rejected, Rejected, UnknownTask, Counted]
    );
}

#[test]
fn a_request_without_items_is_answered_and_may_lease() {
    let mut bench = Bench::new(2);
    assert_eq!(bench.report(Vec::new()), []);
    let ticket = bench.post_then("w", Vec::new(), Some(5));
    let Reply::Results { granted, .. } = bench.reply(ticket) else {
        panic!("results are answered")
    };
    assert_eq!(granted.map(|granted| granted.len()), Some(2));
}

#[test]
fn then_lease_hands_out_after_the_commit_what_the_results_made_room_for() {
    let mut bench = Bench::with(3, |record| record.policy.max_in_flight = Some(1));
    let lease = bench.grant("w", 3)[0];
    let ticket = bench.post_then("w", vec![success(&lease)], Some(3));
    let Reply::Results { granted, .. } = bench.reply(ticket) else {
        panic!("results are answered")
    };
    let tasks: Vec<TaskNo> = granted
        .unwrap_or_default()
        .iter()
        .map(|granted| granted.lease.task)
        .collect();
    assert_eq!(tasks, [TaskNo(1)]);
}

#[test]
fn without_the_right_to_grant_results_count_and_nothing_is_handed_out() {
    let mut bench = Bench::new(3);
    let lease = bench.grant_as("w", 1, Some("r"))[0];
    bench.held = true;
    // The right is lost while the batch is on its way to the store; a second request waits behind it.
    let first = bench.post_then("w", vec![success(&lease)], Some(3));
    let second = bench.post_then("w", vec![success(&lease)], Some(3));
    bench.ledger.note_right_to_grant(false);
    bench.play();
    for (ticket, disposition) in [(first, Counted), (second, Duplicate)] {
        let Reply::Results {
            dispositions, granted, ..
        } = bench.reply(ticket)
        else {
            panic!("results are answered")
        };
        assert_eq!((dispositions, granted), (vec![disposition], Some(Vec::new())));
    }
    assert_eq!(bench.grant("w", 3), [], "nor for any other call");
    assert_eq!(bench.counts(), [2, 0, 0, 1, 0]);
    bench.ledger.note_right_to_grant(true);
    assert_eq!(bench.grant("w", 3).len(), 2);
}

#[test]
fn more_duplicates_than_a_round_takes_are_all_answered() {
    let bounds = Bounds {
        batch_items: 2,
        ..Bounds::default()
    };
    let mut bench = Bench::bounded(2, bounds, |_| {});
    let leases = bench.grant("w", 2);
    bench.held = true;
    bench.post("w", vec![success(&leases[0])]);
    let waiting: Vec<Ticket> = (0..9).map(|_| bench.post("w", vec![success(&leases[0]); 2])).collect();
    let order = bench.order(Control::Pause);
    bench.settle(Settlement::default());
    bench.play();
    assert!(waiting.iter().all(|ticket| bench.has_reply(*ticket)));
    assert_eq!(bench.ruling(order), Ok(()));
}

#[test]
fn fm32_fm30_tasks_fail_and_the_job_is_judged_by_its_policy() {
    let mut bench = Bench::with(1_000, |record| {
        one_attempt(record);
        threshold_count(3)(record);
    });
    let leases = bench.grant("w", 1_000);
    let failures: Vec<Item> = leases[..3].iter().map(failure).collect();
    bench.report(failures);
    assert_eq!(bench.state(), State::Running);
    bench.report(successes(&leases[3..]));
    assert_eq!(bench.counts(), [0, 0, 0, 997, 3]);
    assert_eq!(bench.state(), State::PartiallySucceeded);
}
