//! The store is away: nothing is acknowledged, nothing is lost, nobody is late.

use super::Disposition::*;
use super::*;

#[test]
fn fm17_no_lease_expires_while_the_store_is_away() {
    let mut bench = Bench::with(1, one_attempt);
    let leases = bench.grant("w", 1);
    bench.store_is(false);
    bench.pass(10 * LEASE_MS);
    assert_eq!(bench.counts(), [0, 1, 0, 0, 0]);
    assert_eq!(bench.ledger.next_wake(), None);
    bench.store_is(true);
    bench.pass(RESTORED_LEASE_MS - 1);
    assert_eq!(
        bench.report(successes(&leases)),
        [Counted],
        "there was no way to report before"
    );
}

#[test]
fn a_lease_kept_through_an_outage_runs_out_after_it() {
    let mut bench = Bench::with(1, one_attempt);
    bench.grant("w", 1);
    bench.store_is(false);
    bench.pass(LEASE_MS);
    bench.store_is(true);
    bench.pass(RESTORED_LEASE_MS);
    assert_eq!(bench.state(), State::Failed);
}

#[test]
fn results_gathered_during_an_outage_are_one_more_batch() {
    let mut bench = Bench::new(4);
    let leases = bench.grant("w", 4);
    bench.held = true;
    bench.store_is(false);
    let tickets: Vec<Ticket> = leases
        .iter()
        .map(|lease| bench.post("w", vec![success(lease)]))
        .collect();
    bench.pass(LEASE_MS);
    assert!(tickets.iter().all(|ticket| !bench.has_reply(*ticket)));
    assert_eq!(bench.counts(), [0, 4, 0, 0, 0]);
    bench.settle(Settlement::default());
    assert_eq!(bench.commit.as_ref().map(|batch| batch.outcomes.len()), Some(3));
    bench.play();
    for ticket in tickets {
        assert_eq!(bench.dispositions(ticket), [Counted]);
    }
    assert_eq!(bench.state(), State::Succeeded);
}

#[test]
fn an_expiry_the_store_refused_is_tried_again_later() {
    let mut bench = Bench::new(1);
    let leases = bench.grant("w", 1);
    bench.held = true;
    bench.pass(LEASE_MS);
    bench.settle(Settlement {
        refused: vec![leases[0].task],
        update_dropped: false,
    });
    assert_eq!(bench.counts(), [0, 1, 0, 0, 0]);
    assert!(bench.commit.is_none(), "not at once: it would be refused again");
    bench.pass(RESTORED_LEASE_MS);
    assert!(bench.commit.is_some());
}

#[test]
fn a_control_whose_update_was_dropped_says_so() {
    let mut bench = Bench::new(1);
    bench.held = true;
    let order = bench.order(Control::Pause);
    bench.settle(Settlement {
        refused: Vec::new(),
        update_dropped: true,
    });
    assert_eq!(bench.ruling(order), Err(Refusal::NotStored));
    assert_eq!(bench.state(), State::Running);
}
