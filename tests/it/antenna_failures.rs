//! Failure modes of workers that prefetch, die, share a token and never extend a lease.
//!
//! Owns: rows 11, 37, 38, 41 and 53 over `/api/v2`. Never: waits for a lease to end but where it is short. Invariant: a lease that comes back
//! comes back by itself.

use crate::antenna_client::{Worker, failure, success};
use crate::app::{App, PATIENCE, Place, on_both_stores, quick};
use crate::cluster::connect;
use crate::http_auth::token;
use crate::http_call::send_as;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tallykeeper::coordinator::Settings;

on_both_stores!(
    fm11_antenna_432_leases_are_long_and_a_hoarder_is_capped,
    fm37_antenna_a_post_that_got_lost_comes_back_by_expiry,
    fm41_antenna_an_idle_worker_is_alive_and_is_nobody_else,
    fm41_antenna_every_call_of_a_worker_is_a_sign_of_life,
    fm53_antenna_a_dead_worker_s_batch_comes_back_while_its_siblings_live,
    calls_of_a_token_keep_what_it_holds,
    a_result_after_its_lease_still_counts,
    a_grant_whose_answer_nobody_reads_comes_back,
);

/// Fetches until there are tasks.
async fn fetch_until_given(worker: &Worker, job: i64, most: usize) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let tasks = worker.tasks(job, most).await;
        if !tasks.is_empty() {
            return tasks;
        }
        assert!(Instant::now() < deadline, "nothing came back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn short(seconds: u32) -> Value {
    json!({"policy": {"lease_timeout_s": seconds, "backoff": {"initial_s": 0}, "max_attempts": 9}})
}

async fn fm11_antenna_432_leases_are_long_and_a_hoarder_is_capped(place: Place) {
    let settings = Settings {
        worker_in_flight: 440,
        ..quick()
    };
    let app = App::start(&place, settings).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 0..600, json!({})).await;
    let mut held = Vec::new();
    for _ in 0..18 {
        held.extend(worker.tasks(job, 24).await);
    }
    assert_eq!(held.len(), 432);
    assert_eq!(
        worker.tasks(job, 24).await.len(),
        8,
        "no worker holds more than its share"
    );
    assert_eq!(worker.tasks(job, 24).await, [0; 0]);
    assert_eq!(
        Worker::of(&app).from("10.0.0.9").tasks(job, 24).await.len(),
        24,
        "others go on"
    );
    let (_, listed) = app.get(&format!("/v1/jobs/{job}/tasks?state=leased&limit=1")).await;
    let moment = |text: &Value| {
        let format = time::format_description::well_known::Rfc3339;
        time::OffsetDateTime::parse(text.as_str().unwrap(), &format).unwrap()
    };
    let (ends, created) = (
        moment(&listed["items"][0]["expires_at"]),
        moment(&app.view(job).await["created_at"]),
    );
    assert!(ends - created >= time::Duration::seconds(1_800), "{created} {ends}");
    let answers = worker.report(job, held.iter().map(success).collect()).await;
    assert_eq!(answers, ["counted"; 432]);
    assert_eq!(worker.tasks(job, 24).await.len(), 24);
    app.stop().await;
}

async fn fm37_antenna_a_post_that_got_lost_comes_back_by_expiry(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 0..2, short(1)).await;
    let tasks = worker.tasks(job, 2).await;
    // Sent, and the connection closed at once: whether it is counted is not known to its sender, who never asks again.
    let body = json!({"results": [success(&tasks[0])]}).to_string();
    app.shout(&format!("/api/v2/jobs/{job}/result/"), &body);
    let again = fetch_until_given(&worker, job, 2).await;
    assert!(
        again.iter().any(|task| task["image_id"] == tasks[1]["image_id"]),
        "what was never sent comes back"
    );
    worker.report(job, again.iter().map(success).collect()).await;
    let over = async {
        let deadline = Instant::now() + PATIENCE;
        while worker.detail(job).await["status"] != "SUCCESS" {
            assert!(Instant::now() < deadline);
            let more = worker.tasks(job, 2).await;
            worker.report(job, more.iter().map(success).collect()).await;
        }
    };
    over.await;
    // The sender of the second one had only slept.
    assert_eq!(
        worker
            .report(job, vec![success(&tasks[1]), failure(&tasks[0], None)])
            .await,
        ["duplicate", "superseded"]
    );
    assert_eq!(app.view(job).await["progress"]["counters"]["captures"], 2);
    app.stop().await;
}

async fn fm41_antenna_an_idle_worker_is_alive_and_is_nobody_else(place: Place) {
    let app = App::start(&place, quick()).await;
    let (_, admin) = token(&app, "", json!({"name": "admin", "scopes": ["admin"]})).await;
    let (id, secret) = token(&app, &admin, json!({"name": "gpus", "scopes": ["work"]})).await;
    let (_, reader) = token(&app, &admin, json!({"name": "page", "scopes": ["read"]})).await;
    let at = |address: &str| Worker::of(&app).with_token(&secret).from(address);
    let (idle, busy) = (at("10.0.0.1"), at("10.0.0.2"));
    assert_eq!(idle.jobs("a").await, [0; 0]);
    assert_eq!(Worker::of(&app).with_token(&reader).jobs("a").await, [0; 0]);
    let job = Worker::of(&app).with_token(&admin).create("a", 0..3, json!({})).await;
    let tasks = busy.tasks(job, 2).await;
    busy.report(job, vec![success(&tasks[0])]).await;
    let workers = send_as(&app, &admin, "GET", "/v1/workers", Value::Null).await.json();
    let named = |address: &str| {
        let name = format!("gpus#{id}@{address}");
        let found = workers["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|worker| worker["worker"] == name.as_str());
        found.unwrap_or_else(|| panic!("{name} in {workers}")).clone()
    };
    let (idle, busy) = (named("10.0.0.1"), named("10.0.0.2"));
    assert_eq!((&idle["alive"], &busy["alive"]), (&json!(true), &json!(true)));
    assert_eq!((&idle["done"], &busy["done"]), (&json!(0), &json!(1)));
    assert!(idle["queues"].as_array().unwrap().contains(&json!("a")), "{idle}");
    assert_eq!(busy["holds"][0]["tasks"], 1, "{busy}");
    assert_eq!(
        workers["items"].as_array().unwrap().len(),
        2,
        "a reader is no worker: {workers}"
    );
    app.stop().await;
}

async fn fm41_antenna_every_call_of_a_worker_is_a_sign_of_life(place: Place) {
    let app = App::start(&place, quick()).await;
    let (_, admin) = token(&app, "", json!({"name": "admin", "scopes": ["admin"]})).await;
    let (id, secret) = token(&app, &admin, json!({"name": "gpus", "scopes": ["work"]})).await;
    let (_, moths) = token(
        &app,
        &admin,
        json!({"name": "m", "scopes": ["read"], "queues": ["moths"]}),
    )
    .await;
    let (_, reader) = token(&app, &admin, json!({"name": "page", "scopes": ["read"]})).await;
    let workers = async |token: &str| {
        let list = send_as(&app, token, "GET", "/v1/workers", Value::Null).await.json();
        list["items"].as_array().expect("a list").clone()
    };
    let none: Vec<Value> = Vec::new();
    let calls = |path: &str| {
        let pipelines = json!({"pipelines": [{"slug": "moths"}]});
        match path.ends_with("pipelines/") {
            true => ("POST", pipelines),
            false => ("GET", Value::Null),
        }
    };
    // Before there is any queue that a node could serve.
    for (n, path) in ["/jobs?ids_only=1", "/jobs/next/", "/projects/", "/jobs/"]
        .into_iter()
        .enumerate()
    {
        let address = format!("10.0.0.{n}");
        let worker = Worker::of(&app).with_token(&secret).from(&address);
        let (method, body) = calls(path);
        worker.call(method, path, body).await;
        let name = format!("gpus#{id}@{address}");
        let seen = workers(&admin).await;
        let seen = seen.iter().find(|worker| worker["worker"] == name.as_str());
        let seen = seen.unwrap_or_else(|| panic!("{path}: no {name}"));
        assert_eq!((&seen["alive"], &seen["queues"]), (&json!(true), &json!([])), "{path}");
    }
    assert_eq!(
        workers(&moths).await,
        none,
        "who has been in no queue is nobody's in particular"
    );
    let job = Worker::of(&app)
        .with_token(&admin)
        .create("moths", 0..1, json!({}))
        .await;
    Worker::of(&app).with_token(&reader).detail(job).await;
    assert_eq!(workers(&moths).await, none, "whoever looks or creates is no worker");
    for (n, path) in [format!("/jobs/{job}/"), "/projects/1/pipelines/".to_owned()]
        .iter()
        .enumerate()
    {
        let address = format!("10.0.1.{n}");
        let (method, body) = calls(path);
        Worker::of(&app)
            .with_token(&secret)
            .from(&address)
            .call(method, path, body)
            .await;
        let seen = workers(&moths).await;
        let name = format!("gpus#{id}@{address}");
        let seen = seen.iter().find(|worker| worker["worker"] == name.as_str());
        let seen = seen.unwrap_or_else(|| panic!("{path}: no {name}"));
        assert_eq!(
            (&seen["alive"], &seen["queues"]),
            (&json!(true), &json!(["moths"])),
            "{path}"
        );
    }
    app.stop().await;
}

async fn fm53_antenna_a_dead_worker_s_batch_comes_back_while_its_siblings_live(place: Place) {
    let app = App::start(&place, quick()).await;
    let (dead, alive) = (Worker::of(&app).from("10.0.0.1"), Worker::of(&app).from("10.0.0.2"));
    let job = dead.create("a", 0..24, short(1)).await;
    let lost = dead.tasks(job, 24).await;
    assert_eq!(lost.len(), 24);
    // Every fetch of the sibling renews what their token holds, and still the dead one's batch comes back.
    let mut back = Vec::new();
    while back.len() < 24 {
        let tasks = fetch_until_given(&alive, job, 24).await;
        alive.report(job, tasks.iter().map(success).collect()).await;
        back.extend(tasks);
    }
    let detail = alive.detail(job).await;
    assert_eq!(detail["status"], "SUCCESS");
    assert_eq!(
        alive.report(job, lost.iter().map(success).collect()).await,
        ["duplicate"; 24],
        "it was only paused"
    );
    assert_eq!(app.view(job).await["progress"]["counters"]["captures"], 24);
    app.stop().await;
}

async fn calls_of_a_token_keep_what_it_holds(place: Place) {
    let app = App::start(&place, quick()).await;
    let (worker, sibling) = (Worker::of(&app), Worker::of(&app).from("10.0.0.7"));
    let job = worker
        .create("a", 0..2, json!({"policy": {"lease_timeout_s": 600}}))
        .await;
    worker.tasks(job, 1).await;
    let ends = async || {
        let (_, listed) = app.get(&format!("/v1/jobs/{job}/tasks?limit=1")).await;
        listed["items"][0]["expires_at"].as_str().unwrap().to_owned()
    };
    let first = ends().await;
    assert_eq!(ends().await, first, "calls below /v1 renew nothing");
    let mut last = first;
    for call in 0..3 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        match call {
            0 => drop(sibling.detail(job).await),
            1 => drop(sibling.report(job, vec![]).await),
            _ => drop(worker.tasks(job, 1).await),
        }
        let now = ends().await;
        assert!(now > last, "call {call}: {last} -> {now}");
        last = now;
    }
    app.stop().await;
}

async fn a_result_after_its_lease_still_counts(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 0..3, short(1)).await;
    let tasks = worker.tasks(job, 3).await;
    app.until(job, |view| view["progress"]["leased"] == 0).await;
    let posted = vec![success(&tasks[0]), failure(&tasks[1], None)];
    assert_eq!(
        worker.report(job, posted).await,
        ["counted", "superseded"],
        "what is late is used where it helps"
    );
    let again = worker.tasks(job, 3).await;
    assert_eq!(again.len(), 2);
    assert_eq!(
        worker.report(job, vec![success(&tasks[1])]).await,
        ["counted"],
        "the first of two holders"
    );
    assert_eq!(
        worker.report(job, again.iter().map(success).collect()).await,
        ["duplicate", "counted"]
    );
    assert_eq!(app.view(job).await["progress"]["counters"]["captures"], 3);
    app.stop().await;
}

async fn a_grant_whose_answer_nobody_reads_comes_back(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 0..3, json!({})).await;
    app.shout(&format!("/api/v2/jobs/{job}/tasks/"), r#"{"batch_size":3}"#);
    // Given back at once, or still to be given: there are three in any case, long before the lease of half an hour ends.
    let mut given = 0;
    while given < 3 {
        given += fetch_until_given(&worker, job, 3).await.len();
    }
    assert_eq!(given, 3);
    app.stop().await;
}

#[actix_web::test]
async fn fm38_antenna_a_locked_row_of_the_job_holds_up_neither_results_nor_logs() {
    let place = Place::postgres().await;
    let Place::Postgres(url) = &place else { unreachable!() };
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 0..40, json!({})).await;
    let tasks = worker.tasks(job, 40).await;
    let db = connect(url).await;
    db.batch_execute(&format!("BEGIN; SELECT 1 FROM jobs WHERE id = {job} FOR UPDATE"))
        .await
        .unwrap();
    for task in &tasks[..30] {
        assert_eq!(worker.report(job, vec![success(task)]).await, ["counted"]);
    }
    let entries: Vec<Value> = (0..200)
        .map(|n| json!({"level": "info", "message": format!("line {n}")}))
        .collect();
    assert_eq!(
        app.post(&format!("/v1/jobs/{job}/logs"), json!({"entries": entries}))
            .await
            .0,
        200
    );
    let (_, detail) = worker.get(&format!("/jobs/{job}/?logs_limit=200")).await;
    let lines = detail["logs"]["stdout"].as_array().unwrap();
    assert!(
        lines.len() == 200 && lines[199].as_str().unwrap().ends_with("INFO line 199"),
        "{detail}"
    );
    assert_eq!(detail["progress"]["stages"][1]["progress"], 0.75);
    db.batch_execute("ROLLBACK").await.unwrap();
    worker.report(job, tasks[30..].iter().map(success).collect()).await;
    assert_eq!(worker.detail(job).await["status"], "SUCCESS");
    app.stop().await;
}
