//! What the clients of `/api/v2` rely on beside the happy path: spellings, tokens, the form of errors, and posts that wait.
//!
//! Owns: those. Never: measures how long something took; what waited is known by what had to happen first. Invariant: none of its own.

use crate::antenna_client::{Worker, success};
use crate::app::{App, Place, quick};
use crate::cluster::Cluster;
use crate::http_auth::token;
use crate::http_call::{raw, send, send_as, until_closed};
use serde_json::{Value, json};
use std::time::Duration;
use tallykeeper::coordinator::Settings;
use tallykeeper::http::HttpSettings;
use tallykeeper::http::routes::ROUTES;

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

#[actix_web::test]
async fn every_path_is_served_with_and_without_its_last_slash_and_never_redirected() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = Worker::of(&app).create("a", 0..1, json!({})).await;
    let routes: Vec<_> = ROUTES
        .iter()
        .filter(|entry| entry.path.starts_with("/api/v2/"))
        .collect();
    assert_eq!(routes.len(), 11);
    for entry in routes {
        let path = entry.path.replace("{id}", &job.to_string()).replace("{project}", "1");
        let bare = path.strip_suffix('/').expect("the table spells it with the slash");
        let method = entry.method.as_str();
        let (headers, body): (&[_], _) = if method == "POST" { (&JSON, "{}") } else { (&[], "") };
        let slashed = send(&app.url, method, &path, headers, body).await;
        let direct = send(&app.url, method, bare, headers, body).await;
        for answer in [&slashed, &direct] {
            assert!(
                ![301, 302, 307, 308, 404, 405].contains(&answer.status),
                "{method} {path}: {answer:?}"
            );
        }
        assert_eq!(send(&app.url, "PUT", bare, &[], "").await.status, 405, "{bare}");
    }
    let lost = send(&app.url, "GET", "/api/v2/nothing/", &[], "").await;
    assert_eq!((lost.status, lost.json()), (404, json!({"detail": "path not found"})));
    let wrong = send(&app.url, "PUT", "/api/v2/jobs/", &[], "").await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, "GET, POST, HEAD"));
    app.stop().await;
}

#[actix_web::test]
async fn tokens_of_either_scheme_carry_the_same_scopes_and_queues() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let foreign = app.job(1, json!({"queue": "theirs"})).await;
    let own = app.job(1, json!({"queue": "mine"})).await;
    let (_, admin) = token(&app, "", json!({"name": "admin", "scopes": ["admin"]})).await;
    let limited = json!({"name": "gpu", "scopes": ["work"], "queues": ["mine"]});
    let (_, secret) = token(&app, &admin, limited).await;
    let anonymous = send(&app.url, "GET", "/api/v2/jobs", &[], "").await;
    assert_eq!((anonymous.status, anonymous.header("www-authenticate")), (401, "Token"));
    assert!(anonymous.json()["detail"].is_string() && anonymous.header("content-type").starts_with("application/json"));
    let worker = Worker::of(&app).with_token(&secret);
    assert_eq!(worker.jobs("mine,theirs").await, [own]);
    assert_eq!(worker.listed("").await, [own]);
    assert_eq!(worker.listed("ids_only=1&limit=9").await, [own]);
    let bearer = send_as(&app, &secret, "GET", "/api/v2/jobs/", Value::Null).await;
    assert_eq!(bearer.status, 200);
    for (method, path, body) in [
        ("GET", "", Value::Null),
        ("POST", "tasks/", json!({"batch_size": 1})),
        ("POST", "result/", json!({"results": []})),
    ] {
        let theirs = worker
            .call(method, &format!("/jobs/{foreign}/{path}"), body.clone())
            .await;
        let missing = worker.call(method, &format!("/jobs/999/{path}"), body).await;
        assert_eq!(theirs, (404, json!({"detail": "job not found"})));
        assert_eq!(theirs, missing, "the two must look the same");
    }
    let register = |slug: &str| json!({"processing_service_name": "s", "pipelines": [{"slug": slug}]});
    assert_eq!(
        worker
            .call("POST", "/projects/1/pipelines/", register("theirs"))
            .await
            .0,
        404
    );
    assert_eq!(
        worker.call("POST", "/projects/1/pipelines/", register("mine")).await.0,
        201
    );
    for path in ["/jobs/", "/jobs/1/cancel/"] {
        let (status, error) = worker.call("POST", path, json!({})).await;
        assert_eq!((status, error["detail"].is_string()), (403, true), "{error}");
    }
    let admin = Worker::of(&app).with_token(&admin);
    assert_eq!(admin.tasks(foreign, 1).await.len(), 1);
    app.stop().await;
}

#[actix_web::test]
async fn a_malformed_request_is_refused_whole_and_names_the_member() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 0..2, json!({})).await;
    let task = &worker.tasks(job, 1).await[0];
    let result = format!("/jobs/{job}/result/");
    let subject = &task["reply_subject"];
    for (body, field) in [
        (json!([success(task)]), "results"),
        (json!([]), "results"),
        (json!({"result": []}), "results"),
        (json!({"results": [{"result": {}}]}), "results[0].reply_subject"),
        (
            json!({"results": [success(task), {"reply_subject": subject}]}),
            "results[1].result",
        ),
        (json!({"results": success(task)}), "results"),
    ] {
        let (status, error) = worker.call("POST", &result, body.clone()).await;
        assert_eq!((status, error[field][0].is_string()), (400, true), "{body}: {error}");
        assert_eq!(error.as_object().unwrap().len(), 1);
    }
    let tasks = format!("/jobs/{job}/tasks/");
    for body in [
        json!({}),
        json!({"batch_size": 0}),
        json!({"batch_size": -3}),
        json!({"batch_size": "x"}),
        json!([5]),
        json!({"batch_size": null}),
    ] {
        let (status, error) = worker.call("POST", &tasks, body.clone()).await;
        assert_eq!(
            (status, error["batch_size"][0].is_string()),
            (400, true),
            "{body}: {error}"
        );
    }
    assert_eq!(app.view(job).await["progress"]["leased"], 1, "nothing was done");
    assert_eq!(
        worker
            .call("POST", &tasks, json!({"batch_size": "1", "more": 1}))
            .await
            .1["tasks"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    for query in ["logs_limit=0", "logs_limit=5001", "logs_limit=many"] {
        let (status, error) = worker.get(&format!("/jobs/{job}/?{query}")).await;
        assert_eq!(
            (status, error["logs_limit"][0].is_string()),
            (400, true),
            "{query}: {error}"
        );
    }
    let garbled = send(&app.url, "POST", &format!("/api/v2{result}"), &JSON, "{\"results\":").await;
    assert_eq!((garbled.status, garbled.json()["detail"].is_string()), (400, true));
    assert_eq!(worker.report(job, vec![success(task)]).await, ["counted"]);
    app.stop().await;
}

#[actix_web::test]
async fn a_connection_for_tasks_is_kept_and_an_idle_one_for_long() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = Worker::of(&app).create("a", 0..4, json!({})).await;
    assert!(
        HttpSettings::default().keep_alive_s >= 120,
        "a close racing a POST loses that fetch"
    );
    let body = r#"{"batch_size":1}"#;
    let close = ["", "Connection: close\r\n"];
    let requests = close.map(|close| {
        format!("POST /api/v2/jobs/{job}/tasks/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{close}Content-Length: {}\r\n\r\n{body}", body.len())
    });
    let both = until_closed(raw(&app, &requests.concat()).await).await;
    assert_eq!(both.matches("HTTP/1.1 200").count(), 2, "{both}");
    app.stop().await;
}

/// Few permits, so that posts have to queue for one; the queue is what is tested.
#[actix_web::test]
async fn posts_wait_for_their_turn_instead_of_being_sent_away() {
    let settings = Settings {
        result_permits: 1,
        lease_permits: 1,
        ..quick()
    };
    let app = App::start(&Place::sqlite(), settings).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 0..60, json!({})).await;
    let path = format!("/jobs/{job}/tasks/");
    let fetches = (0..30).map(|_| worker.call("POST", &path, json!({"batch_size": 2})));
    let mut tasks = Vec::new();
    for (status, answer) in futures_util::future::join_all(fetches).await {
        assert_eq!(status, 200, "{answer}");
        tasks.extend(answer["tasks"].as_array().unwrap().clone());
    }
    assert_eq!(tasks.len(), 60);
    let posts = tasks.iter().map(|task| worker.report(job, vec![success(task)]));
    for answer in futures_util::future::join_all(posts).await {
        assert_eq!(answer, ["counted"]);
    }
    assert_eq!(worker.detail(job).await["status"], "SUCCESS");
    app.stop().await;
}

/// One body fits into the node's memory; the second waits for the first to leave it.
#[actix_web::test]
async fn a_post_waits_for_room_in_memory() {
    let http = HttpSettings {
        workers: 2,
        body_max_bytes: 1 << 20,
        body_budget_bytes: 1 << 20,
        small_body_max_bytes: 64 << 10,
        ..HttpSettings::default()
    };
    let app = App::start_with(&Place::sqlite(), quick(), http).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 0..1, json!({})).await;
    let task = &worker.tasks(job, 1).await[0];
    let head = format!(
        "POST /api/v2/jobs/{job}/result/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1048576\r\n\r\n{{"
    );
    let hog = raw(&app, &head).await;
    let hogged = async || {
        // Until the node has reserved the first body's bytes, `/v1` is served.
        while send(&app.url, "POST", "/v1/jobs", &JSON, "{}").await.status != 503 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), hogged())
        .await
        .expect("the memory is taken");
    let posting = worker.report(job, vec![success(task)]);
    let release = async {
        tokio::task::yield_now().await;
        drop(hog);
    };
    let (posted, ()) = futures_util::future::join(posting, release).await;
    assert_eq!(posted, ["counted"]);
    app.stop().await;
}

#[actix_web::test]
async fn fm37_antenna_posts_wait_out_a_short_outage_and_are_told_of_a_long_one() {
    let cluster = Cluster::start();
    let place = Place::Postgres(cluster.fresh_database().await);
    let settings = Settings {
        store_wait: Duration::from_millis(200),
        ..quick()
    };
    let http = HttpSettings {
        workers: 2,
        // Longer than a restart of the server takes; only the long outage waits for its end.
        antenna_post_wait_ms: 8_000,
        ..HttpSettings::default()
    };
    let app = App::start_with(&place, settings, http).await;
    let worker = Worker::of(&app);
    let job = worker.create("a", 0..4, json!({})).await;
    let tasks = worker.tasks(job, 2).await;
    cluster.kill();
    let posting = worker.report(job, vec![success(&tasks[0])]);
    let creating = worker.create("b", 0..1, json!({}));
    let restarting = async {
        // The post is under way: /v1 has just been told that the store is away.
        while app.get("/v1/jobs").await.0 != 503 {}
        cluster.restart();
    };
    let (posted, created, ()) = futures_util::future::join3(posting, creating, restarting).await;
    assert_eq!(posted, ["counted"]);
    assert_eq!(worker.listed("pipeline__slug__in=b").await, [created], "created once");
    cluster.kill();
    let result = format!("/jobs/{job}/result/");
    let body = json!({"results": [success(&tasks[1])]}).to_string();
    let late = send(&app.url, "POST", &format!("/api/v2{result}"), &JSON, &body).await;
    let error = late.json();
    assert_eq!(
        (late.status, &error["status"], &error["job_id"]),
        (503, &json!("error"), &json!(job)),
        "{error}"
    );
    assert!(error["detail"].is_string() && !late.header("retry-after").is_empty());
    let (status, error) = worker
        .call("POST", "/jobs/999999/tasks/", json!({"batch_size": 1}))
        .await;
    assert!(status == 503 && error["error"].is_string(), "{error}");
    let listed = send(&app.url, "GET", "/api/v2/jobs/", &[], "").await;
    assert_eq!(
        (listed.status, listed.header("retry-after").is_empty()),
        (503, false),
        "a GET is told at once"
    );
    cluster.restart();
    while app.get(&format!("/v1/jobs/{job}")).await.0 == 503 {}
    let settled = app.until(job, |view| view["progress"]["succeeded"] == 2).await;
    assert_eq!(
        settled["progress"]["counters"]["captures"], 2,
        "what was posted into the outage was kept, once"
    );
    app.stop().await;
}
