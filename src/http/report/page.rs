//! The report as a page.
//!
//! Owns: its order and words. Never: prints anything unescaped but its own styles. Invariant: the tally printed is the job's own, as
//! `GET /v1/jobs/{id}` answers it; where the results read say otherwise, because the job is still at work, the page says so.

use super::chart::{self, duration, grouped, moment, rate};
use super::summary::{Summary, WorkerShare};
use crate::coordinator::api::JobView;
use crate::domain::ids::UnixMs;
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLES: &str = include_str!("report.css");

pub(super) fn html(view: &JobView, summary: &Summary, now: UnixMs) -> Markup {
    let job = &view.record;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Job " (job.id) " · " (job.name) }
                style { (PreEscaped(STYLES)) }
            }
            body {
                header {
                    p class="quiet" { "Report of job " (job.id) ", run " (job.run) ", queue " (job.queue) }
                    h1 { (job.name) }
                    p class="state" data-state=(job.state.as_str()) { (job.state.as_str().replace('_', " ")) }
                }
                (tally(view))
                (times(view, now))
                section { h2 { "Throughput" } (chart::throughput(&summary.timeline)) }
                (durations(summary))
                (attempts(summary))
                (errors(summary))
                (workers(summary))
                (counters(view))
                (details(view))
                (footer(view, summary, now))
            }
        }
    }
}

fn tally(view: &JobView) -> Markup {
    let progress = &view.progress;
    let parts = [
        ("succeeded", progress.succeeded),
        ("failed", progress.failed),
        ("leased", progress.leased),
        ("retrying", progress.retrying),
        ("pending", progress.pending),
    ];
    html! {
        section {
            h2 { "Tally" }
            (chart::stacked_bar(&parts))
            dl class="numbers" {
                @for (name, count) in parts {
                    div {
                        dt { span class={ "swatch " (name) } {} (name) }
                        dd { (grouped(u64::from(count))) }
                    }
                }
                div { dt { "total" } dd { (grouped(u64::from(progress.total))) } }
            }
            @if let Some(error) = &view.record.error { p class="problem" { (error.message) } }
        }
    }
}

fn times(view: &JobView, now: UnixMs) -> Markup {
    let job = &view.record;
    let decided = f64::from(view.progress.succeeded + view.progress.failed);
    let took_ms = job.started_at.map(|start| job.finished_at.unwrap_or(now).0 - start.0);
    let mean = took_ms.filter(|&ms| ms > 0).map(|ms| decided * 1_000.0 / ms as f64);
    let entry = |name: &str, value: Option<String>| {
        html! { div { dt { (name) } dd { (value.as_deref().unwrap_or("–")) } } }
    };
    html! {
        section {
            h2 { "Time" }
            dl class="numbers wide" {
                (entry("created", Some(moment(job.created_at))))
                (entry("started", job.started_at.map(moment)))
                (entry("finished", job.finished_at.map(moment)))
                (entry("took", took_ms.map(duration)))
                (entry("mean rate", mean.map(rate)))
            }
        }
    }
}

fn durations(summary: &Summary) -> Markup {
    html! {
        @if let Some(bars) = summary.durations.bars() {
            section {
                h2 { "Durations" }
                (chart::durations(&bars))
                p class="quiet" {
                    "Tasks by the time from the lease that decided them to its commit; each step is longer than the last by the same ratio."
                    @for (share, words) in [(0.5, "Half of them"), (0.9, "90 %"), (0.99, "99 %")] {
                        @if let Some(ms) = summary.durations.quantile_ms(share) {
                            " " (words) " took up to " (duration(ms.ceil() as i64)) "."
                        }
                    }
                    @if summary.durations.unknown > 0 {
                        " Of " (grouped(u64::from(summary.durations.unknown))) " tasks it is not on record when their work began."
                    }
                }
            }
        }
    }
}

fn attempts(summary: &Summary) -> Markup {
    let counts: Vec<(u32, u32)> = summary
        .attempts
        .iter()
        .map(|(&attempt, &tasks)| (attempt, tasks))
        .collect();
    html! {
        @if counts.len() > 1 {
            section {
                h2 { "Attempts" }
                p class="quiet" { "Decided tasks by the attempt that decided them." }
                (chart::attempts(&counts))
            }
        }
    }
}

fn errors(summary: &Summary) -> Markup {
    let groups = summary.errors();
    html! {
        @if !groups.is_empty() {
            section {
                h2 { "Failures by error" }
                table {
                    thead { tr { th class="number" { "Tasks" } th { "Error" } th { "For example task" } } }
                    tbody {
                        @for (text, group) in groups {
                            tr {
                                td class="number" { (grouped(u64::from(group.tasks))) }
                                td class="error" { @if text.is_empty() { "(no message)" } @else { (text) } }
                                td { (group.examples.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")) }
                            }
                        }
                        @if summary.other_errors > 0 {
                            tr { td class="number" { (grouped(u64::from(summary.other_errors))) } td { "other errors" } td {} }
                        }
                    }
                }
            }
        }
    }
}

fn workers(summary: &Summary) -> Markup {
    let workers = summary.workers();
    html! {
        @if !workers.is_empty() {
            section {
                h2 { "Workers" }
                table {
                    thead {
                        tr {
                            th { "Worker" } th class="number" { "Succeeded" } th class="number" { "Failed" }
                            th { "First result" } th { "Last result" }
                        }
                    }
                    tbody {
                        @for (name, share) in workers { (worker(name, share)) }
                        @if summary.other_workers.sum() > 0 {
                            tr {
                                td { "others" }
                                td class="number" { (grouped(u64::from(summary.other_workers.succeeded))) }
                                td class="number" { (grouped(u64::from(summary.other_workers.failed))) }
                                td {} td {}
                            }
                        }
                    }
                }
            }
        }
    }
}

fn worker(name: &str, share: WorkerShare) -> Markup {
    html! {
        tr {
            td class="name" { (name) }
            td class="number" { (grouped(u64::from(share.decided.succeeded))) }
            td class="number" { (grouped(u64::from(share.decided.failed))) }
            td { (moment(share.first)) }
            td { (moment(share.last)) }
        }
    }
}

fn counters(view: &JobView) -> Markup {
    html! {
        @if !view.progress.counters.is_empty() {
            section {
                h2 { "Counters" }
                table {
                    tbody {
                        @for (name, sum) in &view.progress.counters {
                            tr { td class="name" { (name) } td class="number" { (sum) } }
                        }
                    }
                }
            }
        }
    }
}

fn details(view: &JobView) -> Markup {
    let job = &view.record;
    html! {
        section {
            h2 { "Details" }
            table {
                tbody {
                    tr { td { "Priority" } td { (job.priority) } }
                    tr { td { "Attempts per task, at most" } td { (job.policy.max_attempts) } }
                    tr { td { "A lease lasts" } td { (duration(i64::from(job.policy.lease_timeout_s) * 1_000)) } }
                    @for stage in &view.progress.stages {
                        tr {
                            td { "Stage " (stage.name) }
                            td { (grouped(u64::from(stage.reached))) " of " (grouped(u64::from(stage.total))) }
                        }
                    }
                    @for (key, value) in &job.labels { tr { td { "Label " (key) } td class="name" { (value) } } }
                }
            }
        }
    }
}

fn footer(view: &JobView, summary: &Summary, now: UnixMs) -> Markup {
    let told = view.progress.succeeded + view.progress.failed;
    html! {
        footer {
            p { "Written " (moment(now)) " by Tallykeeper " (env!("CARGO_PKG_VERSION")) "." }
            @if !view.record.state.is_final() { p { "The job was not finished; the numbers are those of that moment." } }
            @if summary.decided.sum() != told {
                p {
                    "The charts and tables count " (grouped(u64::from(summary.decided.sum())))
                    " results, read while the tally stood at " (grouped(u64::from(told))) "."
                }
            }
            @if summary.from_earlier_runs > 0 {
                p { (grouped(u64::from(summary.from_earlier_runs))) " successes are of earlier runs and still stand." }
            }
            @if summary.late > 0 {
                p { (grouped(u64::from(summary.late))) " results came after the end; they are kept and counted nowhere." }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::rows::Verdict;
    use crate::http::report::summary::tests::row;

    #[test]
    fn what_users_wrote_is_escaped() {
        let mut summary = Summary::default();
        let mut bad = row(1, Verdict::Failed, 0);
        bad.error = Some("<script>alert(1)</script>".into());
        bad.worker = "\"><img src=x onerror=alert(1)>".into();
        summary.add(&bad, bad.run);
        let text = html! { (errors(&summary)) (workers(&summary)) }.into_string();
        assert!(text.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{text}");
        assert!(!text.contains("<script") && !text.contains("<img"), "{text}");
    }

    #[test]
    fn the_styles_load_nothing_and_do_not_end_their_element() {
        assert!(!STYLES.contains("</") && !STYLES.contains("url(") && !STYLES.contains("@import"));
    }
}
