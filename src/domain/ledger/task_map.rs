//! A map from task numbers, with a hash made for them.
//!
//! Owns: that hash. Never: hashes anything a stranger may choose freely: task numbers are dense and below the job's total, so nobody gains
//! by collisions, and the keyed default costs more than the lookups it protects. Invariant: equal numbers hash alike.

use crate::domain::ids::TaskNo;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

pub(super) type TaskMap<V> = HashMap<TaskNo, V, BuildHasherDefault<TaskHash>>;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TaskHash(u64);

impl Hasher for TaskHash {
    fn write_u32(&mut self, number: u32) {
        // Fibonacci hashing; folded, because the map takes its buckets from the low bits and its tags from the high ones.
        let product = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
