//! The page where the node is not simply there: tokens, nodes that die and come back, sockets that are not let through.
//!
//! Owns: the page's honesty about its connection. Never: trusts a number on the screen without asking the node. Invariant: a page that
//! lost its node says so, and shows true numbers again without being touched.

use crate::app::{App, Place, quick};
use crate::browser::{Browser, ENTER};
use crate::http_call::send_as;
use crate::process::Launch;
use serde_json::{Value, json};

const CONNECTED: &str = "document.getElementById('connection').dataset.state === 'live'";
const STALE: &str =
    "document.documentElement.dataset.connection === 'stale' && !document.getElementById('banner').hidden";

fn tasks(count: usize) -> Value {
    (0..count).map(|n| json!({"payload": n})).collect()
}

#[actix_web::test]
async fn a_page_outlives_its_node_and_says_while_it_is_stale() {
    let launch = Launch::new(Place::sqlite());
    let mut node = launch.start().await;
    let client = launch.client();
    let job = client
        .post("/v1/jobs", json!({"name": "long", "queue": "q", "tasks": tasks(20)}))
        .await;
    let id = job["id"].as_i64().expect("an id is a number");
    let leases = format!("/v1/jobs/{id}/leases");
    let results = format!("/v1/jobs/{id}/results");
    let succeed = async |count: usize| {
        let leased = client.post(&leases, json!({"worker": "w", "max_tasks": count})).await;
        let leased = leased["tasks"].as_array().expect("tasks is a list").clone();
        let done: Vec<_> = leased
            .iter()
            .map(|task| json!({"lease": task["lease"], "status": "succeeded"}))
            .collect();
        client.post(&results, json!({"worker": "w", "results": done})).await;
    };
    let (one, list) = (Browser::open(1280, 900).await, Browser::open(1280, 900).await);
    one.go(&format!("{}/#/jobs/{id}", launch.url())).await;
    list.go(&launch.url()).await;
    one.until(CONNECTED).await;
    list.until(CONNECTED).await;
    succeed(5).await;
    let decided = |count: u32| {
        format!("document.querySelector('[role=progressbar]').getAttribute('aria-valuenow') === '{count}'")
    };
    one.until(&decided(5)).await;
    list.until(&decided(5)).await;
    one.expect_quiet_console().await;

    node.kill().await;
    for page in [&one, &list] {
        page.until(STALE).await;
        page.until("document.getElementById('banner').textContent.startsWith('Not live since')")
            .await;
        // Old numbers stay, marked as old.
        assert_eq!(page.js(&format!("return {}", decided(5))).await, true);
    }
    one.until("document.getElementById('announcer').textContent.includes('Connection lost')")
        .await;

    let _node = launch.start().await;
    succeed(4).await;
    for page in [&one, &list] {
        page.until(CONNECTED).await;
        page.until("document.getElementById('banner').hidden").await;
        page.until(&decided(9)).await;
        let loud = page.console().await.into_iter().filter(|(level, _)| level == "SEVERE");
        let unexpected: Vec<_> = loud
            .filter(|(_, text)| !text.contains("ERR_") && !text.contains("WebSocket"))
            .collect();
        assert!(unexpected.is_empty(), "{unexpected:?}");
    }
}

#[actix_web::test]
async fn where_tokens_are_in_force_the_page_asks_for_one_and_keeps_it_out_of_addresses() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = app.job(4, json!({})).await;
    let (status, made) = app
        .post("/v1/tokens", json!({"name": "root", "scopes": ["admin"]}))
        .await;
    assert_eq!(status, 201, "{made}");
    let admin = made["token"].as_str().expect("a token is text").to_owned();
    let made = send_as(
        &app,
        &admin,
        "POST",
        "/v1/tokens",
        json!({"name": "r", "scopes": ["read"]}),
    )
    .await;
    let reader = made.json()["token"].as_str().expect("a token is text").to_owned();

    let page = Browser::open(1280, 900).await;
    page.go(&format!("{}/#/jobs/{job}", app.url)).await;
    page.until("document.querySelector('dialog[open] #token-input')").await;
    page.press("not a token").await;
    page.press(ENTER).await;
    page.until("document.querySelector('dialog[open] .problem')?.textContent === 'The token was refused.'")
        .await;
    page.press(&reader).await;
    page.press(ENTER).await;
    page.until(CONNECTED).await;
    page.until("document.querySelector('[data-count=pending]').textContent === '4'")
        .await;

    // A reader may not cancel, and is told so.
    page.click("[data-action=cancel]").await;
    page.click("dialog[open] button[type=submit]").await;
    page.until("document.querySelector('dialog[open] .problem').textContent.includes('scope')")
        .await;
    page.click("dialog[open] button[type=button]").await;

    let seen = page.js("return performance.getEntriesByType('resource').map((one) => one.name).join(' ') + location.href + document.cookie").await;
    assert!(!seen.as_str().expect("text").contains(&reader[..12]), "{seen}");
    assert_eq!(page.js("return localStorage.length").await, 0);
    assert_eq!(page.js("return Object.values(sessionStorage)").await, json!([reader]));
    page.go(&format!("{}/#/jobs", app.url)).await;
    page.until(CONNECTED).await;
    page.click("#forget-token").await;
    page.until("document.querySelector('dialog[open] #token-input')").await;
    // The node answers: it is not to blame, and nothing is tried again until there is a token.
    page.until("document.getElementById('connection').dataset.state === 'locked'")
        .await;
    assert_eq!(page.js("return document.getElementById('banner').hidden").await, true);
    app.stop().await;
}

#[actix_web::test]
async fn a_page_whose_sockets_are_cut_asks_again_and_again() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = app.job(4, json!({})).await;
    let page = Browser::open(1280, 900).await;
    page.go(&format!("{}/#/queues", app.url)).await;
    page.until("document.querySelector('h1')").await;
    // As behind a proxy that knows no sockets: they close before they open.
    page.js("window.WebSocket = class extends EventTarget { constructor() { super(); setTimeout(() => this.dispatchEvent(new CloseEvent('close', {code: 1006}))); } close() {} }").await;
    page.js(&format!("location.hash = '#/jobs/{job}'")).await;
    page.until("document.getElementById('connection').dataset.state === 'polling'")
        .await;
    let leased = app.lease(job, "w", 2).await;
    assert_eq!(leased.len(), 2);
    page.until("document.querySelector('[data-count=leased]').textContent === '2'")
        .await;
    page.expect_quiet_console().await;
    app.stop().await;
}
