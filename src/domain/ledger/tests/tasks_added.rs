//! Ingest: chunks of tasks between everything else.

use super::*;

fn open(record: &mut JobRecord) {
    record.open = true;
}

#[test]
fn fm28_chunks_and_leases_go_on_together() {
    let mut bench = Bench::with(2, open);
    let ticket = bench.send_chunk(3, Some(2));
    assert_eq!(
        bench.chunk(ticket),
        Ok(Appended {
            added: 3,
            existing: 0,
            total: 5
        })
    );
    let leases = bench.grant("w", 9);
    assert_eq!(leases.len(), 5);
    bench.held = true;
    let results = bench.post("w", successes(&leases[..1]));
    let ticket = bench.send_chunk(2, None);
    assert!(
        bench.commit.is_some() && bench.append.is_some(),
        "a commit of results does not hold a chunk back"
    );
    assert_eq!(bench.ledger.next_wake(), None, "nothing is due that could be done now");
    bench.store_chunk(true);
    assert!(bench.chunk(ticket).is_ok());
    bench.play();
    assert!(bench.has_reply(results));
}

#[test]
fn an_interrupted_upload_resumes_at_the_right_task() {
    let mut bench = Bench::with(2, open);
    let ticket = bench.send_chunk(3, Some(0));
    assert_eq!(bench.chunk(ticket), Err(Refusal::WrongFirstTask { total: 2 }));
    bench.held = true;
    let (one, two) = (bench.send_chunk(3, Some(2)), bench.send_chunk(3, Some(2)));
    bench.play();
    assert!(bench.chunk(one).is_ok());
    assert_eq!(
        bench.chunk(two),
        Err(Refusal::WrongFirstTask { total: 5 }),
        "the second copy is not stored again"
    );
}

#[test]
fn fm22_a_chunk_that_could_not_be_stored_fails_only_itself() {
    let mut bench = Bench::with(1, open);
    bench.held = true;
    let ticket = bench.send_chunk(3, None);
    bench.store_chunk(false);
    assert_eq!(bench.chunk(ticket), Err(Refusal::NotStored));
    assert_eq!((bench.state(), bench.counts()), (State::Running, [1, 0, 0, 0, 0]));
}

#[test]
fn a_sealed_and_a_final_job_take_no_tasks() {
    let mut bench = Bench::new(1);
    let ticket = bench.send_chunk(1, None);
    assert_eq!(bench.chunk(ticket), Err(Refusal::Sealed));
    bench.control(Control::Cancel { grace_s: 0 }).unwrap();
    let ticket = bench.send_chunk(1, None);
    let state = State::Canceled;
    assert_eq!(
        bench.chunk(ticket),
        Err(Refusal::InvalidTransition {
            state,
            verb: "take more tasks"
        })
    );
}

#[test]
fn fm58_a_seal_waits_for_the_chunk_being_stored() {
    let mut bench = Bench::with(1, open);
    let leases = bench.grant("w", 1);
    bench.report(successes(&leases));
    bench.held = true;
    let chunk = bench.send_chunk(1, None);
    let seal = bench.order(Control::Seal);
    assert!(!bench.has_reply(seal) && bench.commit.is_none());
    bench.play();
    assert!(bench.chunk(chunk).is_ok());
    assert_eq!(bench.ruling(seal), Ok(()));
    assert_eq!((bench.state(), bench.counts()), (State::Running, [1, 0, 0, 1, 0]));
}

#[test]
fn a_chunk_behind_a_control_that_changes_nothing_is_still_stored() {
    let mut bench = Bench::with(2, open);
    let leases = bench.grant("w", 1);
    bench.held = true;
    bench.post("w", successes(&leases));
    let start = bench.order(Control::Start);
    let chunk = bench.send_chunk(1, None);
    assert!(bench.append.is_none(), "the control has its turn first");
    bench.play();
    assert_eq!(bench.ruling(start), Ok(()));
    assert!(bench.chunk(chunk).is_ok());
}

#[test]
fn a_due_cancel_has_its_turn_between_two_chunks() {
    let mut bench = Bench::with(2, open);
    bench.grant("w", 1);
    bench.control(Control::Cancel { grace_s: 60 }).unwrap();
    bench.held = true;
    let first = bench.send_chunk(1, None);
    let second = bench.send_chunk(1, None);
    bench.pass(60_000);
    assert_eq!(
        bench.ledger.next_wake(),
        Some(START.plus_ms(LEASE_MS)),
        "the timer would only spin"
    );
    bench.store_chunk(true);
    bench.play();
    assert!(bench.chunk(first).is_ok());
    assert_eq!(bench.state(), State::Canceled);
    assert!(matches!(bench.chunk(second), Err(Refusal::InvalidTransition { .. })));
}

#[test]
fn fm48_the_fraction_of_a_growing_job_never_falls() {
    let mut bench = Bench::with(4, |record| {
        open(record);
        record.expected_total = Some(4);
    });
    let leases = bench.grant("w", 2);
    bench.report(successes(&leases));
    assert_eq!(bench.ledger.progress(bench.now).fraction, Some(0.5));
    bench.send_chunk(16, None);
    assert_eq!(
        bench.ledger.progress(bench.now).fraction,
        Some(0.5),
        "two of twenty, but a bar does not go back"
    );
    bench.save();
    bench.crash();
    assert_eq!(bench.ledger.progress(bench.now).fraction, Some(0.5));
    let leases = bench.grant("w", 10);
    bench.report(successes(&leases));
    assert_eq!(bench.ledger.progress(bench.now).fraction, Some(0.6));
}
