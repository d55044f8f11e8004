//! Bodies over `/api/v2` that are long, or take long to come.
//!
//! Owns: what the node bears of them, where a client that never repeats a POST would lose what it carries. Never: looks at what results do.
//! Invariant: who is told to wait waits, and who need not is not kept waiting.

use crate::antenna_client::{Worker, success};
use crate::app::{App, PATIENCE, Place, on_both_stores, quick};
use crate::cluster::{connect, somebody_waits};
use crate::http_call::{raw, send, until_closed};
use crate::large_bodies::{gzip, zstd};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tallykeeper::http::HttpSettings;
use tokio::io::AsyncWriteExt as _;

on_both_stores!(
    a_pipeline_is_registered_with_its_whole_category_map,
    a_long_post_is_refused_as_a_short_one_is_and_what_nobody_knows_is_ignored,
);

/// A post of results for these tasks, each of about so many bytes.
fn results(tasks: &[Value], bytes: usize) -> String {
    let filling = "x".repeat(bytes);
    let item = |task: &Value| {
        format!(
            r#"{{"reply_subject":{},"result":{{"source_images":[{{"id":{}}}],"detections":[],"filling":"{filling}"}}}}"#,
            task["reply_subject"], task["image_id"]
        )
    };
    let items: Vec<String> = tasks.iter().map(item).collect();
    format!(r#"{{"results":[{}]}}"#, items.join(","))
}

/// The head of a post of so many bytes, after which the connection is closed.
fn head(job: i64, bytes: usize) -> String {
    format!(
        "POST /api/v2/jobs/{job}/result/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n"
    )
}

async fn a_pipeline_is_registered_with_its_whole_category_map(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let data: Vec<Value> = (0..29_176)
        .map(|n| json!({"index": n, "gbif_key": 1_000_000 + n, "label": format!("Genus species-{n}"), "source": null}))
        .collect();
    let labels: Vec<String> = (0..29_176).map(|n| format!("Genus species-{n}")).collect();
    let algorithm = json!({"key": "classifier", "category_map": {"data": data, "labels": labels}});
    let pipeline = |slug: &str| json!({"name": slug, "slug": slug, "version": 1, "algorithms": [algorithm]});
    let body = json!({"processing_service_name": "gpus", "pipelines": [pipeline("moths"), pipeline("bees")]});
    assert!(body.to_string().len() > 4 << 20);
    let (status, answer) = worker.call("POST", "/projects/1/pipelines/", body.clone()).await;
    assert_eq!(
        (status, &answer["pipelines_created"]),
        (201, &json!(["moths", "bees"])),
        "{answer}"
    );
    let (status, answer) = worker.call("POST", "/projects/1/pipelines/", body).await;
    assert_eq!(
        (status, &answer["pipelines_updated"]),
        (201, &json!(["moths", "bees"])),
        "{answer}"
    );
    app.stop().await;
}

#[actix_web::test]
async fn a_post_that_takes_longer_to_come_than_it_may_wait_still_waits_for_the_store() {
    let wait = Duration::from_secs(3);
    let http = HttpSettings {
        workers: 1,
        antenna_post_wait_ms: wait.as_millis() as u64,
        ..HttpSettings::default()
    };
    let place = Place::postgres().await;
    let Place::Postgres(url) = &place else { unreachable!() };
    let app = App::start_with(&place, quick(), http).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 0..2, json!({})).await;
    let body = results(&worker.tasks(job, 2).await, 2 << 20);
    let (begin, end) = body.split_at(body.len() / 2);
    let (middle, end) = end.split_at(end.len() - 10);
    let mut slow = raw(&app, &(head(job, body.len()) + begin)).await;
    tokio::time::sleep(wait + Duration::from_millis(100)).await;
    // Pieces of what has come are held up, and so is the commit of it all.
    let db = connect(url).await;
    for (table, part) in [("blob_pieces", middle), ("outcomes", end)] {
        db.batch_execute(&format!("BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE"))
            .await
            .unwrap();
        slow.write_all(part.as_bytes()).await.expect("the node reads on");
        somebody_waits(&db).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        db.batch_execute("ROLLBACK").await.unwrap();
    }
    let answer = until_closed(slow).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(app.view(job).await["state"], "succeeded");
    app.stop().await;
}

/// A worker's GPU box is slow, and so is its network: bodies of which nobody can say how long they get are under way side by side, more of
/// them than the node has room for.
#[actix_web::test]
async fn fm36_antenna_bodies_of_unknown_length_wait_for_room() {
    let http = HttpSettings {
        workers: 2,
        body_max_bytes: 16 << 20,
        body_budget_bytes: 40 << 20,
        antenna_post_wait_ms: 60_000,
        body_idle_timeout_s: 120,
        ..HttpSettings::default()
    };
    let app = App::start_with(&Place::sqlite(), quick(), http).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 0..12, json!({})).await;
    let tasks = worker.tasks(job, 12).await;
    let mut open = Vec::new();
    for (n, task) in tasks.iter().enumerate() {
        // Small enough to lie in the connection's buffers while the node does not read.
        let text = results(std::slice::from_ref(task), 4 << 20);
        let (coding, body) = match n % 3 {
            0 => ("zstd", zstd(text.as_bytes())),
            _ => ("gzip", gzip(text.as_bytes())),
        };
        assert!(body.len() < 100_000, "{}", body.len());
        let head = head(job, body.len()).replacen("\r\n", &format!("\r\nContent-Encoding: {coding}\r\n"), 1);
        let (begin, end) = body.split_at(body.len() - 10);
        let mut stream = raw(&app, &head).await;
        stream.write_all(begin).await.expect("the node reads");
        open.push((stream, end.to_vec()));
    }
    // All of them are under way: without room for all, some of them wait.
    let busy = async || {
        let text = results(&[], 0);
        let body = format!("{}{text}", " ".repeat((15 << 20) - text.len()));
        send(
            &app.url,
            "POST",
            "/v1/jobs/999/results",
            &[("content-type", "application/json")],
            &body,
        )
        .await
        .status
            == 503
    };
    let deadline = Instant::now() + PATIENCE;
    while !busy().await {
        assert!(Instant::now() < deadline, "there is room for all");
    }
    let ended = open.into_iter().map(|(mut stream, end)| async move {
        let _ = stream.write_all(&end).await;
        until_closed(stream).await
    });
    for answer in join_all(ended).await {
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(app.view(job).await["state"], "succeeded");
    app.stop().await;
}

/// Long posts hold all the memory for bodies, and another one waits for some: who asks for tasks or has little to say is served.
#[actix_web::test]
async fn fm36_antenna_small_bodies_do_not_wait_behind_large_ones() {
    const LONG_BYTES: usize = 7_549_000;
    let http = HttpSettings {
        workers: 2,
        body_max_bytes: 8 << 20,
        body_budget_bytes: 64 << 20,
        antenna_post_wait_ms: 60_000,
        body_idle_timeout_s: 120,
        ..HttpSettings::default()
    };
    let app = App::start_with(&Place::sqlite(), quick(), http).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 0..20, json!({})).await;
    let tasks = worker.tasks(job, 10).await;
    let mut bodies: Vec<String> = tasks[..8]
        .iter()
        .map(|task| results(std::slice::from_ref(task), LONG_BYTES))
        .collect();
    let last = bodies.pop().unwrap();
    let mut open = Vec::new();
    for body in &bodies {
        open.push(raw(&app, &(head(job, body.len()) + &body[..100])).await);
    }
    let json = [("content-type", "application/json")];
    let long = format!("{{}}{}", " ".repeat(LONG_BYTES));
    let is_taken = async |bytes: usize| {
        send(&app.url, "POST", "/v1/jobs/999/results", &json, &long[..bytes])
            .await
            .status
            != 503
    };
    let deadline = Instant::now() + PATIENCE;
    // The eighth leaves too little for the ninth; that waits, and takes up what there is.
    let mut eighth = raw(&app, &(head(job, last.len()) + &last[..100])).await;
    while is_taken(6_800_000).await {
        assert!(Instant::now() < deadline);
    }
    let ninth = results(&tasks[8..9], LONG_BYTES);
    let waiting = actix_web::rt::spawn({
        let (url, path, body) = (app.url.clone(), format!("/api/v2/jobs/{job}/result/"), ninth);
        async move { send(&url, "POST", &path, &json, &body).await.status }
    });
    while is_taken(2 << 20).await {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(worker.tasks(job, 3).await.len(), 3, "tasks are handed out");
    assert_eq!(
        worker.report(job, vec![success(&tasks[9])]).await,
        ["counted"],
        "small results are taken"
    );
    assert!(is_taken(500_000).await, "and so is what is not quite as small");
    assert!(!waiting.is_finished(), "the long one waits still");
    for (stream, body) in open.iter_mut().zip(&bodies).chain([(&mut eighth, &last)]) {
        stream
            .write_all(&body.as_bytes()[100..])
            .await
            .expect("the node reads on");
    }
    assert_eq!(waiting.await.expect("a client"), 200);
    for stream in open.into_iter().chain([eighth]) {
        let answer = until_closed(stream).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    app.stop().await;
}

async fn a_long_post_is_refused_as_a_short_one_is_and_what_nobody_knows_is_ignored(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 0..2, json!({})).await;
    let tasks = worker.tasks(job, 2).await;
    let headers = [("content-type", "application/json")];
    let post = async |path: String, body: &str| send(&app.url, "POST", &path, &headers, body).await;
    let good = results(&tasks[..1], 10);
    let list = good
        .strip_prefix("{\"results\":")
        .and_then(|rest| rest.strip_suffix('}'))
        .unwrap();
    let filling = |bytes: usize| format!("{{\"x\":[\"{}\",1.5]}}", "y".repeat(bytes));
    let (v1, v2) = (format!("/v1/jobs/{job}/results"), format!("/api/v2/jobs/{job}/result/"));
    // An error without the place it names in the body.
    let words = |text: &str| {
        let text = text.split(" at line ").next().unwrap_or_default();
        text.split(" at byte ").next().unwrap_or_default().to_owned()
    };
    for body in [
        |filling: &str| format!("{{\"results\":{filling}}}"),
        |filling: &str| format!("{{\"other\":{filling}}}"),
        |filling: &str| format!("[{filling},{filling}]"),
    ] {
        let (short, long) = (body(&filling(1)), body(&filling(3 << 20)));
        let (short, long) = (post(v2.clone(), &short).await, post(v2.clone(), &long).await);
        assert_eq!((short.status, long.status), (400, 400), "{long:?}");
        let said = long.json();
        assert!(said["results"].is_array(), "{said}");
        assert_eq!(words(&short.text), words(&long.text));
        let (short, long) = (body(&filling(1)), body(&filling(3 << 20)));
        let (short, long) = (post(v1.clone(), &short).await, post(v1.clone(), &long).await);
        assert_eq!((short.status, long.status), (400, 400), "{long:?}");
        let problem = |said: &Value| {
            (
                said["code"].clone(),
                said["field"].clone(),
                words(said["detail"].as_str().unwrap()),
            )
        };
        assert_eq!(problem(&short.json()), problem(&long.json()));
    }
    let unknown = format!("{{\"worker\":\"w\",\"more\":{},\"results\":[]}}", filling(3 << 20));
    let refused = post(v1, &unknown).await;
    assert_eq!(
        (refused.status, refused.json()["field"].as_str()),
        (400, Some("more")),
        "{refused:?}"
    );
    for (before, after) in [(3 << 20, 1), (1, 3 << 20)] {
        let body = format!(
            "{{\"algorithms\":{},\"results\":{list},\"more\":{}}}",
            filling(before),
            filling(after)
        );
        let taken = post(v2.clone(), &body).await;
        assert_eq!(
            (taken.status, &taken.json()["tasks"][0]["status"]),
            (200, &json!("queued")),
            "{taken:?}"
        );
    }
    let broken = post(v2, &format!("{{\"results\":{list},\"more\":{}", filling(3 << 20))).await;
    assert_eq!(broken.status, 400, "{broken:?}");
    assert_eq!(app.view(job).await["progress"]["succeeded"], 1);
    app.stop().await;
}

/// Over this API as over the other: taken in either coding, and held to the limits as what they inflate to.
#[actix_web::test]
async fn fm36_antenna_compressed_bodies_are_taken_and_inflate_within_the_limits() {
    let http = HttpSettings {
        workers: 1,
        body_max_bytes: 4 << 20,
        ..HttpSettings::default()
    };
    let app = App::start_with(&Place::sqlite(), quick(), http).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 0..6, json!({})).await;
    let post = async |path: &str, coding: &str, body: &[u8]| {
        let body = if coding == "gzip" { gzip(body) } else { zstd(body) };
        let request = app.request("POST", &format!("/api/v2{path}"));
        let request = request
            .header("content-type", "application/json")
            .header("content-encoding", coding);
        let answer = request.body(body).send().await.expect("the node answers");
        (
            answer.status().as_u16(),
            answer.json::<Value>().await.expect("an answer is JSON"),
        )
    };
    let (tasks, result) = (format!("/jobs/{job}/tasks/"), format!("/jobs/{job}/result/"));
    let bomb = vec![b' '; 64 << 20];
    for coding in ["gzip", "zstd"] {
        let (status, given) = post(&tasks, coding, br#"{"batch_size":3}"#).await;
        assert_eq!(status, 200, "{given}");
        let given = given["tasks"].as_array().expect("a list").clone();
        assert_eq!(given.len(), 3);
        for (tasks, bytes) in [(&given[..1], 10), (&given[1..], 1_500_000)] {
            let (status, taken) = post(&result, coding, results(tasks, bytes).as_bytes()).await;
            assert_eq!(
                (status, &taken["results_queued"]),
                (200, &json!(tasks.len())),
                "{coding}: {taken}"
            );
        }
        for (path, limit) in [
            (&tasks, "1048576"),
            (&result, "4194304"),
            (&"/jobs/".to_owned(), "4194304"),
        ] {
            let (status, refused) = post(path, coding, &bomb).await;
            let detail = refused["detail"].as_str().unwrap_or_default();
            assert!(
                status == 413 && detail.contains(limit),
                "{coding} {path}: {status} {refused}"
            );
        }
    }
    assert_eq!(app.view(job).await["state"], "succeeded");
    app.stop().await;
}
