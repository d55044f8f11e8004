//! Long and compressed bodies: what a node takes, refuses and holds of them.
//!
//! Owns: sizes, codings and the budget, over the wire. Never: looks at what results do. Invariant: a body that is refused has changed
//! nothing.

use crate::app::{App, Place, on_both_stores, quick, success};
use crate::http_call::{raw, until_closed};
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::io::Write as _;
use tallykeeper::domain::ids::BlobId;
use tallykeeper::http::HttpSettings;

type Compress = fn(&[u8]) -> Vec<u8>;

pub(crate) fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).expect("memory can be written");
    encoder.finish().expect("memory can be written")
}

pub(crate) fn zstd(text: &[u8]) -> Vec<u8> {
    zstd::encode_all(text, 3).expect("memory can be read")
}

/// Sends a body in a coding; answers status, `Accept-Encoding` and JSON.
async fn sent(app: &App, path: &str, media: &str, coding: &str, body: Vec<u8>) -> (u16, String, Value) {
    let request = app
        .request("POST", path)
        .header("content-type", media)
        .header("content-encoding", coding);
    let response = request.body(body).send().await.expect("the node answers");
    let status = response.status().as_u16();
    let accepts = response
        .headers()
        .get("accept-encoding")
        .map_or("", |value| value.to_str().unwrap())
        .to_owned();
    (status, accepts, response.json().await.expect("an answer is JSON"))
}

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";

fn results(tasks: &[Value], result: &str) -> String {
    let item = |task: &Value| {
        let lease = &task["lease"];
        format!(r#"{{"lease":{lease},"status":"succeeded","result":{result}}}"#)
    };
    let items: Vec<String> = tasks.iter().map(item).collect();
    format!(r#"{{"worker":"w","results":[{}]}}"#, items.join(","))
}

async fn compressed_bodies_are_taken_on_every_route(place: Place) {
    let app = App::start(&place, quick()).await;
    let compress: [(&str, Compress); 2] = [("gzip", gzip), ("zstd", zstd)];
    for (coding, compress) in compress {
        let create = json!({"name": "n", "queue": "q", "open": true, "tasks": [{"payload": 1}]}).to_string();
        let (status, _, job) = sent(&app, "/v1/jobs", JSON, coding, compress(create.as_bytes())).await;
        assert_eq!(status, 201, "{job}");
        let job = job["id"].as_i64().unwrap();
        let array: Vec<Value> = (0..20_000).map(|i| json!({"payload": i})).collect();
        let array = serde_json::to_vec(&array).unwrap();
        let tasks = format!("/v1/jobs/{job}/tasks");
        let (status, _, added) = sent(&app, &tasks, JSON, coding, compress(&array)).await;
        assert_eq!((status, &added["added"]), (200, &json!(20_000)));
        let lines = "{\"payload\":{\"n\":1}}\n".repeat(5_000);
        let (status, _, added) = sent(&app, &tasks, LINES, coding, compress(lines.as_bytes())).await;
        assert_eq!((status, &added["next_task"]), (200, &json!(25_001)));
        let ask = br#"{"worker":"w","max_tasks":3}"#;
        let (status, _, granted) = sent(&app, &format!("/v1/jobs/{job}/leases"), JSON, coding, compress(ask)).await;
        assert_eq!(status, 200, "{granted}");
        let granted = granted["tasks"].as_array().unwrap();
        let large = format!("[{}1]", "123.25, ".repeat(200_000));
        for (tasks, result) in [(&granted[..1], r#"{"a" : 1}"#), (&granted[1..], &large)] {
            let body = compress(results(tasks, result).as_bytes());
            let (status, _, posted) = sent(&app, &format!("/v1/jobs/{job}/results"), JSON, coding, body).await;
            assert_eq!(status, 200, "{posted}");
            assert_eq!(posted["results"].as_array().unwrap().len(), tasks.len());
            for task in tasks {
                let path = format!("/v1/jobs/{job}/tasks/{}/result", task["task"]);
                let kept = app.request("GET", &path).send().await.unwrap().text().await.unwrap();
                assert!(kept == result, "the result is another");
            }
        }
        assert_eq!(app.view(job).await["progress"]["succeeded"], 3);
    }
    app.stop().await;
}

#[actix_web::test]
async fn fm36_what_inflates_beyond_a_limit_is_refused_by_it() {
    let http = HttpSettings {
        workers: 1,
        body_max_bytes: 4 << 20,
        ..HttpSettings::default()
    };
    let app = App::start_with(&Place::sqlite(), quick(), http).await;
    let job = app.job(1, json!({"open": true})).await;
    let bomb = vec![b' '; 64 << 20];
    for (coding, bomb) in [("gzip", gzip(&bomb)), ("zstd", zstd(&bomb))] {
        for (path, media, limit) in [
            (format!("/v1/jobs/{job}/results"), JSON, 4 << 20),
            (format!("/v1/jobs/{job}/tasks"), JSON, 4 << 20),
            (format!("/v1/jobs/{job}/tasks"), LINES, 1 << 20),
            (format!("/v1/jobs/{job}/leases"), JSON, 1 << 20),
        ] {
            let (status, _, problem) = sent(&app, &path, media, coding, bomb.clone()).await;
            assert_eq!(
                (status, &problem["code"]),
                (413, &json!("body_too_large")),
                "{coding} {path}"
            );
            assert_eq!(problem["limit"], limit, "{coding} {path}");
        }
    }
    assert_eq!(app.view(job).await["progress"]["total"], 1);
    app.stop().await;
}

#[actix_web::test]
async fn other_codings_and_broken_ones_are_refused_clearly() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let body = br#"{"name":"n","queue":"q"}"#;
    for coding in ["br", "deflate", "compress", "gzip, gzip"] {
        let (status, accepts, problem) = sent(&app, "/v1/jobs", JSON, coding, gzip(body)).await;
        assert_eq!((status, accepts.as_str()), (415, "gzip, zstd"), "{coding}");
        assert_eq!(problem["code"], "unsupported_media_type");
        assert_eq!(problem["field"], "content-encoding");
    }
    for coding in ["gzip", "zstd"] {
        let (status, _, problem) = sent(&app, "/v1/jobs", JSON, coding, body.to_vec()).await;
        assert_eq!((status, &problem["code"]), (400, &json!("invalid_request")), "{coding}");
        let mut cut = if coding == "gzip" { gzip(body) } else { zstd(body) };
        cut.truncate(cut.len() - 4);
        let (status, _, problem) = sent(&app, "/v1/jobs", JSON, coding, cut).await;
        assert_eq!(
            (status, &problem["code"]),
            (400, &json!("invalid_request")),
            "{coding}, cut"
        );
    }
    let (status, _, _) = sent(&app, "/v1/jobs", JSON, "identity", body.to_vec()).await;
    assert_eq!(status, 201);
    assert_eq!(app.get("/v1/jobs").await.1["items"].as_array().unwrap().len(), 1);
    app.stop().await;
}

async fn fm36_a_long_post_that_makes_no_sense_counts_nothing(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(3, json!({})).await;
    let tasks = app.lease(job, "w", 3).await;
    let large = format!("[{}1]", "1, ".repeat(500_000));
    let good = results(&tasks, &large);
    let open = good.strip_suffix("]}").unwrap();
    let lease = &tasks[0]["lease"];
    let path = format!("/v1/jobs/{job}/results");
    for (body, field, words) in [
        (
            format!("{open},{{\"lease\":{lease},\"status\":\"done\"}}]}}"),
            json!("results[3].status"),
            "begins at byte",
        ),
        (
            format!("{open},{{\"lease\":{lease},\"status\":\"failed\" 2}}]}}"),
            json!("results[3]"),
            "line 1 column",
        ),
        (format!("{open} 7]}}"), Value::Null, "expected `,` or `]` at byte"),
        (format!("{open}],\"more\":1}}"), json!("more"), "unknown field"),
        (
            format!("{open}],\"then_lease\":{{\"max_tasks\":-1}}}}"),
            json!("then_lease.max_tasks"),
            "line 1",
        ),
        (open.to_owned(), Value::Null, "inside results[2]"),
        (
            good.replacen("\"worker\":\"w\",", "", 1),
            json!("worker"),
            "missing field",
        ),
        (good.replacen("\"w\"", "\"\"", 1), json!("worker"), "must be"),
    ] {
        let (status, problem) = post(&app, &path, body).await;
        assert_eq!(
            (status, &problem["code"], &problem["field"]),
            (400, &json!("invalid_request"), &field)
        );
        assert!(
            problem["detail"].as_str().unwrap().contains(words),
            "{words}: {problem}"
        );
        let progress = &app.view(job).await["progress"];
        assert_eq!((&progress["succeeded"], &progress["leased"]), (&json!(0), &json!(3)));
    }
    let (status, posted) = post(&app, &path, good).await;
    assert_eq!((status, &posted["results"][2]["disposition"]), (200, &json!("counted")));
    app.stop().await;
}

async fn nothing_is_stored_for_a_job_that_is_not_there(place: Place) {
    let app = App::start(&place, quick()).await;
    let task = json!({"lease": "l1-3e7-1-0-1-1-1"});
    let body = results(std::slice::from_ref(&task), &format!("\"{}\"", "x".repeat(2 << 20)));
    let (status, problem) = post(&app, "/v1/jobs/999/results", body).await;
    assert_eq!((status, &problem["code"]), (404, &json!("not_found")));
    assert_eq!(app.coordinator.store().blob_piece(BlobId(1), 0).await.unwrap(), None);
    app.stop().await;
}

async fn post(app: &App, path: &str, body: String) -> (u16, Value) {
    let request = app.request("POST", path).header("content-type", JSON).body(body);
    let response = request.send().await.expect("the node answers");
    (
        response.status().as_u16(),
        response.json().await.expect("an answer is JSON"),
    )
}

#[actix_web::test]
async fn fm36_a_post_beyond_the_limit_is_told_the_limit() {
    let http = HttpSettings {
        workers: 1,
        body_max_bytes: 2 << 20,
        batch_items_max: 100,
        ..HttpSettings::default()
    };
    let app = App::start_with(&Place::sqlite(), quick(), http).await;
    let job = app.job(1, json!({})).await;
    let task = app.lease(job, "w", 1).await.remove(0);
    let path = format!("/v1/jobs/{job}/results");
    let large = format!("\"{}\"", "x".repeat(3 << 20));
    let body = results(std::slice::from_ref(&task), &large);
    let (status, problem) = post(&app, &path, body.clone()).await;
    assert_eq!((status, &problem["limit"]), (413, &json!(2 << 20)));
    // Without saying its length first.
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> = body
        .into_bytes()
        .chunks(1 << 16)
        .map(|piece| Ok(piece.to_vec()))
        .collect();
    let request = app.request("POST", &path).header("content-type", JSON);
    let stream = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let response = request.body(stream).send().await.expect("the node answers");
    assert_eq!(response.status(), 413);
    let most: Vec<Value> = vec![task.clone(); 101];
    let (status, problem) = post(&app, &path, results(&most, &format!("\"{}\"", "x".repeat(15_000)))).await;
    assert_eq!(
        (status, &problem["field"], &problem["limit"]),
        (400, &json!("results"), &json!("at most 100 items"))
    );
    assert_eq!(app.view(job).await["progress"]["leased"], 1);
    assert_eq!(app.report(job, "w", vec![success(&task)]).await, ["counted"]);
    app.stop().await;
}

#[actix_web::test]
async fn fm36_a_long_post_that_comes_too_slowly_is_given_up() {
    for (idle, total) in [(1, 300), (300, 1)] {
        let http = HttpSettings {
            workers: 1,
            body_idle_timeout_s: idle,
            body_total_timeout_s: total,
            ..HttpSettings::default()
        };
        let app = App::start_with(&Place::sqlite(), quick(), http).await;
        let job = app.job(1, json!({})).await;
        let host = app.url.strip_prefix("http://").unwrap();
        let head = format!(
            "POST /v1/jobs/{job}/results HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 2000000\r\n\r\n"
        );
        let answer = until_closed(raw(&app, &(head + "{\"worker\":\"w\",\"results\":[")).await).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        app.stop().await;
    }
}

#[actix_web::test]
async fn fm36_long_posts_beyond_the_budget_are_told_to_come_back() {
    let http = HttpSettings {
        workers: 1,
        body_max_bytes: 8 << 20,
        body_budget_bytes: 8 << 20,
        ..HttpSettings::default()
    };
    let app = App::start_with(&Place::sqlite(), quick(), http).await;
    let job = app.job(2, json!({})).await;
    let tasks = app.lease(job, "w", 2).await;
    let path = format!("/v1/jobs/{job}/results");
    let body = results(&tasks[..1], &format!("\"{}\"", "x".repeat(5 << 20)));
    let (begin, end) = body.split_at(3 << 20);
    let host = app.url.strip_prefix("http://").unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut holder = raw(&app, &format!("{head}{begin}")).await;
    let other = results(&tasks[1..], &format!("\"{}\"", "y".repeat(5 << 20)));
    // Its handler may not have begun yet: until it holds its share, a post to no job gets as far as being told so.
    while post(&app, "/v1/jobs/999/results", other.clone()).await.0 != 503 {}
    let request = app
        .request("POST", &path)
        .header("content-type", JSON)
        .body(other.clone());
    let busy = request.send().await.expect("the node answers");
    assert_eq!(
        (busy.status().as_u16(), busy.headers()["retry-after"].to_str().unwrap()),
        (503, "1")
    );
    assert_eq!(busy.json::<Value>().await.unwrap()["code"], "busy");
    tokio::io::AsyncWriteExt::write_all(&mut holder, end.as_bytes())
        .await
        .expect("the node reads on");
    app.until(job, |view| view["progress"]["succeeded"] == 1).await;
    drop(holder);
    let posted = loop {
        match post(&app, &path, other.clone()).await {
            (503, problem) => assert_eq!(problem["code"], "busy"),
            answer => break answer,
        }
    };
    assert_eq!((posted.0, &posted.1["job"]["state"]), (200, &json!("succeeded")));
    app.stop().await;
}

on_both_stores!(
    compressed_bodies_are_taken_on_every_route,
    fm36_a_long_post_that_makes_no_sense_counts_nothing,
    nothing_is_stored_for_a_job_that_is_not_there,
);
