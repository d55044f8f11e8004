//! The command a worker runs: split into words once, then filled in for each item.
//!
//! Owns: what `{}` means. Never: hands anything to a shell, or lets an item choose the program. Invariant: every filled command has the
//! template's program and number of words (one more where the item is appended), whatever the item holds.

use anyhow::{Result, bail, ensure};

/// What stands for the item inside a word.
const PLACEHOLDER: &str = "{}";

/// A command with a place for the item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    words: Vec<String>,
    /// No word holds `{}`: the item becomes the last argument.
    appends: bool,
}

impl Template {
    /// From words the user's own shell has split already (`run … -- wc -l {}`).
    pub(crate) fn from_words(words: Vec<String>) -> Result<Self> {
        let Some(program) = words.first() else {
            bail!("no command given");
        };
        ensure!(!program.is_empty(), "the command's name is empty");
        ensure!(
            !program.contains(PLACEHOLDER),
            "the command's name cannot contain {PLACEHOLDER}: items are arguments, never programs"
        );
        let appends = !words.iter().any(|word| word.contains(PLACEHOLDER));
        Ok(Template { words, appends })
    }

    /// From one text, split by the quoting rules of a POSIX shell but with no expansion of any kind (`work --exec 'wc -l {}'`).
    pub(crate) fn from_text(text: &str) -> Result<Self> {
        match shlex::split(text) {
            Some(words) => Template::from_words(words),
            None => bail!("the command has an unclosed quote or ends in a backslash: {text}"),
        }
    }

    /// The template's own words, for hashing and for messages.
    pub(crate) fn words(&self) -> &[String] {
        &self.words
    }

    /// The command for one item.
    pub(crate) fn fill(&self, item: &str) -> Vec<String> {
        let mut filled: Vec<String> = self.words.iter().map(|word| word.replace(PLACEHOLDER, item)).collect();
        if self.appends {
            filled.push(item.to_owned());
        }
        filled
    }
}

/// What replaces `{}` for a payload: a string as it is, anything else as its JSON text.
pub(crate) fn item_of(payload: &str) -> String {
    serde_json::from_str::<String>(payload).unwrap_or_else(|_| payload.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(template: &Template, item: &str) -> Vec<String> {
        template.fill(item)
    }

    #[test]
    fn an_item_fills_every_place_and_stays_one_argument() {
        let template = Template::from_text(r#"convert "{}" 'out/{}.png' --note "a b""#).unwrap();
        assert_eq!(
            words(&template, "x; rm -rf $HOME \"q\""),
            [
                "convert",
                "x; rm -rf $HOME \"q\"",
                "out/x; rm -rf $HOME \"q\".png",
                "--note",
                "a b"
            ]
        );
    }

    #[test]
    fn without_a_place_the_item_is_appended() {
        let template = Template::from_words(vec!["wc".into(), "-l".into()]).unwrap();
        assert_eq!(words(&template, "a b"), ["wc", "-l", "a b"]);
    }

    #[test]
    fn an_item_that_looks_like_a_place_is_not_filled_again() {
        let template = Template::from_text("echo {} {}").unwrap();
        assert_eq!(words(&template, "{}"), ["echo", "{}", "{}"]);
    }

    #[test]
    fn unusable_templates_are_refused() {
        assert!(Template::from_text("").is_err());
        assert!(Template::from_text("echo 'open").is_err());
        assert!(Template::from_text("{} x").is_err());
        assert!(Template::from_text("'' {}").is_err());
    }

    #[test]
    fn strings_are_raw_and_other_payloads_are_json() {
        assert_eq!(item_of(r#""a \"b\"""#), r#"a "b""#);
        assert_eq!(item_of(r#"{"n": 1}"#), r#"{"n": 1}"#);
        assert_eq!(item_of("7"), "7");
        assert_eq!(item_of("null"), "null");
    }
}
