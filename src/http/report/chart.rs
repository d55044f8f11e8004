//! The report's pictures, as SVG.
//!
//! Owns: their geometry. Never: prints text of a user. Invariant: a picture's numbers stand in words beside it.

use super::durations::Bars;
use super::summary::{Bucket, Timeline};
use crate::domain::ids::UnixMs;
use maud::{Markup, html};
use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 150.0;

/// The five parts of a tally as one stacked bar: (class, count).
pub(super) fn stacked_bar(parts: &[(&'static str, u32)]) -> Markup {
    let total: f64 = parts.iter().map(|&(_, count)| f64::from(count)).sum::<f64>().max(1.0);
    let mut from = 0.0;
    let mut placed = Vec::new();
    for &(class, count) in parts {
        let width = f64::from(count) / total * WIDTH;
        placed.push((class, from, width));
        from += width;
    }
    html! {
        svg class="tally" viewBox=(format!("0 0 {WIDTH} 22")) preserveAspectRatio="none" aria-hidden="true" {
            @for (class, x, width) in placed {
                @if width > 0.0 {
                    rect class=(class) x=(format!("{x:.2}")) y="0" width=(format!("{width:.2}")) height="22" {}
                }
            }
        }
    }
}

/// Tasks decided per second over time, failures on top.
pub(super) fn throughput(timeline: &Timeline) -> Markup {
    let Some((from, to)) = timeline.range() else {
        return html! { p { "No result was committed." } };
    };
    let per_s = 1_000.0 / timeline.width_ms() as f64;
    let buckets: Vec<Bucket> = timeline.stretches().collect();
    let peak = buckets.iter().map(|bucket| bucket.sum()).max().unwrap_or(0);
    let high = ceiling(f64::from(peak) * per_s);
    let scale = per_s / high * (HEIGHT - 2.0);
    let step = WIDTH / buckets.len() as f64;
    let succeeded = steps(&buckets, step, |bucket| f64::from(bucket.succeeded) * scale);
    let all = steps(&buckets, step, |bucket| f64::from(bucket.sum()) * scale);
    html! {
        div class="chart" {
            div class="most" { (rate(high)) }
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="img"
                aria-label=(format!("Tasks decided over time, at most {}", rate(f64::from(peak) * per_s))) {
                line class="grid" x1="0" x2=(WIDTH) y1="0.5" y2="0.5" {}
                line class="grid" x1="0" x2=(WIDTH) y1=(HEIGHT / 2.0) y2=(HEIGHT / 2.0) {}
                path class="failed" d=(all) {}
                path class="succeeded" d=(succeeded) {}
                line class="base" x1="0" x2=(WIDTH) y1=(HEIGHT - 0.5) y2=(HEIGHT - 0.5) {}
            }
            div class="axis" { span { (moment(from)) } span { (moment(to)) } }
        }
        p class="quiet" {
            "Tasks decided per second, each step " (duration(timeline.width_ms())) " long, by the moment of commit; at most "
            (rate(f64::from(peak) * per_s)) ". Failures are drawn on top of successes."
        }
    }
}

/// An area of steps, closed along the ground.
fn steps(buckets: &[Bucket], step: f64, height: impl Fn(Bucket) -> f64) -> String {
    let mut path = format!("M0,{HEIGHT}");
    for (index, &bucket) in buckets.iter().enumerate() {
        let right = (index + 1) as f64 * step;
        let written = write!(path, "V{:.1}H{right:.1}", HEIGHT - height(bucket));
        written.expect("writing to a string does not fail");
    }
    path.push_str(&format!("V{HEIGHT}Z"));
    path
}

/// Tasks by how long they took.
pub(super) fn durations(bars: &Bars) -> Markup {
    let most = bars.bars.iter().map(|bar| bar.sum()).max().unwrap_or(1).max(1);
    let scale = (HEIGHT - 2.0) / f64::from(most);
    let step = WIDTH / bars.bars.len() as f64;
    let succeeded = steps(&bars.bars, step, |bar| f64::from(bar.succeeded) * scale);
    let all = steps(&bars.bars, step, |bar| f64::from(bar.sum()) * scale);
    html! {
        div class="chart" {
            div class="most" { (grouped(u64::from(most))) " tasks" }
            svg class="durations" viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="img"
                aria-label=(format!("Tasks by how long they took; the highest bar stands for {}", grouped(u64::from(most)))) {
                line class="grid" x1="0" x2=(WIDTH) y1="0.5" y2="0.5" {}
                line class="grid" x1="0" x2=(WIDTH) y1=(HEIGHT / 2.0) y2=(HEIGHT / 2.0) {}
                path class="failed" d=(all) {}
                path class="succeeded" d=(succeeded) {}
                line class="base" x1="0" x2=(WIDTH) y1=(HEIGHT - 0.5) y2=(HEIGHT - 0.5) {}
            }
            div class="axis" { span { (duration(bars.from_ms as i64)) } span { (duration(bars.to_ms.ceil() as i64)) } }
        }
    }
}

/// Tasks by the attempt that decided them, as bars.
pub(super) fn attempts(counts: &[(u32, u32)]) -> Markup {
    let most = counts.iter().map(|&(_, tasks)| tasks).max().unwrap_or(1).max(1);
    html! {
        table class="attempts" {
            thead { tr { th { "Attempt" } th class="number" { "Tasks" } th { span class="hidden" { "Share" } } } }
            tbody {
                @for &(attempt, tasks) in counts {
                    tr {
                        td { (attempt) }
                        td class="number" { (grouped(u64::from(tasks))) }
                        td {
                            svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" {
                                rect class="reached" x="0" y="0" height="10"
                                    width=(format!("{:.2}", f64::from(tasks) / f64::from(most) * 100.0)) {}
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A ceiling that is easy to read: 1, 2 or 5 times a power of ten.
fn ceiling(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let scale = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * scale);
    steps
        .into_iter()
        .find(|&step| step >= value * 0.999_999)
        .unwrap_or(scale * 10.0)
}

/// A rate where it reads best.
pub(super) fn rate(per_s: f64) -> String {
    if per_s >= 100.0 {
        format!("{}/s", grouped(per_s.round() as u64))
    } else if per_s >= 1.0 {
        format!("{per_s:.1}/s")
    } else if per_s * 60.0 >= 1.0 {
        format!("{:.1}/min", per_s * 60.0)
    } else {
        format!("{:.1}/h", per_s * 3_600.0)
    }
}

/// A duration in its two largest units.
pub(super) fn duration(ms: i64) -> String {
    let s = ms.max(0) / 1_000;
    match s {
        _ if (1..1_000).contains(&ms) => format!("{ms} ms"),
        _ if ms < 10_000 && ms % 1_000 != 0 => format!("{:.1} s", ms.max(0) as f64 / 1_000.0),
        0..60 => format!("{s} s"),
        60..3_600 => format!("{} min {:02} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {:02} min", s / 3_600, s % 3_600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// A moment in UTC, to the second.
pub(super) fn moment(at: UnixMs) -> String {
    match time::OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1_000)) {
        Ok(at) => format!(
            "{} {:02}:{:02}:{:02} UTC",
            at.date(),
            at.hour(),
            at.minute(),
            at.second()
        ),
        Err(_) => "a moment out of range".to_owned(),
    }
}

/// A number with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_durations_and_rates_read_well() {
        assert_eq!(
            [grouped(0), grouped(999), grouped(1_000), grouped(12_345_678)],
            ["0", "999", "1,000", "12,345,678"]
        );
        assert_eq!(duration(59_000), "59 s");
        assert_eq!(duration(1_500), "1.5 s");
        assert_eq!(duration(-5), "0.0 s");
        assert_eq!(duration(61_000), "1 min 01 s");
        assert_eq!(duration(3_600_000 * 25), "1 d 1 h");
        assert_eq!(
            [rate(1_234.4), rate(2.0), rate(0.5), rate(0.001)],
            ["1,234/s", "2.0/s", "30.0/min", "3.6/h"]
        );
        assert_eq!(moment(UnixMs(0)), "1970-01-01 00:00:00 UTC");
    }

    #[test]
    fn a_ceiling_is_never_below_its_value() {
        for value in [0.001, 0.2, 1.0, 1.1, 4.9, 5.0, 7.0, 10.0, 99.0, 123_456.0] {
            let high = ceiling(value);
            assert!(high >= value * 0.999 && high <= value * 2.6, "{value} {high}");
        }
    }

    #[test]
    fn the_parts_of_a_bar_fill_it() {
        let text = stacked_bar(&[("succeeded", 3), ("failed", 1), ("pending", 0)]).into_string();
        assert!(text.contains(r#"x="0.00" y="0" width="540.00""#), "{text}");
        assert!(text.contains(r#"x="540.00" y="0" width="180.00""#), "{text}");
        assert!(!text.contains("pending"));
    }
}
