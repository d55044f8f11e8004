//! `bench`: measures this machine and checks that what was fast was also right.
//!
//! Owns: the cases, the rounds and the order in which contenders take turns. Never: reports a run that lost or doubled a result.
//! Invariant: contenders are interleaved within each round, so that a machine whose speed drifts slows all of them alike; only ratios of
//! one round are compared, and their medians reported.

mod connection;
mod group_committer;
mod large;
mod load;
mod many_jobs;
mod memory;
mod naive_postgres;
mod naive_sqlite;
mod open_loop;
mod report;
mod subscribers;

use super::node::{Node, NodeOptions};
use super::opening::StoreAddress;
use super::output::note;
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use load::Load;
use report::{Figure, Report};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Store to measure: sqlite:PATH or postgres://… (a scratch database: jobs and tables are left in it). Default: a temporary SQLite file
    #[arg(long, value_name = "STORE")]
    store: Option<StoreAddress>,
    /// Cases to run
    #[arg(long = "case", value_enum, value_name = "CASE", default_values_t = [Case::Batch, Case::Single, Case::Chained])]
    cases: Vec<Case>,
    /// Workers that call at the same time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    workers: u32,
    /// Tasks leased and reported per call in the case `batch`
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    batch: u32,
    /// Tasks of each measured job; default: what takes a few seconds
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    tasks: Option<u32>,
    /// Rounds; medians are reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds that each baseline runs per round
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    baseline_s: u64,
    /// Bytes of each result
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    result_bytes: u32,
    /// Measure each case once more with so many WebSockets watching the job
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=2000))]
    subscribers: u32,
    /// Measure small posts with and without so many posters of large results beside them, and nothing else
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=256))]
    large: u32,
    /// Bytes of each large result
    #[arg(long, default_value_t = 20 << 20, value_parser = clap::value_parser!(u32).range(2..=128_000_000))]
    large_bytes: u32,
    /// Measure so many active jobs at once beside one hot job with as many tasks in all, and nothing else
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    jobs: u32,
    /// Measure how long a post takes when posts come at a fixed rate, half of what the node can do, and nothing else
    #[arg(long)]
    latency: bool,
    /// Measure each case once more with so many workers
    #[arg(long, default_value_t = 0, value_name = "WORKERS", value_parser = clap::value_parser!(u32).range(0..=4096))]
    growth: u32,
    /// Of the subscribers, so many never read what they are sent
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=2000))]
    stalled: u32,
    /// Measure tallykeeper alone
    #[arg(long)]
    no_baselines: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// A way of working on one hot job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// Lease a batch, report it in one call
    Batch,
    /// Lease 100 at a time, report one by one
    Single,
    /// One task per call: each report leases the next (`then_lease`)
    Chained,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Case::Batch => "batch",
            Case::Single => "single",
            Case::Chained => "chained",
        }
    }

    /// Results in one call.
    fn per_call(self, batch: u32) -> u32 {
        match self {
            Case::Batch => batch,
            Case::Single | Case::Chained => 1,
        }
    }

    fn default_tasks(self) -> u32 {
        match self {
            Case::Batch => 300_000,
            Case::Single | Case::Chained => 50_000,
        }
    }
}

pub(crate) async fn bench(args: BenchArgs) -> Result<ExitCode> {
    let scratch = Scratch::new()?;
    let address = args
        .store
        .clone()
        .unwrap_or_else(|| StoreAddress::Sqlite(scratch.0.join("bench.db")));
    let mut report = Report::new(address.backend(), args.workers, args.rounds, args.result_bytes);
    let node = Node::start(NodeOptions::embedded(address.clone())).await?;
    let measured = if args.large > 0 {
        large::run(&args, &node, address.backend()).await
    } else if args.jobs > 0 {
        many_jobs::run(&args, &node, address.backend()).await
    } else if args.latency {
        open_loop::run(&args, &node, &address).await
    } else {
        measure(&args, &address, &node, &scratch, &mut report).await
    };
    node.stop().await?;
    measured?;
    if !report.is_empty() {
        report.print(args.json)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(
    args: &BenchArgs,
    address: &StoreAddress,
    node: &Node,
    scratch: &Scratch,
    report: &mut Report,
) -> Result<()> {
    for &case in &args.cases {
        for round in 1..=args.rounds {
            note(&format!("case {} round {round}/{}", case.name(), args.rounds));
            let load = Load {
                case,
                workers: args.workers,
                batch: args.batch,
                tasks: args.tasks.unwrap_or_else(|| case.default_tasks()),
                result_bytes: args.result_bytes as usize,
                subscribers: 0,
                stalled: 0,
            };
            let run = load.run(node).await.with_context(|| format!("case {}", case.name()))?;
            report.add(case.name(), round, "tallykeeper", run);
            if args.growth > 0 {
                let more = Load {
                    workers: args.growth,
                    ..load
                };
                let run = more.run(node).await.context("with more workers")?;
                report.add(case.name(), round, "tallykeeper, more workers", run);
            }
            if args.subscribers > 0 {
                let watched = Load {
                    subscribers: args.subscribers,
                    stalled: args.stalled.min(args.subscribers),
                    ..load
                };
                let run = watched.run(node).await.context("with subscribers")?;
                report.add(case.name(), round, "tallykeeper, watched", run);
            }
            if !args.no_baselines {
                baselines(args, case, address, scratch, round, report).await?;
            }
        }
    }
    Ok(())
}

async fn baselines(
    args: &BenchArgs,
    case: Case,
    address: &StoreAddress,
    scratch: &Scratch,
    round: u32,
    report: &mut Report,
) -> Result<()> {
    let shape = Shape {
        workers: args.workers as usize,
        batch: case.per_call(args.batch) as usize,
        result: "x".repeat(args.result_bytes as usize),
        duration: Duration::from_secs(args.baseline_s),
    };
    let figures = match address {
        StoreAddress::Postgres(url) => naive_postgres::run_all(url, &shape).await?,
        StoreAddress::Sqlite(_) => naive_sqlite::run_all(&scratch.0, &shape).await?,
    };
    for (name, figure) in figures {
        report.add(case.name(), round, name, figure);
    }
    Ok(())
}

/// What every baseline does: so many writers, so many results per transaction, for so long.
pub(super) struct Shape {
    workers: usize,
    batch: usize,
    result: String,
    duration: Duration,
}

impl Shape {
    /// The figure of a baseline that recorded so many results and found so many afterwards.
    fn figure(&self, recorded: u64, found: u64, elapsed: Duration) -> Result<Figure> {
        if recorded != found {
            bail!("a baseline recorded {recorded} results but holds {found}");
        }
        Ok(Figure::plain(recorded, elapsed))
    }
}

/// A directory that goes away with the run.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch> {
        let dir = std::env::temp_dir().join(format!(
            "tallykeeper-bench-{}-{:08x}",
            std::process::id(),
            rand::random::<u32>()
        ));
        std::fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Scratch(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Best effort: a leftover in the temporary directory harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
