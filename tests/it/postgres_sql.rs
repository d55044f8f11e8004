//! The SQL of the PostgreSQL store, checked as text and on a server.
//!
//! Owns: that every file is used, valid, and says the same as the domain. Never: runs a statement of the store. Invariant: a state list
//! anywhere in SQL is one of the domain's.

use crate::cluster;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use tallykeeper::domain::state::{self, State};

fn room() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/postgres")
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn every_sql_file_prepares_on_a_fresh_schema() {
    let db = cluster::connect(&cluster::fresh_database().await).await;
    let queries = files(&room().join("queries"), "sql");
    assert!(queries.len() > 30, "only {} files found", queries.len());
    for path in queries {
        let sql = fs::read_to_string(&path).unwrap();
        if let Err(why) = db.prepare(&sql).await {
            panic!("{}: {why:?}", path.display());
        }
    }
}

#[test]
fn every_sql_file_is_included_somewhere() {
    let source: String = files(&room(), "rs")
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    for path in files(&room().join("queries"), "sql") {
        let relative = path.strip_prefix(room()).unwrap().display().to_string();
        assert!(
            source.contains(&format!("include_str!(\"{relative}\")")),
            "{relative} is used nowhere"
        );
    }
}

/// The quoted words of a text that are states.
fn states_in(text: &str) -> Vec<String> {
    let quoted = text.split('\'').skip(1).step_by(2);
    quoted
        .filter(|word| word.parse::<State>().is_ok())
        .map(str::to_owned)
        .collect()
}

fn named(name: &str) -> BTreeSet<String> {
    let states: &[State] = match name {
        "ALL" => &state::ALL,
        "ACTIVE" => &state::ACTIVE,
        "FINAL" => &state::FINAL,
        "CLAIMABLE" => &state::CLAIMABLE,
        other => panic!("{other} is no list of the domain"),
    };
    states.iter().map(|state| state.as_str().to_owned()).collect()
}

#[test]
fn every_state_list_in_sql_is_the_domains() {
    let mut checked = 0;
    for path in files(&room(), "sql") {
        let sql = fs::read_to_string(&path).unwrap();
        let mut expected = None;
        for line in sql.lines() {
            if let Some((_, name)) = line.split_once("-- states: ") {
                expected = Some(named(name.trim()));
                continue;
            }
            let found = states_in(line.split("--").next().unwrap());
            match expected.take() {
                Some(states) => {
                    assert_eq!(BTreeSet::from_iter(found), states, "{}: {line}", path.display());
                    checked += 1;
                }
                None => assert!(found.len() < 2, "{}: untagged state list: {line}", path.display()),
            }
            assert!(
                !line.contains("state IN (") || !states_in(line).is_empty(),
                "{}: a state list must be on one line: {line}",
                path.display()
            );
        }
    }
    assert_eq!(
        checked, 6,
        "the check constraint, the index, the trigger, the lists of unfinished jobs and of owners, and the deletion"
    );
}
