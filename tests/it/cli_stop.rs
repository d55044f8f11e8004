//! `run` and `work` told to end by signals: with the node, the store or the terminal away.
//!
//! Owns: the signals, and what is left of commands after them. Never: waits for a time; files and logs say how far a process is. Invariant:
//! a process that was told to go goes, and none of its commands outlives it.

use crate::app::Place;
use crate::cluster::Cluster;
use crate::process::{Client, Launch, PATIENCE, Process, until};
use rustix::process::{Pid, Signal, test_kill_process};
use serde_json::json;
use std::fs::{self, File};
use std::process::Stdio;

/// Says its number in `pids`, then waits until a file `go` is there.
const WAITS: &str = "echo $$ >> pids; until [ -e go ]; do sleep 0.05; done";

async fn submit(client: &Client, tasks: usize) -> String {
    let tasks: Vec<_> = (0..tasks).map(|n| json!({"payload": n})).collect();
    let job = json!({"name": "stopped", "queue": "q", "tasks": tasks, "policy": {"max_attempts": 1}});
    format!("/v1/jobs/{}", client.post("/v1/jobs", job).await["id"])
}

fn work(launch: &Launch, more: &[&str]) -> Process {
    let mut program = launch.program();
    program
        .args(["work", "--queue", "q", "--server", &launch.url()])
        .args(more)
        .args(["--", "sh", "-c", WAITS]);
    Process::spawn(program)
}

fn run(launch: &Launch, more: &[&str]) -> Process {
    fs::write(launch.dir().join("items"), "1\n").unwrap();
    let mut program = launch.program();
    program
        .args(["run", "--quiet", "-j", "1", "--store", &launch.store()])
        .args(more)
        .args(["--", "sh", "-c", WAITS])
        .stdin(Stdio::from(File::open(launch.dir().join("items")).unwrap()));
    Process::spawn(program)
}

/// The command that runs; a line without its end is one that is still being written.
async fn running(launch: &Launch) -> Pid {
    until("a command runs", async || {
        let pids = fs::read_to_string(launch.dir().join("pids")).ok()?;
        Pid::from_raw(pids.lines().next().filter(|_| pids.ends_with('\n'))?.parse().ok()?)
    })
    .await
}

async fn until_said(process: &Process, what: &str) {
    until(what, async || process.log().contains(what).then_some(())).await;
}

fn let_go(launch: &Launch) {
    File::create(launch.dir().join("go")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_node_is_away_ends_when_told_twice() {
    let launch = Launch::new(Place::sqlite());
    let mut node = launch.start().await;
    submit(&launch.client(), 1).await;
    let mut worker = work(&launch, &[]);
    running(&launch).await;
    node.kill().await;
    let_go(&launch);
    until_said(&worker, "still trying").await;
    worker.signal(Signal::INT);
    until_said(&worker, "once more to stop at once").await;
    worker.signal(Signal::INT);
    let status = worker.ended_within(PATIENCE).await;
    assert_eq!(status.code(), Some(130), "{}", worker.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_store_is_away_ends_when_told_twice() {
    let cluster = Cluster::start();
    let launch = Launch::new(Place::Postgres(cluster.fresh_database().await));
    let mut run = run(&launch, &[]);
    running(&launch).await;
    cluster.kill();
    let_go(&launch);
    until_said(&run, "still trying").await;
    run.signal(Signal::INT);
    until_said(&run, "once more to stop at once").await;
    run.signal(Signal::INT);
    let status = run.ended_within(PATIENCE).await;
    assert_eq!(status.code(), Some(130), "{}", run.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_loses_its_terminal_takes_its_commands_along() {
    for signal in [Signal::HUP, Signal::QUIT] {
        let launch = Launch::new(Place::sqlite());
        let _node = launch.start().await;
        let client = launch.client();
        let job = submit(&client, 1).await;
        let mut worker = work(&launch, &["--grace-s", "0"]);
        let command = running(&launch).await;
        worker.signal(signal);
        let status = worker.ended_within(PATIENCE).await;
        let code = if signal == Signal::HUP { 0 } else { 130 };
        assert_eq!(status.code(), Some(code), "{}", worker.log());
        assert!(test_kill_process(command).is_err(), "the command is gone");
        let progress = &client.get(&job).await["progress"];
        assert_eq!((&progress["pending"], &progress["failed"]), (&json!(1), &json!(0)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_loses_its_terminal_gives_its_items_back() {
    let launch = Launch::new(Place::sqlite());
    let mut first = run(&launch, &["--grace-s", "0"]);
    let command = running(&launch).await;
    first.signal(Signal::HUP);
    let status = first.ended_within(PATIENCE).await;
    assert_eq!(status.code(), Some(130), "{}", first.log());
    assert!(test_kill_process(command).is_err(), "the command is gone");
    let_go(&launch);
    let mut second = run(&launch, &["--resume"]);
    let status = second.ended_within(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{}", second.log());
    assert_eq!(launch.count("SELECT count(*) FROM jobs").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_under_nohup_outlives_its_terminal() {
    let launch = Launch::new(Place::sqlite());
    let _node = launch.start().await;
    let client = launch.client();
    let job = submit(&client, 2).await;
    let mut worker = work(&launch.clone().after("trap '' HUP"), &[]);
    running(&launch).await;
    worker.signal(Signal::HUP);
    let_go(&launch);
    // The second task is leased only by a worker that is not asked to end.
    until("both tasks are done", async || {
        (client.get(&job).await["state"] == "succeeded").then_some(())
    })
    .await;
    assert!(worker.terminate().await.success());
}
