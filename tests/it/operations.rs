//! What docs/operations.md tells operators, done as it says.
//!
//! Owns: backup and restore, a newer schema, a disk that takes no more. Never: uses what an operator does not have. Invariant: statements and
//! log lines are those of the document.

use crate::app::{Place, TempDir, on_both_stores, success};
use crate::cluster;
use crate::nodes_cluster::{lease, report};
use crate::process::{Body, Client, Heard, Launch, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

const GUIDE: &str = include_str!("../../docs/operations.md");

on_both_stores!(
    a_newer_schema_that_fits_is_used_and_said,
    a_backup_of_a_running_node_holds_all_that_was_acknowledged_before,
);

/// The line of the guide that begins so.
fn statement(begin: &str) -> &'static str {
    let found = GUIDE.lines().find(|line| line.starts_with(begin));
    found.unwrap_or_else(|| panic!("the guide says nothing like {begin:?}"))
}

/// Runs statements while no node is running.
async fn execute(place: &Place, sql: &str) {
    match place {
        Place::Sqlite(dir) => {
            let db = rusqlite::Connection::open(dir.0.join("tally.db")).expect("the database opens");
            db.execute_batch(sql).unwrap_or_else(|why| panic!("{sql}: {why}"));
        }
        Place::Postgres(url) => {
            let done = cluster::connect(url).await.batch_execute(sql).await;
            done.unwrap_or_else(|why| panic!("{sql}: {why:?}"));
        }
    }
}

async fn a_newer_schema_that_fits_is_used_and_said(place: Place) {
    const SAID: &str = "the database's schema is newer than this program, and fits it";
    assert!(GUIDE.contains(SAID));
    let launch = Launch::new(place);
    let mut node = launch.start().await;
    assert!(!node.log().contains(SAID));
    assert!(node.terminate().await.success());
    let later = "INSERT INTO refinery_schema_history SELECT 999, 'later', applied_on, checksum FROM refinery_schema_history LIMIT 1";
    execute(&launch.place, later).await;
    let mut node = launch.start().await;
    until("it says so", async || node.log().contains(SAID).then_some(())).await;
    assert!(node.terminate().await.success());
}

/// Backs a store up while its node runs.
fn back_up(place: &Place, to: &Path) {
    match place {
        Place::Sqlite(dir) => {
            assert!(GUIDE.contains("VACUUM INTO"));
            let db = rusqlite::Connection::open(dir.0.join("tally.db")).expect("readers are not kept out");
            db.execute("VACUUM INTO ?1", [to.to_str()]).expect("the copy is made");
        }
        Place::Postgres(url) => {
            assert!(GUIDE.contains("pg_dump -Fc"));
            let mut dump = cluster::shared().tool("pg_dump");
            let done = dump.arg("-Fc").arg("-f").arg(to).arg(url).status();
            assert!(done.expect("pg_dump starts").success());
        }
    }
}

/// Puts a backup in place, while no node is running; answers where.
async fn restore(place: &Place, from: &Path) -> Place {
    match place {
        Place::Sqlite(dir) => {
            std::fs::copy(from, dir.0.join("tally.db")).expect("the copy is put in place");
            for left in ["tally.db-wal", "tally.db-shm"] {
                std::fs::remove_file(dir.0.join(left)).expect("a killed node leaves both");
            }
            place.clone()
        }
        Place::Postgres(_) => {
            let url = cluster::shared().empty_database().await;
            let done = cluster::shared()
                .tool("pg_restore")
                .arg("-d")
                .arg(&url)
                .arg(from)
                .status();
            assert!(done.expect("pg_restore starts").success());
            Place::Postgres(url)
        }
    }
}

/// Numbers of the tasks that have a result; none may have two.
async fn decided(client: &Client, job: i64) -> BTreeSet<u64> {
    let results = client.results(job).await;
    let tasks: BTreeSet<u64> = results
        .iter()
        .map(|row| row["task"].as_u64().expect("a number"))
        .collect();
    assert_eq!(tasks.len(), results.len(), "a task has one result");
    tasks
}

async fn a_backup_of_a_running_node_holds_all_that_was_acknowledged_before(place: Place) {
    const TASKS: usize = 400;
    let (mut launch, backups) = (Launch::new(place), TempDir::new());
    let mut node = launch.start().await;
    let client = launch.client();
    let tasks: Vec<Value> = (0..TASKS)
        .map(|n| json!({"key": format!("k{n}"), "payload": n}))
        .collect();
    let job = client
        .post("/v1/jobs", json!({"name": "n", "queue": "q", "tasks": tasks}))
        .await;
    let job = job["id"].as_i64().expect("an id is a number");
    let held = lease(&client, "w", &["q"], TASKS / 2, 0.0).await["tasks"].clone();
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let posting = {
        let (client, held, acknowledged) = (client.clone(), held.clone(), acknowledged.clone());
        tokio::spawn(async move {
            for task in held.as_array().expect("a list") {
                assert_eq!(report(&client, job, "w", &json!([task])).await, ["counted"]);
                acknowledged
                    .lock()
                    .unwrap()
                    .insert(task["task"].as_u64().expect("a number"));
            }
        })
    };
    until("some are acknowledged", async || {
        (acknowledged.lock().unwrap().len() > TASKS / 8).then_some(())
    })
    .await;
    // Results are posted before, while and after the backup is made.
    let before = acknowledged.lock().unwrap().clone();
    let (backup, from) = (backups.0.join("backup"), launch.place.clone());
    let made = {
        let backup = backup.clone();
        tokio::task::spawn_blocking(move || back_up(&from, &backup))
    };
    made.await.expect("the backup is made");
    posting.await.expect("nobody notices");
    node.kill().await;

    launch.place = restore(&launch.place, &backup).await;
    execute(&launch.place, statement("UPDATE queue_owner SET epoch")).await;
    let numbers = match launch.place {
        Place::Sqlite(_) => statement("UPDATE sqlite_sequence"),
        Place::Postgres(_) => statement("SELECT setval("),
    };
    execute(&launch.place, numbers).await;
    let mut node = launch.start().await;
    let kept = decided(&client, job).await;
    assert!(kept.is_superset(&before), "lost: {:?}", before.difference(&kept));
    let view = client.get(&format!("/v1/jobs/{job}")).await;
    assert_eq!(view["progress"]["succeeded"], kept.len(), "{view}");
    // What came after it is gone; a worker that posts it once more has it counted.
    for (task, said) in held
        .as_array()
        .expect("a list")
        .iter()
        .zip(report(&client, job, "w", &held).await)
    {
        let was_kept = kept.contains(&task["task"].as_u64().expect("a number"));
        assert_eq!(said, if was_kept { "duplicate" } else { "counted" }, "{task}");
    }
    let rest = lease(&client, "w", &["q"], TASKS, 0.0).await["tasks"].clone();
    assert_eq!(report(&client, job, "w", &rest).await, vec!["counted"; TASKS / 2]);
    assert_eq!(client.get(&format!("/v1/jobs/{job}")).await["state"], "succeeded");
    assert_eq!(decided(&client, job).await.len(), TASKS);
    // Numbers that were given out since the backup are not given out again.
    let next = client.post("/v1/jobs", json!({"name": "n", "queue": "q"})).await;
    assert!(next["id"].as_i64() > Some(1_000_000), "{next}");
    assert!(node.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_takes_no_more_costs_nothing_that_was_acknowledged() {
    let place = Place::sqlite();
    let Place::Sqlite(dir) = &place else {
        unreachable!("made so")
    };
    // Past its limit a file does not grow; without this the process would be ended for trying.
    let launch = Launch::new(place.clone())
        .after("trap '' XFSZ")
        .set("COORDINATOR__STORE_WAIT_MS", 300);
    let mut node = launch.start().await;
    let client = launch.client();
    let tasks: Vec<Value> = (0..200).map(|n| json!({"payload": n})).collect();
    let job = client
        .post("/v1/jobs", json!({"name": "n", "queue": "q", "tasks": tasks}))
        .await;
    let job = job["id"].as_i64().expect("an id is a number");
    let held = lease(&client, "w", &["q"], 200, 0.0).await["tasks"].clone();
    let post = |task: &Value| {
        let mut item = success(task);
        item["result"] = json!("x".repeat(30_000));
        Body::Json(json!({"worker": "w", "results": [item]}))
    };
    let path = format!("/v1/jobs/{job}/results");
    let lengths =
        ["tally.db", "tally.db-wal"].map(|name| std::fs::metadata(dir.0.join(name)).expect("it is there").len());
    node.limit_files(lengths.into_iter().max().map(|longest| longest + (1 << 20)));
    let (mut acknowledged, mut refused) = (0, None);
    for task in held.as_array().expect("a list") {
        match client.call("POST", &path, &post(task)).await {
            Heard::Answer(200, said) => {
                assert_eq!(said["results"][0]["disposition"], "counted");
                acknowledged += 1;
            }
            Heard::NotNow(code) => {
                assert_eq!(code, "store_unavailable");
                refused = Some(task);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let refused = refused.expect("the disk is full in the end");
    assert!(acknowledged > 0);
    let view = client.get(&format!("/v1/jobs/{job}")).await;
    assert_eq!(
        (&view["state"], &view["progress"]["succeeded"]),
        (&json!("running"), &json!(acknowledged))
    );
    assert!(matches!(
        client.call("GET", "/readyz", &Body::None).await,
        Heard::NotNow(_)
    ));
    // Space is freed, and nobody restarts anything.
    node.limit_files(None);
    let (status, said) = client.insist("POST", &path, &post(refused)).await;
    let said = said["results"][0]["disposition"].as_str().map(str::to_owned);
    assert!(
        status == 200 && ["counted", "duplicate"].map(|one| Some(one.to_owned())).contains(&said),
        "{said:?}"
    );
    until("it says that it is ready", async || {
        matches!(client.call("GET", "/readyz", &Body::None).await, Heard::Answer(200, _)).then_some(())
    })
    .await;
    node.kill().await;
    let mut node = launch.start().await;
    assert_eq!(decided(&client, job).await.len(), acknowledged + 1);
    let rest = report(&client, job, "w", &held).await;
    assert_eq!(
        rest.iter().filter(|said| *said == "duplicate").count(),
        acknowledged + 1
    );
    assert_eq!(client.get(&format!("/v1/jobs/{job}")).await["state"], "succeeded");
    assert!(node.terminate().await.success());
}
