//! `watch`, by the real program: what it shows of a job, that its end is the job's end, and its exit codes.
//!
//! Owns: the watching processes. Never: waits for a time; the first message says that the program watches. Invariant: no process of a test
//! outlives it.

use crate::app::{App, Place, failure, quick, success};
use crate::process::{Launch, PATIENCE};
use crate::stream_client::progress;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

struct Watcher {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
}

/// What a process said and how it ended.
struct Ended {
    code: Option<i32>,
    stdout: Vec<String>,
    stderr: String,
}

impl Watcher {
    fn start(url: &str, arguments: &[&str]) -> Watcher {
        let mut program = Launch::new(Place::sqlite()).program();
        program.current_dir(std::env::temp_dir());
        program.args(["watch", "--server", url]).args(arguments);
        let mut child = program
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program is built");
        let stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
        Watcher { child, stdout }
    }

    async fn line(&mut self) -> Option<String> {
        let line = timeout(PATIENCE, self.stdout.next_line()).await;
        line.expect("something is said in time").expect("text")
    }

    async fn message(&mut self) -> Value {
        message(&self.line().await.expect("a message comes"))
    }

    async fn end(mut self) -> Ended {
        let mut stdout = Vec::new();
        while let Some(line) = self.line().await {
            stdout.push(line);
        }
        let mut stderr = String::new();
        let mut pipe = self.child.stderr.take().expect("piped");
        let read = timeout(PATIENCE, pipe.read_to_string(&mut stderr)).await;
        read.expect("it ends").expect("text");
        let status = timeout(PATIENCE, self.child.wait()).await;
        let code = status.expect("it ends").expect("our child").code();
        Ended { code, stdout, stderr }
    }
}

async fn watched(url: &str, arguments: &[&str]) -> Ended {
    Watcher::start(url, arguments).end().await
}

fn message(line: &str) -> Value {
    serde_json::from_str(line).expect("a line is JSON")
}

/// Checks what holds for all the messages about one job; answers the last.
fn check(messages: &[Value]) -> &Value {
    let mut seq = 0;
    for message in messages {
        let now = message["seq"].as_i64().expect("every message has a seq");
        assert!(now >= seq, "{now} after {seq}");
        assert_eq!(progress(message)["seq"], now);
        seq = now;
    }
    messages.last().expect("there is a message")
}

#[actix_web::test]
async fn a_job_is_followed_to_its_end_and_the_last_numbers_are_those_of_the_node() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = app.job(6, json!({"stages": [{"key": "s", "name": "Stage"}]})).await;
    let id = job.to_string();
    let mut by_json = Watcher::start(&app.url, &["--json", &id]);
    let plain = Watcher::start(&app.url, &[&id]);
    let first = by_json.message().await;
    assert_eq!((&first["type"], &first["id"]), (&json!("snapshot"), &json!(job)));
    for _ in 0..3 {
        let tasks = app.lease(job, "w", 2).await;
        app.report(job, "w", tasks.iter().map(success).collect()).await;
    }
    let ended = by_json.end().await;
    let mut messages = vec![first];
    messages.extend(ended.stdout.iter().map(|line| message(line)));
    let (last, view) = (check(&messages), app.view(job).await);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!((&last["type"], &last["job"]), (&json!("final"), &view));
    let ended = plain.end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let tally = format!("job {job} succeeded: 6 tasks: 6 succeeded, 0 failed in ");
    let [line] = &ended.stdout[..] else {
        panic!("{:?}", ended.stdout)
    };
    assert!(line.starts_with(&tally), "{line}");
    app.stop().await;
}

#[actix_web::test]
async fn the_exit_code_tells_the_verdict() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let [good, bad, canceled] = [
        app.job(1, json!({})).await,
        app.job(2, json!({"policy": {"max_attempts": 1}})).await,
        app.job(3, json!({})).await,
    ];
    let tasks = app.lease(good, "w", 1).await;
    app.report(good, "w", tasks.iter().map(success).collect()).await;
    let tasks = app.lease(bad, "w", 2).await;
    app.report(bad, "w", vec![success(&tasks[0]), failure(&tasks[1])]).await;
    app.control(canceled, "cancel", json!({})).await;
    let [good, bad, canceled] = [good, bad, canceled].map(|id| id.to_string());
    let ended = watched(&app.url, &[&good, &good]).await;
    assert_eq!((ended.code, ended.stdout.len()), (Some(0), 1), "{}", ended.stderr);
    assert_eq!(watched(&app.url, &[&bad]).await.code, Some(1));
    let ended = watched(&app.url, &[&good, &canceled]).await;
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    let tally = format!("job {canceled} canceled: 3 tasks: 0 succeeded, 0 failed, 3 not done");
    assert!(ended.stdout[1].starts_with(&tally), "{:?}", ended.stdout);
    assert_eq!(watched(&app.url, &[&canceled, &bad]).await.code, Some(1));
    let ended = watched(&app.url, &["999", &good]).await;
    assert_eq!((ended.code, ended.stdout.len()), (Some(1), 1));
    assert_eq!(ended.stderr.trim(), "error: job 999: job not found [not_found]");
    assert_eq!(watched(&app.url, &["x"]).await.code, Some(2));
    app.stop().await;
}

#[actix_web::test]
async fn an_interrupted_watch_leaves_the_job_alone() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = app.job(1, json!({})).await;
    let mut watcher = Watcher::start(&app.url, &["--json", &job.to_string()]);
    watcher.message().await;
    let pid = watcher.child.id().and_then(|id| Pid::from_raw(id as i32));
    kill_process(pid.expect("it runs"), Signal::INT).expect("our own child takes signals");
    assert_eq!(watcher.end().await.code, Some(130));
    assert_eq!(app.view(job).await["state"], "running");
    app.stop().await;
}

#[actix_web::test]
async fn a_watch_outlives_the_node_it_watches() {
    let launch = Launch::new(Place::sqlite());
    let mut node = launch.start().await;
    let client = launch.client();
    let body = json!({"name": "test", "queue": "q", "tasks": [{"payload": 1}, {"payload": 2}]});
    let job = client.post("/v1/jobs", body).await["id"].as_i64().expect("an id");
    let (leases, results) = (format!("/v1/jobs/{job}/leases"), format!("/v1/jobs/{job}/results"));
    let do_one = async || {
        let granted = client.post(&leases, json!({"worker": "w", "max_tasks": 1})).await;
        let result = success(&granted["tasks"][0]);
        client.post(&results, json!({"worker": "w", "results": [result]})).await;
    };
    let mut watcher = Watcher::start(&launch.url(), &["--json", &job.to_string()]);
    let mut messages = vec![watcher.message().await];
    do_one().await;
    while progress(messages.last().expect("one came"))["succeeded"] != 1 {
        messages.push(watcher.message().await);
    }
    node.kill().await;
    let mut node = launch.start().await;
    do_one().await;
    let ended = watcher.end().await;
    messages.extend(ended.stdout.iter().map(|line| message(line)));
    let last = check(&messages);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(
        (&last["type"], &progress(last)["succeeded"]),
        (&json!("final"), &json!(2))
    );
    assert!(node.terminate().await.success());
}
