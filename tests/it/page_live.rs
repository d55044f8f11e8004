//! The page in a real browser: numbers that move, what can be done to a job, who can use it.
//!
//! Owns: what people see and touch. Never: waits for a time; the page itself says when something is there. Invariant: no test of a
//! healthy node leaves an error on the browser's console.

use crate::app::{App, Place, failure, quick, success};
use crate::browser::{Browser, ENTER, ESCAPE, TAB};
use serde_json::{Value, json};

const CONNECTED: &str = "document.getElementById('connection').dataset.state === 'live'";

/// The number a part of the legend shows.
fn shown(part: &str) -> String {
    format!("Number(document.querySelector('[data-count={part}]').textContent.replaceAll(',', ''))")
}

async fn decide(app: &App, job: i64, tasks: usize, failed: usize) {
    let leased = app.lease(job, "w-1", tasks).await;
    assert_eq!(leased.len(), tasks);
    let results = leased
        .iter()
        .enumerate()
        .map(|(at, task)| if at < failed { failure(task) } else { success(task) });
    app.report(job, "w-1", results.collect()).await;
}

fn stages() -> Value {
    json!([{"key": "detect", "name": "Detect"}, {"key": "save", "name": "Save"}])
}

#[actix_web::test]
async fn bars_move_while_workers_work_and_say_what_get_says() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let more = json!({"name": "Field <b>notes</b>", "stages": stages(), "policy": {"max_attempts": 1, "failure_threshold": {"ratio": 0.9}}});
    let job = app.job(40, more).await;
    let other = app.job(3, json!({"start": false, "name": "Later"})).await;
    let list = Browser::open(1280, 900).await;
    list.go(&app.url).await;
    list.until(CONNECTED).await;
    let one = Browser::open(1280, 900).await;
    one.go(&format!("{}/#/jobs/{job}", app.url)).await;
    one.until(CONNECTED).await;
    one.until(&format!("{} === 40", shown("pending"))).await;
    let row = format!("document.querySelector('tr[data-job=\"{job}\"]')");
    list.until(&format!("{row} && document.querySelector('tr[data-job=\"{other}\"]')"))
        .await;
    // What a user wrote is text.
    assert_eq!(
        one.js("return document.querySelector('h1').textContent").await,
        "Field <b>notes</b>"
    );

    decide(&app, job, 10, 3).await;
    let held = app.lease(job, "w-2", 5).await;
    for (part, count) in [
        ("succeeded", 7),
        ("failed", 3),
        ("leased", 5),
        ("retrying", 0),
        ("pending", 25),
    ] {
        one.until(&format!("{} === {count}", shown(part))).await;
    }
    let bar =
        |value: u32| format!("{row}.querySelector('[role=progressbar]').getAttribute('aria-valuenow') === '{value}'");
    list.until(&bar(10)).await;
    let parts = "[...document.querySelectorAll('.tally .segment')].map((part) => [part.dataset.part, Number(part.style.flexGrow)])";
    let widths = one.js(&format!("return {parts}")).await;
    let order = json!([
        ["succeeded", 7],
        ["failed", 3],
        ["leased", 5],
        ["retrying", 0],
        ["pending", 25]
    ]);
    assert_eq!(widths, order);

    let view = app.view(job).await;
    one.until(&format!(
        "document.querySelector('.tally').dataset.seq === '{}'",
        view["progress"]["seq"]
    ))
    .await;
    let share = one
        .js("return document.querySelector('.tally-share').textContent")
        .await;
    assert_eq!((share, &view["progress"]["fraction"]), (json!("25%"), &json!(0.25)));

    app.report(job, "w-2", held.iter().map(success).collect()).await;
    decide(&app, job, 25, 0).await;
    one.until("document.querySelector('.job-head .state').dataset.state === 'partially_succeeded'")
        .await;
    one.until("document.getElementById('connection').dataset.state === 'ended'")
        .await;
    list.until(&bar(40)).await;
    list.until(&format!(
        "{row}.querySelector('.state').dataset.state === 'partially_succeeded'"
    ))
    .await;
    let view = app.view(job).await;
    for part in ["succeeded", "failed", "leased", "retrying", "pending"] {
        assert_eq!(
            one.js(&format!("return {}", shown(part))).await,
            view["progress"][part],
            "{part}"
        );
    }
    one.expect_quiet_console().await;
    list.expect_quiet_console().await;
    app.stop().await;
}

#[actix_web::test]
async fn a_job_is_paused_resumed_cancelled_and_deleted_through_dialogs() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = app.job(5, json!({})).await;
    let page = Browser::open(1280, 900).await;
    page.go(&format!("{}/#/jobs/{job}", app.url)).await;
    page.until(CONNECTED).await;
    let state = |state: &str| format!("document.querySelector('.job-head .state').dataset.state === '{state}'");

    // Leaving the question changes nothing.
    page.click("[data-action=cancel]").await;
    page.until("document.querySelector('dialog[open]')").await;
    page.press(ESCAPE).await;
    page.until("!document.querySelector('dialog')").await;
    assert_eq!(app.view(job).await["state"], "running");
    assert_eq!(page.js("return document.activeElement.dataset.action").await, "cancel");

    for (action, then) in [("pause", "paused"), ("resume", "running"), ("cancel", "canceled")] {
        page.click(&format!("[data-action={action}]")).await;
        page.click("dialog[open] button[type=submit]").await;
        page.until(&state(then)).await;
        page.until("!document.querySelector('dialog')").await;
        assert_eq!(app.view(job).await["state"], then);
    }
    page.until("document.querySelector('[data-action=retry]') && !document.querySelector('[data-action=cancel]')")
        .await;

    page.click("[data-action=retry]").await;
    page.click("dialog[open] button[type=submit]").await;
    page.until(&state("running")).await;
    assert_eq!(app.view(job).await["run"], 2);
    page.until(CONNECTED).await;
    page.expect_quiet_console().await;

    // An answer that is not good stays in the dialog, in words.
    page.click("[data-action=pause]").await;
    page.until("document.querySelector('dialog[open]')").await;
    app.post(&format!("/v1/jobs/{job}/cancel"), json!({})).await;
    page.click("dialog[open] button[type=submit]").await;
    page.until("document.querySelector('dialog[open] .problem').textContent.includes('canceled')")
        .await;
    page.press(ESCAPE).await;

    page.click("[data-action=delete]").await;
    page.click("dialog[open] button[type=submit]").await;
    page.until("location.hash === '#/jobs' && document.querySelector('.empty:not([hidden]) code')")
        .await;
    assert_eq!(app.get(&format!("/v1/jobs/{job}")).await.0, 404);
    app.stop().await;
}

#[actix_web::test]
async fn filters_live_in_the_address_and_pages_follow_the_cursor() {
    let app = App::start(&Place::sqlite(), quick()).await;
    for number in 0..55 {
        let queue = if number < 5 { "rare" } else { "q" };
        app.job(
            0,
            json!({"name": format!("job {number}"), "queue": queue, "open": true}),
        )
        .await;
    }
    let page = Browser::open(1280, 900).await;
    page.go(&app.url).await;
    let rows = "document.querySelectorAll('tbody tr').length";
    page.until(&format!("{rows} === 50")).await;
    page.click(".pages a:not([hidden])").await;
    page.until(&format!("{rows} === 5 && location.hash.includes('cursor=')"))
        .await;
    page.go(&format!("{}/#/jobs?queue=rare", app.url)).await;
    page.until(&format!(
        "{rows} === 5 && document.getElementById('filter-queue').value === 'rare'"
    ))
    .await;
    page.js("document.getElementById('filter-text').focus()").await;
    page.press("job 3").await;
    page.until(&format!(
        "{rows} === 1 && location.hash.includes('q=job+3') && location.hash.includes('queue=rare')"
    ))
    .await;
    page.js("const state = document.getElementById('filter-state'); state.value = 'failed'; state.dispatchEvent(new Event('change'))").await;
    page.until("!document.querySelector('.nothing').hidden && location.hash.includes('state=failed')")
        .await;
    page.js("const state = document.getElementById('filter-state'); state.value = 'running'; state.dispatchEvent(new Event('change'))").await;
    page.until(&format!("{rows} === 1")).await;
    page.expect_quiet_console().await;
    app.stop().await;
}

#[actix_web::test]
async fn the_keyboard_reaches_everything() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = app.job(5, json!({})).await;
    let page = Browser::open(1280, 900).await;
    page.go(&app.url).await;
    page.until(CONNECTED).await;
    page.until("document.querySelector('.job-link')").await;
    let mut reached = Vec::new();
    for _ in 0..11 {
        page.press(TAB).await;
        let name = "const one = document.activeElement; return one.id || one.textContent";
        reached.push(page.js(name).await.as_str().unwrap_or("").to_owned());
    }
    let expected = [
        "skip",
        "Tallykeeper",
        "Jobs",
        "Workers",
        "Queues",
        "filter-text",
        "filter-state",
        "filter-queue",
        "test",
        "API",
        "OpenAPI",
    ];
    assert_eq!(reached, expected);
    let ring = "const style = getComputedStyle(document.activeElement); return style.outlineStyle + style.outlineWidth";
    assert_eq!(page.js(ring).await, "solid2px");

    page.js("document.querySelector('.job-link').focus()").await;
    page.press(ENTER).await;
    page.until("location.hash.startsWith('#/jobs/') && document.querySelector('[data-action=pause]')")
        .await;
    page.js("document.querySelector('[data-action=pause]').focus()").await;
    page.press(ENTER).await;
    page.until("document.querySelector('dialog[open]')").await;
    page.press(ENTER).await;
    page.until("document.querySelector('.job-head .state').dataset.state === 'paused'")
        .await;
    page.until("document.getElementById('announcer').textContent === 'The job is paused.'")
        .await;
    // A dangerous question is not answered by one stray key.
    page.js("document.querySelector('[data-action=cancel]').focus()").await;
    page.press(ENTER).await;
    page.until("document.querySelector('dialog[open]')").await;
    page.press(ENTER).await;
    page.until("!document.querySelector('dialog')").await;
    assert_eq!(app.view(job).await["state"], "paused");
    let nameless = "return [...document.querySelectorAll('button, input, select, a, [role=progressbar]')].filter((one) => !one.hidden && \
         !(one.textContent.trim() || one.getAttribute('aria-label') || document.querySelector(`label[for=\"${one.id}\"]`))).length";
    assert_eq!(page.js(nameless).await, 0);
    app.stop().await;
}

#[actix_web::test]
async fn the_page_fits_a_phone_and_a_desk_in_light_and_dark() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let more = json!({"name": "A name without any break ".to_owned() + &"x".repeat(90), "stages": stages(), "policy": {"max_attempts": 2}});
    let job = app.job(400, more).await;
    decide(&app, job, 90, 20).await;
    app.lease(job, "a-worker-with-a-rather-long-name.of.some.cluster.example", 25)
        .await;
    for (width, height) in [(1280, 900), (390, 844)] {
        let page = Browser::open(width, height).await;
        for (path, ready) in [
            ("/", "document.querySelector('.job-link')"),
            (
                &*format!("/#/jobs/{job}"),
                "document.querySelector('[data-count=leased]').textContent === '25'",
            ),
            ("/#/workers", "document.querySelector('h1').textContent === 'Workers'"),
            ("/#/queues", "document.querySelector('h1').textContent === 'Queues'"),
        ] {
            page.go(&format!("{}{path}", app.url)).await;
            page.until(ready).await;
            page.expect_no_sideways_scroll().await;
            let name = path.trim_matches(['/', '#']).split('/').next().unwrap_or("").to_owned();
            let name = if path.contains("/jobs/") {
                "job".to_owned()
            } else {
                name
            };
            page.picture(&format!("{}-{width}", if name.is_empty() { "list" } else { &name }))
                .await;
        }
        page.expect_quiet_console().await;
    }
    app.stop().await;
}
