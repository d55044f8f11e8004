//! Callbacks of whole nodes, heard by a real receiver, on both stores. Row 56 of FAILURE_MODES.md is here and in `callbacks_crash`.
//!
//! Owns: what a receiver sees, and what the API says of it. Never: looks into the node. Invariant: that something is not sent is shown by
//! what is sent after it, not by waiting.

use crate::app::{App, Place, failure, on_both_stores, quick, success};
use crate::callbacks_receiver::{Answer, OTHER_SECRET, Receiver, SECRET, caller};
use serde_json::{Value, json};
use std::time::Duration;
use tallykeeper::coordinator::{CallbackSettings, Settings};
use tallykeeper::domain::callback::Schedule;
use tallykeeper::domain::ids::JobId;

on_both_stores!(
    fm56_the_end_of_a_job_is_told_once_with_its_tally_and_a_signature,
    fm56_a_refusal_is_tried_again_under_the_same_id,
    fm56_each_run_has_its_own_event,
    fm56_a_deleted_jobs_end_is_told_all_the_same,
    a_receiver_that_hangs_holds_up_no_other,
    a_callback_that_was_given_up_can_be_sent_again,
    a_drain_waits_for_the_call_under_way,
);

/// Attempts that follow each other at once, calls that end soon.
fn prompt() -> Settings {
    Settings {
        callbacks: CallbackSettings {
            call_timeout: Duration::from_secs(10),
            schedule: Schedule {
                first_ms: 20,
                longest_ms: 100,
                ..Schedule::default()
            },
            ..CallbackSettings::default()
        },
        ..quick()
    }
}

async fn node(place: &Place, settings: Settings) -> App {
    App::start_calling(place, settings, caller(&["127.0.0.1"], 10)).await
}

/// Creates a job of one task that has `url` called, and reports its task as done; answers its id.
async fn ended(app: &App, url: &str) -> i64 {
    let job = app.job(1, json!({"callback_url": url})).await;
    let tasks = app.lease(job, "w", 1).await;
    assert_eq!(app.report(job, "w", vec![success(&tasks[0])]).await, ["counted"]);
    job
}

async fn callbacks(app: &App, job: i64) -> Vec<Value> {
    let (status, list) = app.get(&format!("/v1/jobs/{job}/callbacks")).await;
    assert_eq!(status, 200, "{list}");
    list["items"].as_array().expect("a list").clone()
}

/// Looks at the last callback of a job until it is in this state.
async fn settled(app: &App, job: i64, state: &str) -> Value {
    crate::process::until(state, async || {
        let last = callbacks(app, job).await.into_iter().next();
        last.filter(|last| last["state"] == state)
    })
    .await
}

/// A log is written in its own time.
async fn logged(app: &App, job: i64, words: &str) {
    crate::process::until(words, async || {
        let (_, logs) = app.get(&format!("/v1/jobs/{job}/logs")).await;
        logs.to_string().contains(words).then_some(())
    })
    .await;
}

async fn fm56_the_end_of_a_job_is_told_once_with_its_tally_and_a_signature(place: Place) {
    let mut receiver = Receiver::start().await;
    let app = node(&place, prompt()).await;
    let more = json!({
        "callback_url": receiver.url("/hook?a=b"), "labels": {"site": "north"}, "stages": [{"key": "s", "name": "S"}]
    });
    let job = app.job(3, more).await;
    let tasks = app.lease(job, "w", 3).await;
    assert_eq!(callbacks(&app, job).await, [] as [Value; 0]);
    let mut results: Vec<_> = tasks.iter().map(success).collect();
    results[0]["counters"] = json!({"boxes": 4});
    results[2] = failure(&tasks[2]);
    results[2]["retryable"] = json!(false);
    app.report(job, "w", results).await;
    let call = receiver.call().await;
    assert_eq!(call.path, "/hook?a=b");
    assert_eq!(call.headers["content-type"], "application/json");
    assert!(call.headers["user-agent"].starts_with("tallykeeper/"));
    for secret in [SECRET, OTHER_SECRET] {
        assert!(call.is_signed_with(secret), "{call:?}");
    }
    assert!(!call.is_signed_with("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
    let said = call.json();
    let view = app.view(job).await;
    assert_eq!(
        (&said["type"], &said["id"]),
        (&json!("job.completed"), &json!(call.id()))
    );
    assert_eq!(said["timestamp"], view["finished_at"]);
    let data = &said["data"];
    for member in [
        "id",
        "name",
        "queue",
        "state",
        "run",
        "labels",
        "created_at",
        "started_at",
        "finished_at",
    ] {
        assert_eq!(data[member], view[member], "{member}");
    }
    for member in ["total", "succeeded", "failed", "counters"] {
        assert_eq!(data[member], view["progress"][member], "{member}");
    }
    assert_eq!(
        (&data["state"], &data["undecided"]),
        (&json!("partially_succeeded"), &json!(0))
    );
    assert_eq!(data["stages"], json!([{"key": "s", "name": "S", "reached": 2}]));
    let shown = settled(&app, job, "delivered").await;
    assert_eq!(
        (
            &shown["id"],
            &shown["attempts"],
            &shown["last_error"],
            &shown["next_at"]
        ),
        (&json!(call.id()), &json!(1), &Value::Null, &Value::Null)
    );
    assert_eq!(shown["url"], receiver.url("/hook?a=b"));
    // One that ends as it is made is told, too; the first is not told again meanwhile.
    let empty = app.job(0, json!({"callback_url": receiver.url("/empty")})).await;
    assert_eq!(receiver.call().await.path, "/empty");
    settled(&app, empty, "delivered").await;
    assert!(receiver.unseen().is_empty());
    // Nothing waits for a job that calls nobody.
    let silent = app.job(0, json!({})).await;
    assert_eq!(callbacks(&app, silent).await, [] as [Value; 0]);
    assert_eq!(app.coordinator.store().waiting_events().await.unwrap(), 0);
    app.stop().await;
}

async fn fm56_a_refusal_is_tried_again_under_the_same_id(place: Place) {
    let mut receiver = Receiver::start().await;
    receiver.answer([
        Answer::Status(500, ""),
        Answer::Status(302, "Location: /elsewhere\r\n"),
        Answer::Status(503, "Retry-After: 1\r\n"),
    ]);
    let app = node(&place, prompt()).await;
    let job = ended(&app, &receiver.url("/hook")).await;
    let mut calls = Vec::new();
    for _ in 0..4 {
        calls.push(receiver.call().await);
    }
    for call in &calls {
        // A redirect is no other place to call.
        assert_eq!(call.path, "/hook");
        assert_eq!((call.id(), &call.body), (calls[0].id(), &calls[0].body));
        assert!(call.is_signed_with(SECRET));
    }
    let shown = settled(&app, job, "delivered").await;
    assert_eq!(shown["attempts"], 4);
    for part in [
        "answered 500",
        "answered 302; redirects are not followed",
        "callback delivered",
    ] {
        logged(&app, job, part).await;
    }
    app.stop().await;
}

async fn fm56_each_run_has_its_own_event(place: Place) {
    let mut receiver = Receiver::start().await;
    let app = node(&place, prompt()).await;
    let more = json!({"callback_url": receiver.url("/"), "policy": {"max_attempts": 1}});
    let job = app.job(1, more).await;
    let tasks = app.lease(job, "w", 1).await;
    app.report(job, "w", vec![failure(&tasks[0])]).await;
    let first = receiver.call().await;
    app.control(job, "retry", json!({})).await;
    let tasks = app.lease(job, "w", 1).await;
    app.report(job, "w", vec![success(&tasks[0])]).await;
    let second = receiver.call().await;
    assert_ne!(first.id(), second.id());
    let ends = [&first, &second].map(|call| (call.json()["data"]["run"].clone(), call.json()["data"]["state"].clone()));
    assert_eq!(ends, [(json!(1), json!("failed")), (json!(2), json!("succeeded"))]);
    settled(&app, job, "delivered").await;
    let runs: Vec<_> = callbacks(&app, job)
        .await
        .iter()
        .map(|row| row["run"].clone())
        .collect();
    assert_eq!(runs, [2, 1]);
    app.stop().await;
}

async fn fm56_a_deleted_jobs_end_is_told_all_the_same(place: Place) {
    let mut receiver = Receiver::start().await;
    let app = node(&place, prompt()).await;
    let release = receiver.hold();
    let job = ended(&app, &receiver.url("/")).await;
    let first = receiver.call().await;
    assert_eq!(app.call("DELETE", &format!("/v1/jobs/{job}"), Value::Null).await.0, 204);
    release.send(500).expect("the call is held");
    assert_eq!(receiver.call().await.id(), first.id());
    let store = app.coordinator.store().clone();
    crate::process::until("the event goes", async || {
        let left = store.events(JobId(job), 10).await.expect("a look");
        left.is_empty().then_some(())
    })
    .await;
    assert_eq!(app.get(&format!("/v1/jobs/{job}/callbacks")).await.0, 404);
    app.stop().await;
}

async fn a_receiver_that_hangs_holds_up_no_other(place: Place) {
    let (mut slow, mut quick) = (Receiver::start().await, Receiver::start().await);
    let mut settings = prompt();
    settings.callbacks.calls_at_once = 3;
    settings.callbacks.calls_per_receiver = 2;
    settings.callbacks.call_timeout = Duration::from_secs(1);
    let app = App::start_calling(&place, settings, caller(&["127.0.0.0/8"], 1)).await;
    slow.answer((0..4).map(|_| Answer::Hang));
    let mut hung = Vec::new();
    for _ in 0..4 {
        hung.push(ended(&app, &slow.url("/slow")).await);
    }
    slow.call().await;
    slow.call().await;
    for _ in 0..5 {
        let job = ended(&app, &quick.url("/quick")).await;
        assert_eq!(quick.call().await.json()["data"]["id"], job);
        settled(&app, job, "delivered").await;
    }
    // The calls that hang are given up in time, and others get their place.
    for job in hung {
        let told = settled(&app, job, "delivered").await;
        assert!(told["attempts"].as_u64() > Some(1), "{told}");
        logged(&app, job, "no answer within 1 s").await;
    }
    app.stop().await;
}

async fn a_callback_that_was_given_up_can_be_sent_again(place: Place) {
    let mut receiver = Receiver::start().await;
    let app = node(&place, prompt()).await;
    receiver.answer([Answer::Status(410, "")]);
    let job = ended(&app, &receiver.url("/")).await;
    let first = receiver.call().await;
    let shown = settled(&app, job, "failed").await;
    assert!(
        shown["given_up_at"].is_string() && shown["next_at"].is_null(),
        "{shown}"
    );
    assert!(shown["last_error"].as_str().unwrap().contains("410"), "{shown}");
    let (_, told) = app.get(&format!("/v1/jobs/{job}/explain")).await;
    assert_eq!(told["waits_for"][1]["code"], "callback_given_up", "{told}");
    let again = |job: i64, id: &str| format!("/v1/jobs/{job}/callbacks/{id}/redeliver");
    let (status, shown) = app.post(&again(job, first.id()), Value::Null).await;
    assert_eq!(
        (status, &shown["state"], &shown["attempts"]),
        (202, &json!("pending"), &json!(0))
    );
    let second = receiver.call().await;
    assert_eq!((second.id(), &second.body), (first.id(), &first.body));
    settled(&app, job, "delivered").await;
    // What was delivered may be wanted again as well.
    assert_eq!(app.post(&again(job, first.id()), json!({})).await.0, 202);
    assert_eq!(receiver.call().await.id(), first.id());
    let other = app.job(0, json!({})).await;
    for path in [
        again(other, first.id()),
        again(job, "job-0"),
        again(job, "%00"),
        again(999, first.id()),
    ] {
        assert_eq!(app.post(&path, json!({})).await.0, 404, "{path}");
    }
    let (_, said) = app.post(&again(job, "job-0"), json!({})).await;
    assert_eq!(said["detail"], "callback not found", "the job itself is there");
    app.stop().await;
}

async fn a_drain_waits_for_the_call_under_way(place: Place) {
    let mut receiver = Receiver::start().await;
    let app = node(&place, prompt()).await;
    let release = receiver.hold();
    let job = ended(&app, &receiver.url("/")).await;
    receiver.call().await;
    let draining = app.coordinator.clone();
    let drained = actix_web::rt::spawn(async move { draining.drain().await });
    crate::process::until("the drain begins", async || app.coordinator.is_draining().then_some(())).await;
    release.send(200).expect("the call is held");
    drained.await.expect("it ends").expect("the node drains");
    let rows = app.coordinator.store().events(JobId(job), 1).await.unwrap();
    assert!(rows[0].delivered_at.is_some(), "{rows:?}");
    app.stop().await;
    // The next node has nothing to tell but what ends there.
    let app = node(&place, prompt()).await;
    let next = ended(&app, &receiver.url("/")).await;
    assert_eq!(receiver.call().await.json()["data"]["id"], next);
    app.stop().await;
}

#[actix_web::test]
async fn a_private_address_is_called_only_where_an_operator_allows_it() {
    let mut receiver = Receiver::start().await;
    let place = Place::sqlite();
    let app = App::start_calling(&place, prompt(), caller(&[], 10)).await;
    let refused = |url: String| {
        let app = &app;
        async move {
            let body = json!({"name": "n", "queue": "q", "callback_url": url});
            let (status, problem) = app.post("/v1/jobs", body).await;
            assert_eq!((status, &problem["field"]), (400, &json!("callback_url")), "{problem}");
            problem["detail"].as_str().expect("words").to_owned()
        }
    };
    let port = receiver.port;
    for host in [
        "127.0.0.1",
        "0x7f000001",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "10.0.0.1",
        "169.254.169.254",
    ] {
        let words = refused(format!("http://{host}:{port}/")).await;
        assert!(words.contains("callbacks.allow"), "{words}");
    }
    assert!(
        refused(format!("http://u:p@example.org:{port}/"))
            .await
            .contains("password")
    );
    // What a name stands for is known when it is called.
    let job = ended(&app, &format!("http://localhost:{port}/")).await;
    let shown = crate::process::until("an attempt fails", async || {
        let last = callbacks(&app, job).await.into_iter().next();
        last.filter(|last| last["last_error"].is_string())
    })
    .await;
    let words = shown["last_error"].as_str().unwrap();
    assert!(words.contains("localhost must be on a public address"), "{words}");
    assert!(receiver.unseen().is_empty());
    app.stop().await;
    // An operator who allows it, with the same event.
    let app = App::start_calling(&place, prompt(), caller(&["127.0.0.0/8", "::1"], 10)).await;
    assert_eq!(receiver.call().await.json()["data"]["id"], job);
    settled(&app, job, "delivered").await;
    app.stop().await;
}

#[actix_web::test]
async fn without_a_secret_a_job_with_a_callback_is_refused_and_says_what_to_set() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let body = json!({"name": "n", "queue": "q", "callback_url": "https://example.org/"});
    let (status, problem) = app.post("/v1/jobs", body).await;
    assert_eq!(
        (status, &problem["code"], &problem["field"]),
        (400, &json!("invalid_request"), &json!("callback_url"))
    );
    let words = problem["detail"].as_str().expect("words");
    assert!(
        words.contains("callbacks.secrets") && words.contains("TALLYKEEPER_CALLBACKS__SECRETS"),
        "{words}"
    );
    assert_eq!(app.get("/v1/jobs").await.1["items"], json!([]));
    app.stop().await;
}

#[actix_web::test]
async fn an_answer_without_an_end_is_not_read_to_it() {
    let mut receiver = Receiver::start().await;
    let app = node(&Place::sqlite(), prompt()).await;
    receiver.answer([Answer::Endless]);
    let job = ended(&app, &receiver.url("/")).await;
    receiver.call().await;
    receiver.until_closed().await;
    assert_eq!(settled(&app, job, "delivered").await["attempts"], 1);
    app.stop().await;
}
