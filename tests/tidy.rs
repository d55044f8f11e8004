//! The house rules, checked by reading the source tree.
//!
//! Owns: the rules and why each exists. Never: judges style that rustfmt or clippy can judge. Invariant: every rule names all of its
//! offenders at once, and is itself tried on a sample that breaks it.

#[path = "tidy/licences.rs"]
mod licences;
#[path = "tidy/rooms.rs"]
mod rooms;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/sql.rs"]
mod sql;
#[path = "tidy/tree.rs"]
mod tree;

use source::Source;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;

/// Lines of a file; of one that is not all tests, those of its tests aside.
const FILE_LINES: usize = 450;
/// Lines of a function, tests aside.
const FUNCTION_LINES: usize = 80;

/// Rows of the failure modes: a test is named after each of them, `fm01_…`.
const FAILURE_MODES: RangeInclusive<u32> = 1..=58;

/// Fails with every offender, and with the reason for the rule.
#[track_caller]
fn expect_none(rule: &str, why: &str, offenders: Vec<String>) {
    assert!(
        offenders.is_empty(),
        "\n{rule}\nwhy: {why}\n  {}\n",
        offenders.join("\n  ")
    );
}

/// Applies a rule to every Rust file.
fn offenders(rule: impl Fn(&Source) -> Vec<String>) -> Vec<String> {
    tree::sources().iter().flat_map(rule).collect()
}

fn sample(path: &str, text: &str) -> Source {
    Source::new(path, text.to_owned())
}

#[test]
fn rooms_are_used_from_right_to_left_only() {
    expect_none(
        "domain <- store <- coordinator <- http <- config <- cli: a room uses rooms to its left only",
        "an arrow that points both ways means that nothing can be understood, tested or replaced by itself",
        offenders(rooms::against_the_arrow),
    );
}

#[test]
fn the_arrow_is_seen_in_every_way_to_write_a_path() {
    let found = |path: &str, text: &str| rooms::against_the_arrow(&sample(path, text));
    assert_eq!(found("src/domain/job.rs", "use crate::store::Store;").len(), 1);
    assert_eq!(
        found("src/domain/job.rs", "use crate::{domain::ids, http::{wire, error}};").len(),
        1
    );
    assert_eq!(found("src/store.rs", "fn f() { crate::cli::main() }").len(), 1);
    assert_eq!(
        found("src/store/sqlite/lane.rs", "use super::super::super::http::wire;").len(),
        1
    );
    assert_eq!(found("src/coordinator.rs", "use super::{http, cli};").len(), 2);
    assert_eq!(
        found(
            "src/http/jobs.rs",
            "use crate::coordinator::api; use super::super::store::Store;"
        )
        .len(),
        0
    );
    assert_eq!(
        found(
            "src/http/jobs.rs",
            "// use crate::cli::main;\nconst A: &str = \"crate::cli\";"
        )
        .len(),
        0
    );
    assert_eq!(
        found("src/cli/run.rs", "use crate::http::wire; use super::store;").len(),
        0
    );
}

#[test]
fn rooms_name_only_what_is_theirs() {
    expect_none(
        "a room names nothing that belongs to another: no runtime, clock, randomness, I/O or database in the domain; no backend beyond the \
         store; anyhow and printing in the cli only",
        "a rule of a job that reads a clock cannot be tested against a model, and an API that knows its database cannot have two",
        offenders(rooms::foreign_words),
    );
}

#[test]
fn foreign_words_are_found_in_code_only() {
    let found = |path: &str, text: &str| rooms::foreign_words(&sample(path, text));
    assert_eq!(
        found("src/domain/a.rs", "let now = std::time::Instant::now();").len(),
        1
    );
    assert_eq!(found("src/domain/a.rs", "use rand::random;\nuse tokio::time;").len(), 2);
    assert_eq!(found("src/domain/a.rs", "// rand, tokio\nlet operand = 1;").len(), 0);
    assert_eq!(
        found(
            "src/domain/a.rs",
            "#[cfg(test)]\nmod tests {\n    use rand::random;\n}\n"
        )
        .len(),
        0
    );
    assert_eq!(found("src/http/a.rs", "use crate::store::postgres::Postgres;").len(), 1);
    assert_eq!(
        found("src/store/a.rs", "fn f() -> anyhow::Result<()> { println!(); }").len(),
        2
    );
    assert_eq!(
        found("src/cli/a.rs", "fn f() -> anyhow::Result<()> { println!(); }").len(),
        0
    );
}

fn without_opening(source: &Source) -> Vec<String> {
    let opens = source.text.starts_with("//! ");
    if opens {
        Vec::new()
    } else {
        vec![format!("{}:1", source.path)]
    }
}

#[test]
fn every_file_opens_with_what_it_owns() {
    expect_none(
        "every Rust file opens with `//!`: what it owns, what it must never do, its invariant",
        "a file that cannot say what it is for has no reason to be one",
        offenders(without_opening),
    );
    assert_eq!(without_opening(&sample("src/a.rs", "use x;\n//! Late.")).len(), 1);
}

/// Names that say nothing about what is inside.
fn says_nothing(path: &str) -> bool {
    const NOTHING: [&str; 11] = [
        "util",
        "utils",
        "common",
        "helper",
        "helpers",
        "types",
        "manager",
        "managers",
        "misc",
        "shared_types",
        "mod",
    ];
    Path::new(path)
        .iter()
        .filter_map(|part| Path::new(part).file_stem()?.to_str())
        .any(|stem| NOTHING.contains(&stem))
}

#[test]
fn files_are_named_for_what_they_hold() {
    expect_none(
        "no mod.rs (foo.rs + foo/), and no utils, common, helpers, types, manager",
        "such a file has no reason to refuse anything, so everything ends up in it",
        tree::sources()
            .iter()
            .filter(|source| says_nothing(&source.path))
            .map(|source| source.path.clone())
            .collect(),
    );
    assert!(
        says_nothing("src/store/mod.rs") && says_nothing("tests/common/app.rs") && !says_nothing("src/common_cause.rs")
    );
}

fn too_long(source: &Source) -> Vec<String> {
    let lines = match source.is_test(1) {
        true => source.text.lines().count(),
        false => source.product_lines().count(),
    };
    let mut found = Vec::new();
    if lines > FILE_LINES {
        found.push(format!("{}:1 {lines} lines, at most {FILE_LINES}", source.path));
    }
    for function in source.functions() {
        if function.lines > FUNCTION_LINES && !source.is_test(function.line) {
            let source::Function { name, line, lines } = function;
            found.push(format!(
                "{}:{line} fn {name} has {lines} lines, at most {FUNCTION_LINES}",
                source.path
            ));
        }
    }
    found
}

#[test]
fn files_and_functions_are_short() {
    expect_none(
        &format!(
            "files have at most {FILE_LINES} lines and functions {FUNCTION_LINES}, tests in a file and functions of tests aside"
        ),
        "a longer one is a question: split it where a noun appears",
        offenders(too_long),
    );
}

#[test]
fn long_files_and_functions_are_counted() {
    let long = format!("fn f(a: [u8; 2]) -> u8 {{\n{}}}\n", "    let _ = '{';\n".repeat(100));
    assert_eq!(
        too_long(&sample("src/a.rs", &long)),
        ["src/a.rs:1 fn f has 102 lines, at most 80"]
    );
    assert_eq!(
        too_long(&sample("src/a.rs", &format!("#[cfg(test)]\nmod tests {{\n{long}}}\n"))),
        [""; 0]
    );
    assert_eq!(too_long(&sample("src/a.rs", &"//\n".repeat(451))).len(), 1);
    assert_eq!(too_long(&sample("tests/a.rs", &long)).len(), 0);
    assert_eq!(too_long(&sample("tests/a.rs", &"//\n".repeat(451))).len(), 1);
    let strange = "fn a();\nfn b<'a>(c: &'a str) -> fn(u8) { r#\"}\"#; \"\\\"}\"; /* } */\n}\nfn c() {}\n";
    let found = sample("src/a.rs", strange).functions();
    let found: Vec<_> = found
        .iter()
        .map(|function| (function.name.as_str(), function.line, function.lines))
        .collect();
    assert_eq!(found, [("b", 2, 2), ("c", 4, 1)]);
}

/// Marks of unfinished work. Taken apart here, so that this file does not offend itself.
fn unfinished(path: &str, text: &str) -> Vec<String> {
    let marks = [
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("FIX", "ME"),
        concat!("#[", "ignore"),
    ];
    find(path, text, &marks)
}

fn find(path: &str, text: &str, needles: &[&str]) -> Vec<String> {
    let lines = text.lines().enumerate();
    let hits = lines.flat_map(|(i, line)| needles.iter().filter(|n| line.contains(*n)).map(move |n| (i + 1, *n)));
    hits.map(|(line, needle)| format!("{path}:{line} {needle}")).collect()
}

#[test]
fn nothing_is_left_unfinished() {
    expect_none(
        "nothing is left open in the source, and no test is switched off",
        "what is not there must be absent, not pretended",
        tree::texts()
            .iter()
            .flat_map(|(path, text)| unfinished(path, text))
            .collect(),
    );
    assert_eq!(
        unfinished("a", &format!("let a = {});", concat!("to", "do!("))).len(),
        1
    );
}

/// Places that exist on one machine only. Taken apart, as above.
fn machine_words(path: &str, text: &str) -> Vec<String> {
    const PLACES: [&str; 9] = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
        concat!("C:", "\\"),
        concat!("arti", "factory"),
        concat!(".in", "ternal/"),
        concat!("index.", "crates.io"),
        concat!("static.", "crates.io"),
    ];
    find(path, text, &PLACES)
}

#[test]
fn no_file_knows_a_machine() {
    let mut found: Vec<String> = tree::texts()
        .iter()
        .flat_map(|(path, text)| machine_words(path, text))
        .collect();
    found.extend(
        tree::texts()
            .iter()
            .filter(|(path, _)| path.starts_with(".cargo/"))
            .map(|(path, _)| path.clone()),
    );
    expect_none(
        "no tracked file names a directory of somebody's machine or the host of a registry, and .cargo/ is not tracked",
        "a clone must build anywhere, and a mirror's name is nobody's business",
        found,
    );
    assert_eq!(machine_words("a", concat!("cd /ho", "me/me/tallykeeper")).len(), 1);
}

/// Paths between backticks that begin like one of ours.
fn named_paths(text: &str) -> Vec<(usize, &str)> {
    let ours = |word: &&str| {
        ["src/", "tests/", "config/", ".ci/"]
            .iter()
            .any(|top| word.starts_with(top))
    };
    let lines = text.lines().enumerate();
    lines
        .flat_map(|(i, line)| {
            line.split('`')
                .skip(1)
                .step_by(2)
                .filter(ours)
                .map(move |word| (i + 1, word))
        })
        .collect()
}

#[test]
fn documents_name_files_that_exist() {
    let documents = tree::texts().iter().filter(|(path, _)| path.ends_with(".md"));
    let named = documents.flat_map(|(path, text)| {
        named_paths(text)
            .into_iter()
            .map(move |(line, name)| (path, line, name))
    });
    expect_none(
        "a path that a document names exists",
        "a guide that points nowhere is worse than none",
        named
            .filter(|(_, _, name)| !tree::exists(name))
            .map(|(path, line, name)| format!("{path}:{line} {name}"))
            .collect(),
    );
    assert_eq!(
        named_paths("see `src/a.rs` and\n`no`, `tests/run`"),
        [(1, "src/a.rs"), (2, "tests/run")]
    );
}

#[test]
fn dependencies_come_from_crates_io_only() {
    const CRATES_IO: &str = r#"source = "registry+https://github.com/rust-lang/crates.io-index""#;
    let lock = tree::read("Cargo.lock");
    let foreign = lock
        .lines()
        .enumerate()
        .filter(|(_, line)| line.starts_with("source = ") && *line != CRATES_IO);
    expect_none(
        "every dependency in Cargo.lock comes from crates.io",
        "another source can change or vanish under a version that stays the same",
        foreign
            .map(|(i, line)| format!("Cargo.lock:{} {line}", i + 1))
            .collect(),
    );
}

#[test]
fn dependencies_have_licences_that_fit() {
    let allowed = licences::allowed();
    expect_none(
        "every dependency has a licence that deny.toml allows",
        "the program is MIT OR Apache-2.0, which a copyleft dependency would take back",
        licences::misfits(&allowed),
    );
    let fits = |expression: &str| licences::fits(expression, &["MIT".into(), "ISC".into(), "Apache-2.0".into()]);
    assert!(fits("MIT") && fits("GPL-3.0 OR MIT") && fits("MIT/GPL-2.0") && fits("(MIT OR GPL-2.0) AND ISC"));
    assert!(fits("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT"));
    assert!(!fits("GPL-3.0") && !fits("MIT AND GPL-3.0") && !fits("(MIT OR ISC) AND GPL-3.0") && !fits(""));
}

/// The rows that a function's name begins with: `fm02_fm03_…` stands for two.
fn rows_of(name: &str) -> impl Iterator<Item = u32> {
    name.split('_').map_while(|part| part.strip_prefix("fm")?.parse().ok())
}

#[test]
fn every_failure_mode_has_a_test() {
    let mut tested = BTreeSet::new();
    for source in tree::sources() {
        let names = source
            .functions()
            .into_iter()
            .filter(|function| source.is_test(function.line));
        tested.extend(names.flat_map(|function| rows_of(&function.name).collect::<Vec<_>>()));
    }
    expect_none(
        "every row of the failure modes is pinned by a test named after it: fmNN_…",
        "each was seen in a real system; a promise without a test is a hope",
        FAILURE_MODES
            .filter(|row| !tested.contains(row))
            .map(|row| format!("fm{row:02}: no test"))
            .collect(),
    );
    assert_eq!(
        rows_of("fm02_fm03_nothing_leaves_a_final_state").collect::<Vec<_>>(),
        [2, 3]
    );
    assert_eq!(rows_of("format_fm07").count(), 0);
}
