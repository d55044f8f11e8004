//! Trying again: for failures that may pass, with waits that grow and are spread.
//!
//! Owns: how long to wait between tries. Never: repeats a call the server refused. Invariant: each wait is at least what the server asked
//! for, within a bound, and at most [`LONGEST`].

use super::{Answer, ClientError};
use std::future::Future;
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const GROWN: Duration = Duration::from_secs(5);
/// Longest wait a server may ask for.
const LONGEST: Duration = Duration::from_secs(60);

/// The wait before the next try.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Notes one more failure and says how long to wait; `spread` in [0, 1) keeps many workers from coming back together.
    fn next(&mut self, asked: Option<Duration>, spread: f64) -> Duration {
        let grown = FIRST.saturating_mul(1 << self.failures.min(16)).min(GROWN);
        self.failures += 1;
        let base = asked.unwrap_or_default().max(grown.mul_f64(0.5));
        (base + grown.mul_f64(0.5 * spread)).min(LONGEST)
    }

    /// How long to wait for the next try after a failure that may pass.
    pub(crate) fn pause(&mut self, error: &ClientError) -> Duration {
        let asked = match error {
            ClientError::Busy { retry_after, .. } => *retry_after,
            _ => None,
        };
        self.next(asked, rand::random())
    }

    /// How long to wait for the next try of something that is no call.
    pub(crate) fn pause_again(&mut self) -> Duration {
        self.next(None, rand::random())
    }

    /// Waits for the next try after a failure that may pass; any other failure is given back.
    pub(crate) async fn wait(&mut self, error: ClientError) -> Answer<()> {
        if !error.may_pass() {
            return Err(error);
        }
        let wait = self.pause(&error);
        if self.failures == 3 {
            tracing::warn!(%error, "still trying");
        } else {
            tracing::debug!(%error, ?wait, "trying again");
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// Repeats a call that is safe to repeat until it is answered, for better or worse.
pub(crate) async fn until_answered<T, F>(mut call: impl FnMut() -> F) -> Answer<T>
where
    F: Future<Output = Answer<T>>,
{
    let mut backoff = Backoff::default();
    loop {
        match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) => backoff.wait(error).await?,
        }
    }
}

/// The same, but gives the latest failure back once `patience` is over.
pub(crate) async fn within<T, F>(patience: Duration, mut call: impl FnMut() -> F) -> Answer<T>
where
    F: Future<Output = Answer<T>>,
{
    let deadline = tokio::time::Instant::now() + patience;
    let mut backoff = Backoff::default();
    loop {
        let error = match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) if tokio::time::Instant::now() >= deadline => return Err(error),
            Err(error) => error,
        };
        backoff.wait(error).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_obey_the_server() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..10).map(|_| backoff.next(None, 0.999)).collect();
        assert!(waits.is_sorted());
        assert!(waits[0] <= FIRST && waits[9] <= GROWN && waits[9] > GROWN.mul_f64(0.9));
        assert!(backoff.next(Some(Duration::from_secs(20)), 0.0) >= Duration::from_secs(20));
        assert_eq!(backoff.next(Some(Duration::from_secs(9999)), 0.5), LONGEST);
        for _ in 0..100 {
            backoff.next(None, 0.5);
        }
    }

    fn busy() -> ClientError {
        ClientError::Busy {
            detail: "store_unavailable".into(),
            retry_after: None,
        }
    }

    #[tokio::test]
    async fn what_may_pass_is_repeated_and_what_is_refused_is_not() {
        let mut calls = 0;
        let answered = until_answered(|| {
            calls += 1;
            let answer = if calls < 3 { Err(busy()) } else { Ok(calls) };
            async move { answer }
        });
        assert_eq!(answered.await.unwrap(), 3);
        let mut calls = 0;
        let refused: Answer<()> = until_answered(|| {
            calls += 1;
            async { Err(ClientError::Unexpected("no".into())) }
        })
        .await;
        assert!(refused.is_err());
        assert_eq!(calls, 1);
    }

    #[tokio::test]
    async fn patience_ends() {
        let answer: Answer<()> = within(Duration::ZERO, || async { Err(busy()) }).await;
        assert!(matches!(answer, Err(ClientError::Busy { .. })));
    }
}
