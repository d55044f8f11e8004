//! Trust between nodes: whom they believe, and for whom a forwarded request counts.
//!
//! Owns: proofs that are forged, replayed or misdirected, and the rights of a caller behind two nodes. Never: learns the secret but from the
//! database. Invariant: a caller has the same rights through every node.

use crate::cluster;
use crate::nodes_cluster::Nodes;
use crate::process::until;
use serde_json::{Value, json};
use tallykeeper::domain::ids::UnixMs;
use tallykeeper::http::hop::Hops;

/// One call with some headers; answers status and JSON.
async fn call(url: &str, method: &str, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> (u16, Value) {
    let http = reqwest::Client::new();
    let mut request = http.request(method.parse().unwrap(), format!("{url}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.expect("the node answers");
    let status = response.status().as_u16();
    let text = response.text().await.expect("the answer is read");
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// A token made with another one (empty: while there is none); answers its id and the header that carries it.
async fn token(url: &str, by: &str, body: Value) -> (String, String) {
    let headers: &[(&str, &str)] = if by.is_empty() { &[] } else { &[("authorization", by)] };
    let (status, made) = call(url, "POST", "/v1/tokens", headers, Some(body)).await;
    assert_eq!(status, 201, "{made}");
    let text = |name: &str| made[name].as_str().expect("text").to_owned();
    (text("id"), format!("Bearer {}", text("token")))
}

/// Every node has heard of a token: the others read the tokens anew now and then.
async fn known_everywhere(urls: &[String], token: &str) {
    for url in urls {
        until("the token is known", async || {
            // Before it has read any it asks for none.
            let asks = call(url, "GET", "/v1/jobs", &[], None).await.0 == 401;
            let headers = [("authorization", token)];
            (asks && call(url, "GET", "/v1/jobs", &headers, None).await.0 != 401).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_between_nodes_is_good_once_for_its_request_and_its_caller() {
    let nodes = Nodes::start(&["a", "b"]).await;
    let urls: Vec<String> = nodes.launches.iter().map(|launch| launch.url()).collect();
    let (mine, other) = (nodes.job(0, "mine", 2).await, nodes.job(0, "other", 2).await);
    until("both own a queue", async || {
        (nodes.shares(0).await.len() == 2).then_some(())
    })
    .await;
    let (_, admin) = token(&urls[0], "", json!({"name": "admin", "scopes": ["admin"]})).await;
    let limited = json!({"name": "limited", "scopes": ["read"], "queues": ["mine"]});
    let (limited, _) = token(&urls[0], &admin, limited).await;

    let (secret, now) = secret_and_now(&nodes).await;
    let (owner, to) = nodes_owner(&nodes, &urls, &admin, mine).await;
    let url = &urls[owner];
    let us = Hops::new(Some(secret.as_bytes()), "a test that knows the secret");
    let path = format!("/v1/jobs/{mine}");
    let ask = async |path: &str, proof: Option<&str>| {
        let headers: Vec<(&str, &str)> = proof.iter().map(|proof| ("tallykeeper-hop", *proof)).collect();
        call(url, "GET", path, &headers, None).await
    };
    let sign = |path: &str, caller: &str| us.sign(&to, "GET", path, caller, now).expect("there is a secret");

    assert_eq!(ask(&path, None).await.0, 401, "without a proof it is a stranger");
    let good = sign(&path, "*");
    assert_eq!(ask(&path, Some(&good)).await.0, 200);
    assert_eq!(ask(&path, Some(&good)).await.0, 403, "replayed");
    assert_eq!(
        ask(&format!("{path}/tasks"), Some(&sign(&path, "*"))).await.0,
        403,
        "for another path"
    );
    let forged = Hops::new(Some(b"guessed"), "x")
        .sign(&to, "GET", &path, "*", now)
        .unwrap();
    assert_eq!(ask(&path, Some(&forged)).await.0, 403);
    let swapped = sign(&path, &limited).replace(&limited, "*");
    assert_eq!(ask(&path, Some(&swapped)).await.0, 403, "another caller");
    let old = us.sign(&to, "GET", &path, "*", UnixMs(now.0 - 60_000)).unwrap();
    assert_eq!(ask(&path, Some(&old)).await.0, 503, "too old");
    let (status, problem) = ask(&path, Some(&us.sign("someone else", "GET", &path, "*", now).unwrap())).await;
    assert_eq!((status, &problem["code"]), (503, &json!("not_owner")));
    // The proof says for whom; that caller's rights are looked up here.
    assert_eq!(ask(&path, Some(&sign(&path, &limited))).await.0, 200);
    assert_eq!(ask(&path, Some(&sign(&path, "t_nobody"))).await.0, 401);
    let hidden = format!("/v1/jobs/{other}");
    let through_owner = sign(&hidden, &limited);
    assert!(
        [404, 503].contains(&ask(&hidden, Some(&through_owner)).await.0),
        "not its queue, or not its node"
    );
    let control = us.sign(&to, "POST", &format!("{path}/cancel"), &limited, now).unwrap();
    let headers = [("tallykeeper-hop", control.as_str())];
    let (status, _) = call(url, "POST", &format!("{path}/cancel"), &headers, Some(json!({}))).await;
    assert_eq!(status, 403, "the scope goes along");
    for process in &nodes.processes {
        assert!(!process.log().contains(&secret));
    }
    nodes.stop().await;
}

/// What nodes sign with, and the store's time.
async fn secret_and_now(nodes: &Nodes) -> (String, UnixMs) {
    let db = cluster::connect(&nodes.launches[0].store()).await;
    let secret = db
        .query_one("SELECT value FROM cluster WHERE name = 'secret'", &[])
        .await;
    let now = db.query_one("SELECT now_ms()", &[]).await;
    (secret.unwrap().get(0), UnixMs(now.unwrap().get(0)))
}

/// The place of the node that owns a job, and its process.
async fn nodes_owner(nodes: &Nodes, urls: &[String], admin: &str, job: i64) -> (usize, String) {
    let (_, listed) = call(&urls[0], "GET", "/v1/nodes", &[("authorization", admin)], None).await;
    let (_, view) = call(
        &urls[0],
        "GET",
        &format!("/v1/jobs/{job}"),
        &[("authorization", admin)],
        None,
    )
    .await;
    let found = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|node| node["node"] == view["node"]);
    let found = found.expect("the owner is listed");
    let owner = nodes
        .launches
        .iter()
        .position(|launch| found["node"] == *launch.node_id);
    (
        owner.expect("it is one of ours"),
        found["incarnation"].as_str().expect("text").to_owned(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_nodes_may_ask_is_not_honoured_for_a_client_behind_one() {
    let nodes = Nodes::start(&["a", "b"]).await;
    let urls: Vec<String> = nodes.launches.iter().map(|launch| launch.url()).collect();
    let mut jobs = Vec::new();
    // Two of one queue, whose leases have the same epoch.
    for queue in ["mine", "mine", "other"] {
        jobs.push(nodes.job(0, queue, 2).await);
    }
    until("both own a queue", async || {
        (nodes.shares(0).await.len() == 2).then_some(())
    })
    .await;
    let (_, admin) = token(&urls[0], "", json!({"name": "admin", "scopes": ["admin"]})).await;
    let limited = json!({"name": "limited", "scopes": ["work"], "queues": ["mine"]});
    let (limited_id, limited) = token(&urls[0], &admin, limited).await;
    known_everywhere(&urls, &limited).await;
    let mut leases = Vec::new();
    for job in &jobs {
        let path = format!("/v1/jobs/{job}/leases");
        let body = json!({"worker": "w", "max_tasks": 1});
        let (status, granted) = call(&urls[0], "POST", &path, &[("authorization", &admin)], Some(body)).await;
        assert_eq!(status, 200, "{granted}");
        leases.push(granted["tasks"][0]["lease"].as_str().expect("a lease").to_owned());
    }
    let release = |job: usize| format!("/v1/jobs/{}/leases/release?undelivered=true", jobs[job]);
    let leased = async |job: usize| {
        let path = format!("/v1/jobs/{}", jobs[job]);
        let (_, view) = call(&urls[0], "GET", &path, &[("authorization", &admin)], None).await;
        view["progress"]["leased"].clone()
    };

    for url in &urls {
        let headers = [("authorization", limited.as_str())];
        let body = json!({"worker": "w", "leases": [leases[2]]});
        for job in [0, 2] {
            let (status, problem) = call(url, "POST", &release(job), &headers, Some(body.clone())).await;
            assert_eq!((status, &problem["field"]), (400, &json!("undelivered")), "{problem}");
        }
        let plain = |job: usize| format!("/v1/jobs/{}/leases/release", jobs[job]);
        let (status, _) = call(url, "POST", &plain(2), &headers, Some(body.clone())).await;
        assert_eq!(status, 404, "not its queue");
        let (status, said) = call(url, "POST", &plain(0), &headers, Some(body)).await;
        assert_eq!((status, &said["lost"]), (200, &json!([leases[2]])), "{said}");
    }
    for job in 0..jobs.len() {
        assert_eq!(leased(job).await, 1, "job {job}");
    }

    // A node itself may, but for leases of that job alone, and not of more than one grant.
    let (secret, now) = secret_and_now(&nodes).await;
    let us = Hops::new(Some(secret.as_bytes()), "a test that knows the secret");
    let (owner, to) = nodes_owner(&nodes, &urls, &admin, jobs[0]).await;
    let ask = async |leases: Vec<&str>| {
        let proof = us.sign(&to, "POST", &release(0), "*", now).expect("there is a secret");
        let body = json!({"worker": "*", "leases": leases});
        let headers = [("tallykeeper-hop", proof.as_str())];
        call(&urls[owner], "POST", &release(0), &headers, Some(body)).await.0
    };
    assert_eq!(ask(vec![leases[1].as_str()]).await, 200);
    assert_eq!((leased(0).await, leased(1).await), (json!(1), json!(1)));
    assert_eq!(ask(vec!["x"; 1_001]).await, 400);
    assert_eq!(ask(vec![leases[0].as_str()]).await, 200);
    assert_eq!(leased(0).await, 0);

    // For work a node asks only where there was a grant before; for a client behind it there is no such parameter.
    let path = "/v1/leases?replay_only=true";
    let limited_id = limited_id.as_str();
    for (caller, expected) in [("*", (200, Some(0))), (limited_id, (400, None))] {
        let proof = us.sign(&to, "POST", path, caller, now).expect("there is a secret");
        let body = json!({"worker": "new", "queues": ["mine"], "max_tasks": 1, "request_id": "r"});
        let headers = [("tallykeeper-hop", proof.as_str())];
        let (status, granted) = call(&urls[owner], "POST", path, &headers, Some(body)).await;
        let granted = granted["tasks"].as_array().map(Vec::len);
        assert_eq!((status, granted), expected, "for {caller}");
    }
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scopes_and_queues_of_a_token_hold_through_every_node() {
    let nodes = Nodes::start(&["a", "b"]).await;
    let urls: Vec<String> = nodes.launches.iter().map(|launch| launch.url()).collect();
    let queues = ["q0", "q1", "q2", "q3"];
    let mut jobs = Vec::new();
    for queue in queues {
        jobs.push(nodes.job(0, queue, 4).await);
    }
    until("both own queues", async || {
        (nodes.shares(0).await.len() == 2).then_some(())
    })
    .await;
    let (_, admin) = token(&urls[0], "", json!({"name": "admin", "scopes": ["admin"]})).await;
    let allowed = ["q1", "q2"];
    let body = json!({"name": "some", "scopes": ["read", "work"], "queues": allowed});
    let (_, some) = token(&urls[0], &admin, body).await;
    let body = json!({"name": "bound", "scopes": ["admin"], "queues": allowed});
    let (_, bound) = token(&urls[0], &admin, body).await;
    known_everywhere(&urls, &some).await;
    known_everywhere(&urls, &bound).await;
    let headers = [("authorization", some.as_str())];
    for url in &urls {
        for (queue, job) in queues.iter().zip(&jobs) {
            let expected = if allowed.contains(queue) { 200 } else { 404 };
            let path = format!("/v1/jobs/{job}");
            for path in [
                path.clone(),
                format!("{path}/tasks"),
                format!("{path}/explain"),
                format!("{path}/results"),
            ] {
                assert_eq!(
                    call(url, "GET", &path, &headers, None).await.0,
                    expected,
                    "{path} of {queue}"
                );
            }
            let lease = json!({"worker": "w", "max_tasks": 1});
            let leased = call(url, "POST", &format!("{path}/leases"), &headers, Some(lease)).await;
            assert_eq!(leased.0, expected, "{leased:?}");
            let canceled = call(url, "POST", &format!("{path}/cancel"), &headers, Some(json!({}))).await;
            assert_eq!(
                canceled.0, 403,
                "the scope is missing whoever owns the job: {canceled:?}"
            );
        }
        let body = json!({"worker": "w", "queues": ["q0", "q3"], "max_tasks": 1});
        let (status, granted) = call(url, "POST", "/v1/leases", &headers, Some(body)).await;
        assert_eq!((status, &granted["job"]), (200, &Value::Null), "{granted}");
        for (path, name) in [("/v1/jobs", "queue"), ("/v1/queues", "queue")] {
            let (_, list) = call(url, "GET", path, &headers, None).await;
            let items = list["items"].as_array().expect("a list").clone();
            assert_eq!(items.len(), 2, "{list}");
            assert!(
                items.iter().all(|item| allowed.contains(&item[name].as_str().unwrap())),
                "{list}"
            );
        }
        let (_, workers) = call(url, "GET", "/v1/workers", &headers, None).await;
        let seen = workers["items"][0]["queues"].as_array().expect("a list").clone();
        assert!(
            seen.iter().all(|queue| allowed.contains(&queue.as_str().unwrap())),
            "{workers}"
        );
        assert_eq!(call(url, "POST", "/v1/nodes/b/drain", &headers, None).await.0, 403);
        // Whatever its scope: what is of a whole node is not for a token that is bound to queues, whichever node is asked of which.
        for (method, path) in [
            ("GET", "/v1/nodes"),
            ("GET", "/metrics"),
            ("POST", "/v1/nodes/a/drain"),
            ("POST", "/v1/nodes/b/drain"),
        ] {
            let headers = [("authorization", bound.as_str())];
            let (status, refused) = call(url, method, path, &headers, None).await;
            assert_eq!(
                (status, &refused["code"]),
                (403, &json!("forbidden")),
                "{method} {path}: {refused}"
            );
        }
    }
    nodes.stop().await;
}
