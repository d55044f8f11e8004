//! Splitting: against a parser that sees the whole.
//!
//! Owns: texts, cuts and what must come of them. Never: knows the splitter's states. Invariant: none of its own.

use super::*;
use proptest::prelude::*;
use serde_json::Value;

/// Splits what comes in such pieces; answers the items and the rest.
fn split(pieces: &[&[u8]]) -> Result<(Vec<Vec<u8>>, Vec<u8>), Unsplittable> {
    let mut splitter = ItemSplitter::new("results", 10_000);
    let mut items = Vec::new();
    for piece in pieces {
        splitter.push(Bytes::copy_from_slice(piece));
        while let Some(item) = splitter.next_item()? {
            assert_eq!(item.index, items.len());
            items.push(item.text);
        }
    }
    Ok((items, splitter.finish()?))
}

fn bytewise(text: &str) -> Result<(Vec<Vec<u8>>, Vec<u8>), Unsplittable> {
    split(&text.as_bytes().chunks(1).collect::<Vec<_>>())
}

/// Items, and the rest with its list empty, as a parser sees them that has the whole.
fn expected(text: &str) -> Option<(Vec<Value>, Value)> {
    let mut whole: Value = serde_json::from_str(text).ok()?;
    let list = whole.get_mut("results")?.as_array_mut()?;
    let items = std::mem::take(list);
    Some((items, whole))
}

fn parsed(items: &[Vec<u8>], rest: &[u8]) -> Option<(Vec<Value>, Value)> {
    let items: Option<Vec<Value>> = items.iter().map(|item| serde_json::from_slice(item).ok()).collect();
    Some((items?, serde_json::from_slice(rest).ok()?))
}

/// Any JSON value, with what is hard to split in its strings.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        r#"[a\\"{}\[\],: é]{0,8}"#.prop_map(Value::from),
        Just(Value::from("results")),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map("results|[a\"{]{1,3}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn items_and_rest_do_not_depend_on_where_the_stream_was_cut(
        items in proptest::collection::vec(value(), 0..5), before in value(), after in value(),
        pretty in any::<bool>(), cuts in proptest::collection::vec(0usize..2000, 0..8),
    ) {
        let list = if pretty { serde_json::to_string_pretty(&items) } else { serde_json::to_string(&items) }.unwrap();
        let text = format!("{{\"before\":{before}, \"results\" : {list} ,\"after\":{after}}}\n");
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.sort_unstable();
        let (mut pieces, mut from) = (Vec::new(), 0);
        for cut in cuts.into_iter().chain([text.len()]) {
            pieces.push(&text.as_bytes()[from..cut]);
            from = cut;
        }
        let (found, rest) = split(&pieces).unwrap();
        prop_assert_eq!(parsed(&found, &rest), expected(&text));
        prop_assert_eq!(bytewise(&text).unwrap(), (found, rest));
    }

    #[test]
    fn what_is_no_json_is_refused_by_someone(text in r#"[{}\[\]",:\\ 1a]{0,20}|\{"results":[{}\[\]",:\\ 1a]{0,20}"#) {
        // What the parser that sees the whole refuses, no part may let through.
        let whole = serde_json::from_str::<Value>(&text).is_ok();
        let by_parts = bytewise(&text).ok().and_then(|(items, rest)| parsed(&items, &rest)).is_some();
        let is_object = text.trim_start().starts_with('{');
        prop_assert_eq!(by_parts, whole && is_object, "{}", text);
    }
}

#[test]
fn members_come_in_any_order_and_items_verbatim() {
    let (items, rest) = bytewise(r#"{"results":[ {"a" : 1.0,  "b":[2 ]}, "x" ,7],"worker":"w"}"#).unwrap();
    assert_eq!(items, [&br#"{"a" : 1.0,  "b":[2 ]}"#[..], br#""x""#, b"7"]);
    assert_eq!(rest, br#"{"results":[],"worker":"w"}"#);
    // Only a key at the top is the list.
    let (items, rest) = bytewise(r#"{"worker":"results","other":{"results":[1]},"results":[2]}"#).unwrap();
    assert_eq!(items, [b"2"]);
    assert_eq!(rest, br#"{"worker":"results","other":{"results":[1]},"results":[]}"#);
}

#[test]
fn errors_name_the_place() {
    let error = |text: &str| bytewise(text).unwrap_err().to_string();
    assert_eq!(error(" [1]"), "expected an object at byte 1");
    assert_eq!(error(r#"{"results":[1 2]}"#), "expected `,` or `]` at byte 14");
    assert_eq!(error(r#"{"results":[1,]}"#), "expected an item at byte 14");
    assert_eq!(
        error(r#"{"results":[1,{"a":"#),
        "the body ends at byte 19, inside results[1]"
    );
    assert_eq!(bytewise("  [{"), Err(Unsplittable::BareList { at: 2 }));
    assert_eq!(error("7"), "expected an object at byte 0");
}

#[test]
fn a_member_is_seen_before_its_object_is_whole() {
    let begun = br#"{"status":"succeeded","lease":"l1-7","result":{"a":[1,2"#;
    assert_eq!(peek(begun, "lease").as_deref(), Some("l1-7"));
    for (text, member) in [
        (&begun[..], "missing"),
        (br#"{"result":[1,2"#, "lease"),
        (br#"{"lease":"l1"#, "lease"),
        (br#"{"lease":7,"#, "lease"),
        (b"[1", "lease"),
        (b"", "lease"),
    ] {
        assert_eq!(peek(text, member), None);
    }
}
