//! The rooms, the arrow between them, and what each may name.
//!
//! Owns: the order of the rooms and each one's list of foreign words. Never: looks at tests, which may reach for anything. Invariant: a
//! path is resolved however it is written: from `crate`, from `super`, or inside of braces.

use crate::source::{Source, is_word, line_of};

/// From left to right. `config` lies between `http` and `cli`: it names the settings of all rooms, and only the command line reads it.
const ROOMS: [&str; 6] = ["domain", "store", "coordinator", "http", "config", "cli"];

const RUNTIMES: [&str; 8] = [
    "tokio",
    "actix",
    "actix_web",
    "actix_rt",
    "reqwest",
    "futures_util",
    "async_trait",
    "hyper",
];
const DATABASES: [&str; 5] = [
    "rusqlite",
    "tokio_postgres",
    "deadpool_postgres",
    "refinery",
    "tokio_postgres_rustls",
];
const BACKENDS: [&str; 2] = ["postgres", "sqlite"];
const CLOCKS: [&str; 4] = ["SystemTime", "Instant", "now_utc", "now_local"];
const OUTSIDE: [&str; 7] = [
    "rand",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::process",
    "std::io",
];
const PRINTING: [&str; 7] = [
    "anyhow",
    "println!",
    "print!",
    "eprintln!",
    "eprint!",
    "stdout()",
    "stderr()",
];

/// The room a file belongs to; none for `lib.rs`, `main.rs` and tests.
fn room(path: &str) -> Option<usize> {
    let below = path.strip_prefix("src/")?;
    let first = below.split('/').next()?.trim_end_matches(".rs");
    ROOMS.iter().position(|room| *room == first)
}

/// How many `super` lead from a file to the crate's root.
fn depth(path: &str) -> usize {
    path.strip_prefix("src/").map_or(0, |below| below.split('/').count())
}

pub(crate) fn against_the_arrow(source: &Source) -> Vec<String> {
    let Some(own) = room(&source.path) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let supers = "super::".repeat(depth(&source.path));
    for root in ["crate::", supers.as_str()] {
        for (at, _) in source.code.match_indices(root) {
            let before = &source.code[..at];
            let line = line_of(&source.code, at);
            if source.is_test(line) || before.ends_with(|c| is_word(&c) || c == ':') {
                continue;
            }
            for name in first_names(&source.code[at + root.len()..]) {
                if ROOMS
                    .iter()
                    .position(|room| *room == name)
                    .is_some_and(|room| room > own)
                {
                    found.push(format!("{}:{line} {} uses {name}", source.path, ROOMS[own]));
                }
            }
        }
    }
    found
}

/// The first name of a path, or of each path of a group in braces.
fn first_names(rest: &str) -> Vec<&str> {
    let name = |text: &'_ str| text.find(|c| !is_word(&c)).unwrap_or(text.len());
    let Some(group) = rest.strip_prefix('{') else {
        return vec![&rest[..name(rest)]];
    };
    let (mut names, mut depth, mut is_first) = (Vec::new(), 0, true);
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => is_first = true,
            c if is_word(&c) && is_first => {
                names.push(&group[i..i + name(&group[i..])]);
                is_first = false;
            }
            _ => {}
        }
    }
    names
}

pub(crate) fn foreign_words(source: &Source) -> Vec<String> {
    let Some(own) = room(&source.path) else {
        return Vec::new();
    };
    let foreign: Vec<&str> = match ROOMS[own] {
        "domain" => [&RUNTIMES[..], &DATABASES, &BACKENDS, &CLOCKS, &OUTSIDE, &PRINTING].concat(),
        "coordinator" | "http" => [&DATABASES[..], &BACKENDS, &PRINTING].concat(),
        "store" | "config" => PRINTING.to_vec(),
        _ => Vec::new(),
    };
    let mut found = Vec::new();
    for (line, code) in source.product_lines() {
        for word in foreign.iter().filter(|word| names(code, word)) {
            found.push(format!("{}:{line} {} names {word}", source.path, ROOMS[own]));
        }
    }
    found
}

/// Does the line hold this word as a whole?
fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let is_start = !code[..at].ends_with(|c| is_word(&c));
        is_start && !code[at + word.len()..].starts_with(|c| is_word(&c))
    })
}
