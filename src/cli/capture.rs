//! What a child process writes: a bounded part of it for the result, and all of it for the terminal.
//!
//! Owns: how much is kept and which end. Never: holds more than its limit in memory. Invariant: text is valid UTF-8 whatever the child
//! wrote, and what goes over the limit is on disk, unnamed, or gone.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};

/// Most bytes of each stream that become part of a result.
pub(crate) const RESULT_STREAM_BYTES: usize = 64 * 1024;

/// Which end of a stream to keep when it is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    First,
    Last,
}

/// A stream cut to a limit.
#[derive(Debug)]
pub(crate) struct Capture {
    keep: Keep,
    limit: usize,
    bytes: VecDeque<u8>,
}

impl Capture {
    pub(crate) fn new(keep: Keep, limit: usize) -> Self {
        Capture {
            keep,
            limit,
            bytes: VecDeque::new(),
        }
    }

    /// Takes in what was read, dropping what does not fit.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        match self.keep {
            Keep::First => {
                let room = self.limit - self.bytes.len();
                self.bytes.extend(&chunk[..chunk.len().min(room)]);
            }
            Keep::Last => {
                let tail = &chunk[chunk.len().saturating_sub(self.limit)..];
                let excess = (self.bytes.len() + tail.len()).saturating_sub(self.limit);
                self.bytes.drain(..excess);
                self.bytes.extend(tail);
            }
        }
    }

    /// The kept part as text. A character cut by the limit is dropped rather than shown as broken; other invalid bytes are replaced.
    pub(crate) fn into_text(self) -> String {
        let was_full = self.bytes.len() == self.limit;
        let bytes = Vec::from(self.bytes);
        let part = match self.keep {
            Keep::First if was_full => without_cut_end(&bytes),
            Keep::Last if was_full => without_cut_start(&bytes),
            _ => &bytes[..],
        };
        String::from_utf8_lossy(part).into_owned()
    }
}

fn without_cut_end(bytes: &[u8]) -> &[u8] {
    // `error_len` is none exactly if the input ends inside a character; its first byte is among the last three.
    let cut = (1..=3.min(bytes.len())).find(
        |back| matches!(std::str::from_utf8(&bytes[bytes.len() - back..]), Err(error) if error.error_len().is_none()),
    );
    &bytes[..bytes.len() - cut.unwrap_or(0)]
}

fn without_cut_start(bytes: &[u8]) -> &[u8] {
    let continuation = bytes
        .iter()
        .take(3)
        .take_while(|byte| (0x80..0xC0).contains(*byte))
        .count();
    &bytes[continuation..]
}

/// Everything a child wrote to one stream, kept in order until its task is done: in memory up to a limit, then in a file without a name.
#[derive(Debug, Default)]
pub(crate) struct Spool {
    memory: Vec<u8>,
    file: Option<File>,
    /// It could not be kept to its end.
    is_cut: bool,
}

impl Spool {
    /// After a failure, what follows is dropped.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> io::Result<()> {
        if self.is_cut {
            return Ok(());
        }
        let kept = self.keep(chunk);
        self.is_cut = kept.is_err();
        kept
    }

    fn keep(&mut self, chunk: &[u8]) -> io::Result<()> {
        if self.file.is_none() && self.memory.len() + chunk.len() > RESULT_STREAM_BYTES {
            self.file = Some(unnamed_file()?);
        }
        match &mut self.file {
            Some(file) => file.write_all(chunk),
            None => {
                self.memory.extend_from_slice(chunk);
                Ok(())
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.file.is_none()
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Writes all of it, in order.
    pub(crate) fn copy_to(&mut self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&self.memory)?;
        if let Some(file) = &mut self.file {
            file.seek(SeekFrom::Start(0))?;
            io::copy(file, to)?;
        }
        to.flush()
    }
}

/// A temporary file that vanishes with its handle, also when the process is killed.
fn unnamed_file() -> io::Result<File> {
    let name = format!("tallykeeper-{}-{:016x}", std::process::id(), rand::random::<u64>());
    let path = std::env::temp_dir().join(name);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(keep: Keep, limit: usize, chunks: &[&[u8]]) -> String {
        let mut capture = Capture::new(keep, limit);
        for chunk in chunks {
            capture.push(chunk);
            assert!(capture.bytes.len() <= limit);
        }
        capture.into_text()
    }

    #[test]
    fn the_asked_end_is_kept_within_the_limit() {
        assert_eq!(captured(Keep::First, 5, &[b"abc", b"defg", b"h"]), "abcde");
        assert_eq!(captured(Keep::Last, 5, &[b"abc", b"defg", b"h"]), "defgh");
        assert_eq!(captured(Keep::Last, 3, &[b"abcdefg"]), "efg");
        assert_eq!(captured(Keep::First, 5, &[b"ab"]), "ab");
    }

    #[test]
    fn invalid_bytes_are_replaced_and_cut_characters_dropped() {
        assert_eq!(captured(Keep::First, 100, &[b"a\xffb"]), "a\u{fffd}b");
        for limit in 1..=8 {
            let first = captured(Keep::First, limit, &["é😀é".as_bytes()]);
            let last = captured(Keep::Last, limit, &["é😀é".as_bytes()]);
            assert!("é😀é".starts_with(&first), "{limit}: {first:?}");
            assert!("é😀é".ends_with(&last), "{limit}: {last:?}");
        }
    }

    #[test]
    fn a_spool_gives_back_everything_in_order() {
        let mut spool = Spool::default();
        assert!(spool.is_empty());
        let mut expected = Vec::new();
        for n in 0..40u8 {
            let chunk = vec![n; 5_000];
            spool.push(&chunk).unwrap();
            expected.extend(chunk);
        }
        assert!(spool.memory.len() <= RESULT_STREAM_BYTES);
        let mut got = Vec::new();
        spool.copy_to(&mut got).unwrap();
        assert!(got == expected);
    }
}
