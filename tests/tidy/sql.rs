//! Where SQL may stand.
//!
//! Owns: telling a statement from prose. Never: looks at SQL files, which a test of each backend prepares. Invariant: a statement is found
//! by how it begins, however it is broken into lines.

use crate::source::Source;
use crate::{expect_none, offenders, sample};

fn sql_in_strings(source: &Source) -> Vec<String> {
    // The rivals that `bench` measures itself against are no part of the store; their few statements stand beside what is measured.
    if !source.path.starts_with("src/") || source.path.starts_with("src/cli/bench/") {
        return Vec::new();
    }
    let product = source.strings.iter().filter(|(line, _)| !source.is_test(*line));
    let found = product.filter(|(_, text)| is_sql(text));
    found
        .map(|(line, text)| format!("{}:{line} {:.60}", source.path, text.trim()))
        .collect()
}

/// Does this text begin as a statement does? Transaction control (`BEGIN`, `COMMIT`) is not meant.
fn is_sql(text: &str) -> bool {
    const VERBS: [&str; 12] = [
        "select",
        "insert into",
        "update",
        "delete from",
        "create",
        "alter",
        "drop",
        "with",
        "pragma",
        "truncate",
        "vacuum",
        "lock table",
    ];
    const CLAUSES: [&str; 13] = [
        " from ",
        " values",
        " set ",
        " table ",
        " index ",
        " view ",
        " trigger ",
        " schema ",
        " column ",
        " as (",
        "=",
        "only",
        "into",
    ];
    let lower = text.trim_start().to_lowercase().replace('\n', " ");
    let verb = VERBS.iter().find(|verb| {
        lower
            .strip_prefix(**verb)
            .is_some_and(|rest| rest.starts_with([' ', '\n']))
    });
    let is_shouted = text
        .trim_start()
        .chars()
        .take_while(|c| c.is_alphabetic())
        .all(|c| c.is_uppercase());
    verb.is_some_and(|verb| {
        CLAUSES.iter().any(|clause| lower[verb.len()..].contains(clause)) || is_shouted && lower.len() > verb.len() + 1
    })
}

#[test]
fn sql_lives_in_sql_files() {
    expect_none(
        "SQL stands in .sql files, included beside its one caller",
        "a statement in a file of its own can be prepared by a test on a fresh schema, and cannot be pieced together from input",
        offenders(sql_in_strings),
    );
    assert!(is_sql("select a from b") && is_sql("\n  UPDATE jobs SET a = 1") && is_sql("SELECT 1"));
    assert!(
        !is_sql("update the job's row") && !is_sql("DELETE") && !is_sql("with no work") && !is_sql("select a queue")
    );
    assert_eq!(
        sql_in_strings(&sample("src/store/a.rs", "f(\"DELETE FROM jobs\")")).len(),
        1
    );
}
