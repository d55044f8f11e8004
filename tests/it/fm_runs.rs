//! Failure modes of how a job begins: started, fed, sealed, and run again. Tests are named for the rows of FAILURE_MODES.md.
//!
//! Owns: rows 23 to 25, 27, 28, 51, 58. Never: reaches behind the API. Invariant: state, error, counts and lists are read from the same
//! answers that users get.

use crate::app::{App, Place, fatal, on_both_stores, quick, success};
use serde_json::{Value, json};
use std::time::Duration;

on_both_stores!(
    fm23_a_job_canceled_while_pending_never_starts,
    fm24_a_restart_or_a_new_run_duplicates_no_task,
    fm25_results_of_an_old_run_are_not_credited_to_the_new_one,
    fm27_a_job_that_was_not_started_is_left_alone,
    fm28_fm58_feeding_and_leasing_go_on_together_and_only_a_seal_ends_it,
    fm51_an_open_job_never_reads_complete,
);

fn in_seconds(seconds: i64) -> String {
    let at = time::OffsetDateTime::now_utc() + Duration::from_secs(seconds as u64);
    at.format(&time::format_description::well_known::Rfc3339).unwrap()
}

async fn fm23_a_job_canceled_while_pending_never_starts(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(2, json!({"start": false})).await;
    assert_eq!(app.control(job, "cancel", json!({})).await["state"], "canceled");
    app.refuses(job, "start", "canceled").await;
    // A time that comes after the cancel starts nothing either; a job of the same time shows that it has come.
    let at = in_seconds(1);
    let timed = app.job(2, json!({"start_at": at})).await;
    assert_eq!(app.view(timed).await["state"], "pending");
    assert_eq!(app.control(timed, "cancel", json!({})).await["state"], "canceled");
    let other = app.job(2, json!({"start_at": at})).await;
    app.until(other, |view| view["state"] == "running").await;
    for job in [job, timed] {
        let view = app.view(job).await;
        assert_eq!(
            (view["state"].as_str(), &view["started_at"]),
            (Some("canceled"), &Value::Null)
        );
        assert_eq!(app.lease(job, "w", 1).await.len(), 0);
    }
    app.stop().await;
}

async fn fm24_a_restart_or_a_new_run_duplicates_no_task(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(6, json!({})).await;
    let tasks = app.lease(job, "w", 4).await;
    app.report(job, "w", vec![success(&tasks[0]), success(&tasks[1]), fatal(&tasks[2])])
        .await;
    let before = app.view(job).await["progress"].clone();
    app.stop().await;
    let app = App::start(&place, quick()).await;
    let after = app.view(job).await["progress"].clone();
    for part in ["total", "pending", "leased", "retrying", "succeeded", "failed", "seq"] {
        assert_eq!(after[part], before[part], "{part}");
    }
    app.control(job, "cancel", json!({})).await;
    let retried = app.control(job, "retry", json!({})).await;
    assert_eq!(
        (retried["run"].clone(), retried["progress"]["total"].clone()),
        (json!(2), json!(6))
    );
    assert_eq!(
        (
            retried["progress"]["succeeded"].clone(),
            retried["progress"]["pending"].clone()
        ),
        (json!(2), json!(4))
    );
    let (status, problem) = app.post(&format!("/v1/jobs/{job}/retry"), json!({"if_run": 1})).await;
    assert_eq!(
        (status, problem["code"].as_str(), problem["run"].clone()),
        (409, Some("wrong_run"), json!(2))
    );
    // The lease of the old run is void.
    let body = json!({"worker": "w", "leases": [tasks[3]["lease"]]});
    let (_, said) = app.post(&format!("/v1/jobs/{job}/leases/extend"), body).await;
    assert_eq!(said["lost"].as_array().unwrap().len(), 1);
    let again = app.lease(job, "w", 100).await;
    assert_eq!(again.len(), 4);
    assert!(
        again
            .iter()
            .all(|task| task["attempt"] == 1 && task["task"].as_u64() >= Some(2))
    );
    app.report(job, "w", again.iter().map(success).collect()).await;
    let view = app.view(job).await;
    assert_eq!(
        (view["state"].as_str(), view["progress"]["succeeded"].clone()),
        (Some("succeeded"), json!(6))
    );
    app.stop().await;
}

async fn fm25_results_of_an_old_run_are_not_credited_to_the_new_one(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(3, json!({})).await;
    let old = app.lease(job, "w", 3).await;
    app.report(job, "w", vec![success(&old[0])]).await;
    app.control(job, "cancel", json!({})).await;
    app.control(job, "retry", json!({"only": "all"})).await;
    assert_eq!(app.view(job).await["progress"]["succeeded"], 0);
    let new = app.lease(job, "w", 3).await;
    assert_eq!(new.len(), 3);
    assert_eq!(
        app.report(job, "w", old.iter().map(success).collect()).await,
        ["stale_run"; 3]
    );
    assert_eq!(app.report(job, "w", vec![fatal(&old[1])]).await, ["stale_run"]);
    let progress = app.view(job).await["progress"].clone();
    assert_eq!(
        (progress["succeeded"].clone(), progress["failed"].clone()),
        (json!(0), json!(0))
    );
    assert_eq!(progress["leased"], 3);
    assert_eq!(
        app.report(job, "w", new.iter().map(success).collect()).await,
        ["counted"; 3]
    );
    assert_eq!(app.view(job).await["state"], "succeeded");
    app.stop().await;
}

async fn fm27_a_job_that_was_not_started_is_left_alone(place: Place) {
    let app = App::start(&place, quick()).await;
    let brief = json!({"policy": {"lease_timeout_s": 1, "max_attempts": 1}});
    let mut pending = brief.clone();
    pending["start"] = json!(false);
    let waits = app.job(1, pending).await;
    let later = app
        .job(
            1,
            json!({"start_at": "2100-01-01T00:00:00Z", "policy": brief["policy"]}),
        )
        .await;
    // Its like is leased, and reaped by its lease; meanwhile nothing happens to those that were never started.
    let reaped = app.job(1, brief).await;
    app.lease(reaped, "dead", 1).await;
    app.until(reaped, |view| view["state"] == "failed").await;
    app.stop().await;
    let app = App::start(&place, quick()).await;
    for job in [waits, later] {
        let view = app.view(job).await;
        assert_eq!(
            (view["state"].as_str(), &view["error"], &view["started_at"]),
            (Some("pending"), &Value::Null, &Value::Null)
        );
    }
    app.control(waits, "start", json!({})).await;
    assert_eq!(app.lease(waits, "w", 1).await.len(), 1);
    app.stop().await;
}

async fn fm28_fm58_feeding_and_leasing_go_on_together_and_only_a_seal_ends_it(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(0, json!({"open": true})).await;
    let path = format!("/v1/jobs/{job}/tasks");
    let feed = async {
        for chunk in 0..10 {
            let tasks: Vec<Value> = (0..20)
                .map(|i| json!({"key": format!("{chunk}-{i}"), "payload": i}))
                .collect();
            // Said twice: what is there already is not added again.
            for (added, existing) in [(20, 0), (0, 20)] {
                let (status, said) = app.post(&path, json!(tasks)).await;
                assert_eq!(
                    (status, said["added"].clone(), said["existing"].clone()),
                    (200, json!(added), json!(existing))
                );
                assert_eq!(said["next_task"], (chunk + 1) * 20);
            }
        }
    };
    let work = async {
        let mut done = 0;
        while done < 200 {
            let tasks = app.poll("w", 50, 10.0).await;
            assert!(!tasks.is_empty(), "starved after {done}");
            done += tasks.len();
            assert!(
                app.report(job, "w", tasks.iter().map(success).collect())
                    .await
                    .iter()
                    .all(|said| said == "counted")
            );
        }
    };
    tokio::join!(feed, work);
    // All is decided, and the job goes on: somebody may still add to it.
    let view = app.view(job).await;
    assert_eq!(
        (view["state"].as_str(), view["progress"]["succeeded"].clone()),
        (Some("running"), json!(200))
    );
    let (_, said) = app.post(&path, json!([{"payload": 1}])).await;
    assert_eq!(said["next_task"], 201);
    let sealed = app.control(job, "seal", json!({})).await;
    assert_eq!(
        (sealed["state"].as_str(), sealed["open"].clone()),
        (Some("running"), json!(false))
    );
    let (status, problem) = app.post(&path, json!([{"payload": 1}])).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("job_sealed")));
    let last = app.lease(job, "w", 9).await;
    app.report(job, "w", vec![success(&last[0])]).await;
    assert_eq!(app.view(job).await["state"], "succeeded");
    // A seal with nothing left to decide is the end itself.
    let job = app.job(1, json!({"open": true})).await;
    let tasks = app.lease(job, "w", 1).await;
    app.report(job, "w", vec![success(&tasks[0])]).await;
    assert_eq!(app.view(job).await["state"], "running");
    assert_eq!(app.control(job, "seal", json!({})).await["state"], "succeeded");
    app.stop().await;
}

async fn fm51_an_open_job_never_reads_complete(place: Place) {
    let app = App::start(&place, quick()).await;
    for (expected, share) in [
        (json!(null), json!(null)),
        (json!(8), json!(0.5)),
        (json!(2), json!("below 1")),
    ] {
        let mut more = json!({"open": true});
        if !expected.is_null() {
            more["expected_total"] = expected;
        }
        let job = app.job(4, more).await;
        let tasks = app.lease(job, "w", 4).await;
        app.report(job, "w", tasks.iter().map(success).collect()).await;
        let fraction = app.view(job).await["progress"]["fraction"].clone();
        match share {
            Value::String(_) => assert!(fraction.as_f64().is_some_and(|share| share < 1.0), "{fraction}"),
            share => assert_eq!(fraction, share),
        }
        assert_eq!(app.control(job, "seal", json!({})).await["progress"]["fraction"], 1.0);
    }
    app.stop().await;
}
