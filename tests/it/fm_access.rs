//! The edges of the API over real HTTP: who may ask, what is refused and how, uploads that are cut short. Rows 36 and 54 of
//! FAILURE_MODES.md are here.
//!
//! Owns: tokens, problems, bounds, idempotency, streamed appends. Never: repeats what the HTTP room's own tests pin down. Invariant: every
//! refusal is a problem with a stable code.

use crate::app::{App, Place, on_both_stores, quick, success};
use serde_json::{Value, json};
use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};
use tallykeeper::http::HttpSettings;
use tracing_subscriber::fmt::MakeWriter;

on_both_stores!(
    fm54_tokens_open_what_their_scopes_and_queues_allow_and_are_never_logged,
    an_idempotency_key_names_one_job,
    an_interrupted_stream_of_tasks_goes_on_where_it_stopped,
);

/// What was logged in this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

/// Everything of ours, and what others say to a debugging operator, from every thread, from now on.
fn everything_logged() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        let levels = "debug,tallykeeper=trace,tracing_actix_web=trace";
        let _ = tracing_subscriber::fmt()
            .with_writer(log.clone())
            .with_env_filter(levels)
            .try_init();
        log
    })
}

/// A call with a token; answers status and JSON.
async fn call(app: &App, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
    let mut request = app
        .request(method, path)
        .header("authorization", format!("Bearer {token}"));
    if !body.is_null() {
        request = request.json(&body);
    }
    let response = request.send().await.expect("the node answers");
    (response.status().as_u16(), response.json().await.unwrap_or(Value::Null))
}

async fn fm54_tokens_open_what_their_scopes_and_queues_allow_and_are_never_logged(place: Place) {
    let log = everything_logged();
    let app = App::start(&place, quick()).await;
    let job = app.job(3, json!({})).await;
    let hidden = app.job(3, json!({"queue": "secret"})).await;
    let (status, admin) = app
        .post("/v1/tokens", json!({"name": "root", "scopes": ["admin"]}))
        .await;
    assert_eq!(status, 201, "{admin}");
    let admin = admin["token"].as_str().unwrap().to_owned();
    // The first stored token turns authentication on at once.
    let (status, problem) = app.get("/v1/jobs").await;
    assert_eq!((status, problem["code"].as_str()), (401, Some("unauthenticated")));
    let mut secrets = vec![admin.clone()];
    let mut made = Vec::new();
    for scope in ["read", "submit", "work"] {
        let body = json!({"name": scope, "scopes": [scope], "queues": ["q"]});
        let (status, token) = call(&app, &admin, "POST", "/v1/tokens", body).await;
        assert_eq!(status, 201, "{token}");
        secrets.push(token["token"].as_str().unwrap().to_owned());
        made.push((scope, token));
    }
    let new = json!({"name": "n", "queue": "q"});
    let lease = json!({"worker": "w", "max_tasks": 1});
    let table = [
        ("GET", "/v1/jobs/JOB", json!(null), "read"),
        ("GET", "/v1/jobs/JOB/tasks", json!(null), "read"),
        ("GET", "/v1/jobs/JOB/results", json!(null), "read"),
        ("POST", "/v1/jobs/JOB/pause", json!({}), "submit"),
        ("POST", "/v1/jobs/JOB/resume", json!({}), "submit"),
        ("POST", "/v1/jobs/JOB/leases", lease, "work"),
        (
            "POST",
            "/v1/jobs/JOB/results",
            json!({"worker": "w", "results": []}),
            "work",
        ),
        (
            "POST",
            "/v1/jobs/JOB/leases/extend",
            json!({"worker": "w", "leases": []}),
            "work",
        ),
        (
            "POST",
            "/v1/jobs/JOB/leases/release",
            json!({"worker": "w", "leases": []}),
            "work",
        ),
    ];
    for (scope, token) in &made {
        let secret = token["token"].as_str().unwrap();
        for (method, path, body, needs) in &table {
            let (mine, other) = (
                path.replace("JOB", &job.to_string()),
                path.replace("JOB", &hidden.to_string()),
            );
            let may = needs == scope;
            let (status, said) = call(&app, secret, method, &mine, body.clone()).await;
            assert_eq!(status, if may { 200 } else { 403 }, "{scope} {method} {path}: {said}");
            // Outside its queues a job looks like one that does not exist.
            let (status, said) = call(&app, secret, method, &other, body.clone()).await;
            let nowhere = call(&app, secret, method, &path.replace("JOB", "999999"), body.clone()).await;
            assert_eq!(status, if may { 404 } else { 403 }, "{scope} {method} {path}: {said}");
            assert_eq!((status, &said["detail"]), (nowhere.0, &nowhere.1["detail"]));
        }
        let (status, _) = call(&app, secret, "POST", "/v1/jobs", new.clone()).await;
        assert_eq!(status, if *scope == "submit" { 201 } else { 403 });
        assert_eq!(call(&app, secret, "GET", "/v1/tokens", Value::Null).await.0, 403);
    }
    let [reader, submitter, worker] = [0, 1, 2].map(|i| made[i].1["token"].as_str().unwrap());
    let (_, list) = call(&app, reader, "GET", "/v1/jobs", Value::Null).await;
    assert!(
        list["items"].as_array().unwrap().iter().all(|job| job["queue"] == "q"),
        "{list}"
    );
    let (status, _) = call(
        &app,
        submitter,
        "POST",
        "/v1/jobs",
        json!({"name": "n", "queue": "secret"}),
    )
    .await;
    assert_eq!(status, 404);
    let poll = json!({"worker": "w", "queues": ["secret"], "max_tasks": 9});
    assert_eq!(
        call(&app, worker, "POST", "/v1/leases", poll).await.1["tasks"],
        json!([])
    );
    // Revoked is refused, by this node at once.
    let path = format!("/v1/tokens/{}", made[0].1["id"].as_str().unwrap());
    assert_eq!(call(&app, &admin, "DELETE", &path, Value::Null).await.0, 204);
    assert_eq!(call(&app, reader, "GET", "/v1/jobs", Value::Null).await.0, 401);
    let guess = format!("tk_{}", "0123456789abcdef".repeat(4));
    assert_eq!(call(&app, &guess, "GET", "/v1/jobs", Value::Null).await.0, 401);
    secrets.push(guess);
    let (_, listed) = call(&app, &admin, "GET", "/v1/tokens", Value::Null).await;
    let listed = listed.to_string();
    app.stop().await;
    let logged = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(logged.contains("unknown token"), "the log was not captured");
    for secret in &secrets {
        assert!(
            !logged.contains(&secret[..9]),
            "more than eight characters of a token were logged"
        );
        assert!(!listed.contains(&secret[..9]));
    }
}

async fn an_idempotency_key_names_one_job(place: Place) {
    let app = App::start(&place, quick()).await;
    let body = r#"{"name": "n", "queue": "q", "tasks": [{"payload": 1}, {"payload": 2}]}"#;
    let create = async |key: &str, body: String| {
        let request = app.request("POST", "/v1/jobs").header("idempotency-key", key);
        let response = request
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .unwrap();
        let location = response
            .headers()
            .get("location")
            .map(|at| at.to_str().unwrap().to_owned());
        (
            response.status().as_u16(),
            location,
            response.json::<Value>().await.unwrap(),
        )
    };
    // Sixteen at the same time make one job.
    let made = futures_util::future::join_all((0..16).map(|_| create("k", body.to_owned()))).await;
    let mut statuses: Vec<u16> = made.iter().map(|(status, ..)| *status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses[..15], [200; 15]);
    assert_eq!(statuses[15], 201);
    let job = &made[0].2["id"];
    assert!(
        made.iter()
            .all(|(_, at, view)| view["id"] == *job && *at == Some(format!("/v1/jobs/{job}")))
    );
    let (status, _, problem) = create("k", body.replace('1', "3")).await;
    assert_eq!((status, problem["code"].as_str()), (422, Some("idempotency_mismatch")));
    assert_ne!(create("other", body.to_owned()).await.2["id"], *job);
    assert_eq!(app.get("/v1/jobs").await.1["items"].as_array().unwrap().len(), 2);
    app.stop().await;
    let app = App::start(&place, quick()).await;
    let request = app.request("POST", "/v1/jobs").header("idempotency-key", "k");
    let response = request
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.json::<Value>().await.unwrap()["id"], *job);
    app.stop().await;
}

async fn an_interrupted_stream_of_tasks_goes_on_where_it_stopped(place: Place) {
    let http = HttpSettings {
        workers: 2,
        append_chunk_tasks: 50,
        line_max_bytes: 4096,
        ..HttpSettings::default()
    };
    let app = App::start_with(&place, quick(), http).await;
    let job = app.job(0, json!({"open": true})).await;
    let path = format!("/v1/jobs/{job}/tasks");
    let lines = |from: usize, to: usize| {
        (from..to)
            .map(|i| format!("{{\"payload\": {{\"n\": {i}}}}}\n"))
            .collect::<String>()
    };
    let send = async |first: u64, body: String| {
        let request = app
            .request("POST", &format!("{path}?first_task={first}"))
            .header("content-type", "application/x-ndjson");
        let response = request.body(body).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    // The 131st line is broken: two chunks are in, and the problem says where to go on.
    let (status, problem) = send(0, lines(0, 130) + "{\"payload\": \n" + &lines(131, 200)).await;
    assert_eq!(
        (status, problem["code"].as_str(), problem["next_task"].clone()),
        (400, Some("invalid_request"), json!(100))
    );
    let (status, problem) = send(0, lines(0, 200)).await;
    assert_eq!(
        (status, problem["code"].as_str(), problem["next_task"].clone()),
        (409, Some("wrong_first_task"), json!(100))
    );
    let long = format!("{{\"payload\": \"{}\"}}\n", "x".repeat(5000));
    let (status, problem) = send(100, long).await;
    assert_eq!(
        (status, problem["code"].as_str(), problem["limit"].clone()),
        (413, Some("body_too_large"), json!(4096))
    );
    // The connection is lost in the middle of a line: what of it was stored is for the node to say.
    let body = lines(100, 180);
    let address = app.url.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let head =
        format!("POST {path}?first_task=100 HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/x-ndjson\r\n");
    write!(
        stream,
        "{head}Content-Length: {}\r\n\r\n{}",
        body.len(),
        &body[..body.len() - 3]
    )
    .unwrap();
    drop(stream);
    let (mut next, end) = (100, 1000);
    loop {
        let (status, said) = send(next, lines(next as usize, end)).await;
        match status {
            200 => break assert_eq!(said["next_task"], end),
            // The lost upload may still be under way, chunk by chunk.
            409 => next = said["next_task"].as_u64().unwrap(),
            _ => panic!("{status} {said}"),
        }
    }
    app.control(job, "seal", json!({})).await;
    let tasks = app.lease(job, "w", 1000).await;
    assert!(
        tasks
            .iter()
            .enumerate()
            .all(|(i, task)| task["task"] == i && task["payload"]["n"] == i)
    );
    assert_eq!(
        app.report(job, "w", tasks.iter().map(success).collect()).await.len(),
        end
    );
    assert_eq!(app.view(job).await["state"], "succeeded");
    app.stop().await;
}

#[actix_web::test]
async fn fm36_refusals_are_problems_that_name_what_is_wrong() {
    let http = HttpSettings {
        workers: 2,
        body_max_bytes: 100_000,
        ..HttpSettings::default()
    };
    let app = App::start_with(&Place::sqlite(), quick(), http).await;
    let job = app.job(1, json!({})).await;
    let big = "x".repeat(200_000);
    let create = |more: Value| {
        let mut body = json!({"name": "n", "queue": "q"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let leases = format!("/v1/jobs/{job}/leases");
    let table = [
        (
            "/v1/jobs".to_owned(),
            create(json!({"tasks": [{"payload": big}]})),
            413,
            "body_too_large",
            ("limit", json!(100_000)),
        ),
        (
            "/v1/jobs".to_owned(),
            create(json!({"quue": 1})),
            400,
            "invalid_request",
            ("field", json!("quue")),
        ),
        (
            "/v1/jobs".to_owned(),
            create(json!({"tasks": [{"payload": 1, "x": 1}]})),
            400,
            "invalid_request",
            ("field", json!("tasks[0].x")),
        ),
        (
            "/v1/jobs".to_owned(),
            create(json!({"priority": "high"})),
            400,
            "invalid_request",
            ("field", json!("priority")),
        ),
        (
            leases.clone(),
            json!({"worker": "w", "max_tasks": 0}),
            400,
            "invalid_request",
            ("field", json!("max_tasks")),
        ),
        (
            leases.clone(),
            json!({"worker": "", "max_tasks": 1}),
            400,
            "invalid_request",
            ("field", json!("worker")),
        ),
        (
            "/v1/jobs/999999/cancel".to_owned(),
            json!({}),
            404,
            "not_found",
            ("status", json!(404)),
        ),
        (
            "/v1/jobs/x/cancel".to_owned(),
            json!({}),
            404,
            "not_found",
            ("status", json!(404)),
        ),
        (
            "/v1/nothing".to_owned(),
            json!({}),
            404,
            "not_found",
            ("status", json!(404)),
        ),
        (
            format!("/v1/jobs/{job}/tasks"),
            json!([{"payload": 1}]),
            409,
            "job_sealed",
            ("status", json!(409)),
        ),
    ];
    for (path, body, status, code, (member, value)) in table {
        let response = app.request("POST", &path).json(&body).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let said = (response.status().as_u16(), response.json::<Value>().await.unwrap());
        assert_eq!(
            (said.0, said.1["code"].as_str()),
            (status, Some(code)),
            "{path}: {}",
            said.1
        );
        assert_eq!(said.1[member], value, "{path}: {}", said.1);
        for member in ["type", "title", "status", "detail"] {
            assert!(!said.1[member].is_null(), "{member}");
        }
    }
    for media in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        for path in ["/v1/jobs", "/v1/leases", &leases, &format!("/v1/jobs/{job}/cancel")] {
            let response = app
                .request("POST", path)
                .header("content-type", media)
                .body("{}")
                .send()
                .await
                .unwrap();
            assert_eq!(response.status().as_u16(), 415, "{media} {path}");
        }
    }
    // No page of the web can reach in through a browser on this machine.
    for (name, value) in [("origin", "http://evil.example"), ("host", "evil.example")] {
        for (method, path) in [
            ("POST", format!("/v1/jobs/{job}/cancel")),
            ("GET", "/v1/jobs".into()),
            ("GET", "/".into()),
        ] {
            let response = app.request(method, &path).header(name, value).send().await.unwrap();
            assert_eq!(response.status().as_u16(), 403, "{name} {method} {path}");
        }
    }
    assert_eq!(app.view(job).await["state"], "running");
    let response = app.request("PUT", "/v1/jobs").send().await.unwrap();
    assert_eq!(response.status().as_u16(), 405);
    app.stop().await;
}
