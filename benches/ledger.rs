//! How many results one core's ledger takes: grant 100, report 100, settle, over jobs of growing size.
//!
//! Owns: the loop, the thread's processor time around it, the check that every task was counted once. Never: does I/O but for printing the figures.
//! Invariant: a run that did not count every result exactly once fails instead of printing a figure.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::collections::BTreeMap;
use std::sync::Arc;
use tallykeeper::domain::ids::{Epoch, JobId, LeaseSeq, QueueId, Run, Seq, UnixMs};
use tallykeeper::domain::job::{Fence, JobRecord, Tally};
use tallykeeper::domain::ledger::{
    Bounds, Command, Effects, Grant, Item, Ledger, Loading, NewerTokens, Reply, Report, Results, Settlement, Ticket,
};
use tallykeeper::domain::policy::Policy;
use tallykeeper::domain::state::State;

const BATCH: u32 = 100;
/// Results measured at each size; small jobs are run again and again until they are reached.
const RESULTS: u32 = 2_000_000;
const ROUNDS: usize = 5;
const SIZES: [u32; 4] = [1_000, 100_000, 1_000_000, 10_000_000];

fn main() {
    let mut rates: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    // The sizes take turns, so that a slow spell of the machine hits all of them.
    for _ in 0..ROUNDS {
        for size in SIZES {
            rates.entry(size).or_default().push(measure(size));
        }
    }
    println!(
        "{:>12} {:>14} {:>12} {:>10}",
        "tasks", "results/s", "ns/result", "cost ratio"
    );
    let mut rows = Vec::new();
    let mut first = None;
    for (size, mut seen) in rates {
        seen.sort_by(f64::total_cmp);
        let median = seen[seen.len() / 2];
        let ratio = *first.get_or_insert(median) / median;
        println!("{size:>12} {median:>14.0} {:>12.1} {ratio:>10.2}", 1e9 / median);
        rows.push(serde_json::json!({"tasks": size, "results_per_s": median.round(), "cost_ratio": ratio}));
    }
    println!(
        "{}",
        serde_json::json!({"bench": "ledger", "batch": BATCH, "rounds": ROUNDS, "sizes": rows})
    );
}

/// Results per second of jobs of one size, from the first grant to the verdict (or until enough were measured).
fn measure(size: u32) -> f64 {
    let (mut results, mut elapsed) = (0, 0.0);
    while results < RESULTS {
        let mut ledger = ledger(size);
        let most = size.min(RESULTS);
        let started = on_cpu();
        while ledger.decided() < most {
            cycle(&mut ledger);
        }
        elapsed += on_cpu() - started;
        results += most;
        assert_eq!(ledger.progress(NOW).succeeded, most, "every result was counted once");
        assert_eq!(ledger.record().state.is_final(), most == size);
    }
    f64::from(results) / elapsed
}

/// Seconds this thread has run: other load on the machine does not count against the ledger.
fn on_cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts the time of threads");
    let nanoseconds: f64 = text
        .split(' ')
        .next()
        .and_then(|word| word.parse().ok())
        .expect("the first word is a time");
    nanoseconds / 1e9
}

const NOW: UnixMs = UnixMs(1_700_000_000_000);

/// One worker's whole turn: a grant, its results, their commit.
fn cycle(ledger: &mut Ledger) {
    let worker: Arc<str> = "worker-1".into();
    let grant = Grant {
        ticket: Ticket(1),
        worker: worker.clone(),
        max_tasks: BATCH,
        request_id: None,
    };
    let items = match only_reply(ledger.apply(Command::Grant(grant), NOW)) {
        Reply::Granted(granted) => granted
            .into_iter()
            .map(|granted| success(Some(granted.lease)))
            .collect(),
        other => panic!("a grant was answered {other:?}"),
    };
    let report = Results {
        ticket: Ticket(2),
        worker,
        items,
        then_lease: None,
    };
    let effects = ledger.apply(Command::Results(report), NOW);
    assert!(effects.replies.is_empty(), "nothing is acknowledged before its commit");
    // The store would take the rows; here they are only dropped, which is part of their cost.
    drop(effects.commit.expect("results make a batch"));
    let settled = ledger.apply(Command::Settled(Settlement::default()), NOW);
    match only_reply(settled) {
        Reply::Results { dispositions, .. } => assert_eq!(dispositions.len(), BATCH as usize),
        other => panic!("results were answered {other:?}"),
    }
}

fn success(lease: Option<tallykeeper::domain::lease::Lease>) -> Item {
    Item {
        lease,
        report: Report::Succeeded {
            result: Some("{\"label\":\"moth\",\"score\":0.97}".into()),
            counters: Vec::new(),
        },
    }
}

fn only_reply(mut effects: Effects) -> Reply {
    assert_eq!(effects.replies.len(), 1);
    effects.replies.remove(0).1
}

fn ledger(total: u32) -> Ledger {
    let record = JobRecord {
        id: JobId(1),
        name: "bench".into(),
        queue: "bench".into(),
        queue_id: QueueId(1),
        state: State::Running,
        run: Run(1),
        base_run: Run(1),
        priority: 0,
        open: false,
        expected_total: None,
        stages: Vec::new(),
        policy: Policy::default(),
        labels: BTreeMap::new(),
        callback_url: None,
        tally: Tally {
            total,
            ..Tally::default()
        },
        error: None,
        start_at: None,
        cancel_at: None,
        created_at: NOW,
        started_at: Some(NOW),
        finished_at: None,
        updated_at: NOW,
        changed_seq: Seq(0),
    };
    let fence = Fence {
        queue: QueueId(1),
        epoch: Epoch(1),
    };
    Loading::new(record, None)
        .finish(
            fence,
            Bounds::default(),
            LeaseSeq(0),
            UnixMs(0),
            NewerTokens::Suspect,
            NOW,
        )
        .expect("a new job loads")
}
