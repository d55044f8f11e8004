//! Failure modes of handing work out: who is offered what, and how work comes back. Tests are named for the rows of FAILURE_MODES.md.
//!
//! Owns: rows 08, 10 to 14, 26, 34, 53, and the lease calls. Never: waits for the clock where an answer tells. Invariant: a long poll here
//! waits less than a lease lives, so an answer with work can only come from being woken.

use crate::app::{App, PATIENCE, Place, failure, on_both_stores, quick, success};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
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
    a_long_poll_wakes_for_every_way_work_appears,
    a_worker_at_its_cap_does_not_keep_work_from_those_who_wait_behind_it,
    a_poll_is_woken_by_room_under_its_own_cap,
    a_request_id_replays_the_grant_of_whichever_job_gave_it,
    a_request_id_that_got_nothing_is_not_condemned_to_nothing,
    a_grant_that_never_reached_its_client_comes_back_at_once,
    results_and_the_next_lease_travel_together,
    extend_and_release_touch_only_current_leases,
);

fn numbers(tasks: &[Value]) -> Vec<u64> {
    tasks
        .iter()
        .map(|task| task["task"].as_u64().expect("a task has a number"))
        .collect()
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

async fn a_worker_at_its_cap_does_not_keep_work_from_those_who_wait_behind_it(place: Place) {
    let app = App::start(
        &place,
        Settings {
            worker_in_flight: 1,
            ..quick()
        },
    )
    .await;
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
    let app = App::start(
        &place,
        Settings {
            worker_in_flight: 1,
            ..quick()
        },
    )
    .await;
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

async fn a_request_id_that_got_nothing_is_not_condemned_to_nothing(place: Place) {
    let app = App::start(
        &place,
        Settings {
            worker_in_flight: 1,
            ..quick()
        },
    )
    .await;
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
