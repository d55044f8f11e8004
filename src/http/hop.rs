//! How one node proves to another that a request was let in by it, and for whom.
//!
//! Owns: the header, its signature, and the memory against replays. Never: travels beyond the nodes of one store, and never says the secret.
//! Invariant: a header is good once, for one method and path, at one process, within a few seconds, and for the caller it names.
//!
//! `1;FROM;TO;NUMBER;AT;CALLER;MAC`: the incarnations of sender and receiver, the sender's count of such requests, the store's time in
//! milliseconds, the id of the caller's token (empty while none is stored, `*` for the node itself), and HMAC-SHA-256 over all of these
//! with the method and the path. The body is not covered: between nodes, as before them, TLS is what protects it.

use crate::domain::ids::UnixMs;
use actix_web::http::header::HeaderName;
use actix_web::{HttpMessage, HttpRequest};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Carries the proof.
pub const HOP: HeaderName = HeaderName::from_static("tallykeeper-hop");
/// Milliseconds that are left of the time for which a client's call may wait; honoured with a proof alone.
pub const WAIT: HeaderName = HeaderName::from_static("tallykeeper-wait");
/// The caller that stands for the node itself.
pub const NODE: &str = "*";

const VERSION: &str = "1";
/// How far the clocks of two nodes may be apart; both follow the store's.
const SKEW_MS: i64 = 10_000;
/// Requests of one sender that may overtake each other.
const WINDOW: u64 = 65_536;
/// Senders remembered: processes, not nodes.
const SENDERS: usize = 256;

type Signature = Hmac<Sha256>;

/// Why a proof is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not made by a node of this store, or not for this request.
    Forged,
    /// Used before.
    Replayed,
    /// Made at another time, by the store's clock as this process knows it.
    Stale,
    /// Meant for another process: the sender does not know yet who is here now.
    Misdirected,
}

/// A request that another node has let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The node asks for itself; else a client asks through it.
    pub by_node: bool,
}

/// Has another node let this request in? Then it is about this node alone.
pub fn is_hop(req: &HttpRequest) -> bool {
    req.extensions().contains::<Hop>()
}

/// Does another node itself ask? What only nodes may ask is honoured then alone: a client's query travels with its request.
pub fn is_nodes_own(req: &HttpRequest) -> bool {
    req.extensions().get::<Hop>().is_some_and(|hop| hop.by_node)
}

/// Makes and checks proofs for one process.
pub struct Hops {
    key: Option<Signature>,
    us: String,
    count: AtomicU64,
    seen: Mutex<HashMap<String, Seen>>,
}

/// The numbers of one sender that were used.
struct Seen {
    highest: u64,
    bits: Box<[u64]>,
    at: i64,
}

impl Hops {
    /// Without a secret nothing is ever taken.
    pub fn new(secret: Option<&[u8]>, incarnation: &str) -> Hops {
        let key = secret.map(|secret| Signature::new_from_slice(secret).expect("a key may have any length"));
        Hops {
            key,
            us: incarnation.to_owned(),
            count: AtomicU64::new(0),
            seen: Mutex::default(),
        }
    }

    /// A proof for one request to the process `to`.
    pub fn sign(&self, to: &str, method: &str, path: &str, caller: &str, now: UnixMs) -> Option<String> {
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let mut text = format!("{VERSION};{};{to};{number};{};{caller}", self.us, now.0);
        let mac = covering(self.key.as_ref()?, &text, method, path)
            .finalize()
            .into_bytes();
        text.push(';');
        for byte in mac {
            write!(text, "{byte:02x}").expect("writing to a string");
        }
        Some(text)
    }

    /// Checks a proof and uses it up; answers the caller.
    pub fn check<'a>(&self, text: &'a str, method: &str, path: &str, now: UnixMs) -> Result<&'a str, Refusal> {
        let (signed, mac) = text.rsplit_once(';').ok_or(Refusal::Forged)?;
        let key = self.key.as_ref().ok_or(Refusal::Forged)?;
        let mac = unhex(mac).ok_or(Refusal::Forged)?;
        // In constant time, and before anything is believed.
        let good = covering(key, signed, method, path).verify_slice(&mac);
        good.map_err(|_| Refusal::Forged)?;
        let parts: Vec<&str> = signed.split(';').collect();
        let &[VERSION, from, to, number, at, caller] = parts.as_slice() else {
            return Err(Refusal::Forged);
        };
        let (Ok(number), Ok(at)) = (number.parse::<u64>(), at.parse::<i64>()) else {
            return Err(Refusal::Forged);
        };
        if to != self.us {
            return Err(Refusal::Misdirected);
        }
        if (now.0 - at).abs() > SKEW_MS {
            return Err(Refusal::Stale);
        }
        self.use_up(from, number, now.0)
            .then_some(caller)
            .ok_or(Refusal::Replayed)
    }

    fn use_up(&self, from: &str, number: u64, now: i64) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.contains_key(from) {
            if seen.len() >= SENDERS {
                // A sender that was silent for so long has no proof left that is young enough.
                seen.retain(|_, sender| now - sender.at <= 2 * SKEW_MS);
            }
            if seen.len() >= SENDERS {
                return false;
            }
            seen.insert(from.to_owned(), Seen::new());
        }
        seen.get_mut(from).is_some_and(|sender| sender.use_up(number, now))
    }
}

impl Seen {
    fn new() -> Seen {
        Seen {
            highest: 0,
            bits: vec![0; (WINDOW / 64) as usize].into_boxed_slice(),
            at: 0,
        }
    }

    fn use_up(&mut self, number: u64, now: i64) -> bool {
        self.at = now;
        if number.saturating_add(WINDOW) <= self.highest {
            return false;
        }
        if number > self.highest {
            let fresh = (self.highest + 1)..=number;
            if number - self.highest >= WINDOW {
                self.bits.fill(0);
            } else {
                fresh.for_each(|number| self.clear(number));
            }
            self.highest = number;
        }
        let (word, bit) = place(number);
        let is_new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        is_new
    }

    fn clear(&mut self, number: u64) {
        let (word, bit) = place(number);
        self.bits[word] &= !bit;
    }
}

fn place(number: u64) -> (usize, u64) {
    let slot = number % WINDOW;
    ((slot / 64) as usize, 1 << (slot % 64))
}

fn covering(key: &Signature, signed: &str, method: &str, path: &str) -> Signature {
    let mut mac = key.clone();
    for part in [signed, method, path] {
        mac.update(part.as_bytes());
        mac.update(b"\n");
    }
    mac
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    (digits.len() == 64).then(|| digits.chunks(2).map(pair).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_000_000);

    fn pair() -> (Hops, Hops) {
        (Hops::new(Some(b"secret"), "a"), Hops::new(Some(b"secret"), "b"))
    }

    #[test]
    fn a_proof_is_good_once_for_its_request_at_its_receiver() {
        let (a, b) = pair();
        let proof = a.sign("b", "POST", "/v1/jobs/1/results?x=1", "t1", NOW).unwrap();
        for (method, path) in [("GET", "/v1/jobs/1/results?x=1"), ("POST", "/v1/jobs/2/results?x=1")] {
            assert_eq!(b.check(&proof, method, path, NOW), Err(Refusal::Forged));
        }
        assert_eq!(b.check(&proof, "POST", "/v1/jobs/1/results?x=1", NOW), Ok("t1"));
        let again = b.check(&proof, "POST", "/v1/jobs/1/results?x=1", NOW);
        assert_eq!(again, Err(Refusal::Replayed));
    }

    #[test]
    fn a_proof_of_another_store_time_or_process_is_refused() {
        let (a, b) = pair();
        let stranger = Hops::new(Some(b"other"), "a");
        let forged = stranger.sign("b", "GET", "/", "*", NOW).unwrap();
        assert_eq!(b.check(&forged, "GET", "/", NOW), Err(Refusal::Forged));
        let proof = a.sign("c", "GET", "/", "", NOW).unwrap();
        assert_eq!(b.check(&proof, "GET", "/", NOW), Err(Refusal::Misdirected));
        let proof = a.sign("b", "GET", "/", "", NOW).unwrap();
        let later = UnixMs(NOW.0 + SKEW_MS + 1);
        assert_eq!(b.check(&proof, "GET", "/", later), Err(Refusal::Stale));
        let swapped = proof.replacen(";;", ";t2;", 1);
        for bad in ["", ";", "1;a;b;1;1000000;;00", "x", swapped.as_str()] {
            assert_eq!(b.check(bad, "GET", "/", NOW), Err(Refusal::Forged), "{bad}");
        }
        let none = Hops::new(None, "a");
        assert!(none.sign("b", "GET", "/", "", NOW).is_none());
        assert_eq!(none.check(&proof, "GET", "/", NOW), Err(Refusal::Forged));
    }

    #[test]
    fn proofs_may_overtake_each_other_but_not_come_twice() {
        let mut seen = Seen::new();
        for number in [1, 5, 3, 2, WINDOW + 2, 4] {
            assert!(seen.use_up(number, 0), "{number}");
        }
        for number in [1, 2, 3, 4, 5, WINDOW + 2] {
            assert!(!seen.use_up(number, 0), "{number}");
        }
        assert!(seen.use_up(10 * WINDOW, 0));
        assert!(!seen.use_up(9 * WINDOW, 0), "older than the window");
        assert!(seen.use_up(9 * WINDOW + 1, 0));
    }
}
