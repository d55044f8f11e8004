//! A job's life through the HTTP API, on both stores.
//!
//! Owns: the main path and its neighbours. Never: reaches behind the API. Invariant: every suite runs on SQLite and on PostgreSQL.

use crate::app::{App, Place, failure, on_both_stores, quick, success};
use serde_json::json;

on_both_stores!(
    a_job_runs_to_its_end,
    a_graceful_restart_hands_no_leased_task_out_twice,
    a_job_has_its_turn_the_moment_its_creation_is_answered,
    a_task_that_succeeded_leaves_its_attempt_to_its_result,
);

async fn a_job_runs_to_its_end(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(10, json!({})).await;
    assert_eq!(app.view(job).await["state"], "running");
    let tasks = app.lease(job, "w1", 4).await;
    assert_eq!(tasks.len(), 4);
    assert_eq!(tasks[0]["payload"], json!({"n": 0}));
    assert_eq!(tasks[0]["key"], "k0");
    assert_eq!(app.view(job).await["progress"]["leased"], 4);
    let reported = app.report(job, "w1", tasks.iter().map(success).collect()).await;
    assert_eq!(reported, ["counted"; 4]);
    let again = app.report(job, "w1", tasks.iter().map(success).collect()).await;
    assert_eq!(again, ["duplicate"; 4]);
    let (status, granted) = app
        .post("/v1/leases", json!({"worker": "w2", "queues": ["q"], "max_tasks": 100}))
        .await;
    assert_eq!((status, granted["job"]["id"].as_i64()), (200, Some(job)));
    let rest = granted["tasks"].as_array().unwrap().clone();
    assert_eq!(rest.len(), 6);
    let mut results: Vec<_> = rest.iter().map(success).collect();
    results[0] = failure(&rest[0]);
    results[0]["retryable"] = json!(false);
    assert_eq!(app.report(job, "w2", results).await, ["counted"; 6]);
    let view = app.view(job).await;
    assert_eq!(view["state"], "partially_succeeded");
    assert_eq!(
        (
            view["progress"]["succeeded"].clone(),
            view["progress"]["failed"].clone()
        ),
        (json!(9), json!(1))
    );
    assert_eq!(view["progress"]["fraction"], 1.0);
    let (_, page) = app.get(&format!("/v1/jobs/{job}/results")).await;
    assert_eq!(page["items"].as_array().unwrap().len(), 10);
    app.stop().await;
}

async fn a_graceful_restart_hands_no_leased_task_out_twice(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(10, json!({})).await;
    let held = app.lease(job, "w1", 4).await;
    app.stop().await;
    let app = App::start(&place, quick()).await;
    let rest = app.lease(job, "w2", 100).await;
    assert_eq!(rest.len(), 6);
    assert!(
        rest.iter()
            .all(|task| held.iter().all(|other| other["task"] != task["task"]))
    );
    assert_eq!(
        app.report(job, "w1", held.iter().map(success).collect()).await,
        ["counted"; 4]
    );
    assert_eq!(
        app.report(job, "w2", rest.iter().map(success).collect()).await,
        ["counted"; 6]
    );
    assert_eq!(app.view(job).await["state"], "succeeded");
    app.stop().await;
}

async fn a_job_has_its_turn_the_moment_its_creation_is_answered(place: Place) {
    let app = App::start(&place, quick()).await;
    app.job(100, json!({})).await;
    for priority in 1..=40 {
        let job = app.job(1, json!({"priority": priority})).await;
        let ask = json!({"worker": "w", "queues": ["q"], "max_tasks": 1});
        let (_, granted) = app.post("/v1/leases", ask).await;
        assert_eq!(granted["job"]["id"], job, "job {priority} goes first");
    }
    app.stop().await;
}

async fn a_task_that_succeeded_leaves_its_attempt_to_its_result(place: Place) {
    let app = App::start(&place, quick()).await;
    let policy = json!({"backoff": {"initial_s": 0, "max_s": 0}});
    let job = app.job(2, json!({"policy": policy})).await;
    let first = app.lease(job, "w", 1).await;
    assert_eq!(app.report(job, "w", vec![failure(&first[0])]).await, ["retrying"]);
    let attempts = async || {
        let (_, tasks) = app.get(&format!("/v1/jobs/{job}/tasks")).await;
        [
            tasks["items"][0]["attempt"].clone(),
            tasks["items"][1]["attempt"].clone(),
        ]
    };
    assert_eq!(attempts().await, [json!(1), json!(0)]);
    let again = app.lease(job, "w", 1).await;
    assert_eq!(attempts().await, [json!(2), json!(0)]);
    assert_eq!(app.report(job, "w", vec![success(&again[0])]).await, ["counted"]);
    assert_eq!(attempts().await, [json!(null), json!(0)]);
    assert_eq!(app.results(job).await[0]["attempt"], 2);
    app.stop().await;
}
