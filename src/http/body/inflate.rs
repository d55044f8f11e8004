//! Compressed bodies, inflated in steps.
//!
//! Owns: which codings are understood, and how much one step yields. Never: decides how long a body may be; its reader does. Invariant: a
//! step yields a bounded piece whatever it is fed, and a decoder holds a bounded window.

use crate::http::error::{ApiError, ApiResult};
use actix_web::HttpRequest;
use actix_web::http::header;
use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufRead, Read};

/// What is understood, for `Accept-Encoding`.
pub const UNDERSTOOD: &str = "gzip, zstd";
/// Most bytes of one step.
pub(super) const STEP_BYTES: usize = 128 << 10;
/// The largest window a zstd frame may ask for: what RFC 8878 recommends, and all levels but the "ultra" ones keep to.
const ZSTD_WINDOW_LOG: u32 = 23;
/// What a decoder may hold besides what it yields.
pub const WINDOW_BYTES: usize = 1 << ZSTD_WINDOW_LOG;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    Zstd,
}

/// The request's coding; none for a plain body.
pub fn coding(req: &HttpRequest) -> ApiResult<Option<Coding>> {
    let mut found = None;
    for value in req.headers().get_all(header::CONTENT_ENCODING) {
        let text = value.to_str().map_err(|_| ApiError::unsupported_encoding())?;
        let text = text.trim();
        if text.eq_ignore_ascii_case("identity") {
            continue;
        }
        // One after another is as much as several at once: nobody needs it, and each would multiply what comes out.
        if found.is_some() {
            return Err(ApiError::unsupported_encoding());
        }
        found = Some(
            if text.eq_ignore_ascii_case("gzip") || text.eq_ignore_ascii_case("x-gzip") {
                Coding::Gzip
            } else if text.eq_ignore_ascii_case("zstd") {
                Coding::Zstd
            } else {
                return Err(ApiError::unsupported_encoding());
            },
        );
    }
    Ok(found)
}

/// What has arrived and was not taken up. Empty, it would block, until the end is known.
#[derive(Default)]
struct Arrived {
    piece: Bytes,
    ended: bool,
}

impl BufRead for Arrived {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.piece.is_empty() && !self.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, bytes: usize) {
        self.piece.advance(bytes);
    }
}

impl Read for Arrived {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?.len().min(into.len());
        self.piece.copy_to_slice(&mut into[..bytes]);
        Ok(bytes)
    }
}

enum Decoder {
    Gzip(Box<MultiGzDecoder<Arrived>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Arrived>>),
}

/// A compressed body under way.
pub struct Inflater(Decoder);

/// What one step came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Piece(Bytes),
    /// Nothing more without more input.
    Hungry,
    /// The body is whole.
    End,
}

impl Inflater {
    pub fn new(coding: Coding) -> io::Result<Inflater> {
        Ok(Inflater(match coding {
            Coding::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(Arrived::default()))),
            Coding::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(Arrived::default())?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Decoder::Zstd(Box::new(decoder))
            }
        }))
    }

    fn arrived(&mut self) -> &mut Arrived {
        match &mut self.0 {
            Decoder::Gzip(decoder) => decoder.get_mut(),
            Decoder::Zstd(decoder) => decoder.get_mut(),
        }
    }

    /// The next piece that arrived; none at the end. Only after a step was [`Step::Hungry`].
    pub fn feed(&mut self, piece: Option<Bytes>) {
        let arrived = self.arrived();
        debug_assert!(arrived.piece.is_empty(), "the piece before was not taken up");
        match piece {
            Some(piece) => arrived.piece = piece,
            None => arrived.ended = true,
        }
    }

    /// Inflates up to a bounded piece.
    pub fn step(&mut self) -> io::Result<Step> {
        let mut out = vec![0; STEP_BYTES];
        let mut filled = 0;
        while filled < out.len() {
            let read = match &mut self.0 {
                Decoder::Gzip(decoder) => decoder.read(&mut out[filled..]),
                Decoder::Zstd(decoder) => decoder.read(&mut out[filled..]),
            };
            match read {
                Ok(0) if filled == 0 => return Ok(Step::End),
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && filled == 0 => return Ok(Step::Hungry),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        out.truncate(filled);
        Ok(Step::Piece(out.into()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use std::io::Write;

    pub(in crate::http::body) fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn compressed(coding: Coding, text: &[u8]) -> Vec<u8> {
        match coding {
            Coding::Gzip => gzip(text),
            Coding::Zstd => zstd::encode_all(text, 3).unwrap(),
        }
    }

    /// Inflates what comes in pieces of so many bytes; answers the whole and the largest piece.
    fn inflate(coding: Coding, body: &[u8], cut: usize) -> io::Result<(Vec<u8>, usize)> {
        let mut inflater = Inflater::new(coding)?;
        let mut pieces = body.chunks(cut).map(Bytes::copy_from_slice);
        let (mut whole, mut largest) = (Vec::new(), 0);
        loop {
            match inflater.step()? {
                Step::Piece(piece) => {
                    largest = largest.max(piece.len());
                    whole.extend_from_slice(&piece);
                }
                Step::Hungry => inflater.feed(pieces.next()),
                Step::End => return Ok((whole, largest)),
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_out_however_it_was_cut(text in "[ab]{0,3000}", cut in 1usize..200) {
            for coding in [Coding::Gzip, Coding::Zstd] {
                let body = compressed(coding, text.as_bytes());
                prop_assert_eq!(inflate(coding, &body, cut).unwrap().0, text.as_bytes());
            }
        }
    }

    #[test]
    fn fm36_a_bomb_comes_out_in_bounded_pieces() {
        for coding in [Coding::Gzip, Coding::Zstd] {
            let body = compressed(coding, &vec![b' '; 8 << 20]);
            assert!(body.len() < 64 << 10, "{coding:?}: {}", body.len());
            let (whole, largest) = inflate(coding, &body, usize::MAX).unwrap();
            assert_eq!(whole.len(), 8 << 20);
            assert!(largest <= STEP_BYTES);
        }
    }

    #[test]
    fn broken_and_cut_bodies_are_errors() {
        for coding in [Coding::Gzip, Coding::Zstd] {
            assert!(inflate(coding, b"{\"a\":1}", 100).is_err(), "{coding:?}");
            let mut body = compressed(coding, b"some text that is long enough to be cut");
            body.truncate(body.len() - 5);
            assert!(inflate(coding, &body, 100).is_err(), "{coding:?}");
        }
    }

    #[test]
    fn a_window_beyond_the_bound_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(ZSTD_WINDOW_LOG + 1).unwrap();
        encoder.write_all(&[b'x'; 1 << 20]).unwrap();
        let body = encoder.finish().unwrap();
        assert!(inflate(Coding::Zstd, &body, 4096).is_err());
    }
}
