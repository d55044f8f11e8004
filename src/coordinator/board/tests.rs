//! What readers of the board see.

use super::*;
use crate::coordinator::api::JobView;
use crate::domain::ids::{QueueId, Run, Seq, UnixMs};
use crate::domain::job::{JobRecord, Tally};
use crate::domain::policy::Policy;
use crate::domain::progress::Progress;
use crate::domain::state::State;
use bytes::Bytes;
use std::time::Duration;

fn update(seq: i64) -> Arc<Update> {
    let progress = Progress {
        seq: Seq(seq),
        total: 0,
        pending: 0,
        leased: 0,
        retrying: 0,
        succeeded: 0,
        failed: 0,
        fraction: None,
        rate_per_s: None,
        eta_s: None,
        counters: Default::default(),
        stages: Vec::new(),
    };
    Update::new(JobView {
        record: record(),
        progress,
        node: None,
        begun: true,
        epoch: None,
    })
}

fn record() -> JobRecord {
    JobRecord {
        id: JobId(1),
        name: "n".into(),
        queue: "q".into(),
        queue_id: QueueId(1),
        state: State::Running,
        run: Run(1),
        base_run: Run(1),
        priority: 0,
        open: false,
        expected_total: None,
        stages: Vec::new(),
        policy: Policy::default(),
        labels: Default::default(),
        callback_url: None,
        tally: Tally::default(),
        error: None,
        start_at: None,
        cancel_at: None,
        created_at: UnixMs(0),
        started_at: None,
        finished_at: None,
        updated_at: UnixMs(0),
        changed_seq: Seq(0),
    }
}

fn board(seats: usize, frames_per_s: u32) -> Arc<Board> {
    Arc::new(Board::new(seats, frames_per_s))
}

fn hz(rate: f64) -> Rate {
    Rate::clamped(rate, 10).expect("a number")
}

fn seen(sight: Sight) -> i64 {
    match sight {
        Sight::Newest(update) => update.view.progress.seq.0,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_reader_that_was_away_sees_the_newest_and_only_that() {
    let board = board(9, 1_000);
    let mut watch = board.join(JobId(1), hz(10.0)).unwrap();
    let channel = board.audience(JobId(1)).unwrap();
    (1..=100).for_each(|seq| channel.publish(update(seq)));
    watch.changed().await;
    assert_eq!(seen(watch.look()), 100);
    assert!(!watch.has_changed());
    channel.publish_stored(update(3));
    assert!(
        !watch.has_changed(),
        "what the store says does not replace what an actor said"
    );
}

#[tokio::test]
async fn the_last_reader_takes_the_slot_along_and_the_fastest_sets_the_pace() {
    let board = board(9, 1_000);
    let slow = board.join(JobId(1), hz(1.0)).unwrap();
    let fast = board.join(JobId(1), hz(5.0)).unwrap();
    let channel = board.audience(JobId(1)).unwrap();
    assert_eq!(channel.fastest(), Some(hz(5.0)));
    drop(fast);
    assert_eq!(channel.fastest(), Some(hz(1.0)));
    drop(slow);
    assert!(channel.is_empty() && board.audience(JobId(1)).is_none());
}

#[tokio::test]
async fn a_closed_board_sends_everyone_away_with_the_last_update_and_lets_nobody_in() {
    let board = board(9, 1_000);
    let mut watch = board.join(JobId(1), hz(10.0)).unwrap();
    board.audience(JobId(1)).unwrap().publish(update(7));
    board.close();
    watch.changed().await;
    match watch.look() {
        Sight::Moved(Some(last)) => assert_eq!(last.view.progress.seq, Seq(7)),
        other => panic!("{other:?}"),
    }
    let refused = board.join(JobId(1), hz(10.0));
    assert!(matches!(refused, Err(CoordinatorError::Draining)));
}

#[test]
fn seats_are_bounded_and_come_back() {
    let board = board(1, 1_000);
    let seat = board.seat(hz(10.0)).unwrap();
    assert!(matches!(board.seat(hz(10.0)), Err(CoordinatorError::Busy(_))));
    drop(seat);
    assert!(board.seat(hz(10.0)).is_ok());
}

#[test]
fn beyond_the_budget_everyone_slows_down_alike() {
    let board = board(9, 10);
    let first = board.seat(hz(10.0)).unwrap();
    assert_eq!(first.interval(), Duration::from_millis(100));
    let second = board.seat(hz(5.0)).unwrap();
    second.reads(6);
    assert_eq!(first.interval(), Duration::from_millis(400));
    assert_eq!(second.interval(), Duration::from_millis(800));
    drop(second);
    assert_eq!(first.interval(), Duration::from_millis(100));
}

#[test]
fn rates_are_clamped() {
    assert_eq!(hz(0.0), Rate::SLOWEST);
    assert_eq!(hz(1e9), hz(10.0));
    assert_eq!(Rate::clamped(f64::INFINITY, 10), Some(hz(10.0)));
    assert_eq!(Rate::clamped(f64::NAN, 10), None);
}

#[test]
fn a_form_is_printed_once_for_all() {
    let update = update(1);
    let first = update.printed(Form::Progress, |_| Bytes::from_static(b"first"));
    let second = update.printed(Form::Progress, |_| unreachable!("it was printed before"));
    assert_eq!((first.as_ref(), second.as_ref()), (&b"first"[..], &b"first"[..]));
    assert_eq!(update.printed(Form::Final, |_| Bytes::from_static(b"last")), "last");
}
