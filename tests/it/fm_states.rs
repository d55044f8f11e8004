//! Failure modes of a job's life: which state follows which, and what everybody is told. Tests are named for the rows of FAILURE_MODES.md.
//!
//! Owns: rows 02 to 07, 09, 18, 30, 52. Never: reaches behind the API. Invariant: state, error, counts and lists
//! are read from the same answers that users get.

use crate::app::{App, Place, assert_sums, failure, fatal, on_both_stores, quick, success};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};

on_both_stores!(
    fm02_fm30_nothing_brings_a_finished_job_back_or_takes_its_work_away,
    fm03_a_canceled_job_stays_canceled_whatever_arrives,
    fm04_the_last_result_itself_ends_the_job,
    fm05_timers_do_not_override_a_cancel,
    fm06_state_and_error_change_in_one_step,
    fm07_stages_and_counts_of_a_final_job_are_at_rest,
    fm09_every_state_can_be_listed_by,
    fm18_fm52_every_end_has_its_reason,
);

async fn fm02_fm30_nothing_brings_a_finished_job_back_or_takes_its_work_away(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(5, json!({})).await;
    let tasks = app.lease(job, "w", 5).await;
    app.report(job, "w", tasks.iter().map(success).collect()).await;
    let done = app.view(job).await;
    assert_eq!(done["state"], "succeeded");
    for verb in ["start", "pause", "resume", "cancel", "retry"] {
        app.refuses(job, verb, "succeeded").await;
    }
    app.control(job, "seal", json!({})).await;
    assert_eq!(
        app.report(job, "w", tasks.iter().map(success).collect()).await,
        ["duplicate"; 5]
    );
    assert_eq!(
        app.report(job, "w", tasks.iter().map(fatal).collect()).await,
        ["superseded"; 5]
    );
    assert_eq!(app.lease(job, "w", 5).await.len(), 0);
    let (status, problem) = app
        .post(&format!("/v1/jobs/{job}/tasks"), json!([{"payload": 1}]))
        .await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("invalid_transition")));
    assert_eq!(app.view(job).await, done);
    app.stop().await;
    let app = App::start(&place, quick()).await;
    let after = app.view(job).await;
    for member in ["state", "run", "finished_at", "updated_at", "error"] {
        assert_eq!(after[member], done[member], "{member}");
    }
    assert_eq!(app.results(job).await.len(), 5);
    app.stop().await;
}

async fn fm03_a_canceled_job_stays_canceled_whatever_arrives(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(3, json!({})).await;
    let tasks = app.lease(job, "w", 3).await;
    app.report(job, "w", vec![success(&tasks[0])]).await;
    let canceled = app.control(job, "cancel", json!({})).await;
    assert_eq!(canceled["state"], "canceled");
    assert_eq!(
        app.report(job, "w", tasks.iter().map(success).collect()).await,
        ["duplicate", "late", "late"]
    );
    assert_eq!(app.report(job, "w", vec![fatal(&tasks[1])]).await, ["late"]);
    let after = app.view(job).await;
    assert_eq!(after["state"], "canceled");
    assert_eq!(
        (
            after["progress"]["succeeded"].clone(),
            after["progress"]["pending"].clone()
        ),
        (json!(1), json!(2))
    );
    // Asked again, it is so already.
    assert_eq!(app.control(job, "cancel", json!({})).await["state"], "canceled");
    for verb in ["start", "pause", "resume"] {
        app.refuses(job, verb, "canceled").await;
    }
    // The late work is kept: the next run has nothing left to do.
    app.control(job, "retry", json!({})).await;
    app.until(job, |view| view["state"] == "succeeded" && view["run"] == 2)
        .await;
    app.stop().await;
}

async fn fm04_the_last_result_itself_ends_the_job(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(3, json!({})).await;
    let tasks = app.lease(job, "w", 3).await;
    for (i, state) in ["running", "running", "succeeded"].into_iter().enumerate() {
        let body = json!({"worker": "w", "results": [success(&tasks[i])]});
        let (_, said) = app.post(&format!("/v1/jobs/{job}/results"), body).await;
        assert_eq!(
            (said["job"]["state"].as_str(), said["job"]["run"].clone()),
            (Some(state), json!(1))
        );
        assert_eq!(app.view(job).await["state"], state);
        let (_, list) = app.get(&format!("/v1/jobs?state={state}")).await;
        assert_eq!(list["items"][0]["id"], job);
    }
    app.stop().await;
}

async fn fm05_timers_do_not_override_a_cancel(place: Place) {
    let app = App::start(&place, quick()).await;
    let policy = json!({"policy": {"lease_timeout_s": 1, "max_attempts": 1}});
    // All is leased, every attempt is the last, and the leases run out after the cancel: still a cancel.
    let job = app.job(2, policy.clone()).await;
    let held = app.lease(job, "dead", 2).await;
    assert_eq!(
        app.control(job, "cancel", json!({"grace_s": 600})).await["state"],
        "canceling"
    );
    let ended = app.until(job, |view| view["finished_at"].is_string()).await;
    assert_eq!(
        (ended["state"].as_str(), ended["error"]["code"].as_str()),
        (Some("canceled"), Some("canceled"))
    );
    assert!(["late", "duplicate"].contains(&app.report(job, "dead", vec![success(&held[0])]).await[0].as_str()));
    assert_eq!(app.view(job).await["state"], "canceled");
    // And a grace that is over ends it, whoever still holds what.
    let job = app.job(2, json!({})).await;
    app.lease(job, "slow", 1).await;
    app.control(job, "cancel", json!({"grace_s": 1})).await;
    app.until(job, |view| view["state"] == "canceled").await;
    app.stop().await;
}

async fn fm06_state_and_error_change_in_one_step(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(40, json!({})).await;
    let over = AtomicBool::new(false);
    let fail = async {
        for task in app.lease(job, "w", 40).await {
            app.report(job, "w", vec![fatal(&task)]).await;
        }
        over.store(true, Ordering::Relaxed);
    };
    let agree = |view: &Value| {
        assert_sums(&view["progress"]);
        let (failed, all) = (view["state"] == "failed", view["progress"]["failed"] == 40);
        assert!(
            [view["error"].is_object(), view["finished_at"].is_string(), all]
                .iter()
                .all(|has| *has == failed),
            "{view}"
        );
    };
    let watch = async {
        while !over.load(Ordering::Relaxed) {
            agree(&app.view(job).await);
            agree(&app.get("/v1/jobs").await.1["items"][0]);
        }
    };
    tokio::join!(fail, watch);
    let view = app.view(job).await;
    assert_eq!(view["state"], "failed");
    agree(&view);
    app.stop().await;
}

async fn fm07_stages_and_counts_of_a_final_job_are_at_rest(place: Place) {
    let app = App::start(&place, quick()).await;
    let stages = json!({"stages": [{"key": "detect", "name": "Detect"}, {"key": "save", "name": "Save"}]});
    for ending in ["partially_succeeded", "canceled"] {
        let job = app.job(4, stages.clone()).await;
        let tasks = app.lease(job, "w", 4).await;
        app.report(
            job,
            "w",
            vec![success(&tasks[0]), success(&tasks[1]), failure(&tasks[3])],
        )
        .await;
        match ending {
            "canceled" => drop(app.control(job, "cancel", json!({})).await),
            _ => drop(app.report(job, "w", vec![fatal(&tasks[2])]).await),
        }
        if ending == "partially_succeeded" {
            let again = app.poll("w", 9, 10.0).await;
            app.report(job, "w", again.iter().map(fatal).collect()).await;
        }
        let view = app.view(job).await;
        let (_, list) = app.get(&format!("/v1/jobs?state={ending}")).await;
        for job in [&view, &list["items"][0]] {
            assert_eq!(job["state"], ending);
            assert_eq!(
                (&job["progress"]["leased"], &job["progress"]["retrying"]),
                (&json!(0), &json!(0))
            );
            for stage in job["progress"]["stages"].as_array().unwrap() {
                assert_eq!((&stage["reached"], &stage["total"]), (&json!(2), &json!(4)));
            }
        }
    }
    app.stop().await;
}

async fn fm09_every_state_can_be_listed_by(place: Place) {
    let app = App::start(&place, quick()).await;
    let mut jobs = Vec::new();
    for state in [
        "pending",
        "running",
        "paused",
        "canceling",
        "succeeded",
        "partially_succeeded",
        "failed",
        "canceled",
    ] {
        let job = app
            .job(2, json!({"start": state != "pending", "labels": {"is": state}}))
            .await;
        let act = async |verb: &str, body| drop(app.control(job, verb, body).await);
        let lease = async || app.lease(job, "w", 2).await;
        let report = async |items| drop(app.report(job, "w", items).await);
        match state {
            "paused" => act("pause", json!({})).await,
            "canceled" => act("cancel", json!({})).await,
            "canceling" => {
                lease().await;
                act("cancel", json!({"grace_s": 600})).await;
            }
            "succeeded" => report(lease().await.iter().map(success).collect()).await,
            "failed" => report(lease().await.iter().map(fatal).collect()).await,
            "partially_succeeded" => {
                let tasks = lease().await;
                report(vec![success(&tasks[0]), fatal(&tasks[1])]).await;
            }
            _ => {}
        }
        jobs.push((job, state));
    }
    let listed = async |filter: &str| {
        let (status, list) = app.get(&format!("/v1/jobs?{filter}")).await;
        assert_eq!(status, 200, "{list}");
        let ids = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|job| job["id"].as_i64().unwrap());
        ids.collect::<Vec<_>>()
    };
    for (job, state) in &jobs {
        assert_eq!(listed(&format!("state={state}")).await, [*job], "{state}");
        assert_eq!(listed(&format!("label=is={state}")).await, [*job], "{state}");
        assert_eq!(
            listed(&format!("label=is={state}&state=running,pending")).await.len(),
            usize::from(*job <= jobs[1].0)
        );
    }
    assert_eq!(listed("state=paused&state=failed").await, [jobs[6].0, jobs[2].0]);
    let newest_first: Vec<i64> = jobs.iter().rev().map(|(job, _)| *job).collect();
    assert_eq!(listed("queue=q&q=es").await, newest_first);
    assert_eq!(listed("queue=other").await, Vec::<i64>::new());
    // Page by page it is the same list.
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let (_, page) = app.get(&format!("/v1/jobs?limit=3{cursor}")).await;
        paged.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|job| job["id"].as_i64().unwrap()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(paged, newest_first);
    app.stop().await;
}

async fn fm18_fm52_every_end_has_its_reason(place: Place) {
    let app = App::start(&place, quick()).await;
    let mut ends = Vec::new();
    for (threshold, good, reason) in [(9, 0, "nothing_succeeded"), (0, 1, "threshold_exceeded")] {
        let job = app
            .job(2, json!({"policy": {"failure_threshold": {"count": threshold}}}))
            .await;
        let tasks = app.lease(job, "w", 2).await;
        let items = tasks
            .iter()
            .enumerate()
            .map(|(i, task)| if i < good { success(task) } else { fatal(task) });
        app.report(job, "w", items.collect()).await;
        ends.push((job, "failed", reason));
    }
    let job = app.job(2, json!({})).await;
    app.control(job, "cancel", json!({})).await;
    ends.push((job, "canceled", "canceled"));
    let early = json!({"policy": {"abort_early": true, "failure_threshold": {"count": 1}}});
    let job = app.job(10, early).await;
    let tasks = app.lease(job, "w", 3).await;
    app.report(job, "w", tasks.iter().map(fatal).collect()).await;
    ends.push((job, "failed", "threshold_exceeded"));
    app.stop().await;
    let app = App::start(&place, quick()).await;
    for (job, state, reason) in ends {
        let view = app.view(job).await;
        assert_eq!(
            (view["state"].as_str(), view["error"]["code"].as_str()),
            (Some(state), Some(reason))
        );
        assert!(view["error"]["message"].as_str().is_some_and(|text| !text.is_empty()));
        assert!(view["finished_at"].is_string());
    }
    app.stop().await;
}
