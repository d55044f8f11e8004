//! Watching many jobs in one stream.
//!
//! Owns: which jobs are shown, and when they come and go. Never: looks into the node. Invariant: what a reader was shown, minus what it was
//! told is gone, is what the list says.

use crate::app::{App, Place, assert_sums, quick, success};
use crate::stream_client::{Socket, progress};
use serde_json::{Value, json};
use tallykeeper::http::HttpSettings;

/// The messages up to `listed`, which comes along.
async fn listed(socket: &mut Socket) -> (Vec<Value>, Value) {
    let mut shown = Vec::new();
    loop {
        let message = socket.message().await;
        if message["type"] == "listed" {
            return (shown, message);
        }
        assert_eq!(message["type"], "snapshot", "{message}");
        shown.push(message);
    }
}

fn ids(messages: &[Value]) -> Vec<i64> {
    messages.iter().filter_map(|message| message["id"].as_i64()).collect()
}

async fn finish(app: &App, job: i64) {
    let tasks = app.lease(job, "w", 100).await;
    app.report(job, "w", tasks.iter().map(success).collect()).await;
}

#[actix_web::test]
async fn jobs_come_change_and_end_in_one_stream() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let done = app.job(1, json!({})).await;
    finish(&app, done).await;
    let old = app.job(5, json!({})).await;
    let mut socket = Socket::open(&app, "/v1/progress").await;
    let (shown, end) = listed(&mut socket).await;
    assert_eq!(ids(&shown), [old, done]);
    assert_eq!(end, json!({"type": "listed", "jobs": 2, "more": false}));
    for message in &shown {
        let job = message["id"].as_i64().expect("an id");
        assert_eq!(message["job"], app.view(job).await);
    }
    let new = app.job(2, json!({})).await;
    let came = socket.until(|message| message["id"] == new).await;
    assert_eq!(
        (&came["type"], &came["job"]["name"]),
        (&json!("snapshot"), &json!("test"))
    );
    app.lease(old, "w", 2).await;
    let moved = socket.until(|message| message["id"] == old).await;
    assert_eq!(
        (&moved["type"], &progress(&moved)["leased"]),
        (&json!("progress"), &json!(2))
    );
    finish(&app, new).await;
    let ended = socket
        .until(|message| message["id"] == new && message["type"] == "final")
        .await;
    assert_eq!(ended["job"], app.view(new).await);
    // An end is not the end: the job may run again.
    app.post(&format!("/v1/jobs/{done}/retry"), json!({"only": "all"}))
        .await;
    let again = socket.until(|message| message["id"] == done).await;
    assert_eq!((&again["type"], &again["run"]), (&json!("state"), &json!(2)));
    app.lease(done, "w", 1).await;
    let leased = socket
        .until(|message| message["id"] == done && progress(message)["leased"] == 1)
        .await;
    assert_sums(progress(&leased));
    let stopping = async { assert_eq!(socket.rest().await.1, 1012) };
    tokio::join!(app.stop(), stopping);
}

#[actix_web::test]
async fn a_deleted_job_is_gone() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let (kept, job) = (app.job(1, json!({})).await, app.job(1, json!({})).await);
    finish(&app, job).await;
    let mut all = Socket::open(&app, "/v1/progress").await;
    let mut others = Socket::open(&app, "/v1/progress?state=running").await;
    assert_eq!(ids(&listed(&mut all).await.0), [job, kept]);
    assert_eq!(ids(&listed(&mut others).await.0), [kept]);
    let deleted = app.call("DELETE", &format!("/v1/jobs/{job}"), Value::Null).await;
    assert_eq!(deleted.0, 204);
    let gone = all.message().await;
    assert_eq!((&gone["id"], &gone["type"]), (&json!(job), &json!("gone")));
    // Who was not shown it hears nothing of it.
    finish(&app, kept).await;
    let next = others.until(|message| message["type"] != "progress").await;
    assert_eq!(next["id"], kept, "{next}");
    let stopping = async { assert_eq!(all.rest().await.1, 1012) };
    tokio::join!(app.stop(), stopping);
}

#[actix_web::test]
async fn a_job_that_no_longer_matches_is_gone() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let labels = json!({"team": "red"});
    let job = app.job(3, json!({"labels": labels})).await;
    app.job(3, json!({"labels": {"team": "blue"}})).await;
    app.job(3, json!({"queue": "other", "labels": labels})).await;
    let waiting = app.job(3, json!({"start": false, "labels": labels})).await;
    let mut socket = Socket::open(&app, "/v1/progress?queue=q&state=running&label=team%3Dred").await;
    let (shown, _) = listed(&mut socket).await;
    assert_eq!(ids(&shown), [job]);
    app.post(&format!("/v1/jobs/{waiting}/start"), Value::Null).await;
    let came = socket.message().await;
    assert_eq!((&came["id"], &came["type"]), (&json!(waiting), &json!("snapshot")));
    app.post(&format!("/v1/jobs/{job}/pause"), Value::Null).await;
    let paused = socket.message().await;
    assert_eq!(
        (&paused["id"], &paused["type"], &paused["state"]),
        (&json!(job), &json!("state"), &json!("paused"))
    );
    let gone = socket.message().await;
    assert_eq!((&gone["id"], &gone["type"]), (&json!(job), &json!("gone")));
    app.post(&format!("/v1/jobs/{job}/resume"), Value::Null).await;
    let back = socket.message().await;
    assert_eq!((&back["id"], &back["type"]), (&json!(job), &json!("snapshot")));
    finish(&app, job).await;
    let ended = socket.until(|message| message["type"] == "final").await;
    assert_eq!(ended["id"], job);
    assert_eq!(socket.message().await["type"], "gone");
    app.stop().await;
}

#[actix_web::test]
async fn a_stream_shows_so_many_jobs_and_the_newest_of_them() {
    let http = HttpSettings {
        workers: 2,
        stream_jobs_max: 2,
        ..HttpSettings::default()
    };
    let app = App::start_with(&Place::sqlite(), quick(), http).await;
    let (_, second, third) = (
        app.job(1, json!({})).await,
        app.job(1, json!({})).await,
        app.job(1, json!({})).await,
    );
    let mut socket = Socket::open(&app, "/v1/progress").await;
    let (shown, end) = listed(&mut socket).await;
    assert_eq!(ids(&shown), [third, second]);
    assert_eq!(end, json!({"type": "listed", "jobs": 2, "more": true}));
    let fourth = app.job(1, json!({})).await;
    let gone = socket.until(|message| message["type"] == "gone").await;
    assert_eq!(gone["id"], second);
    socket.until(|message| message["id"] == fourth).await;
    app.stop().await;
}
