//! Appending: arrays and streams, whole and broken off.
//!
//! Owns: the upload as clients meet it. Never: counts behind the API. Invariant: what an answer says was added is there, and no more.

use crate::app::{App, Place, quick};
use crate::http_call::{raw, send, until_closed};
use serde_json::json;
use tallykeeper::http::HttpSettings;

const NDJSON: [(&str, &str); 1] = [("content-type", "application/x-ndjson")];

async fn app() -> App {
    let http = HttpSettings {
        workers: 2,
        append_chunk_tasks: 3,
        line_max_bytes: 100,
        ..HttpSettings::default()
    };
    App::start_with(&Place::sqlite(), quick(), http).await
}

fn lines(range: std::ops::Range<u32>) -> String {
    range
        .map(|i| format!("{{\"key\":\"k{i}\",\"payload\":{i}}}\n"))
        .collect()
}

#[actix_web::test]
async fn a_stream_of_lines_is_added_in_chunks_and_may_be_repeated() {
    let app = app().await;
    let job = app.job(0, json!({"open": true})).await;
    let path = format!("/v1/jobs/{job}/tasks");
    let answer = send(&app.url, "POST", &path, &NDJSON, &lines(0..10)).await;
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"added": 10, "existing": 0, "next_task": 10}))
    );
    let answer = send(&app.url, "POST", &path, &NDJSON, &lines(5..12)).await;
    assert_eq!(answer.json(), json!({"added": 2, "existing": 5, "next_task": 12}));
    let (_, array) = app
        .post(
            &path,
            json!([{"payload": 1}, {"key": "k0", "payload": 1}, {"payload": 2}, {"payload": 3}]),
        )
        .await;
    assert_eq!(array, json!({"added": 3, "existing": 1, "next_task": 15}));
    let tasks = app.lease(job, "w", 100).await;
    assert_eq!(tasks.len(), 15);
    assert_eq!((&tasks[11]["key"], &tasks[11]["payload"]), (&json!("k11"), &json!(11)));
    app.stop().await;
}

#[actix_web::test]
async fn an_upload_that_breaks_says_where_to_go_on() {
    let app = app().await;
    let job = app.job(0, json!({"open": true})).await;
    let path = format!("/v1/jobs/{job}/tasks");
    let broken = lines(0..7) + "{\"payload\": nonsense}\n";
    let answer = send(&app.url, "POST", &format!("{path}?first_task=0"), &NDJSON, &broken).await;
    assert_eq!((answer.status, answer.code()), (400, json!("invalid_request")));
    assert_eq!(
        (&answer.json()["next_task"], &answer.json()["field"]),
        (&json!(6), &json!("line 8"))
    );
    assert_eq!(app.view(job).await["progress"]["total"], 6);

    let answer = send(&app.url, "POST", &format!("{path}?first_task=5"), &NDJSON, &lines(5..8)).await;
    assert_eq!((answer.status, answer.code()), (409, json!("wrong_first_task")));
    assert_eq!(answer.json()["next_task"], 6);

    let long = format!("{{\"payload\":\"{}\"}}\n", "x".repeat(100));
    let answer = send(
        &app.url,
        "POST",
        &format!("{path}?first_task=6"),
        &NDJSON,
        &(lines(6..9) + &long),
    )
    .await;
    assert_eq!((answer.status, answer.code()), (413, json!("body_too_large")));
    assert_eq!(
        (&answer.json()["limit"], &answer.json()["next_task"]),
        (&json!(100), &json!(9))
    );

    let rest = send(
        &app.url,
        "POST",
        &format!("{path}?first_task=9"),
        &NDJSON,
        &lines(9..20),
    )
    .await;
    assert_eq!(rest.json(), json!({"added": 11, "existing": 0, "next_task": 20}));
    app.stop().await;
}

#[actix_web::test]
async fn a_client_that_vanishes_leaves_whole_chunks() {
    let app = app().await;
    let job = app.job(0, json!({"open": true})).await;
    let host = app.url.strip_prefix("http://").unwrap();
    let mut stream = raw(
        &app,
        &format!(
            "POST /v1/jobs/{job}/tasks HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-ndjson\r\nContent-Length: 100000\r\n\r\n{}",
            lines(0..8)
        ),
    )
    .await;
    tokio::io::AsyncWriteExt::shutdown(&mut stream).await.unwrap();
    until_closed(stream).await;
    let total = app.view(job).await["progress"]["total"].as_u64().unwrap();
    assert!(total <= 8 && (total % 3 == 0), "{total}");
    let resumed = send(
        &app.url,
        "POST",
        &format!("/v1/jobs/{job}/tasks"),
        &NDJSON,
        &lines(0..8),
    )
    .await;
    assert_eq!(resumed.json()["next_task"], 8);
    app.stop().await;
}

#[actix_web::test]
async fn a_sealed_job_takes_no_more() {
    let app = app().await;
    let job = app.job(1, json!({"open": true})).await;
    let path = format!("/v1/jobs/{job}/tasks");
    let (status, sealed) = app.post(&format!("/v1/jobs/{job}/seal"), json!(null)).await;
    assert_eq!((status, &sealed["open"]), (200, &json!(false)));
    for body in [lines(0..1), lines(0..10)] {
        let answer = send(&app.url, "POST", &path, &NDJSON, &body).await;
        assert_eq!((answer.status, answer.code()), (409, json!("job_sealed")));
    }
    app.stop().await;
}

#[actix_web::test]
async fn a_large_upload_that_is_refused_early_still_hears_why() {
    let app = app().await;
    let job = app.job(1, json!({"open": true})).await;
    let path = format!("/v1/jobs/{job}/tasks?first_task=0");
    let answer = send(&app.url, "POST", &path, &NDJSON, &lines(0..500_000)).await;
    assert_eq!((answer.status, answer.code()), (409, json!("wrong_first_task")));
    let array = [("content-type", "application/json")];
    let too_large = " ".repeat(129 << 20);
    let answer = send(&app.url, "POST", &path, &array, &too_large).await;
    assert_eq!((answer.status, answer.code()), (413, json!("body_too_large")));
    app.stop().await;
}
