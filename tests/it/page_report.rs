//! The report: true numbers, one file, nothing a user wrote is markup.
//!
//! Owns: the report as clients and browsers get it. Never: judges its looks. Invariant: its tally is that of `GET /v1/jobs/{id}`.

use crate::app::{App, Place, quick, success};
use crate::browser::Browser;
use crate::http_call::send;
use serde_json::json;

const EVIL: &str = "</td><script>document.title='owned'</script><img src=x onerror=alert(1)>";

#[actix_web::test]
async fn a_report_tells_the_tally_and_runs_nothing() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let more = json!({"name": EVIL, "labels": {"site": EVIL}, "policy": {"max_attempts": 1}});
    let job = app.job(1_200, more).await;
    let mut failures = 0;
    loop {
        let leased = app.lease(job, EVIL, 500).await;
        if leased.is_empty() {
            break;
        }
        let results = leased.iter().map(|task| {
            let number = task["task"].as_u64().expect("a number");
            if number % 100 == 7 {
                failures += 1;
                json!({"lease": task["lease"], "status": "failed", "error": if number < 600 { EVIL } else { "out of memory" }})
            } else {
                success(task)
            }
        });
        let results = results.collect();
        app.report(job, EVIL, results).await;
    }
    let view = app.view(job).await;
    assert_eq!((view["progress"]["succeeded"].as_u64(), failures), (Some(1_188), 12));

    let report = send(&app.url, "GET", &format!("/v1/jobs/{job}/report"), &[], "").await;
    assert_eq!(report.status, 200);
    assert_eq!(report.header("content-type"), "text/html; charset=utf-8");
    assert!(
        report
            .header("content-security-policy")
            .starts_with("default-src 'none'")
    );
    for told in [
        "1,188",
        "out of memory",
        "partially succeeded",
        "Failures by error",
        "Durations",
        "Half of them took up to",
    ] {
        assert!(report.text.contains(told), "{told} is missing");
    }
    assert!(!report.text.contains("not on record when their work began"));
    // All results were read, so there is nothing to be sorry for.
    assert!(!report.text.contains("read while the tally stood"));
    for banned in ["<script", "<img", "http://", "https://", "url(", " on"] {
        let found = report
            .text
            .match_indices(banned)
            .find(|(at, _)| !is_plain_text(&report.text, *at));
        assert!(
            found.is_none(),
            "{banned}: {:?}",
            found.map(|(at, _)| &report.text[at..(at + 60).min(report.text.len())])
        );
    }

    let page = Browser::open(1280, 900).await;
    page.go(&format!("{}/v1/jobs/{job}/report", app.url)).await;
    let title = page.js("return document.title").await;
    assert_eq!(title, format!("Job {job} · {EVIL}"));
    let cells = "return [...document.querySelectorAll('td.error')].map((cell) => cell.textContent)";
    assert_eq!(page.js(cells).await, json!([EVIL, "out of memory"]));
    let fills = "return getComputedStyle(document.querySelector('rect.succeeded')).fill";
    assert_ne!(page.js(fills).await, "rgb(0, 0, 0)", "the styles are in force");
    let drawn = "const box = document.querySelector('svg.durations path.succeeded').getBBox(); return box.width > 0 && box.height > 0";
    assert_eq!(page.js(drawn).await, true, "durations are drawn");
    page.expect_no_sideways_scroll().await;
    page.picture("report-1280").await;
    page.expect_quiet_console().await;
    app.stop().await;
}

/// Is the place outside of every tag?
fn is_plain_text(text: &str, at: usize) -> bool {
    text[at..].starts_with(' ') && text[..at].rfind('<') < text[..at].rfind('>')
}

#[actix_web::test]
async fn an_unfinished_and_an_empty_job_have_reports_that_say_so() {
    let app = App::start(&Place::sqlite(), quick()).await;
    let job = app.job(3, json!({})).await;
    let empty = app.job(0, json!({})).await;
    let path = |job: i64| format!("/v1/jobs/{job}/report");
    let report = send(&app.url, "GET", &path(job), &[], "").await;
    assert_eq!(report.status, 200);
    assert!(report.text.contains("The job was not finished") && report.text.contains("No result was committed"));
    let report = send(&app.url, "GET", &path(empty), &[], "").await;
    assert_eq!(report.status, 200);
    assert!(!report.text.contains("The job was not finished"));
    assert_eq!(send(&app.url, "GET", &path(9_999), &[], "").await.code(), "not_found");
    app.stop().await;
}
