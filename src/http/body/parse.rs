//! JSON to typed values, with errors that name the place.
//!
//! Owns: the 400 for unparsable bodies and where parsing runs. Never: checks a limit. Invariant: a large body is never parsed on the
//! thread that serves connections.

use super::Body;
use super::objects::Strict;
use crate::http::error::{ApiError, ApiResult};
use actix_web::web;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Parses a whole body, naming the member at fault.
pub fn json<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> ApiResult<T> {
    part(bytes).map_err(|error| match error.problem() {
        problem if problem.field.is_none() && problem.limit.is_some() => error.at_field("body"),
        _ => error,
    })
}

/// The same of a value that borrows nothing.
pub fn json_owned<T: DeserializeOwned>(bytes: &[u8]) -> ApiResult<T> {
    json(bytes)
}

/// Parses a part of a body, naming the member of it that is at fault, if not all of it is.
pub fn part<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> ApiResult<T> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = T::deserialize(Strict(&mut reader)).and_then(|value| reader.end().map(|()| value));
    read.map_err(|error| explain::<T>(bytes, &error))
}

/// Parses once more, slowly, to learn the path of the member at fault.
#[cold]
fn explain<'de, T: Deserialize<'de>>(bytes: &'de [u8], error: &serde_json::Error) -> ApiError {
    let words = error.to_string();
    // Broken syntax is no member's fault; its position is in the text.
    if !error.is_data() {
        return ApiError::malformed(words);
    }
    let mut slow = serde_json::Deserializer::from_slice(bytes);
    let mut field = match serde_path_to_error::deserialize::<_, T>(Strict(&mut slow)) {
        Err(located) => located.path().to_string(),
        Ok(_) => String::new(),
    };
    // A path may end in "?" where the parser knew no name.
    let known = field.trim_end_matches(['?', '.']).len();
    field.truncate(known);
    if let Some(name) = named_member(&words)
        && field.rsplit('.').next() != Some(name)
    {
        if !field.is_empty() {
            field.push('.');
        }
        field.push_str(name);
    }
    let problem = match Said::of(&words) {
        None => ApiError::malformed(words),
        Some(said) => ApiError::malformed(said.detail()).keeping_to(said.limit),
    };
    match field.is_empty() {
        true => problem,
        false => problem.at_field(field),
    }
}

/// What the parser said, taken apart: what it found, what it would have taken, and where.
struct Said<'a> {
    found: &'a str,
    limit: String,
    place: &'a str,
}

impl<'a> Said<'a> {
    fn of(words: &'a str) -> Option<Said<'a>> {
        let (said, place) = words.split_at(words.rfind(" at line ").unwrap_or(words.len()));
        if said.starts_with("missing field ") {
            return Some(Said {
                found: said,
                limit: "present".to_owned(),
                place,
            });
        }
        let (found, expected) = match said.rsplit_once(", expected ") {
            Some(parts) => parts,
            None => ("", said.strip_prefix("expected ")?),
        };
        Some(Said {
            found,
            limit: in_words_of_json(expected),
            place,
        })
    }

    fn detail(&self) -> String {
        match (self.found, self.limit.as_str()) {
            (found, "present") => format!("{found}{}", self.place),
            ("", limit) => format!("expected {limit}{}", self.place),
            (found, limit) => format!("{found}, expected {limit}{}", self.place),
        }
    }
}

/// What was expected, without the names it has in this program.
fn in_words_of_json(expected: &str) -> String {
    let whole = |min: i128, max: i128| format!("a whole number from {min} to {max}");
    match expected {
        "u16" => whole(0, u16::MAX.into()),
        "u32" => whole(0, u32::MAX.into()),
        "u64" => whole(0, u64::MAX.into()),
        "i32" => whole(i32::MIN.into(), i32::MAX.into()),
        "i64" => whole(i64::MIN.into(), i64::MAX.into()),
        "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "an object".to_owned(),
        object if object.starts_with("struct ") => "an object".to_owned(),
        other => other.replace('`', ""),
    }
}

/// The member that an error about an unknown or a missing one speaks of.
fn named_member(error: &str) -> Option<&str> {
    ["unknown field `", "missing field `"].iter().find_map(|start| {
        let (_, rest) = error.split_once(start)?;
        rest.split_once('`').map(|(name, _)| name)
    })
}

/// Runs `work` over a body: here if it is small, else on a thread where nobody waits for a turn. The body's share of the budget is
/// kept by the caller.
pub async fn off_thread<T: Send + 'static>(
    body: &Body,
    inline_max_bytes: usize,
    work: impl FnOnce(&[u8]) -> ApiResult<T> + Send + 'static,
) -> ApiResult<T> {
    text_off_thread(body.bytes.clone(), inline_max_bytes, work).await
}

/// The same over a part of one.
pub async fn text_off_thread<T: Send + 'static>(
    text: Bytes,
    inline_max_bytes: usize,
    work: impl FnOnce(&[u8]) -> ApiResult<T> + Send + 'static,
) -> ApiResult<T> {
    if text.len() <= inline_max_bytes {
        return work(&text);
    }
    match web::block(move || work(&text)).await {
        Ok(answer) => answer,
        Err(_) => Err(ApiError::busy("parsing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::{CreateJob, LeaseAny, PostResults};

    fn field<T: DeserializeOwned>(text: &str) -> Option<String> {
        let error = json::<T>(text.as_bytes()).err().expect("must not parse");
        assert_eq!(error.problem().code, "invalid_request");
        error.problem().field.clone()
    }

    #[test]
    fn the_member_at_fault_is_named() {
        assert_eq!(
            field::<CreateJob>(r#"{"name":"a","queue":"q","color":1}"#).unwrap(),
            "color"
        );
        assert_eq!(field::<CreateJob>(r#"{"name":"a"}"#).unwrap(), "queue");
        assert_eq!(field::<CreateJob>(r#"{"name":"a","queue":7}"#).unwrap(), "queue");
        assert_eq!(
            field::<CreateJob>(r#"{"name":"a","queue":"q","tasks":[{"payload":1},{"key":2,"payload":1}]}"#).unwrap(),
            "tasks[1].key"
        );
        assert_eq!(
            field::<CreateJob>(r#"{"name":"a","queue":"q","tasks":[{"key":"k"}]}"#).unwrap(),
            "tasks[0].payload"
        );
        assert_eq!(
            field::<PostResults>(r#"{"worker":"w","results":[{"lease":"l","status":"done"}]}"#).unwrap(),
            "results[0].status"
        );
        assert_eq!(
            field::<LeaseAny>(r#"{"worker":"w","queues":[],"max_tasks":-1}"#).unwrap(),
            "max_tasks"
        );
        assert_eq!(field::<LeaseAny>("{"), None);
    }

    #[test]
    fn a_list_is_no_object_at_any_depth() {
        for (text, at) in [
            (r#"["n","q2",0,[],[[null,5]]]"#, "body"),
            (r#"{"name":"n","queue":"q","policy":[]}"#, "policy"),
            (
                r#"{"name":"n","queue":"q","policy":{"backoff":[1,2,3,0]}}"#,
                "policy.backoff",
            ),
            (r#"{"name":"n","queue":"q","stages":[["a","A"]]}"#, "stages[0]"),
            (
                r#"{"name":"n","queue":"q","tasks":[{"payload":1},["k",5]]}"#,
                "tasks[1]",
            ),
        ] {
            let error = json::<CreateJob>(text.as_bytes()).unwrap_err();
            let problem = error.problem();
            assert_eq!(
                (problem.field.as_deref(), &problem.limit),
                (Some(at), &Some("an object".into())),
                "{text}"
            );
        }
        assert_eq!(
            field::<PostResults>(r#"{"worker":"w","results":[["LEASE","succeeded"]]}"#).unwrap(),
            "results[0]"
        );
        assert_eq!(
            field::<PostResults>(r#"{"worker":"w","results":[],"then_lease":[1]}"#).unwrap(),
            "then_lease"
        );
        let kept =
            json::<PostResults>(br#"{"worker":"w","results":[{"lease":"l","status":"succeeded","result":[ 1,[2] ]}]}"#);
        let result = kept.unwrap().results.remove(0).result.unwrap();
        assert_eq!(result.get(), "[ 1,[2] ]", "what passes through is anything");
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_told_what_it_may_be() {
        let said = |text: &str| {
            let error = json::<CreateJob>(text.as_bytes()).unwrap_err();
            let problem = error.problem().clone();
            let limit = problem.limit.expect("a limit").as_str().unwrap().to_owned();
            (problem.field.expect("a field"), limit, problem.detail)
        };
        for (member, field, limit) in [
            (
                r#""policy":{"failure_threshold":0.5}"#,
                "policy.failure_threshold",
                "one of ratio, count",
            ),
            (
                r#""policy":{"failure_threshold":{}}"#,
                "policy.failure_threshold",
                "one of ratio, count",
            ),
            (
                r#""policy":{"failure_threshold":{"share":1}}"#,
                "policy.failure_threshold",
                "ratio or count",
            ),
            (
                r#""policy":{"max_attempts":-1}"#,
                "policy.max_attempts",
                "a whole number from 0 to 4294967295",
            ),
            (
                r#""priority":"high""#,
                "priority",
                "a whole number from -2147483648 to 2147483647",
            ),
            (r#""open":1"#, "open", "true or false"),
            (r#""tasks":{}"#, "tasks", "a list"),
            (r#""policy":"strict""#, "policy", "an object"),
        ] {
            let (at, to, detail) = said(&format!(r#"{{"name":"n","queue":"q",{member}}}"#));
            assert_eq!((at.as_str(), to.as_str()), (field, limit), "{member}: {detail}");
            assert!(!detail.contains("struct") && !detail.contains("u32"), "{detail}");
        }
        assert_eq!(said(r#"{"name":"a"}"#).1, "present");
        let (field, limit, _) = said(r#"{"name":"a","queue":"q","color":1}"#);
        assert!(
            field == "color" && limit.starts_with("one of name, queue, "),
            "{field} {limit}"
        );
    }

    #[test]
    fn syntax_errors_give_their_position() {
        let error = json::<LeaseAny>(b"{\"worker\" 1}").unwrap_err();
        assert!(error.problem().detail.contains("line 1 column"), "{error}");
    }
}
