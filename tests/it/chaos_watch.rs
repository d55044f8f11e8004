//! Somebody who watches a job's stream through everything, and believes nothing that cannot be.
//!
//! Owns: reconnecting, and what must hold from message to message. Never: works on the job. Invariant: what is checked across messages is
//! checked across connections and nodes too.

use crate::app::assert_sums;
use crate::process::{Client, GLANCE};
use crate::stream_client::progress;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

pub(crate) struct Watching(JoinHandle<u64>);

/// What was seen last.
#[derive(Default)]
struct Seen {
    messages: u64,
    seq: i64,
    decided: u64,
    fraction: f64,
    ended: bool,
}

impl Watching {
    pub(crate) fn start(client: Client, job: i64) -> Watching {
        Watching(tokio::spawn(watch(client, job)))
    }

    /// Waits for the job's final message; answers how many messages there were.
    pub(crate) async fn end(self) -> u64 {
        let ended = tokio::time::timeout(crate::process::PATIENCE, self.0).await;
        ended.expect("the final message comes").expect("no message was wrong")
    }
}

async fn watch(client: Client, job: i64) -> u64 {
    let mut seen = Seen::default();
    while !seen.ended {
        listen(client.url(), job, &mut seen).await;
        tokio::time::sleep(GLANCE).await;
    }
    seen.messages
}

/// Listens on one connection to its end.
async fn listen(url: &str, job: i64, seen: &mut Seen) {
    let host = url.strip_prefix("http://").expect("a plain address");
    let request = format!("ws://{host}/v1/jobs/{job}/progress").into_client_request();
    let Ok(stream) = TcpStream::connect(host).await else {
        return;
    };
    let Ok((mut socket, _)) = tokio_tungstenite::client_async(request.expect("a good address"), stream).await else {
        return;
    };
    while let Some(Ok(heard)) = socket.next().await {
        if let Message::Text(text) = heard {
            seen.check(&serde_json::from_str(text.as_str()).expect("a message is JSON"));
        }
    }
}

impl Seen {
    fn check(&mut self, message: &Value) {
        let told = progress(message);
        assert_sums(told);
        let number = |name: &str| told[name].as_u64().expect("a number");
        let (seq, decided) = (
            message["seq"].as_i64().expect("a number"),
            number("succeeded") + number("failed"),
        );
        assert!(seq >= self.seq, "seq fell from {}: {message}", self.seq);
        assert!(decided >= self.decided, "counts fell from {}: {message}", self.decided);
        if let Some(fraction) = told["fraction"].as_f64() {
            assert!(
                fraction >= self.fraction,
                "fraction fell from {}: {message}",
                self.fraction
            );
            self.fraction = fraction;
        }
        (self.seq, self.decided) = (seq, decided);
        self.messages += 1;
        assert!(!self.ended, "a message after the last: {message}");
        self.ended = message["type"] == "final";
    }
}
