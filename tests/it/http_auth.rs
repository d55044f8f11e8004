//! Who may do what: tokens, scopes, queues, and the node without tokens.
//!
//! Owns: the access rules as clients meet them. Never: looks into the node. Invariant: the table of expected scopes here is written by
//! hand, so that a change of the node's own table is noticed.

use crate::app::{App, Place, quick};
use crate::http_call::{send, send_as};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tallykeeper::http::routes::ROUTES;

const EXPECTED: &[(&str, &str, &str)] = &[
    ("POST", "/v1/jobs", "submit"),
    ("GET", "/v1/jobs", "read"),
    ("GET", "/v1/jobs/{id}", "read"),
    ("PATCH", "/v1/jobs/{id}", "submit"),
    ("DELETE", "/v1/jobs/{id}", "submit"),
    ("POST", "/v1/jobs/{id}/tasks", "submit"),
    ("GET", "/v1/jobs/{id}/tasks", "read"),
    ("POST", "/v1/jobs/{id}/seal", "submit"),
    ("POST", "/v1/jobs/{id}/start", "submit"),
    ("POST", "/v1/jobs/{id}/pause", "submit"),
    ("POST", "/v1/jobs/{id}/resume", "submit"),
    ("POST", "/v1/jobs/{id}/cancel", "submit"),
    ("POST", "/v1/jobs/{id}/retry", "submit"),
    ("GET", "/v1/jobs/{id}/callbacks", "read"),
    ("POST", "/v1/jobs/{id}/callbacks/{callback}/redeliver", "submit"),
    ("POST", "/v1/leases", "work"),
    ("POST", "/v1/jobs/{id}/leases", "work"),
    ("POST", "/v1/jobs/{id}/leases/extend", "work"),
    ("POST", "/v1/jobs/{id}/leases/release", "work"),
    ("POST", "/v1/jobs/{id}/logs", "work submit"),
    ("GET", "/v1/jobs/{id}/logs", "read"),
    ("POST", "/v1/jobs/{id}/results", "work"),
    ("GET", "/v1/jobs/{id}/results", "read"),
    ("GET", "/v1/jobs/{id}/tasks/{task}/result", "read"),
    ("GET", "/v1/jobs/{id}/report", "read"),
    ("GET", "/v1/jobs/{id}/progress", "read"),
    ("GET", "/v1/progress", "read"),
    ("POST", "/v1/tickets", "read"),
    ("GET", "/v1/jobs/{id}/explain", "read"),
    ("GET", "/v1/jobs/{id}/failures", "read"),
    ("GET", "/v1/workers", "read"),
    ("GET", "/v1/queues", "read"),
    ("GET", "/v1/nodes", "read"),
    ("POST", "/v1/nodes/{node}/drain", "admin"),
    ("POST", "/v1/tokens", "admin"),
    ("GET", "/v1/tokens", "admin"),
    ("DELETE", "/v1/tokens/{token}", "admin"),
    ("GET", "/api/v2/jobs/", "work read"),
    ("GET", "/api/v2/jobs/next/", "work read"),
    ("GET", "/api/v2/jobs/{id}/", "work read"),
    ("POST", "/api/v2/jobs/", "submit"),
    ("POST", "/api/v2/jobs/{id}/run/", "submit"),
    ("POST", "/api/v2/jobs/{id}/retry/", "submit"),
    ("POST", "/api/v2/jobs/{id}/cancel/", "submit"),
    ("POST", "/api/v2/jobs/{id}/tasks/", "work"),
    ("POST", "/api/v2/jobs/{id}/result/", "work"),
    ("GET", "/api/v2/projects/", "work read"),
    ("POST", "/api/v2/projects/{project}/pipelines/", "work submit"),
    ("GET", "/healthz", ""),
    ("GET", "/readyz", ""),
    ("GET", "/metrics", "read"),
    ("GET", "/openapi.json", ""),
    ("GET", "/docs", ""),
    ("GET", "/docs/{file:.*}", ""),
    ("GET", "/ui/{file:.*}", ""),
    ("GET", "/", ""),
];

/// The code that a problem of this path carries; the older API's errors have none.
fn code(path: &str, code: &str) -> Value {
    if path.starts_with("/api/v2/") {
        Value::Null
    } else {
        json!(code)
    }
}

/// Makes a token as `by` (empty: without one); answers its id and secret.
pub(crate) async fn token(app: &App, by: &str, body: Value) -> (String, String) {
    let answer = match by {
        "" => {
            let headers = [("content-type", "application/json")];
            send(&app.url, "POST", "/v1/tokens", &headers, &body.to_string()).await
        }
        by => send_as(app, by, "POST", "/v1/tokens", body).await,
    };
    assert_eq!(answer.status, 201, "{answer:?}");
    let made = answer.json();
    let text = |name: &str| made[name].as_str().expect("a text").to_owned();
    (text("id"), text("token"))
}

#[actix_web::test]
async fn every_route_asks_for_its_scope_and_no_other() {
    // The node's own order is one of speed.
    let table: BTreeSet<_> = ROUTES.iter().map(|entry| (entry.method.as_str(), entry.path)).collect();
    let expected: BTreeSet<_> = EXPECTED.iter().map(|&(method, path, _)| (method, path)).collect();
    assert_eq!((&table, ROUTES.len()), (&expected, EXPECTED.len()));
    let app = App::start(&Place::sqlite(), quick()).await;
    let (_, admin) = token(&app, "", json!({"name": "admin", "scopes": ["admin"]})).await;
    let mut tokens = vec![("admin", admin.clone())];
    for scope in ["read", "submit", "work"] {
        let (_, secret) = token(&app, &admin, json!({"name": scope, "scopes": [scope]})).await;
        tokens.push((scope, secret));
    }
    for &(method, path, needed) in EXPECTED {
        let path = path
            .replace("{id}", "77")
            .replace("{token}", "t0")
            .replace("{project}", "1")
            .replace("{node}", "nobody")
            .replace("/ui/{file:.*}", "/ui/app.js")
            .replace("{file:.*}", "index.html");
        let body = if matches!(method, "POST" | "PATCH") {
            json!({})
        } else {
            Value::Null
        };
        let headers = [("content-type", "application/json")];
        let anonymous = send(
            &app.url,
            method,
            &path,
            &headers,
            if body.is_null() { "" } else { "{}" },
        )
        .await;
        if needed.is_empty() {
            assert!(anonymous.status < 400, "{method} {path}: {anonymous:?}");
            continue;
        }
        assert_eq!(
            (anonymous.status, anonymous.code()),
            (401, code(&path, "unauthenticated")),
            "{method} {path}"
        );
        for (held, secret) in &tokens {
            let answer = send_as(&app, secret, method, &path, body.clone()).await;
            if needed.split(' ').any(|scope| scope == *held) || *held == "admin" {
                assert!(
                    ![401, 403, 405].contains(&answer.status),
                    "{method} {path} {held}: {answer:?}"
                );
                assert_ne!(answer.json()["detail"], "path not found");
            } else {
                assert_eq!(
                    (answer.status, answer.code()),
                    (403, code(&path, "forbidden")),
                    "{method} {path} {held}"
                );
            }
        }
    }
    app.stop().await;
}

/// Routes about the whole node.
const WHOLE_NODE: &[(&str, &str)] = &[
    ("GET", "/v1/nodes"),
    ("POST", "/v1/nodes/{node}/drain"),
    ("GET", "/metrics"),
];

#[actix_web::test]
async fn what_is_of_the_whole_node_asks_for_a_token_without_queues() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let (_, admin) = token(&app, "", json!({"name": "admin", "scopes": ["admin"]})).await;
    let limited = json!({"name": "limited", "scopes": ["admin"], "queues": ["q"]});
    let (_, limited) = token(&app, &admin, limited).await;
    for &(method, path, needed) in EXPECTED.iter().filter(|(.., needed)| !needed.is_empty()) {
        let body = if matches!(method, "POST" | "PATCH") {
            json!({})
        } else {
            Value::Null
        };
        let asked = path
            .replace("{id}", "77")
            .replace("{token}", "t0")
            .replace("{project}", "1")
            .replace("{node}", "nobody");
        let answer = send_as(&app, &limited, method, &asked, body.clone()).await;
        let is_whole = WHOLE_NODE.contains(&(method, path));
        assert_eq!(answer.status == 403, is_whole, "{method} {path} {needed}: {answer:?}");
        if is_whole {
            assert_eq!(answer.code(), "forbidden");
            let detail = answer.json()["detail"].to_string();
            assert!(detail.contains("whole node") && detail.contains("queues"), "{detail}");
            assert_ne!(send_as(&app, &admin, method, &asked, body).await.status, 403);
        }
    }
    // Not even the node that was asked.
    let own = app.coordinator.node_id().to_owned();
    let drain = format!("/v1/nodes/{own}/drain");
    assert_eq!(send_as(&app, &limited, "POST", &drain, json!({})).await.status, 403);
    assert!(!app.coordinator.is_draining());
    app.stop().await;
}

#[actix_web::test]
async fn tokens_are_in_force_and_out_of_it_at_once() {
    let app = App::start(&Place::sqlite(), quick()).await;
    assert_eq!(app.get("/v1/jobs").await.0, 200);
    let (_, admin) = token(&app, "", json!({"name": "a", "scopes": ["admin"]})).await;
    assert_eq!(app.get("/v1/jobs").await.0, 401);
    let (id, reader) = token(
        &app,
        &admin,
        json!({"name": "r", "scopes": ["read"], "expires_in_s": 3600}),
    )
    .await;
    assert_eq!(send_as(&app, &reader, "GET", "/v1/jobs", Value::Null).await.status, 200);
    let listed = send_as(&app, &admin, "GET", "/v1/tokens", Value::Null).await;
    assert_eq!(listed.json()["items"].as_array().unwrap().len(), 2);
    assert!(!listed.text.contains(&reader) && !listed.text.contains("hash"));
    let path = format!("/v1/tokens/{id}");
    assert_eq!(send_as(&app, &admin, "DELETE", &path, Value::Null).await.status, 204);
    let refused = send_as(&app, &reader, "GET", "/v1/jobs", Value::Null).await;
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Bearer"));
    assert_eq!(send_as(&app, &admin, "DELETE", &path, Value::Null).await.status, 404);
    app.stop().await;
}

#[actix_web::test]
async fn outside_a_token_s_queues_there_is_nothing() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let foreign = app.job(2, json!({"queue": "theirs", "open": true})).await;
    let own = app.job(2, json!({"queue": "mine"})).await;
    let (_, admin) = token(&app, "", json!({"name": "a", "scopes": ["admin"]})).await;
    let (admin_id, _) = token(
        &app,
        &admin,
        json!({"name": "other", "scopes": ["read"], "queues": ["theirs"]}),
    )
    .await;
    let limited = json!({"name": "m", "scopes": ["admin"], "queues": ["mine"]});
    let (_, mine) = token(&app, &admin, limited).await;

    let worker = json!({"worker": "w", "max_tasks": 1});
    let leases = json!({"worker": "w", "leases": []});
    let routes = [
        ("GET", "", Value::Null),
        ("GET", "/tasks", Value::Null),
        ("GET", "/progress", Value::Null),
        ("GET", "/results", Value::Null),
        ("POST", "/tasks", json!([{"payload": 1}])),
        ("POST", "/seal", json!({})),
        ("POST", "/start", json!({})),
        ("POST", "/pause", json!({})),
        ("POST", "/resume", json!({})),
        ("POST", "/retry", json!({})),
        ("POST", "/leases", worker),
        ("POST", "/leases/extend", leases.clone()),
        ("POST", "/leases/release", leases),
        ("POST", "/results", json!({"worker": "w", "results": []})),
        ("POST", "/logs", json!({"entries": []})),
        ("GET", "/logs", Value::Null),
        ("GET", "/explain", Value::Null),
        ("GET", "/failures", Value::Null),
        ("PATCH", "", json!({"priority": 1})),
        ("POST", "/cancel", json!({})),
    ];
    for (method, suffix, body) in routes {
        let theirs = send_as(
            &app,
            &mine,
            method,
            &format!("/v1/jobs/{foreign}{suffix}"),
            body.clone(),
        )
        .await;
        let missing = send_as(&app, &mine, method, &format!("/v1/jobs/999{suffix}"), body.clone()).await;
        assert_eq!(theirs.status, 404, "{method} {suffix}: {theirs:?}");
        assert_eq!(theirs.text, missing.text, "the two must look the same");
        let visible = send_as(&app, &mine, method, &format!("/v1/jobs/{own}{suffix}"), body).await;
        assert_ne!(visible.status, 404, "{method} {suffix}: {visible:?}");
    }
    let untouched = send_as(&app, &admin, "GET", &format!("/v1/jobs/{foreign}"), Value::Null)
        .await
        .json();
    assert_eq!(
        (&untouched["state"], &untouched["progress"]["total"]),
        (&json!("running"), &json!(2))
    );

    let listed = send_as(&app, &mine, "GET", "/v1/jobs", Value::Null).await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    let listed = send_as(&app, &mine, "GET", "/v1/jobs?queue=theirs", Value::Null)
        .await
        .json();
    assert_eq!(listed["items"], json!([]));
    let ask = json!({"worker": "w", "queues": ["theirs"], "max_tasks": 5});
    let granted = send_as(&app, &mine, "POST", "/v1/leases", ask).await;
    assert_eq!(
        (granted.status, granted.json()),
        (200, json!({"job": null, "tasks": []}))
    );
    let polls = json!({"worker": "admin's", "queues": ["theirs"], "max_tasks": 1});
    send_as(&app, &admin, "POST", "/v1/leases", polls).await;
    for path in ["/v1/workers", "/v1/queues"] {
        let visible = send_as(&app, &mine, "GET", path, Value::Null).await;
        assert!(
            visible.text.contains("mine") && !visible.text.contains("theirs"),
            "{visible:?}"
        );
        let whole = send_as(&app, &admin, "GET", path, Value::Null).await;
        assert!(whole.text.contains("theirs"), "{whole:?}");
    }
    let (theirs, own) = (format!("/v1/jobs/{foreign}"), format!("/v1/jobs/{own}"));
    assert_eq!(send_as(&app, &mine, "DELETE", &theirs, Value::Null).await.status, 404);
    assert_eq!(send_as(&app, &mine, "DELETE", &own, Value::Null).await.status, 204);
    let create = json!({"name": "n", "queue": "theirs"});
    assert_eq!(send_as(&app, &mine, "POST", "/v1/jobs", create).await.status, 404);

    for queues in [Value::Null, json!(["theirs"]), json!(["mine", "theirs"])] {
        let wider = json!({"name": "w", "scopes": ["read"], "queues": queues});
        assert_eq!(send_as(&app, &mine, "POST", "/v1/tokens", wider).await.status, 404);
    }
    let listed = send_as(&app, &mine, "GET", "/v1/tokens", Value::Null).await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    let path = format!("/v1/tokens/{admin_id}");
    assert_eq!(send_as(&app, &mine, "DELETE", &path, Value::Null).await.status, 404);
    app.stop().await;
}

#[actix_web::test]
async fn without_tokens_other_hosts_and_origins_are_refused() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let host = app.url.strip_prefix("http://").unwrap();
    let own = [("origin", app.url.as_str())];
    assert_eq!(send(&app.url, "GET", "/v1/jobs", &own, "").await.status, 200);
    for headers in [
        vec![("host", "evil.example")],
        vec![("origin", "http://evil.example")],
        vec![("host", host), ("origin", "null")],
    ] {
        for path in ["/v1/jobs", "/", "/healthz"] {
            let answer = send(&app.url, "GET", path, &headers, "").await;
            assert_eq!(
                (answer.status, answer.code()),
                (403, json!("forbidden")),
                "{headers:?} {path}"
            );
            assert_eq!(answer.header("access-control-allow-origin"), "");
        }
    }
    app.stop().await;
}

#[actix_web::test]
async fn a_body_must_say_that_it_is_json() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = app.job(1, json!({"open": true})).await;
    for &(method, path, _) in EXPECTED
        .iter()
        .filter(|(method, ..)| matches!(*method, "POST" | "PATCH"))
    {
        let path = path.replace("{id}", &job.to_string()).replace("{project}", "1");
        for headers in [
            vec![],
            vec![("content-type", "text/plain")],
            vec![("content-type", "application/x-www-form-urlencoded")],
        ] {
            let answer = send(&app.url, method, &path, &headers, "{}").await;
            let expected = (415, code(&path, "unsupported_media_type"));
            assert_eq!((answer.status, answer.code()), expected, "{path} {headers:?}");
        }
    }
    assert_eq!(app.view(job).await["state"], "running");
    app.stop().await;
}

#[test]
fn looking_at_the_tokens_of_a_store_that_is_not_there_makes_none() {
    let dir = crate::app::TempDir::new();
    let path = dir.0.join("mistyped.db");
    for args in [&["list"][..], &["revoke", "t-1"]] {
        let said = std::process::Command::new(env!("CARGO_BIN_EXE_tallykeeper"))
            .arg("token")
            .args(args)
            .args(["--store", &format!("sqlite:{}", path.display())])
            .output()
            .expect("the program runs");
        let text = String::from_utf8_lossy(&said.stderr);
        assert_eq!(said.status.code(), Some(2), "{text}");
        assert!(text.contains("no store") && text.contains("mistyped.db"), "{text}");
        assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 0, "something was made");
    }
}
