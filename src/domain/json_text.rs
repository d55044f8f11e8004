//! Checks and mends JSON text that is kept verbatim but must stay castable to PostgreSQL's `jsonb`.
//!
//! Owns: the rules for U+0000, lone surrogates, nesting and numbers. Never: parses into a tree or changes anything but U+0000.
//! Invariant: text that passes [`check`] and went through [`mend_nul`] can be cast to `jsonb`. The text is known to be JSON already.

use std::borrow::Cow;

/// Deepest accepted nesting of arrays and objects.
pub const MAX_DEPTH: usize = 128;
/// Most digits before the decimal point that `numeric` keeps, less a safe margin; also bounds the exponent.
const MAX_NUMBER_DIGITS: i64 = 100_000;
/// Most digits after the decimal point that `numeric` keeps (16 383), less a safe margin.
const MAX_SCALE_DIGITS: i64 = 16_000;

/// Why a JSON text cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("nested at most {MAX_DEPTH} deep")]
    TooDeep,
    #[error("free of unpaired surrogates")]
    LoneSurrogate,
    #[error("free of numbers outside PostgreSQL's numeric range")]
    NumberRange,
}

/// Checks valid JSON text in one pass over its bytes.
pub fn check(text: &str) -> Result<(), Unusable> {
    let bytes = text.as_bytes();
    let (mut i, mut depth) = (0, 0usize);
    while i < bytes.len() {
        match bytes[i] {
            b'"' => i = skip_string(bytes, i + 1)?,
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(Unusable::TooDeep);
                }
                i += 1;
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                i += 1;
            }
            b'-' | b'0'..=b'9' => i = skip_number(bytes, i)?,
            _ => i += 1,
        }
    }
    Ok(())
}

/// Index after the closing quote; fails on a surrogate escape without its partner.
fn skip_string(bytes: &[u8], mut i: usize) -> Result<usize, Unusable> {
    while i < bytes.len() {
        match bytes[i] {
            b'"' => return Ok(i + 1),
            b'\\' if bytes.get(i + 1) == Some(&b'u') => match escape(bytes, i) {
                Some(0xD800..=0xDBFF) => match escape(bytes, i + 6) {
                    Some(0xDC00..=0xDFFF) => i += 12,
                    _ => return Err(Unusable::LoneSurrogate),
                },
                Some(0xDC00..=0xDFFF) => return Err(Unusable::LoneSurrogate),
                _ => i += 6,
            },
            b'\\' => i += 2,
            _ => i += 1,
        }
    }
    Ok(i)
}

/// The code unit of a `\uXXXX` escape that starts at `at`, if one does.
fn escape(bytes: &[u8], at: usize) -> Option<u32> {
    if bytes.get(at..at + 2)? != b"\\u" {
        return None;
    }
    let digits = std::str::from_utf8(bytes.get(at + 2..at + 6)?).ok()?;
    u32::from_str_radix(digits, 16).ok()
}

/// Index after the number; fails if `numeric` could not hold it.
fn skip_number(bytes: &[u8], start: usize) -> Result<usize, Unusable> {
    let rest = &bytes[start..];
    let end = rest
        .iter()
        .position(|b| !matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
        .unwrap_or(rest.len());
    // Every number this short is in range unless it has an exponent.
    if end > 300 || rest[..end].iter().any(|b| matches!(b, b'e' | b'E')) {
        check_magnitude(&rest[..end])?;
    }
    Ok(start + end)
}

fn check_magnitude(number: &[u8]) -> Result<(), Unusable> {
    let text = std::str::from_utf8(number).map_err(|_| Unusable::NumberRange)?;
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, digits)) => (mantissa, digits.parse::<i64>().map_err(|_| Unusable::NumberRange)?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let whole_digits = whole.len() as i64 + exponent;
    let scale_digits = fraction.len() as i64 - exponent;
    if whole_digits > MAX_NUMBER_DIGITS || scale_digits > MAX_SCALE_DIGITS {
        return Err(Unusable::NumberRange);
    }
    Ok(())
}

/// Replaces every `\u0000` escape by `\ufffd`, since PostgreSQL's text cannot hold U+0000 once decoded.
pub fn mend_nul(text: &str) -> Cow<'_, str> {
    if !text.contains("\\u0000") {
        return Cow::Borrowed(text);
    }
    Cow::Owned(mend_nul_owned(text.to_owned()))
}

/// As [`mend_nul`], in place: the two escapes are equally long.
pub fn mend_nul_owned(text: String) -> String {
    if !text.contains("\\u0000") {
        return text;
    }
    let mut bytes = text.into_bytes();
    let mut i = 0;
    while i < bytes.len() {
        if bytes[i] != b'\\' {
            i += 1;
        } else if bytes[i..].starts_with(b"\\u0000") {
            bytes[i..i + 6].copy_from_slice(b"\\ufffd");
            i += 6;
        } else {
            // An escaped backslash is two bytes: `\\u0000` is text, not an escape.
            i += 2;
        }
    }
    String::from_utf8(bytes).expect("one ascii escape took the place of another")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_json_passes() {
        for text in [
            "null",
            "-0.5e3",
            r#"{"a":[1,2,{"b":"\u00e9\ud83d\ude00\\u0000"}]}"#,
            "12345678901234567890123456789",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_jsonb_could_not_hold_is_refused() {
        let deep = |n| "[".repeat(n) + &"]".repeat(n);
        assert_eq!(check(&deep(MAX_DEPTH)), Ok(()));
        assert_eq!(check(&deep(MAX_DEPTH + 1)), Err(Unusable::TooDeep));
        for text in [r#""\ud800""#, r#""\ud800x""#, r#""\udc00""#, r#""\ud83d\ud83d""#] {
            assert_eq!(check(text), Err(Unusable::LoneSurrogate), "{text}");
        }
        for text in ["1e1000000", "1e-20000", "[1e99999999999999999999]"] {
            assert_eq!(check(text), Err(Unusable::NumberRange), "{text}");
        }
    }

    #[test]
    fn brackets_and_digits_inside_strings_do_not_count() {
        let text = format!("\"{}1e1000000\"", "[".repeat(500));
        assert_eq!(check(&text), Ok(()));
    }

    #[test]
    fn only_true_nul_escapes_are_mended() {
        assert_eq!(mend_nul(r#""a\u0000b""#), r#""a\ufffdb""#);
        assert_eq!(mend_nul(r#""a\\u0000b""#), r#""a\\u0000b""#);
        assert_eq!(mend_nul(r#""\\\u0000""#), r#""\\\ufffd""#);
        assert!(matches!(mend_nul("\"plain\""), Cow::Borrowed(_)));
    }
}
