//! How much readers may cost.
//!
//! Owns: the bounds on their number, their silence and their memory. Never: measures time but to compare. Invariant: readers never stop a
//! job.

use crate::app::{App, Place, quick, success};
use crate::http_call::{raw, send, until_closed};
use crate::stream_client::Socket;
use futures_util::future::join_all;
use serde_json::json;
use tallykeeper::coordinator::Settings;
use tallykeeper::http::HttpSettings;
use tokio::io::AsyncReadExt;

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number.expect("a size").trim().parse().expect("a number")
}

fn handshake(job: i64) -> String {
    format!(
        "GET /v1/jobs/{job}/progress HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n"
    )
}

async fn work(app: &App, job: i64) {
    loop {
        let tasks = app.lease(job, "w", 20).await;
        if tasks.is_empty() {
            return;
        }
        app.report(job, "w", tasks.iter().map(success).collect()).await;
    }
}

#[actix_web::test]
async fn two_hundred_readers_who_never_read_cost_next_to_nothing() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let labels = json!({"a": "b".repeat(200)});
    let warm_up = app.job(1_000, json!({"labels": labels})).await;
    work(&app, warm_up).await;
    let job = app.job(3_000, json!({"labels": labels})).await;
    let handshake = handshake(job);
    let mut connections = join_all((0..200).map(|_| raw(&app, &handshake))).await;
    for connection in &mut connections {
        let mut first = [0; 12];
        connection.read_exact(&mut first).await.expect("the node answers");
        assert_eq!(&first, b"HTTP/1.1 101");
    }
    let before_kib = resident_kib();
    work(&app, job).await;
    assert_eq!(app.view(job).await["state"], "succeeded");
    let grown_kib = resident_kib().saturating_sub(before_kib);
    assert!(grown_kib < 32 << 10, "memory grew by {grown_kib} KiB");
    drop(connections);
    app.stop().await;
}

#[actix_web::test]
async fn one_reader_too_many_is_told_to_come_back() {
    let settings = Settings {
        streams_max: 2,
        ..quick()
    };
    let app = App::start(&Place::sqlite(), settings).await;
    let job = app.job(1, json!({})).await;
    let path = format!("/v1/jobs/{job}/progress");
    let mut first = Socket::open(&app, &path).await;
    let _second = Socket::open(&app, "/v1/progress").await;
    let (status, problem) = Socket::try_open(&app, &path, &[])
        .await
        .err()
        .expect("no place is left");
    assert_eq!((status, &problem["code"]), (503, &json!("busy")));
    let refused = send(&app.url, "GET", &path, &[("accept", "text/event-stream")], "").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
    first.message().await;
    drop(first);
    // The node finds out as soon as it looks at the connection.
    while Socket::try_open(&app, &path, &[]).await.is_err() {
        tokio::task::yield_now().await;
    }
    app.stop().await;
}

#[actix_web::test]
async fn a_socket_that_answers_no_ping_is_given_up() {
    let http = HttpSettings {
        workers: 2,
        stream_ping_ms: 200,
        ..HttpSettings::default()
    };
    let app = App::start_with(&Place::sqlite(), quick(), http).await;
    let job = app.job(1, json!({})).await;
    let mut answering = Socket::open(&app, &format!("/v1/jobs/{job}/progress")).await;
    let silent = raw(&app, &handshake(job)).await;
    let until_given_up = async {
        let said = until_closed(silent).await;
        assert!(said.contains("101 Switching Protocols") && said.contains("snapshot"));
        assert!(said.contains("does not keep up"), "{said}");
        work(&app, job).await;
    };
    // The other one answers while it listens, and is there to the end.
    tokio::join!(until_given_up, async { assert_eq!(answering.rest().await.1, 1000) });
    app.stop().await;
}
