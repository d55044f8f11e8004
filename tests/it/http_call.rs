//! Requests of any shape to a node, for tests of the HTTP room.
//!
//! Owns: headers, raw bodies and raw connections. Never: asserts. Invariant: what is sent is exactly what the test wrote.

use crate::app::App;
use serde_json::Value;
use std::collections::HashMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer, its headers by lower-case name.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The problem's code, or null.
    pub(crate) fn code(&self) -> Value {
        self.json()["code"].clone()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Sends one request.
pub(crate) async fn send(url: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let policy = reqwest::redirect::Policy::none();
    let client = reqwest::Client::builder()
        .redirect(policy)
        .build()
        .expect("a client can be made");
    let mut request = client.request(method.parse().unwrap(), format!("{url}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if !body.is_empty() {
        request = request.body(body.to_owned());
    }
    let response = request.send().await.expect("the node answers");
    let status = response.status().as_u16();
    let header = |(name, value): (_, &reqwest::header::HeaderValue)| {
        let name: &reqwest::header::HeaderName = name;
        (name.as_str().to_owned(), value.to_str().unwrap_or("").to_owned())
    };
    let headers = response.headers().iter().map(header).collect();
    let text = response.text().await.expect("the answer is read");
    Answer { status, headers, text }
}

/// Sends a JSON body with a token.
pub(crate) async fn send_as(app: &App, token: &str, method: &str, path: &str, body: Value) -> Answer {
    let bearer = format!("Bearer {token}");
    let mut headers = vec![("authorization", bearer.as_str())];
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    if !body.is_empty() {
        headers.push(("content-type", "application/json"));
    }
    send(&app.url, method, path, &headers, &body).await
}

/// A raw connection over which `text` was sent.
pub(crate) async fn raw(app: &App, text: &str) -> TcpStream {
    raw_at(&app.url, text).await
}

/// The same to any node.
pub(crate) async fn raw_at(url: &str, text: &str) -> TcpStream {
    let address = url.strip_prefix("http://").expect("a plain address");
    let mut stream = TcpStream::connect(address).await.expect("the node accepts");
    stream.write_all(text.as_bytes()).await.expect("the node reads");
    stream
}

/// Everything the node says until it closes the connection.
pub(crate) async fn until_closed(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is a way of closing, too.
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}
