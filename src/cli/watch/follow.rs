//! Following one job across connections.
//!
//! Owns: opening the stream again after it broke. Never: judges what a message says. Invariant: it ends with the job's final message, or
//! with a failure that will not pass.

use crate::cli::client::retry::Backoff;
use crate::cli::client::{Answer, Client, ClientError};
use crate::cli::jobs::PATIENCE;
use crate::http::wire::StreamMessage;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// A connection that held so long is followed by a new one without a longer wait than the first.
const STEADY: Duration = Duration::from_secs(5);
/// Failures in a row that a person is not told about: a node that moves a job ends its streams, too.
const QUIET_FAILURES: u32 = 2;

/// What a follower tells.
#[derive(Debug)]
pub(super) enum Told {
    Message(StreamMessage),
    /// The stream is broken and tried again.
    Broken(String),
    /// It will not get better. The last thing told.
    Failed(ClientError),
}

/// Follows a job to its end. Ends, too, when nobody listens any more.
pub(super) async fn follow(client: Client, id: i64, index: usize, told: mpsc::Sender<(usize, Told)>) {
    let mut follower = Follower {
        client,
        id,
        index,
        told,
        has_heard: false,
    };
    if let Err(error) = follower.run().await {
        let _ = follower.told.send((index, Told::Failed(error))).await;
    }
}

struct Follower {
    client: Client,
    id: i64,
    index: usize,
    told: mpsc::Sender<(usize, Told)>,
    /// The server has answered for this job at least once.
    has_heard: bool,
}

impl Follower {
    async fn run(&mut self) -> Answer<()> {
        let give_up = Instant::now() + PATIENCE;
        let (mut backoff, mut failures) = (Backoff::default(), 0);
        loop {
            let opened = Instant::now();
            let error = match self.connection().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // An address that never answered is more likely wrong than restarting.
            if !error.may_pass() || (!self.has_heard && Instant::now() >= give_up) {
                return Err(error);
            }
            if opened.elapsed() >= STEADY {
                (backoff, failures) = (Backoff::default(), 0);
            }
            failures += 1;
            if failures == QUIET_FAILURES + 1 {
                self.tell(Told::Broken(error.to_string())).await;
            }
            sleep(backoff.pause(&error)).await;
        }
    }

    /// Passes on what one connection brings; good, if that includes the end or nobody listens.
    async fn connection(&mut self) -> Answer<()> {
        let mut messages = self.client.progress(self.id).await?;
        while let Some(message) = messages.next().await? {
            self.has_heard = true;
            let is_last = matches!(message, StreamMessage::Final { .. });
            if !self.tell(Told::Message(message)).await || is_last {
                return Ok(());
            }
        }
        Err(ClientError::Busy {
            detail: "the stream ended before the job did".to_owned(),
            retry_after: None,
        })
    }

    async fn tell(&self, told: Told) -> bool {
        self.told.send((self.index, told)).await.is_ok()
    }
}
