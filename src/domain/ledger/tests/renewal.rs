//! Leases of workers that never extend one, and results that name no lease.

use super::Disposition::*;
use super::*;
use crate::domain::ledger::renewal::HOLDERS_KEPT;

impl Bench {
    fn renew(&mut self, holder: &str) {
        self.apply(Command::Renew { holder: named(holder) });
    }

    fn ends(&self, lease: &Lease) -> Option<UnixMs> {
        self.ledger.task(lease.task)?.expires_at
    }

    fn succeed_named(&mut self, number: u32, worker: &str) -> Vec<Disposition> {
        let token = self.ledger.token_of(TaskNo(number), true, worker);
        let ticket = self.post(worker, vec![success(&token)]);
        self.dispositions(ticket)
    }

    fn fail_named(&mut self, number: u32, worker: &str) -> Vec<Disposition> {
        let token = self.ledger.token_of(TaskNo(number), false, worker);
        let ticket = self.post(worker, vec![failure(&token)]);
        self.dispositions(ticket)
    }
}

#[test]
fn a_call_renews_what_its_holder_holds_and_nothing_else() {
    let mut bench = Bench::new(3);
    let mine = bench.grant("gpus@a", 1)[0];
    let sibling = bench.grant("gpus@b", 1)[0];
    let foreign = bench.grant("gpu@a", 1)[0];
    bench.pass(LEASE_MS / 2);
    bench.renew("gpus");
    let renewed = Some(bench.now.plus_ms(LEASE_MS));
    assert_eq!((bench.ends(&mine), bench.ends(&sibling)), (renewed, renewed));
    assert_eq!(bench.ends(&foreign), Some(START.plus_ms(LEASE_MS)));
    bench.pass(LEASE_MS / 2);
    assert_eq!(bench.counts(), [0, 2, 1, 0, 0], "the foreign lease ran out");
    bench.pass(LEASE_MS / 2 - 1);
    assert_eq!(bench.counts()[1], 2);
    bench.pass(1);
    assert_eq!(bench.counts()[1], 0);
}

#[test]
fn fm53_no_call_renews_a_lease_beyond_twice_its_time() {
    let mut bench = Bench::new(1);
    let lease = bench.grant("gpus@dead", 1)[0];
    for _ in 0..7 {
        bench.pass(LEASE_MS / 4);
        bench.renew("gpus");
    }
    assert_eq!(bench.ends(&lease), Some(START.plus_ms(2 * LEASE_MS)));
    bench.pass(LEASE_MS / 4 - 1);
    assert_eq!(bench.counts(), [0, 1, 0, 0, 0]);
    bench.pass(1);
    assert_eq!(
        bench.counts(),
        [0, 0, 1, 0, 0],
        "siblings that live on do not keep it for ever"
    );
}

#[test]
fn a_renewal_shortens_nothing_and_is_no_answer_to_a_lease_that_was_taken_back() {
    let mut bench = Bench::new(1);
    let lease = bench.grant("w", 1);
    bench.pass(LEASE_MS - 10);
    let long = bench.extend("w", &lease);
    bench.pass(LEASE_MS - 10);
    bench.extend("w", &lease);
    let longest = bench.ends(&lease[0]);
    bench.renew("w");
    assert!(longest > long[0] && bench.ends(&lease[0]) == longest, "{longest:?}");
    bench.pass(LEASE_MS);
    assert_eq!(bench.counts()[1], 0);
    bench.renew("w");
    assert_eq!(bench.ends(&lease[0]), None);
}

#[test]
fn a_renewal_outlives_a_restart_in_the_snapshot() {
    let mut bench = Bench::new(1);
    let lease = bench.grant("gpus@a", 1)[0];
    bench.pass(LEASE_MS - 1);
    bench.renew("gpus");
    let ends = bench.ends(&lease);
    bench.save();
    bench.crash();
    assert_eq!(bench.ends(&lease), ends);
}

#[test]
fn a_call_of_a_holder_without_leases_changes_nothing_and_many_holders_are_bounded() {
    let mut bench = Bench::new(HOLDERS_KEPT as u32 + 2);
    let before = bench.ledger.revision();
    bench.renew("idle");
    assert_eq!(bench.ledger.revision(), before);
    let first = bench.grant("h0@x", 1)[0];
    for holder in 1..HOLDERS_KEPT + 2 {
        bench.grant(&format!("h{holder}@x"), 1);
    }
    bench.pass(1_000);
    for holder in 0..HOLDERS_KEPT + 2 {
        bench.renew(&format!("h{holder}"));
    }
    assert_eq!(
        bench.ends(&first),
        Some(bench.now.plus_ms(LEASE_MS)),
        "written into the lease when forgotten"
    );
}

#[test]
fn a_named_task_reports_under_its_own_holders_lease() {
    let mut bench = Bench::new(2);
    bench.grant("gpus@a", 2);
    assert_eq!(bench.fail_named(0, "gpus@b"), [Retrying]);
    assert_eq!(
        bench.fail_named(0, "gpus@b"),
        [Duplicate],
        "the attempt was reported before"
    );
    assert_eq!(bench.succeed_named(1, "gpus@a"), [Counted]);
    assert_eq!(bench.succeed_named(1, "gpus@a"), [Duplicate]);
    assert_eq!(bench.fail_named(1, "gpus@a"), [Superseded]);
    assert_eq!(bench.succeed_named(9, "gpus@a"), [UnknownTask]);
}

#[test]
fn a_failure_that_names_another_holders_task_spends_nothing_and_a_success_counts() {
    let mut bench = Bench::new(2);
    bench.grant("mine@a", 1);
    assert_eq!(bench.fail_named(0, "theirs@b"), [Superseded]);
    assert_eq!(bench.counts(), [1, 1, 0, 0, 0]);
    assert_eq!(bench.succeed_named(0, "theirs@b"), [Counted]);
    assert_eq!(bench.fail_named(1, "theirs@b"), [Superseded], "never handed out");
    assert_eq!(
        bench.succeed_named(1, "theirs@b"),
        [Counted],
        "there is no older run to mistake it for"
    );
    assert_eq!(bench.state(), State::Succeeded);
}

#[test]
fn fm25_a_named_task_of_an_older_run_is_stale_until_this_run_hands_it_out() {
    let mut bench = Bench::new(2);
    bench.control(Control::Cancel { grace_s: 0 }).unwrap();
    bench
        .control(Control::Retry {
            only: RetryOnly::All,
            if_run: None,
        })
        .unwrap();
    assert_eq!(bench.succeed_named(0, "w@a"), [StaleRun]);
    assert_eq!(bench.fail_named(0, "w@a"), [StaleRun]);
    assert_eq!(bench.counts(), [2, 0, 0, 0, 0]);
    bench.grant("w@a", 1);
    assert_eq!(bench.succeed_named(0, "w@a"), [Counted]);
    assert_eq!(bench.succeed_named(1, "w@a"), [StaleRun]);
}

#[test]
fn a_run_has_begun_with_its_first_lease_and_a_restart_remembers() {
    let mut bench = Bench::new(2);
    assert!(!bench.ledger.has_begun());
    bench.crash();
    assert!(!bench.ledger.has_begun());
    let lease = bench.grant("w", 1)[0];
    assert!(bench.ledger.has_begun());
    bench.report(vec![success(&lease)]);
    bench.crash();
    assert!(bench.ledger.has_begun());
    bench.control(Control::Cancel { grace_s: 0 }).unwrap();
    let retry = Control::Retry {
        only: RetryOnly::Failed,
        if_run: None,
    };
    bench.control(retry).unwrap();
    assert!(
        !bench.ledger.has_begun(),
        "a success of the run before is none of this one"
    );
    bench.save();
    bench.crash();
    assert!(!bench.ledger.has_begun());
    let lease = bench.grant("w", 1)[0];
    bench.report(vec![failure(&lease)]);
    bench.crash();
    assert!(bench.ledger.has_begun());
}
