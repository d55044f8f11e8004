//! What goes to standard output and standard error.
//!
//! Owns: tables, JSON lines, notes, and the cleaning of text that came from elsewhere. Never: panics because nobody reads any more.
//! Invariant: no control character of a server, a job's name or a task's error reaches the terminal.

use anyhow::Result;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, Write};

/// Whoever read our standard output is gone: there is nobody left to tell, so this is no error worth a line.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub(crate) struct OutputClosed;

/// Prints text and a newline to standard output.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    written(
        out.write_all(text.as_bytes())
            .and_then(|()| out.write_all(b"\n"))
            .and_then(|()| out.flush()),
    )
}

/// Turns a broken pipe into [`OutputClosed`].
fn written(outcome: io::Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(OutputClosed.into()),
        other => Ok(other?),
    }
}

/// Prints one line to standard error, if anybody reads it.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// The text without control characters and without marks that reorder what follows.
pub(crate) fn clean(text: &str) -> String {
    text.chars().filter(|c| !is_unsafe(*c)).collect()
}

fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

/// JSON on one line, in which everything [`clean`] would drop is escaped instead, so that nothing is lost.
pub(crate) fn json(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string(value)?;
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    Ok(safe)
}

/// At most so many characters, the last of them an ellipsis if any is left out.
pub(crate) fn shortened(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(chars - 1).collect();
    short.push('…');
    short
}

/// How a column is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows under a header, columns aligned and two spaces apart; cells are cleaned.
pub(crate) fn table(columns: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| clean(cell)).collect())
        .collect();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(at, (title, _))| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(at))
                .map(|cell| cell.chars().count());
            cells.max().unwrap_or(0).max(title.chars().count())
        })
        .collect();
    let header = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&header).chain(&rows) {
        let mut line = String::new();
        for ((cell, width), (_, align)) in row.iter().zip(&widths).zip(columns) {
            let pad = " ".repeat(width - cell.chars().count());
            let _ = match align {
                Align::Left => write!(line, "{cell}{pad}  "),
                Align::Right => write!(line, "{pad}{cell}  "),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.truncate(text.trim_end_matches('\n').len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_get_through() {
        assert_eq!(clean("a\x1b[31mred\x07\u{9b}2J\u{202e}b\n"), "a[31mred2Jb");
        let text = json(&"a\x1b\u{9b}\u{7f}\u{202e}é").unwrap();
        assert_eq!(text, r#""a\u001b\u009b\u007f\u202eé""#);
        assert_eq!(
            serde_json::from_str::<String>(&text).unwrap(),
            "a\x1b\u{9b}\u{7f}\u{202e}é"
        );
    }

    #[test]
    fn long_names_are_cut_by_characters() {
        assert_eq!(shortened("äöüß", 3), "äö…");
        assert_eq!(shortened("äöü", 3), "äöü");
    }

    #[test]
    fn columns_line_up() {
        let columns = [("ID", Align::Right), ("NAME", Align::Left), ("N", Align::Right)];
        let rows = [["7", "é", "10"], ["123", "long name", "5"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(
            table(&columns, &rows),
            " ID  NAME        N\n  7  é          10\n123  long name   5"
        );
        assert_eq!(table(&columns, &[]), "ID  NAME  N");
    }
}
