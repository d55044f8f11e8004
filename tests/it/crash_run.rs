//! `run` and `work` as real processes that are killed half-way.
//!
//! Owns: what a killed run costs. Never: waits for a command by time; each says by a file that it has begun. Invariant: a command that was
//! killed with its run leaves nothing behind that the next test could meet.

use crate::app::Place;
use crate::process::{Launch, Process, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const ITEMS: usize = 60;
const JOBS: usize = 4;
/// On a machine so slow that a snapshot saved the leases of the killed run, they live a minute more.
const RESUMED_WITHIN: Duration = Duration::from_secs(150);
/// Says that it begins, takes a moment, says that it is done.
const COMMAND: &str = r#"echo "$1" >> begun; sleep 0.1; echo "$1" >> done"#;

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn run(launch: &Launch, more: &[&str]) -> Process {
    let mut program = launch.program();
    program
        .args(["run", "--quiet", "-j", &JOBS.to_string(), "--store", &launch.store()])
        .args(more)
        .args(["--", "sh", "-c", COMMAND, "sh", "{}"])
        .stdin(Stdio::from(File::open(launch.dir().join("items")).unwrap()));
    Process::spawn(program)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_killed_half_way_is_resumed_and_repeats_only_what_was_under_way() {
    let launch = Launch::new(Place::sqlite());
    let items: String = (0..ITEMS).map(|item| format!("item-{item}\n")).collect();
    fs::write(launch.dir().join("items"), items).unwrap();
    let (begun, done) = (launch.dir().join("begun"), launch.dir().join("done"));
    let mut first = run(&launch, &[]);
    until("half of the items are done", async || {
        (lines(&done).len() >= ITEMS / 2).then_some(())
    })
    .await;
    first.kill().await;
    // The commands outlive the run that started them; nobody hears of them.
    until("the last commands end", async || {
        (lines(&begun).len() == lines(&done).len()).then_some(())
    })
    .await;
    let mut decided = Vec::new();
    for task in 0..ITEMS {
        decided.push(
            launch
                .count(&format!("SELECT count(*) FROM outcomes WHERE task = {task}"))
                .await
                == 1,
        );
    }
    assert!(
        decided.iter().any(|is| *is) && !decided.iter().all(|is| *is),
        "{decided:?}"
    );
    let mut second = run(&launch, &["--resume"]);
    let status = second.ended_within(RESUMED_WITHIN).await;
    assert_eq!(status.code(), Some(0), "{}", second.log());
    let ran = lines(&begun);
    let times = |item: usize| ran.iter().filter(|line| **line == format!("item-{item}")).count();
    for (item, was_decided) in decided.iter().enumerate() {
        let allowed = if *was_decided { 1..=1 } else { 1..=2 };
        assert!(allowed.contains(&times(item)), "item {item} ran {} times", times(item));
    }
    let repeated = ran.len() - ITEMS;
    assert!(repeated <= JOBS, "{repeated} items ran twice");
    assert_eq!(launch.count("SELECT count(*) FROM jobs").await, 1);
    assert_eq!(
        launch
            .count("SELECT count(*) FROM jobs WHERE state = 'succeeded'")
            .await,
        1
    );
    assert_eq!(
        launch.count("SELECT count(*) FROM outcomes WHERE succeeded = 1").await,
        ITEMS as i64
    );
    assert_eq!(launch.count("SELECT count(*) FROM events").await, 1);
}

fn work(launch: &Launch, command: &str) -> Process {
    let mut program = launch.program();
    program.args(["work", "--queue", "q", "-j", "3", "--server", &launch.url()]);
    program.args(["--", "sh", "-c", command]);
    Process::spawn(program)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm53_the_tasks_of_a_killed_worker_process_come_back_when_their_leases_expire() {
    let launch = Launch::new(Place::sqlite());
    let mut node = launch.start().await;
    let client = launch.client();
    let job = json!({
        "name": "abandoned", "queue": "q", "tasks": [{"payload": 0}, {"payload": 1}, {"payload": 2}],
        "policy": {"lease_timeout_s": 1, "max_attempts": 3, "backoff": {"initial_s": 0.05}},
    });
    let id = client.post("/v1/jobs", job).await["id"].as_i64().unwrap();
    let mut killed = work(&launch, "echo $$ >> pids; exec sleep 600");
    let pids = launch.dir().join("pids");
    let running = until("three commands run", async || {
        Some(lines(&pids)).filter(|pids| pids.len() == 3)
    })
    .await;
    killed.kill().await;
    for pid in running.iter().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
        // It may have gone with its worker.
        let _ = kill_process(pid, Signal::KILL);
    }
    let mut successor = work(&launch, "true");
    let path = format!("/v1/jobs/{id}");
    let job = until("the job ends", async || {
        let job = client.get(&path).await;
        (!job["finished_at"].is_null()).then_some(job)
    });
    assert_eq!(job.await["state"], "succeeded");
    assert!(successor.terminate().await.success());
    assert!(node.terminate().await.success());
    assert_eq!(
        launch
            .count("SELECT count(*) FROM attempts WHERE cause = 'expired'")
            .await,
        3
    );
    assert_eq!(launch.count("SELECT count(*) FROM attempts").await, 3);
}
