//! Licences of the dependencies.
//!
//! Owns: asking cargo what the build consists of, and judging licence expressions. Never: keeps a list; `deny.toml` does. Invariant:
//! an expression that cannot be read does not fit.

use crate::tree;
use figment::Figment;
use figment::providers::{Format, Toml};
use serde_json::Value;
use std::collections::HashSet;
use std::process::Command;

/// The licences that `deny.toml` allows.
pub(crate) fn allowed() -> Vec<String> {
    let deny = Figment::from(Toml::string(&tree::read("deny.toml")));
    deny.extract_inner("licenses.allow").expect("deny.toml lists licences")
}

/// Packages of this machine's build whose licence does not fit.
pub(crate) fn misfits(allowed: &[String]) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--locked",
            "--offline",
            "--format-version",
            "1",
            "--filter-platform",
            "host-tuple",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let built: HashSet<Value> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| node["id"].clone())
        .collect();
    let packages: Vec<Value> = list(&metadata["packages"])
        .into_iter()
        .filter(|p| built.contains(&p["id"]))
        .collect();
    assert!(packages.len() > 100, "cargo named only {} packages", packages.len());
    let misfit = packages
        .iter()
        .filter(|package| !fits(package["license"].as_str().unwrap_or(""), allowed));
    misfit
        .map(|p| format!("{} {}: {}", p["name"], p["version"], p["license"]))
        .collect()
}

/// Can the expression be satisfied with allowed licences alone? An exception only gives more rights, so it is passed over.
pub(crate) fn fits(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    any_of(&mut words, allowed).unwrap_or(false) && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(words: &mut Words<'_>, allowed: &[String]) -> Option<bool> {
    let mut fits = all_of(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        fits |= all_of(words, allowed)?;
    }
    Some(fits)
}

fn all_of(words: &mut Words<'_>, allowed: &[String]) -> Option<bool> {
    let mut fits = one(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        fits &= one(words, allowed)?;
    }
    Some(fits)
}

fn one(words: &mut Words<'_>, allowed: &[String]) -> Option<bool> {
    let word = words.next()?;
    if word == "(" {
        let fits = any_of(words, allowed)?;
        return (words.next()? == ")").then_some(fits);
    }
    if words.next_if_eq(&"WITH").is_some() {
        words.next()?;
    }
    Some(allowed.iter().any(|licence| licence == word))
}
