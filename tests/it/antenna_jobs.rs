//! Jobs over `/api/v2`: which are offered and in what order, how they are created, moved and shown.
//!
//! Owns: rows 08 to 10 and 12 there, the words for states, the stages. Never: posts results but to move a job. Invariant: none of its own.

use crate::antenna_client::{Worker, failure, param, success};
use crate::app::{App, Place, on_both_stores, quick};
use serde_json::{Value, json};

on_both_stores!(
    fm08_antenna_only_jobs_with_work_are_offered,
    fm09_antenna_filters_find_what_they_name,
    fm10_antenna_jobs_take_turns_by_grants_alone,
    fm12_antenna_listing_changes_nothing_for_anyone,
    the_first_list_after_a_restart_is_whole,
    every_status_has_its_word,
    stages_count_committed_outcomes_only,
    registering_a_pipeline_makes_a_queue_once,
);

fn all(slugs: &str) -> String {
    format!("pipeline__slug__in={slugs}&ids_only=1&limit=100")
}

async fn fm08_antenna_only_jobs_with_work_are_offered(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let unstarted = worker.create("a", 0..2, json!({"start_now": false})).await;
    let canceled = worker.create("a", 0..2, json!({})).await;
    assert_eq!(
        worker
            .call("POST", &format!("/jobs/{canceled}/cancel/"), Value::Null)
            .await
            .0,
        200
    );
    let done = worker.create("a", 0..2, json!({})).await;
    let tasks = worker.tasks(done, 9).await;
    worker.report(done, tasks.iter().map(success).collect()).await;
    let paused = worker.create("a", 0..2, json!({})).await;
    app.control(paused, "pause", json!({})).await;
    let leased_out = worker.create("a", 0..2, json!({})).await;
    assert_eq!(worker.tasks(leased_out, 9).await.len(), 2);
    let empty = app.job(0, json!({"queue": "a", "open": true})).await;
    assert_eq!(worker.listed(&all("a")).await, [0; 0]);
    assert_eq!(worker.get("/jobs/next/?pipeline__slug__in=a").await, (204, Value::Null));
    for job in [unstarted, canceled, done, paused, leased_out, empty] {
        assert_eq!(worker.tasks(job, 9).await, [0; 0], "job {job}");
    }
    let newest = worker.create("a", 0..2, json!({})).await;
    assert_eq!(worker.jobs("a").await, [newest]);
    app.control(paused, "resume", json!({})).await;
    assert_eq!(worker.listed(&all("a")).await, [paused, newest]);
    let (status, next) = worker.get("/jobs/next/?pipeline__slug__in=a,b").await;
    assert_eq!((status, next), (200, json!({"id": paused, "pipeline_slug": "a"})));
    assert_eq!(worker.get("/jobs/999999/").await.0, 404);
    assert!(worker.fetch(999_999, 1).await.unwrap_err().starts_with("404"));
    app.stop().await;
}

async fn fm09_antenna_filters_find_what_they_name(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let a = worker.create("a", 0..1, json!({})).await;
    let b = worker.create("b", 0..1, json!({"start_now": false})).await;
    let over = worker.create("a", 0..1, json!({})).await;
    worker.call("POST", &format!("/jobs/{over}/cancel/"), Value::Null).await;
    assert_eq!(worker.listed("").await, [over, b, a]);
    assert_eq!(worker.listed("incomplete_only=1").await, [b, a]);
    assert_eq!(worker.listed("pipeline__slug__in=a").await, [over, a]);
    assert_eq!(worker.listed("pipeline__slug__in=b,c&incomplete_only=true").await, [b]);
    assert_eq!(worker.listed("pipeline__slug__in=c").await, [0; 0]);
    assert_eq!(worker.listed("dispatch_mode=sync_api").await, [0; 0]);
    assert_eq!(worker.jobs("a,b,c").await, [a]);
    assert_eq!(worker.listed("ids_only=1").await, [a], "without pipelines: any");
    assert_eq!(worker.listed("ids_only=1&dispatch_mode=internal").await, [0; 0]);
    let (_, page) = worker.get("/jobs/?limit=2&incomplete_only=0").await;
    let next = page["next"].as_str().expect("there is more");
    assert!(page["previous"].is_null() && next.contains("limit=2"), "{page}");
    let rest = next.split_once("/api/v2").unwrap().1;
    let (_, page) = worker.get(rest).await;
    assert_eq!(
        (page["results"][0]["id"].as_i64(), &page["next"]),
        (Some(a), &Value::Null)
    );
    for (query, field) in [
        ("limit=0", "limit"),
        ("ids_only=perhaps", "ids_only"),
        ("dispatch_mode=x", "dispatch_mode"),
    ] {
        let (status, error) = worker.get(&format!("/jobs/?{query}")).await;
        assert!(status == 400 && error[field][0].is_string(), "{query}: {error}");
    }
    app.stop().await;
}

async fn fm10_antenna_jobs_take_turns_by_grants_alone(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let large = worker.create("a", 0..500, json!({})).await;
    for _ in 0..5 {
        assert_eq!(worker.jobs("a").await, [large]);
        assert_eq!(worker.tasks(large, 8).await.len(), 8);
    }
    let small = worker.create("a", 0..3, json!({})).await;
    let other = worker.create("b", 0..3, json!({})).await;
    for _ in 0..3 {
        assert_eq!(worker.jobs("a,b").await, [small], "a look advances nothing");
        assert_eq!(worker.listed(&all("b,a")).await, [small, other, large]);
    }
    let mut served = Vec::new();
    for _ in 0..6 {
        let job = worker.jobs("a,b").await[0];
        assert_eq!(worker.tasks(job, 1).await.len(), 1);
        served.push(job);
    }
    assert_eq!(served, [small, other, large, small, other, large]);
    // A job whose last task is out leaves the order; a turn in which nothing was given is none.
    let idle = worker.create("c", 0..1, json!({"start_now": false})).await;
    assert_eq!(worker.tasks(idle, 1).await, [0; 0]);
    assert_eq!(worker.tasks(small, 9).await.len(), 1);
    assert_eq!(worker.listed(&all("a,b,c")).await, [other, large]);
    app.stop().await;
}

async fn fm12_antenna_listing_changes_nothing_for_anyone(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 0..4, json!({})).await;
    let before = app.view(job).await;
    for _ in 0..5 {
        assert_eq!(worker.jobs("a").await, [job]);
        assert_eq!(worker.get("/jobs/next?pipeline__slug__in=a").await.0, 200);
        worker.listed("").await;
        worker.detail(job).await;
    }
    assert_eq!(app.view(job).await, before);
    assert_eq!(worker.tasks(job, 9).await.len(), 4);
    app.stop().await;
}

async fn the_first_list_after_a_restart_is_whole(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let mut jobs = Vec::new();
    for n in 0..20 {
        jobs.push(worker.create(if n % 2 == 0 { "a" } else { "b" }, 0..3, json!({})).await);
    }
    app.stop().await;
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    assert_eq!(
        worker.listed(&all("b,a")).await,
        jobs,
        "jobs that are still being loaded are waited for"
    );
    app.stop().await;
}

async fn every_status_has_its_word(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let job = worker
        .create(
            "a",
            0..2,
            json!({"start_now": false, "project_id": "18", "policy": {"max_attempts": 1}}),
        )
        .await;
    let word = async || {
        let detail = worker.detail(job).await;
        assert_eq!(detail["status"], detail["progress"]["summary"]["status"]);
        assert_eq!(
            (&detail["pipeline_slug"], &detail["project_id"]),
            (&json!("a"), &json!(18))
        );
        detail["status"].as_str().unwrap().to_owned()
    };
    let verb = async |verb: &str| {
        let (status, shown) = worker.call("POST", &format!("/jobs/{job}/{verb}/"), Value::Null).await;
        assert_eq!((status, &shown["id"]), (200, &json!(job)), "{shown}");
        shown["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(word().await, "CREATED");
    assert_eq!(verb("run").await, "PENDING");
    assert_eq!(verb("run").await, "PENDING", "already so");
    let tasks = worker.tasks(job, 1).await;
    assert_eq!(word().await, "STARTED");
    worker.report(job, vec![failure(&tasks[0], None)]).await;
    app.control(job, "pause", json!({})).await;
    assert_eq!(word().await, "STARTED");
    app.control(job, "resume", json!({})).await;
    let tasks = worker.tasks(job, 1).await;
    app.control(job, "cancel", json!({"grace_s": 600})).await;
    assert_eq!(word().await, "CANCELING");
    worker.report(job, vec![success(&tasks[0])]).await;
    assert_eq!(
        word().await,
        "SUCCESS",
        "half of them failed, which is not more than half"
    );
    assert_eq!(verb("retry").await, "RETRY");
    let tasks = worker.tasks(job, 9).await;
    assert_eq!(
        (tasks.len(), word().await.as_str()),
        (1, "STARTED"),
        "only what failed is repeated"
    );
    assert_eq!(verb("cancel").await, "REVOKED");
    let (status, shown) = worker
        .call("POST", &format!("/jobs/{job}/retry/"), json!({"only": "all"}))
        .await;
    assert_eq!((status, &shown["status"]), (200, &json!("RETRY")));
    let tasks = worker.tasks(job, 9).await;
    worker
        .report(job, tasks.iter().map(|task| failure(task, None)).collect())
        .await;
    assert_eq!(word().await, "FAILURE");
    let (status, error) = worker
        .call("POST", &format!("/jobs/{job}/run/"), json!({"unknown": 1}))
        .await;
    assert!(status == 409 && error["detail"].is_string(), "{error}");
    app.stop().await;
}

async fn stages_count_committed_outcomes_only(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 0..4, json!({"policy": {"max_attempts": 1}})).await;
    let shown = |detail: &Value| {
        let stages: Vec<Value> = detail["progress"]["stages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|stage| json!([stage["key"], stage["status"], stage["progress"]]))
            .collect();
        json!(stages)
    };
    let fresh = worker.detail(job).await;
    assert_eq!(
        shown(&fresh),
        json!([
            ["collect", "SUCCESS", 1.0],
            ["process", "PENDING", 0.0],
            ["results", "PENDING", 0.0]
        ])
    );
    assert_eq!(param(&fresh, "collect", "total_images"), 4);
    let tasks = worker.tasks(job, 3).await;
    let posted = vec![success(&tasks[0]), failure(&tasks[1], None), success(&tasks[0])];
    assert_eq!(worker.report(job, posted).await, ["counted", "counted", "duplicate"]);
    let half = worker.detail(job).await;
    assert_eq!(
        shown(&half),
        json!([
            ["collect", "SUCCESS", 1.0],
            ["process", "STARTED", 0.5],
            ["results", "STARTED", 0.5]
        ])
    );
    let numbers = |detail: &Value| {
        let process = ["processed", "failed", "remaining"].map(|key| param(detail, "process", key));
        let results = ["captures", "detections", "classifications", "failed"].map(|key| param(detail, "results", key));
        (process, results)
    };
    assert_eq!(numbers(&half), ([2, 1, 2], [1, 2, 3, 1]));
    let rest = worker.tasks(job, 9).await;
    let last = [&tasks[2..], &rest[..]].concat();
    worker.report(job, last.iter().map(success).collect()).await;
    let over = worker.detail(job).await;
    assert_eq!(
        shown(&over),
        json!([
            ["collect", "SUCCESS", 1.0],
            ["process", "SUCCESS", 1.0],
            ["results", "SUCCESS", 1.0]
        ])
    );
    assert_eq!(numbers(&over), ([4, 1, 0], [3, 6, 9, 1]));
    let logs = &worker.get(&format!("/jobs/{job}/?logs_limit=1")).await.1["logs"];
    assert_eq!(logs["stdout"].as_array().unwrap().len(), 1, "{logs}");
    assert!(logs["stderr"].is_array());
    let open = app
        .job(1, json!({"queue": "a", "open": true, "expected_total": 4}))
        .await;
    let feeding = worker.detail(open).await;
    assert_eq!(shown(&feeding)[0], json!(["collect", "STARTED", 0.25]));
    app.stop().await;
}

async fn registering_a_pipeline_makes_a_queue_once(place: Place) {
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    worker.create("old", 0..1, json!({})).await;
    let (status, projects) = worker.get("/projects/").await;
    assert_eq!((status, &projects["results"][0]["id"]), (200, &json!(1)));
    assert!(projects["results"][0]["name"].is_string());
    let pipelines =
        json!([{"name": "Old", "slug": "old", "version": 3, "algorithms": []}, {"name": "New", "slug": "new"}]);
    let body = json!({"processing_service_name": "gpu box", "pipelines": pipelines, "client_info": {"hostname": "x"}});
    let (status, answer) = worker.call("POST", "/projects/18/pipelines/", body.clone()).await;
    assert_eq!(status, 201, "{answer}");
    let expected = json!({"pipelines_created": ["new"], "pipelines_updated": ["old"], "processing_service_id": 1});
    assert_eq!(answer, expected);
    app.stop().await;
    let app = App::start(&place, quick()).await;
    let worker = Worker::of(&app);
    let (_, again) = worker.call("POST", "/projects/1/pipelines", body).await;
    assert_eq!(
        (&again["pipelines_created"], &again["pipelines_updated"]),
        (&json!([]), &json!(["old", "new"]))
    );
    assert_eq!(
        worker
            .call("POST", "/projects/x/pipelines/", json!({"pipelines": []}))
            .await
            .0,
        404
    );
    let (status, error) = worker
        .call("POST", "/projects/1/pipelines/", json!({"pipelines": [{"name": "n"}]}))
        .await;
    assert!(status == 400 && error["pipelines[0].slug"].is_array(), "{error}");
    app.stop().await;
}
