//! Nodes killed with -9 under workers that never repeat a POST.
//!
//! Owns: row 15 over `/api/v2`, and row 36 for large posts. Never: stops the node politely before the last check. Invariant: what a worker was told is queued is there
//! afterwards, once, and what it was not told of is not lost either.

use crate::antenna_client::{Worker, success};
use crate::app::Place;
use crate::process::{Body, Client, Heard, Launch, Wait};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const WORKERS: usize = 4;
const KILLS: usize = 3;

/// What the workers have to do.
#[derive(Clone, Copy)]
struct Load {
    images: u32,
    batch_size: usize,
    /// Added to each result.
    bytes: usize,
}

const SMALL: Load = Load {
    images: 400,
    batch_size: 8,
    bytes: 0,
};
/// Posts that are read item by item, each item's result stored apart.
const LARGE: Load = Load {
    images: 120,
    batch_size: 3,
    bytes: 500_000,
};

impl Load {
    fn filling(self, image: &str) -> String {
        format!("{image}é").repeat(self.bytes / (image.len() + 2))
    }

    fn result(self, task: &Value) -> Value {
        let mut result = success(task);
        result["result"]["filling"] = self.filling(task["image_id"].as_str().unwrap()).into();
        result
    }
}

/// Works until nothing is left to be handed out; notes every image whose result it was told is queued.
async fn work(load: Load, url: String, job: i64, queued: Arc<Mutex<BTreeSet<String>>>, posts: Arc<AtomicUsize>) {
    let (worker, client) = (Worker::at(&url), Client::new(url));
    let wait = Wait::begin();
    loop {
        // A node that is away fails the fetch; its worker asks for jobs again, later.
        let tasks = worker.fetch(job, load.batch_size).await.unwrap_or_default();
        if tasks.is_empty() {
            let standing = client.call("GET", &format!("/v1/jobs/{job}"), &Body::None).await;
            if let Heard::Answer(200, view) = standing
                && view["progress"]["pending"] == 0
                && view["progress"]["retrying"] == 0
            {
                return;
            }
            wait.a_moment("everything is handed out").await;
            continue;
        }
        let body = json!({"results": tasks.iter().map(|task| load.result(task)).collect::<Vec<_>>()});
        if let Ok((200, answer)) = worker.try_call("POST", &format!("/jobs/{job}/result/"), body).await {
            let mut queued = queued.lock().unwrap();
            for (task, taken) in tasks.iter().zip(answer["tasks"].as_array().unwrap()) {
                assert_eq!(taken["status"], "queued", "{answer}");
                queued.insert(task["image_id"].as_str().unwrap().to_owned());
            }
            posts.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn killed_under_workers(place: Place, load: Load) {
    let launch = Launch::new(place).set("COORDINATOR__SNAPSHOT_INTERVAL_MS", 100);
    let mut node = launch.start().await;
    let job = Worker::at(&launch.url()).create("a", 0..load.images, json!({})).await;
    let (queued, posts) = (Arc::<Mutex<BTreeSet<String>>>::default(), Arc::<AtomicUsize>::default());
    let working: Vec<_> = (0..WORKERS)
        .map(|_| tokio::spawn(work(load, launch.url(), job, queued.clone(), posts.clone())))
        .collect();
    for _ in 0..KILLS {
        let (wait, before) = (Wait::begin(), posts.load(Ordering::Relaxed));
        while posts.load(Ordering::Relaxed) < before + 6 {
            wait.a_moment("results are posted").await;
        }
        node.kill().await;
        node = launch.start().await;
    }
    for worker in working {
        worker.await.expect("no worker fails");
    }
    let (client, worker) = (launch.client(), Worker::at(&launch.url()));
    let results = client.results(job).await;
    let images: BTreeSet<String> = results
        .iter()
        .map(|row| row["key"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(results.len(), images.len());
    assert!(
        queued.lock().unwrap().is_subset(&images),
        "an acknowledged result was lost"
    );
    // A post that was cut off leaves its leases behind. They would come back one day; here their worker has found the results again.
    let found = (0..load.images)
        .map(|n| n.to_string())
        .filter(|image| !images.contains(image));
    let found: Vec<Value> = found
        .map(|image| load.result(&json!({"image_id": image, "reply_subject": null})))
        .collect();
    for batch in found.chunks(24) {
        assert!(
            worker
                .report(job, batch.to_vec())
                .await
                .iter()
                .all(|done| done == "counted")
        );
    }
    let view = client.get(&format!("/v1/jobs/{job}")).await;
    let expected = json!({"captures": load.images, "detections": 2 * load.images, "classifications": 3 * load.images});
    assert_eq!(
        (&view["state"], &view["progress"]["counters"]),
        (&json!("succeeded"), &expected)
    );
    for row in client.results(job).await {
        let image = row["key"].as_str().unwrap();
        assert!(
            row["result"]["filling"] == load.filling(image),
            "the result of {image} is another"
        );
    }
    assert!(node.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm15_antenna_sqlite_killed_under_workers_loses_nothing_it_acknowledged() {
    killed_under_workers(Place::sqlite(), SMALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm15_antenna_postgres_killed_under_workers_loses_nothing_it_acknowledged() {
    killed_under_workers(Place::postgres().await, SMALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm36_antenna_sqlite_killed_during_large_posts_loses_nothing_it_acknowledged() {
    killed_under_workers(Place::sqlite(), LARGE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm36_antenna_postgres_killed_during_large_posts_loses_nothing_it_acknowledged() {
    killed_under_workers(Place::postgres().await, LARGE).await;
}
