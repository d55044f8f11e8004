//! Tokens: create, list, revoke.
//!
//! Owns: the checks of a new token. Never: shows a secret twice. Invariant: nobody hands out more queues than they see, and a change is
//! in force on this node before it is acknowledged.

use super::auth::{Caller, secret};
use super::error::{ApiError, ApiResult};
use super::extract::{Small, json_with, ok_json};
use super::state::AppState;
use super::wire::{self, Scope, Timestamp};
use crate::domain::ids::UnixMs;
use crate::domain::job::check_name;
use crate::store::{StoreError, TokenRow};
use actix_web::http::header;
use actix_web::{HttpResponse, web};

const MAX_QUEUES: usize = 1_000;

/// `POST /v1/tokens`
pub async fn create(
    state: web::Data<AppState>,
    caller: Caller,
    Small(asked): Small<wire::CreateToken>,
) -> ApiResult<HttpResponse> {
    let now = state.now();
    let expires_at = check(&asked, now, state.limits().name_bytes)?;
    if !caller.covers(asked.queues.as_deref()) {
        return Err(ApiError::not_found("queue"));
    }
    let (row, secret) = secret::new_token(asked.name, &asked.scopes, asked.queues, now, expires_at);
    state.coordinator().store().create_token(&row).await?;
    renew(&state).await;
    let token = token(row);
    let created = wire::TokenCreated {
        id: token.id,
        name: token.name,
        scopes: token.scopes,
        queues: token.queues,
        created_at: token.created_at,
        expires_at: token.expires_at,
        token: secret,
    };
    let mut response = HttpResponse::Created();
    response.insert_header((header::CACHE_CONTROL, "no-store"));
    json_with(response, &created)
}

/// Checks a new token; answers when it expires.
fn check(asked: &wire::CreateToken, now: UnixMs, name_bytes: usize) -> ApiResult<Option<UnixMs>> {
    check_name("name", &asked.name, name_bytes)?;
    if asked.scopes.is_empty() {
        return Err(ApiError::invalid("scopes", "at least one of read, submit, work, admin"));
    }
    if let Some(queues) = &asked.queues {
        if queues.is_empty() || queues.len() > MAX_QUEUES {
            return Err(ApiError::invalid(
                "queues",
                format!("1 to {MAX_QUEUES} names, or absent"),
            ));
        }
        for (i, queue) in queues.iter().enumerate() {
            check_name(&format!("queues[{i}]"), queue, name_bytes)?;
        }
    }
    let (field, at) = match (asked.expires_at, asked.expires_in_s) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(ApiError::invalid("expires_in_s", "absent beside expires_at")),
        (Some(at), None) => ("expires_at", at.0),
        (None, Some(seconds)) => {
            let ms = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000);
            ("expires_in_s", now.plus_ms(ms))
        }
    };
    // Past the year 9999 a moment has no RFC 3339 form.
    let printable = serde_json::to_string(&Timestamp(at)).is_ok();
    if at > now && printable {
        Ok(Some(at))
    } else {
        Err(ApiError::invalid(field, "in the future, before the year 10000"))
    }
}

/// Puts a change into force here. It is stored already, so a failure only means that it takes a second to be seen.
async fn renew(state: &AppState) {
    if let Err(error) = state.tokens().reload().await {
        tracing::warn!(%error, "tokens changed but could not be read back");
    }
}

fn token(row: TokenRow) -> wire::Token {
    wire::Token {
        id: row.id,
        name: row.name,
        scopes: Scope::known(&row.scopes),
        queues: row.queues,
        created_at: row.created_at.into(),
        expires_at: row.expires_at.map(Timestamp),
    }
}

/// `GET /v1/tokens`
pub async fn list(state: web::Data<AppState>, caller: Caller) -> ApiResult<HttpResponse> {
    let rows = state.coordinator().store().list_tokens().await?;
    let seen = rows.into_iter().filter(|row| caller.covers(row.queues.as_deref()));
    ok_json(&wire::TokenList {
        items: seen.map(token).collect(),
        next_cursor: None,
    })
}

/// `DELETE /v1/tokens/{token}`
pub async fn revoke(state: web::Data<AppState>, caller: Caller, id: web::Path<String>) -> ApiResult<HttpResponse> {
    let store = state.coordinator().store();
    let rows = store.list_tokens().await?;
    let found = rows.iter().find(|row| row.id == *id);
    if !found.is_some_and(|row| caller.covers(row.queues.as_deref())) {
        return Err(ApiError::not_found("token"));
    }
    store.revoke_token(&id).await.map_err(|error| match error {
        StoreError::NotFound(_) => ApiError::not_found("token"),
        other => other.into(),
    })?;
    renew(&state).await;
    Ok(HttpResponse::NoContent().finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> ApiResult<Option<UnixMs>> {
        check(&serde_json::from_str(text).unwrap(), UnixMs(1_000), 256)
    }

    #[test]
    fn a_new_token_is_checked() {
        assert_eq!(asked(r#"{"name":"n","scopes":["read"]}"#).unwrap(), None);
        let in_a_minute = asked(r#"{"name":"n","scopes":["read"],"expires_in_s":60}"#).unwrap();
        assert_eq!(in_a_minute, Some(UnixMs(61_000)));
        for bad in [
            r#"{"name":"","scopes":["read"]}"#,
            r#"{"name":"n","scopes":[]}"#,
            r#"{"name":"n","scopes":["read"],"queues":[]}"#,
            r#"{"name":"n","scopes":["read"],"queues":[""]}"#,
            r#"{"name":"n","scopes":["read"],"expires_in_s":0}"#,
            r#"{"name":"n","scopes":["read"],"expires_in_s":18446744073709551615}"#,
            r#"{"name":"n","scopes":["read"],"expires_at":"1970-01-01T00:00:01Z"}"#,
            r#"{"name":"n","scopes":["read"],"expires_at":"2100-01-01T00:00:00Z","expires_in_s":1}"#,
        ] {
            assert_eq!(asked(bad).unwrap_err().problem().code, "invalid_request", "{bad}");
        }
    }
}
