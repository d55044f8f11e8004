//! Bounds, errors and the answers to operators.
//!
//! Owns: what a node refuses, and how it says so. Never: needs a job's rules. Invariant: every error is a problem.

use crate::app::{App, Place, quick, success};
use crate::http_call::{raw, send, until_closed};
use crate::nodes_cluster::{lease, report};
use crate::process::{Launch, until};
use serde_json::json;
use std::net::SocketAddr;
use tallykeeper::domain::job::Limits;
use tallykeeper::http::{AppState, HttpSettings, install_metrics, serve};

const JSON: (&str, &str) = ("content-type", "application/json");

#[actix_web::test]
async fn unknown_paths_and_methods_are_problems() {
    let app = App::start(&Place::sqlite(), quick()).await;
    for path in [
        "/nowhere",
        "/v1",
        "/v1/jobs/",
        "/v1/jobs/1/nothing",
        "/v1/jobs/x",
        "/v1/jobs/0",
    ] {
        let answer = send(&app.url, "GET", path, &[], "").await;
        assert_eq!((answer.status, answer.code()), (404, json!("not_found")), "{path}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert!(!answer.header("x-request-id").is_empty());
    }
    let answer = send(&app.url, "PUT", "/v1/jobs", &[], "").await;
    assert_eq!((answer.status, answer.header("allow")), (405, "POST, GET, HEAD"));
    assert_eq!(answer.header("content-type"), "application/problem+json");
    app.stop().await;
}

#[actix_web::test]
async fn a_request_goes_by_its_id() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let answer = send(&app.url, "GET", "/v1/jobs", &[("x-request-id", "mine-1")], "").await;
    assert_eq!(answer.header("x-request-id"), "mine-1");
    let long = "x".repeat(200);
    for bad in ["", "two words", &long] {
        let answer = send(&app.url, "GET", "/v1/jobs", &[("x-request-id", bad)], "").await;
        assert_eq!(answer.header("x-request-id").len(), 36, "{bad:?} is replaced");
    }
    app.stop().await;
}

#[actix_web::test]
async fn too_much_is_refused_with_its_limit() {
    let http = HttpSettings {
        workers: 1,
        body_max_bytes: 1_000,
        batch_items_max: 2,
        ..HttpSettings::default()
    };
    let app = App::start_with(&Place::sqlite(), quick(), http).await;
    let big = json!({"name": "n".repeat(1_000), "queue": "q"}).to_string();
    let answer = send(&app.url, "POST", "/v1/jobs", &[JSON], &big).await;
    assert_eq!(
        (answer.status, answer.code(), answer.json()["limit"].clone()),
        (413, json!("body_too_large"), json!(1_000))
    );
    let job = app.job(3, json!({})).await;
    let tasks = app.lease(job, "w", 3).await;
    let results: Vec<_> = tasks.iter().map(success).collect();
    let (status, problem) = app
        .post(
            &format!("/v1/jobs/{job}/results"),
            json!({"worker": "w", "results": results}),
        )
        .await;
    assert_eq!(
        (status, &problem["code"], &problem["field"]),
        (400, &json!("invalid_request"), &json!("results"))
    );
    assert_eq!(app.view(job).await["progress"]["leased"], 3);
    app.stop().await;
}

#[actix_web::test]
async fn fm35_a_bad_item_is_rejected_and_its_neighbours_count() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = app.job(4, json!({})).await;
    let tasks = app.lease(job, "w", 4).await;
    let lease = |i: usize| tasks[i]["lease"].as_str().unwrap().to_owned();
    let body = format!(
        r#"{{"worker":"w","results":[
            {{"lease":"{}","status":"succeeded","result":{{"a" : "\u0000"}}}},
            {{"lease":"{}","status":"succeeded","result":"\ud800"}},
            {{"lease":"nonsense","status":"succeeded"}},
            {{"lease":"{}","status":"succeeded","counters":{{"n":1.5}}}},
            {{"lease":"{}","status":"succeeded","result":[1 ,2]}}]}}"#,
        lease(0),
        lease(1),
        lease(2),
        lease(3)
    );
    let answer = send(&app.url, "POST", &format!("/v1/jobs/{job}/results"), &[JSON], &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let posted = answer.json();
    let dispositions: Vec<_> = posted["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["disposition"].clone())
        .collect();
    assert_eq!(dispositions, ["counted", "rejected", "rejected", "rejected", "counted"]);
    assert_eq!(posted["results"][2]["lease"], "nonsense");
    let page = send(&app.url, "GET", &format!("/v1/jobs/{job}/results"), &[], "").await;
    assert!(
        page.text.contains(r#""result":{"a" : "\ufffd"}"#) && page.text.contains(r#""result":[1 ,2]"#),
        "{}",
        page.text
    );
    app.stop().await;
}

#[actix_web::test]
async fn a_body_that_does_not_come_is_given_up() {
    let http = HttpSettings {
        workers: 1,
        body_idle_timeout_s: 1,
        ..HttpSettings::default()
    };
    let app = App::start_with(&Place::sqlite(), quick(), http).await;
    let host = app.url.strip_prefix("http://").unwrap();
    let head = format!(
        "POST /v1/jobs HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    );
    let answer = until_closed(raw(&app, &head).await).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("request_timeout"), "{answer}");
    app.stop().await;
}

#[actix_web::test]
async fn bodies_share_a_budget() {
    let http = HttpSettings {
        workers: 1,
        body_budget_bytes: 4_096,
        small_body_max_bytes: 1_024,
        ..HttpSettings::default()
    };
    let app = App::start_with(&Place::sqlite(), quick(), http).await;
    let host = app.url.strip_prefix("http://").unwrap();
    let head = format!(
        "POST /v1/jobs HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 4000\r\nExpect: 100-continue\r\n\r\n"
    );
    let mut holder = raw(&app, &head).await;
    // The node asks for the body when it has read the head; what it says next comes from the handler, which holds the budget.
    let mut said = [0; 25];
    tokio::io::AsyncReadExt::read_exact(&mut holder, &mut said)
        .await
        .unwrap();
    assert!(said.starts_with(b"HTTP/1.1 100 Continue"));
    let busy = loop {
        let answer = send(&app.url, "POST", "/v1/jobs", &[JSON], r#"{"name":"n","queue":"q"}"#).await;
        if answer.status != 201 {
            break answer;
        }
    };
    assert_eq!(
        (busy.status, busy.code(), busy.header("retry-after")),
        (503, json!("busy"), "1")
    );
    drop(holder);
    loop {
        let answer = send(&app.url, "POST", "/v1/jobs", &[JSON], r#"{"name":"n","queue":"q"}"#).await;
        if answer.status == 201 {
            break;
        }
        assert_eq!(answer.code(), "busy");
    }
    app.stop().await;
}

#[actix_web::test]
async fn a_poll_whose_client_went_away_holds_no_lease() {
    let app = App::start(&Place::sqlite(), quick()).await;
    app.job(1, json!({"name": "owns the queue", "start": false})).await;
    let host = app.url.strip_prefix("http://").unwrap();
    let body = r#"{"worker":"gone","queues":["q"],"max_tasks":10,"wait_s":60}"#;
    let request = format!(
        "POST /v1/leases HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = raw(&app, &request).await;
    tokio::io::AsyncWriteExt::shutdown(&mut stream).await.unwrap();
    // The node closes its side when it has given the request up.
    assert_eq!(until_closed(stream).await, "");
    let job = app.job(5, json!({})).await;
    assert_eq!(app.lease(job, "here", 10).await.len(), 5);
    app.stop().await;
}

#[actix_web::test]
async fn a_grant_that_could_not_be_written_out_is_given_back() {
    let app = App::start(&Place::sqlite(), quick()).await;
    // More than the sockets between the two can hold.
    let payload = "x".repeat(250_000);
    let tasks: Vec<_> = (0..40).map(|_| json!({"payload": payload})).collect();
    let job = app.job(0, json!({"tasks": tasks})).await;
    let host = app.url.strip_prefix("http://").unwrap();
    let body = r#"{"worker":"gone","max_tasks":100}"#;
    let request = format!(
        "POST /v1/jobs/{job}/leases HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = raw(&app, &request).await;
    let mut start = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut start)
        .await
        .unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    assert_eq!(app.view(job).await["progress"]["leased"], 40);
    drop(stream);
    let ask = json!({"worker": "here", "queues": ["q"], "max_tasks": 100, "wait_s": 30});
    let (mut leased, mut attempts) = (0, Vec::new());
    while leased < 40 {
        let (status, granted) = app.post("/v1/leases", ask.clone()).await;
        assert_eq!(status, 200);
        let tasks = granted["tasks"].as_array().unwrap();
        assert!(!tasks.is_empty(), "the leases did not come back: {leased} did");
        leased += tasks.len();
        attempts.extend(tasks.iter().map(|task| task["attempt"].clone()));
    }
    assert!(
        attempts.iter().all(|attempt| attempt == 1),
        "a lease that was never delivered spends nothing"
    );
    app.stop().await;
}

#[actix_web::test]
async fn operators_get_their_answers() {
    let app = App::start(&Place::sqlite(), quick()).await;
    assert_eq!(send(&app.url, "GET", "/metrics", &[], "").await.status, 404);
    let metrics = install_metrics().expect("the only recorder of this process");
    let job = app.job(1, json!({})).await;
    let tasks = app.lease(job, "w", 1).await;
    assert_eq!(app.report(job, "w", vec![success(&tasks[0])]).await, ["counted"]);
    let state = AppState::new(
        app.coordinator.clone(),
        HttpSettings::default(),
        Limits::default(),
        Some(metrics),
    );
    let listen: SocketAddr = ([127, 0, 0, 1], 0).into();
    let serving = serve(state, &[listen]).await.unwrap();
    let url = format!("http://{}", serving.addresses[0]);
    actix_web::rt::spawn(serving.server);

    assert_eq!(send(&url, "GET", "/healthz", &[], "").await.status, 200);
    let ready = send(&url, "GET", "/readyz", &[], "").await;
    assert_eq!(
        (ready.status, ready.json()),
        (200, json!({"ready": true, "reasons": []}))
    );
    let front = send(&url, "GET", "/", &[], "").await;
    assert!(
        front.text.contains(concat!("Tallykeeper ", env!("CARGO_PKG_VERSION"))),
        "{}",
        front.text
    );
    let docs = send(&url, "GET", "/docs", &[], "").await;
    assert_eq!((docs.status, docs.header("location")), (308, "/docs/"));
    let docs = send(&url, "GET", "/docs/", &[], "").await;
    assert!(
        docs.status == 200 && !docs.text.contains("//unpkg") && !docs.text.contains("cdn"),
        "{}",
        docs.text
    );
    let start = send(&url, "GET", "/docs/swagger-initializer.js", &[], "").await;
    assert!(start.text.contains("/openapi.json"), "{}", start.text);
    assert_eq!(send(&url, "GET", "/docs/nothing.js", &[], "").await.status, 404);
    assert!(send(&url, "GET", "/openapi.json", &[], "").await.json()["paths"]["/v1/jobs"]["post"].is_object());

    send(&url, "GET", "/v1/jobs/77", &[], "").await;
    let text = send(&url, "GET", "/metrics", &[], "").await.text;
    let counted = r#"tallykeeper_http_requests_total{method="GET",route="/v1/jobs/{id}",status="404"} "#;
    assert!(text.contains(counted), "{text}");
    for name in [
        "http_request_duration_seconds",
        "commit_duration_seconds",
        "commit_rows",
    ] {
        assert!(
            text.contains(&format!("# TYPE tallykeeper_{name} histogram\n")),
            "{text}"
        );
    }
    assert!(
        !text.contains(" summary\n"),
        "quantiles of several nodes cannot be put together: {text}"
    );

    app.coordinator.drain().await.unwrap();
    let ready = send(&url, "GET", "/readyz", &[], "").await;
    assert_eq!(
        (ready.status, ready.json()["reasons"].clone()),
        (503, json!(["draining"]))
    );
    assert_eq!(send(&url, "GET", "/healthz", &[], "").await.status, 200);
    serving.handle.stop(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gauges_of_a_queue_fall_as_well_as_they_rise() {
    let launch = Launch::new(Place::sqlite()).set("COORDINATOR__PASSIVATE_AFTER_MS", 100);
    let mut node = launch.start().await;
    let client = launch.client();
    let shows = async |line: &str| {
        let text = send(&launch.url(), "GET", "/metrics", &[], "").await.text;
        text.lines().any(|shown| shown == line).then_some(())
    };
    let job = json!({"name": "n", "queue": "q", "tasks": [{"payload": 1}]});
    let job = client.post("/v1/jobs", job).await["id"]
        .as_i64()
        .expect("an id is a number");
    let granted = lease(&client, "w", &["q"], 1, 0.0).await;
    until("the job is counted", async || {
        shows(r#"tallykeeper_active_jobs{queue="q"} 1"#).await
    })
    .await;
    let poll = {
        let client = client.clone();
        tokio::spawn(async move { lease(&client, "w2", &["q"], 1, 25.0).await })
    };
    until("the poll is counted", async || {
        shows(r#"tallykeeper_parked_polls{queue="q"} 1"#).await
    })
    .await;
    // Its caller goes away, and nothing else happens in the queue.
    poll.abort();
    until("the poll is counted no more", async || {
        shows(r#"tallykeeper_parked_polls{queue="q"} 0"#).await
    })
    .await;
    assert_eq!(report(&client, job, "w", &granted["tasks"]).await, ["counted"]);
    until("the job is counted no more", async || {
        shows(r#"tallykeeper_active_jobs{queue="q"} 0"#).await
    })
    .await;
    assert!(node.terminate().await.success());
}
