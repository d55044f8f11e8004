//! Stage marks and notes.
//!
//! Owns: what is shown of them. Never: lets them decide anything. Invariant: marks only move forward within a run.

use super::*;

fn bench(total: u32) -> Bench {
    Bench::with(total, |record| {
        record.stages = ["detect", "classify", "save"].map(stage).to_vec();
        record.policy.max_attempts = 1;
    })
}

fn reached(bench: &mut Bench) -> Vec<u32> {
    let progress = bench.ledger.progress(bench.now);
    progress.stages.into_iter().map(|stage| stage.reached).collect()
}

#[test]
fn a_mark_implies_those_before_it_and_success_implies_all() {
    let mut bench = bench(10);
    let leases = bench.grant("w", 4);
    assert_eq!(reached(&mut bench), [0, 0, 0]);
    bench.extend_at("w", &leases[..3], Some("detect"), None);
    bench.extend_at("w", &leases[..1], Some("classify"), None);
    assert_eq!(reached(&mut bench), [3, 1, 0]);
    bench.extend_at("w", &leases[..1], Some("detect"), None);
    assert_eq!(reached(&mut bench), [3, 1, 0], "marks only move forward");
    bench.report(vec![success(&leases[1]), success(&leases[3])]);
    assert_eq!(reached(&mut bench), [4, 3, 2]);
    bench.report(vec![fatal(&leases[2])]);
    assert_eq!(
        reached(&mut bench),
        [4, 3, 2],
        "a failed task has come as far as it came"
    );
}

#[test]
fn an_unknown_stage_is_refused_and_prolongs_nothing() {
    let mut bench = bench(1);
    let leases = bench.grant("w", 1);
    let ends = bench.ledger.leases.get(leases[0].task).unwrap().expires_at;
    bench.pass(1_000);
    let ticket = bench.ticket();
    bench.apply(Command::Extend(Extend {
        ticket,
        worker: named("w"),
        leases: vec![Some(leases[0])],
        stage: Some("sieve".into()),
        note: None,
    }));
    assert_eq!(bench.reply(ticket), Reply::Refused(Refusal::UnknownStage));
    assert_eq!(bench.ledger.leases.get(leases[0].task).unwrap().expires_at, ends);
}

#[test]
fn a_lost_lease_marks_nothing() {
    let mut bench = bench(2);
    let leases = bench.grant("w", 1);
    bench.pass(LEASE_MS);
    assert_eq!(bench.extend_at("w", &leases, Some("save"), None), [None]);
    assert_eq!(reached(&mut bench), [0, 0, 0]);
}

#[test]
fn marks_survive_with_the_snapshot_and_a_run_starts_without_them() {
    let mut bench = bench(4);
    let leases = bench.grant("w", 3);
    bench.extend_at("w", &leases, Some("classify"), Some("half way"));
    bench.save();
    bench.extend_at("w", &leases[..1], Some("save"), None);
    assert_eq!(reached(&mut bench), [3, 3, 1]);
    bench.crash();
    assert_eq!(
        reached(&mut bench),
        [3, 3, 0],
        "marks since the snapshot are lost, no others"
    );
    bench.report(vec![success(&leases[0]), fatal(&leases[1])]);
    bench.control(Control::Cancel { grace_s: 0 }).unwrap();
    assert_eq!(bench.durable.record.tally.reached, [3, 3, 1]);
    bench.durable.snapshot = None;
    bench.crash();
    assert_eq!(reached(&mut bench), [3, 3, 1], "the row remembers what it has counted");
    bench
        .control(Control::Retry {
            only: RetryOnly::Failed,
            if_run: None,
        })
        .unwrap();
    assert_eq!(reached(&mut bench), [1, 1, 1]);
}

#[test]
fn appending_takes_no_stage_back() {
    let mut bench = Bench::with(4, |record| {
        record.stages = vec![stage("detect")];
        record.open = true;
        record.expected_total = Some(4);
    });
    let leases = bench.grant("w", 2);
    bench.extend_at("w", &leases, Some("detect"), None);
    let fraction = |bench: &mut Bench| bench.ledger.progress(bench.now).stages[0].fraction;
    assert_eq!(fraction(&mut bench), Some(0.5));
    let ticket = bench.send_chunk(4, None);
    bench.chunk(ticket).unwrap();
    assert_eq!(fraction(&mut bench), Some(0.5));
    bench.save();
    bench.crash();
    assert_eq!(fraction(&mut bench), Some(0.5));
}

#[test]
fn the_last_note_on_a_lease_is_kept_while_it_is_held() {
    let mut bench = bench(1);
    let leases = bench.grant("w", 1);
    let note = |bench: &Bench| {
        bench
            .ledger
            .leases
            .get(leases[0].task)
            .and_then(|held| held.note.clone())
    };
    bench.extend_at("w", &leases, None, Some("loading"));
    bench.extend_at("w", &leases, Some("detect"), None);
    assert_eq!(note(&bench).as_deref(), Some("loading"));
    bench.extend_at("w", &leases, None, Some("detecting"));
    assert_eq!(note(&bench).as_deref(), Some("detecting"));
    bench.release("w", &leases);
    bench.grant("w", 1);
    assert_eq!(note(&bench), None);
}
