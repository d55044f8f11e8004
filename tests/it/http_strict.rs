//! What is refused instead of being ignored or guessed at, and HEAD.
//!
//! Owns: bodies, queries and headers that are nearly right. Never: looks into the node. Invariant: a refusal names the member and what it
//! must be.

use crate::app::{App, Place, quick, success};
use crate::http_call::{raw, send, until_closed};
use serde_json::{Value, json};
use tallykeeper::http::routes::ROUTES;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[actix_web::test]
async fn a_list_in_the_place_of_an_object_is_refused_everywhere() {
    // Bodies of a few bytes count as long, so that items are parsed one by one as well.
    for stream_body_min_bytes in [1, 1 << 20] {
        let http = tallykeeper::http::HttpSettings {
            stream_body_min_bytes,
            ..Default::default()
        };
        let app = App::start_with(&Place::sqlite(), quick(), http).await;
        let job = app.job(1, json!({"open": true})).await;
        let tasks = app.lease(job, "w", 1).await;
        let of_job = |suffix: &str| format!("/v1/jobs/{job}{suffix}");
        for (method, path, body, field) in [
            (
                "POST",
                "/v1/jobs".to_owned(),
                json!(["n", "q2", 0, [], [[null, 5]]]),
                "body",
            ),
            (
                "POST",
                "/v1/jobs".to_owned(),
                json!({"name": "n", "queue": "q", "policy": []}),
                "policy",
            ),
            ("PATCH", of_job(""), json!([5]), "body"),
            ("POST", of_job("/cancel"), json!([600]), "body"),
            ("POST", of_job("/seal"), json!([]), "body"),
            ("POST", of_job("/leases"), json!(["w", 1]), "body"),
            ("POST", of_job("/tasks"), json!([["k", 5]]), "[0]"),
            (
                "POST",
                of_job("/logs"),
                json!({"entries": [["info", "m"]]}),
                "entries[0]",
            ),
            (
                "POST",
                of_job("/results"),
                json!({"worker": "w", "results": [[tasks[0]["lease"], "succeeded"]]}),
                "results[0]",
            ),
            ("POST", "/v1/tickets".to_owned(), json!(["/v1/progress"]), "body"),
        ] {
            let (status, problem) = app.call(method, &path, body.clone()).await;
            assert_eq!(status, 400, "{path} {body}: {problem}");
            let named = problem["field"].as_str().unwrap_or_default();
            assert!(named.ends_with(field), "{path} {body}: {problem}");
            assert_eq!(problem["limit"], "an object", "{path}: {problem}");
        }
        let lines = [("content-type", "application/x-ndjson")];
        let answer = send(&app.url, "POST", &of_job("/tasks"), &lines, "[\"k\",5]\n").await;
        assert_eq!(
            (answer.status, &answer.json()["field"]),
            (400, &json!("line 1")),
            "{answer:?}"
        );
        let view = app.view(job).await;
        assert_eq!(
            (&view["state"], &view["progress"]["succeeded"]),
            (&json!("running"), &json!(0))
        );
        assert_eq!(app.report(job, "w", vec![success(&tasks[0])]).await, ["counted"]);
        app.stop().await;
    }
}

#[actix_web::test]
async fn unknown_parameters_and_cursors_that_are_none_are_refused_everywhere() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = app.job(1, json!({})).await;
    let mut refused = 0;
    for entry in ROUTES.iter().filter(|entry| entry.path.starts_with("/v1/")) {
        let path = entry.path.replace("{id}", &job.to_string()).replace("{task}", "0");
        let body = match entry.method.as_str() {
            "POST" | "PATCH" => json!({}),
            _ => Value::Null,
        };
        let (status, problem) = app.call(entry.method.as_str(), &format!("{path}?colour=1"), body).await;
        assert_eq!(
            (status, &problem["field"]),
            (400, &json!("colour")),
            "{} {path}: {problem}",
            entry.method
        );
        assert!(problem["limit"].is_string(), "{problem}");
        refused += 1;
    }
    assert!(refused > 30);
    for query in [
        "/v1/jobs?cursor=-5".to_owned(),
        "/v1/jobs?cursor=0".to_owned(),
        format!("/v1/jobs/{job}/tasks?cursor=-5"),
        format!("/v1/jobs/{job}/results?cursor=x"),
        format!("/v1/jobs/{job}/logs?after=-1"),
    ] {
        let (status, problem) = app.get(&query).await;
        assert_eq!(status, 400, "{query}: {problem}");
        let named = if query.contains("after") { "after" } else { "cursor" };
        assert!(
            problem["field"] == named && problem["limit"].is_string(),
            "{query}: {problem}"
        );
    }
    app.stop().await;
}

#[actix_web::test]
async fn head_is_get_without_its_body() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = app.job(1, json!({})).await;
    let list = format!("/v1/jobs/{job}/results");
    for path in [
        "/",
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/ui/app.js",
        "/v1/queues",
        "/api/v2/jobs",
        list.as_str(),
    ] {
        let get = send(&app.url, "GET", path, &[], "").await;
        let head = send(&app.url, "HEAD", path, &[], "").await;
        assert_eq!((head.status, head.text.as_str()), (get.status, ""), "{path}");
        for name in ["content-type", "content-length", "etag", "content-security-policy"] {
            assert_eq!(head.header(name), get.header(name), "{path} {name}");
        }
    }
    assert_eq!(send(&app.url, "HEAD", "/v1/jobs/999", &[], "").await.status, 404);
    // Nothing comes behind the head that would be taken for the next answer, not even of a stream.
    let lines = "Host: localhost\r\nAccept: application/x-ndjson\r\n";
    let mut stream = raw(&app, &format!("HEAD {list} HTTP/1.1\r\n{lines}\r\n")).await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("the node writes"));
    }
    let get = format!("GET /healthz HTTP/1.1\r\n{lines}Connection: close\r\n\r\n");
    stream.write_all(get.as_bytes()).await.expect("the node reads");
    let next = until_closed(stream).await;
    assert!(
        head.starts_with(b"HTTP/1.1 200 OK\r\n") && next.starts_with("HTTP/1.1 200 OK\r\n"),
        "{next}"
    );
    assert!(next.ends_with("\r\n\r\n{\"status\":\"ok\"}"), "{next}");
    for path in [
        format!("/v1/jobs/{job}/progress"),
        "/v1/progress".into(),
        format!("/v1/jobs/{job}/logs"),
    ] {
        let refused = send(&app.url, "HEAD", &path, &[], "").await;
        assert_eq!(
            (refused.status, refused.header("allow").contains("HEAD")),
            (405, false),
            "{path}"
        );
    }
    let refused = send(&app.url, "PUT", "/v1/queues", &[], "").await;
    assert_eq!((refused.status, refused.header("allow")), (405, "GET, HEAD"));
    app.stop().await;
}

#[actix_web::test]
async fn a_stream_of_results_ends_at_its_limit_and_goes_on_behind_it() {
    let http = tallykeeper::http::HttpSettings {
        result_page_max_bytes: 20,
        ..Default::default()
    };
    let app = App::start_with(&Place::sqlite(), quick(), http).await;
    let job = app.job(7, json!({})).await;
    let tasks = app.lease(job, "w", 7).await;
    app.report(job, "w", tasks.iter().map(success).collect()).await;
    let read = async |query: &str, accept: &str| {
        let path = format!("/v1/jobs/{job}/results{query}");
        let answer = send(&app.url, "GET", &path, &[("accept", accept)], "").await;
        let lines = answer
            .text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        (
            answer.status,
            lines.filter_map(|line| line["task"].as_u64()).collect::<Vec<_>>(),
            answer.text.clone(),
        )
    };
    let ndjson = "application/x-ndjson";
    assert_eq!(read("", ndjson).await.1, [0, 1, 2, 3, 4, 5, 6]);
    let (mut all, mut query) = (Vec::new(), "?limit=3".to_owned());
    loop {
        let (status, page, _) = read(&query, ndjson).await;
        assert!(status == 200 && page.len() <= 3);
        let Some(last) = page.last() else { break };
        query = format!("?limit=3&cursor={last}");
        all.extend(page);
    }
    assert_eq!(all, [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(read("?limit=501", ndjson).await.0, 400);
    // What is refused by weight is not what is asked for.
    let (_, _, text) = read("?limit=1", "application/x-ndjson;q=0, application/json").await;
    assert!(text.starts_with(r#"{"items":["#), "{text}");
    app.stop().await;
}

/// The answer up to the end of its problem.
async fn until_brace(mut stream: TcpStream) -> String {
    let mut text = String::new();
    while !text.contains('}') {
        let mut piece = vec![0; 4096];
        let read = stream.read(&mut piece).await.expect("the node writes");
        assert!(read > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&piece[..read]));
    }
    text
}

#[actix_web::test]
async fn a_websocket_of_another_version_is_told_which() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let head = "GET /v1/progress HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for version in ["Sec-WebSocket-Version: 12\r\n", ""] {
        let text = until_brace(raw(&app, &format!("{head}{version}\r\n")).await).await;
        assert!(text.starts_with("HTTP/1.1 426 "), "{text}");
        assert!(
            text.to_lowercase().contains("\r\nsec-websocket-version: 13\r\n"),
            "{text}"
        );
        assert!(text.contains(r#""code":"upgrade_required""#), "{text}");
    }
    for accept in ["text/event-stream;q=0", "text/event-stream; q=0.0, */*"] {
        let answer = send(&app.url, "GET", "/v1/progress", &[("accept", accept)], "").await;
        assert_eq!(answer.status, 426, "{accept}");
    }
    app.stop().await;
}
