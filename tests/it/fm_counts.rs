//! Failure modes of counting: what a result does to the tally, seen over HTTP. Tests are named for the rows of FAILURE_MODES.md.
//!
//! Owns: rows 01, 16, 19, 20, 21, 31 to 35, 37, 48, 49, 57. Never: reaches behind the API. Invariant: the tally, the dispositions and the
//! stored rows are compared with each other, never only one of them with a number.

use crate::app::{App, Place, failure, fatal, on_both_stores, quick, success};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

on_both_stores!(
    fm01_sixty_four_concurrent_posters_lose_nothing,
    fm16_a_replay_counts_once_however_often_and_at_whatever_time,
    fm19_early_failures_are_no_verdict,
    fm20_the_verdict_does_not_depend_on_what_came_last,
    fm21_a_verdict_is_taken_from_the_whole_run,
    fm31_a_late_success_corrects_a_failure_until_the_job_is_final,
    fm32_failed_tasks_fail_a_job_only_by_policy,
    fm33_a_failure_names_its_task_by_the_lease_alone,
    fm35_a_bad_item_fails_none_of_its_neighbours,
    fm37_a_post_whose_answer_was_lost_is_repeated_without_a_second_count,
    fm48_fm57_counts_never_fall_below_zero_or_swing,
    fm49_success_never_hides_failures,
);

/// A success with counters.
fn counted(task: &Value) -> Value {
    let mut item = success(task);
    item["counters"] = json!({"seen": 1, "sum": task["task"]});
    item
}

fn number(task: &Value) -> u64 {
    task["task"].as_u64().expect("a task has a number")
}

/// Posts results; answers what became of each task.
async fn post(app: &App, job: i64, worker: &str, tasks: &[Value]) -> Vec<(u64, String)> {
    let report = |task: &Value| {
        if number(task) % 10 == 9 {
            fatal(task)
        } else {
            counted(task)
        }
    };
    let said = app.report(job, worker, tasks.iter().map(report).collect()).await;
    tasks.iter().map(number).zip(said).collect()
}

async fn fm01_sixty_four_concurrent_posters_lose_nothing(place: Place) {
    const POSTERS: usize = 64;
    const EACH: usize = 10;
    let app = App::start(&place, quick()).await;
    let job = app.job(POSTERS * EACH, json!({})).await;
    let names: Vec<String> = (0..POSTERS).map(|i| format!("w{i}")).collect();
    let held = join_all(names.iter().map(|name| app.lease(job, name, EACH))).await;
    let posters = (0..POSTERS).map(|i| {
        let (app, name, mine, neighbours) = (&app, &names[i], &held[i], &held[(i + 1) % POSTERS]);
        async move {
            // A batch and its duplicate, singles, and a neighbour's tasks, all at the same time as everybody else's.
            let batch = async { join_all([post(app, job, name, &mine[..5]), post(app, job, name, &mine[..5])]).await };
            let singles = join_all(
                mine[5..]
                    .iter()
                    .map(|task| post(app, job, name, std::slice::from_ref(task))),
            );
            let foreign = post(app, job, name, &neighbours[3..7]);
            let (batch, singles, foreign) = tokio::join!(batch, singles, foreign);
            batch
                .into_iter()
                .chain(singles)
                .chain([foreign])
                .flatten()
                .collect::<Vec<_>>()
        }
    });
    let said: Vec<(u64, String)> = join_all(posters).await.into_iter().flatten().collect();
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for (task, disposition) in &said {
        assert!(
            ["counted", "duplicate", "superseded"].contains(&disposition.as_str()),
            "{task}: {disposition}"
        );
        *counts.entry(*task).or_default() += usize::from(disposition == "counted");
    }
    assert_eq!(counts.len(), POSTERS * EACH);
    assert!(counts.values().all(|&times| times == 1), "{counts:?}");

    let view = app.view(job).await;
    let rows = app.results(job).await;
    let tasks: BTreeSet<u64> = rows.iter().map(number).collect();
    assert_eq!((rows.len(), tasks.len()), (POSTERS * EACH, POSTERS * EACH));
    let good: Vec<&Value> = rows.iter().filter(|row| row["status"] == "succeeded").collect();
    assert_eq!(view["state"], "partially_succeeded");
    assert_eq!(view["progress"]["succeeded"], good.len());
    assert_eq!(view["progress"]["failed"], rows.len() - good.len());
    let sum: u64 = good.iter().map(|row| number(row)).sum();
    assert_eq!(view["progress"]["counters"], json!({"seen": good.len(), "sum": sum}));
    app.stop().await;
    // What is durable says the same to the next node.
    let app = App::start(&place, quick()).await;
    assert_eq!(
        app.view(job).await["progress"]["counters"],
        view["progress"]["counters"]
    );
    assert_eq!(
        app.view(job).await["progress"]["succeeded"],
        view["progress"]["succeeded"]
    );
    app.stop().await;
}

async fn fm16_a_replay_counts_once_however_often_and_at_whatever_time(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(4, json!({})).await;
    let tasks = app.lease(job, "w", 3).await;
    let items: Vec<Value> = tasks.iter().map(counted).collect();
    let said = join_all((0..16).map(|_| app.report(job, "w", items.clone()))).await;
    let counted = said.iter().flatten().filter(|said| *said == "counted").count();
    let duplicates = said.iter().flatten().filter(|said| *said == "duplicate").count();
    assert_eq!((counted, duplicates), (3, 45));
    // The same item twice in one request.
    let last = app.lease(job, "w", 1).await;
    let twice = vec![self::counted(&last[0]), self::counted(&last[0])];
    assert_eq!(app.report(job, "w", twice).await, ["counted", "duplicate"]);
    app.stop().await;
    let app = App::start(&place, quick()).await;
    assert_eq!(app.report(job, "w", items).await, ["duplicate"; 3]);
    let progress = app.view(job).await["progress"].clone();
    assert_eq!(
        (progress["succeeded"].clone(), progress["counters"].clone()),
        (json!(4), json!({"seen": 4, "sum": 6}))
    );
    app.stop().await;
}

async fn fm19_early_failures_are_no_verdict(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app
        .job(20, json!({"policy": {"failure_threshold": {"ratio": 0.5}}}))
        .await;
    let tasks = app.lease(job, "w", 20).await;
    assert_eq!(
        app.report(job, "w", tasks[..10].iter().map(fatal).collect()).await,
        ["counted"; 10]
    );
    let view = app.view(job).await;
    assert_eq!(
        (view["state"].as_str(), view["error"].clone()),
        (Some("running"), Value::Null)
    );
    app.report(job, "w", tasks[10..].iter().map(success).collect()).await;
    // Half is not more than half.
    assert_eq!(app.view(job).await["state"], "partially_succeeded");
    app.stop().await;
}

async fn fm20_the_verdict_does_not_depend_on_what_came_last(place: Place) {
    let app = App::start(&place, quick()).await;
    for failure_first in [true, false] {
        let job = app.job(3, json!({"policy": {"failure_threshold": {"count": 0}}})).await;
        let tasks = app.lease(job, "w", 3).await;
        let mut items: Vec<Value> = tasks.iter().map(success).collect();
        let bad = if failure_first { 0 } else { 2 };
        items[bad] = fatal(&tasks[bad]);
        for item in items {
            app.report(job, "w", vec![item]).await;
        }
        let view = app.view(job).await;
        assert_eq!(
            (view["state"].as_str(), view["error"]["code"].as_str()),
            (Some("failed"), Some("threshold_exceeded"))
        );
    }
    app.stop().await;
}

async fn fm21_a_verdict_is_taken_from_the_whole_run(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(4, json!({"policy": {"failure_threshold": {"count": 1}}})).await;
    let tasks = app.lease(job, "w", 4).await;
    app.report(job, "w", tasks[..2].iter().map(fatal).collect()).await;
    app.report(job, "w", tasks[2..].iter().map(success).collect()).await;
    let first = app.view(job).await;
    assert_eq!(
        (first["state"].as_str(), first["run"].clone()),
        (Some("failed"), json!(1))
    );
    // The next run keeps the two successes and is judged by all four tasks, not by the two it repeats.
    app.control(job, "retry", json!({"if_run": 1})).await;
    let again = app.lease(job, "w", 4).await;
    assert_eq!(again.len(), 2);
    app.report(job, "w", vec![fatal(&again[0]), success(&again[1])]).await;
    let second = app.view(job).await;
    assert_eq!(
        (second["state"].as_str(), second["run"].clone()),
        (Some("partially_succeeded"), json!(2))
    );
    assert_eq!(
        (second["error"].clone(), second["progress"]["succeeded"].clone()),
        (Value::Null, json!(3))
    );
    app.stop().await;
}

async fn fm31_a_late_success_corrects_a_failure_until_the_job_is_final(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(3, json!({})).await;
    let tasks = app.lease(job, "w", 3).await;
    app.report(job, "w", vec![fatal(&tasks[0]), fatal(&tasks[1])]).await;
    assert_eq!(app.view(job).await["progress"]["failed"], 2);
    assert_eq!(app.report(job, "w", vec![counted(&tasks[0])]).await, ["counted"]);
    let progress = app.view(job).await["progress"].clone();
    assert_eq!(
        (progress["failed"].clone(), progress["succeeded"].clone()),
        (json!(1), json!(1))
    );
    assert_eq!(app.report(job, "w", vec![fatal(&tasks[0])]).await, ["superseded"]);
    app.report(job, "w", vec![counted(&tasks[2])]).await;
    let done = app.view(job).await;
    assert_eq!(done["state"], "partially_succeeded");
    // After the end it is kept beside the job, and changes nothing.
    assert_eq!(app.report(job, "w", vec![counted(&tasks[1])]).await, ["late"]);
    assert_eq!(app.report(job, "w", vec![counted(&tasks[1])]).await, ["late"]);
    let after = app.view(job).await;
    assert_eq!(
        (&after["state"], &after["progress"]["succeeded"]),
        (&done["state"], &json!(2))
    );
    assert_eq!(after["progress"]["counters"], done["progress"]["counters"]);
    // The next run counts it without doing the work again.
    let retried = app.control(job, "retry", json!({})).await;
    assert_eq!(retried["progress"]["succeeded"], 3);
    let ended = app.until(job, |view| view["state"] == "succeeded").await;
    assert_eq!(ended["progress"]["counters"], json!({"seen": 3, "sum": 3}));
    app.stop().await;
}

async fn fm32_failed_tasks_fail_a_job_only_by_policy(place: Place) {
    let app = App::start(&place, quick()).await;
    for (threshold, ends) in [(3, "partially_succeeded"), (2, "failed")] {
        let job = app
            .job(10, json!({"policy": {"failure_threshold": {"count": threshold}}}))
            .await;
        let tasks = app.lease(job, "w", 10).await;
        let items = tasks
            .iter()
            .enumerate()
            .map(|(i, task)| if i < 3 { fatal(task) } else { success(task) });
        assert_eq!(app.report(job, "w", items.collect()).await, ["counted"; 10]);
        let view = app.view(job).await;
        assert_eq!(
            (view["state"].as_str(), view["progress"]["failed"].clone()),
            (Some(ends), json!(3))
        );
        // The seven that succeeded are there either way.
        let good = app
            .results(job)
            .await
            .into_iter()
            .filter(|row| row["status"] == "succeeded")
            .count();
        assert_eq!(good, 7);
    }
    app.stop().await;
}

async fn fm33_a_failure_names_its_task_by_the_lease_alone(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(5, json!({})).await;
    let tasks = app.lease(job, "w", 5).await;
    assert_eq!(app.report(job, "w", vec![fatal(&tasks[3])]).await, ["counted"]);
    let (_, failed) = app.get(&format!("/v1/jobs/{job}/tasks?state=failed")).await;
    assert_eq!(
        (failed["items"][0]["task"].clone(), failed["items"][0]["key"].clone()),
        (json!(3), json!("k3"))
    );
    assert_eq!(failed["items"].as_array().unwrap().len(), 1);
    let rows = app.results(job).await;
    assert_eq!(
        (rows[0]["task"].clone(), rows[0]["error"].clone()),
        (json!(3), json!("it broke"))
    );
    // Row 34: failed is decided, so the rest ends the job.
    app.report(job, "w", [0, 1, 2, 4].map(|i| success(&tasks[i])).to_vec())
        .await;
    assert_eq!(app.view(job).await["state"], "partially_succeeded");
    app.stop().await;
}

async fn fm35_a_bad_item_fails_none_of_its_neighbours(place: Place) {
    let app = App::start(&place, quick()).await;
    let (job, other) = (app.job(3, json!({})).await, app.job(1, json!({})).await);
    let tasks = app.lease(job, "w", 3).await;
    let foreign = app.lease(other, "w", 1).await;
    let garbage = json!({"lease": "garbage", "status": "succeeded"});
    let mut unusable = success(&tasks[1]);
    unusable["counters"] = json!({"n": 1.5});
    let mut not_a_number = success(&tasks[1]);
    not_a_number["counters"] = json!("many");
    let items = vec![
        garbage,
        success(&tasks[0]),
        success(&foreign[0]),
        unusable,
        not_a_number,
        fatal(&tasks[2]),
    ];
    let said = app.report(job, "w", items).await;
    assert_eq!(
        said,
        ["rejected", "counted", "rejected", "rejected", "rejected", "counted"]
    );
    // The refused item did not use its task up.
    assert_eq!(app.report(job, "w", vec![success(&tasks[1])]).await, ["counted"]);
    assert_eq!(app.view(job).await["state"], "partially_succeeded");
    assert_eq!(app.view(other).await["progress"]["leased"], 1);
    app.stop().await;
}

async fn fm37_a_post_whose_answer_was_lost_is_repeated_without_a_second_count(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(8, json!({})).await;
    for task in app.lease(job, "w", 8).await {
        let body = json!({"worker": "w", "results": [counted(&task)]}).to_string();
        // The client is gone as soon as the request is on its way.
        app.shout(&format!("/v1/jobs/{job}/results"), &body);
        let said = app.report(job, "w", vec![counted(&task)]).await;
        assert!(["counted", "duplicate"].contains(&said[0].as_str()), "{said:?}");
    }
    let view = app.view(job).await;
    assert_eq!(
        (view["state"].as_str(), view["progress"]["counters"].clone()),
        (Some("succeeded"), json!({"seen": 8, "sum": 28}))
    );
    assert_eq!(app.results(job).await.len(), 8);
    app.stop().await;
}

async fn fm48_fm57_counts_never_fall_below_zero_or_swing(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(120, json!({"policy": {"backoff": {"initial_s": 0}}})).await;
    let over = AtomicBool::new(false);
    let work = async {
        for round in 0.. {
            let tasks = app.lease(job, "w", 7).await;
            if tasks.is_empty() {
                break;
            }
            // A third of the leases come back unused, a third fails at first, and everything is said twice.
            let body =
                json!({"worker": "w", "leases": tasks.iter().take(2).map(|task| &task["lease"]).collect::<Vec<_>>()});
            app.post(&format!("/v1/jobs/{job}/leases/release"), body).await;
            let items: Vec<Value> = tasks
                .iter()
                .skip(2 * usize::from(round % 5 != 0))
                .map(|task| {
                    if number(task).is_multiple_of(3) {
                        failure(task)
                    } else {
                        counted(task)
                    }
                })
                .collect();
            app.report(job, "w", items.clone()).await;
            app.report(job, "w", items).await;
        }
        over.store(true, Ordering::Relaxed);
    };
    let watch = async {
        let (mut seen, mut seq) = (0, 0);
        while !over.load(Ordering::Relaxed) {
            // The sums of every view are checked by the call itself.
            let view = app.view(job).await;
            let progress = &view["progress"];
            let decided = progress["succeeded"].as_u64().unwrap() + progress["failed"].as_u64().unwrap();
            let now = progress["seq"].as_u64().unwrap();
            assert!(decided >= seen && now >= seq, "went back to {progress}");
            (seen, seq) = (decided, now);
        }
    };
    tokio::join!(work, watch);
    let view = app.view(job).await;
    assert_eq!(
        (
            view["progress"]["succeeded"].clone(),
            view["progress"]["failed"].clone()
        ),
        (json!(80), json!(40))
    );
    assert_eq!(view["progress"]["counters"]["seen"], 80);
    app.stop().await;
}

async fn fm49_success_never_hides_failures(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(100, json!({})).await;
    let tasks = app.lease(job, "w", 100).await;
    let items = tasks
        .iter()
        .enumerate()
        .map(|(i, task)| if i == 50 { fatal(task) } else { success(task) });
    app.report(job, "w", items.collect()).await;
    let (_, listed) = app.get("/v1/jobs?state=succeeded").await;
    assert_eq!(listed["items"], json!([]));
    let (_, listed) = app.get("/v1/jobs?state=partially_succeeded").await;
    let progress = &listed["items"][0]["progress"];
    assert_eq!(
        (progress["succeeded"].clone(), progress["failed"].clone()),
        (json!(99), json!(1))
    );
    app.stop().await;
}
