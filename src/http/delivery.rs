//! Leases on their way to a worker.
//!
//! Owns: giving back what was never delivered. Never: decides about a lease that was. Invariant: from the moment a grant is held, either
//! its answer is written to the connection or its leases are released.

use crate::coordinator::Coordinator;
use crate::coordinator::api::GrantedTask;
use crate::domain::ids::JobId;
use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Takes back leases; the coordinator in production.
pub trait Reclaim: Clone + Unpin + 'static {
    fn reclaim(&self, job: JobId, leases: Vec<String>);
}

impl Reclaim for Coordinator {
    fn reclaim(&self, job: JobId, leases: Vec<String>) {
        self.release_undelivered(job, leases);
    }
}

/// Leases that are released on drop unless they were delivered.
pub struct Undelivered<R: Reclaim> {
    to: R,
    job: JobId,
    leases: Vec<String>,
}

impl<R: Reclaim> Undelivered<R> {
    /// Make it before anything else that could fail.
    pub fn hold(to: &R, job: JobId, tasks: &[GrantedTask]) -> Self {
        Undelivered {
            to: to.clone(),
            job,
            leases: tasks.iter().map(|task| task.lease.clone()).collect(),
        }
    }

    /// The answer 200 with this JSON, delivering the leases.
    pub fn respond(self, json: Vec<u8>) -> HttpResponse {
        let body = Delivery {
            guard: Some(self),
            bytes: Some(Bytes::from(json)),
            flushed: false,
            length: 0,
        };
        let length = body.bytes.as_ref().map_or(0, Bytes::len) as u64;
        HttpResponse::Ok()
            .content_type("application/json")
            .body(Delivery { length, ..body })
    }

    fn delivered(&mut self) {
        self.leases.clear();
    }
}

impl<R: Reclaim> Drop for Undelivered<R> {
    fn drop(&mut self) {
        if !self.leases.is_empty() {
            tracing::debug!(job = %self.job, leases = self.leases.len(), "answer not delivered, leases released");
            self.to.reclaim(self.job, std::mem::take(&mut self.leases));
        }
    }
}

/// A body that counts as delivered once it was written out.
struct Delivery<R: Reclaim> {
    guard: Option<Undelivered<R>>,
    bytes: Option<Bytes>,
    /// The server was given a turn to write the bytes out.
    flushed: bool,
    length: u64,
}

// No field is pinned.
impl<R: Reclaim> Unpin for Delivery<R> {}

impl<R: Reclaim> MessageBody for Delivery<R> {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.length)
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        if let Some(bytes) = self.bytes.take() {
            return Poll::Ready(Some(Ok(bytes)));
        }
        // Answering "pending" once makes the server write out what it has and look at the connection: if either shows that the client
        // is gone, this body is dropped before its end.
        if !self.flushed {
            self.flushed = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(mut guard) = self.guard.take() {
            guard.delivered();
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{Attempt, TaskNo, UnixMs};
    use actix_web::body::to_bytes;
    use std::future::poll_fn;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Ledger(Arc<Mutex<Vec<String>>>);

    impl Reclaim for Ledger {
        fn reclaim(&self, job: JobId, leases: Vec<String>) {
            assert_eq!(job, JobId(7));
            self.0.lock().unwrap().extend(leases);
        }
    }

    impl Ledger {
        fn hold(&self) -> Undelivered<Ledger> {
            let task = GrantedTask {
                task: TaskNo(0),
                key: None,
                payload: "1".into(),
                attempt: Attempt(1),
                lease: "l".into(),
                expires_at: UnixMs(0),
            };
            Undelivered::hold(self, JobId(7), &[task])
        }

        fn reclaimed(&self) -> Vec<String> {
            self.0.lock().unwrap().clone()
        }
    }

    #[actix_web::test]
    async fn a_delivered_answer_keeps_its_leases() {
        let ledger = Ledger::default();
        let response = ledger.hold().respond(b"{}".to_vec());
        assert_eq!(response.body().size(), BodySize::Sized(2));
        assert_eq!(to_bytes(response.into_body()).await.unwrap(), "{}");
        assert!(ledger.reclaimed().is_empty());
    }

    #[actix_web::test]
    async fn an_answer_dropped_at_any_point_before_its_end_gives_them_back_once() {
        for polls in 0..2 {
            let ledger = Ledger::default();
            let mut body = Box::pin(ledger.hold().respond(b"{}".to_vec()).into_body());
            for _ in 0..polls {
                poll_fn(|cx| {
                    let _ = body.as_mut().poll_next(cx);
                    Poll::Ready(())
                })
                .await;
            }
            assert!(ledger.reclaimed().is_empty());
            drop(body);
            assert_eq!(ledger.reclaimed(), ["l"], "after {polls} polls");
        }
    }

    #[test]
    fn a_grant_dropped_before_its_answer_is_built_is_given_back() {
        let ledger = Ledger::default();
        drop(ledger.hold());
        assert_eq!(ledger.reclaimed(), ["l"]);
    }
}
