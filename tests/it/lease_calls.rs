//! The lease calls: what wakes a long poll, what a repetition gets, and what comes back.
//!
//! Owns: their contract over HTTP. Never: waits for the clock where an answer tells. Invariant: a long poll here waits less than a lease
//! lives, so an answer with work can only come from being woken.

use crate::app::{App, PATIENCE, Place, failure, numbers, on_both_stores, quick, success};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tallykeeper::coordinator::Settings;

on_both_stores!(
    a_long_poll_wakes_for_every_way_work_appears,
    a_poll_whose_caller_is_gone_uses_no_wake_up_up,
    a_queue_that_gets_its_first_job_is_asked_by_whoever_waits_at_another,
    a_worker_at_its_cap_does_not_keep_work_from_those_who_wait_behind_it,
    a_poll_is_woken_by_room_under_its_own_cap,
    a_request_id_replays_the_grant_of_whichever_job_gave_it,
    a_client_cannot_ask_for_a_replay_alone,
    a_request_id_that_got_nothing_is_not_condemned_to_nothing,
    a_grant_that_never_reached_its_client_comes_back_at_once,
    results_and_the_next_lease_travel_together,
    extend_and_release_touch_only_current_leases,
);

/// No worker may hold more than one task.
fn one_at_a_time() -> Settings {
    Settings {
        worker_in_flight: 1,
        ..quick()
    }
}

async fn give_back(app: &App, job: i64, worker: &str, tasks: &[Value]) -> Value {
    let leases: Vec<&Value> = tasks.iter().map(|task| &task["lease"]).collect();
    let (status, said) = app
        .post(
            &format!("/v1/jobs/{job}/leases/release"),
            json!({"worker": worker, "leases": leases}),
        )
        .await;
    assert_eq!(status, 200, "{said}");
    said
}

/// Polls, and lets something happen while the poll waits; answers the one task it brought.
async fn woken<T>(app: &App, what: &str, event: impl Future<Output = T>) -> Value {
    let later = async {
        // Round trips that begin after the poll's, so that it is parked when the event comes.
        app.get("/v1/jobs").await;
        app.get("/v1/jobs").await;
        event.await
    };
    let (tasks, _) = tokio::join!(app.poll("w", 1, 10.0), later);
    assert_eq!(tasks.len(), 1, "not woken when {what}");
    tasks[0].clone()
}

async fn a_long_poll_wakes_for_every_way_work_appears(place: Place) {
    let app = App::start(&place, quick()).await;
    let policy = json!({"policy": {"lease_timeout_s": 600, "backoff": {"initial_s": 0.2}}});
    let task = woken(&app, "the queue's first job is created", app.job(1, policy.clone())).await;
    let first = app.get("/v1/jobs").await.1["items"][0]["id"].as_i64().unwrap();
    woken(&app, "its retry is due", app.report(first, "w", vec![failure(&task)])).await;
    app.control(first, "cancel", json!({})).await;
    woken(&app, "a new run is begun", app.control(first, "retry", json!({}))).await;
    let task = woken(&app, "another job is created", app.job(1, policy.clone())).await;
    let second = app.get("/v1/jobs").await.1["items"][0]["id"].as_i64().unwrap();
    let task = woken(&app, "a lease is given back", give_back(&app, second, "w", &[task])).await;
    assert_eq!(task["attempt"], 1);
    let pending = app.job(1, json!({"start": false})).await;
    woken(&app, "a job is started", app.control(pending, "start", json!({}))).await;
    let paused = app.job(1, json!({"open": true})).await;
    app.control(paused, "pause", json!({})).await;
    woken(&app, "a job is resumed", app.control(paused, "resume", json!({}))).await;
    let more = json!([{"payload": 1}]);
    woken(
        &app,
        "tasks are appended",
        app.post(&format!("/v1/jobs/{paused}/tasks"), more),
    )
    .await;
    let soon = (time::OffsetDateTime::now_utc() + Duration::from_secs(1))
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap();
    woken(&app, "a job's time has come", app.job(1, json!({"start_at": soon}))).await;
    let brief = app
        .job(
            1,
            json!({"policy": {"lease_timeout_s": 1, "backoff": {"initial_s": 0}}}),
        )
        .await;
    woken(&app, "a lease runs out", app.lease(brief, "dead", 1)).await;
    app.stop().await;
}

/// An idle job that tasks can be appended to.
async fn idle(app: &App, queue: &str) -> i64 {
    app.job(0, json!({"queue": queue, "open": true})).await
}

async fn append(app: &App, job: i64) {
    let (status, said) = app
        .post(&format!("/v1/jobs/{job}/tasks"), json!([{"payload": 1}]))
        .await;
    assert_eq!(status, 200, "{said}");
}

async fn a_poll_whose_caller_is_gone_uses_no_wake_up_up(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = idle(&app, "q").await;
    // It ends by itself, and stays among the parked until somebody looks.
    assert_eq!(app.poll("gone", 1, 0.05).await.len(), 0);
    woken(&app, "the first in line has gone", append(&app, job)).await;

    // One that waits in two queues, and is served from the other.
    let other = idle(&app, "r").await;
    let body = json!({"worker": "both", "queues": ["r", "q"], "max_tasks": 1, "wait_s": 10.0});
    let (served, ()) = tokio::join!(app.post("/v1/leases", body), async {
        app.get("/v1/jobs").await;
        app.get("/v1/jobs").await;
        append(&app, other).await;
    });
    assert_eq!(served.1["tasks"].as_array().map(Vec::len), Some(1), "{}", served.1);
    woken(&app, "the first in line was served elsewhere", append(&app, job)).await;
    app.stop().await;
}

async fn a_queue_that_gets_its_first_job_is_asked_by_whoever_waits_at_another(place: Place) {
    let app = App::start(&place, quick()).await;
    idle(&app, "q").await;
    let body = json!({"worker": "w", "queues": ["q", "new"], "max_tasks": 1, "wait_s": 20.0});
    let (served, job) = tokio::join!(app.post("/v1/leases", body), async {
        app.get("/v1/jobs").await;
        app.get("/v1/jobs").await;
        app.job(1, json!({"queue": "new"})).await
    });
    assert_eq!(served.1["job"]["id"], job, "{}", served.1);
    app.stop().await;
}

async fn a_worker_at_its_cap_does_not_keep_work_from_those_who_wait_behind_it(place: Place) {
    let app = App::start(&place, one_at_a_time()).await;
    let job = app.job(2, json!({})).await;
    assert_eq!(app.lease(job, "greedy", 1).await.len(), 1);
    let held = app.lease(job, "third", 1).await;
    let event = async {
        app.get("/v1/jobs").await;
        let second = async {
            app.get("/v1/jobs").await;
            app.get("/v1/jobs").await;
            give_back(&app, job, "third", &held).await
        };
        // The greedy worker waits first, and the one task that appears must pass it by.
        tokio::join!(app.poll("modest", 1, 10.0), second).0
    };
    let (greedy, modest) = tokio::join!(app.poll("greedy", 1, 2.0), event);
    assert_eq!((greedy.len(), modest.len()), (0, 1));
    app.stop().await;
}

async fn a_poll_is_woken_by_room_under_its_own_cap(place: Place) {
    let app = App::start(&place, one_at_a_time()).await;
    let job = app.job(3, json!({})).await;
    let held = app.lease(job, "w", 1).await;
    woken(
        &app,
        "its worker reports",
        app.report(job, "w", vec![success(&held[0])]),
    )
    .await;
    app.stop().await;
}

async fn a_request_id_replays_the_grant_of_whichever_job_gave_it(place: Place) {
    let app = App::start(&place, quick()).await;
    let jobs = [app.job(10, json!({})).await, app.job(10, json!({})).await];
    let other = app.job(10, json!({"queue": "p"})).await;
    let call = async |id: &str| {
        let body = json!({"worker": "w", "queues": ["p", "q"], "max_tasks": 2, "request_id": id});
        app.post("/v1/leases", body).await.1
    };
    let mut seen = std::collections::BTreeSet::new();
    for id in ["r1", "r2", "r3"] {
        let granted = call(id).await;
        assert_eq!(granted["tasks"].as_array().unwrap().len(), 2);
        assert_eq!(call(id).await, granted, "{id}");
        seen.insert(granted["job"]["id"].as_i64().unwrap());
    }
    assert_eq!(seen.len(), 3);
    let leased = async |job| app.view(job).await["progress"]["leased"].as_u64().unwrap();
    assert_eq!(leased(jobs[0]).await + leased(jobs[1]).await + leased(other).await, 6);
    // On one job, and of one worker only.
    let body = |worker| json!({"worker": worker, "max_tasks": 1, "request_id": "same"});
    let path = format!("/v1/jobs/{other}/leases");
    let first = app.post(&path, body("w")).await.1;
    assert_eq!(app.post(&path, body("w")).await.1, first);
    assert_ne!(app.post(&path, body("v")).await.1, first);
    app.stop().await;
}

async fn a_client_cannot_ask_for_a_replay_alone(place: Place) {
    let app = App::start(&place, quick()).await;
    app.job(3, json!({})).await;
    let body = json!({"worker": "w", "queues": ["q"], "max_tasks": 1, "request_id": "r"});
    // Only nodes may: a client would be told that there is nothing while there is work.
    let (status, problem) = app.post("/v1/leases?replay_only=true", body.clone()).await;
    assert_eq!((status, &problem["field"]), (400, &json!("replay_only")), "{problem}");
    let (_, granted) = app.post("/v1/leases", body).await;
    assert_eq!(numbers(granted["tasks"].as_array().unwrap()), [0]);
    app.stop().await;
}

async fn a_request_id_that_got_nothing_is_not_condemned_to_nothing(place: Place) {
    let app = App::start(&place, one_at_a_time()).await;
    let job = app.job(2, json!({})).await;
    let held = app.lease(job, "w", 1).await;
    let call = json!({"worker": "w", "max_tasks": 1, "request_id": "r"});
    let path = format!("/v1/jobs/{job}/leases");
    assert_eq!(app.post(&path, call.clone()).await.1["tasks"], json!([]));
    app.report(job, "w", vec![success(&held[0])]).await;
    assert_eq!(app.post(&path, call).await.1["tasks"].as_array().unwrap().len(), 1);
    app.stop().await;
}

async fn a_grant_that_never_reached_its_client_comes_back_at_once(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(50, json!({})).await;
    let leased = |view: &Value| view["progress"]["leased"].as_u64().unwrap();
    for round in 0..20 {
        let body = json!({"worker": "gone", "max_tasks": 50, "request_id": format!("r{round}")});
        app.shout(&format!("/v1/jobs/{job}/leases"), &body.to_string());
    }
    let body = json!({"worker": "gone", "queues": ["q"], "max_tasks": 50, "wait_s": 30});
    app.shout("/v1/leases", &body.to_string());
    // The leases live for minutes: they are back because the connection was closed.
    app.until(job, |view| leased(view) == 0).await;
    let mut all = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    // A request of the dead may still be on its way; what it gets comes back as well.
    while all.len() < 50 && Instant::now() < deadline {
        all.extend(app.poll("alive", 50, 1.0).await);
    }
    assert_eq!(all.len(), 50);
    assert!(
        all.iter().all(|task| task["attempt"] == 1),
        "giving back spends nothing"
    );
    // A repetition under the id of a grant that came back is answered with work, not with that nothing.
    give_back(&app, job, "alive", &all).await;
    let body = json!({"worker": "gone", "max_tasks": 1, "request_id": "r19"});
    assert_eq!(
        app.post(&format!("/v1/jobs/{job}/leases"), body).await.1["tasks"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    app.stop().await;
}

async fn results_and_the_next_lease_travel_together(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(5, json!({})).await;
    let path = format!("/v1/jobs/{job}/results");
    let mut held = app.lease(job, "w", 2).await;
    let mut done = 0;
    while !held.is_empty() {
        done += held.len();
        let items: Vec<Value> = held.iter().map(success).collect();
        let (status, said) = app
            .post(
                &path,
                json!({"worker": "w", "results": items, "then_lease": {"max_tasks": 2}}),
            )
            .await;
        assert_eq!((status, said["job"]["id"].as_i64()), (200, Some(job)));
        held = said["tasks"]
            .as_array()
            .expect("then_lease is answered, if with nothing")
            .clone();
    }
    assert_eq!((done, app.view(job).await["state"].as_str()), (5, Some("succeeded")));
    // Without results it is a lease.
    let job = app.job(1, json!({})).await;
    let path = format!("/v1/jobs/{job}/results");
    let (_, said) = app
        .post(
            &path,
            json!({"worker": "w", "results": [], "then_lease": {"max_tasks": 9}}),
        )
        .await;
    assert_eq!(
        (said["results"].clone(), said["tasks"].as_array().unwrap().len()),
        (json!([]), 1)
    );
    app.stop().await;
}

async fn extend_and_release_touch_only_current_leases(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(4, json!({"policy": {"lease_timeout_s": 600}})).await;
    let held = app.lease(job, "w", 4).await;
    app.report(job, "w", vec![success(&held[0])]).await;
    assert_eq!(
        give_back(&app, job, "w", &held[1..2]).await["released"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let leases: Vec<&Value> = held.iter().map(|task| &task["lease"]).collect();
    let again = app.lease(job, "v", 1).await;
    assert_eq!((numbers(&again), again[0]["attempt"].clone()), (vec![1], json!(1)));
    let body = json!({"worker": "w", "leases": leases.iter().chain([&&json!("nonsense")]).collect::<Vec<_>>()});
    let (_, said) = app.post(&format!("/v1/jobs/{job}/leases/extend"), body.clone()).await;
    let kept: Vec<&Value> = said["extended"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lease| &lease["lease"])
        .collect();
    assert_eq!(kept, [leases[2], leases[3]]);
    assert_eq!(said["lost"], json!([leases[0], leases[1], "nonsense"]));
    // The old token of a task that another worker holds gives nothing back, and its failure counts for nothing; its success does.
    let (_, said) = app.post(&format!("/v1/jobs/{job}/leases/release"), body).await;
    assert_eq!(said["released"], json!([leases[2], leases[3]]));
    assert_eq!(app.report(job, "w", vec![failure(&held[1])]).await, ["superseded"]);
    assert_eq!(app.report(job, "w", vec![success(&held[1])]).await, ["counted"]);
    assert_eq!(app.report(job, "v", vec![success(&again[0])]).await, ["duplicate"]);
    app.stop().await;
}
