//! Watching one job: what a reader sees, from the snapshot to the end.
//!
//! Owns: the order and the truth of a stream's messages. Never: looks into the node. Invariant: a reader's numbers are those of the API.

use crate::app::{App, Place, assert_sums, quick, success};
use crate::http_call::send;
use crate::stream_client::{Events, Heard, Socket, progress};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::time::Instant;
use tallykeeper::http::HttpSettings;

/// Works on a job until nothing is left, so many tasks at a time.
async fn work(app: &App, job: i64, at_once: usize) {
    loop {
        let tasks = app.lease(job, "w", at_once).await;
        if tasks.is_empty() {
            return;
        }
        app.report(job, "w", tasks.iter().map(success).collect()).await;
    }
}

/// Checks what holds for the messages of every stream of one job; answers the last.
fn check(job: i64, messages: &[Value]) -> &Value {
    let mut seq = 0;
    for (i, message) in messages.iter().enumerate() {
        let is_last = i + 1 == messages.len();
        assert_eq!(message["id"], job, "{message}");
        assert_eq!(message["type"] == "final", is_last, "{message}");
        assert_eq!(message["type"] == "snapshot", i == 0 && !is_last, "{message}");
        let now = message["seq"].as_i64().expect("every message has a seq");
        assert!(now >= seq, "{now} after {seq}");
        assert_eq!(progress(message)["seq"], now);
        assert_sums(progress(message));
        seq = now;
    }
    messages.last().expect("there is a message")
}

async fn a_reader_sees_a_snapshot_then_progress_then_the_end(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(30, json!({"stages": [{"key": "s", "name": "S"}]})).await;
    let path = format!("/v1/jobs/{job}/progress");
    let (mut socket, mut events) = (Socket::open(&app, &path).await, Events::open(&app, &path).await);
    let first = socket.message().await;
    assert_eq!(first["job"], app.view(job).await);
    let mut by_events = vec![events.message().await.expect("a snapshot")];
    assert_eq!(by_events[0], first);
    work(&app, job, 3).await;
    let (rest, code) = socket.rest().await;
    assert_eq!(code, 1000);
    let messages: Vec<Value> = std::iter::once(first).chain(rest).collect();
    let last = check(job, &messages);
    while let Some(message) = events.message().await {
        by_events.push(message);
    }
    assert_eq!(check(job, &by_events), last);
    assert_eq!(last["job"], app.view(job).await);
    assert_eq!(last["job"]["state"], "succeeded");
    app.stop().await;
}

mod sqlite {
    #[actix_web::test]
    async fn a_reader_sees_a_snapshot_then_progress_then_the_end() {
        super::a_reader_sees_a_snapshot_then_progress_then_the_end(crate::app::Place::sqlite()).await;
    }
}

mod postgres {
    #[actix_web::test]
    async fn a_reader_sees_a_snapshot_then_progress_then_the_end() {
        super::a_reader_sees_a_snapshot_then_progress_then_the_end(crate::app::Place::postgres().await).await;
    }
}

#[actix_web::test]
async fn every_change_of_state_is_a_message_with_the_whole_job() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = app.job(2, json!({"start": false})).await;
    let mut socket = Socket::open(&app, &format!("/v1/jobs/{job}/progress?rate_hz=0.1")).await;
    assert_eq!(socket.message().await["job"]["state"], "pending");
    for (verb, state) in [("start", "running"), ("pause", "paused"), ("resume", "running")] {
        app.post(&format!("/v1/jobs/{job}/{verb}"), Value::Null).await;
        let message = socket.message().await;
        assert_eq!((&message["type"], &message["state"]), (&json!("state"), &json!(state)));
        assert_eq!((&message["run"], &message["job"]["state"]), (&json!(1), &json!(state)));
    }
    app.post(&format!("/v1/jobs/{job}/cancel"), Value::Null).await;
    let (rest, code) = socket.rest().await;
    assert_eq!((rest.len(), code), (1, 1000));
    assert_eq!(
        (&rest[0]["type"], &rest[0]["job"]["state"]),
        (&json!("final"), &json!("canceled"))
    );
    app.stop().await;
}

#[actix_web::test]
async fn leases_are_seen_though_they_are_no_commits() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = app.job(9, json!({})).await;
    let mut socket = Socket::open(&app, &format!("/v1/jobs/{job}/progress")).await;
    assert_eq!(progress(&socket.message().await)["leased"], 0);
    app.lease(job, "w", 4).await;
    let seen = socket.until(|message| progress(message)["leased"] != 0).await;
    assert_eq!(progress(&seen)["leased"], 4);
    app.stop().await;
}

#[actix_web::test]
async fn a_job_that_is_final_says_so_at_once() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = app.job(1, json!({})).await;
    work(&app, job, 1).await;
    let path = format!("/v1/jobs/{job}/progress");
    let (messages, code) = Socket::open(&app, &path).await.rest().await;
    assert_eq!((messages.len(), code), (1, 1000));
    assert_eq!(check(job, &messages)["job"], app.view(job).await);
    let mut events = Events::open(&app, &path).await;
    assert_eq!(events.message().await.as_ref(), messages.first());
    assert_eq!(events.message().await, None);
    // A browser comes back to a stream that ended, saying what it saw last; nothing else stops it.
    let headers = [("accept", "text/event-stream"), ("last-event-id", "final")];
    assert_eq!(send(&app.url, "GET", &path, &headers, "").await.status, 204);
    app.post(&format!("/v1/jobs/{job}/retry"), json!({"only": "all"})).await;
    let mut events = Events::open(&app, &path).await;
    assert_eq!(events.message().await.expect("a snapshot")["job"]["run"], 2);
    app.stop().await;
}

#[actix_web::test]
async fn the_end_reaches_each_of_a_hundred_readers() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = app.job(50, json!({})).await;
    let path = format!("/v1/jobs/{job}/progress");
    let mut sockets = join_all((0..100).map(|_| Socket::open(&app, &path))).await;
    for socket in &mut sockets {
        assert_eq!(socket.message().await["type"], "snapshot");
    }
    work(&app, job, 10).await;
    let expected = app.view(job).await;
    for socket in &mut sockets {
        let (messages, code) = socket.rest().await;
        let last = messages.last().expect("there is an end");
        assert_eq!((&last["type"], code), (&json!("final"), 1000));
        assert_eq!(last["job"], expected);
    }
    app.stop().await;
}

#[actix_web::test]
async fn a_drained_node_sends_its_readers_away_and_they_miss_nothing() {
    let place = Place::sqlite();
    let app = App::start(&place, quick()).await;
    let job = app.job(40, json!({})).await;
    let path = format!("/v1/jobs/{job}/progress");
    let mut sockets = join_all((0..20).map(|_| Socket::open(&app, &path))).await;
    let mut events = Events::open(&app, &path).await;
    let tasks = app.lease(job, "w", 7).await;
    app.report(job, "w", tasks.iter().map(success).collect()).await;
    let mut seqs = Vec::new();
    let reading = async {
        for socket in &mut sockets {
            let (messages, code) = socket.rest().await;
            assert_eq!(code, 1012);
            let last = messages.last().expect("there was a snapshot");
            assert_ne!(last["type"], "final");
            seqs.push(last["seq"].as_i64().expect("a seq"));
        }
        while events.message().await.is_some() {}
    };
    tokio::join!(app.stop(), reading);
    let app = App::start(&place, quick()).await;
    let mut sockets = join_all((0..20).map(|_| Socket::open(&app, &path))).await;
    for (socket, seq) in sockets.iter_mut().zip(seqs) {
        let snapshot = socket.message().await;
        assert_eq!(snapshot["type"], "snapshot");
        assert_eq!(progress(&snapshot)["succeeded"], 7);
        assert!(snapshot["seq"].as_i64().expect("a seq") >= seq);
    }
    work(&app, job, 40).await;
    for socket in &mut sockets {
        let (messages, code) = socket.rest().await;
        assert_eq!(code, 1000);
        assert_eq!(messages.last().expect("there is an end")["job"]["state"], "succeeded");
    }
    app.stop().await;
}

#[actix_web::test]
async fn the_rate_that_was_asked_for_is_not_exceeded() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = app.job(400, json!({})).await;
    let path = format!("/v1/jobs/{job}/progress");
    let started = Instant::now();
    let (mut slow, mut fast) = (
        Socket::open(&app, &format!("{path}?rate_hz=2")).await,
        Socket::open(&app, &format!("{path}?rate_hz=1000")).await,
    );
    work(&app, job, 2).await;
    let (slow, fast) = (slow.rest().await.0, fast.rest().await.0);
    let elapsed_s = started.elapsed().as_secs_f64();
    let progressed = |messages: &[Value]| messages.iter().filter(|message| message["type"] == "progress").count();
    assert!(
        progressed(&slow) as f64 <= 2.0 * elapsed_s + 1.0,
        "{} in {elapsed_s} s",
        slow.len()
    );
    assert!(
        progressed(&fast) as f64 <= 10.0 * elapsed_s + 1.0,
        "{} in {elapsed_s} s",
        fast.len()
    );
    assert!(progressed(&fast) > 0, "some progress was seen");
    check(job, &slow);
    check(job, &fast);
    app.stop().await;
}

#[actix_web::test]
async fn a_reader_who_was_away_goes_on_with_the_newest() {
    let app = App::start(&Place::sqlite(), quick()).await;
    // Names as long as they may be: a message is larger than what may be on its way unread.
    let stages: Vec<Value> = (0..64)
        .map(|i| json!({"key": format!("{i:0>256}"), "name": "n".repeat(256)}))
        .collect();
    let labels: Value = (0..64)
        .map(|i| (format!("{i:0>256}"), json!("v".repeat(256))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let job = app.job(12, json!({"stages": stages, "labels": labels})).await;
    let path = format!("/v1/jobs/{job}/progress");
    let (mut away, mut present) = (Socket::open(&app, &path).await, Socket::open(&app, &path).await);
    let mut decided = 0;
    for task in app.lease(job, "w", 11).await {
        app.report(job, "w", vec![success(&task)]).await;
        decided += 1;
        present.until(|message| progress(message)["succeeded"] == decided).await;
    }
    let mut seen = Vec::new();
    loop {
        let message = away.message().await;
        seen.push(progress(&message)["succeeded"].as_u64().expect("a number"));
        if seen.last() == Some(&11) {
            break;
        }
    }
    assert!(seen.len() <= 5, "the past was sent as well: {seen:?}");
    work(&app, job, 1).await;
    assert_eq!(away.rest().await.0.last().expect("an end")["type"], "final");
    app.stop().await;
}

#[actix_web::test]
async fn a_request_for_neither_transport_is_told_which_there_are() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = app.job(1, json!({})).await;
    for path in [format!("/v1/jobs/{job}/progress"), "/v1/progress".into()] {
        let plain = send(&app.url, "GET", &path, &[], "").await;
        assert_eq!((plain.status, plain.code()), (426, json!("upgrade_required")));
        assert_eq!(plain.header("upgrade"), "websocket");
        let headers = [
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
        ];
        let keyless = send(&app.url, "GET", &path, &headers, "").await;
        assert_eq!((keyless.status, keyless.code()), (400, json!("invalid_request")));
        for bad in ["rate_hz=x", "rate_hz=NaN", "speed=1"] {
            let headers = [("accept", "text/event-stream")];
            let refused = send(&app.url, "GET", &format!("{path}?{bad}"), &headers, "").await;
            assert_eq!(refused.status, 400, "{bad}");
        }
    }
    let absent = Socket::try_open(&app, "/v1/jobs/999/progress", &[]).await;
    assert_eq!(absent.err().expect("there is no such job").0, 404);
    app.stop().await;
}

#[actix_web::test]
async fn what_a_reader_says_is_ignored_within_bounds() {
    use tokio_tungstenite::tungstenite::Message;
    let http = HttpSettings {
        workers: 2,
        ..HttpSettings::default()
    };
    let app = App::start_with(&Place::sqlite(), quick(), http).await;
    let job = app.job(1, json!({})).await;
    let path = format!("/v1/jobs/{job}/progress");
    let mut socket = Socket::open(&app, &path).await;
    socket.message().await;
    socket.say(Message::Text("hello".into())).await;
    socket.say(Message::Ping(vec![7, 8].into())).await;
    loop {
        match socket.hear().await {
            Heard::Pong(bytes) => break assert_eq!(bytes, [7, 8]),
            Heard::Message(_) => {}
            other => panic!("{other:?}"),
        }
    }
    socket.say(Message::Binary(vec![0; 1 << 20].into())).await;
    assert_eq!(socket.rest().await.1, 1009);
    let mut socket = Socket::open(&app, &path).await;
    socket.say(Message::Close(None)).await;
    while !matches!(socket.hear().await, Heard::Closed(_) | Heard::Lost) {}
    app.stop().await;
}
