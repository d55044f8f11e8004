//! The facts behind the page: stages, logs, explanations, workers and queues.
//!
//! Owns: what people are shown besides the tally. Never: reaches behind the API. Invariant: what is shown agrees with the tally.

use crate::app::{App, Place, quick, success};
use serde_json::{Value, json};
use std::time::Duration;
use tallykeeper::coordinator::Settings;

fn stages() -> Value {
    json!([{"key": "detect", "name": "Detect"}, {"key": "save", "name": "Save"}])
}

fn reached(view: &Value) -> Vec<u64> {
    let stages = view["progress"]["stages"].as_array().expect("stages is a list");
    stages.iter().map(|stage| stage["reached"].as_u64().unwrap()).collect()
}

#[actix_web::test]
async fn stage_marks_are_seen_and_stay_when_the_job_has_left_memory() {
    let settings = Settings {
        passivate_after: Duration::from_millis(20),
        ..quick()
    };
    let app = App::start(&Place::sqlite(), settings).await;
    let job = app
        .job(3, json!({"stages": stages(), "policy": {"max_attempts": 1}}))
        .await;
    let tasks = app.lease(job, "w", 3).await;
    let leases: Vec<_> = tasks[..2].iter().map(|task| task["lease"].clone()).collect();
    let extend = format!("/v1/jobs/{job}/leases/extend");
    let body = json!({"worker": "w", "leases": leases, "stage": "detect", "note": "half way"});
    assert_eq!(app.post(&extend, body).await.0, 200);
    assert_eq!(reached(&app.view(job).await), [2, 0]);
    for (field, body) in [
        ("stage", json!({"worker": "w", "leases": leases, "stage": "sieve"})),
        (
            "note",
            json!({"worker": "w", "leases": leases, "note": "n".repeat(257)}),
        ),
    ] {
        let (status, problem) = app.post(&extend, body).await;
        assert_eq!((status, &problem["code"]), (400, &json!("invalid_request")));
        assert_eq!(problem["field"], field);
    }
    app.report(job, "w", vec![success(&tasks[2])]).await;
    assert_eq!(reached(&app.view(job).await), [3, 1]);
    let (_, ended) = app.post(&format!("/v1/jobs/{job}/cancel"), json!({})).await;
    assert_eq!(reached(&ended), [3, 1]);
    // Its actor has left memory once nobody is named as its owner; the row says the same.
    let view = loop {
        let view = app.view(job).await;
        if view["node"].is_null() {
            break view;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(view["progress"]["stages"], ended["progress"]["stages"]);
    app.stop().await;
}
