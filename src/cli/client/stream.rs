//! Progress as it happens: the client's end of an event stream.
//!
//! Owns: opening one, and cutting what comes into messages. Never: opens one again (the caller decides). Invariant: every wait is bounded,
//! and so is what is kept of a message that is not complete.

use super::{Answer, CALL_TIMEOUT, Client, ClientError};
use crate::http::wire::StreamMessage;
use reqwest::header::ACCEPT;
use reqwest::{Method, Response};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::timeout;

/// A node says something every few seconds, if only that it is there. One that is silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(90);
/// Largest event; a job's message has a few kilobytes.
const EVENT_MAX_BYTES: usize = 16 << 20;

/// The messages of one connection.
pub(crate) struct Messages {
    client: Client,
    response: Response,
    splitter: Splitter,
    events: VecDeque<Vec<u8>>,
}

impl Client {
    /// Opens the stream of a job's progress.
    pub(crate) async fn progress(&self, id: i64) -> Answer<Messages> {
        let url = self.url(&format!("v1/jobs/{id}/progress"));
        let request = self.unbounded(Method::GET, url).header(ACCEPT, "text/event-stream");
        let Ok(answer) = timeout(CALL_TIMEOUT, self.send(request)).await else {
            return Err(silent());
        };
        Ok(Messages {
            client: self.clone(),
            response: answer?,
            splitter: Splitter::default(),
            events: VecDeque::new(),
        })
    }
}

fn silent() -> ClientError {
    ClientError::Busy {
        detail: "no answer in time".to_owned(),
        retry_after: None,
    }
}

impl Messages {
    /// The next message; none once the server has ended the stream.
    pub(crate) async fn next(&mut self) -> Answer<Option<StreamMessage>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                let message = serde_json::from_slice(&event);
                return message
                    .map(Some)
                    .map_err(|error| ClientError::Unexpected(error.to_string()));
            }
            let Ok(chunk) = timeout(SILENCE, self.response.chunk()).await else {
                return Err(silent());
            };
            match chunk.map_err(|error| self.client.unreachable(&error))? {
                Some(bytes) => self.splitter.feed(&bytes, &mut self.events)?,
                None => return Ok(None),
            }
        }
    }
}

/// Cuts an event stream into the data of its events, wherever the chunks are cut.
#[derive(Debug, Default)]
struct Splitter {
    /// A line that has not ended.
    line: Vec<u8>,
    /// Data of an event that has not ended.
    data: Option<Vec<u8>>,
}

impl Splitter {
    fn feed(&mut self, bytes: &[u8], events: &mut VecDeque<Vec<u8>>) -> Answer<()> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.len() + self.data.as_ref().map_or(0, Vec::len) > EVENT_MAX_BYTES {
                return Err(ClientError::Unexpected("an event is too large".to_owned()));
            }
            if let Some(line) = self.line.strip_suffix(b"\n") {
                let line = line.strip_suffix(b"\r").unwrap_or(line).to_owned();
                self.line.clear();
                self.take(&line, events);
            }
        }
        Ok(())
    }

    /// Takes a line without its end. Comments and fields but `data` mean nothing here.
    fn take(&mut self, line: &[u8], events: &mut VecDeque<Vec<u8>>) {
        if line.is_empty() {
            events.extend(self.data.take());
        } else if let Some(value) = line.strip_prefix(b"data:") {
            let data = self.data.get_or_insert_default();
            if !data.is_empty() {
                data.push(b'\n');
            }
            data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<String> {
        let (mut splitter, mut events) = (Splitter::default(), VecDeque::new());
        for chunk in chunks {
            splitter.feed(chunk, &mut events).unwrap();
        }
        events
            .into_iter()
            .map(|event| String::from_utf8(event).unwrap())
            .collect()
    }

    #[test]
    fn events_are_the_same_wherever_the_chunks_are_cut() {
        let stream = "retry: 1000\ndata: {\"a\":\"é\"}\n\n:\n\nid: final\r\ndata:{\"b\":\r\ndata: 2}\r\n\r\ndata: cut"
            .as_bytes();
        let expected = ["{\"a\":\"é\"}", "{\"b\":\n2}"];
        for at in 0..=stream.len() {
            let (before, after) = stream.split_at(at);
            assert_eq!(split(&[before, after]), expected, "cut at {at}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(split(&bytes), expected);
    }

    #[test]
    fn an_event_without_an_end_is_refused() {
        let (mut splitter, mut events) = (Splitter::default(), VecDeque::new());
        let mut fed = 0;
        let refused = loop {
            match splitter.feed(&[b'x'; 1 << 20], &mut events) {
                Ok(()) => fed += 1 << 20,
                Err(error) => break error,
            }
        };
        assert!(!refused.may_pass() && fed == EVENT_MAX_BYTES, "{refused} after {fed}");
    }
}
