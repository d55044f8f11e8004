//! `run` and `work` where a command cannot be started: by the program's fault, the machine's, or the item's.
//!
//! Owns: a machine that is short of file handles, and programs that are not there. Never: waits for a time. Invariant: a task fails only
//! for what its own item brought about.

use crate::app::Place;
use crate::process::{Client, Launch, PATIENCE, Process, until};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

async fn submit(client: &Client, payloads: Vec<Value>) -> String {
    let tasks: Vec<_> = payloads.iter().map(|payload| json!({"payload": payload})).collect();
    let job = json!({"name": "hindered", "queue": "q", "tasks": tasks, "policy": {"max_attempts": 1}});
    format!("/v1/jobs/{}", client.post("/v1/jobs", job).await["id"])
}

fn work(launch: &Launch, arguments: &[&str]) -> Process {
    let mut program = launch.program();
    program
        .args(["work", "--queue", "q", "--server", &launch.url()])
        .args(arguments);
    Process::spawn(program)
}

async fn assert_none_spent(client: &Client, job: &str, tasks: usize) {
    let progress = &client.get(job).await["progress"];
    assert_eq!((&progress["pending"], &progress["failed"]), (&json!(tasks), &json!(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_without_the_program_fails_no_task() {
    let launch = Launch::new(Place::sqlite());
    let _node = launch.start().await;
    let client = launch.client();
    let job = submit(&client, (0..8).map(Value::from).collect()).await;
    let mut worker = work(&launch, &["-j", "2", "--exec", "no-such-program {}"]);
    let status = worker.ended_within(PATIENCE).await;
    let log = worker.whole_log().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("error: cannot start no-such-program: "), "{log}");
    assert_none_spent(&client, &job, 8).await;
    // Found, but not executable.
    File::create(launch.dir().join("tool")).unwrap();
    let mut worker = work(&launch, &["--exec", "./tool {}"]);
    let status = worker.ended_within(PATIENCE).await;
    assert_eq!(status.code(), Some(1), "{}", worker.log());
    assert_none_spent(&client, &job, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_is_no_argument_fails_alone() {
    let launch = Launch::new(Place::sqlite());
    let _node = launch.start().await;
    let client = launch.client();
    let payloads = vec![json!("a"), json!("x".repeat(200_000)), json!("b")];
    let job = submit(&client, payloads).await;
    // No argument may be longer than 128 KiB.
    let mut worker = work(&launch, &["--", "true"]);
    let ended = until("the job ends", async || {
        let job = client.get(&job).await;
        (!job["finished_at"].is_null()).then_some(job)
    })
    .await;
    assert_eq!(ended["progress"]["succeeded"], 2, "{ended}");
    assert_eq!(ended["progress"]["failed"], 1, "{ended}");
    assert_eq!(worker.terminate().await.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_short_of_handles_does_the_tasks_later() {
    let launch = Launch::new(Place::sqlite());
    let _node = launch.start().await;
    let client = launch.client();
    let job = submit(&client, (0..24).map(Value::from).collect()).await;
    let short = launch.clone().after("ulimit -n 40");
    let mut worker = work(&short, &["-j", "12", "--", "sh", "-c", "sleep 0.5"]);
    let ended = until("the job ends", async || {
        let job = client.get(&job).await;
        (!job["finished_at"].is_null()).then_some(job)
    })
    .await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert!(worker.terminate().await.success());
    let log = worker.whole_log().await;
    assert_eq!(log.matches("Too many open files").count(), 1, "said once: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_takes_no_more_at_a_time_than_it_has_handles_for() {
    let launch = Launch::new(Place::sqlite()).after("ulimit -n 134");
    let items: String = (0..60).map(|item| format!("{item}\n")).collect();
    fs::write(launch.dir().join("items"), items).unwrap();
    let mut program = launch.program();
    program
        .args(["run", "-q", "-j", "60", "--store", &launch.store()])
        .args(["--", "sh", "-c", "sleep 0.2"])
        .stdin(Stdio::from(File::open(launch.dir().join("items")).unwrap()));
    let mut run = Process::spawn(program);
    let status = run.ended_within(PATIENCE).await;
    let log = run.whole_log().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("enough for 10 commands at a time, not 60"), "{log}");
    assert!(!log.contains("Too many open files"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_without_the_program_keeps_its_items() {
    let launch = Launch::new(Place::sqlite());
    fs::write(launch.dir().join("items"), "1\n2\n3\n").unwrap();
    let run = |more: &[&str]| {
        let mut program = launch.program();
        program
            .args(["run", "-j", "2", "--store", &launch.store()])
            .args(more)
            .args(["--", "./tool"])
            .stdin(Stdio::from(File::open(launch.dir().join("items")).unwrap()));
        Process::spawn(program)
    };
    let mut first = run(&[]);
    let status = first.ended_within(PATIENCE).await;
    let log = first.whole_log().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("error: cannot start ./tool: "), "{log}");
    assert!(log.contains("--resume goes on"), "{log}");
    // Put in its place whole: a file open for writing cannot be executed.
    let made = launch.dir().join("made");
    fs::write(&made, "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(&made, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(made, launch.dir().join("tool")).unwrap();
    let mut second = run(&["--resume"]);
    let status = second.ended_within(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{}", second.log());
    assert_eq!(launch.count("SELECT count(*) FROM jobs").await, 1);
    let succeeded = "SELECT count(*) FROM outcomes WHERE succeeded = 1";
    assert_eq!(launch.count(succeeded).await, 3);
}
