//! What the page tells besides the tally, in a real browser: why a job is not done, what failed, who works, its log, its queues.
//!
//! Owns: the content of those panels. Never: waits for a time. Invariant: what the page shows is what the node answers.

use crate::app::{App, Place, failure, quick, success};
use crate::browser::Browser;
use crate::callbacks_receiver::{Answer, Receiver, caller};
use crate::process::Launch;
use crate::stream_client::{Socket, progress};
use serde_json::{Value, json};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};

/// The texts of a table's rows, cell by cell.
fn rows(label: &str) -> String {
    format!(
        "[...document.querySelectorAll('table[aria-label=\"{label}\"] tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
}

/// One job as people meet it: some done, some failed, some held by two workers, with marks, notes and a log.
async fn busy_job(app: &App) -> i64 {
    let more = json!({
        "name": "Survey 12", "queue": "moths", "open": true, "policy": {"max_attempts": 1},
        "stages": [{"key": "detect", "name": "Detect"}, {"key": "save", "name": "Save"}],
    });
    let job = app.job(20, more).await;
    let first = app.lease(job, "gpu-1", 9).await;
    let mut results: Vec<Value> = first[..5].iter().map(success).collect();
    results.extend(first[5..7].iter().map(failure));
    app.report(job, "gpu-1", results).await;
    app.lease(job, "gpu-2", 3).await;
    let held = [&first[7]["lease"], &first[8]["lease"]];
    let said = json!({"worker": "gpu-1", "leases": held, "stage": "detect", "note": "warming up"});
    assert_eq!(app.post(&format!("/v1/jobs/{job}/leases/extend"), said).await.0, 200);
    job
}

async fn log(app: &App, job: i64, level: &str, message: &str) {
    let entries = json!({"entries": [{"worker": "gpu-1", "level": level, "message": message, "task": 3}]});
    assert_eq!(app.post(&format!("/v1/jobs/{job}/logs"), entries).await.0, 200);
}

#[actix_web::test]
async fn a_job_explains_itself_and_its_log_is_followed() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = busy_job(&app).await;
    log(&app, job, "warn", "disk <i>nearly</i> full").await;
    let page = Browser::open(1280, 900).await;
    page.go(&format!("{}/#/jobs/{job}", app.url)).await;

    let told = page
        .until(&format!(
            "(({}).length === 13) && ({})",
            rows("Undecided tasks"),
            rows("Undecided tasks")
        ))
        .await;
    let (_, explained) = app.get(&format!("/v1/jobs/{job}/explain?limit=500")).await;
    let undecided = explained["undecided"].as_array().expect("a list");
    assert_eq!(undecided.len(), 13);
    for (row, task) in told.as_array().expect("rows").iter().zip(undecided) {
        let name = format!(
            "{} · {}",
            task["task"],
            task["key"].as_str().expect("every task has a key")
        );
        assert_eq!((&row[0], &row[1]), (&json!(name), &task["state"]));
    }
    let noted = told
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row[5] == "detect; warming up")
        .count();
    assert_eq!(noted, 2, "stage and note of what gpu-1 holds: {told}");
    let reasons = page
        .js("return [...document.querySelectorAll('.reasons li')].map((line) => line.textContent)")
        .await;
    let said = reasons.to_string();
    for reason in ["5 tasks are leased", "8 tasks wait to be leased", "open to more tasks"] {
        assert!(said.contains(reason), "{reason}: {said}");
    }

    let holders = "[...document.querySelectorAll('.holders li')].map((line) => line.textContent)";
    assert_eq!(
        page.until(holders).await,
        json!(["gpu-12 tasksk7, k8", "gpu-23 tasksk9, k10, k11"])
    );
    let failures = page
        .until(&format!("({0}).length && {0}", rows("Failures by error")))
        .await;
    assert_eq!(failures.as_array().map(Vec::len), Some(1), "{failures}");
    assert_eq!((&failures[0][0], &failures[0][2]), (&json!("2"), &json!("5, 6")));
    let marks = page.js("return [...document.querySelectorAll('.stages [role=progressbar]')].map((bar) => bar.getAttribute('aria-valuenow'))").await;
    assert_eq!(
        marks,
        json!(["7", "5"]),
        "five succeeded, two more have come to the first stage"
    );

    // The log is followed while it grows, as text.
    let lines = "[...document.querySelectorAll('.log li')].map((line) => line.dataset.level + ': ' + line.querySelector('.message').firstChild.textContent)";
    page.until(&format!("({lines}).includes('warn: disk <i>nearly</i> full')"))
        .await;
    log(&app, job, "error", "out of memory").await;
    page.until(&format!("({lines}).includes('error: out of memory')")).await;
    page.js("const level = document.getElementById('log-level'); level.value = 'error'; level.dispatchEvent(new Event('change'))").await;
    // The node's own entries of the failed tasks are errors too.
    let only_errors = format!("({lines}).every((line) => line.startsWith('error: '))");
    page.until(&format!("{only_errors} && ({lines}).includes('error: out of memory')"))
        .await;
    page.js("const level = document.getElementById('log-level'); level.value = ''; level.dispatchEvent(new Event('change'))").await;
    page.until(&format!("({lines}).includes('warn: disk <i>nearly</i> full')"))
        .await;

    page.expect_no_sideways_scroll().await;
    page.picture("facts-1280").await;
    page.prefer_dark().await;
    let dark =
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).every((part) => Number(part) < 80)";
    page.until(dark).await;
    page.picture("facts-dark-1280").await;
    page.expect_quiet_console().await;
    app.stop().await;
}

#[actix_web::test]
async fn workers_and_queues_are_listed_as_the_node_tells() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = busy_job(&app).await;
    app.job(4, json!({"queue": "birds", "start": false})).await;
    let page = Browser::open(1280, 900).await;
    page.go(&format!("{}/#/workers", app.url)).await;
    let workers = page.until(&format!("({0}).length === 2 && {0}", rows("Workers"))).await;
    let mut workers: Vec<&[Value]> = workers
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row.as_array().unwrap()[..6])
        .collect();
    workers.sort_by_key(|row| row[0].to_string());
    let (one, two) = (format!("2 tasks of #{job}"), format!("3 tasks of #{job}"));
    assert_eq!(workers[0], ["gpu-1", "alive", &one, "moths", "5", "2"]);
    assert_eq!(workers[1], ["gpu-2", "alive", &two, "moths", "0", "0"]);
    page.picture("workers-1280").await;

    page.go(&format!("{}/#/queues", app.url)).await;
    let queues = page.until(&format!("({0}).length === 2 && {0}", rows("Queues"))).await;
    let (_, listed) = app.get("/v1/queues").await;
    let node = listed["items"][0]["node"].as_str().expect("a node owns it");
    let short: Vec<Vec<&str>> = queues
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            row.as_array()
                .unwrap()
                .iter()
                .map(|cell| cell.as_str().unwrap())
                .collect()
        })
        .collect();
    // Queue, node, epoch; pending, running, paused, canceling; finished, claimable tasks, workers.
    assert_eq!(short[0][..2], ["birds", node]);
    assert_eq!(short[0][3..], ["1", "0", "0", "0", "0", "0", "0"]);
    assert_eq!(short[1][3..], ["0", "1", "0", "0", "0", "8", "2"]);
    page.picture("queues-1280").await;
    page.click("table[aria-label=Queues] tbody a").await;
    page.until("location.hash.includes('queue=birds') && document.querySelectorAll('tbody tr').length === 1")
        .await;
    page.expect_quiet_console().await;
    app.stop().await;
}

#[actix_web::test]
async fn the_numbers_are_the_same_in_get_stream_page_and_terminal() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = busy_job(&app).await;
    let asked = app.view(job).await["progress"].clone();
    let parts = ["succeeded", "failed", "leased", "retrying", "pending"];
    let numbers = |of: &Value| parts.map(|part| of[part].as_u64().expect("a number"));
    assert_eq!(numbers(&asked), [5, 2, 5, 0, 8]);

    let mut socket = Socket::open(&app, &format!("/v1/jobs/{job}/progress")).await;
    assert_eq!(numbers(progress(&socket.message().await)), numbers(&asked));

    let mut program = Launch::new(Place::sqlite()).program();
    program
        .current_dir(std::env::temp_dir())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut watch = program
        .args(["watch", "--json", "--server", &app.url, &job.to_string()])
        .spawn()
        .expect("the program is built");
    let mut lines = BufReader::new(watch.stdout.take().expect("piped")).lines();
    let line = lines.next_line().await.expect("text").expect("a message comes");
    let said: Value = serde_json::from_str(&line).expect("a line is JSON");
    assert_eq!(numbers(progress(&said)), numbers(&asked));

    let page = Browser::open(1280, 900).await;
    page.go(&format!("{}/#/jobs/{job}", app.url)).await;
    page.until(&format!(
        "document.querySelector('.tally').dataset.seq === '{}'",
        asked["seq"]
    ))
    .await;
    for part in parts {
        let shown =
            format!("return Number(document.querySelector('[data-count={part}]').textContent.replaceAll(',', ''))");
        assert_eq!(page.js(&shown).await, asked[part], "{part}");
    }
    watch.kill().await.expect("it was still watching");
    app.stop().await;
}

#[actix_web::test]
async fn a_callback_that_was_given_up_is_shown_and_sent_again() {
    let mut receiver = Receiver::start().await;
    receiver.answer([Answer::Status(410, "")]);
    let app = App::start_calling(&Place::sqlite(), quick(), caller(&["127.0.0.1"], 10)).await;
    let job = app.job(0, json!({"callback_url": receiver.url("/hook")})).await;
    receiver.call().await;
    let page = Browser::open(1280, 900).await;
    page.go(&format!("{}/#/jobs/{job}", app.url)).await;
    let panel = |state: &str| {
        let panel = format!("document.querySelector('section[aria-label=\"Callback\"][data-state=\"{state}\"]')");
        format!("{panel} && !{panel}.hidden && {panel}.textContent")
    };
    let shown = page.until(&panel("failed")).await.to_string();
    for part in ["Given up", "after 1 attempt.", "answered 410", &receiver.url("/hook")] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    page.click("section[aria-label=\"Callback\"] button").await;
    receiver.call().await;
    let shown = page.until(&panel("delivered")).await.to_string();
    assert!(shown.contains("at attempt 1") && !shown.contains("410"), "{shown}");
    page.expect_quiet_console().await;
    // A job that tells nobody shows nothing of the kind.
    let silent = app.job(0, json!({})).await;
    page.go(&format!("{}/#/jobs/{silent}", app.url)).await;
    page.until(&format!(
        "document.title.includes('succeeded') && location.hash === '#/jobs/{silent}'"
    ))
    .await;
    let hidden = "document.querySelector('section[aria-label=\"Callback\"]').hidden";
    assert_eq!(page.until(hidden).await, json!(true));
    app.stop().await;
}

#[actix_web::test]
async fn names_as_long_as_may_be_stay_inside_their_page() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let long = "w".repeat(250);
    let job = app
        .job(
            2,
            json!({"name": long, "queue": long, "labels": {long.clone(): long}, "start": false}),
        )
        .await;
    let page = Browser::open(1280, 900).await;
    for (path, shown) in [
        (format!("#/jobs/{job}"), ".pairs dt"),
        ("#/queues".to_owned(), ".scroller .name"),
        (format!("v1/jobs/{job}/report"), "h1"),
    ] {
        page.go(&format!("{}/{path}", app.url)).await;
        page.until(&format!("document.querySelector('{shown}')?.textContent"))
            .await;
        let over = page
            .js("const root = document.documentElement; return root.scrollWidth - root.clientWidth")
            .await;
        assert_eq!(over, 0, "{path} is wider than its window");
        // The columns beside the name can be seen without scrolling.
        let hidden = page
            .js("return [...document.querySelectorAll('.scroller')].filter((one) => one.offsetParent && one.scrollWidth > one.clientWidth).length")
            .await;
        assert_eq!(hidden, 0, "{path} hides columns");
    }
    app.stop().await;
}
