//! The bytes of snapshots: programs before and after this one read them, for nodes of both run beside each other during an upgrade.
//!
//! Owns: a snapshot as version 0.1 wrote it before anything was added behind it. Never: changes those bytes. Invariant: none of its own.

use super::*;

/// One success, one failed attempt, two leases, a stage, a last grant.
fn life() -> Bench {
    let mut bench = Bench::with(4, |record| record.stages = vec![stage("s")]);
    let leases = bench.grant_as("w", 3, Some("r"));
    bench.report(vec![counted(&leases[0], &[("n", 3)])]);
    bench.report(vec![failure(&leases[1])]);
    bench
}

const BEFORE: &str = "03010104123a3000000100000000000000100000000000083a3000000000000001010101d0afabfef96201016e06000000000000000000000001\
                      017701020102030080a0abfef96200c0efcffef962010001720102032a5d95dfea1167cb";
const CHECKSUM_BYTES: usize = 8;

fn before() -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&BEFORE[at..at + 2], 16).expect("hexadecimal");
    (0..BEFORE.len()).step_by(2).map(digits).collect()
}

#[test]
fn a_snapshot_of_the_program_before_keeps_its_leases() {
    let mut bench = life();
    bench.durable.snapshot = Some(before());
    bench.crash();
    assert_eq!(bench.counts(), [1, 1, 1, 1, 0]);
    assert_eq!(bench.grant_as("w", 1, Some("r")).len(), 1, "and the last grant");
}

#[test]
fn the_program_before_finds_all_it_knows_where_it_was() {
    let mut bench = life();
    for _ in 0..2 {
        let (before, now) = (before(), bench.ledger.snapshot().1);
        let known = &before[..before.len() - CHECKSUM_BYTES];
        assert!(now.starts_with(known), "it reads so far, and no further");
        assert!(now.len() > before.len());
        bench.save();
        // From here on there may be leases that are not known, and that is saved as well.
        bench.crash();
    }
}
