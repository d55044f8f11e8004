//! WebSockets that watch the measured job.
//!
//! Owns: opening them and reading what comes. Never: interprets a progress message. Invariant: the run counts only if every one of them
//! heard the job's final message.

use anyhow::{Context, Result, bail, ensure};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Longest wait for the final message once the job has ended.
const PATIENCE: Duration = Duration::from_secs(30);
/// Begins the final message's JSON; no other message holds it.
const FINAL: &[u8] = b"\"type\":\"final\"";

pub(super) struct Subscribers {
    readers: JoinSet<Result<()>>,
    /// Open, and never read from: what they are sent stays in the kernel's buffers, then with the node.
    _stalled: Vec<TcpStream>,
}

impl Subscribers {
    /// Opens so many WebSockets on the job's progress, of which the first `stalled` are never read from.
    pub(super) async fn connect(
        url: &str,
        token: Option<&str>,
        job: i64,
        count: u32,
        stalled: u32,
    ) -> Result<Subscribers> {
        let host = url.strip_prefix("http://").context("the address begins with http://")?;
        let authorization = token
            .map(|token| format!("Authorization: Bearer {token}\r\n"))
            .unwrap_or_default();
        let request = format!(
            "GET /v1/jobs/{job}/progress HTTP/1.1\r\nHost: {host}\r\n{authorization}Connection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let mut readers = JoinSet::new();
        let mut silent = Vec::new();
        for number in 0..count {
            let mut socket = TcpStream::connect(host).await?;
            socket.write_all(request.as_bytes()).await?;
            let mut head = [0; 12];
            socket.read_exact(&mut head).await?;
            ensure!(
                &head == b"HTTP/1.1 101",
                "a stream was refused: {}",
                String::from_utf8_lossy(&head)
            );
            if number < stalled {
                silent.push(socket);
            } else {
                readers.spawn(read_to_final(socket));
            }
        }
        Ok(Subscribers {
            readers,
            _stalled: silent,
        })
    }

    /// Waits until each that reads has heard the final message.
    pub(super) async fn check(mut self) -> Result<()> {
        while let Some(heard) = timeout(PATIENCE, self.readers.join_next())
            .await
            .context("a subscriber heard no final message")?
        {
            heard??;
        }
        Ok(())
    }
}

async fn read_to_final(mut socket: TcpStream) -> Result<()> {
    let mut seen = Vec::new();
    let mut piece = vec![0; 16 << 10];
    loop {
        let length = socket.read(&mut piece).await?;
        if length == 0 {
            bail!("a stream ended before the job did");
        }
        seen.extend_from_slice(&piece[..length]);
        if seen.windows(FINAL.len()).any(|window| window == FINAL) {
            return Ok(());
        }
        // What could still be the beginning of it.
        seen.drain(..seen.len().saturating_sub(FINAL.len()));
    }
}
