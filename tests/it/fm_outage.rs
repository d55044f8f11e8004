//! Failure modes around the store: it dies, it hangs, a row of it is locked, its node restarts. Tests are named for the rows of
//! FAILURE_MODES.md.
//!
//! Owns: rows 15, 17, 22, 38 to 40, 42 to 46. Never: fakes a store; PostgreSQL is killed, and locked by sessions of its own. Invariant: no
//! answer that a client may act on is wrong while the store is away.

use crate::app::{App, PATIENCE, Place, on_both_stores, quick, success};
use crate::cluster::{Cluster, connect};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tallykeeper::coordinator::Settings;

on_both_stores!(
    fm45_what_was_created_is_taken_up_again_after_a_restart,
    fm46_a_flood_of_results_does_not_keep_a_cancel_out,
);

/// Short waits, so that an outage shows at once.
fn impatient() -> Settings {
    Settings {
        store_wait: Duration::from_millis(300),
        ..quick()
    }
}

/// A node, and a session of ours in its database, to hold locks with.
async fn beside_a_session(settings: Settings) -> (App, tokio_postgres::Client) {
    let url = crate::cluster::fresh_database().await;
    let app = App::start(&Place::Postgres(url.clone()), settings).await;
    (app, connect(&url).await)
}

/// The answer to a request that cannot be served now: 503, a code, and when to come back.
async fn assert_unavailable(app: &App, method: &str, path: &str, body: Value) {
    let mut request = app.request(method, path);
    if !body.is_null() {
        request = request.json(&body);
    }
    let response = request.send().await.expect("the node answers");
    let status = response.status().as_u16();
    let retry_after = response
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    let problem: Value = response.json().await.expect("a problem is JSON");
    assert_eq!(
        (status, problem["code"].as_str()),
        (503, Some("store_unavailable")),
        "{method} {path}: {problem}"
    );
    assert!(retry_after.is_some(), "{method} {path} says when to come back");
}

/// Repeats a post until the node takes it; answers the dispositions.
async fn post_until_taken(app: &App, job: i64, items: &[Value]) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let body = json!({"worker": "w", "results": items});
        let (status, said) = app.post(&format!("/v1/jobs/{job}/results"), body).await;
        if status == 200 {
            let items = said["results"].as_array().unwrap().iter();
            return items
                .map(|item| item["disposition"].as_str().unwrap().to_owned())
                .collect();
        }
        assert_eq!(status, 503, "{said}");
        assert!(Instant::now() < deadline, "the node never recovered: {said}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[actix_web::test]
async fn fm15_fm17_fm22_fm43_an_outage_is_never_mistaken_for_anything_else() {
    let cluster = Cluster::start();
    let place = Place::Postgres(cluster.fresh_database().await);
    let app = App::start(&place, impatient()).await;
    let done = app.job(0, json!({})).await;
    // Payloads so large that they are not all read ahead.
    let job = app.job(0, json!({"open": true})).await;
    for _ in 0..12 {
        let tasks = vec![json!({"payload": "x".repeat(200_000)}); 5];
        assert_eq!(app.post(&format!("/v1/jobs/{job}/tasks"), json!(tasks)).await.0, 200);
    }
    app.control(job, "seal", json!({})).await;
    let held = app.lease(job, "w", 20).await;
    assert_eq!(
        app.report(job, "w", held[..5].iter().map(success).collect()).await,
        ["counted"; 5]
    );
    let mut acknowledged: Vec<&Value> = held[..5].iter().collect();

    // Results go on being posted one by one while the server dies.
    let posting = async {
        let mut said = Vec::new();
        for task in &held[5..15] {
            let body = json!({"worker": "w", "results": [success(task)]});
            said.push((task, app.post(&format!("/v1/jobs/{job}/results"), body).await.0));
            if said.len() == 4 {
                cluster.kill();
            }
        }
        said
    };
    let said = posting.await;
    // A server process may outlive its killed postmaster by one commit, which is as durable as any. From then on nothing is said to be.
    let kept = said.iter().take_while(|(_, status)| *status == 200).count();
    assert!(
        (4..10).contains(&kept) && said[kept..].iter().all(|(_, status)| *status == 503),
        "{:?}",
        said.iter().map(|said| said.1).collect::<Vec<_>>()
    );
    acknowledged.extend(said[..kept].iter().map(|(task, _)| *task));

    let results = format!("/v1/jobs/{job}/results");
    assert_unavailable(
        &app,
        "POST",
        &results,
        json!({"worker": "w", "results": [success(&held[15])]}),
    )
    .await;
    assert_unavailable(&app, "GET", &results, Value::Null).await;
    assert_unavailable(&app, "GET", "/v1/jobs", Value::Null).await;
    assert_unavailable(&app, "GET", "/v1/jobs/999999", Value::Null).await;
    assert_unavailable(&app, "POST", &format!("/v1/jobs/{done}/retry"), json!({})).await;
    assert_unavailable(
        &app,
        "POST",
        "/v1/jobs",
        json!({"name": "n", "queue": "q", "tasks": [{"payload": 1}]}),
    )
    .await;
    assert_unavailable(&app, "POST", &format!("/v1/jobs/{job}/pause"), json!({})).await;
    // Work that is known to be there is handed out, or refused until the store is back, but never said to be none.
    for path in ["/v1/leases".to_owned(), format!("/v1/jobs/{job}/leases")] {
        let mut body = json!({"worker": "v", "max_tasks": 40});
        if path == "/v1/leases" {
            body["queues"] = json!(["q"]);
        }
        assert_unavailable(&app, "POST", &path, body).await;
    }
    let (status, ready) = app.get("/readyz").await;
    assert_eq!(status, 503, "{ready}");
    // The job is as it was, for those who can be told.
    let (status, view) = app.get(&format!("/v1/jobs/{job}")).await;
    assert!(status == 503 || view["state"] == "running", "{view}");

    cluster.restart();
    let repeated: Vec<Value> = held[..16].iter().map(success).collect();
    let said = post_until_taken(&app, job, &repeated).await;
    for (task, said) in held.iter().zip(&said) {
        assert!(["counted", "duplicate"].contains(&said.as_str()));
        if acknowledged.contains(&task) {
            assert_eq!(said, "duplicate", "an acknowledged result was lost");
        }
    }
    // The pause that was answered 503 may have been carried out meanwhile; asking for the opposite is safe either way.
    app.control(job, "resume", json!({})).await;
    let view = app.view(job).await;
    assert_eq!(
        (view["state"].as_str(), view["progress"]["succeeded"].clone()),
        (Some("running"), json!(16))
    );
    // Nobody lost a lease or an attempt to the outage, and the job goes on to its end.
    assert_eq!(
        app.report(job, "w", held[16..].iter().map(success).collect()).await,
        ["counted"; 4]
    );
    loop {
        let rest = app.lease(job, "w", 60).await;
        if rest.is_empty() {
            break;
        }
        assert!(rest.iter().all(|task| task["attempt"] == 1));
        app.report(job, "w", rest.iter().map(success).collect()).await;
    }
    assert_eq!(app.view(job).await["state"], "succeeded");
    assert_eq!(app.results(job).await.len(), 60);
    app.stop().await;
}

#[actix_web::test]
async fn fm39_results_need_no_lock_on_the_row_of_their_job() {
    let (app, holder) = beside_a_session(quick()).await;
    let job = app.job(20, json!({"policy": {"backoff": {"initial_s": 0}}})).await;
    let tasks = app.lease(job, "w", 20).await;
    holder
        .batch_execute(&format!("BEGIN; SELECT * FROM jobs WHERE id = {job} FOR UPDATE"))
        .await
        .unwrap();
    for task in &tasks[..10] {
        assert_eq!(app.report(job, "w", vec![success(task)]).await, ["counted"]);
    }
    assert_eq!(
        app.report(job, "w", vec![crate::app::failure(&tasks[10])]).await,
        ["retrying"]
    );
    assert_eq!(app.view(job).await["progress"]["succeeded"], 10);
    holder.batch_execute("ROLLBACK").await.unwrap();
    app.stop().await;
}

#[actix_web::test]
async fn fm38_fm40_signs_of_life_touch_no_table() {
    // No snapshot is due while this test runs.
    let (app, holder) = beside_a_session(Settings {
        snapshot_interval: Duration::from_secs(600),
        ..impatient()
    })
    .await;
    let job = app.job(20, json!({})).await;
    let tasks = app.lease(job, "w", 20).await;
    holder
        .batch_execute("BEGIN; LOCK TABLE jobs, tasks, outcomes, attempts, late, nodes IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let leases: Vec<&Value> = tasks.iter().map(|task| &task["lease"]).collect();
    let path = format!("/v1/jobs/{job}/leases/extend");
    let beats = (0..50).map(|_| app.post(&path, json!({"worker": "w", "leases": leases})));
    for (status, said) in join_all(beats).await {
        assert_eq!((status, said["extended"].as_array().map(Vec::len)), (200, Some(20)));
    }
    assert_eq!(app.view(job).await["progress"]["leased"], 20);
    holder.batch_execute("ROLLBACK").await.unwrap();
    app.stop().await;
}

#[actix_web::test]
async fn fm42_a_store_that_hangs_is_waited_for_only_so_long() {
    let (app, holder) = beside_a_session(impatient()).await;
    let job = app.job(300, json!({})).await;
    let tasks = app.lease(job, "w", 1).await;
    holder
        .batch_execute("BEGIN; LOCK TABLE jobs, tasks, outcomes IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let all = async {
        assert_unavailable(
            &app,
            "POST",
            &format!("/v1/jobs/{job}/results"),
            json!({"worker": "w", "results": [success(&tasks[0])]}),
        )
        .await;
        assert_unavailable(&app, "GET", "/v1/jobs", Value::Null).await;
        assert_unavailable(&app, "GET", "/v1/jobs/999999", Value::Null).await;
        assert_unavailable(&app, "GET", &format!("/v1/jobs/{job}/results"), Value::Null).await;
        assert_unavailable(&app, "POST", &format!("/v1/jobs/{job}/cancel"), json!({})).await;
        assert_unavailable(
            &app,
            "POST",
            "/v1/jobs",
            json!({"name": "n", "queue": "q", "tasks": [{"payload": 1}]}),
        )
        .await;
        assert_unavailable(
            &app,
            "POST",
            &format!("/v1/jobs/{job}/leases"),
            json!({"worker": "w", "max_tasks": 299}),
        )
        .await;
    };
    tokio::time::timeout(PATIENCE, all)
        .await
        .expect("every wait is bounded");
    holder.batch_execute("ROLLBACK").await.unwrap();
    // The cancel that nobody heard of may have been carried out; the result that was repeated is there either way.
    let said = post_until_taken(&app, job, &[success(&tasks[0])]).await;
    assert!(["counted", "duplicate", "late"].contains(&said[0].as_str()), "{said:?}");
    app.stop().await;
}

#[actix_web::test]
async fn fm44_a_job_that_is_stuck_holds_no_other_up() {
    let (app, holder) = beside_a_session(impatient()).await;
    // As many stuck jobs as could block every lane to the store.
    let mut stuck = Vec::new();
    for _ in 0..6 {
        let job = app.job(1, json!({})).await;
        stuck.push((job, app.lease(job, "w", 1).await.remove(0)));
    }
    let healthy = app.job(40, json!({})).await;
    let tasks = app.lease(healthy, "w", 40).await;
    let ids: Vec<String> = stuck.iter().map(|(job, _)| job.to_string()).collect();
    let lock = format!("BEGIN; SELECT * FROM jobs WHERE id IN ({}) FOR UPDATE", ids.join(","));
    holder.batch_execute(&lock).await.unwrap();
    // Their last results would end them, which needs their rows.
    let last = stuck.iter().map(|(job, task)| {
        let body = json!({"worker": "w", "results": [success(task)]});
        let (app, job) = (&app, *job);
        async move { app.post(&format!("/v1/jobs/{job}/results"), body).await.0 }
    });
    assert_eq!(join_all(last).await, [503; 6]);
    let deadline = Instant::now() + PATIENCE;
    let mut said = Vec::new();
    for task in &tasks {
        let body = json!({"worker": "w", "results": [success(task)]});
        said.push(app.post(&format!("/v1/jobs/{healthy}/results"), body).await.0);
        assert!(Instant::now() < deadline);
    }
    assert_eq!(said, [200; 40]);
    assert_eq!(app.view(healthy).await["state"], "succeeded");
    assert_eq!(app.get("/readyz").await.0, 200, "one locked row is no outage");
    let (status, _) = app
        .post(
            "/v1/jobs",
            json!({"name": "n", "queue": "q", "tasks": [{"payload": 1}]}),
        )
        .await;
    assert_eq!(status, 201);
    holder.batch_execute("ROLLBACK").await.unwrap();
    for (job, task) in &stuck {
        assert!(["counted", "duplicate"].contains(&post_until_taken(&app, *job, &[success(task)]).await[0].as_str()));
        app.until(*job, |view| view["state"] == "succeeded").await;
    }
    app.stop().await;
}

async fn fm45_what_was_created_is_taken_up_again_after_a_restart(place: Place) {
    let app = App::start(&place, quick()).await;
    let running = app.job(3, json!({})).await;
    let pending = app.job(3, json!({"start": false})).await;
    let paused = app.job(3, json!({})).await;
    app.control(paused, "pause", json!({})).await;
    let leased = app.job(3, json!({})).await;
    app.lease(leased, "w", 1).await;
    app.control(leased, "cancel", json!({"grace_s": 600})).await;
    let soon = (time::OffsetDateTime::now_utc() + Duration::from_secs(2))
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap();
    let timed = app.job(3, json!({"start_at": soon, "queue": "other"})).await;
    app.stop().await;
    let app = App::start(&place, quick()).await;
    // Asked at once, while the jobs are perhaps still being loaded.
    assert_eq!(app.poll("w", 9, 0.0).await.len(), 3);
    for (job, state) in [
        (running, "running"),
        (pending, "pending"),
        (paused, "paused"),
        (leased, "canceling"),
    ] {
        assert_eq!(app.view(job).await["state"], state);
    }
    app.control(paused, "resume", json!({})).await;
    app.control(pending, "start", json!({})).await;
    assert_eq!(
        app.lease(paused, "w", 9).await.len() + app.lease(pending, "w", 9).await.len(),
        6
    );
    app.until(timed, |view| view["state"] == "running").await;
    app.stop().await;
}

async fn fm46_a_flood_of_results_does_not_keep_a_cancel_out(place: Place) {
    let app = App::start(
        &place,
        Settings {
            result_permits: 2,
            ..quick()
        },
    )
    .await;
    let job = app.job(600, json!({})).await;
    let tasks = app.lease(job, "w", 600).await;
    let flood = join_all(tasks.iter().map(|task| {
        let body = json!({"worker": "w", "results": [success(task)]});
        async { app.post(&format!("/v1/jobs/{job}/results"), body).await }
    }));
    let cancel = async {
        app.view(job).await;
        app.control(job, "cancel", json!({})).await
    };
    let (said, canceled) = tokio::join!(flood, cancel);
    assert_eq!(canceled["state"], "canceled");
    let mut counts = std::collections::BTreeMap::<(u16, String), u64>::new();
    for (status, said) in &said {
        let word = said["code"]
            .as_str()
            .or(said["results"][0]["disposition"].as_str())
            .unwrap_or("?");
        *counts.entry((*status, word.to_owned())).or_default() += 1;
    }
    let of = |status, word: &str| counts.get(&(status, word.to_owned())).copied().unwrap_or(0);
    assert!(of(503, "busy") > 0, "the flood was no flood: {counts:?}");
    assert_eq!(
        of(503, "busy") + of(200, "counted") + of(200, "late"),
        600,
        "{counts:?}"
    );
    assert_eq!(app.view(job).await["progress"]["succeeded"], of(200, "counted"));
    app.stop().await;
}
