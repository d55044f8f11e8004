//! Who may ask for what.
//!
//! Owns: callers, scopes and the queue list. Never: shows more than 8 characters of a token. Invariant: a route is reached only through
//! [`gate`], with the access its entry in the route table asks for.

pub mod gate;
pub mod local;
pub mod secret;
pub mod tokens;

use super::error::{ApiError, ApiResult};
use super::wire::Scope;
use crate::coordinator::Coordinator;
use crate::domain::ids::{JobId, UnixMs};
use actix_web::{FromRequest, HttpMessage, HttpRequest, dev};
use std::future::{Ready, ready};
use std::sync::Arc;

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing: open without a token.
    Open,
    /// A token with this scope, or with `admin`.
    Needs(Scope),
    /// The same, or a ticket that was made with such a token: browsers cannot send a header when they open a stream.
    Streams(Scope),
    /// A token with one of these scopes, or with `admin`.
    Either(Scope, Scope),
    /// A token with this scope, or with `admin`, that is not bound to queues: the route is about the whole node.
    WholeNode(Scope),
}

impl Access {
    /// The scopes of which a caller must have one; none where no token is needed.
    pub fn scopes(self) -> Option<(Scope, Option<Scope>)> {
        match self {
            Access::Open => None,
            Access::Needs(scope) | Access::Streams(scope) | Access::WholeNode(scope) => Some((scope, None)),
            Access::Either(one, other) => Some((one, Some(other))),
        }
    }
}

/// A stored token, ready to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub token_id: String,
    pub name: String,
    pub scopes: Vec<Scope>,
    /// None: every queue.
    pub queues: Option<Vec<String>>,
    pub expires_at: Option<UnixMs>,
}

/// Who makes a request. Without authentication it is someone on this machine, who may do everything.
#[derive(Debug, Clone)]
pub struct Caller {
    grant: Option<Arc<Grant>>,
}

impl Caller {
    /// Someone on this machine, while no token is stored.
    pub fn local() -> Self {
        Caller { grant: None }
    }

    pub fn with(grant: Arc<Grant>) -> Self {
        Caller { grant: Some(grant) }
    }

    /// The token's id, or empty without authentication.
    pub fn token_id(&self) -> &str {
        self.grant.as_ref().map_or("", |grant| &grant.token_id)
    }

    /// The token's name, or `local` without authentication.
    pub fn name(&self) -> &str {
        self.grant.as_ref().map_or("local", |grant| &grant.name)
    }

    pub fn may(&self, scope: Scope) -> bool {
        self.grant
            .as_ref()
            .is_none_or(|grant| grant.scopes.contains(&scope) || grant.scopes.contains(&Scope::Admin))
    }

    /// The only queues the caller may know of; none: all.
    pub fn queues(&self) -> Option<&[String]> {
        self.grant.as_ref()?.queues.as_deref()
    }

    pub fn sees(&self, queue: &str) -> bool {
        self.queues()
            .is_none_or(|queues| queues.iter().any(|known| known == queue))
    }

    /// Would a token for these queues (none: all) reach no further than this caller?
    pub fn covers(&self, queues: Option<&[String]>) -> bool {
        match (self.queues(), queues) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(_), Some(queues)) => queues.iter().all(|queue| self.sees(queue)),
        }
    }

    /// A job of a queue the caller may not know of looks like one that does not exist.
    pub async fn check_job(&self, coordinator: &Coordinator, job: JobId) -> ApiResult<()> {
        if self.queues().is_none() {
            return Ok(());
        }
        if self.sees(&coordinator.queue_of(job).await?) {
            Ok(())
        } else {
            Err(ApiError::not_found("job"))
        }
    }
}

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = Ready<ApiResult<Caller>>;

    fn from_request(req: &HttpRequest, _: &mut dev::Payload) -> Self::Future {
        // Absent only if a handler was mounted around the gate; refusing keeps that mistake harmless.
        let caller = req.extensions().get::<Caller>().cloned();
        ready(caller.ok_or_else(|| ApiError::unauthenticated("not authenticated")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::SCOPES;

    fn caller(scopes: &[Scope], queues: Option<&[&str]>) -> Caller {
        Caller::with(Arc::new(Grant {
            token_id: "t".into(),
            name: "n".into(),
            scopes: scopes.to_vec(),
            queues: queues.map(|queues| queues.iter().map(|&queue| queue.to_owned()).collect()),
            expires_at: None,
        }))
    }

    #[test]
    fn admin_implies_all_and_the_others_only_themselves() {
        for held in SCOPES {
            for asked in SCOPES {
                let may = caller(&[held], None).may(asked);
                assert_eq!(may, held == asked || held == Scope::Admin, "{held} {asked}");
                assert!(Caller::local().may(asked));
            }
        }
    }

    #[test]
    fn a_queue_list_bounds_what_is_seen_and_what_may_be_handed_on() {
        let limited = caller(&[Scope::Admin], Some(&["a", "b"]));
        assert!(limited.sees("a") && !limited.sees("c"));
        let list = |queues: &[&str]| queues.iter().map(|&queue| queue.to_owned()).collect::<Vec<_>>();
        assert!(limited.covers(Some(&list(&["a"]))));
        assert!(!limited.covers(Some(&list(&["a", "c"]))));
        assert!(!limited.covers(None));
        assert!(caller(&[Scope::Admin], None).covers(None));
    }
}
