//! What protects a node without tokens: only this machine may ask, and no web page through it.
//!
//! Owns: the loopback, `Host` and `Origin` rules. Never: looks at a token. Invariant: a page from elsewhere, even one whose name resolves
//! to this machine, cannot make a browser change or read anything.

use crate::http::error::{ApiError, ApiResult};
use actix_web::HttpRequest;
use actix_web::http::header;
use std::net::{IpAddr, SocketAddr};

/// A node without tokens was asked to listen beyond this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refusing to listen on {0} without a token: create one first, or listen on a loopback address")]
pub struct NotLoopback(pub SocketAddr);

/// Refuses addresses beyond loopback while no token is stored.
pub fn check_listen(addresses: &[SocketAddr], has_tokens: bool) -> Result<(), NotLoopback> {
    match addresses
        .iter()
        .find(|address| !address.ip().to_canonical().is_loopback())
    {
        Some(&address) if !has_tokens => Err(NotLoopback(address)),
        _ => Ok(()),
    }
}

/// Checks a request to a node without tokens.
pub fn check_request(req: &HttpRequest) -> ApiResult<()> {
    let text = |name| {
        let mut values = req.headers().get_all(name);
        let first = values.next().map(|value| value.to_str().unwrap_or(""));
        // Two answers to one question: neither can be trusted.
        if values.next().is_some() { Some("") } else { first }
    };
    let authority = req.uri().authority().map(|authority| authority.as_str());
    let host = text(header::HOST).or(authority).unwrap_or("");
    if !is_loopback(host) {
        return Err(ApiError::forbidden(
            "without a token the host must be a loopback address or localhost",
        ));
    }
    match text(header::ORIGIN) {
        None => Ok(()),
        Some(origin) if is_same(origin, host) => Ok(()),
        Some(_) => Err(ApiError::forbidden("the origin must be this server")),
    }
}

fn is_same(origin: &str, host: &str) -> bool {
    let stripped = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    stripped.is_some_and(|origin| origin.eq_ignore_ascii_case(host))
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, port)) if port.is_empty() || is_port(port) => name,
            _ => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            Some(_) => return false,
            None => host,
        },
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':')
        .is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn verdict(host: &str, origin: Option<&str>) -> bool {
        let mut request = TestRequest::get().uri("/").insert_header((header::HOST, host));
        if let Some(origin) = origin {
            request = request.insert_header((header::ORIGIN, origin));
        }
        check_request(&request.to_http_request()).is_ok()
    }

    #[test]
    fn the_host_must_be_this_machine() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]",
            "[::1]:80",
        ] {
            assert!(verdict(host, None), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "0.0.0.0",
            "[::1]x",
            "[::2]:80",
            "::1",
            "127.0.0.1:80@evil",
        ] {
            assert!(!verdict(host, None), "{host}");
        }
        assert!(check_request(&TestRequest::get().uri("/").to_http_request()).is_err());
    }

    #[test]
    fn an_origin_must_match_the_host() {
        assert!(verdict("127.0.0.1:8080", Some("http://127.0.0.1:8080")));
        for origin in [
            "http://127.0.0.1:9090",
            "http://localhost:8080",
            "https://evil.example",
            "null",
            "",
        ] {
            assert!(!verdict("127.0.0.1:8080", Some(origin)), "{origin}");
        }
    }

    #[test]
    fn two_hosts_are_none() {
        let request = TestRequest::get()
            .append_header((header::HOST, "localhost"))
            .append_header((header::HOST, "evil.example"));
        assert!(check_request(&request.to_http_request()).is_err());
    }

    #[test]
    fn without_tokens_only_loopback_may_be_listened_on() {
        let at = |text: &str| [text.parse::<SocketAddr>().unwrap()];
        assert!(check_listen(&at("127.0.0.1:0"), false).is_ok());
        assert!(check_listen(&at("[::1]:0"), false).is_ok());
        for open in ["0.0.0.0:80", "[::]:80", "192.168.0.1:80"] {
            assert!(check_listen(&at(open), false).is_err(), "{open}");
            assert!(check_listen(&at(open), true).is_ok(), "{open}");
        }
    }
}
