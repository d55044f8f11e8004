//! What can happen to a job, and how often.
//!
//! Owns: the operations and the strategies that draw them. Never: applies one. Invariant: an operation names what it picks by place, so
//! that it means something in every history, also in one that was shrunk.

use super::super::*;
use super::STAGES;
use proptest::prelude::*;
use proptest::sample::Index;

/// Picks a token that some worker may send.
#[derive(Debug, Clone)]
pub(super) enum Pick {
    Seen(Index),
    /// The youngest tokens, so that results for what is leased are common.
    Recent(usize),
    OtherToken(Index),
    OtherJob(Index),
    NoSuchTask(Index),
    Newer(Index),
    /// No token, but the name of a task: what the ledger makes of a success or a failure of it.
    Named(Index, bool),
    Garbage,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Told {
    Success(i64),
    Failure,
    Fatal,
    Unusable,
}

#[derive(Debug, Clone)]
pub(super) enum Op {
    Grant(u8, u32, Option<u8>),
    Report(u8, Vec<(Pick, Told)>, Option<u32>),
    Extend(u8, Vec<Pick>, Option<u8>),
    Release(u8, Vec<Pick>),
    Ungrant(Vec<Pick>),
    /// An upload holds leases; none: it has not said who it is.
    Hold(u8, Option<u8>, Vec<Pick>),
    EndHold(u8),
    /// A call on behalf of the worker's holder.
    Renew(u8),
    Control(Control),
    Append(u32, Option<Index>),
    /// The batch in flight is committed; sometimes without some of its tasks.
    Settle(Option<Index>),
    Chunk(bool),
    Pass(i64),
    Store(bool),
    Save,
    /// kill -9: was the batch in flight committed, was the chunk stored, and is the snapshot found?
    Crash(bool, bool, bool),
}

fn pick() -> impl Strategy<Value = Pick> {
    prop_oneof![
        6 => any::<Index>().prop_map(Pick::Seen),
        12 => (0usize..8).prop_map(Pick::Recent),
        1 => any::<Index>().prop_map(Pick::OtherToken),
        1 => any::<Index>().prop_map(Pick::OtherJob),
        1 => any::<Index>().prop_map(Pick::NoSuchTask),
        1 => any::<Index>().prop_map(Pick::Newer),
        1 => Just(Pick::Garbage),
    ]
}

/// What a result may name its task by.
fn reported() -> impl Strategy<Value = Pick> {
    prop_oneof![
        12 => pick(),
        1 => (any::<Index>(), any::<bool>()).prop_map(|(index, succeeded)| Pick::Named(index, succeeded)),
    ]
}

fn told() -> impl Strategy<Value = Told> {
    prop_oneof![
        6 => (-3i64..9).prop_map(Told::Success),
        4 => Just(Told::Failure),
        1 => Just(Told::Fatal),
        1 => Just(Told::Unusable),
    ]
}

fn control() -> impl Strategy<Value = Control> {
    let retry = (
        any::<bool>(),
        prop_oneof![3 => Just(None), 1 => (1u32..4).prop_map(|run| Some(Run(run)))],
    );
    prop_oneof![
        2 => Just(Control::Start),
        1 => Just(Control::Pause),
        2 => Just(Control::Resume),
        1 => prop_oneof![Just(0u32), Just(30), Just(400)].prop_map(|grace_s| Control::Cancel { grace_s }),
        1 => Just(Control::Seal),
        3 => retry.prop_map(|(all, if_run)| Control::Retry {
            only: if all { RetryOnly::All } else { RetryOnly::Failed },
            if_run,
        }),
        1 => (prop::option::of(-1i32..2), prop::option::of(0u32..4)).prop_map(|(priority, count)| Control::Change {
            priority,
            failure_threshold: count.map(FailureThreshold::Count),
        }),
    ]
}

/// A lease that the snapshot keeps is given back, its task handed out once more, and the node killed: rare by chance alone.
fn handed_on() -> impl Strategy<Value = Vec<Op>> {
    let recent = || prop::collection::vec((0usize..3).prop_map(Pick::Recent), 1..4);
    let given_back = prop_oneof![
        2 => (0u8..3, recent()).prop_map(|(w, picks)| Op::Release(w, picks)),
        1 => recent().prop_map(Op::Ungrant),
    ];
    (
        0u8..3,
        1u32..4,
        prop::option::of(0u8..3),
        given_back,
        0u8..3,
        any::<bool>(),
    )
        .prop_map(|(first, most, id, given_back, second, committed)| {
            let (granted, again) = (Op::Grant(first, most, id), Op::Grant(second, most, None));
            vec![granted, Op::Save, given_back, again, Op::Crash(committed, true, true)]
        })
}

/// A crash forgets leases, a cancel waits for them, and is saved before the next crash.
fn forgotten_twice() -> impl Strategy<Value = Vec<Op>> {
    let pass = || prop_oneof![Just(0i64), 1i64..60_000, Just(LEASE_MS)].prop_map(Op::Pass);
    (
        0u8..3,
        any::<bool>(),
        pass(),
        prop_oneof![Just(400u32), Just(2_000)],
        pass(),
    )
        .prop_map(|(worker, kept, early, grace_s, late)| {
            vec![
                Op::Grant(worker, 3, None),
                Op::Crash(true, true, kept),
                early,
                Op::Settle(None),
                Op::Control(Control::Cancel { grace_s }),
                Op::Settle(None),
                Op::Save,
                late,
                Op::Crash(true, true, true),
            ]
        })
}

/// What happens to a job, one thing after the other.
pub(super) fn ops() -> impl Strategy<Value = Vec<Op>> {
    let one = op().prop_map(|op| vec![op]);
    prop::collection::vec(prop_oneof![120 => one, 2 => handed_on(), 1 => forgotten_twice()], 1..80)
        .prop_map(|scenes| scenes.concat())
}

fn op() -> impl Strategy<Value = Op> {
    let worker = || 0u8..3;
    let picks = || prop::collection::vec(pick(), 0..4);
    prop_oneof![
        6 => (worker(), 0u32..6, prop::option::weighted(0.3, 0u8..3)).prop_map(|(w, n, id)| Op::Grant(w, n, id)),
        12 => (worker(), prop::collection::vec((reported(), told()), 0..6), prop::option::weighted(0.2, 0u32..4))
            .prop_map(|(w, items, then)| Op::Report(w, items, then)),
        4 => (worker(), picks(), prop::option::of(0..STAGES + 1)).prop_map(|(w, p, stage)| Op::Extend(w, p, stage)),
        2 => (worker(), picks()).prop_map(|(w, picks)| Op::Release(w, picks)),
        1 => picks().prop_map(Op::Ungrant),
        3 => (0u8..3, prop::option::of(worker()), picks()).prop_map(|(hold, w, picks)| Op::Hold(hold, w, picks)),
        2 => (0u8..3).prop_map(Op::EndHold),
        3 => worker().prop_map(Op::Renew),
        4 => control().prop_map(Op::Control),
        2 => (0u32..5, prop::option::weighted(0.3, any::<Index>())).prop_map(|(n, first)| Op::Append(n, first)),
        12 => prop::option::weighted(0.1, any::<Index>()).prop_map(Op::Settle),
        4 => prop::bool::weighted(0.9).prop_map(Op::Chunk),
        4 => prop_oneof![Just(0i64), 1i64..3_000, Just(LEASE_MS), 50_000i64..900_000].prop_map(Op::Pass),
        1 => any::<bool>().prop_map(Op::Store),
        1 => Just(Op::Save),
        1 => (any::<bool>(), any::<bool>(), prop::bool::weighted(0.7)).prop_map(|(c, s, k)| Op::Crash(c, s, k)),
    ]
}
