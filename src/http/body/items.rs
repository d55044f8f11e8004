//! Splits a streamed JSON object into the items of its one long list, and the rest.
//!
//! Owns: where an item begins and ends. Never: holds more than one item, the piece at hand and what stands beside the list, or judges what an
//! item says: each is parsed by itself, and so is the rest, in which the list stands empty. Invariant: items and rest are the same however the stream was cut, and
//! what is no JSON is refused by the splitter, by the parser of an item, or by that of the rest.

use bytes::{Buf, Bytes};
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use std::fmt;

/// From here on an item gets its room at once.
const LARGE_BYTES: usize = 1 << 20;
/// Room of at least this size is mapped by itself (glibc's largest threshold is 32 MiB), so that it goes back to the system the moment
/// its item was dealt with, and costs no more than what is written to it.
const MAPPED_BYTES: usize = 33 << 20;

/// The stream is no object with such a list. Places are bytes of the body, from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsplittable {
    #[error("expected {expected} at byte {at}")]
    Expected { expected: &'static str, at: u64 },
    #[error("the body ends at byte {at}, inside {list}[{index}]")]
    Truncated { list: &'static str, index: usize, at: u64 },
    /// A list, of items perhaps, stands where the object would.
    #[error("expected an object at byte {at}")]
    BareList { at: u64 },
}

/// One element of the list, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawItem {
    pub index: usize,
    /// Where in the body it begins.
    pub at: u64,
    pub text: Vec<u8>,
}

/// Where the splitter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    /// Beside the list; the last string at depth 1 may be a key.
    Rest {
        key: Key,
    },
    /// In the list, before an item. `first`: none has come, so the list may end here.
    Before {
        first: bool,
    },
    Inside {
        scalar: bool,
    },
    After,
}

/// What is known of the member at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    None,
    /// Began at this place of the rest.
    Open(usize),
    /// The list's name was read; a colon makes it a key.
    Listed,
    /// The list itself comes next.
    Colon,
}

/// Nesting and strings of the text at hand.
#[derive(Debug, Clone, Copy, Default)]
struct Nesting {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    /// Bytes up to and including the next one that ends a string, or a bracket; none if the piece holds no such byte.
    fn next_mark(&mut self, piece: &[u8]) -> Option<usize> {
        let mut from = 0;
        if self.in_string {
            if std::mem::take(&mut self.escaped) && !piece.is_empty() {
                from = 1;
            }
            while let Some(found) = memchr::memchr2(b'"', b'\\', piece.get(from..)?) {
                let at = from + found;
                if piece[at] == b'"' {
                    self.in_string = false;
                    return Some(at + 1);
                }
                from = at + 2;
                self.escaped = from > piece.len();
            }
            return None;
        }
        let marks = |byte: &u8| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']');
        let at = piece.iter().position(marks)?;
        match piece[at] {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            _ => self.depth = self.depth.saturating_sub(1),
        }
        Some(at + 1)
    }
}

/// Adds to a text of a body of which so much may still come.
fn add(text: &mut Vec<u8>, more: &[u8], left: u64) {
    if text.capacity() - text.len() < more.len() && text.len() + more.len() > LARGE_BYTES {
        // Once for the whole text: growing step by step would hold it twice while it is moved.
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        text.reserve_exact(left.max(MAPPED_BYTES));
    }
    text.extend_from_slice(more);
}

/// Cuts pieces of a stream into items.
pub struct ItemSplitter {
    list: &'static str,
    body_max_bytes: u64,
    place: Place,
    nesting: Nesting,
    rest: Vec<u8>,
    item: Vec<u8>,
    item_at: u64,
    items: usize,
    piece: Bytes,
    at: u64,
}

impl ItemSplitter {
    /// `list` names the member that holds the items; the body is at most so long.
    pub fn new(list: &'static str, body_max_bytes: usize) -> Self {
        ItemSplitter {
            list,
            body_max_bytes: body_max_bytes as u64,
            place: Place::Start,
            nesting: Nesting::default(),
            rest: Vec::new(),
            item: Vec::new(),
            item_at: 0,
            items: 0,
            piece: Bytes::new(),
            at: 0,
        }
    }

    /// Adds the next piece. Call only after [`next_item`](Self::next_item) has answered none.
    pub fn push(&mut self, piece: Bytes) {
        debug_assert!(self.piece.is_empty(), "the piece before was not taken up");
        self.piece = piece;
    }

    /// The next whole item, or none until more is pushed.
    pub fn next_item(&mut self) -> Result<Option<RawItem>, Unsplittable> {
        while !self.piece.is_empty() {
            let done = match self.place {
                Place::Inside { scalar: true } => self.scalar(),
                Place::Inside { scalar: false } => self.nested(),
                Place::Rest { key } => self.beside(key),
                Place::Start | Place::Before { .. } | Place::After => self.between()?,
            };
            if done {
                self.place = Place::After;
                self.items += 1;
                return Ok(Some(RawItem {
                    index: self.items - 1,
                    at: self.item_at,
                    text: std::mem::take(&mut self.item),
                }));
            }
        }
        Ok(None)
    }

    /// What has come of the item at hand.
    pub fn partial(&self) -> &[u8] {
        &self.item
    }

    /// What has come beside the list.
    pub fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// Everything beside the list, with the list empty. Whether that is JSON its parser will tell.
    pub fn finish(self) -> Result<Vec<u8>, Unsplittable> {
        match self.place {
            Place::Start | Place::Rest { .. } => Ok(self.rest),
            Place::Before { .. } | Place::Inside { .. } | Place::After => Err(Unsplittable::Truncated {
                list: self.list,
                index: self.items.saturating_sub(usize::from(self.place == Place::After)),
                at: self.at,
            }),
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.piece.advance(bytes);
        self.at += bytes as u64;
    }

    /// Takes bytes into the item at hand.
    fn take(&mut self, bytes: usize) {
        add(
            &mut self.item,
            &self.piece[..bytes],
            self.body_max_bytes.saturating_sub(self.at),
        );
        self.skip(bytes);
    }

    /// Keeps bytes beside the list.
    fn keep(&mut self, bytes: usize) {
        add(
            &mut self.rest,
            &self.piece[..bytes],
            self.body_max_bytes.saturating_sub(self.at),
        );
        self.skip(bytes);
    }

    /// A number or a word, which ends where something else begins. Answers whether it did.
    fn scalar(&mut self) -> bool {
        let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}') || byte.is_ascii_whitespace();
        let end = self.piece.iter().position(ends);
        self.take(end.unwrap_or(self.piece.len()));
        end.is_some()
    }

    /// A string, an object or a list. Answers whether it ended.
    fn nested(&mut self) -> bool {
        loop {
            let Some(bytes) = self.nesting.next_mark(&self.piece) else {
                self.take(self.piece.len());
                return false;
            };
            self.take(bytes);
            if self.nesting.depth == 0 && !self.nesting.in_string {
                return true;
            }
        }
    }

    /// One step between items, or before the first byte.
    fn between(&mut self) -> Result<bool, Unsplittable> {
        let blank = self.piece.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.skip(blank);
        let Some(&byte) = self.piece.first() else {
            return Ok(false);
        };
        let expected = |expected| Err(Unsplittable::Expected { expected, at: self.at });
        match (self.place, byte) {
            (Place::Start, b'{') => {
                self.place = Place::Rest { key: Key::None };
                self.nesting = Nesting::default();
            }
            (Place::Start, b'[') => return Err(Unsplittable::BareList { at: self.at }),
            (Place::Start, _) => return expected("an object"),
            (Place::Before { first: true } | Place::After, b']') => {
                self.keep(1);
                self.place = Place::Rest { key: Key::None };
                self.nesting = Nesting {
                    depth: 1,
                    ..Nesting::default()
                };
            }
            (Place::After, b',') => {
                self.skip(1);
                self.place = Place::Before { first: false };
            }
            (Place::After, _) => return expected("`,` or `]`"),
            (_, b',' | b']' | b'}' | b':') => return expected("an item"),
            _ => {
                self.item_at = self.at;
                self.nesting = Nesting::default();
                self.place = Place::Inside {
                    scalar: !matches!(byte, b'"' | b'{' | b'['),
                };
            }
        }
        Ok(false)
    }

    /// One step beside the list.
    fn beside(&mut self, key: Key) -> bool {
        // Only what stands at depth 1 outside of strings can lead to the list; it is read byte by byte, the rest in strides.
        if self.nesting.depth == 1 && !self.nesting.in_string {
            let byte = self.piece[0];
            if key == Key::Colon && byte == b'[' {
                self.keep(1);
                self.place = Place::Before { first: true };
                return false;
            }
            let next = match byte {
                b'"' => Key::Open(self.rest.len() + 1),
                b':' if key == Key::Listed => Key::Colon,
                _ if byte.is_ascii_whitespace() => key,
                _ => Key::None,
            };
            self.nesting.next_mark(&self.piece[..1]);
            self.keep(1);
            self.place = Place::Rest { key: next };
            return false;
        }
        let marked = self.nesting.next_mark(&self.piece);
        self.keep(marked.unwrap_or(self.piece.len()));
        if marked.is_some()
            && let Key::Open(start) = key
        {
            let named = self.rest.get(start..self.rest.len() - 1) == Some(self.list.as_bytes());
            self.place = Place::Rest {
                key: if named { Key::Listed } else { Key::None },
            };
        }
        false
    }
}

/// The text of a member of an object of which only the beginning is there, if that far it is JSON and the member has come.
pub fn peek(beginning: &[u8], member: &str) -> Option<String> {
    struct Peek<'m>(&'m str, Option<String>);
    impl<'de> Visitor<'de> for &mut Peek<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(key) = map.next_key::<String>()? {
                if key == self.0 {
                    self.1 = Some(map.next_value()?);
                    return Err(A::Error::custom("found"));
                }
                map.next_value::<IgnoredAny>()?;
            }
            Ok(())
        }
    }
    let mut peek = Peek(member, None);
    let mut beginning = serde_json::Deserializer::from_slice(beginning);
    // An error is what it ends with: found, or not whole.
    let _ = serde::Deserializer::deserialize_map(&mut beginning, &mut peek);
    peek.1
}

#[cfg(test)]
#[path = "items_test.rs"]
mod tests;
