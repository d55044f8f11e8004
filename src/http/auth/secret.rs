//! Makes and hashes token secrets.
//!
//! Owns: their form. Never: stores or logs one. Invariant: 256 bits from the operating system's generator by way of the thread's.

use crate::domain::ids::UnixMs;
use crate::http::wire::Scope;
use crate::store::TokenRow;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// What every secret starts with, so that people and scanners know one when they see it.
pub const PREFIX: &str = "tk_";

/// SHA-256 of a secret. A fast hash is enough: a secret is as strong as the hash is wide.
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// As much of a secret as may be shown.
pub fn shown(secret: &str) -> String {
    secret.chars().take(8).collect()
}

fn random_hex<const N: usize>() -> String {
    let mut bytes = [0u8; N];
    rand::fill(&mut bytes);
    bytes.iter().fold(String::with_capacity(2 * N), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string");
        text
    })
}

/// What every ticket starts with.
const TICKET_PREFIX: &str = "tkt_";

/// The secret of a new ticket.
pub fn new_ticket() -> String {
    format!("{TICKET_PREFIX}{}", random_hex::<32>())
}

/// A new token: the row to store and the secret to hand out once.
pub fn new_token(
    name: String,
    scopes: &[Scope],
    queues: Option<Vec<String>>,
    created_at: UnixMs,
    expires_at: Option<UnixMs>,
) -> (TokenRow, String) {
    let secret = format!("{PREFIX}{}", random_hex::<32>());
    let row = TokenRow {
        id: format!("t{}", random_hex::<8>()),
        name,
        hash: hash(&secret),
        scopes: scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
        queues,
        created_at,
        expires_at,
    };
    (row, secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_distinct_and_only_their_hash_is_in_the_row() {
        let make = || new_token("n".into(), &[Scope::Read], None, UnixMs(1), None);
        let ((row, secret), (other_row, other)) = (make(), make());
        assert_eq!(secret.len(), PREFIX.len() + 64);
        assert!(secret != other && row.id != other_row.id);
        assert_eq!(row.hash, hash(&secret));
        assert!(!format!("{row:?}").contains(&secret[PREFIX.len()..]));
        assert_eq!(row.scopes, ["read"]);
    }

    #[test]
    fn fm54_at_most_eight_characters_are_shown() {
        assert_eq!(shown("tk_0123456789"), "tk_01234");
        assert_eq!(shown("ä"), "ä");
    }
}
