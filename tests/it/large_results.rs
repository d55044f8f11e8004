//! Large results through a whole node, on both stores.
//!
//! Owns: what comes back of them, what is decided about them, and what is left of those that did not count. Never: measures. Invariant:
//! what was posted comes back byte for byte.

use crate::app::{App, PATIENCE, Place, failure, on_both_stores, quick, success};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tallykeeper::coordinator::Settings;
use tallykeeper::domain::ids::{BlobId, JobId, Run, UnixMs};
use tallykeeper::store::ResultFilter;

/// A JSON text of about so many bytes, with what a careless printer would change.
fn text(megabytes: usize) -> String {
    let line = r#"{"a" : 1.0, "b":[12345678901234567890,"é\u00e9\\\"{["], "a":null},"#;
    let mut text = String::from("[");
    while text.len() < megabytes << 20 {
        text += line;
    }
    text + " 0]"
}

/// A success with a result given as text.
fn item(task: &Value, result: &str) -> String {
    format!(
        "{{\"lease\":{},\"status\":\"succeeded\",\"result\":{result},\"counters\":{{\"n\":1}}}}",
        task["lease"]
    )
}

fn body(items: &[String]) -> String {
    format!("{{\"results\":[{}],\"worker\":\"w\"}}", items.join(", "))
}

/// Posts a body as it is; answers status and JSON.
async fn post(app: &App, job: i64, body: String) -> (u16, Value) {
    let request = app.request("POST", &format!("/v1/jobs/{job}/results"));
    let response = request.header("content-type", "application/json").body(body).send();
    let response = response.await.expect("the node answers");
    (
        response.status().as_u16(),
        response.json().await.expect("an answer is JSON"),
    )
}

fn dispositions(answer: &Value) -> Vec<&str> {
    let items = answer["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
    items.iter().map(|item| item["disposition"].as_str().unwrap()).collect()
}

async fn fetch(app: &App, path: &str, accept: &str) -> (u16, String) {
    let response = app
        .request("GET", path)
        .header("accept", accept)
        .send()
        .await
        .expect("an answer");
    (
        response.status().as_u16(),
        response.text().await.expect("the whole answer"),
    )
}

async fn result(app: &App, job: i64, task: u32) -> (u16, String) {
    fetch(app, &format!("/v1/jobs/{job}/tasks/{task}/result"), "application/json").await
}

/// The blobs that rows of this job refer to.
async fn blobs(app: &App, job: i64) -> Vec<BlobId> {
    let filter = ResultFilter {
        job: JobId(job),
        base_run: Run(1),
        run: Run(1),
        verdict: None,
        after: None,
        limit: 1000,
        max_bytes: usize::MAX,
    };
    let rows = app.coordinator.store().results(&filter).await.expect("results");
    rows.iter().filter_map(|row| row.blob.map(|blob| blob.id)).collect()
}

/// Waits until the first blobs up to this id have been removed, but for those that stay.
async fn gone(app: &App, upto: i64, stay: &[BlobId]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut left = Vec::new();
        for id in (1..=upto).map(BlobId) {
            if app.coordinator.store().blob_piece(id, 0).await.unwrap().is_some() {
                left.push(id);
            }
        }
        if left == stay {
            return;
        }
        assert!(Instant::now() < deadline, "{left:?} are left, {stay:?} should be");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn a_large_result_comes_back_verbatim(place: Place, megabytes: usize) {
    let app = App::start(&place, quick()).await;
    let job = app.job(1, json!({})).await;
    let task = app.lease(job, "w", 1).await.remove(0);
    let text = text(megabytes);
    let (status, answer) = post(&app, job, body(&[item(&task, &text)])).await;
    assert_eq!((status, dispositions(&answer)), (200, vec!["counted"]));
    assert!(
        result(&app, job, 0).await == (200, text.clone()),
        "the result is another"
    );
    let (_, lines) = fetch(&app, &format!("/v1/jobs/{job}/results"), "application/x-ndjson").await;
    assert!(lines.contains(&text) && lines.ends_with("}\n"), "the line is another");
    let (_, page) = fetch(&app, &format!("/v1/jobs/{job}/results"), "application/json").await;
    assert!(page.contains(&text) && page.ends_with("}],\"next_cursor\":null}"));
    let view = app.view(job).await;
    assert_eq!(
        (&view["state"], &view["progress"]["counters"]["n"]),
        (&json!("succeeded"), &json!(1))
    );
    app.stop().await;
}

async fn twenty_megabytes_come_back_verbatim(place: Place) {
    a_large_result_comes_back_verbatim(place, 20).await;
}

async fn a_hundred_megabytes_come_back_verbatim(place: Place) {
    a_large_result_comes_back_verbatim(place, 100).await;
}

async fn fm33_large_and_small_share_a_post_and_a_bad_one_fails_alone(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(7, json!({"policy": {"max_attempts": 1}})).await;
    let tasks = app.lease(job, "w", 6).await;
    let (large, deep) = (text(1), "[".repeat(200_000) + &"]".repeat(200_000));
    let items = [
        item(&tasks[0], &large),
        success(&tasks[1]).to_string(),
        item(&tasks[2], &deep),
        failure(&tasks[3]).to_string(),
        item(&tasks[4], &large),
        item(&tasks[0], &large),
        format!(r#"{{"lease":"no lease","status":"succeeded","result":{large}}}"#),
        item(&tasks[5], r#""a\u0000b""#),
    ];
    let body = format!(
        "{{\"then_lease\":{{\"max_tasks\":1}},\"results\":[{}],\"worker\":\"w\"}}",
        items.join(",")
    );
    let (status, answer) = post(&app, job, body).await;
    assert_eq!(status, 200, "{answer}");
    let expected = [
        "counted",
        "counted",
        "rejected",
        "counted",
        "counted",
        "duplicate",
        "rejected",
        "counted",
    ];
    assert_eq!(dispositions(&answer), expected);
    assert_eq!(answer["tasks"].as_array().map(Vec::len), Some(1));
    assert_eq!(result(&app, job, 1).await, (200, r#"{"of":1}"#.into()));
    assert_eq!(result(&app, job, 5).await, (200, r#""a\ufffdb""#.into()));
    assert!(result(&app, job, 4).await.1 == large);
    for undecided in [2, 3, 6, 7] {
        let (status, problem) = result(&app, job, undecided).await;
        assert_eq!(status, 404, "{undecided}: {problem}");
    }
    // What did not count is removed without waiting for its age.
    let stay = blobs(&app, job).await;
    assert_eq!(stay.len(), 2);
    gone(&app, 4, &stay).await;
    app.stop().await;
}

async fn fm16_fm23_a_large_result_again_or_late_is_kept_once(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(3, json!({})).await;
    let tasks = app.lease(job, "w", 3).await;
    let large = text(2);
    for expected in ["counted", "duplicate", "duplicate"] {
        let (_, answer) = post(&app, job, body(&[item(&tasks[0], &large)])).await;
        assert_eq!(dispositions(&answer), [expected]);
    }
    app.control(job, "cancel", json!({})).await;
    let late = text(1);
    for _ in 0..2 {
        let (_, answer) = post(&app, job, body(&[item(&tasks[1], &late)])).await;
        assert_eq!(dispositions(&answer), ["late"]);
    }
    assert!(result(&app, job, 0).await.1 == large);
    assert!(result(&app, job, 1).await.1 == late);
    let stay = blobs(&app, job).await;
    assert_eq!(stay.len(), 2, "one of each");
    gone(&app, 5, &stay).await;
    let (status, _) = app.call("DELETE", &format!("/v1/jobs/{job}"), Value::Null).await;
    assert_eq!(status, 204);
    gone(&app, 5, &[]).await;
    app.stop().await;
}

async fn fm36_a_lease_does_not_expire_while_its_result_is_uploaded(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app
        .job(2, json!({"policy": {"lease_timeout_s": 1, "max_attempts": 1}}))
        .await;
    let tasks = app.lease(job, "w", 2).await;
    let whole = body(&[item(&tasks[0], &text(2))]);
    let (first, last) = whole.split_at(whole.len() - 10);
    let (first, last) = (first.to_owned(), last.to_owned());
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let pieces = futures_util::stream::once(async move { Ok::<_, std::io::Error>(first) });
    let rest = futures_util::stream::once(async move {
        let _ = gone.await;
        Ok(last)
    });
    let request = app
        .request("POST", &format!("/v1/jobs/{job}/results"))
        .header("content-type", "application/json")
        .header("content-length", whole.len())
        .body(reqwest::Body::wrap_stream(futures_util::StreamExt::chain(pieces, rest)));
    let posting = tokio::spawn(request.send());
    // The other task's lease, granted by the same call, runs out: so would this one's have.
    let view = app.until(job, |view| view["progress"]["failed"] == 1).await;
    assert_eq!(view["progress"]["leased"], 1, "{view}");
    go.send(()).expect("the upload waits");
    let answer: Value = posting.await.unwrap().expect("an answer").json().await.unwrap();
    assert_eq!(dispositions(&answer), ["counted"]);
    assert_eq!(app.view(job).await["state"], "partially_succeeded");
    app.stop().await;
}

async fn fm36_an_upload_that_breaks_off_lets_its_lease_expire_and_leaves_nothing(place: Place) {
    let settings = Settings {
        orphan_blob_age: Duration::from_secs(1),
        ..quick()
    };
    let app = App::start(&place, settings).await;
    let job = app
        .job(1, json!({"policy": {"lease_timeout_s": 1, "max_attempts": 1}}))
        .await;
    let task = app.lease(job, "w", 1).await.remove(0);
    let whole = body(&[item(&task, &text(1)), item(&task, &text(1))]);
    let host = app.url.strip_prefix("http://").unwrap();
    let head = format!(
        "POST /v1/jobs/{job}/results HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        whole.len()
    );
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    let sent = format!("{head}{}", &whole[..whole.len() - 100]);
    tokio::io::AsyncWriteExt::write_all(&mut stream, sent.as_bytes())
        .await
        .unwrap();
    // The first result is stored, the second is not whole.
    let deadline = Instant::now() + PATIENCE;
    while app
        .coordinator
        .store()
        .blob_piece(BlobId(1), 3)
        .await
        .unwrap()
        .is_none()
    {
        assert!(Instant::now() < deadline, "the first result is not stored");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(stream);
    let view = app.until(job, |view| view["state"] == "failed").await;
    assert_eq!(view["progress"]["failed"], 1);
    gone(&app, 2, &[]).await;
    app.stop().await;
}

/// An orphan from before, as a crash leaves one.
async fn fm36_the_sweep_takes_what_a_crash_left(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(1, json!({})).await;
    let store = app.coordinator.store();
    let orphan = store.open_blob(JobId(job), 1, UnixMs(1)).await.unwrap();
    store.write_piece(orphan, 0, "1").await.unwrap();
    app.stop().await;
    let app = App::start(&place, quick()).await;
    gone(&app, orphan.0, &[]).await;
    app.stop().await;
}

async fn pages_end_before_a_large_result_and_lines_hold_every_one(place: Place) {
    let http = tallykeeper::http::HttpSettings {
        workers: 1,
        result_page_max_bytes: 100 << 10,
        ..Default::default()
    };
    let app = App::start_with(&place, quick(), http).await;
    let job = app.job(4, json!({})).await;
    let tasks = app.lease(job, "w", 4).await;
    let large = text(1);
    let items = [
        item(&tasks[0], "1"),
        item(&tasks[1], &large),
        item(&tasks[2], "2"),
        item(&tasks[3], "3"),
    ];
    assert_eq!(post(&app, job, body(&items)).await.0, 200);
    let (mut path, mut pages) = (format!("/v1/jobs/{job}/results"), Vec::new());
    loop {
        let (status, page) = app.get(&path).await;
        assert_eq!(status, 200);
        let of = |item: &Value| item["task"].as_u64().unwrap();
        pages.push(page["items"].as_array().unwrap().iter().map(of).collect::<Vec<_>>());
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/jobs/{job}/results?cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(pages, [vec![0], vec![1], vec![2, 3]]);
    let (_, lines) = fetch(&app, &format!("/v1/jobs/{job}/results"), "application/x-ndjson").await;
    let read: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line is JSON"))
        .collect();
    let tasks: Vec<u64> = read.iter().map(|line| line["task"].as_u64().unwrap()).collect();
    assert_eq!(tasks, [0, 1, 2, 3]);
    assert!(lines.lines().nth(1).unwrap().contains(&large));
    assert_eq!(read[1]["counters"], json!({"n": 1}));
    app.stop().await;
}

on_both_stores!(
    twenty_megabytes_come_back_verbatim,
    a_hundred_megabytes_come_back_verbatim,
    fm33_large_and_small_share_a_post_and_a_bad_one_fails_alone,
    fm16_fm23_a_large_result_again_or_late_is_kept_once,
    fm36_a_lease_does_not_expire_while_its_result_is_uploaded,
    fm36_an_upload_that_breaks_off_lets_its_lease_expire_and_leaves_nothing,
    fm36_the_sweep_takes_what_a_crash_left,
    pages_end_before_a_large_result_and_lines_hold_every_one,
);
