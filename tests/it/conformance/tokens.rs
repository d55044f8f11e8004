//! Access tokens.
//!
//! Owns: the tests of `TokenStore`. Never: makes a secret. Invariant: none of its own.

use super::fixture::*;
use tallykeeper::store::{StoreError, TokenRow};

fn token(id: &str, created_s: u32) -> TokenRow {
    let mut hash = [0; 32];
    hash[..id.len()].copy_from_slice(id.as_bytes());
    TokenRow {
        id: id.into(),
        name: format!("token {id}"),
        hash,
        scopes: vec!["read".into(), "work".into()],
        queues: None,
        created_at: THEN.plus_s(created_s),
        expires_at: None,
    }
}

pub(super) async fn tokens_are_listed_oldest_first(store: AnyStore) {
    assert_eq!(store.list_tokens().await.unwrap(), []);
    let mut limited = token("b", 1);
    limited.queues = Some(vec!["q".into(), "p".into()]);
    limited.expires_at = Some(THEN.plus_s(90));
    let mut none = token("c", 3);
    none.queues = Some(Vec::new());
    none.scopes = Vec::new();
    for token in [&token("a", 2), &limited, &none] {
        store.create_token(token).await.unwrap();
    }
    assert_eq!(store.list_tokens().await.unwrap(), [limited, token("a", 2), none]);
}

pub(super) async fn a_revoked_token_is_gone(store: AnyStore) {
    store.create_token(&token("a", 1)).await.unwrap();
    store.create_token(&token("b", 2)).await.unwrap();
    store.revoke_token("a").await.unwrap();
    assert_eq!(store.list_tokens().await.unwrap(), [token("b", 2)]);
    let again = store.revoke_token("a").await;
    assert!(matches!(again, Err(StoreError::NotFound(_))), "{again:?}");
}

pub(super) async fn revoking_an_absent_token_is_not_found(store: AnyStore) {
    let refused = store.revoke_token("none").await;
    assert!(matches!(refused, Err(StoreError::NotFound(_))), "{refused:?}");
}

pub(super) async fn a_second_token_of_one_id_is_rejected(store: AnyStore) {
    store.create_token(&token("a", 1)).await.unwrap();
    let mut second = token("a", 2);
    second.hash = [9; 32];
    let refused = store.create_token(&second).await;
    assert!(matches!(refused, Err(StoreError::Rejected(_))), "{refused:?}");
    assert_eq!(store.list_tokens().await.unwrap(), [token("a", 1)]);
}
