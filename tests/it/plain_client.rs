//! A plain HTTP client, as workers have one.
//!
//! Owns: its calls, and what became of them. Never: repeats a call by itself unless it is told to insist. Invariant: a 503 says when to come
//! back, and no answer is another 5xx.

use crate::process::Wait;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A call to a node that does not answer is given up.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A plain HTTP client, as workers have one.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    urls: Arc<[String]>,
    calls: Arc<AtomicUsize>,
}

/// What became of one call.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Any status but 503, with its JSON (null: none).
    Answer(u16, Value),
    /// 503, with its code.
    NotNow(String),
    /// No connection, or it broke before the whole answer was there.
    Nothing(String),
}

impl Client {
    pub(crate) fn new(url: String) -> Client {
        Client::of_any(vec![url])
    }

    /// A client that calls another of these nodes each time, as behind a load balancer that knows nothing.
    pub(crate) fn of_any(urls: Vec<String>) -> Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().timeout(CALL_TIMEOUT).build();
        Client {
            http: http.expect("a client can be made"),
            urls: urls.into(),
            calls: Arc::default(),
        }
    }

    /// The address of one of the nodes, another one each time.
    pub(crate) fn url(&self) -> &str {
        &self.urls[self.calls.fetch_add(1, Ordering::Relaxed) % self.urls.len()]
    }

    /// Calls once. A 503 must say when to come back.
    pub(crate) async fn call(&self, method: &str, path: &str, body: &Body) -> Heard {
        let mut request = self
            .http
            .request(method.parse().unwrap(), format!("{}{path}", self.url()));
        request = match body {
            Body::None => request,
            Body::Json(value) => request.json(value),
            Body::Lines(text) => request
                .header("content-type", "application/x-ndjson")
                .body(text.clone()),
        };
        let response = match request.send().await {
            Ok(response) => response,
            Err(why) => return Heard::Nothing(format!("{why:?}")),
        };
        let (status, retry_after) = (
            response.status().as_u16(),
            response.headers().contains_key("retry-after"),
        );
        let text = match response.text().await {
            Ok(text) => text,
            Err(why) => return Heard::Nothing(format!("{why:?}")),
        };
        let json: Value = match text.as_str() {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|why| panic!("{method} {path}: {status} {why}: {text}")),
        };
        if status == 503 {
            assert!(retry_after, "{method} {path}: 503 without Retry-After: {json}");
            return Heard::NotNow(json["code"].as_str().unwrap_or_default().to_owned());
        }
        assert!(status < 500, "{method} {path}: {status} {json}");
        Heard::Answer(status, json)
    }

    /// Repeats the identical call until there is an answer.
    pub(crate) async fn insist(&self, method: &str, path: &str, body: &Body) -> (u16, Value) {
        let wait = Wait::begin();
        loop {
            match self.call(method, path, body).await {
                Heard::Answer(status, json) => return (status, json),
                Heard::NotNow(why) | Heard::Nothing(why) => wait.a_moment(&format!("{method} {path}: {why}")).await,
            }
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, json) = self.insist("GET", path, &Body::None).await;
        assert_eq!(status, 200, "{path}: {json}");
        json
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        let (status, json) = self.insist("POST", path, &Body::Json(body)).await;
        assert!((200..300).contains(&status), "{path}: {status} {json}");
        json
    }

    /// Every line of `/results`.
    pub(crate) async fn results(&self, job: i64) -> Vec<Value> {
        let request = self.http.get(format!("{}/v1/jobs/{job}/results", self.url()));
        let response = request
            .header("accept", "application/x-ndjson")
            .send()
            .await
            .expect("an answer");
        assert_eq!(response.status(), 200);
        let text = response.text().await.expect("the whole stream");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("a line is JSON"))
            .collect()
    }
}

/// What a call carries.
pub(crate) enum Body {
    None,
    Json(Value),
    Lines(String),
}
