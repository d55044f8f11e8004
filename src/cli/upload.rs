//! Sending a job's tasks: in chunks, each repeated until it is known to be there.
//!
//! Owns: where an interrupted append goes on. Never: sends a task twice or leaves one out, whatever is lost on the way. Invariant: line `i`
//! of the input becomes task `i`; `first_task` of every request proves it.

use super::Usage;
use super::client::retry::Backoff;
use super::client::{Client, ClientError};
use crate::domain::counted::counted;
use anyhow::{Result, anyhow, bail, ensure};

/// Most lines and bytes of one request; the server commits it in smaller steps.
pub(crate) const CHUNK_LINES: usize = 10_000;
pub(crate) const CHUNK_BYTES: usize = 4 << 20;

/// NDJSON lines to append in one request.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// Each with its number in the input, from 1; not every line of an input need be a task.
    lines: Vec<(u64, String)>,
    bytes: usize,
}

impl Chunk {
    pub(crate) fn push(&mut self, number: u64, line: String) {
        self.bytes += line.len() + 1;
        self.lines.push((number, line));
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.lines.len() >= CHUNK_LINES || self.bytes >= CHUNK_BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Drops up to `count` lines from the front and says how many of them it did not hold.
    pub(crate) fn drop_first(&mut self, count: usize) -> usize {
        let held = count.min(self.lines.len());
        self.bytes -= self.lines.drain(..held).map(|(_, line)| line.len() + 1).sum::<usize>();
        count - held
    }

    fn body(&self, from: usize) -> String {
        let mut body = String::with_capacity(self.bytes);
        for (_, line) in &self.lines[from..] {
            body.push_str(line);
            body.push('\n');
        }
        body
    }
}

/// Appends a chunk whose first line becomes `first_task`; returns the number of the task after its last.
///
/// A request may be committed in part before it fails, or in whole with its answer lost. The server's number then says how much is
/// there, and the rest is sent.
pub(crate) async fn append(client: &Client, job: i64, first_task: u32, chunk: &Chunk) -> Result<u32> {
    let end = first_task + u32::try_from(chunk.lines.len())?;
    let mut next = first_task;
    let mut backoff = Backoff::default();
    while next < end {
        let done = (next - first_task) as usize;
        match client.append(job, next, chunk.body(done)).await {
            Ok(appended) => {
                ensure!(
                    appended.next_task == end,
                    "job {job} holds {} where {end} should be: somebody else appends to it, or its tasks are others",
                    counted(appended.next_task, "task")
                );
                next = end;
            }
            Err(error) => match next_after(&error) {
                Some(there) if (next..=end).contains(&there) && there > next => next = there,
                Some(there) => {
                    bail!(
                        "job {job} holds {} where {next} should be: somebody else appends to it",
                        counted(there, "task")
                    )
                }
                None => backoff
                    .wait(error)
                    .await
                    .map_err(|error| at_line(error, &chunk.lines[done..]))?,
            },
        }
    }
    Ok(end)
}

/// How many tasks the job holds, if that is what the server objects to.
fn next_after(error: &ClientError) -> Option<u32> {
    let problem = error.problem()?;
    (problem.code == "wrong_first_task").then_some(problem.next_task)?
}

/// A line that the server refuses, by its number in the input: the server counts from the start of the request.
fn at_line(error: ClientError, sent: &[(u64, String)]) -> anyhow::Error {
    let refused = error.problem().and_then(|problem| {
        let place = problem.field.as_deref()?.strip_prefix("line ")?;
        let in_request: usize = place.split(':').next()?.parse().ok()?;
        let (number, _) = sent.get(in_request.checked_sub(1)?)?;
        let why = problem.detail.replace("tasks[0].", "");
        Some(anyhow!("line {number}: {why} [{}]", problem.code))
    });
    refused.map_or_else(|| error.into(), Usage::because)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_cut_where_the_server_stopped() {
        let mut chunk = Chunk::default();
        for (number, line) in (1..).zip(["1", "2", "3"]) {
            chunk.push(number, line.to_owned());
        }
        assert_eq!(chunk.body(0), "1\n2\n3\n");
        assert_eq!(chunk.body(2), "3\n");
        assert_eq!(chunk.body(3), "");
        assert_eq!(chunk.drop_first(2), 0);
        assert_eq!(chunk.body(0), "3\n");
        assert_eq!(chunk.drop_first(5), 4);
        assert!(chunk.is_empty() && chunk.bytes == 0);
    }

    #[test]
    fn chunks_are_bounded_by_lines_and_bytes() {
        let mut chunk = Chunk::default();
        assert!(chunk.is_empty() && !chunk.is_full());
        chunk.push(1, "x".repeat(CHUNK_BYTES));
        assert!(chunk.is_full());
        let mut chunk = Chunk::default();
        (0..CHUNK_LINES).for_each(|_| chunk.push(1, "1".into()));
        assert!(chunk.is_full());
    }
}
