//! The files of the repository.
//!
//! Owns: finding and reading them, once. Never: reads what is not tracked where git can say so (build output, somebody's data). Invariant:
//! paths are relative to the repository, with `/`.

use crate::source::Source;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|why| panic!("{path} cannot be read: {why}"))
}

pub(crate) fn exists(path: &str) -> bool {
    root().join(path).exists()
}

/// Every Rust file.
pub(crate) fn sources() -> &'static [Source] {
    static SOURCES: OnceLock<Vec<Source>> = OnceLock::new();
    SOURCES.get_or_init(|| {
        let rust = texts().iter().filter(|(path, _)| path.ends_with(".rs"));
        let sources: Vec<Source> = rust.map(|(path, text)| Source::new(path, text.clone())).collect();
        assert!(sources.len() > 50, "only {} Rust files were found", sources.len());
        sources
    })
}

/// Every text file, with its path.
pub(crate) fn texts() -> &'static [(String, String)] {
    static TEXTS: OnceLock<Vec<(String, String)>> = OnceLock::new();
    TEXTS.get_or_init(|| {
        let read = |path: String| Some((fs::read_to_string(root().join(&path)).ok()?, path));
        paths()
            .into_iter()
            .filter_map(read)
            .map(|(text, path)| (path, text))
            .collect()
    })
}

/// What git tracks or would track; without git, whatever is there but build output.
fn paths() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root())
        .output();
    if let Ok(listed) = listed
        && listed.status.success()
        && !listed.stdout.is_empty()
    {
        let text = String::from_utf8(listed.stdout).expect("paths are UTF-8");
        return text.split_terminator('\0').map(str::to_owned).collect();
    }
    let mut found = Vec::new();
    walk(root().to_owned(), &mut found);
    found
}

fn walk(dir: PathBuf, found: &mut Vec<String>) {
    for entry in fs::read_dir(&dir)
        .expect("a directory of the repository can be read")
        .flatten()
    {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && name != ".git" {
            walk(path, found);
        } else if path.is_file() {
            let below = path.strip_prefix(root()).expect("the walk started at the root");
            found.push(below.to_string_lossy().replace('\\', "/"));
        }
    }
}
