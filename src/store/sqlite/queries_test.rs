//! Every SQL file on a fresh schema.
//!
//! Owns: the checks that no file is broken or forgotten and that no list of states has drifted from the domain's. Never: runs a query
//! for its answer. Invariant: a file under `queries/` without a caller fails here.

use super::scratch::Scratch;
use crate::domain::state::{ALL, FINAL, State};
use std::fs;
use std::path::{Path, PathBuf};

fn room() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/sqlite")
}

fn files_below(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path, extension));
        } else if path.extension().is_some_and(|have| have == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn every_query_prepares_on_a_fresh_schema() {
    let (_scratch, store) = Scratch::migrated().await;
    store
        .writer
        .run(|db| {
            for file in files_below(&room().join("queries"), "sql") {
                let sql = fs::read_to_string(&file).unwrap();
                let statement = db
                    .prepare(&sql)
                    .unwrap_or_else(|why| panic!("{}: {why}", file.display()));
                assert!(statement.is_explain() == 0, "{}", file.display());
            }
            Ok(())
        })
        .await
        .unwrap();
}

#[test]
fn every_query_has_a_caller() {
    let code: String = files_below(&room(), "rs")
        .iter()
        .filter(|file| !file.ends_with("queries_test.rs"))
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let queries = room().join("queries");
    let files = files_below(&queries, "sql");
    assert!(files.len() > 30, "found only {} files", files.len());
    for file in files {
        let name = file.strip_prefix(&queries).unwrap().display().to_string();
        assert!(
            code.contains(&format!("include_str!(\"queries/{name}\")")),
            "queries/{name} has no caller"
        );
    }
}

/// The quoted words of every `state IN (…)` list in a text, whitespace aside.
fn state_lists(sql: &str) -> Vec<Vec<String>> {
    sql.match_indices("state IN ('")
        .map(|(at, found)| {
            let list = &sql[at + found.len() - 1..];
            let list = &list[..list.find(')').unwrap()];
            list.split(',')
                .map(|word| word.trim().trim_matches('\'').to_owned())
                .collect()
        })
        .collect()
}

#[test]
fn state_lists_in_sql_are_the_domains() {
    let words = |states: &[State]| states.iter().map(|state| state.as_str().to_owned()).collect::<Vec<_>>();
    let unfinished: Vec<State> = ALL.into_iter().filter(|state| !state.is_final()).collect();
    let known = [words(&ALL), words(&FINAL), words(&unfinished)];
    let schema = fs::read_to_string(room().join("migrations/V1__initial.sql")).unwrap();
    assert_eq!(state_lists(&schema), [words(&ALL), words(&unfinished), words(&FINAL)]);
    let mut lists = 0;
    for file in files_below(&room(), "sql") {
        for list in state_lists(&fs::read_to_string(&file).unwrap()) {
            assert!(known.contains(&list), "{}: {list:?}", file.display());
            lists += 1;
        }
    }
    assert_eq!(lists, 6, "a list was added or lost; check it against the domain");
}
