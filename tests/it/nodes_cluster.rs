//! Several nodes as real processes on one PostgreSQL.
//!
//! Owns: starting them, and what they say of each other. Never: tests anything itself. Invariant: every node has a name and a port of its
//! own, and short leases, so that a take-over is waited for and not slept through.

use crate::app::Place;
use crate::crash_load::Running;
use crate::process::{Client, Launch, Process, until};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Seconds of a node's lease: long enough that a busy machine does not make nodes lapse.
pub(crate) const LEASE_S: u64 = 4;

/// Nodes on one store.
pub(crate) struct Nodes {
    pub(crate) launches: Vec<Launch>,
    pub(crate) processes: Vec<Process>,
}

impl Nodes {
    pub(crate) async fn start(names: &[&str]) -> Nodes {
        Nodes::start_on(Place::postgres().await, names).await
    }

    pub(crate) async fn start_on(place: Place, names: &[&str]) -> Nodes {
        let first = Launch::new(place).set("NODE_LEASE_S", LEASE_S);
        Nodes::launch(names.iter().map(|name| first.sibling(name)).collect()).await
    }

    pub(crate) async fn launch(launches: Vec<Launch>) -> Nodes {
        let mut processes = Vec::new();
        for launch in &launches {
            processes.push(launch.start().await);
        }
        let nodes = Nodes { launches, processes };
        nodes.all_know_each_other().await;
        nodes
    }

    pub(crate) fn client(&self, node: usize) -> Client {
        self.launches[node].client()
    }

    pub(crate) fn name(&self, node: usize) -> &str {
        &self.launches[node].node_id
    }

    /// Every node listens and is listed as alive.
    pub(crate) async fn all_know_each_other(&self) {
        until("the nodes are listed", async || {
            let listed = self.client(0).get("/v1/nodes").await;
            let alive = listed["items"].as_array().expect("a list").iter();
            let reachable = alive.filter(|node| node["alive"] == true && node["address"] != "");
            (reachable.count() == self.launches.len()).then_some(())
        })
        .await;
    }

    /// Creates a job in a queue through one node; answers its id.
    pub(crate) async fn job(&self, node: usize, queue: &str, tasks: usize) -> i64 {
        let tasks: Vec<Value> = (0..tasks).map(|n| json!({"payload": {"n": n}})).collect();
        let body = json!({"name": queue, "queue": queue, "tasks": tasks});
        let job = self.client(node).post("/v1/jobs", body).await;
        job["id"].as_i64().expect("an id is a number")
    }

    /// Puts a load on each of some queues, whose workers ask any node.
    pub(crate) async fn under_load(&self, queues: &[&str], seed: u64) -> Vec<Running> {
        let urls: Vec<String> = self.launches.iter().map(Launch::url).collect();
        let policy = json!({"max_attempts": 5, "backoff": {"initial_s": 0.05}});
        let mut running = Vec::new();
        for queue in queues {
            let client = Client::of_any(urls.clone());
            running.push(Running::start_in(queue, client, seed, 2, policy.clone()).await);
        }
        running
    }

    /// Who owns how many queues, as one node tells it.
    pub(crate) async fn shares(&self, node: usize) -> BTreeMap<String, usize> {
        let queues = self.client(node).get("/v1/queues").await;
        let mut shares = BTreeMap::new();
        for queue in queues["items"].as_array().expect("a list") {
            *shares
                .entry(queue["node"].as_str().unwrap_or("").to_owned())
                .or_insert(0) += 1;
        }
        shares
    }

    /// The node that owns a queue.
    pub(crate) async fn owner(&self, through: usize, queue: &str) -> Option<usize> {
        let queues = self.client(through).get("/v1/queues").await;
        let found = queues["items"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|item| item["queue"] == queue)?;
        let name = found["node"].as_str()?;
        self.launches.iter().position(|launch| launch.node_id == name)
    }

    /// Ends every node that is left; each must have saved everything.
    pub(crate) async fn stop(mut self) {
        for process in &mut self.processes {
            let status = process.terminate().await;
            assert!(status.success(), "{status}: {}", process.log());
        }
    }
}

/// Leases from any of some queues, once.
pub(crate) async fn lease(client: &Client, worker: &str, queues: &[&str], most: usize, wait_s: f64) -> Value {
    let body = json!({"worker": worker, "queues": queues, "max_tasks": most, "wait_s": wait_s});
    client.post("/v1/leases", body).await
}

/// Reports every task of a grant as done; answers the dispositions.
pub(crate) async fn report(client: &Client, job: i64, worker: &str, tasks: &Value) -> Vec<String> {
    let results: Vec<Value> = tasks
        .as_array()
        .expect("a list")
        .iter()
        .map(crate::app::success)
        .collect();
    let body = json!({"worker": worker, "results": results});
    let posted = client.post(&format!("/v1/jobs/{job}/results"), body).await;
    let items = posted["results"].as_array().expect("a list").iter();
    items
        .map(|item| item["disposition"].as_str().expect("text").to_owned())
        .collect()
}
