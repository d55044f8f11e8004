//! A node whose answers are held against its own API document.
//!
//! Owns: the calls and the comparison of status, media type and body. Never: says what should be answered; the document does. Invariant: no
//! answer of a call here passes that the document does not describe.

use crate::app::{App, Place, quick};
use crate::callbacks_receiver::caller;
use crate::http_call::{Answer, send};
use crate::openapi_schema::faults;
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// A node, its document, and which of its operations were called.
pub(crate) struct Held {
    pub(crate) app: App,
    pub(crate) document: Value,
    pub(crate) called: RefCell<BTreeSet<(String, String)>>,
}

impl Held {
    pub(crate) async fn start() -> Held {
        let app = App::start_calling(&Place::sqlite(), quick(), caller(&["127.0.0.1"], 10)).await;
        let document = app.get("/openapi.json").await.1;
        Held {
            app,
            document,
            called: RefCell::default(),
        }
    }

    pub(crate) fn operation(&self, method: &str, pattern: &str) -> &Value {
        let operation = &self.document["paths"][pattern][method.to_lowercase()];
        assert!(operation.is_object(), "{method} {pattern} is not documented");
        self.called.borrow_mut().insert((method.to_owned(), pattern.to_owned()));
        operation
    }

    /// Calls a route with what stands for the parts of its path; answers what came back, which kept to the document.
    pub(crate) async fn call(&self, method: &str, route: &str, parts: &[&str], body: Value) -> Answer {
        self.call_with(method, route, parts, &[], body).await
    }

    pub(crate) async fn call_with(
        &self,
        method: &str,
        route: &str,
        parts: &[&str],
        headers: &[(&str, &str)],
        body: Value,
    ) -> Answer {
        let (pattern, query) = route.split_once('?').unwrap_or((route, ""));
        let operation = self.operation(method, pattern);
        let mut path = String::new();
        let mut parts = parts.iter();
        for (i, piece) in pattern.split('{').enumerate() {
            match piece.split_once('}') {
                Some((_, rest)) if i > 0 => path += &format!("{}{rest}", parts.next().expect("a part for each name")),
                _ => path += piece,
            }
        }
        if !query.is_empty() {
            path += &format!("?{query}");
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let name = pair.split('=').next();
            let known = operation["parameters"].as_array().into_iter().flatten();
            assert!(
                known.clone().any(|known| known["name"].as_str() == name),
                "{pattern}: {pair}"
            );
        }
        let mut headers = headers.to_vec();
        let mut text = String::new();
        if !body.is_null() {
            headers.push(("content-type", "application/json"));
            text = body.to_string();
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            if method != "POST" || !schema.is_null() {
                self.keeps(schema, &body, &format!("{method} {pattern} (request)"));
            }
        }
        let answer = send(&self.app.url, method, &path, &headers, &text).await;
        self.check(operation, &answer, &format!("{method} {path}"));
        answer
    }

    pub(crate) fn keeps(&self, schema: &Value, value: &Value, at: &str) {
        let found = faults(&self.document, schema, value, "");
        assert!(found.is_empty(), "{at}:\n{}\n{value}", found.join("\n"));
    }

    pub(crate) fn check(&self, operation: &Value, answer: &Answer, at: &str) {
        let responses = &operation["responses"];
        let said = responses.get(answer.status.to_string());
        let said = said.or_else(|| responses.get("default").filter(|_| answer.status >= 400));
        let said = said.unwrap_or_else(|| panic!("{at}: {} is not documented: {answer:?}", answer.status));
        let media = answer
            .header("content-type")
            .split(';')
            .next()
            .unwrap_or("")
            .trim()
            .to_owned();
        let Some(forms) = said["content"].as_object() else {
            assert!(answer.text.is_empty(), "{at}: no body is documented: {answer:?}");
            return;
        };
        let form = forms.get(&media).or_else(|| forms.get("*/*"));
        let form = form.unwrap_or_else(|| panic!("{at}: {media} is not documented"));
        let Some(schema) = form.get("schema") else {
            assert!(serde_json::from_str::<Value>(&answer.text).is_ok(), "{at}: no JSON");
            return;
        };
        match media.as_str() {
            "application/json" | "application/problem+json" => self.keeps(schema, &answer.json(), at),
            "application/x-ndjson" => {
                for line in answer.text.lines() {
                    self.keeps(schema, &serde_json::from_str(line).expect("a line is JSON"), at);
                }
            }
            "text/event-stream" => {
                for json in answer.text.lines().filter_map(|line| line.strip_prefix("data: ")) {
                    self.keeps(schema, &serde_json::from_str(json).expect("an event is JSON"), at);
                }
            }
            _ => assert_eq!(schema["type"], "string", "{at}"),
        }
    }

    pub(crate) async fn job(&self, tasks: usize, more: Value) -> String {
        self.app.job(tasks, more).await.to_string()
    }
}
