//! The schedule of callbacks and what an event says.
//!
//! Owns: tables of answers and waits. Never: a clock. Invariant: none of its own.

use super::*;
use crate::domain::ids::{QueueId, Seq};
use crate::domain::job::{JobError, Stage, Tally};
use crate::domain::policy::Policy;
use crate::domain::state::State;
use std::collections::BTreeMap;

const SINCE: UnixMs = UnixMs(1_700_000_000_000);

fn ended() -> JobRecord {
    JobRecord {
        id: JobId(7),
        name: "nightly \"run\"".into(),
        queue: "moths".into(),
        queue_id: QueueId(1),
        state: State::PartiallySucceeded,
        run: Run(2),
        base_run: Run(1),
        priority: 0,
        open: false,
        expected_total: None,
        stages: vec![
            Stage {
                key: "a".into(),
                name: "A".into(),
            },
            Stage {
                key: "b".into(),
                name: "B".into(),
            },
        ],
        policy: Policy::default(),
        labels: BTreeMap::from([("site".to_owned(), "north".to_owned())]),
        callback_url: Some("https://Hooks.Example:8443/a?b#c".into()),
        tally: Tally {
            total: 10,
            succeeded: 6,
            failed: 1,
            counters: BTreeMap::from([("boxes".to_owned(), 41)]),
            reached: vec![9],
        },
        error: Some(JobError {
            code: "canceled".into(),
            message: "canceled with 3 tasks undecided".into(),
        }),
        start_at: None,
        cancel_at: None,
        created_at: UnixMs(1_699_999_000_000),
        started_at: Some(UnixMs(1_699_999_000_250)),
        finished_at: Some(SINCE),
        updated_at: SINCE,
        changed_seq: Seq(12),
    }
}

#[test]
fn an_event_says_everything_about_the_end_and_always_the_same() {
    let event = Event::of(&ended());
    assert_eq!(event, Event::of(&ended()));
    assert_eq!(event.id, "job-7-run-2-18bcfd625c0");
    let call = event.call.expect("it has somebody to call");
    assert_eq!(call.receiver, "hooks.example:8443");
    let said: serde_json::Value = serde_json::from_str(&event.payload).unwrap();
    assert_eq!(
        said,
        json!({
            "type": "job.completed",
            "id": "job-7-run-2-18bcfd625c0",
            "timestamp": "2023-11-14T22:13:20.000Z",
            "data": {
                "id": 7, "name": "nightly \"run\"", "queue": "moths", "state": "partially_succeeded", "run": 2,
                "total": 10, "succeeded": 6, "failed": 1, "undecided": 3, "counters": {"boxes": 41},
                "stages": [{"key": "a", "name": "A", "reached": 9}, {"key": "b", "name": "B", "reached": 0}],
                "error": {"code": "canceled", "message": "canceled with 3 tasks undecided"},
                "labels": {"site": "north"},
                "created_at": "2023-11-14T21:56:40.000Z",
                "started_at": "2023-11-14T21:56:40.250Z",
                "finished_at": "2023-11-14T22:13:20.000Z",
            },
        })
    );
}

#[test]
fn each_run_and_each_database_has_its_own_event() {
    let first = Event::of(&ended());
    let next_run = JobRecord { run: Run(3), ..ended() };
    let same_number_elsewhere = JobRecord {
        created_at: UnixMs(1_699_999_000_001),
        ..ended()
    };
    for other in [next_run, same_number_elsewhere] {
        assert_ne!(Event::of(&other).id, first.id);
    }
    let unheard = JobRecord {
        callback_url: None,
        ..ended()
    };
    assert_eq!(Event::of(&unheard).call, None);
}

#[test]
fn receivers_are_told_apart_by_host_and_port() {
    for (url, expected) in [
        ("http://a.example", "a.example"),
        ("https://A.example/x/y", "a.example"),
        ("http://a.example:81?q=/", "a.example:81"),
        ("http://[2001:DB8::1]:9/", "[2001:db8::1]:9"),
        ("http://a.example\\@b", "a.example"),
    ] {
        assert_eq!(receiver(url), expected, "{url}");
    }
}

fn status(status: u16) -> Heard {
    Heard::Status {
        status,
        retry_after_s: None,
    }
}

#[test]
fn only_a_2xx_counts_as_heard_and_only_a_410_ends_it_at_once() {
    let judge = |heard: Heard| Schedule::default().judge(&heard, 1, SINCE, SINCE, 0.5);
    for good in [200, 201, 202, 204, 299] {
        assert_eq!(judge(status(good)), Fate::Delivered { at: SINCE }, "{good}");
    }
    for again in [100, 199, 300, 301, 307, 400, 401, 404, 429, 500, 503, 599] {
        let fate = judge(status(again));
        let Fate::Again { error, .. } = &fate else {
            panic!("{again}: {fate:?}")
        };
        assert!(error.contains(&again.to_string()), "{error}");
        assert_eq!(error.contains("redirect"), (300..400).contains(&again), "{error}");
    }
    assert!(matches!(judge(status(410)), Fate::GivenUp { .. }));
    let fate = judge(Heard::Nothing("connection refused".into()));
    assert!(matches!(fate, Fate::Again { error, .. } if error == "connection refused"));
}

#[test]
fn waits_double_up_to_the_longest_and_are_spread() {
    let schedule = Schedule::default();
    let waits = |chance: f64| [1, 2, 3, 9, 10, 11, 40, u32::MAX].map(|tries| schedule.wait_ms(tries, chance));
    assert_eq!(
        waits(0.5),
        [
            5_000, 10_000, 20_000, 1_280_000, 2_560_000, 3_600_000, 3_600_000, 3_600_000
        ]
    );
    assert_eq!(waits(0.0)[0], 4_000);
    assert_eq!(waits(1.0)[0], 6_000);
    for chance in [-1.0, 0.1, 0.7, 2.0, f64::NAN] {
        assert!(schedule.wait_ms(1, chance) >= 1);
    }
    let at_once = Schedule {
        first_ms: 0,
        ..schedule
    };
    assert_eq!(at_once.wait_ms(5, 0.5), 1);
}

#[test]
fn a_receiver_that_asks_for_time_gets_it_within_bounds() {
    let at = |retry_after_s| {
        let heard = Heard::Status {
            status: 503,
            retry_after_s,
        };
        match Schedule::default().judge(&heard, 1, SINCE, SINCE, 0.5) {
            Fate::Again { at, .. } => at.0 - SINCE.0,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(at(None), 5_000);
    assert_eq!(at(Some(1)), 5_000);
    assert_eq!(at(Some(90)), 90_000);
    assert_eq!(at(Some(u32::MAX)), 3_600_000);
}

#[test]
fn there_is_a_last_attempt_when_the_time_is_over_and_none_after_it() {
    let schedule = Schedule::default();
    let over = SINCE.plus_ms(24 * 3_600_000);
    let fate = schedule.judge(&status(500), 30, SINCE, over.plus_ms(-1_000), 0.5);
    assert!(matches!(fate, Fate::Again { at, .. } if at == over), "{fate:?}");
    for late in [over, over.plus_ms(1)] {
        let fate = schedule.judge(&status(500), 31, SINCE, late, 0.5);
        assert!(
            matches!(&fate, Fate::GivenUp { at, error } if *at == late && error.contains("500")),
            "{fate:?}"
        );
        assert_eq!(
            schedule.judge(&status(204), 31, SINCE, late, 0.5),
            Fate::Delivered { at: late }
        );
    }
}

#[test]
fn every_schedule_comes_to_an_end() {
    let schedule = Schedule::default();
    let (mut now, mut tries) = (SINCE, 1);
    while let Fate::Again { at, .. } = schedule.judge(&status(500), tries, SINCE, now, f64::from(tries % 7) / 6.0) {
        assert!(at > now, "an attempt comes after the one before");
        (now, tries) = (at, tries + 1);
    }
    assert_eq!(now, SINCE.plus_ms(24 * 3_600_000));
    assert!((25..50).contains(&tries), "{tries} attempts in a day");
}
