//! Load that survives its server, and the check of what must be true afterwards.
//!
//! Owns: workers, an uploader and an observer that keep their own record of all they were told. Never: believes the server about the past;
//! the record is compared with what it says at the end. Invariant: what becomes of a task depends on its number alone, so however often
//! it is worked on the outcome is the same.

use crate::app::assert_sums;
use crate::process::{Body, Client, GLANCE, Heard, Launch, PATIENCE, Wait, until};
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Tasks in one upload.
const CHUNK: u32 = 250;
/// Most tasks leased in one call.
const MOST: u32 = 16;

/// The seed of this run: `TALLYKEEPER_TEST_SEED`, or always the same.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("TALLYKEEPER_TEST_SEED").ok();
    given.map_or(0x7a11, |text| text.parse().expect("TALLYKEEPER_TEST_SEED is a number"))
}

/// Fails for good, whoever tries.
pub(crate) fn fails(task: u64) -> bool {
    task % 31 == 3
}

/// Fails the first time.
fn stumbles(task: u64) -> bool {
    task % 7 == 2 && !fails(task)
}

/// What the clients know.
#[derive(Default)]
pub(crate) struct Record {
    /// Tasks whose outcome was acknowledged as counted, with the posted item, as often as that happened.
    counted: HashMap<u64, Vec<Value>>,
    /// Every item that was sent as an outcome, acknowledged or not.
    sent: HashMap<u64, Vec<Value>>,
    /// Acknowledged results by disposition.
    dispositions: BTreeMap<String, u64>,
    /// Every lease that reached a worker.
    granted: HashMap<u64, BTreeSet<String>>,
    /// Refusals and broken connections.
    pub(crate) unheard: BTreeMap<String, u64>,
    /// When a result was acknowledged last, and the longest time without any.
    heard_at: Option<Instant>,
    pub(crate) longest_pause: Duration,
}

/// One job under load.
pub(crate) struct Load {
    pub(crate) client: Client,
    pub(crate) job: i64,
    pub(crate) record: Mutex<Record>,
    /// Results acknowledged so far.
    pub(crate) acknowledged: AtomicU64,
    /// The uploader stops, seals the job and ends.
    seal: AtomicBool,
    /// The observer ends.
    observed: AtomicBool,
    /// Tasks the observer saw decided, for the uploader to keep a little ahead.
    decided: AtomicU64,
    uploaded: AtomicU64,
    /// Tasks the uploader keeps ahead of the workers.
    ahead: u64,
}

/// What runs.
pub(crate) struct Running {
    pub(crate) load: Arc<Load>,
    workers: Vec<JoinHandle<()>>,
    uploader: JoinHandle<()>,
    observer: JoinHandle<()>,
}

impl Running {
    /// Creates an open job and sets workers, an uploader and an observer on it.
    pub(crate) async fn start(client: Client, seed: u64, workers: u64, policy: Value) -> Running {
        Running::start_in("q", client, seed, workers, policy).await
    }

    pub(crate) async fn start_in(queue: &str, client: Client, seed: u64, workers: u64, policy: Value) -> Running {
        let body = json!({"name": "load", "queue": queue, "open": true, "policy": policy});
        let job = client.post("/v1/jobs", body).await["id"].as_i64().expect("an id");
        let load = Arc::new(Load {
            client,
            job,
            record: Mutex::default(),
            acknowledged: AtomicU64::new(0),
            seal: AtomicBool::new(false),
            observed: AtomicBool::new(false),
            decided: AtomicU64::new(0),
            uploaded: AtomicU64::new(0),
            ahead: 4_000,
        });
        let worker = |number| tokio::spawn(Worker::new(load.clone(), seed, number).work());
        Running {
            workers: (0..workers).map(worker).collect(),
            uploader: tokio::spawn(load.clone().upload()),
            observer: tokio::spawn(load.clone().observe()),
            load,
        }
    }

    /// Waits until this many more results were acknowledged. A worker that panicked ends the wait.
    pub(crate) async fn progress(&self, more: u64) {
        let goal = self.load.acknowledged.load(Ordering::Relaxed) + more;
        until("results are acknowledged", async || {
            let failed = self
                .workers
                .iter()
                .chain([&self.uploader, &self.observer])
                .any(JoinHandle::is_finished);
            (failed || self.load.acknowledged.load(Ordering::Relaxed) >= goal).then_some(())
        })
        .await;
    }

    /// Results acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.load.acknowledged.load(Ordering::Relaxed)
    }

    /// No more tasks: the job can end.
    pub(crate) fn seal(&self) {
        self.load.seal.store(true, Ordering::Relaxed);
    }

    /// Waits for the end of the job.
    pub(crate) async fn finish(self) -> Arc<Load> {
        self.seal();
        let busy = [self.uploader].into_iter().chain(self.workers);
        let ended = tokio::time::timeout(PATIENCE, join_all(busy)).await;
        let Ok(ended) = ended else {
            let job = self.load.client.get(&self.load.path("")).await;
            panic!("the job does not end: {job}");
        };
        ended.into_iter().for_each(|ended| ended.expect("a client ends well"));
        self.load.observed.store(true, Ordering::Relaxed);
        self.observer.await.expect("the observer ends well");
        self.load
    }
}

impl Load {
    fn path(&self, rest: &str) -> String {
        format!("/v1/jobs/{}{rest}", self.job)
    }

    /// As [`Client::insist`], keeping count of the calls in vain.
    async fn insist(&self, path: &str, body: &Body) -> Value {
        let wait = Wait::begin();
        loop {
            let why = match self.client.call("POST", path, body).await {
                Heard::Answer(200, json) => return json,
                Heard::Answer(status, json) => panic!("{path}: {status} {json}"),
                Heard::NotNow(code) => code,
                // Nobody listens while a node restarts; a load balancer would ask another one.
                Heard::Nothing(why) if why.contains("ConnectionRefused") => "no connection".into(),
                Heard::Nothing(_) => "no answer".into(),
            };
            *self.record.lock().unwrap().unheard.entry(why.clone()).or_default() += 1;
            wait.a_moment(&why).await;
        }
    }

    /// Appends tasks a little ahead of the workers, and seals.
    async fn upload(self: Arc<Self>) {
        let mut next = 0;
        while !self.seal.load(Ordering::Relaxed) {
            if u64::from(next) > self.decided.load(Ordering::Relaxed) + self.ahead {
                tokio::time::sleep(GLANCE).await;
                continue;
            }
            let line = |task: u32| format!("{{\"key\":\"k{task}\",\"payload\":{{\"n\":{task}}}}}\n");
            let lines = Body::Lines((next..next + CHUNK).map(line).collect());
            // Whether an upload without an answer was stored is for the server to say: repeated, it answers where to go on.
            let path = self.path(&format!("/tasks?first_task={next}"));
            let wait = Wait::begin();
            next = loop {
                match self.client.call("POST", &path, &lines).await {
                    Heard::Answer(200 | 409, json) => break json["next_task"].as_u64().expect("a number") as u32,
                    Heard::Answer(status, json) => panic!("{path}: {status} {json}"),
                    Heard::NotNow(why) | Heard::Nothing(why) => wait.a_moment(&why).await,
                }
            };
            assert_eq!(next % CHUNK, 0, "part of a chunk was stored");
            self.uploaded.store(next.into(), Ordering::Relaxed);
        }
        self.client.post(&self.path("/seal"), json!({})).await;
    }

    /// Watches the job from outside: whatever crashes, what was once seen stays true.
    async fn observe(self: Arc<Self>) {
        let (mut decided, mut total, mut fraction, mut end) = (0, 0, 0.0, None);
        while !self.observed.load(Ordering::Relaxed) {
            if let Heard::Answer(status, job) = self.client.call("GET", &self.path(""), &Body::None).await {
                assert_eq!(status, 200, "{job}");
                let progress = &job["progress"];
                assert_sums(progress);
                let number = |name: &str| progress[name].as_u64().expect("a number");
                let now = number("succeeded") + number("failed");
                assert!(
                    now >= decided && number("total") >= total,
                    "counts fell from {decided} of {total}: {job}"
                );
                (decided, total) = (now, number("total"));
                if let Some(now) = progress["fraction"].as_f64() {
                    assert!(now >= fraction, "fraction fell from {fraction}: {job}");
                    fraction = now;
                }
                if let Some(end) = &end {
                    assert_eq!(&job["state"], end, "a final state was left");
                }
                if !job["finished_at"].is_null() {
                    end = Some(job["state"].clone());
                }
                self.decided.store(decided, Ordering::Relaxed);
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// The final check; answers one line to print. The node serves; nobody works any more.
    pub(crate) async fn check(&self) -> String {
        let job = self.client.get(&self.path("")).await;
        let progress = &job["progress"];
        let total = self.uploaded.load(Ordering::Relaxed);
        let failed = (0..total).filter(|task| fails(*task)).count() as u64;
        assert_eq!(job["state"], "partially_succeeded", "{job}");
        assert_sums(progress);
        let tally = ["total", "succeeded", "failed"].map(|name| progress[name].as_u64().unwrap());
        assert_eq!(tally, [total, total - failed, failed], "{job}");
        assert_eq!(progress["fraction"], 1.0, "{job}");
        let mut kept: HashMap<u64, Value> = HashMap::new();
        let rows = self.client.results(self.job).await;
        let record = self.record.lock().unwrap();
        for row in rows {
            let task = row["task"].as_u64().expect("a number");
            assert!(kept.insert(task, row).is_none(), "task {task} is in the results twice");
        }
        assert_eq!(kept.len() as u64, total);
        let (mut lost, mut double) = (Vec::new(), Vec::new());
        for (task, items) in &record.counted {
            if items.len() > 1 {
                double.push(task);
            }
            if !items.iter().all(|item| is_kept(item, &kept[task])) {
                lost.push((task, items, &kept[task]));
            }
        }
        assert!(lost.is_empty(), "acknowledged, but not kept: {lost:?}");
        assert!(double.is_empty(), "counted twice: {double:?}");
        let mut sums = [0, 0];
        for (task, row) in &kept {
            let sent = record.sent.get(task).into_iter().flatten();
            assert!(sent.clone().any(|item| is_kept(item, row)), "nobody sent {row}");
            for (sum, name) in sums.iter_mut().zip(["n", "done"]) {
                *sum += row["counters"][name].as_i64().unwrap_or(0);
            }
        }
        let expected: u64 = (0..total).filter(|task| !fails(*task)).map(|task| task + 1).sum();
        assert_eq!(sums, [expected as i64, (total - failed) as i64]);
        assert_eq!(progress["counters"], json!({"n": sums[0], "done": sums[1]}), "{job}");
        for unheard_of in ["rejected", "stale_run", "unknown_task"] {
            assert!(
                !record.dispositions.contains_key(unheard_of),
                "{:?}",
                record.dispositions
            );
        }
        format!(
            "tasks={total} acknowledged={} counted={} dispositions={:?} in vain={:?} lost=0 double=0",
            self.acknowledged.load(Ordering::Relaxed),
            record.counted.len(),
            record.dispositions,
            record.unheard,
        )
    }

    /// What the tables must say; the node may be stopped.
    pub(crate) async fn check_rows(&self, launch: &Launch) {
        let job = self.job;
        let total = self.uploaded.load(Ordering::Relaxed) as i64;
        assert_eq!(
            launch
                .count(&format!("SELECT count(*) FROM events WHERE job = {job}"))
                .await,
            1
        );
        assert_eq!(
            launch
                .count(&format!("SELECT count(*) FROM outcomes WHERE job = {job}"))
                .await,
            total
        );
        let expired = format!("SELECT count(*) FROM attempts WHERE job = {job} AND cause = 'expired'");
        assert_eq!(launch.count(&expired).await, 0, "an attempt was spent on a crash");
        let stumbled = (0..total as u64).filter(|task| stumbles(*task)).count() as i64;
        let reported = format!("SELECT count(*) FROM attempts WHERE job = {job} AND attempt = 1 AND task % 31 <> 3");
        assert_eq!(launch.count(&reported).await, stumbled);
    }

    /// No task reached workers under a second lease but after a failed attempt.
    pub(crate) fn check_leases(&self) {
        let record = self.record.lock().unwrap();
        for (task, leases) in &record.granted {
            let allowed = 1 + usize::from(stumbles(*task));
            assert!(leases.len() <= allowed, "task {task} was handed out as {leases:?}");
        }
    }
}

/// Is this row what that item said?
fn is_kept(item: &Value, row: &Value) -> bool {
    item["status"] == row["status"] && item["result"] == row["result"] && item["error"] == row["error"]
}

/// A worker as any client could be one: leases, posts, repeats itself.
struct Worker {
    load: Arc<Load>,
    name: String,
    random: StdRng,
    calls: u64,
    /// Tasks and items it posted last, to be posted again now and then.
    last: Vec<(u64, Value)>,
}

impl Worker {
    fn new(load: Arc<Load>, seed: u64, number: u64) -> Worker {
        Worker {
            load,
            name: format!("w{number}"),
            random: StdRng::seed_from_u64(seed ^ (number << 32)),
            calls: 0,
            last: Vec::new(),
        }
    }

    async fn work(mut self) {
        loop {
            let tasks = self.lease().await;
            if tasks.is_empty() {
                let heard = self.load.client.call("GET", &self.load.path(""), &Body::None).await;
                if matches!(heard, Heard::Answer(200, job) if !job["finished_at"].is_null()) {
                    return;
                }
                tokio::time::sleep(GLANCE).await;
                continue;
            }
            let mut items: Vec<(u64, Value)> = tasks.iter().map(|task| self.item(task)).collect();
            if self.random.random_ratio(1, 4) {
                // The same item twice in one request, and items of an earlier one.
                items.push(items[0].clone());
                items.append(&mut self.last.clone());
            }
            self.report(&items).await;
            self.last = items.into_iter().take(2).collect();
        }
    }

    async fn lease(&mut self) -> Vec<Value> {
        self.calls += 1;
        let body = Body::Json(json!({
            "worker": self.name,
            "max_tasks": self.random.random_range(1..=MOST),
            "request_id": format!("{}-{}", self.name, self.calls),
        }));
        let granted = self.load.insist(&self.load.path("/leases"), &body).await;
        let tasks = granted["tasks"].as_array().expect("a list").clone();
        let mut record = self.load.record.lock().unwrap();
        for task in &tasks {
            let lease = task["lease"].as_str().expect("text").to_owned();
            assert_eq!(task["payload"], json!({"n": task["task"]}));
            record
                .granted
                .entry(task["task"].as_u64().expect("a number"))
                .or_default()
                .insert(lease);
        }
        tasks
    }

    fn item(&mut self, leased: &Value) -> (u64, Value) {
        let task = leased["task"].as_u64().expect("a number");
        let (lease, mark) = (
            &leased["lease"],
            format!("{} {:016x}", self.name, self.random.random::<u64>()),
        );
        let item = if fails(task) {
            json!({"lease": lease, "status": "failed", "error": mark, "retryable": false})
        } else if stumbles(task) && leased["attempt"] == 1 {
            return (task, json!({"lease": lease, "status": "failed", "error": mark}));
        } else {
            json!({"lease": lease, "status": "succeeded", "result": {"of": task, "by": mark}, "counters": {"n": task + 1, "done": 1}})
        };
        let mut record = self.load.record.lock().unwrap();
        record.sent.entry(task).or_default().push(item.clone());
        (task, item)
    }

    async fn report(&mut self, items: &[(u64, Value)]) {
        let results: Vec<&Value> = items.iter().map(|(_, item)| item).collect();
        let body = Body::Json(json!({"worker": self.name, "results": results}));
        let posted = self.load.insist(&self.load.path("/results"), &body).await;
        let answers = posted["results"].as_array().expect("a list");
        assert_eq!(answers.len(), items.len());
        let mut record = self.load.record.lock().unwrap();
        for ((task, item), answer) in items.iter().zip(answers) {
            let disposition = answer["disposition"].as_str().expect("text").to_owned();
            if disposition == "counted" {
                record.counted.entry(*task).or_default().push(item.clone());
            }
            *record.dispositions.entry(disposition).or_default() += 1;
        }
        let now = Instant::now();
        if let Some(before) = record.heard_at.replace(now) {
            record.longest_pause = record.longest_pause.max(now - before);
        }
        drop(record);
        self.load.acknowledged.fetch_add(items.len() as u64, Ordering::Relaxed);
    }
}
