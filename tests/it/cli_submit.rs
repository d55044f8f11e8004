//! `submit` by the real program: that every line is a task, or that it says which is not; and what `work` says of tasks it leaves behind.
//!
//! Owns: the input files. Never: waits for a time. Invariant: exit code 0 means that the job holds exactly the input.

use crate::app::Place;
use crate::process::{Launch, PATIENCE, Process};
use serde_json::json;
use std::fs::{self, File};
use std::process::Stdio;

struct Submitted {
    code: Option<i32>,
    log: String,
}

async fn submit(launch: &Launch, lines: &str, more: &[&str]) -> Submitted {
    let input = launch.dir().join("input");
    fs::write(&input, lines).unwrap();
    let mut program = launch.program();
    program
        .args(["submit", "--name", "n", "--queue", "q", "--server", &launch.url()])
        .args(more)
        .stdin(Stdio::from(File::open(input).unwrap()));
    let mut process = Process::spawn(program);
    let code = process.ended_within(PATIENCE).await.code();
    let log = process.whole_log().await;
    Submitted { code, log }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_lines_under_a_key_that_is_complete_are_refused() {
    let launch = Launch::new(Place::sqlite());
    let _node = launch.start().await;
    let key = ["--idempotency-key", "k1"];
    assert_eq!(submit(&launch, "1\n2\n3\n", &key).await.code, Some(0));
    let same = submit(&launch, "1\n2\n\n3\n", &key).await;
    assert_eq!(same.code, Some(0), "{}", same.log);
    for other in ["1\n2\n3\n4\n5\n", "1\n"] {
        let grown = submit(&launch, other, &key).await;
        assert_eq!(grown.code, Some(1), "{}", grown.log);
        let lines = other.lines().count();
        let said = format!("it holds 3 tasks, the input {lines}");
        assert!(grown.log.contains(&said), "{}", grown.log);
    }
    assert_eq!(launch.client().get("/v1/jobs/1").await["progress"]["total"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_the_server_refuses_is_named_by_its_number_in_the_input() {
    let launch = Launch::new(Place::sqlite());
    let _node = launch.start().await;
    // More than one request holds, and blank lines, which are no tasks.
    let mut lines: String = "\n\n".into();
    lines.extend((0..20_000).map(|n| format!("{n}\n")));
    let good = lines.clone();
    lines.push_str(&format!("\"{}\"\n", "x".repeat(300_000)));
    let refused = submit(&launch, &lines, &["--idempotency-key", "k"]).await;
    assert_eq!(refused.code, Some(2), "{}", refused.log);
    assert!(refused.log.contains("line 20003: payload must be"), "{}", refused.log);
    assert!(refused.log.contains("tallykeeper cancel 1"), "{}", refused.log);
    assert!(refused.log.contains("under the same key"), "{}", refused.log);
    // As it says.
    let mended = submit(&launch, &good, &["--idempotency-key", "k"]).await;
    assert_eq!(mended.code, Some(0), "{}", mended.log);
    let job = launch.client().get("/v1/jobs/1").await;
    assert_eq!(
        (&job["progress"]["total"], &job["open"]),
        (&json!(20_000), &json!(false))
    );
    let keyless = submit(&launch, &lines, &[]).await;
    assert!(keyless.log.contains("tallykeeper cancel 2"), "{}", keyless.log);
    assert!(!keyless.log.contains("under the same key"), "{}", keyless.log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_says_how_many_attempts_it_leaves_to_be_made_again() {
    let launch = Launch::new(Place::sqlite());
    let _node = launch.start().await;
    let tasks: Vec<_> = (0..5).map(|n| json!({"payload": n})).collect();
    // The next attempts are due long after the worker has gone.
    let policy = json!({"max_attempts": 2, "backoff": {"initial_s": 3600, "max_s": 3600}});
    let job = json!({"name": "n", "queue": "q", "tasks": tasks, "policy": policy});
    launch.client().post("/v1/jobs", job).await;
    let mut program = launch.program();
    program.args([
        "work",
        "--queue",
        "q",
        "--once",
        "--worker",
        "w",
        "--server",
        &launch.url(),
    ]);
    program.args(["--", "sh", "-c", "[ $0 -ge 3 ]"]);
    let mut worker = Process::spawn(program);
    let status = worker.ended_within(PATIENCE).await;
    let log = worker.whole_log().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(
        log.contains("w: 2 succeeded, 0 failed, 3 failed attempts were to be tried again"),
        "{log}"
    );
}
