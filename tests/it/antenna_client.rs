//! A worker that speaks `/api/v2` as the existing ones do.
//!
//! Owns: its manners: it never repeats a POST, opens a connection for each call but those for tasks, follows redirects of a GET, takes
//! anything but a whole 200 for a failure. Never: knows of leases, runs or dispositions. Invariant: what it sends is what the real one sends,
//! unknown members and times without a zone included.

use crate::app::App;
use serde_json::{Value, json};
use std::time::Duration;

/// Longest wait of the real client for any answer.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Worker {
    url: String,
    token: Option<String>,
    /// Where it seems to call from.
    from: Option<String>,
    /// Kept per loader process.
    loader: reqwest::Client,
}

fn client(idle_connections: usize) -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().timeout(PATIENCE);
    builder
        .pool_max_idle_per_host(idle_connections)
        .build()
        .expect("a client can be made")
}

impl Worker {
    pub(crate) fn of(app: &App) -> Worker {
        Worker::at(&app.url)
    }

    pub(crate) fn at(url: &str) -> Worker {
        Worker {
            url: format!("{url}/api/v2"),
            token: None,
            from: None,
            loader: client(1),
        }
    }

    pub(crate) fn with_token(mut self, token: &str) -> Worker {
        self.token = Some(token.to_owned());
        self
    }

    pub(crate) fn from(mut self, address: &str) -> Worker {
        self.from = Some(address.to_owned());
        self
    }

    async fn send(
        &self,
        client: &reqwest::Client,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Result<(u16, Value), String> {
        let mut request = client.request(method.parse().unwrap(), format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Token {token}"));
        }
        if let Some(address) = &self.from {
            request = request.header("x-forwarded-for", address);
        }
        if !body.is_null() {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|why| format!("{why:?}"))?;
        let status = response.status().as_u16();
        let text = response.text().await.map_err(|why| format!("{why:?}"))?;
        let json = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).map_err(|why| format!("{why}: {text}"))?
        };
        Ok((status, json))
    }

    /// Any call, once, on a connection of its own.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let answer = self.send(&client(0), method, path, &body).await;
        answer.unwrap_or_else(|why| panic!("{method} {path}: {why}"))
    }

    /// Any call, once; none of an answer is an answer as well.
    pub(crate) async fn try_call(&self, method: &str, path: &str, body: Value) -> Result<(u16, Value), String> {
        self.send(&client(0), method, path, &body).await
    }

    /// A GET; one that is answered 503 is repeated three times.
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        for _ in 0..3 {
            match self.call("GET", path, Value::Null).await {
                (503, _) => tokio::time::sleep(Duration::from_millis(100)).await,
                answer => return answer,
            }
        }
        self.call("GET", path, Value::Null).await
    }

    /// Jobs with work of these pipelines, as the real client asks: without the last slash.
    pub(crate) async fn jobs(&self, slugs: &str) -> Vec<i64> {
        self.listed(&format!(
            "pipeline__slug__in={slugs}&ids_only=1&incomplete_only=1&dispatch_mode=async_api"
        ))
        .await
    }

    pub(crate) async fn listed(&self, query: &str) -> Vec<i64> {
        let (status, list) = self.get(&format!("/jobs?{query}")).await;
        assert_eq!(status, 200, "{list}");
        let ids: Vec<i64> = list["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|job| job["id"].as_i64().unwrap())
            .collect();
        assert_eq!(list["count"], ids.len());
        ids
    }

    pub(crate) async fn create(&self, pipeline: &str, images: std::ops::Range<u32>, more: Value) -> i64 {
        let tasks: Vec<Value> = images
            .map(|n| json!({"image_id": n, "image_url": format!("http://images/{n}.jpg")}))
            .collect();
        let mut body = json!({"name": "moths", "pipeline_slug": pipeline, "tasks": tasks, "start_now": true});
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        let (status, job) = self.call("POST", "/jobs/", body).await;
        assert_eq!(status, 201, "{job}");
        job["id"].as_i64().unwrap()
    }

    /// Fetches tasks over the loader's connection; a failed fetch is given up, as the real loader does.
    pub(crate) async fn fetch(&self, job: i64, batch_size: usize) -> Result<Vec<Value>, String> {
        let path = format!("/jobs/{job}/tasks/");
        match self
            .send(&self.loader, "POST", &path, &json!({"batch_size": batch_size}))
            .await?
        {
            (200, answer) => Ok(answer["tasks"].as_array().expect("a list").clone()),
            (status, answer) => Err(format!("{status} {answer}")),
        }
    }

    pub(crate) async fn tasks(&self, job: i64, batch_size: usize) -> Vec<Value> {
        let tasks = self.fetch(job, batch_size).await.expect("the fetch succeeds");
        assert!(tasks.len() <= batch_size);
        for task in &tasks {
            for member in ["id", "image_id", "image_url", "reply_subject"] {
                assert!(task[member].is_string(), "{member}: {task}");
            }
        }
        tasks
    }

    /// Posts results, once.
    pub(crate) async fn post(&self, job: i64, results: Vec<Value>) -> (u16, Value) {
        self.call("POST", &format!("/jobs/{job}/result/"), json!({"results": results}))
            .await
    }

    /// Posts results that must be taken, by the real client's own rule; answers the dispositions.
    pub(crate) async fn report(&self, job: i64, results: Vec<Value>) -> Vec<String> {
        let count = results.len();
        let (status, answer) = self.post(job, results).await;
        assert_eq!(
            (status, &answer["status"], &answer["job_id"]),
            (200, &json!("accepted"), &json!(job)),
            "{answer}"
        );
        let tasks = answer["tasks"].as_array().expect("a list");
        assert_eq!(tasks.len(), count);
        let mut queued = 0;
        for task in tasks {
            assert!(
                task["reply_subject"].is_string() && task["task_id"].as_str().unwrap().len() == 36,
                "{task}"
            );
            queued += u64::from(task["status"] == "queued");
        }
        assert_eq!(answer["results_queued"], queued);
        tasks
            .iter()
            .map(|task| task["disposition"].as_str().unwrap().to_owned())
            .collect()
    }

    pub(crate) async fn detail(&self, job: i64) -> Value {
        let (status, detail) = self.get(&format!("/jobs/{job}/")).await;
        assert_eq!(status, 200, "{detail}");
        detail
    }

    /// `processed`, `failed`, `captures`, … of a job.
    pub(crate) async fn param(&self, job: i64, stage: &str, key: &str) -> i64 {
        let detail = self.detail(job).await;
        param(&detail, stage, key)
    }
}

pub(crate) fn param(detail: &Value, stage: &str, key: &str) -> i64 {
    let stages = detail["progress"]["stages"].as_array().expect("stages");
    let stage = stages.iter().find(|found| found["key"] == stage).expect("the stage");
    let params = stage["params"].as_array().expect("params");
    params.iter().find(|found| found["key"] == key).expect("the parameter")["value"]
        .as_i64()
        .expect("a number")
}

/// What a model found in the image of a task: two detections, three classifications. Differs from one time to the next.
pub(crate) fn success(task: &Value) -> Value {
    json!({"reply_subject": task["reply_subject"], "result": {
        "pipeline": "moths",
        "algorithms": {"detector": {"version": 2}},
        "source_images": [{"id": task["image_id"], "url": task["image_url"]}],
        "detections": [
            {"source_image_id": task["image_id"], "bbox": {"x1": 1.50, "y1": 2}, "classifications": [{"scores": [0.5, 0.25]}, {}]},
            {"source_image_id": task["image_id"], "classifications": [{"timestamp": "2025-06-01T12:00:00.123456"}]},
        ],
        "total_time": rand::random::<f32>(),
        "timestamp": format!("2025-06-01T12:00:{:02}.{:06}", rand::random::<u8>() % 60, rand::random::<u16>()),
    }})
}

/// A failure; whether it names its image is the worker's mood.
pub(crate) fn failure(task: &Value, image: Option<&Value>) -> Value {
    json!({"reply_subject": task["reply_subject"], "result": {"error": "failed to load image", "image_id": image}})
}
