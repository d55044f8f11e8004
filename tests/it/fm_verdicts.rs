//! Failure modes of judging a job: when its verdict comes, and from what. Tests are named for the rows of FAILURE_MODES.md.
//!
//! Owns: rows 21 and 50. Never: reaches behind the API. Invariant: before its verdict a job runs, and after it nothing of it is handed out.

use crate::app::{App, Place, fatal, on_both_stores, quick, success};
use serde_json::{Value, json};

on_both_stores!(
    fm21_stages_that_every_task_has_passed_are_no_verdict,
    fm50_a_doomed_job_ends_at_once_and_leaves_its_workers_to_others,
    fm50_a_doomed_job_that_is_open_ends_when_it_is_sealed,
    fm50_a_job_that_was_not_asked_to_gives_up_on_no_task,
);

async fn fm21_stages_that_every_task_has_passed_are_no_verdict(place: Place) {
    let app = App::start(&place, quick()).await;
    let stages = json!({"stages": [{"key": "detect", "name": "Detect"}, {"key": "save", "name": "Save"}]});
    for (good, verdict) in [(1, "failed"), (3, "partially_succeeded"), (4, "succeeded")] {
        let job = app.job(4, stages.clone()).await;
        let tasks = app.lease(job, "w", 4).await;
        let leases: Vec<&Value> = tasks.iter().map(|task| &task["lease"]).collect();
        for stage in ["detect", "save"] {
            let body = json!({"worker": "w", "leases": leases, "stage": stage});
            let (_, said) = app.post(&format!("/v1/jobs/{job}/leases/extend"), body).await;
            assert_eq!(said["job_state"], "running", "every task has passed {stage}");
        }
        let reached = app.view(job).await["progress"]["stages"].clone();
        assert_eq!(
            (&reached[0]["fraction"], &reached[1]["fraction"]),
            (&json!(1.0), &json!(1.0))
        );
        app.report(job, "w", tasks[good..].iter().map(fatal).collect()).await;
        assert_eq!(app.view(job).await["state"], "running", "not every task is decided");
        app.report(job, "w", tasks[..good].iter().map(success).collect()).await;
        let view = app.view(job).await;
        assert_eq!(
            (&view["state"], &view["progress"]["succeeded"]),
            (&json!(verdict), &json!(good))
        );
    }
    app.stop().await;
}

/// So many failures are too many.
fn at_most(failures: u32) -> Value {
    json!({"policy": {"abort_early": true, "failure_threshold": {"count": failures}}})
}

async fn fm50_a_doomed_job_ends_at_once_and_leaves_its_workers_to_others(place: Place) {
    let app = App::start(&place, quick()).await;
    let doomed = app.job(100, at_most(2)).await;
    let tasks = app.lease(doomed, "w", 10).await;
    let other = app.job(1, json!({})).await;
    app.report(doomed, "w", tasks[..2].iter().map(fatal).collect()).await;
    assert_eq!(app.view(doomed).await["state"], "running", "two are not too many");
    app.report(doomed, "w", vec![fatal(&tasks[2])]).await;
    let ended = app.view(doomed).await;
    assert_eq!(
        (&ended["state"], &ended["error"]["code"]),
        (&json!("failed"), &json!("threshold_exceeded"))
    );
    assert_eq!(
        (&ended["progress"]["failed"], &ended["progress"]["leased"]),
        (&json!(3), &json!(0))
    );
    // Who works on it hears of it, nobody gets more of it, and whoever asks gets the other job's task.
    let body = json!({"worker": "w", "leases": [tasks[3]["lease"]]});
    let (_, said) = app.post(&format!("/v1/jobs/{doomed}/leases/extend"), body).await;
    assert_eq!(
        (&said["lost"][0], &said["job_state"]),
        (&tasks[3]["lease"], &json!("failed"))
    );
    assert_eq!(app.lease(doomed, "w", 10).await, Vec::<Value>::new());
    let body = json!({"worker": "v", "queues": ["q"], "max_tasks": 50});
    let (_, granted) = app.post("/v1/leases", body).await;
    assert_eq!(
        (&granted["job"]["id"], &granted["tasks"][1]),
        (&json!(other), &Value::Null)
    );
    // What was done all the same is kept and changes nothing, here and after a restart.
    assert_eq!(app.report(doomed, "w", vec![success(&tasks[4])]).await, ["late"]);
    app.stop().await;
    let app = App::start(&place, quick()).await;
    let after = app.view(doomed).await;
    for part in ["state", "error", "finished_at"] {
        assert_eq!(after[part], ended[part], "{part}");
    }
    assert_eq!(after["progress"]["failed"], 3);
    app.stop().await;
}

async fn fm50_a_doomed_job_that_is_open_ends_when_it_is_sealed(place: Place) {
    let app = App::start(&place, quick()).await;
    let mut open = at_most(0);
    open["open"] = json!(true);
    let job = app.job(3, open).await;
    let tasks = app.lease(job, "w", 3).await;
    app.report(job, "w", vec![fatal(&tasks[0])]).await;
    assert_eq!(app.view(job).await["state"], "running", "it may yet grow");
    let sealed = app.control(job, "seal", json!({})).await;
    assert_eq!(
        (&sealed["state"], &sealed["progress"]["leased"]),
        (&json!("failed"), &json!(0))
    );
    app.stop().await;
}

async fn fm50_a_job_that_was_not_asked_to_gives_up_on_no_task(place: Place) {
    let app = App::start(&place, quick()).await;
    let mut patient = at_most(0);
    patient["policy"]["abort_early"] = json!(false);
    let job = app.job(3, patient).await;
    let tasks = app.lease(job, "w", 2).await;
    app.report(job, "w", tasks.iter().map(fatal).collect()).await;
    assert_eq!(app.view(job).await["state"], "running");
    let last = app.lease(job, "w", 1).await;
    assert_eq!(app.report(job, "w", vec![success(&last[0])]).await, ["counted"]);
    assert_eq!(app.view(job).await["state"], "failed", "only now is every task decided");
    app.stop().await;
}
