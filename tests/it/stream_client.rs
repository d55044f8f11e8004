//! Readers of progress streams, for tests.
//!
//! Owns: WebSocket and event-stream clients that hand out messages as JSON. Never: asserts on their content. Invariant: every wait ends.

use crate::app::App;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

const PATIENCE: Duration = Duration::from_secs(30);

/// A WebSocket.
pub(crate) struct Socket(WebSocketStream<TcpStream>);

/// What came.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    Message(Value),
    Pong(Vec<u8>),
    /// Closed with this code.
    Closed(u16),
    Lost,
}

impl Socket {
    pub(crate) async fn open(app: &App, path: &str) -> Socket {
        Socket::try_open(app, path, &[]).await.expect("the stream opens")
    }

    /// Opens a stream of a node anywhere; none if it does not let anybody in just now.
    pub(crate) async fn open_at(url: &str, path: &str) -> Option<Socket> {
        let host = url.strip_prefix("http://").expect("a plain address");
        let request = format!("ws://{host}{path}")
            .into_client_request()
            .expect("a good address");
        let stream = TcpStream::connect(host).await.ok()?;
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, _)) => Some(Socket(socket)),
            Err(Error::Http(response)) if response.status().as_u16() != 503 => panic!("{}", response.status()),
            Err(_) => None,
        }
    }

    /// Opens a stream with further headers; else answers status and body.
    pub(crate) async fn try_open(app: &App, path: &str, headers: &[(&str, &str)]) -> Result<Socket, (u16, Value)> {
        let host = app.url.strip_prefix("http://").expect("a plain address");
        let mut request = format!("ws://{host}{path}")
            .into_client_request()
            .expect("a good address");
        for (name, value) in headers {
            let name: reqwest::header::HeaderName = name.parse().expect("a header's name");
            request
                .headers_mut()
                .insert(name, value.parse().expect("a header's value"));
        }
        let stream = TcpStream::connect(host).await.expect("the node accepts");
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, _)) => Ok(Socket(socket)),
            Err(Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                let json = serde_json::from_slice(body).unwrap_or(Value::Null);
                Err((response.status().as_u16(), json))
            }
            Err(error) => panic!("no handshake: {error}"),
        }
    }

    pub(crate) async fn hear(&mut self) -> Heard {
        loop {
            let heard = timeout(PATIENCE, self.0.next()).await.expect("something comes in time");
            return match heard {
                Some(Ok(Message::Text(text))) => {
                    Heard::Message(serde_json::from_str(text.as_str()).expect("a message is JSON"))
                }
                Some(Ok(Message::Pong(bytes))) => Heard::Pong(bytes.to_vec()),
                Some(Ok(Message::Close(frame))) => Heard::Closed(frame.map_or(1005, |frame| frame.code.into())),
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => Heard::Lost,
            };
        }
    }

    /// The next message.
    pub(crate) async fn message(&mut self) -> Value {
        match self.hear().await {
            Heard::Message(message) => message,
            other => panic!("no message but {other:?}"),
        }
    }

    /// The next message for which this holds, skipping others.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.message().await;
            if wanted(&message) {
                return message;
            }
        }
    }

    /// Every message until the stream is closed, and the code.
    pub(crate) async fn rest(&mut self) -> (Vec<Value>, u16) {
        let mut messages = Vec::new();
        loop {
            match self.hear().await {
                Heard::Message(message) => messages.push(message),
                Heard::Closed(code) => return (messages, code),
                Heard::Pong(_) => {}
                Heard::Lost => panic!("the connection was lost after {messages:?}"),
            }
        }
    }

    pub(crate) async fn say(&mut self, message: Message) {
        self.0.send(message).await.expect("the node reads");
    }
}

/// An event stream.
pub(crate) struct Events {
    response: reqwest::Response,
    unread: String,
}

impl Events {
    pub(crate) async fn open(app: &App, path: &str) -> Events {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let request = reqwest::Client::new().get(format!("{}{path}", app.url));
        let response = request.header("accept", "text/event-stream").send().await;
        let response = response.expect("the node answers");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Events {
            response,
            unread: String::new(),
        }
    }

    /// The next message; none once the stream has ended.
    pub(crate) async fn message(&mut self) -> Option<Value> {
        loop {
            while let Some((event, rest)) = self.unread.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                let message = data.map(|data| serde_json::from_str(data).expect("a message is JSON"));
                self.unread = rest.to_owned();
                if message.is_some() {
                    return message;
                }
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await;
            match chunk.expect("something comes in time") {
                Ok(Some(bytes)) => self.unread.push_str(std::str::from_utf8(&bytes).expect("UTF-8")),
                _ => return None,
            }
        }
    }
}

/// Where progress is in a message, whatever its kind.
pub(crate) fn progress(message: &Value) -> &Value {
    match message["type"].as_str() {
        Some("progress") => &message["progress"],
        _ => &message["job"]["progress"],
    }
}
