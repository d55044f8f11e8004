//! Latency at a fixed rate: posts come when they are due, whether or not those before are answered.
//!
//! Owns: when a post is due and what its latency is counted from. Never: lets a slow answer thin out the load (coordinated omission).
//! Invariant: node and bare group committer are asked at the same rate in the same round, each post with one result.

use super::connection::Connection;
use super::load::{Load, Worker};
use super::report::{median, percentiles};
use super::{BenchArgs, Case, Shape, group_committer, naive_postgres};
use crate::cli::node::Node;
use crate::cli::opening::StoreAddress;
use crate::cli::output::{note, print};
use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::json;
use std::time::{Duration, Instant};

/// Of what the node can do at most.
const SHARE_OF_CLOSED_LOOP: f64 = 0.5;
/// Between taking the leases and the first post.
const LEAD: Duration = Duration::from_millis(50);

/// When posts are due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    began: Instant,
    gap: Duration,
}

impl Pace {
    pub(super) fn new(per_s: f64) -> Pace {
        Pace {
            began: Instant::now() + LEAD,
            gap: Duration::from_secs_f64(1.0 / per_s),
        }
    }

    fn due(&self, number: u32) -> Instant {
        self.began + self.gap * number
    }

    /// Waits until this post is due; answers what its latency counts from. A caller that was busy until later has kept it waiting, and that
    /// counts; that a timer woke a free caller late does not.
    pub(super) async fn turn(&self, number: u32) -> Instant {
        let due = self.due(number);
        if due <= Instant::now() {
            return due;
        }
        tokio::time::sleep_until(due.into()).await;
        Instant::now()
    }
}

/// Median and 99th percentile in microseconds.
type Latency = (u32, u32);

struct Round {
    per_s: f64,
    ours: Latency,
    theirs: Option<Latency>,
}

pub(super) async fn run(args: &BenchArgs, node: &Node, address: &StoreAddress) -> Result<()> {
    let mut rounds = Vec::new();
    for round in 1..=args.rounds {
        note(&format!("latency, round {round}/{}", args.rounds));
        let closed = Load {
            case: Case::Single,
            workers: args.workers,
            batch: 1,
            tasks: args.tasks.unwrap_or(Case::Single.default_tasks()),
            result_bytes: args.result_bytes as usize,
            subscribers: 0,
            stalled: 0,
        };
        let most_per_s = closed.run(node).await.context("as fast as it goes")?.tasks_per_s();
        let per_s = most_per_s * SHARE_OF_CLOSED_LOOP;
        let ours = paced(&closed, node, per_s).await.context("at half of that")?;
        let theirs = match address {
            StoreAddress::Postgres(url) => {
                let shape = Shape {
                    workers: args.workers as usize,
                    batch: 1,
                    result: "x".repeat(args.result_bytes as usize),
                    duration: Duration::from_secs_f64(f64::from(closed.tasks) / per_s),
                };
                let client = naive_postgres::prepared(url).await?;
                let latencies = group_committer::paced(client, &shape, closed.tasks, per_s).await?;
                naive_postgres::clear(url).await?;
                percentiles(latencies)
            }
            StoreAddress::Sqlite(_) => None,
        };
        rounds.push(Round { per_s, ours, theirs });
    }
    report(args, address.backend(), &rounds)
}

/// The node's latencies while one result after the other comes at this rate.
async fn paced(load: &Load, node: &Node, per_s: f64) -> Result<Latency> {
    let mut control = Connection::open(&node.url(), node.token()).await?;
    let (job, _) = load.feed(&mut control).await?;
    let mut ready = Vec::new();
    for (number, mut worker) in (0..).zip(load.workers(node, job).await?) {
        // Its share, ahead: the posts alone are measured.
        let share = (number..load.tasks).step_by(load.workers as usize).len();
        let mut leased = Vec::new();
        while leased.len() < share {
            let granted = worker.lease((share - leased.len()).min(1000) as u32).await?;
            ensure!(!granted.is_empty(), "no more leases");
            leased.extend(granted);
        }
        ready.push((number, worker, leased));
    }
    let (pace, step) = (Pace::new(per_s), load.workers);
    let posting = ready.into_iter().map(|(number, mut worker, leased)| {
        tokio::spawn(async move {
            for (number, task) in (number..).step_by(step as usize).zip(&leased) {
                let since = pace.turn(number).await;
                worker.report(std::slice::from_ref(task), None, since).await?;
            }
            anyhow::Ok(worker)
        })
    });
    let workers: Vec<Worker> = try_join_all(posting).await?.into_iter().collect::<Result<_>>()?;
    let seen: Vec<_> = workers.into_iter().map(|worker| worker.seen).collect();
    load.check(&mut control, job, &seen).await?;
    percentiles(seen.into_iter().flat_map(|seen| seen.latencies_us).collect()).context("there were posts")
}

fn report(args: &BenchArgs, store: &str, rounds: &[Round]) -> Result<()> {
    let of = |pick: fn(&Round) -> f64| median(rounds.iter().map(pick)).unwrap_or_default();
    let per_s = of(|r| r.per_s);
    let (p50, p99) = (of(|r| f64::from(r.ours.0)), of(|r| f64::from(r.ours.1)));
    let theirs = |pick: fn(&Latency) -> u32| {
        median(
            rounds
                .iter()
                .filter_map(|r| r.theirs.as_ref().map(|us| f64::from(pick(us)))),
        )
    };
    let (their_p50, their_p99) = (theirs(|us| us.0), theirs(|us| us.1));
    let ratios = rounds
        .iter()
        .filter_map(|r| Some(f64::from(r.ours.1) / f64::from(r.theirs?.1)));
    let ratio = median(ratios).map(|ratio| (ratio * 100.0).round() / 100.0);
    if args.json {
        let value = json!({
            "store": store, "workers": args.workers, "rounds": args.rounds, "exact": true, "per_s": per_s.round(),
            "us_p50": p50, "us_p99": p99, "group_committer_us_p50": their_p50, "group_committer_us_p99": their_p99,
            "p99_ratio_median": ratio,
        });
        return print(&format!("{value:#}\n"));
    }
    let ms = |us: f64| format!("{:.2}", us / 1000.0);
    let mut table = format!(
        "{store} · {per_s:.0} single results/s, half of the most · {} connections · medians of {} rounds · every run exact\n\n",
        args.workers, args.rounds
    );
    table += &format!("{:<34} {:>9} {:>9}\n", "", "p50 ms", "p99 ms");
    table += &format!("{:<34} {:>9} {:>9}\n", "tallykeeper", ms(p50), ms(p99));
    if let (Some(their_p50), Some(their_p99), Some(ratio)) = (their_p50, their_p99, ratio) {
        table += &format!(
            "{:<34} {:>9} {:>9}\n",
            "bare group committer, no HTTP",
            ms(their_p50),
            ms(their_p99)
        );
        table += &format!("\np99 is {ratio:.2} × of the bare group committer's at the same rate\n");
    }
    print(&table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_caller_that_is_late_has_kept_its_post_waiting_since_it_was_due() {
        let pace = Pace {
            began: Instant::now() - Duration::from_secs(1),
            gap: Duration::from_millis(1),
        };
        assert_eq!(pace.turn(3).await, pace.due(3));
        let woken = pace.turn(1_050).await;
        assert!(woken >= pace.due(1_050));
    }
}
