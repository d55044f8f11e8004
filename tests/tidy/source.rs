//! A Rust file as the checks see it.
//!
//! Owns: telling code from comments, strings and tests. Never: judges. Invariant: `code` has as many lines as the file, so that a hit's
//! line number is the file's.

use std::ops::Range;
use std::path::Path;

/// A file, split into what is code and what is not.
pub(crate) struct Source {
    /// Path in the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text with comments and the contents of strings blanked.
    pub(crate) code: String,
    /// Contents of string literals, with the line each begins on.
    pub(crate) strings: Vec<(usize, String)>,
    /// Lines (from 1) that are compiled for tests only.
    tests: Vec<Range<usize>>,
}

/// A function's name, first line and number of lines.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

impl Source {
    pub(crate) fn new(path: &str, text: String) -> Source {
        let (code, strings) = mask(&text);
        let mut tests = inline_tests(&code);
        if is_test_file(path) {
            tests.push(1..text.lines().count() + 1);
        }
        Source {
            path: path.to_owned(),
            text,
            code,
            strings,
            tests,
        }
    }

    pub(crate) fn is_test(&self, line: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&line))
    }

    /// Lines of code that are not compiled for tests only, with their numbers.
    pub(crate) fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.code.lines().enumerate().map(|(i, line)| (i + 1, line));
        numbered.filter(|(line, _)| !self.is_test(*line))
    }

    /// Every function with a body.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("fn ") {
            let before = self.code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let name: String = self.code[at + 3..].trim_start().chars().take_while(is_word).collect();
            if name.is_empty() {
                continue; // A function pointer's type.
            }
            if let Some(body) = body_after(&self.code, at) {
                let line = line_of(&self.code, at);
                let lines = line_of(&self.code, body.end - 1) - line + 1;
                found.push(Function { name, line, lines });
            }
        }
        found
    }
}

/// `foo_test.rs` and `foo/tests/` hold tests, as modules under `cfg(test)`.
fn is_test_file(path: &str) -> bool {
    let stems = Path::new(path)
        .iter()
        .filter_map(|part| Path::new(part).file_stem()?.to_str());
    stems.into_iter().any(|stem| stem.ends_with("_test") || stem == "tests")
}

pub(crate) fn is_word(c: &char) -> bool {
    c.is_alphanumeric() || *c == '_'
}

/// The line (from 1) of a byte.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The lines of everything under `#[cfg(test)]`.
fn inline_tests(code: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("#[cfg(test)]") {
        if let Some(body) = body_after(code, at + "#[cfg(test)]".len()) {
            found.push(line_of(code, at)..line_of(code, body.end - 1) + 1);
        }
    }
    found
}

/// The braces that open next, unless a `;` outside of brackets comes first.
fn body_after(code: &str, from: usize) -> Option<Range<usize>> {
    let (mut brackets, mut braces, mut start) = (0i32, 0i32, None);
    for (i, c) in code[from..].char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            ';' if brackets == 0 && braces == 0 => return None,
            '{' => {
                start.get_or_insert(from + i);
                braces += 1;
            }
            '}' => {
                braces -= 1;
                if braces == 0 {
                    return start.map(|start| start..from + i + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// Blanks comments and the contents of strings; answers the strings too.
fn mask(text: &str) -> (String, Vec<(usize, String)>) {
    let mut code = String::with_capacity(text.len());
    let mut strings = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let joins_word = code.chars().next_back().is_some_and(|c| is_word(&c));
        if rest.starts_with("//") {
            let len = rest.find('\n').unwrap_or(rest.len());
            blank(&mut code, &rest[..len]);
            at += len;
        } else if rest.starts_with("/*") {
            let len = block_comment(rest);
            blank(&mut code, &rest[..len]);
            at += len;
        } else if let Some((open, close)) = (!joins_word).then(|| raw_string(rest)).flatten() {
            let end = rest[open..].find(&close).map_or(rest.len(), |i| open + i);
            let whole = (end + close.len()).min(rest.len());
            strings.push((line_of(text, at), rest[open..end].to_owned()));
            blank(&mut code, &rest[..whole]);
            at += whole;
        } else if c == '"' {
            let end = quoted(rest);
            strings.push((line_of(text, at), rest[1..end].to_owned()));
            code.push('"');
            blank(&mut code, &rest[1..end]);
            code.push('"');
            at = (at + end + 1).min(text.len());
        } else if c == '\''
            && let Some(len) = character(rest)
        {
            blank(&mut code, &rest[..len]);
            at += len;
        } else {
            code.push(c);
            at += c.len_utf8();
        }
    }
    (code, strings)
}

fn blank(code: &mut String, text: &str) {
    code.extend(text.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// For `r#"`: the length of what opens the string, and what closes it.
fn raw_string(rest: &str) -> Option<(usize, String)> {
    let letters = ["br", "cr", "r"]
        .into_iter()
        .find(|letters| rest.starts_with(letters))?;
    let hashes = rest[letters.len()..].chars().take_while(|c| *c == '#').count();
    let open = letters.len() + hashes + 1;
    (rest[open - 1..].starts_with('"')).then(|| (open, format!("\"{}", "#".repeat(hashes))))
}

/// Where the quote stands that closes the string opened at 0.
fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (i, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a character literal; none for a lifetime.
fn character(rest: &str) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first != '\\' {
        let (at, close) = chars.next()?;
        return (close == '\'').then_some(at + 1);
    }
    chars.next()?;
    chars.find(|(_, c)| *c == '\'').map(|(at, _)| at + 1)
}
