//! Two nodes under load while everything that can break does, in an order that a seed decides.
//!
//! Owns: the faults, and when the next one comes. Never: repairs what a node should repair by itself. Invariant: whatever happened, every
//! acknowledged result is there exactly once, counts are the sizes of the sets, each job has ended once, and no message anyone saw was wrong.
//!
//! A short run is part of the suite; `tests/chaos` runs it for as long as one likes.
#![allow(clippy::print_stderr, reason = "the figures of a run are worth reading")]

use crate::app::{Place, TempDir};
use crate::chaos_proxy::Proxy;
use crate::chaos_watch::Watching;
use crate::cluster::Cluster;
use crate::crash_load::{Running, seed};
use crate::nodes_cluster::LEASE_S;
use crate::process::{Client, Launch, Process, until};
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const NODES: [&str; 2] = ["a", "b"];
const QUEUES: [&str; 4] = ["q0", "q1", "q2", "q3"];
/// What the suite runs, unless it is told another.
const SEEDS: [u64; 2] = [0x7a11, 0x5eed];
/// Node b's wall clock is so much ahead.
const SKEW_S: u64 = 3_600;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillNode,
    /// SIGSTOP for longer than its lease, then SIGCONT: a zombie.
    FreezeNode,
    RestartNode,
    KillDatabase,
    CutDatabaseLine,
    DelayDatabaseLine,
    /// Longer than the lease: the node must stop by itself.
    HoldDatabaseLine,
    CutWorkerLine,
    DelayWorkerLine,
    LoseAnswers,
}

const FAULTS: [Fault; 10] = [
    Fault::KillNode,
    Fault::FreezeNode,
    Fault::RestartNode,
    Fault::KillDatabase,
    Fault::CutDatabaseLine,
    Fault::DelayDatabaseLine,
    Fault::HoldDatabaseLine,
    Fault::CutWorkerLine,
    Fault::DelayWorkerLine,
    Fault::LoseAnswers,
];

/// How long a run goes on: until all of these are reached.
struct Length {
    faults: usize,
    results: u64,
    time: Duration,
}

impl Length {
    /// As the environment says; else each kind of fault once.
    fn wanted() -> Length {
        let given = |name: &str| {
            let text = std::env::var(format!("TALLYKEEPER_CHAOS_{name}")).ok();
            text.map(|text| {
                text.parse::<u64>()
                    .unwrap_or_else(|_| panic!("TALLYKEEPER_CHAOS_{name} is a number"))
            })
        };
        Length {
            faults: given("FAULTS").map_or(FAULTS.len(), |faults| faults as usize),
            results: given("RESULTS").unwrap_or(0),
            time: Duration::from_secs(given("SECONDS").unwrap_or(0)),
        }
    }
}

struct Node {
    launch: Launch,
    process: Process,
    database: Proxy,
    workers: Proxy,
    workers_port: u16,
    _sockets: TempDir,
}

struct World {
    cluster: Cluster,
    /// Reaches the database by a line that never fails.
    direct: Launch,
    nodes: Vec<Node>,
    random: StdRng,
    injected: BTreeMap<Fault, u32>,
}

/// The library that lets a process see another wall clock.
fn clock_library() -> PathBuf {
    let found = std::fs::read_dir("/usr/lib")
        .into_iter()
        .flatten()
        .flatten()
        .find_map(|dir| {
            let file = dir.path().join("faketime/libfaketimeMT.so.1");
            file.is_file().then_some(file)
        });
    found.expect("libfaketime is installed (Debian: apt-get install libfaketime; tests/run does it)")
}

impl World {
    async fn start(seed: u64) -> World {
        let cluster = Cluster::start();
        let direct = cluster.fresh_database().await;
        let (base, socket_dir) = direct.split_once("host=").expect("tests speak over a socket");
        let first = Launch::new(Place::Postgres(direct.clone())).set("NODE_LEASE_S", LEASE_S);
        let mut nodes = Vec::new();
        for name in NODES {
            let sockets = TempDir::new();
            let socket = ".s.PGSQL.5432";
            let database = Proxy::unix(&sockets.0.join(socket), &PathBuf::from(socket_dir).join(socket));
            let mut launch = first.sibling(name);
            launch.place = Place::Postgres(format!("{base}host={}", sockets.0.display()));
            if name == "b" {
                launch = launch
                    .env("LD_PRELOAD", clock_library().display())
                    .env("FAKETIME", format!("+{SKEW_S}"))
                    .env("DONT_FAKE_MONOTONIC", 1)
                    .env("FAKETIME_DONT_FAKE_MONOTONIC", 1);
            }
            let process = launch.start().await;
            let (workers, workers_port) = Proxy::tcp(launch.port()).await;
            nodes.push(Node {
                launch,
                process,
                database,
                workers,
                workers_port,
                _sockets: sockets,
            });
        }
        World {
            cluster,
            direct: first,
            nodes,
            random: StdRng::seed_from_u64(seed),
            injected: BTreeMap::new(),
        }
    }

    /// A client that goes through the lines that fail, to whichever node.
    fn client(&self) -> Client {
        Client::of_any(
            self.nodes
                .iter()
                .map(|node| format!("http://127.0.0.1:{}", node.workers_port))
                .collect(),
        )
    }

    fn some_ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.random.random_range(from..=to))
    }

    fn beyond_the_lease(&mut self) -> Duration {
        self.some_ms(LEASE_S * 1_100, LEASE_S * 1_600)
    }

    async fn inject(&mut self, fault: Fault) {
        *self.injected.entry(fault).or_default() += 1;
        let at = self.random.random_range(0..self.nodes.len());
        match fault {
            Fault::KillNode => {
                self.nodes[at].process.kill().await;
                // Sometimes its lease has run out before it is back, sometimes it takes its own queues again.
                tokio::time::sleep(self.some_ms(0, LEASE_S * 1_500)).await;
                self.nodes[at].process = self.nodes[at].launch.start().await;
            }
            Fault::FreezeNode => {
                self.nodes[at].process.signal(Signal::STOP);
                tokio::time::sleep(self.beyond_the_lease()).await;
                self.nodes[at].process.signal(Signal::CONT);
            }
            Fault::RestartNode => {
                let status = self.nodes[at].process.terminate().await;
                assert!(status.success(), "{status}: {}", self.nodes[at].process.log());
                self.nodes[at].process = self.nodes[at].launch.start().await;
            }
            Fault::KillDatabase => {
                self.cluster.kill();
                tokio::time::sleep(self.some_ms(0, 2_000)).await;
                self.cluster.restart();
            }
            Fault::CutDatabaseLine => self.nodes[at].database.cut(),
            Fault::CutWorkerLine => self.nodes[at].workers.cut(),
            Fault::DelayDatabaseLine => {
                let by = self.some_ms(20, 200);
                self.nodes[at].database.delay(by);
                tokio::time::sleep(self.some_ms(500, 3_000)).await;
                self.nodes[at].database.delay(Duration::ZERO);
            }
            Fault::DelayWorkerLine => {
                let by = self.some_ms(20, 400);
                self.nodes[at].workers.delay(by);
                tokio::time::sleep(self.some_ms(500, 3_000)).await;
                self.nodes[at].workers.delay(Duration::ZERO);
            }
            Fault::HoldDatabaseLine => {
                self.nodes[at].database.hold(true);
                tokio::time::sleep(self.beyond_the_lease()).await;
                self.nodes[at].database.hold(false);
            }
            Fault::LoseAnswers => {
                let (before, more) = (self.nodes[at].workers.lost(), self.random.random_range(1..=8));
                self.nodes[at].workers.lose_answers(more);
                let workers = &self.nodes[at].workers;
                until("answers are lost", async || {
                    (workers.lost() >= before + more).then_some(())
                })
                .await;
            }
        }
    }

    /// Every kind of fault once, in some order, then any.
    fn plan(&mut self) -> Vec<Fault> {
        let mut kinds = FAULTS.to_vec();
        let mut order = Vec::new();
        while !kinds.is_empty() {
            order.push(kinds.swap_remove(self.random.random_range(0..kinds.len())));
        }
        order
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm15_fm37_fm42_fm55_chaos_loses_and_doubles_nothing() {
    match std::env::var_os("TALLYKEEPER_TEST_SEED") {
        Some(_) => chaos(seed()).await,
        None => {
            for seed in SEEDS {
                chaos(seed).await;
            }
        }
    }
}

async fn chaos(seed: u64) {
    let (length, began) = (Length::wanted(), Instant::now());
    let mut world = World::start(seed).await;
    let workers = if length.results > 0 { 8 } else { 3 };
    let mut running = Vec::new();
    for (number, queue) in QUEUES.into_iter().enumerate() {
        let policy = json!({"lease_timeout_s": 3600, "failure_threshold": {"ratio": 1.0}, "backoff": {"initial_s": 0}});
        running.push(Running::start_in(queue, world.client(), seed ^ number as u64, workers, policy).await);
    }
    let watching = Vec::from_iter(running.iter().map(|one| Watching::start(world.client(), one.load.job)));
    let mut plan = world.plan().into_iter();
    let mut faults = 0;
    let acknowledged = |running: &[Running]| running.iter().map(Running::acknowledged).sum::<u64>();
    while faults < length.faults || acknowledged(&running) < length.results || began.elapsed() < length.time {
        let fault = plan
            .next()
            .unwrap_or_else(|| *FAULTS.choose(&mut world.random).expect("there are some"));
        world.inject(fault).await;
        faults += 1;
        // Every job goes on before the next one comes.
        join_all(running.iter().map(|one| one.progress(50))).await;
    }
    let finished = join_all(running.into_iter().map(Running::finish)).await;
    let (mut seen, mut sum) = (0, 0);
    for watching in watching {
        seen += watching.end().await;
    }
    for load in &finished {
        eprintln!("{}", load.check().await);
        load.check_rows(&world.direct).await;
        sum += load.acknowledged.load(Ordering::Relaxed);
    }
    for node in &mut world.nodes {
        let status = node.process.terminate().await;
        assert!(status.success(), "{status}: {}", node.process.log());
    }
    eprintln!(
        "seed={seed} faults={faults} {:?} clock of one node {SKEW_S} s ahead; results acknowledged={sum}, progress messages seen={seen}, \
         lost=0 double=0 in {:.0} s",
        world.injected,
        began.elapsed().as_secs_f64(),
    );
}
