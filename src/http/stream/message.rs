//! Which message an update becomes for one reader.
//!
//! Owns: what the reader has seen, and the printing. Never: sends. Invariant: a reader never gets a smaller `seq` than before.

use crate::coordinator::api::JobView;
use crate::coordinator::{Form, Update};
use crate::domain::ids::{Run, Seq};
use crate::domain::state::State;
use crate::http::views;
use crate::http::wire::StreamMessage;
use bytes::Bytes;

/// What a reader saw of a job last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) seq: Seq,
    pub(super) state: State,
    pub(super) run: Run,
}

impl Seen {
    pub(super) fn of(update: &Update) -> Seen {
        let JobView { record, progress, .. } = &update.view;
        Seen {
            seq: progress.seq,
            state: record.state,
            run: record.run,
        }
    }
}

/// The message for a reader who saw `before`; none if it would say nothing new.
pub(super) fn form(before: Option<Seen>, now: Seen) -> Option<Form> {
    let Some(before) = before else {
        return Some(Form::Snapshot);
    };
    let has_turned = (before.state, before.run) != (now.state, now.run);
    match (has_turned, now.state.is_final()) {
        _ if now.seq < before.seq => None,
        (true, true) => Some(Form::Final),
        (true, false) => Some(Form::State),
        // What has ended stays as it is.
        (false, true) => None,
        (false, false) => Some(Form::Progress),
    }
}

/// The message's JSON.
pub(super) fn print(update: &Update, form: Form) -> Bytes {
    update.printed(form, |view| {
        let (id, seq) = (view.record.id.0, view.progress.seq.0);
        let job = || Box::new(views::job(view.clone()));
        to_bytes(&match form {
            Form::Snapshot => StreamMessage::Snapshot { id, seq, job: job() },
            Form::Progress => StreamMessage::Progress {
                id,
                seq,
                progress: view.progress.clone(),
            },
            Form::State => StreamMessage::State {
                id,
                seq,
                state: view.record.state,
                run: view.record.run.0,
                job: job(),
            },
            Form::Final => StreamMessage::Final { id, seq, job: job() },
        })
    })
}

/// The JSON of a message that is this reader's alone.
pub(super) fn to_bytes(message: &StreamMessage) -> Bytes {
    match serde_json::to_vec(message) {
        Ok(json) => json.into(),
        Err(error) => {
            // Only a moment beyond the year 9999 cannot be printed, and none is ever stored.
            tracing::error!(%error, "a message could not be printed");
            Bytes::from_static(b"{}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(seq: i64, state: State, run: u32) -> Seen {
        Seen {
            seq: Seq(seq),
            state,
            run: Run(run),
        }
    }

    #[test]
    fn an_update_becomes_what_its_reader_has_not_seen() {
        let before = Some(seen(5, State::Running, 1));
        let cases = [
            (None, seen(5, State::Running, 1), Some(Form::Snapshot)),
            (before, seen(5, State::Running, 1), Some(Form::Progress)),
            (before, seen(6, State::Running, 1), Some(Form::Progress)),
            (before, seen(4, State::Running, 1), None),
            (before, seen(6, State::Paused, 1), Some(Form::State)),
            (before, seen(6, State::Running, 2), Some(Form::State)),
            (before, seen(6, State::Failed, 1), Some(Form::Final)),
            (Some(seen(6, State::Failed, 1)), seen(7, State::Failed, 1), None),
            (
                Some(seen(6, State::Failed, 1)),
                seen(9, State::Succeeded, 2),
                Some(Form::Final),
            ),
            (
                Some(seen(6, State::Failed, 1)),
                seen(7, State::Running, 2),
                Some(Form::State),
            ),
        ];
        for (before, now, expected) in cases {
            assert_eq!(form(before, now), expected, "{before:?} {now:?}");
        }
    }
}
