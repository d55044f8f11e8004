//! Reading: lists, tasks, results by page and by stream; and creation told twice.
//!
//! Owns: cursors and formats as clients meet them. Never: reads the store. Invariant: pages put together are the whole, once.

use crate::app::{App, Place, failure, quick, success};
use crate::http_call::send;
use serde_json::{Value, json};
use tallykeeper::http::HttpSettings;

async fn pages(app: &App, path: &str) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let join = if path.contains('?') { '&' } else { '?' };
        let (status, page) = app.get(&format!("{path}{join}limit=2{cursor}")).await;
        assert_eq!(status, 200, "{page}");
        let found = page["items"].as_array().unwrap();
        assert!(!found.is_empty() && found.len() <= 2, "{page}");
        items.extend(found.iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}

#[actix_web::test]
async fn results_come_by_page_and_by_stream_alike() {
    // Pages of a few bytes, so that the stream is made of many.
    let http = HttpSettings {
        workers: 1,
        result_page_max_bytes: 20,
        ..HttpSettings::default()
    };
    let app = App::start_with(&Place::sqlite(), quick(), http).await;
    let job = app.job(7, json!({})).await;
    let path = format!("/v1/jobs/{job}/results");
    assert_eq!(app.get(&path).await.1, json!({"items": [], "next_cursor": null}));
    let tasks = app.lease(job, "w", 6).await;
    let mut results: Vec<_> = tasks.iter().map(success).collect();
    results[2] = failure(&tasks[2]);
    results[2]["retryable"] = json!(false);
    results[0]["counters"] = json!({"found": 3});
    app.report(job, "w", results).await;

    let paged = pages(&app, &path).await;
    let accept = [("accept", "application/x-ndjson")];
    let stream = send(&app.url, "GET", &path, &accept, "").await;
    assert_eq!(stream.header("content-type"), "application/x-ndjson");
    let streamed: Vec<Value> = stream
        .text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(paged, streamed);
    assert_eq!(streamed.len(), 6);
    assert_eq!(streamed[0]["counters"], json!({"found": 3}));
    assert_eq!(
        (&streamed[1]["result"], &streamed[1]["worker"]),
        (&json!({"of": 1}), &json!("w"))
    );
    assert_eq!(
        (&streamed[2]["error"], streamed[2].get("result")),
        (&json!("it broke"), None)
    );
    let failed = pages(&app, &format!("{path}?status=failed")).await;
    assert_eq!(failed.len(), 1);

    let listed = pages(&app, &format!("/v1/jobs/{job}/tasks")).await;
    let states: Vec<_> = listed.iter().map(|task| task["state"].as_str().unwrap()).collect();
    assert_eq!(
        states,
        [
            "succeeded",
            "succeeded",
            "failed",
            "succeeded",
            "succeeded",
            "succeeded",
            "pending"
        ]
    );
    assert_eq!(
        pages(&app, &format!("/v1/jobs/{job}/tasks?state=pending")).await.len(),
        1
    );
    app.stop().await;
}

#[actix_web::test]
async fn jobs_are_listed_newest_first_and_filtered() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let mut made = Vec::new();
    for i in 0..5 {
        let more = json!({"name": format!("Nightly {i}"), "queue": if i < 3 { "a" } else { "b" }, "labels": {"n": i.to_string()}});
        made.push(app.job(1, more).await);
    }
    app.post(&format!("/v1/jobs/{}/cancel", made[1]), json!(null)).await;
    made.reverse();
    let ids = |items: Vec<Value>| -> Vec<i64> { items.iter().map(|job| job["id"].as_i64().unwrap()).collect() };
    assert_eq!(ids(pages(&app, "/v1/jobs").await), made);
    assert_eq!(ids(pages(&app, "/v1/jobs?queue=a").await), made[2..]);
    assert_eq!(ids(pages(&app, "/v1/jobs?state=canceled").await), [made[3]]);
    assert_eq!(ids(pages(&app, "/v1/jobs?state=canceled&state=running").await), made);
    assert_eq!(ids(pages(&app, "/v1/jobs?label=n=4").await), [made[0]]);
    assert_eq!(ids(pages(&app, "/v1/jobs?q=NIGHTLY%202").await), [made[2]]);
    for bad in ["limit=501", "state=done", "cursor=x", "label=x", "colour=red"] {
        let (status, problem) = app.get(&format!("/v1/jobs?{bad}")).await;
        assert_eq!((status, &problem["code"]), (400, &json!("invalid_request")), "{bad}");
        assert_eq!(problem["field"], bad.split('=').next().unwrap());
    }
    app.stop().await;
}

#[actix_web::test]
async fn a_creation_told_twice_is_one_job() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let headers = [("content-type", "application/json"), ("idempotency-key", "one")];
    let body = json!({"name": "n", "queue": "q", "tasks": [{"payload": 1}]}).to_string();
    let first = send(&app.url, "POST", "/v1/jobs", &headers, &body).await;
    assert_eq!(first.status, 201);
    assert_eq!(first.header("location"), format!("/v1/jobs/{}", first.json()["id"]));
    let again = send(&app.url, "POST", "/v1/jobs", &headers, &body).await;
    assert_eq!((again.status, &again.json()["id"]), (200, &first.json()["id"]));
    let other = send(&app.url, "POST", "/v1/jobs", &headers, &body.replace("\"n\"", "\"m\"")).await;
    assert_eq!((other.status, other.code()), (422, json!("idempotency_mismatch")));
    app.stop().await;
}

#[actix_web::test]
async fn controls_are_judged_and_repeat_harmlessly() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = app.job(2, json!({"start": false})).await;
    let path = format!("/v1/jobs/{job}");
    for (verb, state) in [
        ("start", "running"),
        ("start", "running"),
        ("pause", "paused"),
        ("pause", "paused"),
        ("resume", "running"),
        ("cancel", "canceled"),
        ("cancel", "canceled"),
    ] {
        let (status, view) = app.post(&format!("{path}/{verb}"), json!(null)).await;
        assert_eq!((status, &view["state"]), (200, &json!(state)), "{verb}");
    }
    let (status, problem) = app.post(&format!("{path}/pause"), json!({})).await;
    assert_eq!(
        (status, &problem["code"], &problem["state"]),
        (409, &json!("invalid_transition"), &json!("canceled"))
    );
    let (status, problem) = app.post(&format!("{path}/retry"), json!({"if_run": 9})).await;
    assert_eq!(
        (status, &problem["code"], &problem["run"]),
        (409, &json!("wrong_run"), &json!(1))
    );
    let (status, view) = app
        .post(&format!("{path}/retry"), json!({"only": "all", "if_run": 1}))
        .await;
    assert_eq!(
        (status, &view["state"], &view["run"]),
        (200, &json!("running"), &json!(2))
    );
    for (verb, body) in [
        ("cancel", json!({"grace": 1})),
        ("retry", json!({"only": "some"})),
        ("start", json!({"x": 1})),
    ] {
        let (status, problem) = app.post(&format!("{path}/{verb}"), body).await;
        assert_eq!((status, &problem["code"]), (400, &json!("invalid_request")), "{verb}");
    }
    app.stop().await;
}
