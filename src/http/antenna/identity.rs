//! Who a worker is, where the protocol names none.
//!
//! Owns: the name it goes by. Never: grants anything by it. Invariant: the name begins with its token's holder, which no other token's
//! workers share, and then an `@`.
//!
//! The protocol knows tokens, not workers. What tells two workers of one token apart is where they call from (behind a proxy: what it says of
//! that), and the `processing_service_name` of those that send one. A connection says nothing: results come on new ones.

use crate::http::auth::Caller;
use crate::http::extract::Query;
use actix_web::HttpRequest;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Characters kept of a token's or a service's name.
const NAME_CHARS: usize = 48;
const SERVICE: &str = "processing_service_name";

pub(super) struct Identity {
    /// The token: its name, and its id, since names repeat.
    pub(super) holder: Arc<str>,
    /// `holder@address`, or `holder@address/service`.
    pub(super) worker: Arc<str>,
}

impl Identity {
    pub(super) fn of(caller: &Caller, req: &HttpRequest) -> Identity {
        let service = Query::of(req)
            .and_then(|mut query| query.one(SERVICE))
            .unwrap_or_default();
        let holder = match caller.token_id() {
            "" => caller.name().to_owned(),
            id => format!("{}#{id}", plain(caller.name())),
        };
        let address = address(req).map_or_else(|| "unknown".to_owned(), |address| address.to_canonical().to_string());
        let worker = match service.filter(|name| !name.is_empty()) {
            Some(service) => format!("{holder}@{address}/{}", plain(&service)),
            None => format!("{holder}@{address}"),
        };
        Identity {
            holder: holder.into(),
            worker: worker.into(),
        }
    }
}

/// The caller's address, as a proxy before this node tells it. Whoever lies about it only takes the place of another worker of its own token.
fn address(req: &HttpRequest) -> Option<IpAddr> {
    let told = req.connection_info().realip_remote_addr().and_then(parse);
    told.or_else(|| req.peer_addr().map(|peer| peer.ip()))
}

fn parse(text: &str) -> Option<IpAddr> {
    let bare = text.trim_matches(['[', ']']);
    bare.parse()
        .ok()
        .or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))
}

/// A name without what separates names, cut.
fn plain(name: &str) -> String {
    let is_mark = |c: char| c.is_control() || matches!(c, '@' | '#' | '/');
    name.chars()
        .take(NAME_CHARS)
        .map(|c| if is_mark(c) { '_' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::auth::Grant;
    use actix_web::test::TestRequest;

    fn token(name: &str, id: &str) -> Caller {
        Caller::with(Arc::new(Grant {
            token_id: id.into(),
            name: name.into(),
            scopes: Vec::new(),
            queues: None,
            expires_at: None,
        }))
    }

    fn worker(caller: &Caller, headers: &[(&'static str, &str)], uri: &str) -> String {
        let mut request = TestRequest::get().uri(uri).peer_addr("10.0.0.1:4444".parse().unwrap());
        for (name, value) in headers {
            request = request.insert_header((*name, *value));
        }
        Identity::of(caller, &request.to_http_request()).worker.to_string()
    }

    #[test]
    fn fm41_workers_are_told_apart_by_token_address_and_service() {
        let gpus = token("gpus", "t1");
        assert_eq!(worker(&gpus, &[], "/"), "gpus#t1@10.0.0.1");
        assert_eq!(worker(&token("gpus", "t2"), &[], "/"), "gpus#t2@10.0.0.1");
        assert_eq!(
            worker(&gpus, &[("x-forwarded-for", "10.9.9.9, 10.0.0.1")], "/"),
            "gpus#t1@10.9.9.9"
        );
        assert_eq!(
            worker(&gpus, &[("x-forwarded-for", "[2001:db8::1]:80")], "/"),
            "gpus#t1@2001:db8::1"
        );
        assert_eq!(
            worker(&gpus, &[("x-forwarded-for", "nonsense@x")], "/"),
            "gpus#t1@10.0.0.1"
        );
        assert_eq!(
            worker(&gpus, &[], "/?processing_service_name=moths%2Fv2"),
            "gpus#t1@10.0.0.1/moths_v2"
        );
        assert_eq!(worker(&Caller::local(), &[], "/"), "local@10.0.0.1");
    }

    #[test]
    fn no_name_can_pass_for_another_tokens() {
        let sly = token("gpus#t1@10.0.0.1", "t2");
        assert_eq!(worker(&sly, &[], "/"), "gpus_t1_10.0.0.1#t2@10.0.0.1");
        let long = token(&"x".repeat(300), "t3");
        assert!(worker(&long, &[], "/").len() < 100);
    }
}
