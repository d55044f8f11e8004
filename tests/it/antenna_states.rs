//! Jobs of every state over `/api/v2`, and their logs.
//!
//! Owns: row 09 there for each state, and how much of a log is shown. Never: restarts a node. Invariant: none of its own.

use crate::antenna_client::{Worker, failure, success};
use crate::app::{App, Place, on_both_stores, quick};
use serde_json::{Value, json};

on_both_stores!(
    fm09_antenna_filters_are_right_for_every_state,
    a_log_of_thousands_of_lines_is_shown_with_its_errors,
);

async fn fm09_antenna_filters_are_right_for_every_state(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let create = async |images: u32, start_now: bool| {
        let more = json!({"policy": {"max_attempts": 1}, "start_now": start_now});
        worker.create("a", 0..images, more).await
    };
    let worked = async |images: u32, failed: usize| {
        let job = create(images, true).await;
        let tasks = worker.tasks(job, 9).await;
        let (bad, good) = tasks.split_at(failed);
        let results = bad
            .iter()
            .map(|task| failure(task, None))
            .chain(good.iter().map(success));
        worker.report(job, results.collect()).await;
        job
    };
    let begun = async |control: &str, body: Value| {
        let job = create(3, true).await;
        worker.tasks(job, 1).await;
        app.control(job, control, body).await;
        job
    };
    let pending = create(2, false).await;
    let running = create(2, true).await;
    let paused = begun("pause", json!({})).await;
    let canceling = begun("cancel", json!({"grace_s": 600})).await;
    let succeeded = worked(2, 0).await;
    let partially = worked(5, 1).await;
    let failed = worked(2, 2).await;
    let canceled = begun("cancel", json!({"grace_s": 0})).await;
    let all = [
        (pending, "pending", "CREATED"),
        (running, "running", "PENDING"),
        (paused, "paused", "STARTED"),
        (canceling, "canceling", "CANCELING"),
        (succeeded, "succeeded", "SUCCESS"),
        (partially, "partially_succeeded", "SUCCESS"),
        (failed, "failed", "FAILURE"),
        (canceled, "canceled", "REVOKED"),
    ];
    for (job, state, status) in all {
        assert_eq!(app.view(job).await["state"], state);
        assert_eq!(worker.detail(job).await["status"], status, "{state}");
    }
    let newest_first: Vec<i64> = all.iter().rev().map(|(job, ..)| *job).collect();
    let incomplete = [canceling, paused, running, pending];
    for pipelines in [
        "",
        "&pipeline__slug__in=a",
        "&pipeline__slug__in=a,b&dispatch_mode=async_api",
    ] {
        assert_eq!(worker.listed(&format!("limit=100{pipelines}")).await, newest_first);
        assert_eq!(
            worker.listed(&format!("limit=100&incomplete_only=0{pipelines}")).await,
            newest_first
        );
        assert_eq!(
            worker.listed(&format!("limit=100&incomplete_only=1{pipelines}")).await,
            incomplete
        );
        for only in ["", "&incomplete_only=1"] {
            let query = format!("limit=100&ids_only=1{only}{pipelines}");
            assert_eq!(worker.listed(&query).await, [running], "{query}");
        }
        let (_, page) = worker.get(&format!("/jobs/?limit=100{pipelines}")).await;
        let shown: Vec<&Value> = page["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|job| &job["status"])
            .collect();
        assert_eq!(
            shown,
            all.map(|(_, _, status)| status).into_iter().rev().collect::<Vec<_>>()
        );
    }
    assert_eq!(worker.listed("limit=100&pipeline__slug__in=b").await, [0; 0]);
    app.stop().await;
}

async fn a_log_of_thousands_of_lines_is_shown_with_its_errors(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 0..1, json!({})).await;
    let entry = |n: usize| {
        let level = if n % 1_000 == 7 { "error" } else { "info" };
        json!({"level": level, "message": format!("line {n}")})
    };
    for from in (0..5_500).step_by(500) {
        let entries: Vec<Value> = (from..from + 500).map(entry).collect();
        let (status, said) = app
            .post(&format!("/v1/jobs/{job}/logs"), json!({"entries": entries}))
            .await;
        assert_eq!(status, 200, "{said}");
    }
    for (limit, errors) in [
        (5_000, &[1_007, 2_007, 3_007, 4_007, 5_007][..]),
        (500, &[5_007]),
        (100, &[]),
    ] {
        let (status, detail) = worker.get(&format!("/jobs/{job}/?logs_limit={limit}")).await;
        assert_eq!(status, 200);
        let lines = |of: &str| {
            let lines = detail["logs"][of].as_array().expect("a list").iter();
            lines
                .map(|line| line.as_str().expect("text").to_owned())
                .collect::<Vec<_>>()
        };
        let (stdout, stderr) = (lines("stdout"), lines("stderr"));
        assert_eq!(stdout.len(), limit);
        for (n, line) in (5_500 - limit..).zip(&stdout) {
            assert!(line.ends_with(&format!(" line {n}")), "{n}: {line}");
        }
        assert_eq!(stderr.len(), errors.len());
        for (n, line) in errors.iter().zip(&stderr) {
            assert!(line.ends_with(&format!("ERROR line {n}")), "{line}");
        }
    }
    app.stop().await;
}
