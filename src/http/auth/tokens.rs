//! The stored tokens, kept close at hand.
//!
//! Owns: how old the copy may be, and what holds while the store is down. Never: keeps a secret, only its hash. Invariant: it never
//! fails open: without a copy nobody is let in, and a copy that cannot be renewed stays in force.

use super::{Caller, Grant};
use crate::domain::ids::UnixMs;
use crate::http::auth::secret;
use crate::http::error::{ApiError, ApiResult};
use crate::http::settings::HttpSettings;
use crate::http::wire::Scope;
use crate::store::{TokenRow, TokenStore};
use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// An unknown token may be one that was just made elsewhere: worth another look, though not one per guess.
const UNKNOWN_RETRY: Duration = Duration::from_millis(100);

struct Copy {
    /// Looked up by hash: timing tells about the hash of a guess, which says nothing about a secret.
    grants: HashMap<[u8; 32], Arc<Grant>>,
    loaded: Instant,
}

/// The node's copy of the tokens.
pub struct Tokens {
    store: Arc<dyn TokenStore>,
    copy: RwLock<Option<Arc<Copy>>>,
    /// When a renewal was last begun; held while one is under way, so that there is one at a time.
    tried: Mutex<Option<Instant>>,
    refresh: Duration,
    max_age: Duration,
    timeout: Duration,
}

impl Tokens {
    pub fn new(store: Arc<dyn TokenStore>, settings: &HttpSettings) -> Self {
        Tokens {
            store,
            copy: RwLock::new(None),
            tried: Mutex::new(None),
            refresh: Duration::from_millis(settings.token_refresh_ms),
            max_age: Duration::from_millis(settings.token_max_age_ms),
            timeout: Duration::from_millis(settings.token_refresh_timeout_ms),
        }
    }

    /// Reads the tokens anew, at once.
    pub async fn reload(&self) -> ApiResult<()> {
        let mut tried = self.tried.lock().await;
        *tried = Some(Instant::now());
        self.load().await
    }

    /// Are any tokens stored, so that authentication is on? None while that is not known.
    pub fn are_stored(&self) -> Option<bool> {
        self.copy().map(|copy| !copy.grants.is_empty())
    }

    /// Finds out who sends this `Authorization` header. `loopback_only`: the node listens on nothing else.
    pub async fn authenticate(&self, header: Option<&str>, now: UnixMs, loopback_only: bool) -> ApiResult<Caller> {
        let copy = self.renewed().await?;
        if copy.grants.is_empty() {
            // The last token may have been revoked while the node listens beyond this machine.
            return if loopback_only {
                Ok(Caller::local())
            } else {
                Err(ApiError::unauthenticated("no token is stored"))
            };
        }
        let header = header.ok_or_else(|| ApiError::unauthenticated("a bearer token is needed"))?;
        let secret = bearer(header).ok_or_else(|| ApiError::unauthenticated("a bearer token is needed"))?;
        let hash = secret::hash(secret);
        let grant = match copy.grants.get(&hash) {
            Some(grant) => Some(Arc::clone(grant)),
            None => self
                .look_again(&copy)
                .await
                .and_then(|copy| copy.grants.get(&hash).cloned()),
        };
        match grant {
            Some(grant) if grant.expires_at.is_none_or(|at| now < at) => Ok(Caller::with(grant)),
            Some(_) => Err(ApiError::unauthenticated("the token has expired")),
            None => {
                tracing::debug!(token = secret::shown(secret), "unknown token");
                Err(ApiError::unauthenticated("unknown token"))
            }
        }
    }

    /// The caller with this token's id (empty: without a token), if it would be let in now.
    pub async fn caller(&self, token_id: &str, now: UnixMs, loopback_only: bool) -> ApiResult<Caller> {
        let copy = self.renewed().await?;
        if copy.grants.is_empty() && token_id.is_empty() && loopback_only {
            return Ok(Caller::local());
        }
        let find = |copy: &Copy| copy.grants.values().find(|grant| grant.token_id == token_id).cloned();
        let grant = match find(&copy) {
            Some(grant) => Some(grant),
            None => self.look_again(&copy).await.and_then(|copy| find(&copy)),
        };
        match grant {
            Some(grant) if grant.expires_at.is_none_or(|at| now < at) => Ok(Caller::with(grant)),
            _ => Err(ApiError::unauthenticated("the token is not in force any more")),
        }
    }

    fn copy(&self) -> Option<Arc<Copy>> {
        self.copy.read().expect("no one panics while holding it").clone()
    }

    /// A copy that is young enough, or the last known one if the store gives no answer.
    async fn renewed(&self) -> ApiResult<Arc<Copy>> {
        if let Some(copy) = self.copy() {
            let age = copy.loaded.elapsed();
            if age < self.refresh {
                return Ok(copy);
            }
            if age < self.max_age {
                // Still good; whoever gets the lock renews it for the others.
                if let Ok(mut tried) = self.tried.try_lock() {
                    self.renew(&mut tried, self.refresh).await;
                }
                return self.copy().ok_or_else(ApiError::store_unavailable);
            }
        }
        let mut tried = self.tried.lock().await;
        self.renew(&mut tried, self.refresh).await;
        drop(tried);
        self.copy().ok_or_else(ApiError::store_unavailable)
    }

    async fn look_again(&self, seen: &Arc<Copy>) -> Option<Arc<Copy>> {
        let mut tried = self.tried.lock().await;
        if seen.loaded.elapsed() >= UNKNOWN_RETRY {
            self.renew(&mut tried, UNKNOWN_RETRY).await;
        }
        self.copy()
    }

    /// Loads unless another caller tried within `at_most_every`.
    async fn renew(&self, tried: &mut Option<Instant>, at_most_every: Duration) {
        if tried.is_some_and(|at| at.elapsed() < at_most_every) {
            return;
        }
        *tried = Some(Instant::now());
        if let Err(error) = self.load().await {
            tracing::warn!(%error, "tokens could not be renewed; the last known ones stay in force");
        }
    }

    async fn load(&self) -> ApiResult<()> {
        // Taken before the read: a token revoked meanwhile is found by the next renewal, not one later.
        let loaded = Instant::now();
        let rows = tokio::time::timeout(self.timeout, self.store.list_tokens())
            .await
            .map_err(|_| ApiError::store_unavailable())??;
        let grants = rows.into_iter().map(|row| (row.hash, Arc::new(grant(row)))).collect();
        let copy = Some(Arc::new(Copy { grants, loaded }));
        *self.copy.write().expect("no one panics while holding it") = copy;
        Ok(())
    }
}

/// The secret of a bearer header, or of one of the scheme `Token`, which existing workers send; the scheme's case does not matter.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, secret) = header.split_once(' ')?;
    let secret = secret.trim();
    let known = ["bearer", "token"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known));
    (known && !secret.is_empty()).then_some(secret)
}

fn grant(row: TokenRow) -> Grant {
    Grant {
        token_id: row.id,
        name: row.name,
        scopes: Scope::known(&row.scopes),
        queues: row.queues,
        expires_at: row.expires_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Result as StoreResult, StoreError};
    use async_trait::async_trait;
    use std::sync::Mutex as StdMutex;

    /// None: the store is down.
    #[derive(Default)]
    struct Fake {
        rows: StdMutex<Option<Vec<TokenRow>>>,
        reads: StdMutex<u32>,
    }

    #[async_trait]
    impl TokenStore for Fake {
        async fn create_token(&self, _: &TokenRow) -> StoreResult<()> {
            Err(StoreError::Unavailable("not used".into()))
        }

        async fn list_tokens(&self) -> StoreResult<Vec<TokenRow>> {
            *self.reads.lock().unwrap() += 1;
            let rows = self.rows.lock().unwrap().clone();
            rows.ok_or_else(|| StoreError::Unavailable("down".into()))
        }

        async fn revoke_token(&self, _: &str) -> StoreResult<()> {
            Err(StoreError::Unavailable("not used".into()))
        }
    }

    fn row(expires_at: Option<UnixMs>) -> (TokenRow, String) {
        let (row, secret) = secret::new_token("n".into(), &[Scope::Read], None, UnixMs(0), expires_at);
        (row, format!("Bearer {secret}"))
    }

    /// Tokens that are read anew for every request (`always`), or never again.
    fn tokens(rows: Option<Vec<TokenRow>>, always: bool) -> (Arc<Fake>, Tokens) {
        let fake = Arc::new(Fake::default());
        *fake.rows.lock().unwrap() = rows;
        let age_ms = if always { 0 } else { 3_600_000 };
        let settings = HttpSettings {
            token_refresh_ms: age_ms,
            token_max_age_ms: age_ms,
            ..HttpSettings::default()
        };
        let tokens = Tokens::new(Arc::clone(&fake) as Arc<dyn TokenStore>, &settings);
        (fake, tokens)
    }

    fn code(answer: ApiResult<Caller>) -> String {
        answer.map(|_| ()).unwrap_err().problem().code.clone()
    }

    #[actix_web::test]
    async fn without_tokens_only_this_machine_is_let_in() {
        let (_, tokens) = tokens(Some(vec![]), true);
        assert!(tokens.authenticate(None, UnixMs(0), true).await.is_ok());
        assert_eq!(
            code(tokens.authenticate(None, UnixMs(0), false).await),
            "unauthenticated"
        );
    }

    #[actix_web::test]
    async fn the_first_token_closes_the_door_and_the_right_one_opens_it() {
        let (fake, tokens) = tokens(Some(vec![]), true);
        assert!(tokens.authenticate(None, UnixMs(0), true).await.is_ok());
        let (stored, header) = row(None);
        *fake.rows.lock().unwrap() = Some(vec![stored.clone()]);
        for bad in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some("Bearer tk_x"),
            Some(&header[7..]),
        ] {
            assert_eq!(
                code(tokens.authenticate(bad, UnixMs(0), true).await),
                "unauthenticated",
                "{bad:?}"
            );
        }
        let caller = tokens.authenticate(Some(&header), UnixMs(0), true).await.unwrap();
        assert_eq!(caller.token_id(), stored.id);
        for scheme in ["bearer", "Token", "token"] {
            let other = header.replace("Bearer", scheme);
            assert!(tokens.authenticate(Some(&other), UnixMs(0), true).await.is_ok());
        }
    }

    #[actix_web::test]
    async fn an_expired_token_lets_nobody_in_and_keeps_authentication_on() {
        let (stored, header) = row(Some(UnixMs(100)));
        let (_, tokens) = tokens(Some(vec![stored]), true);
        assert!(tokens.authenticate(Some(&header), UnixMs(99), true).await.is_ok());
        assert_eq!(
            code(tokens.authenticate(Some(&header), UnixMs(100), true).await),
            "unauthenticated"
        );
        assert_eq!(
            code(tokens.authenticate(None, UnixMs(100), true).await),
            "unauthenticated"
        );
    }

    #[actix_web::test]
    async fn fm17_a_store_that_is_down_changes_nobody_s_rights() {
        let (fake, tokens) = tokens(None, true);
        assert_eq!(
            code(tokens.authenticate(None, UnixMs(0), true).await),
            "store_unavailable"
        );
        let (stored, header) = row(None);
        *fake.rows.lock().unwrap() = Some(vec![stored]);
        assert!(tokens.authenticate(Some(&header), UnixMs(0), true).await.is_ok());
        *fake.rows.lock().unwrap() = None;
        assert!(tokens.authenticate(Some(&header), UnixMs(0), true).await.is_ok());
        assert_eq!(
            code(tokens.authenticate(None, UnixMs(0), true).await),
            "unauthenticated"
        );
    }

    #[actix_web::test]
    async fn a_young_copy_is_not_read_again_until_told() {
        let (stored, header) = row(None);
        let (fake, tokens) = tokens(Some(vec![stored]), false);
        for _ in 0..10 {
            assert!(tokens.authenticate(Some(&header), UnixMs(0), true).await.is_ok());
        }
        assert_eq!(*fake.reads.lock().unwrap(), 1);
        *fake.rows.lock().unwrap() = Some(vec![row(None).0]);
        tokens.reload().await.unwrap();
        assert_eq!(
            code(tokens.authenticate(Some(&header), UnixMs(0), true).await),
            "unauthenticated"
        );
    }
}
