//! Signatures as in Standard Webhooks: `v1,` and the base64 of HMAC-SHA-256 over `ID.TIMESTAMP.BODY`.
//!
//! Owns: what a secret looks like, and the signature. Never: prints a secret. Invariant: a secret keeps no text of itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use std::str::FromStr;

const PREFIX: &str = "whsec_";
/// Bytes of a secret, as the convention has it.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A key that callbacks are signed with.
#[derive(Clone)]
pub struct Secret(Hmac<Sha256>);

/// A text is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("whsec_ and the base64 of 24 to 64 random bytes, such as `echo whsec_$(openssl rand -base64 32)` makes")]
pub struct NoSecret;

impl FromStr for Secret {
    type Err = NoSecret;

    fn from_str(text: &str) -> Result<Secret, NoSecret> {
        let bytes = text.strip_prefix(PREFIX).and_then(|text| STANDARD.decode(text).ok());
        let bytes = bytes.filter(|bytes| BYTES.contains(&bytes.len())).ok_or(NoSecret)?;
        Ok(Secret(Hmac::new_from_slice(&bytes).expect("a key may have any length")))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The value of `webhook-signature`: one signature by each secret.
pub(super) fn sign(secrets: &[Secret], id: &str, timestamp_s: i64, body: &str) -> String {
    let by = |Secret(key): &Secret| {
        let mut mac = key.clone();
        mac.update(format!("{id}.{timestamp_s}.").as_bytes());
        mac.update(body.as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    };
    secrets.iter().map(by).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_one_of_the_convention() {
        // The example of the reference implementations.
        let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let body = r#"{"test": 2432232314}"#;
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let signed = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(sign(std::slice::from_ref(&secret), id, 1_614_265_330, body), signed);
        let other: Secret = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse().unwrap();
        let both = sign(&[other, secret], id, 1_614_265_330, body);
        let (first, second) = both.split_once(' ').unwrap();
        assert_eq!(second, signed);
        assert!(first.starts_with("v1,") && first != signed);
    }

    #[test]
    fn what_is_no_secret_is_refused_and_what_is_one_is_not_shown() {
        for bad in [
            "",
            "whsec_",
            "secret",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_c2hvcnQ=",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS!",
            &format!("whsec_{}", "A".repeat(88)),
        ] {
            assert_eq!(bad.parse::<Secret>().map(drop), Err(NoSecret), "{bad}");
        }
        let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }
}
