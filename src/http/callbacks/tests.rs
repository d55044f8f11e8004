//! What a callback's URL may be.
//!
//! Owns: the table. Never: makes a call (whole nodes do). Invariant: none of its own.

use super::*;

fn callbacks(allow: &[&str]) -> Callbacks {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
    let allowed = allow.iter().map(|text| text.parse::<Network>().unwrap()).collect();
    Callbacks::new(vec![secret], allowed, Duration::from_secs(1))
}

#[test]
fn a_url_is_http_without_credentials_and_not_a_private_number() {
    let callbacks = callbacks(&["10.1.0.0/16"]);
    for good in [
        "http://example.org",
        "https://example.org:8443/hook?a=b#c",
        "https://1.1.1.1/",
        "http://10.1.2.3/",
        "http://[2606:4700::1111]/",
        "HTTPS://EXAMPLE.ORG/",
        "http://localhost/",
    ] {
        assert_eq!(callbacks.check(good), Ok(()), "{good}");
    }
    let long = format!("http://example.org/{}", "x".repeat(MAX_URL_BYTES));
    for (bad, word) in [
        ("", "http or https"),
        ("example.org", "http or https"),
        ("ftp://example.org", "http or https"),
        ("file:///etc/passwd", "http or https"),
        ("http://", "http or https"),
        ("http://exa mple.org", "http or https"),
        ("http://example.org/\n", "http or https"),
        (&long, "2048"),
        ("http://user@example.org", "without a user"),
        ("http://:secret@example.org", "without a user"),
        ("http://127.0.0.1/", "127.0.0.1"),
        ("http://0x7f.1/", "127.0.0.1"),
        ("http://2130706433/", "127.0.0.1"),
        ("http://127.1/", "127.0.0.1"),
        ("http://10.2.0.1/", "callbacks.allow"),
        ("http://[::1]:80/", "::1"),
        ("http://[::ffff:7f00:1]/", "public"),
        ("http://169.254.169.254/latest/meta-data", "169.254.169.254"),
    ] {
        let refused = callbacks.check(bad).expect_err(bad);
        assert!(refused.contains(word), "{bad}: {refused}");
    }
}

#[test]
fn without_a_secret_a_callback_is_refused_with_what_to_do() {
    let refused = check_url(None, "https://example.org").unwrap_err();
    let problem = refused.problem();
    assert_eq!((problem.status, problem.field.as_deref()), (400, Some("callback_url")));
    assert!(
        problem.detail.contains("TALLYKEEPER_CALLBACKS__SECRETS"),
        "{}",
        problem.detail
    );
}
