//! Splits a streamed body into lines.
//!
//! Owns: line boundaries and the bound on a line. Never: holds more than one line and the piece at hand. Invariant: the lines are the
//! same however the stream was cut.

use bytes::{Bytes, BytesMut};

/// A line passed its bound; its number counts from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is too long")]
pub struct LineTooLong {
    pub line: u64,
}

/// Cuts pieces of a stream into lines; blank lines are skipped but counted.
pub struct LineSplitter {
    max_bytes: usize,
    partial: BytesMut,
    piece: Bytes,
    line: u64,
}

impl LineSplitter {
    pub fn new(max_bytes: usize) -> Self {
        LineSplitter {
            max_bytes,
            partial: BytesMut::new(),
            piece: Bytes::new(),
            line: 0,
        }
    }

    /// Adds the next piece. Call only after [`next_line`](Self::next_line) has answered none.
    pub fn push(&mut self, piece: Bytes) {
        debug_assert!(self.piece.is_empty(), "the piece before was not taken up");
        self.piece = piece;
    }

    /// The next whole line and its number, or none until more is pushed.
    pub fn next_line(&mut self) -> Result<Option<(u64, Bytes)>, LineTooLong> {
        while let Some(end) = self.piece.iter().position(|&byte| byte == b'\n') {
            let rest_of_line = self.piece.split_to(end);
            self.piece = self.piece.split_off(1);
            if let Some(line) = self.complete(rest_of_line)? {
                return Ok(Some(line));
            }
        }
        let rest = std::mem::take(&mut self.piece);
        if self.partial.len() + rest.len() > self.max_bytes {
            return Err(LineTooLong { line: self.line + 1 });
        }
        self.partial.extend_from_slice(&rest);
        Ok(None)
    }

    /// The last line, if the stream did not end with a line feed.
    pub fn finish(mut self) -> Result<Option<(u64, Bytes)>, LineTooLong> {
        self.complete(Bytes::new())
    }

    fn complete(&mut self, tail: Bytes) -> Result<Option<(u64, Bytes)>, LineTooLong> {
        self.line += 1;
        if self.partial.len() + tail.len() > self.max_bytes {
            return Err(LineTooLong { line: self.line });
        }
        let line = if self.partial.is_empty() {
            tail
        } else {
            self.partial.extend_from_slice(&tail);
            self.partial.split().freeze()
        };
        let blank = line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
        Ok((!blank).then_some((self.line, line)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(pieces: &[&[u8]], max: usize) -> Result<Vec<(u64, Vec<u8>)>, LineTooLong> {
        let mut splitter = LineSplitter::new(max);
        let mut lines = Vec::new();
        for piece in pieces {
            splitter.push(Bytes::copy_from_slice(piece));
            while let Some((number, line)) = splitter.next_line()? {
                lines.push((number, line.to_vec()));
            }
        }
        lines.extend(splitter.finish()?.map(|(number, line)| (number, line.to_vec())));
        Ok(lines)
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_where_the_stream_was_cut(text in "[ab\r\n]{0,60}", cuts in proptest::collection::vec(0usize..61, 0..6)) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&text.as_bytes()[from..cut]);
                from = cut;
            }
            pieces.push(&text.as_bytes()[from..]);
            let expected: Vec<_> = text
                .split('\n')
                .enumerate()
                .filter(|(_, line)| !line.trim().is_empty())
                .map(|(i, line)| (i as u64 + 1, line.as_bytes().to_vec()))
                .collect();
            prop_assert_eq!(split(&pieces, 100).unwrap(), expected);
        }
    }

    #[test]
    fn a_line_may_be_as_long_as_its_bound_but_no_longer() {
        assert_eq!(split(&[b"12345\n12345"], 5).unwrap().len(), 2);
        assert_eq!(split(&[b"1\n123", b"456\n"], 5), Err(LineTooLong { line: 2 }));
        assert_eq!(split(&[b"123456"], 5), Err(LineTooLong { line: 1 }));
        assert_eq!(split(&[b"123", b"456"], 5), Err(LineTooLong { line: 1 }));
    }
}
