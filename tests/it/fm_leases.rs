//! Failure modes of handing work out: who is offered what, and how work comes back. Tests are named for the rows of FAILURE_MODES.md.
//!
//! Owns: rows 08, 10 to 14, 26, 29, 53. Never: waits for the clock where an answer tells. Invariant: a long poll here waits longer than a
//! lease lives, where it is expiry that must bring the work back.

use crate::app::{App, Place, failure, numbers, on_both_stores, quick, success};
use serde_json::{Value, json};
use tallykeeper::coordinator::Settings;

on_both_stores!(
    fm08_only_running_jobs_are_offered_and_newer_ones_do_not_starve,
    fm10_small_jobs_are_served_between_the_tasks_of_a_large_one,
    fm11_a_worker_cannot_hoard,
    fm11_a_job_cannot_take_all_workers,
    fm12_listing_changes_nothing,
    fm13_exhausted_attempts_decide_the_task_at_once,
    fm14_fm53_expiry_alone_brings_the_work_of_a_dead_worker_back,
    fm26_nothing_is_leasable_the_moment_a_job_is_canceled,
    fm29_a_slow_worker_that_is_heard_of_is_never_reaped_before_its_first_result,
);

/// Polls queue `q`; answers job and tasks.
async fn poll_job(app: &App, worker: &str, most: usize) -> (Option<i64>, Vec<Value>) {
    let body = json!({"worker": worker, "queues": ["q"], "max_tasks": most});
    let (status, granted) = app.post("/v1/leases", body).await;
    assert_eq!(status, 200, "{granted}");
    (
        granted["job"]["id"].as_i64(),
        granted["tasks"].as_array().unwrap().clone(),
    )
}

async fn fm08_only_running_jobs_are_offered_and_newer_ones_do_not_starve(place: Place) {
    let app = App::start(&place, quick()).await;
    let first = json!({"priority": 9});
    app.job(5, json!({"priority": 9, "start": false})).await;
    app.job(5, json!({"priority": 9, "start_at": "2100-01-01T00:00:00Z"}))
        .await;
    let paused = app.job(5, first.clone()).await;
    app.control(paused, "pause", json!({})).await;
    let canceled = app.job(5, first.clone()).await;
    app.control(canceled, "cancel", json!({})).await;
    let canceling = app.job(5, first.clone()).await;
    assert_eq!(app.lease(canceling, "other", 1).await.len(), 1);
    assert_eq!(
        app.control(canceling, "cancel", json!({"grace_s": 600})).await["state"],
        "canceling"
    );
    let done = app.job(5, first.clone()).await;
    let tasks = app.lease(done, "other", 5).await;
    app.report(done, "other", tasks.iter().map(success).collect()).await;
    let empty = app.job(0, json!({"priority": 9, "open": true})).await;
    for job in [paused, canceled, canceling, done, empty] {
        assert_eq!(app.lease(job, "w", 5).await, Vec::<Value>::new(), "job {job}");
    }
    let newest = app.job(6, json!({"priority": 0})).await;
    for _ in 0..6 {
        assert_eq!(poll_job(&app, "w", 1).await.0, Some(newest));
    }
    assert_eq!(poll_job(&app, "w", 1).await, (None, vec![]));
    app.control(paused, "resume", json!({})).await;
    assert_eq!(poll_job(&app, "w", 1).await.0, Some(paused));
    app.stop().await;
}

async fn fm10_small_jobs_are_served_between_the_tasks_of_a_large_one(place: Place) {
    let app = App::start(&place, quick()).await;
    let large = app.job(500, json!({})).await;
    for _ in 0..5 {
        assert_eq!(poll_job(&app, "w", 10).await.0, Some(large));
    }
    let small = [app.job(3, json!({})).await, app.job(3, json!({})).await];
    for job in small {
        app.view(job).await; // Answered by the job's actor, so its queue knows of it.
    }
    let mut served = Vec::new();
    for _ in 0..6 {
        served.push(poll_job(&app, "w", 1).await.0.expect("there is work"));
    }
    for job in small {
        assert_eq!(served.iter().filter(|&&other| other == job).count(), 2, "{served:?}");
    }
    let urgent = app.job(1, json!({"priority": 1})).await;
    app.view(urgent).await;
    assert_eq!(poll_job(&app, "w", 1).await.0, Some(urgent));
    app.stop().await;
}

async fn fm11_a_worker_cannot_hoard(place: Place) {
    let app = App::start(
        &place,
        Settings {
            worker_in_flight: 5,
            ..quick()
        },
    )
    .await;
    let job = app.job(20, json!({})).await;
    let held = app.lease(job, "greedy", 100).await;
    assert_eq!(held.len(), 5);
    assert_eq!(app.lease(job, "greedy", 100).await.len(), 0);
    assert_eq!(app.poll("modest", 100, 0.0).await.len(), 5);
    app.report(job, "greedy", held[..2].iter().map(success).collect()).await;
    assert_eq!(app.lease(job, "greedy", 100).await.len(), 2);
    app.stop().await;
}

async fn fm11_a_job_cannot_take_all_workers(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(20, json!({"policy": {"max_in_flight": 3}})).await;
    let held = app.lease(job, "a", 100).await;
    assert_eq!((held.len(), app.lease(job, "b", 100).await.len()), (3, 0));
    // Room made by a result goes to whoever waits.
    let (got, _) = tokio::join!(app.poll("b", 100, 10.0), app.report(job, "a", vec![success(&held[0])]));
    assert_eq!(got.len(), 1);
    app.stop().await;
}

async fn fm12_listing_changes_nothing(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(10, json!({})).await;
    let held = app.lease(job, "w", 3).await;
    app.report(job, "w", vec![success(&held[0])]).await;
    let before = app.view(job).await;
    for path in ["/v1/jobs", "/v1/jobs?state=running&queue=q", "/v1/jobs?limit=1"] {
        for _ in 0..5 {
            let (status, list) = app.get(path).await;
            assert_eq!((status, list["items"][0].clone()), (200, before.clone()));
        }
    }
    for path in ["tasks", "results", "tasks?state=pending"] {
        assert_eq!(app.get(&format!("/v1/jobs/{job}/{path}")).await.0, 200);
    }
    assert_eq!(app.view(job).await, before);
    assert_eq!(numbers(&app.lease(job, "w", 100).await), [3, 4, 5, 6, 7, 8, 9]);
    app.stop().await;
}

async fn fm13_exhausted_attempts_decide_the_task_at_once(place: Place) {
    let app = App::start(&place, quick()).await;
    let policy = json!({"policy": {"max_attempts": 3, "backoff": {"initial_s": 0}}});
    let job = app.job(1, policy).await;
    for (attempt, said) in [(1, "retrying"), (2, "retrying"), (3, "counted")] {
        let task = app.lease(job, "w", 1).await;
        assert_eq!(task[0]["attempt"], attempt);
        assert_eq!(app.report(job, "w", vec![failure(&task[0])]).await, [said]);
    }
    let view = app.view(job).await;
    assert_eq!(
        (view["state"].as_str(), view["error"]["code"].is_string()),
        (Some("failed"), true)
    );
    // The same by silence: nobody says anything, and the job ends all the same.
    let job = app
        .job(2, json!({"policy": {"max_attempts": 1, "lease_timeout_s": 1}}))
        .await;
    assert_eq!(app.lease(job, "dead", 2).await.len(), 2);
    let view = app.until(job, |view| view["state"] == "failed").await;
    assert_eq!(view["progress"]["failed"], 2);
    assert_eq!(app.results(job).await[0]["error"], "the lease expired");
    app.stop().await;
}

async fn fm14_fm53_expiry_alone_brings_the_work_of_a_dead_worker_back(place: Place) {
    let app = App::start(&place, quick()).await;
    let policy = json!({"policy": {"lease_timeout_s": 1, "backoff": {"initial_s": 0}}});
    let job = app.job(10, policy).await;
    let held = app.lease(job, "dead", 10).await;
    app.report(job, "dead", held[..3].iter().map(success).collect()).await;
    let mut back = Vec::new();
    while back.len() < 7 {
        let more = app.poll("alive", 100, 15.0).await;
        assert!(!more.is_empty(), "the leases never came back");
        app.report(job, "alive", more.iter().map(success).collect()).await;
        back.extend(more);
    }
    let mut tasks = numbers(&back);
    tasks.sort_unstable();
    assert_eq!(tasks, [3, 4, 5, 6, 7, 8, 9]);
    assert!(back.iter().all(|task| task["attempt"] == 2));
    assert_eq!(app.view(job).await["state"], "succeeded");
    app.stop().await;
}

async fn fm26_nothing_is_leasable_the_moment_a_job_is_canceled(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(10, json!({})).await;
    let held = app.lease(job, "w", 1).await;
    app.control(job, "cancel", json!({})).await;
    assert_eq!(app.lease(job, "w", 10).await.len(), 0);
    assert_eq!(app.poll("w", 10, 0.0).await.len(), 0);
    let body = json!({"worker": "w", "leases": [held[0]["lease"]]});
    let (_, said) = app.post(&format!("/v1/jobs/{job}/leases/extend"), body).await;
    assert_eq!(
        (said["lost"].as_array().unwrap().len(), said["job_state"].as_str()),
        (1, Some("canceled"))
    );
    let (_, tasks) = app.get(&format!("/v1/jobs/{job}/tasks?state=leased")).await;
    assert_eq!(tasks["items"], json!([]));
    app.stop().await;
}

async fn fm29_a_slow_worker_that_is_heard_of_is_never_reaped_before_its_first_result(place: Place) {
    let app = App::start(&place, quick()).await;
    // One attempt is all there is: a lease that ran out would fail the job.
    let slow = app
        .job(
            1,
            json!({"queue": "slow", "policy": {"lease_timeout_s": 3, "max_attempts": 1}}),
        )
        .await;
    let held = app.lease(slow, "slow", 1).await;
    // Time is told by leases of another job that nobody extends: together they last longer than the slow one would by itself.
    let brief = json!({"policy": {"lease_timeout_s": 1, "max_attempts": 5, "backoff": {"initial_s": 0}}});
    let clock = app.job(1, brief).await;
    let body = json!({"worker": "slow", "leases": [held[0]["lease"]]});
    let mut spent = 0;
    while spent < 5 {
        spent += app.poll("dead", 1, 0.2).await.len();
        let (_, said) = app.post(&format!("/v1/jobs/{slow}/leases/extend"), body.clone()).await;
        assert_eq!(said["lost"], json!([]), "after {spent} leases of a second each");
        let view = app.view(slow).await;
        assert_eq!(
            (&view["state"], &view["progress"]["fraction"]),
            (&json!("running"), &json!(0.0))
        );
    }
    assert_eq!(app.report(slow, "slow", vec![success(&held[0])]).await, ["counted"]);
    let view = app.view(slow).await;
    assert_eq!(
        (&view["state"], &view["progress"]["failed"]),
        (&json!("succeeded"), &json!(0))
    );
    app.until(clock, |view| view["state"] == "failed").await;
    app.stop().await;
}
