//! JSON to typed values, with errors that name the place.
//!
//! Owns: the 400 for unparsable bodies and where parsing runs. Never: checks a limit. Invariant: a large body is never parsed on the
//! thread that serves connections.

use super::Body;
use crate::http::error::{ApiError, ApiResult};
use actix_web::web;
use serde::Deserialize;

/// Parses JSON, naming the member at fault.
pub fn json<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> ApiResult<T> {
    serde_json::from_slice(bytes).map_err(|error| explain::<T>(bytes, &error))
}

/// Parses once more, slowly, to learn the path of the member at fault.
#[cold]
fn explain<'de, T: Deserialize<'de>>(bytes: &'de [u8], error: &serde_json::Error) -> ApiError {
    let problem = ApiError::malformed(error.to_string());
    // Broken syntax is no member's fault; its position is in the text.
    if !error.is_data() {
        return problem;
    }
    let mut slow = serde_json::Deserializer::from_slice(bytes);
    let mut field = match serde_path_to_error::deserialize::<_, T>(&mut slow) {
        Err(located) => located.path().to_string(),
        Ok(_) => String::new(),
    };
    // A path may end in "?" where the parser knew no name.
    let known = field.trim_end_matches(['?', '.']).len();
    field.truncate(known);
    if let Some(name) = named_member(&error.to_string())
        && field.rsplit('.').next() != Some(name)
    {
        if !field.is_empty() {
            field.push('.');
        }
        field.push_str(name);
    }
    if field.is_empty() {
        problem
    } else {
        problem.at_field(field)
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
    if body.bytes.len() <= inline_max_bytes {
        return work(&body.bytes);
    }
    let bytes = body.bytes.clone();
    match web::block(move || work(&bytes)).await {
        Ok(answer) => answer,
        Err(_) => Err(ApiError::busy("parsing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::{CreateJob, LeaseAny, PostResults};
    use serde::de::DeserializeOwned;

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
    fn syntax_errors_give_their_position() {
        let error = json::<LeaseAny>(b"{\"worker\" 1}").unwrap_err();
        assert!(error.problem().detail.contains("line 1 column"), "{error}");
    }
}
