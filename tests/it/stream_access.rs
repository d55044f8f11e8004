//! Who may watch: tickets, tokens, queues, origins.
//!
//! Owns: the access rules of streams as clients meet them. Never: looks into the node. Invariant: a ticket never opens more than once.

use crate::app::{App, Place, quick};
use crate::http_auth::token;
use crate::http_call::{send, send_as};
use crate::stream_client::Socket;
use serde_json::{Value, json};
use tallykeeper::http::HttpSettings;

/// Makes a ticket with a token.
async fn ticket(app: &App, token: &str, path: &str) -> String {
    let answer = send_as(app, token, "POST", "/v1/tickets", json!({"path": path})).await;
    assert_eq!(
        (answer.status, answer.header("cache-control")),
        (201, "no-store"),
        "{answer:?}"
    );
    assert!(answer.json()["expires_at"].is_string());
    answer.json()["ticket"].as_str().expect("a text").to_owned()
}

async fn refused(app: &App, path: &str, ticket: &str) -> (u16, Value) {
    let opened = Socket::try_open(app, &format!("{path}?ticket={ticket}"), &[]).await;
    let (status, problem) = opened.err().expect("the ticket is refused");
    (status, problem["code"].clone())
}

async fn a_ticket_opens_one_stream_once(place: Place) {
    let app = App::start(&place, quick()).await;
    let job = app.job(1, json!({})).await;
    let path = format!("/v1/jobs/{job}/progress");
    let (_, admin) = token(&app, "", json!({"name": "a", "scopes": ["admin"]})).await;
    let (_, reader) = token(&app, &admin, json!({"name": "r", "scopes": ["read"]})).await;
    let unauthenticated = (401, json!("unauthenticated"));
    assert_eq!(Socket::try_open(&app, &path, &[]).await.err().expect("no token").0, 401);

    let first = ticket(&app, &reader, &path).await;
    let mut socket = Socket::open(&app, &format!("{path}?rate_hz=5&ticket={first}")).await;
    assert_eq!(socket.message().await["type"], "snapshot");
    assert_eq!(refused(&app, &path, &first).await, unauthenticated);
    let events = ticket(&app, &reader, &path).await;
    let headers = [("accept", "text/event-stream"), ("connection", "close")];
    let other_path = send(&app.url, "GET", &format!("/v1/progress?ticket={events}"), &headers, "").await;
    assert_eq!(other_path.status, 401);
    assert_eq!(refused(&app, &path, &events).await, unauthenticated);
    assert_eq!(refused(&app, &path, "tkt_guess").await, unauthenticated);

    // Nothing else takes a ticket, and nothing else gets one.
    let view = ticket(&app, &reader, &path).await;
    let answer = send(&app.url, "GET", &format!("/v1/jobs/{job}?ticket={view}"), &[], "").await;
    assert_eq!(answer.status, 401);
    for bad in [
        "/v1/jobs",
        "/v1/jobs/1",
        "/v1/progress?queue=q",
        "",
        "/v1/jobs/1/progress/",
    ] {
        let answer = send_as(&app, &reader, "POST", "/v1/tickets", json!({"path": bad})).await;
        assert_eq!((answer.status, &answer.json()["field"]), (400, &json!("path")), "{bad}");
    }
    let bearer = format!("Bearer {reader}");
    match Socket::try_open(&app, &path, &[("authorization", &bearer)]).await {
        Ok(mut socket) => assert_eq!(socket.message().await["type"], "snapshot"),
        Err(refused) => panic!("{refused:?}"),
    }
    app.stop().await;
}

mod sqlite {
    #[actix_web::test]
    async fn a_ticket_opens_one_stream_once() {
        super::a_ticket_opens_one_stream_once(crate::app::Place::sqlite()).await;
    }
}

mod postgres {
    #[actix_web::test]
    async fn a_ticket_opens_one_stream_once() {
        super::a_ticket_opens_one_stream_once(crate::app::Place::postgres().await).await;
    }
}

#[actix_web::test]
async fn an_expired_ticket_opens_nothing() {
    let http = HttpSettings {
        workers: 2,
        ticket_lifetime_ms: 0,
        ..HttpSettings::default()
    };
    let app = App::start_with(&Place::sqlite(), quick(), http).await;
    let (_, admin) = token(&app, "", json!({"name": "a", "scopes": ["admin"]})).await;
    let made = ticket(&app, &admin, "/v1/progress").await;
    assert_eq!(refused(&app, "/v1/progress", &made).await.0, 401);
    app.stop().await;
}

#[actix_web::test]
async fn a_ticket_reaches_no_further_than_its_token() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let theirs = app.job(1, json!({"queue": "theirs"})).await;
    let mine = app.job(1, json!({"queue": "mine"})).await;
    let early = {
        let (status, made) = app.post("/v1/tickets", json!({"path": "/v1/progress"})).await;
        assert_eq!(status, 201);
        made["ticket"].as_str().expect("a text").to_owned()
    };
    let (_, admin) = token(&app, "", json!({"name": "a", "scopes": ["admin"]})).await;
    // It was made by nobody in particular, who has no rights any more.
    assert_eq!(refused(&app, "/v1/progress", &early).await.0, 401);
    let limited = json!({"name": "m", "scopes": ["read"], "queues": ["mine"]});
    let (id, reader) = token(&app, &admin, limited).await;
    let path = format!("/v1/jobs/{theirs}/progress");
    let made = ticket(&app, &reader, &path).await;
    assert_eq!(refused(&app, &path, &made).await, (404, json!("not_found")));
    let made = ticket(&app, &reader, "/v1/progress").await;
    let mut socket = Socket::open(&app, &format!("/v1/progress?ticket={made}")).await;
    assert_eq!(socket.message().await["id"], mine);
    let listed = socket.message().await;
    assert_eq!(listed, json!({"type": "listed", "jobs": 1, "more": false}));
    let (_, worker) = token(&app, &admin, json!({"name": "w", "scopes": ["work"]})).await;
    let answer = send_as(&app, &worker, "POST", "/v1/tickets", json!({"path": "/v1/progress"})).await;
    assert_eq!(answer.status, 403);

    let unused = ticket(&app, &reader, "/v1/progress").await;
    let revoked = send_as(&app, &admin, "DELETE", &format!("/v1/tokens/{id}"), Value::Null).await;
    assert_eq!(revoked.status, 204);
    assert_eq!(refused(&app, "/v1/progress", &unused).await.0, 401);
    assert_eq!(socket.rest().await.1, 1008, "an open stream ends as well");
    app.stop().await;
}

#[actix_web::test]
async fn without_tokens_pages_from_elsewhere_cannot_watch() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let own = [("origin", app.url.as_str())];
    assert!(Socket::try_open(&app, "/v1/progress", &own).await.is_ok());
    for headers in [
        [("origin", "http://evil.example")],
        [("origin", "null")],
        [("host", "evil.example")],
    ] {
        let refused = Socket::try_open(&app, "/v1/progress", &headers).await;
        assert_eq!(refused.err().expect("it is refused").0, 403, "{headers:?}");
    }
    app.stop().await;
}
