//! "Everything that matched was shown", told once for all sources of a stream.
//!
//! Owns: what each source has listed. Never: waits for one (whoever lists last tells). Invariant: the message comes after the last job of
//! every source, and again when one lists anew.

use super::message;
use super::outlet::{End, Outlet};
use crate::http::wire::StreamMessage;
use std::cell::RefCell;
use std::rc::Rc;

/// Jobs that a source has shown, and whether further ones match; none before it has listed.
type Shown = Option<(usize, bool)>;

#[derive(Clone)]
pub(super) struct Listed(Rc<RefCell<Vec<Shown>>>);

impl Listed {
    pub(super) fn of(sources: usize) -> Listed {
        Listed(Rc::new(RefCell::new(vec![None; sources])))
    }

    /// A source has shown so many jobs; `more`: further ones match.
    pub(super) async fn told(&self, source: usize, jobs: usize, more: bool, outlet: &Outlet) -> Result<(), End> {
        let Some((jobs, more)) = self.sum(source, jobs, more) else {
            return Ok(());
        };
        let message = message::to_bytes(&StreamMessage::Listed { jobs, more });
        outlet.room().await?.put(&message, false);
        Ok(())
    }

    /// The sum, once every source has listed.
    fn sum(&self, source: usize, jobs: usize, more: bool) -> Option<(usize, bool)> {
        let mut sources = self.0.borrow_mut();
        sources[source] = Some((jobs, more));
        let known: Option<Vec<(usize, bool)>> = sources.iter().copied().collect();
        known.map(|known| {
            (
                known.iter().map(|(jobs, _)| jobs).sum(),
                known.iter().any(|(_, more)| *more),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_source_tells_for_all() {
        let listed = Listed::of(3);
        assert_eq!(listed.sum(1, 2, false), None);
        assert_eq!(listed.sum(0, 0, true), None);
        assert_eq!(listed.sum(2, 5, false), Some((7, true)));
        assert_eq!(listed.sum(0, 1, false), Some((8, false)));
    }
}
