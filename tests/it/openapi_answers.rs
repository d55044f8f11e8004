//! What the API document says of every route, held against what a node answers.
//!
//! Owns: one good call of each documented route, and some bad ones. Never: looks into the node. Invariant: a route that is documented and
//! not called here fails the test.

use crate::app::{failure, success};
use crate::http_call::send;
use crate::openapi_held::Held;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::io::AsyncReadExt as _;

#[actix_web::test]
async fn every_documented_route_answers_as_documented() {
    let held = Held::start().await;
    jobs(&held).await;
    work(&held).await;
    streams(&held).await;
    older_api(&held).await;
    errors(&held).await;
    node(&held).await;
    let documented = held.document["paths"].as_object().expect("paths").iter();
    let documented: BTreeSet<_> = documented
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("methods").keys();
            methods.map(|method| (method.to_uppercase(), path.clone()))
        })
        .collect();
    let uncalled: Vec<_> = documented.difference(&held.called.borrow()).cloned().collect();
    assert_eq!(uncalled, [], "documented, and not held against an answer");
    held.app.stop().await;
}

async fn jobs(held: &Held) {
    let whole = json!({
        "name": "n", "queue": "q", "priority": 3, "open": true, "expected_total": 9, "start_at": "2999-01-01T00:00:00Z",
        "labels": {"a": "b"}, "stages": [{"key": "s", "name": "S"}], "tasks": [{"key": "k", "payload": [1]}],
        "policy": {"max_attempts": 2, "backoff": {"initial_s": 0.5}, "failure_threshold": {"count": 1}, "max_in_flight": null}
    });
    let key = [("idempotency-key", "once")];
    let operation = held.operation("POST", "/v1/jobs");
    let header = json!({"name": "Idempotency-Key", "in": "header"});
    let named = operation["parameters"].as_array().expect("parameters").iter();
    assert_eq!(
        named
            .filter(|known| known["name"] == header["name"] && known["in"] == header["in"])
            .count(),
        1
    );
    let made = held.call_with("POST", "/v1/jobs", &[], &key, whole.clone()).await;
    assert_eq!(made.status, 201);
    assert_eq!(held.call_with("POST", "/v1/jobs", &[], &key, whole).await.status, 200);
    let made = made.json();
    assert_eq!(
        (&made["expected_total"], &made["start_at"]),
        (&json!(9), &json!("2999-01-01T00:00:00.000Z"))
    );
    let job = made["id"].to_string();
    let job = job.as_str();
    let explained = held
        .call("GET", "/v1/jobs/{id}/explain?limit=5", &[job], Value::Null)
        .await
        .json();
    let why = explained["waits_for"][0]["message"].as_str().expect("a message");
    assert!(why.starts_with("starts at 2999-01-01T00:00:00.000Z, in "), "{why}");
    held.call("GET", "/v1/jobs?state=pending&queue=q&limit=5", &[], Value::Null)
        .await;
    held.call(
        "POST",
        "/v1/jobs/{id}/tasks?first_task=1",
        &[job],
        json!([{"payload": {"n": 1}}]),
    )
    .await;
    held.call("PATCH", "/v1/jobs/{id}", &[job], json!({"priority": 4}))
        .await;
    for verb in ["start", "pause", "resume", "seal"] {
        let answer = held
            .call("POST", &format!("/v1/jobs/{{id}}/{verb}"), &[job], json!({}))
            .await;
        assert_eq!(answer.status, 200, "{verb}: {answer:?}");
    }
    held.call("GET", "/v1/jobs/{id}/tasks?limit=1", &[job], Value::Null)
        .await;
    held.call("POST", "/v1/jobs/{id}/cancel", &[job], json!({"grace_s": 0}))
        .await;
    held.call("POST", "/v1/jobs/{id}/retry", &[job], json!({"only": "all"}))
        .await;
    held.call("POST", "/v1/jobs/{id}/cancel", &[job], Value::Null).await;
    assert_eq!(
        held.call("DELETE", "/v1/jobs/{id}", &[job], Value::Null).await.status,
        204
    );
}

async fn work(held: &Held) {
    let policy = json!({"max_attempts": 1});
    let more =
        json!({"policy": policy, "callback_url": "http://127.0.0.1:9/hook", "stages": [{"key": "s", "name": "S"}]});
    let job = held.job(5, more).await;
    let job = job.as_str();
    let ask = json!({"worker": "w", "queues": ["q"], "max_tasks": 1, "wait_s": 0.5});
    let any = held.call("POST", "/v1/leases", &[], ask).await.json();
    let granted = held
        .call(
            "POST",
            "/v1/jobs/{id}/leases",
            &[job],
            json!({"worker": "w", "max_tasks": 2}),
        )
        .await
        .json();
    let tasks: Vec<Value> = granted["tasks"].as_array().expect("tasks").clone();
    let leases = json!([tasks[0]["lease"], "never granted"]);
    let extend = json!({"worker": "w", "leases": leases, "stage": "s", "note": "half way"});
    held.call("POST", "/v1/jobs/{id}/leases/extend", &[job], extend).await;
    held.call("GET", "/v1/jobs/{id}", &[job], Value::Null).await;
    held.call("GET", "/v1/jobs/{id}/tasks?state=leased", &[job], Value::Null)
        .await;
    held.call("GET", "/v1/jobs/{id}/explain", &[job], Value::Null).await;
    for path in ["/v1/workers", "/v1/queues", "/v1/nodes"] {
        held.call("GET", path, &[], Value::Null).await;
    }
    let mut counted = success(&tasks[0]);
    counted["counters"] = json!({"found": 3});
    let results = json!({"worker": "w", "results": [counted, failure(&tasks[1])], "then_lease": {"max_tasks": 2}});
    let posted = held.call("POST", "/v1/jobs/{id}/results", &[job], results).await.json();
    let given_back = json!({"worker": "w", "leases": [any["tasks"][0]["lease"], "never granted"]});
    held.call("POST", "/v1/jobs/{id}/leases/release", &[job], given_back)
        .await;
    let entries = json!({"entries": [{"message": "m", "level": "warn", "worker": "w", "task": 0}]});
    held.call("POST", "/v1/jobs/{id}/logs", &[job], entries).await;
    held.call(
        "GET",
        "/v1/jobs/{id}/logs?after=0&wait_s=0.1&limit=9",
        &[job],
        Value::Null,
    )
    .await;
    held.call("GET", "/v1/jobs/{id}/results?limit=1", &[job], Value::Null)
        .await;
    let lines = [("accept", "application/x-ndjson")];
    let streamed = held
        .call_with("GET", "/v1/jobs/{id}/results", &[job], &lines, Value::Null)
        .await;
    assert_eq!(
        (streamed.header("content-type"), streamed.text.lines().count()),
        ("application/x-ndjson", 2)
    );
    let done = tasks[0]["task"].to_string();
    held.call("GET", "/v1/jobs/{id}/tasks/{task}/result", &[job, &done], Value::Null)
        .await;
    held.call("GET", "/v1/jobs/{id}/failures", &[job], Value::Null).await;
    assert_eq!(posted["tasks"].as_array().map(Vec::len), Some(2));
    held.call("POST", "/v1/jobs/{id}/cancel", &[job], json!({})).await;
    held.call("GET", "/v1/jobs/{id}/report", &[job], Value::Null).await;
    let called = held
        .call("GET", "/v1/jobs/{id}/callbacks?limit=3", &[job], Value::Null)
        .await
        .json();
    let callback = called["items"][0]["id"].as_str().expect("an id").to_owned();
    let again = held
        .call(
            "POST",
            "/v1/jobs/{id}/callbacks/{callback}/redeliver",
            &[job, &callback],
            json!({}),
        )
        .await;
    assert_eq!(again.status, 202, "{again:?}");
}

async fn streams(held: &Held) {
    let job = held.job(0, json!({})).await;
    let events = [("accept", "text/event-stream")];
    let stream = held
        .call_with("GET", "/v1/jobs/{id}/progress?rate_hz=5", &[&job], &events, Value::Null)
        .await;
    assert!(stream.text.contains(r#""type":"final""#), "{stream:?}");
    let seen = [("accept", "text/event-stream"), ("last-event-id", "final")];
    let after = held
        .call_with("GET", "/v1/jobs/{id}/progress", &[&job], &seen, Value::Null)
        .await;
    assert_eq!(after.status, 204);
    assert_eq!(held.call("GET", "/v1/progress", &[], Value::Null).await.status, 426);
    // It has no end, so it is read up to what says that all was listed.
    let request = "GET /v1/progress HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
    let mut stream = crate::http_call::raw(&held.app, request).await;
    let mut text = String::new();
    while !text.contains(r#""type":"listed""#) {
        let mut piece = vec![0; 4096];
        let read = stream.read(&mut piece).await.expect("the node writes");
        assert!(read > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&piece[..read]));
    }
    let schema = json!({"$ref": "#/components/schemas/StreamMessage"});
    let messages: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
        .collect();
    assert!(messages.len() > 1, "{text}");
    for message in &messages {
        held.keeps(&schema, message, "GET /v1/progress");
    }
    let ticket = json!({"path": "/v1/progress"});
    assert_eq!(held.call("POST", "/v1/tickets", &[], ticket).await.status, 201);
}

async fn older_api(held: &Held) {
    let image = |n: u32| json!({"image_id": format!("i{n}"), "image_url": format!("http://x/{n}")});
    let create = json!({
        "name": "n", "pipeline_slug": "moths", "project_id": "18", "tasks": [image(1), image(2)], "start_now": false
    });
    let made = held.call("POST", "/api/v2/jobs/", &[], create).await;
    assert_eq!(made.status, 201, "{made:?}");
    let job = made.json()["id"].to_string();
    let job = job.as_str();
    held.call("GET", "/api/v2/jobs/next/?pipeline__slug__in=moths", &[], Value::Null)
        .await;
    held.call("POST", "/api/v2/jobs/{id}/run/", &[job], Value::Null).await;
    assert_eq!(
        held.call("GET", "/api/v2/jobs/next/?pipeline__slug__in=moths", &[], Value::Null)
            .await
            .status,
        200
    );
    held.call(
        "GET",
        "/api/v2/jobs/?pipeline__slug__in=moths&ids_only=1",
        &[],
        Value::Null,
    )
    .await;
    held.call("GET", "/api/v2/jobs/", &[], Value::Null).await;
    held.call("GET", "/api/v2/jobs/{id}/?logs_limit=5", &[job], Value::Null)
        .await;
    let leased = held
        .call("POST", "/api/v2/jobs/{id}/tasks/", &[job], json!({"batch_size": 2}))
        .await
        .json();
    let subject = leased["tasks"][0]["reply_subject"].clone();
    let results = json!({"results": [{"reply_subject": subject, "result": {"error": "it broke", "image_id": "i1"}}]});
    held.call("POST", "/api/v2/jobs/{id}/result/", &[job], results).await;
    held.call("POST", "/api/v2/jobs/{id}/cancel/", &[job], Value::Null)
        .await;
    held.call("POST", "/api/v2/jobs/{id}/retry/", &[job], json!({"only": "all"}))
        .await;
    held.call("GET", "/api/v2/projects/", &[], Value::Null).await;
    let pipelines = json!({"pipelines": [{"slug": "moths"}, {"slug": "bees"}]});
    assert_eq!(
        held.call("POST", "/api/v2/projects/{project}/pipelines/", &["1"], pipelines)
            .await
            .status,
        201
    );
    for (body, field) in [
        (json!({"batch_size": 0}), "batch_size"),
        (json!({"batch_size": []}), "batch_size"),
    ] {
        let refused = send(
            &held.app.url,
            "POST",
            &format!("/api/v2/jobs/{job}/tasks/"),
            &[("content-type", "application/json")],
            &body.to_string(),
        )
        .await;
        held.check(
            held.operation("POST", "/api/v2/jobs/{id}/tasks/"),
            &refused,
            "batch_size",
        );
        assert!(
            refused.status == 400 && refused.json()[field][0].is_string(),
            "{refused:?}"
        );
    }
    // An absent member is spoken of by its name.
    let body = json!({"results": [{"result": {}}]}).to_string();
    let path = format!("/api/v2/jobs/{job}/result/");
    let refused = send(
        &held.app.url,
        "POST",
        &path,
        &[("content-type", "application/json")],
        &body,
    )
    .await;
    held.check(
        held.operation("POST", "/api/v2/jobs/{id}/result/"),
        &refused,
        "reply_subject",
    );
    let words = &refused.json()["results[0].reply_subject"][0];
    assert_eq!(words, "results[0].reply_subject must be present", "{refused:?}");
    assert_eq!(
        held.call("GET", "/api/v2/jobs/{id}/", &["999999"], Value::Null)
            .await
            .status,
        404
    );
}

/// Problems carry text as well as numbers.
async fn errors(held: &Held) {
    let large = json!({"worker": "w", "leases": vec!["l"; 20_000]});
    let refused = held.call("POST", "/v1/jobs/{id}/leases/extend", &["1"], large).await;
    assert!(
        refused.status >= 400 && !refused.json()["limit"].is_null(),
        "{refused:?}"
    );
    let refused = held.call("GET", "/v1/jobs/{id}", &["999999"], Value::Null).await;
    assert_eq!(refused.status, 404);
    let list = held.call("GET", "/v1/jobs?limit=0", &[], Value::Null).await;
    assert!(list.status == 400 && list.json()["limit"].is_string(), "{list:?}");
}

async fn node(held: &Held) {
    for (path, parts) in [
        ("/healthz", &[][..]),
        ("/readyz", &[]),
        ("/openapi.json", &[]),
        ("/docs", &[]),
        ("/docs/{file}", &["index.html"]),
        ("/ui/{file}", &["app.js"]),
        ("/", &[]),
        ("/metrics", &[]),
    ] {
        held.call("GET", path, parts, Value::Null).await;
    }
    let id = held.app.coordinator.node_id().to_owned();
    assert_eq!(
        held.call("POST", "/v1/nodes/{node}/drain", &["nobody"], json!({}))
            .await
            .status,
        404
    );
    // Whoever makes tokens first is let in without one until it is stored.
    let token = held.call("GET", "/v1/tokens", &[], Value::Null).await;
    assert_eq!(token.status, 200);
    assert_eq!(
        held.call("DELETE", "/v1/tokens/{token}", &["t0"], Value::Null)
            .await
            .status,
        404
    );
    assert_eq!(
        held.call("POST", "/v1/nodes/{node}/drain", &[&id], json!({}))
            .await
            .status,
        202
    );
    let made = held
        .call(
            "POST",
            "/v1/tokens",
            &[],
            json!({"name": "n", "scopes": ["read"], "expires_in_s": 60}),
        )
        .await;
    assert_eq!(made.status, 201);
}
