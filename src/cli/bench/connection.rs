//! One keep-alive HTTP/1.1 connection of a load worker.
//!
//! Owns: sending and reading whole bodies. Never: retries; a load that meets an error is a failed run. Invariant: as little work per call
//! as possible, since the load shares the machine with what it measures.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    token: Option<String>,
}

impl Connection {
    /// Connects to `http://HOST:PORT`.
    pub(super) async fn open(url: &str, token: Option<&str>) -> Result<Connection> {
        let host = url
            .strip_prefix("http://")
            .context("the address begins with http://")?
            .to_owned();
        let stream = TcpStream::connect(&host).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection {
            sender,
            host,
            token: token.map(|token| format!("Bearer {token}")),
        })
    }

    /// Sends a body and answers the whole body of a 2xx; anything else is an error.
    pub(super) async fn post(&mut self, path: &str, media: &str, body: Bytes) -> Result<Bytes> {
        self.call(Method::POST, path, media, body).await
    }

    pub(super) async fn get(&mut self, path: &str) -> Result<Bytes> {
        self.call(Method::GET, path, "application/json", Bytes::new()).await
    }

    async fn call(&mut self, method: Method, path: &str, media: &str, body: Bytes) -> Result<Bytes> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.host)
            .header(CONTENT_TYPE, media);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        self.sender.ready().await?;
        let response = self.sender.send_request(request.body(Full::new(body))?).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{path}: {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }
}
