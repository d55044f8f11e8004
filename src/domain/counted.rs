//! Numbers with their nouns, for messages to people.
//!
//! Owns: the plural. Never: counts. Invariant: one is one.

use std::fmt::Display;

/// `1 task`, `2 tasks`.
pub fn counted<N: Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    let plural = if number == N::from(1) { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// The verb that goes with a number: `1 waits`, `2 wait`.
pub fn verb<'a, N: PartialEq + From<u8>>(number: N, of_one: &'a str, of_many: &'a str) -> &'a str {
    if number == N::from(1) { of_one } else { of_many }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one() {
        assert_eq!(
            [0, 1, 2].map(|n: u32| counted(n, "task")),
            ["0 tasks", "1 task", "2 tasks"]
        );
        assert_eq!([0, 1, 2].map(|n: u32| verb(n, "is", "are")), ["are", "is", "are"]);
    }
}
