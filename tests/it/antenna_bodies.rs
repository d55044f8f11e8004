//! Bodies over `/api/v2` that are long, or take long to come.
//!
//! Owns: what the node bears of them, where a client that never repeats a POST would lose what it carries. Never: looks at what results do.
//! Invariant: who is told to wait waits, and who need not is not kept waiting.

use crate::antenna_client::Worker;
use crate::app::{App, Place, on_both_stores, quick};
use crate::cluster::{connect, somebody_waits};
use crate::http_call::{raw, until_closed};
use serde_json::{Value, json};
use std::time::Duration;
use tallykeeper::http::HttpSettings;
use tokio::io::AsyncWriteExt as _;

on_both_stores!(a_pipeline_is_registered_with_its_whole_category_map,);

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
