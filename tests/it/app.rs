//! A whole node in the test's process: a real store, the real coordinator, the real HTTP server on a loopback port.
//!
//! Owns: starting and draining it, and calls that answer `(status, json)`. Never: replaces a part by a fake. Invariant: a node that was
//! not crashed on purpose drains cleanly at the end of its test.

use crate::cluster;
use actix_web::dev::ServerHandle;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tallykeeper::coordinator::{Coordinator, Settings};
use tallykeeper::domain::job::Limits;
use tallykeeper::http::{AppState, Callbacks, HttpSettings, serve};
use tallykeeper::store::postgres::Postgres;
use tallykeeper::store::sqlite::Sqlite;
use tallykeeper::store::{NodeStore, Store};

/// Where a test keeps its data; it outlives the nodes that use it.
#[derive(Clone)]
pub(crate) enum Place {
    Sqlite(Arc<TempDir>),
    Postgres(String),
}

/// A directory that is removed with its last user.
pub(crate) struct TempDir(pub(crate) PathBuf);

impl TempDir {
    pub(crate) fn new() -> TempDir {
        let name = format!("tk-test-{}-{:016x}", std::process::id(), rand::random::<u64>());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).expect("a new directory can be made");
        TempDir(dir)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Place {
    pub(crate) fn sqlite() -> Place {
        Place::Sqlite(Arc::new(TempDir::new()))
    }

    pub(crate) async fn postgres() -> Place {
        Place::Postgres(cluster::fresh_database().await)
    }

    pub(crate) async fn open(&self) -> Arc<dyn Store> {
        match self {
            Place::Sqlite(dir) => {
                let path = dir.0.join("tally.db");
                let deadline = Instant::now() + Duration::from_secs(20);
                // A node stopped in this same process lets go of its file when its last thread ends, shortly after.
                let store = loop {
                    match Sqlite::open(&path) {
                        Ok(store) => break store,
                        Err(why) if Instant::now() > deadline => panic!("the database does not open: {why}"),
                        Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                    }
                };
                store.migrate().await.expect("the schema is made");
                Arc::new(store)
            }
            Place::Postgres(url) => {
                let store = Postgres::connect(url, tallykeeper::store::postgres::Settings::default()).await;
                let store = store.expect("the database answers");
                store.migrate().await.expect("the schema is made");
                Arc::new(store)
            }
        }
    }
}

/// Settings for tests: short intervals, so that nothing has to be waited for.
pub(crate) fn quick() -> Settings {
    Settings {
        node_id: "test".into(),
        snapshot_interval: Duration::from_millis(100),
        // A busy disk may hold a commit up for seconds; a test that is about waiting sets its own.
        store_wait: Duration::from_secs(30),
        ..Settings::default()
    }
}

/// A running node.
pub(crate) struct App {
    pub(crate) coordinator: Coordinator,
    pub(crate) url: String,
    server: ServerHandle,
    client: reqwest::Client,
}

impl App {
    pub(crate) async fn start(place: &Place, settings: Settings) -> App {
        App::start_with(
            place,
            settings,
            HttpSettings {
                workers: 2,
                ..HttpSettings::default()
            },
        )
        .await
    }

    pub(crate) async fn start_with(place: &Place, settings: Settings, http: HttpSettings) -> App {
        App::start_whole(place, settings, http, None).await
    }

    /// A node that makes calls when jobs end.
    pub(crate) async fn start_calling(place: &Place, settings: Settings, callbacks: Callbacks) -> App {
        App::start_whole(place, settings, HttpSettings::default(), Some(callbacks)).await
    }

    async fn start_whole(place: &Place, settings: Settings, http: HttpSettings, callbacks: Option<Callbacks>) -> App {
        let store = place.open().await;
        let coordinator = Coordinator::start(store, settings, "127.0.0.1".into())
            .await
            .expect("the node starts");
        let state = AppState::new(coordinator.clone(), http, Limits::default(), None);
        if let Some(callbacks) = callbacks {
            state.make_calls(callbacks);
        }
        let listen: SocketAddr = ([127, 0, 0, 1], 0).into();
        let serving = serve(state, &[listen]).await.expect("a loopback port can be bound");
        let url = format!("http://{}", serving.addresses[0]);
        actix_web::rt::spawn(serving.server);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().build().expect("a client can be made");
        App {
            coordinator,
            url,
            server: serving.handle,
            client,
        }
    }

    /// Drains the node and stops serving: the graceful restart's first half.
    pub(crate) async fn stop(self) {
        self.coordinator.drain().await.expect("the node drains");
        self.server.stop(true).await;
    }

    /// Sends a request with a JSON body (null: none); answers status and JSON (null: no body).
    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let mut request = self
            .client
            .request(method.parse().unwrap(), format!("{}{path}", self.url));
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await.expect("the node answers");
        let status = response.status().as_u16();
        let text = response.text().await.expect("the answer is read");
        let json = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        };
        (status, json)
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call("POST", path, body).await
    }

    /// Creates a job of `tasks` tasks in queue `q` with further members; answers its id.
    pub(crate) async fn job(&self, tasks: usize, more: Value) -> i64 {
        let mut body = json!({"name": "test", "queue": "q"});
        body["tasks"] = (0..tasks)
            .map(|i| json!({"key": format!("k{i}"), "payload": {"n": i}}))
            .collect();
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        let (status, job) = self.post("/v1/jobs", body).await;
        assert_eq!(status, 201, "{job}");
        job["id"].as_i64().expect("an id is a number")
    }

    /// Leases up to `most` tasks of a job; answers the tasks.
    pub(crate) async fn lease(&self, job: i64, worker: &str, most: usize) -> Vec<Value> {
        let body = json!({"worker": worker, "max_tasks": most});
        let (status, granted) = self.post(&format!("/v1/jobs/{job}/leases"), body).await;
        assert_eq!(status, 200, "{granted}");
        granted["tasks"].as_array().expect("tasks is a list").clone()
    }

    /// Posts results; answers the dispositions.
    pub(crate) async fn report(&self, job: i64, worker: &str, results: Vec<Value>) -> Vec<String> {
        let body = json!({"worker": worker, "results": results});
        let (status, posted) = self.post(&format!("/v1/jobs/{job}/results"), body).await;
        assert_eq!(status, 200, "{posted}");
        let items = posted["results"].as_array().expect("results is a list").iter();
        items
            .map(|item| item["disposition"].as_str().expect("a disposition is text").to_owned())
            .collect()
    }

    pub(crate) async fn view(&self, job: i64) -> Value {
        let (status, view) = self.get(&format!("/v1/jobs/{job}")).await;
        assert_eq!(status, 200, "{view}");
        assert_sums(&view["progress"]);
        view
    }
}

impl App {
    /// A request with anything special about it.
    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.client
            .request(method.parse().unwrap(), format!("{}{path}", self.url))
    }

    /// Waits for work of queue `q`; answers the tasks.
    pub(crate) async fn poll(&self, worker: &str, most: usize, wait_s: f64) -> Vec<Value> {
        let body = json!({"worker": worker, "queues": ["q"], "max_tasks": most, "wait_s": wait_s});
        let (status, granted) = self.post("/v1/leases", body).await;
        assert_eq!(status, 200, "{granted}");
        granted["tasks"].as_array().expect("tasks is a list").clone()
    }

    /// Sends a control command that must be accepted; answers the job.
    pub(crate) async fn control(&self, job: i64, verb: &str, body: Value) -> Value {
        let (status, view) = self.post(&format!("/v1/jobs/{job}/{verb}"), body).await;
        assert_eq!(status, 200, "{verb}: {view}");
        assert_sums(&view["progress"]);
        view
    }

    /// Sends a control command that must be refused as impossible.
    pub(crate) async fn refuses(&self, job: i64, verb: &str, state: &str) {
        let (status, problem) = self.post(&format!("/v1/jobs/{job}/{verb}"), json!({})).await;
        let said = (status, problem["code"].as_str(), problem["state"].as_str());
        assert_eq!(said, (409, Some("invalid_transition"), Some(state)), "{verb}");
    }

    /// Sends a POST on a connection of its own and closes that without waiting for an answer.
    pub(crate) fn shout(&self, path: &str, body: &str) {
        use std::io::Write as _;
        let address = self.url.strip_prefix("http://").expect("plain HTTP");
        let mut stream = std::net::TcpStream::connect(address).expect("the node listens");
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all(format!("{head}{body}").as_bytes())
            .expect("the request is sent");
    }

    /// Every stored result, page by page.
    pub(crate) async fn results(&self, job: i64) -> Vec<Value> {
        let (mut all, mut path) = (Vec::new(), format!("/v1/jobs/{job}/results?limit=500"));
        loop {
            let (status, page) = self.get(&path).await;
            assert_eq!(status, 200, "{page}");
            all.extend(page["items"].as_array().expect("items is a list").iter().cloned());
            match page["next_cursor"].as_str() {
                Some(cursor) => path = format!("/v1/jobs/{job}/results?limit=500&cursor={cursor}"),
                None => return all,
            }
        }
    }

    /// Looks at a job until it is as wanted; fails if that takes too long.
    pub(crate) async fn until(&self, job: i64, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let view = self.view(job).await;
            if wanted(&view) {
                return view;
            }
            assert!(Instant::now() < deadline, "not in time: {view}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Longest wait for something that is bound to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Stamps each test out for both stores.
macro_rules! on_both_stores {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[actix_web::test] async fn $name() { super::$name(crate::app::Place::sqlite()).await })+
        }
        mod postgres {
            $(#[actix_web::test] async fn $name() { super::$name(crate::app::Place::postgres().await).await })+
        }
    };
}
pub(crate) use on_both_stores;

/// The success of a leased task.
pub(crate) fn success(task: &Value) -> Value {
    json!({"lease": task["lease"], "status": "succeeded", "result": {"of": task["task"]}})
}

/// The failure of a leased task.
pub(crate) fn failure(task: &Value) -> Value {
    json!({"lease": task["lease"], "status": "failed", "error": "it broke"})
}

/// The failure of a leased task that is not worth another attempt.
pub(crate) fn fatal(task: &Value) -> Value {
    let mut item = failure(task);
    item["retryable"] = json!(false);
    item
}

/// The numbers of leased tasks.
pub(crate) fn numbers(tasks: &[Value]) -> Vec<u64> {
    tasks
        .iter()
        .map(|task| task["task"].as_u64().expect("a task has a number"))
        .collect()
}

/// The sum that holds in every progress anyone can see.
pub(crate) fn assert_sums(progress: &Value) {
    let part = |name: &str| {
        progress[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name} is missing in {progress}"))
    };
    let sum: u64 = ["pending", "leased", "retrying", "succeeded", "failed"]
        .into_iter()
        .map(part)
        .sum();
    assert_eq!(sum, part("total"), "{progress}");
}
