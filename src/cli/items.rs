//! The input of `run`: one item per line, read whole so that it can be hashed before the job is made.
//!
//! Owns: the split into items, their keys and the hash by which `--resume` finds the job. Never: alters an item. Invariant: item `i`
//! becomes task `i`, and equal lines have different keys.

use super::template::Template;
use crate::domain::job::Limits;
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::io::Read;

/// The items of one run: one text and where each item ends in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Items {
    text: String,
    /// Byte offsets just after each item; the separator follows.
    ends: Vec<usize>,
}

/// One line of an NDJSON upload.
#[derive(Serialize)]
struct Line<'a> {
    key: &'a str,
    payload: &'a str,
}

impl Items {
    /// Reads to the end. `separator` is a newline, or NUL for `find -print0`; the last item may lack it.
    pub(crate) fn read(mut from: impl Read, separator: u8) -> Result<Self> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).context("cannot read the items")?;
        Items::split(bytes, separator)
    }

    fn split(bytes: Vec<u8>, separator: u8) -> Result<Self> {
        let mut ends: Vec<usize> = bytes
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == separator)
            .map(|(at, _)| at)
            .collect();
        if bytes.last().is_some_and(|last| *last != separator) {
            ends.push(bytes.len());
        }
        ensure!(u32::try_from(ends.len()).is_ok(), "too many items");
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            // Replacing the bytes would run the command on another file than the one named.
            Err(error) => {
                let bad = error.utf8_error().valid_up_to();
                bail!("item {} is not UTF-8", ends.partition_point(|end| *end < bad) + 1)
            }
        };
        let items = Items { text, ends };
        items.check()?;
        Ok(items)
    }

    /// Refuses before anything is created what the node or the system would refuse half-way.
    fn check(&self) -> Result<()> {
        let limit = Limits::default().payload_bytes;
        for (index, item) in self.iter().enumerate() {
            ensure!(!item.contains('\0'), "item {} contains a NUL character", index + 1);
            // Escaping makes a byte at most six; only an item that could pass the limit is worth encoding.
            if item.len() + 2 > limit / 6 {
                let size = serde_json::to_string(item)?.len();
                ensure!(
                    size <= limit,
                    "item {} is {size} bytes long, at most {limit} fit",
                    index + 1
                );
            }
        }
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] + 1 };
        Some(&self.text[start..end])
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// The NDJSON line of one task.
    pub(crate) fn ndjson(&self, index: usize) -> Option<String> {
        let item = self.get(index)?;
        let key = key_of(index, item);
        serde_json::to_string(&Line {
            key: &key,
            payload: item,
        })
        .ok()
    }

    /// Names this very command with these very items, in 64 hexadecimal digits.
    pub(crate) fn hash(&self, template: &Template) -> String {
        let mut hasher = Sha256::new();
        // Each part goes in with its length, so that no two different inputs read the same.
        let mut put = |part: &str| {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        };
        put(&template.words().len().to_string());
        template.words().iter().for_each(|word| put(word));
        self.iter().for_each(put);
        hex(&hasher.finalize())
    }
}

/// A task's key: the item's number, from 1, and a hash of its text.
fn key_of(index: usize, item: &str) -> String {
    let digest = Sha256::digest(item.as_bytes());
    format!("{}-{}", index + 1, hex(&digest[..6]))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> Items {
        Items::read(text.as_bytes(), b'\n').unwrap()
    }

    fn all(items: &Items) -> Vec<&str> {
        items.iter().collect()
    }

    #[test]
    fn every_line_is_one_item_even_an_empty_one() {
        assert_eq!(all(&items("a\n\n b \r\nc")), ["a", "", " b \r", "c"]);
        assert_eq!(all(&items("a\n")), ["a"]);
        assert_eq!(items("").len(), 0);
        assert_eq!(all(&items("\n")), [""]);
    }

    #[test]
    fn nul_separated_items_may_hold_newlines() {
        let items = Items::read(&b"a\nb\0c\0"[..], 0).unwrap();
        assert_eq!(all(&items), ["a\nb", "c"]);
    }

    #[test]
    fn equal_lines_have_different_keys() {
        let items = items("same\nsame\n");
        let keys: Vec<serde_json::Value> = (0..2)
            .map(|i| serde_json::from_str(&items.ndjson(i).unwrap()).unwrap())
            .collect();
        assert_ne!(keys[0]["key"], keys[1]["key"]);
        assert_eq!(keys[0]["payload"], "same");
        assert!(keys[1]["key"].as_str().unwrap().starts_with("2-"));
    }

    #[test]
    fn the_hash_depends_on_command_items_and_their_borders() {
        let wc = Template::from_text("wc -l").unwrap();
        let same = items("a\nb").hash(&wc);
        assert_eq!(items("a\nb\n").hash(&wc), same);
        assert_ne!(items("ab").hash(&wc), same);
        assert_ne!(items("b\na").hash(&wc), same);
        assert_ne!(items("a\nb").hash(&Template::from_text("wc '-l '").unwrap()), same);
        // A word moved from the command to the items is another run.
        let (one, two) = (Template::from_text("wc").unwrap(), Template::from_text("wc a").unwrap());
        assert_ne!(items("a\nb").hash(&one), items("b").hash(&two));
    }

    #[test]
    fn what_cannot_be_an_argument_is_refused_with_its_number() {
        let error = Items::read(&b"ok\nb\xff\n"[..], b'\n').unwrap_err();
        assert_eq!(error.to_string(), "item 2 is not UTF-8");
        let error = Items::read(&b"ok\na\0b\n"[..], b'\n').unwrap_err();
        assert_eq!(error.to_string(), "item 2 contains a NUL character");
        let long = "x".repeat(300 * 1024);
        let error = Items::read(long.as_bytes(), b'\n').unwrap_err();
        assert!(error.to_string().starts_with("item 1 is "), "{error}");
    }
}
