//! The facts behind the page: stages, logs, explanations, workers and queues.
//!
//! Owns: what people are shown besides the tally. Never: reaches behind the API. Invariant: what is shown agrees with the tally.

use crate::app::{App, Place, failure, quick, success};
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

#[actix_web::test]
async fn a_changed_priority_is_served_first_and_a_changed_threshold_judges() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let first = app.job(2, json!({"policy": {"max_attempts": 1}})).await;
    let second = app.job(2, json!({})).await;
    let (status, view) = app
        .call("PATCH", &format!("/v1/jobs/{second}"), json!({"priority": 9}))
        .await;
    assert_eq!((status, &view["priority"]), (200, &json!(9)));
    let ask = json!({"worker": "w", "queues": ["q"], "max_tasks": 1});
    for _ in 0..2 {
        let (_, granted) = app.post("/v1/leases", ask.clone()).await;
        assert_eq!(granted["job"]["id"], second, "twice in a row, since it goes first");
    }
    let change = json!({"failure_threshold": {"count": 0}});
    let (status, view) = app.call("PATCH", &format!("/v1/jobs/{first}"), change.clone()).await;
    assert_eq!(
        (status, &view["policy"]["failure_threshold"]),
        (200, &json!({"count": 0}))
    );
    let tasks = app.lease(first, "w", 2).await;
    app.report(first, "w", vec![success(&tasks[0]), failure(&tasks[1])])
        .await;
    assert_eq!(app.view(first).await["state"], "failed");
    let (status, problem) = app
        .call("PATCH", &format!("/v1/jobs/{first}"), json!({"priority": 1}))
        .await;
    assert_eq!((status, &problem["code"]), (409, &json!("invalid_transition")));
    for (field, body) in [
        ("failure_threshold.ratio", json!({"failure_threshold": {"ratio": 2.0}})),
        ("name", json!({"name": "n"})),
    ] {
        let (status, problem) = app.call("PATCH", &format!("/v1/jobs/{second}"), body).await;
        assert_eq!((status, &problem["field"]), (400, &json!(field)), "{problem}");
    }
    app.stop().await;
}

#[actix_web::test]
async fn only_an_ended_job_is_deleted_and_then_it_is_gone() {
    for place in [Place::sqlite(), Place::postgres().await] {
        let app = App::start(&place, quick()).await;
        let job = app.job(5, json!({})).await;
        let kept = app.job(2, json!({})).await;
        let path = format!("/v1/jobs/{job}");
        let (status, problem) = app.call("DELETE", &path, Value::Null).await;
        assert_eq!((status, &problem["code"]), (409, &json!("invalid_transition")));
        let tasks = app.lease(job, "w", 5).await;
        app.report(job, "w", tasks[..4].iter().map(success).collect()).await;
        app.post(&format!("{path}/cancel"), json!({})).await;
        assert_eq!(app.call("DELETE", &path, Value::Null).await, (204, Value::Null));
        for (method, suffix, body) in [
            ("GET", "", Value::Null),
            ("DELETE", "", Value::Null),
            ("GET", "/tasks", Value::Null),
            ("POST", "/retry", json!({})),
            (
                "POST",
                "/results",
                json!({"worker": "w", "results": [success(&tasks[4])]}),
            ),
        ] {
            let (status, problem) = app.call(method, &format!("{path}{suffix}"), body).await;
            assert_eq!(
                (status, &problem["code"]),
                (404, &json!("not_found")),
                "{method} {suffix}"
            );
        }
        let (_, listed) = app.get("/v1/jobs").await;
        assert_eq!(listed["items"].as_array().unwrap().len(), 1);
        assert_eq!(app.view(kept).await["progress"]["total"], 2);
        app.stop().await;
    }
}

fn messages(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("items is a list");
    items.iter().map(|item| item["message"].as_str().unwrap()).collect()
}

#[actix_web::test]
async fn fm38_logs_are_kept_paged_and_followed() {
    for place in [Place::sqlite(), Place::postgres().await] {
        let app = App::start(&place, quick()).await;
        let job = app.job(1, json!({})).await;
        let before = app.view(job).await["updated_at"].clone();
        let path = format!("/v1/jobs/{job}/logs");
        let entries = json!({"entries": [
            {"level": "debug", "message": "a\u{1b}[31m\u{0}b", "worker": "w", "task": 0, "at": "2020-01-01T00:00:00Z"},
            {"message": "two"},
            {"level": "error", "message": "three"},
        ]});
        assert_eq!(app.post(&path, entries).await, (200, json!({"written": 3})));
        let (_, list) = app.get(&format!("{path}?after=0")).await;
        assert_eq!(
            messages(&list),
            ["created running with 1 task", "a\u{1b}[31m\u{fffd}b", "two", "three"]
        );
        let first = &list["items"][1];
        assert_eq!((&first["level"], &first["source"]), (&json!("debug"), &json!("posted")));
        assert_eq!((&first["worker"], &first["task"]), (&json!("w"), &json!(0)));
        assert_eq!(first["at"], "2020-01-01T00:00:00.000Z");
        let (_, grave) = app.get(&format!("{path}?level=warn")).await;
        assert_eq!(messages(&grave), ["three"]);
        let (_, newest) = app.get(&format!("{path}?limit=1")).await;
        assert_eq!(messages(&newest), ["three"]);
        assert_eq!(app.view(job).await["updated_at"], before, "the job's row is as it was");

        let after = list["after"].as_i64().unwrap();
        let follow_path = format!("{path}?after={after}&wait_s=20");
        let follow = app.get(&follow_path);
        let write = app.post(&path, json!({"entries": [{"message": "four"}]}));
        let ((_, followed), _) = tokio::join!(follow, write);
        assert_eq!(messages(&followed), ["four"]);
        for (field, bad) in [
            (
                "entries[0].message",
                json!({"entries": [{"message": "m".repeat(9_000)}]}),
            ),
            (
                "entries[0].worker",
                json!({"entries": [{"message": "m", "worker": "\n"}]}),
            ),
        ] {
            let (status, problem) = app.post(&path, bad).await;
            assert_eq!((status, &problem["field"]), (400, &json!(field)));
        }
        assert_eq!(app.get("/v1/jobs/999/logs").await.0, 404);
        assert_eq!(
            app.post("/v1/jobs/999/logs", json!({"entries": [{"message": "m"}]}))
                .await
                .0,
            404
        );
        app.stop().await;
    }
}

#[actix_web::test]
async fn the_log_says_how_a_job_moved_and_what_failed() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = app.job(2, json!({"start": false, "policy": {"max_attempts": 1}})).await;
    let path = format!("/v1/jobs/{job}");
    for verb in ["start", "pause", "resume"] {
        assert_eq!(app.post(&format!("{path}/{verb}"), json!({})).await.0, 200);
    }
    let tasks = app.lease(job, "w7", 2).await;
    app.report(job, "w7", vec![failure(&tasks[0])]).await;
    app.report(job, "w7", vec![success(&tasks[1])]).await;
    app.post(&format!("{path}/retry"), json!({})).await;
    app.post(&format!("{path}/cancel"), json!({})).await;
    let expected = [
        "created pending with 2 tasks",
        "started",
        "paused",
        "resumed",
        "task 0 failed for good at attempt 1: it broke",
        "ended as partially_succeeded; 1 of 2 tasks succeeded, 1 failed, 0 undecided",
        "retried: run 2 started",
        "ended as canceled: canceled with 1 task undecided; 1 of 2 tasks succeeded, 0 failed, 1 undecided",
    ];
    // Nobody waits for these to be written, so the reader does.
    let mut after = 0;
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        let (_, list) = app.get(&format!("{path}/logs?after={after}&wait_s=20")).await;
        after = list["after"].as_i64().unwrap();
        seen.extend(list["items"].as_array().unwrap().iter().cloned());
    }
    let words: Vec<_> = seen.iter().map(|item| item["message"].as_str().unwrap()).collect();
    assert_eq!(words, expected);
    assert_eq!(
        (&seen[4]["worker"], &seen[4]["task"], &seen[4]["level"]),
        (&json!("w7"), &json!(0), &json!("error"))
    );
    assert!(seen.iter().all(|item| item["source"] == "coordinator"));
    app.stop().await;
}

#[actix_web::test]
async fn explain_says_what_a_job_waits_for_and_failures_are_grouped() {
    for place in [Place::sqlite(), Place::postgres().await] {
        let app = App::start(&place, quick()).await;
        let more =
            json!({"stages": stages(), "policy": {"max_attempts": 2, "backoff": {"initial_s": 600, "jitter": 0}}});
        let job = app.job(5, more).await;
        let path = format!("/v1/jobs/{job}");
        let (status, told) = app.get(&format!("{path}/explain")).await;
        let codes = |told: &Value| -> Vec<String> {
            let reasons = told["waits_for"].as_array().unwrap().iter();
            reasons
                .map(|reason| reason["code"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(
            (status, codes(&told)),
            (200, vec!["claimable".into(), "no_workers".into()])
        );
        assert_eq!(told["undecided_total"], 5);
        let tasks = app.lease(job, "w", 4).await;
        let extend = json!({"worker": "w", "leases": [tasks[1]["lease"]], "stage": "detect", "note": "half way"});
        app.post(&format!("{path}/leases/extend"), extend).await;
        let fails = |task: &Value, error: &str, retryable: bool| json!({"lease": task["lease"], "status": "failed", "error": error, "retryable": retryable});
        let results = vec![
            fails(&tasks[0], "try later", true),
            fails(&tasks[2], "no image 17", false),
            fails(&tasks[3], "no image 4", false),
        ];
        app.report(job, "w", results).await;
        app.post(&format!("{path}/pause"), json!({})).await;
        let (_, told) = app.get(&format!("{path}/explain")).await;
        assert_eq!(codes(&told), ["paused", "leased", "retrying"]);
        assert_eq!(told["job"]["state"], "paused");
        let undecided = told["undecided"].as_array().unwrap();
        let brief: Vec<_> = undecided.iter().map(|task| (&task["task"], &task["state"])).collect();
        let expected = [
            (&json!(1), &json!("leased")),
            (&json!(0), &json!("retrying")),
            (&json!(4), &json!("pending")),
        ];
        assert_eq!(brief, expected);
        assert_eq!(
            (&undecided[0]["worker"], &undecided[0]["key"]),
            (&json!("w"), &json!("k1"))
        );
        assert_eq!(
            (&undecided[0]["stage"], &undecided[0]["note"]),
            (&json!("detect"), &json!("half way"))
        );
        assert!(undecided[0]["lease_age_s"].as_f64().unwrap() >= 0.0);
        assert_eq!(
            (&undecided[1]["last_error"], &undecided[1]["attempts"]),
            (&json!("try later"), &json!(1))
        );
        assert!(undecided[1]["retry_at"].is_string());
        let (_, bounded) = app.get(&format!("{path}/explain?limit=1")).await;
        assert_eq!(
            (
                bounded["undecided"].as_array().unwrap().len(),
                &bounded["undecided_total"]
            ),
            (1, &json!(3))
        );
        let (_, failures) = app.get(&format!("{path}/failures")).await;
        let group = &failures["groups"][0];
        assert_eq!((&group["error"], &group["count"]), (&json!("no image #"), &json!(2)));
        assert_eq!((&group["tasks"], &failures["complete"]), (&json!([2, 3]), &json!(true)));
        app.post(&format!("{path}/cancel"), json!({})).await;
        assert_eq!(codes(&app.get(&format!("{path}/explain")).await.1), ["ended"]);
        assert_eq!(app.get("/v1/jobs/999/explain").await.0, 404);
        app.stop().await;
    }
}

#[actix_web::test]
async fn fm41_every_call_is_a_sign_of_life_and_nobody_else_is_shown_alive() {
    for place in [Place::sqlite(), Place::postgres().await] {
        let app = App::start(&place, quick()).await;
        let job = app.job(3, json!({})).await;
        app.job(1, json!({"queue": "other", "start": false})).await;
        let tasks = app.lease(job, "busy", 3).await;
        app.report(job, "busy", vec![success(&tasks[0]), failure(&tasks[1])])
            .await;
        let idle = json!({"worker": "idle", "queues": ["q"], "max_tasks": 1, "wait_s": 0});
        app.post("/v1/leases", idle).await;
        let (_, workers) = app.get("/v1/workers").await;
        let items = workers["items"].as_array().unwrap();
        let names: Vec<_> = items.iter().map(|worker| worker["worker"].as_str().unwrap()).collect();
        assert_eq!(names, ["busy", "idle"]);
        assert!(
            items
                .iter()
                .all(|worker| worker["alive"] == true && worker["queues"] == json!(["q"]))
        );
        assert_eq!(
            (&items[0]["done"], &items[0]["failed"], &items[0]["held"]),
            (&json!(1), &json!(1), &json!(1))
        );
        assert_eq!(items[0]["holds"], json!([{"job": job, "tasks": 1}]));
        let (_, queues) = app.get("/v1/queues").await;
        let (other, q) = (&queues["items"][0], &queues["items"][1]);
        assert_eq!(
            (&other["queue"], &other["jobs"]),
            (&json!("other"), &json!({"pending": 1}))
        );
        assert_eq!(
            (&q["jobs"], &q["node"], &q["workers_alive"]),
            (&json!({"running": 1}), &json!("test"), &json!(2))
        );
        assert_eq!(
            (&other["last_polled"], q["last_polled"].is_string()),
            (&Value::Null, true)
        );
        let (_, nodes) = app.get("/v1/nodes").await;
        assert_eq!(
            (&nodes["items"][0]["node"], &nodes["items"][0]["alive"]),
            (&json!("test"), &json!(true))
        );
        app.stop().await;
    }
}
