//! Random histories of a job, each step of which the naive [`Model`](super::model::Model) must agree with.
//!
//! Owns: how many histories are tried. Never: relies on a fixed one; proptest prints the failing one. Invariant: every history ends with
//! everything that waited let through.

mod history;
mod ops;
mod setup;

use super::model::STAGES;
use history::History;
use ops::ops;
use proptest::prelude::*;
use setup::setup;

fn config() -> ProptestConfig {
    // The environment's PROPTEST_CASES overrides the default, so that a long run needs no other code.
    let asked = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(1_000),
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn fm48_fm57_every_history_agrees_with_the_naive_model(
        setup in setup(),
        ops in ops(),
    ) {
        let mut history = History::new(&setup);
        for op in ops {
            history.step(op);
        }
        history.finish();
    }
}
