//! Values as these clients write them: numbers as text, text as numbers, flags as either.
//!
//! Owns: reading them. Never: guesses at anything else. Invariant: what is neither is an error that says what was expected.

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use std::fmt;

/// Text, or a whole number as text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Text(pub(super) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Words).map(Text)
    }
}

struct Words;

impl Visitor<'_> for Words {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a whole number")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }
}

pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Text::deserialize(deserializer).map(|text| text.0)
}

pub(super) fn text_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<Text>::deserialize(deserializer)?.map(|text| text.0))
}

/// A whole number, perhaps as text.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = text(deserializer)?;
    let wrong = || D::Error::invalid_value(Unexpected::Str(&text), &"a whole number");
    text.trim().parse().map_err(|_| wrong())
}

/// A flag: true or false, 1 or 0, perhaps as text.
pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    deserializer.deserialize_any(Flag)
}

struct Flag;

impl Visitor<'_> for Flag {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true or false")
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<bool, E> {
        Ok(flag)
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<bool, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<bool, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
        flag_of(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// A flag as text.
pub(super) fn flag_of(text: &str) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(&["1", "true", "yes", "on"]) {
        Some(true)
    } else if is(&["0", "false", "no", "off", ""]) {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct All {
        #[serde(deserialize_with = "text")]
        id: String,
        #[serde(default, deserialize_with = "text_if_any")]
        image: Option<String>,
        #[serde(deserialize_with = "number")]
        size: i64,
        #[serde(default, deserialize_with = "flag")]
        now: bool,
    }

    #[test]
    fn ids_sizes_and_flags_come_in_several_forms() {
        for text in [
            r#"{"id":7,"image":"x","size":"24","now":1}"#,
            r#"{"id":"7","image":"x","size":24,"now":"True"}"#,
        ] {
            let all: All = serde_json::from_str(text).unwrap();
            assert_eq!(
                (all.id.as_str(), all.image.as_deref(), all.size, all.now),
                ("7", Some("x"), 24, true)
            );
        }
        let all: All = serde_json::from_str(r#"{"id":-7,"image":null,"size":-1,"now":null}"#).unwrap();
        assert_eq!((all.id.as_str(), all.image, all.size, all.now), ("-7", None, -1, false));
        for bad in [
            r#"{"id":1.5,"size":1}"#,
            r#"{"id":null,"size":1}"#,
            r#"{"id":"7","size":"many"}"#,
            r#"{"id":"7","size":1,"now":"maybe"}"#,
        ] {
            assert!(serde_json::from_str::<All>(bad).is_err(), "{bad}");
        }
    }
}
