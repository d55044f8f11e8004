//! Somebody who is called when jobs end: a real socket that keeps what it got and answers what it is told to.
//!
//! Owns: the receiver and the check of a signature, which it makes by itself. Never: waits without a bound. Invariant: a call is told to the
//! test before it is answered, so a test can act in between.

use crate::process::PATIENCE;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use tallykeeper::http::callbacks::{Callbacks, Network};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub(crate) const OTHER_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD0kk7pHn5QCc=";

/// A node's way to make calls, signed with both secrets.
pub(crate) fn caller(allow: &[&str], timeout_s: u64) -> Callbacks {
    let secrets = [SECRET, OTHER_SECRET].map(|text| text.parse().expect("a secret"));
    let allowed = allow.iter().map(|text| text.parse::<Network>().expect("a network"));
    Callbacks::new(
        secrets.to_vec(),
        allowed.collect(),
        std::time::Duration::from_secs(timeout_s),
    )
}

/// What to do with a call.
pub(crate) enum Answer {
    /// A status, and further lines of the head.
    Status(u16, &'static str),
    /// Wait for the test to say the status; the connection is kept meanwhile.
    Held(oneshot::Receiver<u16>),
    /// Never answer.
    Hang,
    /// 200, and a body without an end.
    Endless,
}

/// A call as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Received {
    pub(crate) fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a call's body is JSON")
    }

    /// Does one of its signatures come from this secret?
    pub(crate) fn is_signed_with(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").expect("a prefix"));
        let mut mac = Hmac::<Sha256>::new_from_slice(&key.expect("base64")).expect("any length");
        mac.update(format!("{}.{}.{}", self.id(), self.headers["webhook-timestamp"], self.body).as_bytes());
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        self.headers["webhook-signature"].split(' ').any(|one| one == expected)
    }
}

pub(crate) struct Receiver {
    pub(crate) port: u16,
    calls: mpsc::UnboundedReceiver<Received>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    /// One message for every connection that its caller closed after the answer.
    closed: mpsc::UnboundedReceiver<()>,
}

impl Receiver {
    /// Answers 204 unless told otherwise.
    pub(crate) async fn start() -> Receiver {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("it listens").port();
        let (told, calls) = mpsc::unbounded_channel();
        let (tell_closed, closed) = mpsc::unbounded_channel();
        let answers: Arc<Mutex<VecDeque<Answer>>> = Arc::default();
        let answering = answers.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (told, tell_closed, answering) = (told.clone(), tell_closed.clone(), answering.clone());
                tokio::spawn(async move {
                    if serve(stream, &told, &answering).await.is_some() {
                        let _ = tell_closed.send(());
                    }
                });
            }
        });
        Receiver {
            port,
            calls,
            answers,
            closed,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What the next calls get, in order.
    pub(crate) fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.answers.lock().unwrap().extend(answers);
    }

    /// Holds the next call; answers with what is sent.
    pub(crate) fn hold(&self) -> oneshot::Sender<u16> {
        let (release, held) = oneshot::channel();
        self.answer([Answer::Held(held)]);
        release
    }

    pub(crate) async fn call(&mut self) -> Received {
        let call = timeout(PATIENCE, self.calls.recv()).await;
        call.expect("a call comes in time").expect("the receiver listens")
    }

    /// Returns once a caller has closed its connection after the answer.
    pub(crate) async fn until_closed(&mut self) {
        let closed = timeout(PATIENCE, self.closed.recv()).await;
        closed.expect("the caller closes").expect("the receiver listens");
    }

    /// Calls that came and were not looked at yet.
    pub(crate) fn unseen(&mut self) -> Vec<Received> {
        std::iter::from_fn(|| self.calls.try_recv().ok()).collect()
    }
}

/// One call. None unless it was answered and its caller closed the connection.
async fn serve(
    mut stream: TcpStream,
    told: &mpsc::UnboundedSender<Received>,
    answers: &Mutex<VecDeque<Answer>>,
) -> Option<()> {
    let received = read(&mut stream).await?;
    let answer = answers.lock().unwrap().pop_front();
    told.send(received).ok()?;
    let (status, head) = match answer.unwrap_or(Answer::Status(204, "")) {
        Answer::Status(status, head) => (status, head),
        Answer::Held(held) => (held.await.ok()?, ""),
        Answer::Endless => {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await.ok()?;
            let piece = format!("400\r\n{}\r\n", "x".repeat(0x400));
            while stream.write_all(piece.as_bytes()).await.is_ok() {}
            return Some(());
        }
        Answer::Hang => {
            // Until the caller gives up.
            let _ = stream.read(&mut [0; 1]).await;
            return None;
        }
    };
    let answer = format!("HTTP/1.1 {status} Answer\r\n{head}Content-Length: 0\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.ok()?;
    (stream.read(&mut [0; 1]).await.unwrap_or(0) == 0).then_some(())
}

async fn read(stream: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).expect("a head is text");
    let mut lines = head.lines();
    let first = lines.next()?;
    assert!(first.starts_with("POST "), "{first}");
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers["content-length"].parse().expect("a number");
    while bytes.len() < end + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(Received {
        path: first.split(' ').nth(1)?.to_owned(),
        headers,
        body: String::from_utf8(bytes[end..].to_vec()).expect("a body is text"),
    })
}
