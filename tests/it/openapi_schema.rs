//! Does JSON keep to a schema of the API document?
//!
//! Owns: the part of JSON Schema that the document uses. Never: lets a keyword of a schema pass that it does not know. Invariant: a member
//! that the schema does not name is a fault.

use serde_json::Value;

/// What is wrong with `value`, each with its place.
pub(crate) fn faults(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (keyword, rule) in schema.as_object().expect("a schema is an object") {
        let rules = || rule.as_array().expect("a list");
        let matching = || {
            let fits = |rule: &&Value| faults(document, rule, value, at).is_empty();
            rules().iter().filter(fits).count()
        };
        match keyword.as_str() {
            "$ref" => {
                let pointer = rule.as_str().expect("text").trim_start_matches('#');
                let target = document
                    .pointer(pointer)
                    .unwrap_or_else(|| panic!("{rule} is not there"));
                found.extend(faults(document, target, value, at));
            }
            "type" => {
                let kinds = match rule {
                    Value::Array(kinds) => kinds.clone(),
                    kind => vec![kind.clone()],
                };
                if !kinds.iter().any(|kind| is_of(value, kind.as_str().expect("text"))) {
                    found.push(format!("{at}: {value} is not of {rule}"));
                }
            }
            "enum" if !rules().contains(value) => found.push(format!("{at}: {value} is none of {rule}")),
            "required" => {
                let absent = rules()
                    .iter()
                    .filter(|name| value.get(name.as_str().expect("text")).is_none());
                found.extend(absent.map(|name| format!("{at}: {name} is missing")));
            }
            "oneOf" if matching() != 1 => found.push(format!("{at}: {value} fits {} of {rule}", matching())),
            "anyOf" if matching() == 0 => found.push(format!("{at}: {value} fits none of {rule}")),
            "items" => {
                let items = value.as_array().into_iter().flatten().enumerate();
                found.extend(items.flat_map(|(i, item)| faults(document, rule, item, &format!("{at}[{i}]"))));
            }
            "minimum" if value.is_number() && value.as_f64() < rule.as_f64() => {
                found.push(format!("{at}: {value} is below {rule}"))
            }
            "enum"
            | "oneOf"
            | "anyOf"
            | "minimum"
            | "properties"
            | "additionalProperties"
            | "description"
            | "format"
            | "default"
            | "propertyNames" => {}
            other => panic!("{at}: the keyword {other} is not checked"),
        }
    }
    if schema.get("properties").is_some() || schema.get("additionalProperties").is_some() {
        for (name, member) in value.as_object().into_iter().flatten() {
            let place = format!("{at}.{name}");
            match (schema["properties"].get(name), schema.get("additionalProperties")) {
                (Some(known), _) => found.extend(faults(document, known, member, &place)),
                (None, Some(rest)) if rest.is_object() => found.extend(faults(document, rest, member, &place)),
                _ => found.push(format!("{place} is not documented")),
            }
        }
    }
    found
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        other => panic!("no such type: {other}"),
    }
}

#[test]
fn the_check_finds_what_is_wrong() {
    let schema = serde_json::json!({
        "type": "object", "required": ["a"],
        "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}, "c": {"type": "array", "items": {"type": ["string", "null"]}}}
    });
    for (value, faulty) in [
        (r#"{"a":1,"b":"x","c":["s",null]}"#, 0),
        (r#"{"b":"x"}"#, 1),
        (r#"{"a":1.5}"#, 1),
        (r#"{"a":1,"b":"z"}"#, 1),
        (r#"{"a":1,"c":[1,"s",true]}"#, 2),
        (r#"{"a":1,"d":1}"#, 1),
        ("[]", 2),
    ] {
        let value: Value = serde_json::from_str(value).expect("JSON");
        let found = faults(&Value::Null, &schema, &value, "");
        assert_eq!(found.len(), faulty, "{value}: {found:?}");
    }
}
