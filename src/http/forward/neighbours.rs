//! The connections to other nodes, and what this node itself asks them.
//!
//! Owns: the client and its bounds, and the questions of [`Peers`] as HTTP. Never: follows a redirect, uses a proxy, or shows a proof.
//! Invariant: every question ends, and one that was not answered is `NotOwner`: ask again where the owner may be by then.

use crate::coordinator::api::{CoordinatorError, Granted, GrantedJob, GrantedTask, LeaseAny};
use crate::coordinator::{Coordinator, Neighbour, Peers, Result};
use crate::domain::ids::{Attempt, JobId, Run, TaskNo, UnixMs};
use crate::http::hop::{HOP, Hops, NODE};
use crate::http::wire;
use async_trait::async_trait;
use reqwest::Url;
use reqwest::header::CONTENT_TYPE;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Shorter than a server keeps an idle connection open, so that a request rarely meets one that has just been closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections kept to one node.
const IDLE_MAX: usize = 64;
/// Beyond what the other node itself waits for.
const SLACK: Duration = Duration::from_secs(2);

/// Query of a lease call that asks for nothing new.
pub const REPLAY_ONLY: &str = "replay_only";
/// Query of a release for leases that never reached a worker.
pub const UNDELIVERED: &str = "undelivered";

/// How other nodes are spoken to.
#[derive(Clone)]
pub struct Neighbours {
    http: reqwest::Client,
    hops: Arc<Hops>,
}

impl Neighbours {
    pub fn new(coordinator: &Coordinator) -> Neighbours {
        let secret = coordinator.cluster_secret();
        // Fails only if another provider was installed first, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            reqwest::Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(IDLE_MAX)
                .redirect(reqwest::redirect::Policy::none())
                .tcp_nodelay(true)
                .no_proxy()
        };
        // Where the machine trusts nobody, nodes still reach each other without TLS.
        let http = builder().build().or_else(|_| builder().tls_certs_only([]).build());
        Neighbours {
            http: http.expect("a client without roots needs nothing of the machine"),
            hops: Arc::new(Hops::new(
                secret.map(|secret| secret.as_bytes()),
                coordinator.incarnation(),
            )),
        }
    }

    pub fn hops(&self) -> &Hops {
        &self.hops
    }

    /// A request with its proof; none if the node does not listen yet.
    pub fn request(
        &self,
        to: &Neighbour,
        method: &str,
        target: &str,
        caller: &str,
        now: UnixMs,
    ) -> Option<reqwest::RequestBuilder> {
        if to.address.is_empty() {
            return None;
        }
        let url = Url::parse(&format!("{}{target}", to.address.trim_end_matches('/'))).ok()?;
        // What will be sent is signed: a URL spells some characters in another way than the request that came.
        let proof = self.hops.sign(&to.incarnation, method, &sent(&url), caller, now)?;
        let method = reqwest::Method::from_bytes(method.as_bytes()).ok()?;
        Some(self.http.request(method, url).header(HOP.as_str(), proof))
    }

    /// Asks on behalf of a caller; the answer's JSON if it is a good one.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        from: &Coordinator,
        to: &Neighbour,
        (method, target): (&str, &str),
        caller: &str,
        body: Option<&(impl Serialize + Sync)>,
        wait: Duration,
    ) -> Result<T> {
        let Some(mut request) = self.request(to, method, target, caller, from.now()) else {
            return Err(CoordinatorError::NotOwner);
        };
        if let Some(body) = body {
            let json = serde_json::to_vec(body).map_err(|error| CoordinatorError::Internal(error.to_string()))?;
            request = request.header(CONTENT_TYPE, "application/json").body(json);
        }
        let patience = wait + from.store_wait() + SLACK;
        let asking = async {
            let answer = request.send().await.ok()?;
            let status = answer.status().as_u16();
            Some((status, answer.bytes().await.ok()?))
        };
        let answered = tokio::time::timeout(patience, asking).await.ok().flatten();
        let Some((status, body)) = answered else {
            return Err(CoordinatorError::NotOwner);
        };
        match status {
            200..300 => {
                serde_json::from_slice(&body).map_err(|error| CoordinatorError::Internal(format!("{target}: {error}")))
            }
            404 => Err(CoordinatorError::NotFound),
            503 => Err(match serde_json::from_slice::<wire::Problem>(&body) {
                Ok(problem) if problem.code == "busy" => CoordinatorError::Busy("the owner of the queue is busy"),
                Ok(problem) if problem.code == "store_unavailable" => CoordinatorError::StoreUnavailable,
                _ => CoordinatorError::NotOwner,
            }),
            _ => {
                tracing::warn!(node = %to.node, status, target, "another node does not understand this one");
                Err(CoordinatorError::NotOwner)
            }
        }
    }
}

#[async_trait]
impl Peers for Neighbours {
    async fn wake(&self, from: &Coordinator, to: &Neighbour, job: JobId) -> Result<()> {
        // Whoever shows a job that needs an actor gives it one.
        let target = format!("/v1/jobs/{job}");
        let shown = self
            .ask::<serde::de::IgnoredAny>(from, to, ("GET", &target), NODE, None::<&()>, Duration::ZERO)
            .await;
        shown.map(drop)
    }

    async fn lease(&self, from: &Coordinator, to: &Neighbour, call: &LeaseAny, replay_only: bool) -> Result<Granted> {
        let body = wire::LeaseAny {
            worker: call.worker.to_string(),
            queues: call.queues.clone(),
            max_tasks: call.max_tasks.into(),
            wait_s: Some(call.wait.as_secs_f64()),
            request_id: call.request_id.clone(),
        };
        let target = if replay_only {
            format!("/v1/leases?{REPLAY_ONLY}=true")
        } else {
            "/v1/leases".to_owned()
        };
        let granted: wire::Granted = self
            .ask(from, to, ("POST", &target), NODE, Some(&body), call.wait)
            .await?;
        Ok(Granted {
            job: granted.job.map(|job| GrantedJob {
                id: JobId(job.id),
                name: job.name.into(),
                queue: job.queue.into(),
                run: Run(job.run),
            }),
            tasks: granted.tasks.into_iter().map(granted_task).collect(),
        })
    }

    async fn give_back(&self, from: &Coordinator, to: &Neighbour, job: JobId, leases: &[String]) -> Result<()> {
        let body = wire::Release {
            worker: NODE.to_owned(),
            leases: leases.to_vec(),
        };
        let target = format!("/v1/jobs/{job}/leases/release?{UNDELIVERED}=true");
        let answer = self
            .ask::<serde::de::IgnoredAny>(from, to, ("POST", &target), NODE, Some(&body), Duration::ZERO)
            .await;
        answer.map(drop)
    }
}

/// Path and query as they go over the wire.
fn sent(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

fn granted_task(task: wire::LeasedTask) -> GrantedTask {
    GrantedTask {
        task: TaskNo(task.task),
        key: task.key,
        payload: Box::<str>::from(task.payload).into(),
        attempt: Attempt(task.attempt),
        lease: task.lease,
        expires_at: task.expires_at.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_what_is_sent() {
        for (target, expected) in [
            ("/v1/jobs", "/v1/jobs"),
            ("/v1/jobs?", "/v1/jobs?"),
            ("/v1/jobs?q=it's&x=%27", "/v1/jobs?q=it%27s&x=%27"),
            ("/v1/jobs?q=a\"<b>#part", "/v1/jobs?q=a%22%3Cb%3E"),
        ] {
            let url = Url::parse(&format!("http://node:8080{target}")).unwrap();
            assert_eq!(sent(&url), expected);
            let request = reqwest::Client::new().get(url).build().unwrap();
            let uri: actix_web::http::Uri = request.url().as_str().parse().unwrap();
            assert_eq!(uri.path_and_query().map(|target| target.as_str()), Some(expected));
        }
    }
}
