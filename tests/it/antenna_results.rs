//! Results over `/api/v2`: what each does, and what becomes of those that come late, twice, or without a name.
//!
//! Owns: rows 16, 25 and 31 to 36 there. Never: waits for a lease to end but where it is short. Invariant: every post is made once.

use crate::antenna_client::{Worker, failure, success};
use crate::app::{App, Place, on_both_stores, quick};
use crate::http_call::{raw, send, until_closed};
use serde_json::{Value, json};

on_both_stores!(
    results_are_kept_as_they_came_and_counted_once,
    fm16_antenna_a_replay_inflates_nothing,
    fm25_antenna_results_of_an_old_run_are_stale,
    fm31_antenna_a_late_success_corrects_a_failure_until_the_end_and_is_kept_after,
    fm32_fm34_antenna_a_batch_of_errors_decides_its_images_and_the_job_is_judged_by_policy,
    fm33_antenna_an_error_without_its_image_counts,
    fm35_antenna_one_bad_result_fails_no_other,
    fm36_antenna_46_mb_for_24_images_are_taken_and_more_than_the_limit_is_told_so,
    a_subject_that_cannot_be_read_falls_back_to_the_image,
);

fn stored(results: &[Value]) -> Vec<(String, &Value)> {
    results
        .iter()
        .map(|row| (row["key"].as_str().unwrap().to_owned(), &row["result"]))
        .collect()
}

async fn results_are_kept_as_they_came_and_counted_once(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 7..8, json!({})).await;
    let task = &worker.tasks(job, 5).await[0];
    assert_eq!(
        (&task["image_id"], &task["image_url"]),
        (&json!("7"), &json!("http://images/7.jpg"))
    );
    let odd = r#"{ "z":1.50,  "a":[1e2 , -0.0], "source_images":[{"id":7,"z":null}], "detections":[], "at":"2025-06-01T12:00:00", "z":2 }"#;
    let body = format!(
        r#"{{"extra":true,"results":[{{"reply_subject":{},"result":{odd},"more":[]}}]}}"#,
        task["reply_subject"]
    );
    let headers = [("content-type", "application/json")];
    let answer = send(
        &app.url,
        "POST",
        &format!("/api/v2/jobs/{job}/result/"),
        &headers,
        &body,
    )
    .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let page = send(&app.url, "GET", &format!("/v1/jobs/{job}/results"), &[], "").await;
    assert!(page.text.contains(odd), "{}", page.text);
    let view = app.view(job).await;
    assert_eq!(
        view["progress"]["counters"],
        json!({"captures": 1, "detections": 0, "classifications": 0})
    );
    assert_eq!(view["policy"]["lease_timeout_s"], 1_800);
    app.stop().await;
}

async fn fm16_antenna_a_replay_inflates_nothing(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 0..6, json!({})).await;
    let tasks = worker.tasks(job, 6).await;
    assert_eq!(
        worker.report(job, tasks[..5].iter().map(success).collect()).await,
        ["counted"; 5]
    );
    let counted = app.view(job).await["progress"]["counters"].clone();
    for _ in 0..3 {
        // Again, with other times and other figures.
        assert_eq!(
            worker.report(job, tasks[..5].iter().map(success).collect()).await,
            ["duplicate"; 5]
        );
        assert_eq!(worker.report(job, vec![failure(&tasks[0], None)]).await, ["superseded"]);
    }
    let both = vec![success(&tasks[5]), success(&tasks[5])];
    assert_eq!(worker.report(job, both).await, ["counted", "duplicate"]);
    assert_eq!(
        worker.report(job, vec![success(&tasks[5])]).await,
        ["duplicate"],
        "after the end as well"
    );
    let over = app.view(job).await;
    assert_eq!(
        (
            &counted["classifications"],
            &over["progress"]["counters"]["classifications"]
        ),
        (&json!(15), &json!(18))
    );
    assert_eq!(over["state"], "succeeded");
    app.stop().await;
}

async fn fm25_antenna_results_of_an_old_run_are_stale(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 0..3, json!({})).await;
    let old = worker.tasks(job, 3).await;
    worker.call("POST", &format!("/jobs/{job}/cancel/"), Value::Null).await;
    worker
        .call("POST", &format!("/jobs/{job}/retry/"), json!({"only": "all"}))
        .await;
    let (status, answer) = worker.post(job, vec![success(&old[0]), failure(&old[1], None)]).await;
    assert_eq!(status, 200);
    for task in answer["tasks"].as_array().unwrap() {
        assert_eq!(
            (&task["status"], &task["disposition"]),
            (&json!("stale_run"), &json!("stale_run"))
        );
    }
    assert_eq!(answer["results_queued"], 0);
    let mut unnamed = success(&old[0]);
    unnamed["reply_subject"] = json!("nats.reply.17");
    assert_eq!(
        worker.report(job, vec![unnamed.clone()]).await,
        ["stale_run"],
        "it may be of any run"
    );
    assert_eq!(app.view(job).await["progress"]["pending"], 3);
    let new = worker.tasks(job, 3).await;
    assert_eq!(worker.report(job, vec![unnamed]).await, ["counted"]);
    assert_eq!(
        worker.report(job, vec![success(&new[1]), success(&new[2])]).await,
        ["counted"; 2]
    );
    assert_eq!(worker.report(job, vec![success(&old[1])]).await, ["duplicate"]);
    app.stop().await;
}

async fn fm31_antenna_a_late_success_corrects_a_failure_until_the_end_and_is_kept_after(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let job = worker
        .create(
            "a",
            0..3,
            json!({"policy": {"max_attempts": 1, "failure_threshold": {"ratio": 1.0}}}),
        )
        .await;
    let tasks = worker.tasks(job, 3).await;
    let failed = tasks[..2].iter().map(|task| failure(task, None)).collect();
    assert_eq!(worker.report(job, failed).await, ["counted"; 2]);
    assert_eq!(worker.param(job, "process", "failed").await, 2);
    assert_eq!(worker.report(job, vec![success(&tasks[0])]).await, ["counted"]);
    assert_eq!(worker.param(job, "process", "failed").await, 1);
    assert_eq!(worker.report(job, vec![success(&tasks[2])]).await, ["counted"]);
    let before = worker.detail(job).await;
    assert_eq!(before["status"], "SUCCESS");
    assert_eq!(worker.report(job, vec![success(&tasks[1])]).await, ["late"]);
    assert_eq!(worker.detail(job).await["progress"], before["progress"], "uncounted");
    worker.call("POST", &format!("/jobs/{job}/retry/"), Value::Null).await;
    app.until(job, |view| view["state"] != "running").await;
    let after = worker.detail(job).await;
    assert_eq!(
        (&after["status"], worker.param(job, "results", "captures").await),
        (&json!("SUCCESS"), 3),
        "but kept: {after}"
    );
    app.stop().await;
}

async fn fm32_fm34_antenna_a_batch_of_errors_decides_its_images_and_the_job_is_judged_by_policy(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let policy = json!({"max_attempts": 2, "backoff": {"initial_s": 0}});
    let few = worker.create("a", 0..30, json!({"policy": policy})).await;
    let tasks = worker.tasks(few, 30).await;
    worker.report(few, tasks[3..].iter().map(success).collect()).await;
    let errors = |tasks: &[Value]| {
        tasks
            .iter()
            .map(|task| failure(task, Some(&task["image_id"])))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        worker.report(few, errors(&tasks[..3])).await,
        ["retrying"; 3],
        "a whole batch of errors is normal"
    );
    let again = worker.tasks(few, 30).await;
    assert_eq!(worker.report(few, errors(&again)).await, ["counted"; 3]);
    let detail = worker.detail(few).await;
    assert_eq!(
        (&detail["status"], &detail["progress"]["errors"]),
        (&json!("SUCCESS"), &json!([]))
    );
    assert_eq!(
        app.view(few).await["state"],
        "partially_succeeded",
        "three images revoke no job"
    );
    let most = worker.create("a", 0..4, json!({"policy": {"max_attempts": 1}})).await;
    let tasks = worker.tasks(most, 4).await;
    worker.report(most, errors(&tasks[..3])).await;
    assert_eq!(worker.detail(most).await["status"], "STARTED", "judged at the end");
    worker.report(most, vec![success(&tasks[3])]).await;
    let detail = worker.detail(most).await;
    assert_eq!(
        (
            &detail["status"],
            detail["progress"]["errors"].as_array().unwrap().len()
        ),
        (&json!("FAILURE"), 1)
    );
    app.stop().await;
}

async fn fm33_antenna_an_error_without_its_image_counts(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 0..3, json!({"policy": {"max_attempts": 1}})).await;
    let tasks = worker.tasks(job, 3).await;
    let mut bare = failure(&tasks[0], None);
    bare["result"].as_object_mut().unwrap().remove("image_id");
    let numbered = failure(&tasks[1], Some(&json!(1)));
    let structured = json!({"reply_subject": tasks[2]["reply_subject"], "result": {"error": {"code": 7}}});
    assert_eq!(
        worker.report(job, vec![bare, numbered, structured]).await,
        ["counted"; 3]
    );
    assert_eq!(worker.detail(job).await["status"], "FAILURE");
    let results = app.results(job).await;
    let errors: Vec<&str> = results.iter().map(|row| row["error"].as_str().unwrap()).collect();
    assert_eq!(
        errors,
        ["failed to load image", "failed to load image", r#"{"code":7}"#]
    );
    app.stop().await;
}

async fn fm35_antenna_one_bad_result_fails_no_other(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 0..4, json!({})).await;
    let tasks = worker.tasks(job, 4).await;
    let mut deep = json!(1);
    for _ in 0..200 {
        deep = json!([deep]);
    }
    let bad = json!({"reply_subject": tasks[1]["reply_subject"], "result": {"deep": deep}});
    let list = json!({"reply_subject": tasks[2]["reply_subject"], "result": [1]});
    let unknown = json!({"reply_subject": "x", "result": {"source_images": [{"id": 99}], "detections": []}});
    let nameless = json!({"reply_subject": null, "result": {"error": "lost"}});
    let posted = vec![success(&tasks[0]), bad, list, unknown, nameless, success(&tasks[3])];
    let expected = ["counted", "rejected", "rejected", "rejected", "rejected", "counted"];
    assert_eq!(worker.report(job, posted).await, expected);
    assert_eq!(
        worker.report(job, vec![success(&tasks[1]), success(&tasks[2])]).await,
        ["counted"; 2]
    );
    assert_eq!(worker.detail(job).await["status"], "SUCCESS");
    app.stop().await;
}

async fn fm36_antenna_46_mb_for_24_images_are_taken_and_more_than_the_limit_is_told_so(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 0..24, json!({})).await;
    let tasks = worker.tasks(job, 24).await;
    // 29 000 classes an image, as logits and scores.
    let scores = "0.0000312,".repeat(96_000) + "1";
    let item = |task: &Value| {
        format!(
            r#"{{"reply_subject":{},"result":{{"source_images":[{{"id":{}}}],"detections":[{{"classifications":[{{"logits":[{scores}],"scores":[{scores}]}}]}}]}}}}"#,
            task["reply_subject"], task["image_id"]
        )
    };
    let items: Vec<String> = tasks.iter().map(item).collect();
    let body = format!(r#"{{"results":[{}]}}"#, items.join(","));
    assert!(body.len() > 45_000_000);
    let headers = [("content-type", "application/json")];
    let path = format!("/api/v2/jobs/{job}/result/");
    let answer = send(&app.url, "POST", &path, &headers, &body).await;
    assert_eq!((answer.status, &answer.json()["results_queued"]), (200, &json!(24)));
    let detail = worker.detail(job).await;
    assert_eq!(
        (&detail["status"], worker.param(job, "results", "classifications").await),
        (&json!("SUCCESS"), 24)
    );
    let length = (128 << 20) + 1;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{{"
    );
    let refused = until_closed(raw(&app, &head).await).await;
    assert!(
        refused.starts_with("HTTP/1.1 413") && refused.contains(r#"{"detail":"#),
        "{refused}"
    );
    assert!(refused.contains("134217728"), "the limit is told: {refused}");
    app.stop().await;
}

async fn a_subject_that_cannot_be_read_falls_back_to_the_image(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 0..6, json!({"policy": {"max_attempts": 1}})).await;
    let tasks = worker.tasks(job, 5).await;
    let unnamed = |mut result: Value, subject: Value| {
        result["reply_subject"] = subject;
        result
    };
    let posted = vec![
        unnamed(success(&tasks[0]), json!("$JS.ACK.job_42.x")),
        unnamed(success(&tasks[1]), Value::Null),
        unnamed(failure(&tasks[2], Some(&json!("2"))), json!("")),
        unnamed(success(&tasks[0]), json!("again")),
        unnamed(success(&json!({"image_id": "nowhere"})), json!("?")),
    ];
    assert_eq!(
        worker.report(job, posted).await,
        ["counted", "counted", "counted", "duplicate", "rejected"]
    );
    let other = Worker::of(&app).from("10.1.1.1");
    assert_eq!(
        other
            .report(job, vec![unnamed(failure(&tasks[3], Some(&json!(3))), json!("x"))])
            .await,
        ["counted"],
        "workers of one token report for each other"
    );
    let results = app.results(job).await;
    let keys: Vec<String> = stored(&results).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["0", "1", "2", "3"]);
    app.stop().await;
}
