//! The newest offset of each key, for a bounded number of keys.
//!
//! A key is known by a hash of 128 bits: two runs of the standard library's keyed hash with keys of
//! their own, so that nobody can make up two keys that meet.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use super::Pass;
use super::rewriting::unpacked_records;
use super::transactions::{Fate, Transactions};
use crate::log::StoredBatch;
use crate::records::records;

#[derive(Debug)]
pub(super) struct Keys {
    newest: HashMap<u128, i64>,
    hashers: [RandomState; 2],
    /// From here on nothing is known.
    pub(super) covered_until: i64,
}

impl Keys {
    /// Reads batches from the pass's `clean_until` on, as far as the room for keys reaches.
    pub(super) fn of(below: &[StoredBatch], transactions: &Transactions, pass: &Pass) -> Self {
        let mut keys = Self {
            newest: HashMap::new(),
            hashers: [RandomState::new(), RandomState::new()],
            covered_until: pass.clean_until,
        };
        let dirty = below.iter().filter(|batch| batch.last_offset >= pass.clean_until);
        for batch in dirty {
            let counts = !batch.header.control && transactions.fate(batch) == Fate::Committed;
            if let Some(full_at) = counts.then(|| keys.note(batch, pass)).flatten() {
                keys.covered_until = full_at;
                return keys;
            }
            keys.covered_until = batch.last_offset + 1;
        }
        keys
    }

    /// Returns the offset for which there was no room. A batch that can not be read is passed.
    fn note(&mut self, batch: &StoredBatch, pass: &Pass) -> Option<i64> {
        let unpacked = unpacked_records(batch).ok()?;
        for record in records(&unpacked, batch.header.records, batch.header.last_offset_delta).ok()? {
            let offset = batch.base_offset + record.offset_delta;
            let Some(key) = record.key.filter(|_| offset >= pass.clean_until) else {
                continue;
            };
            let hash = self.hash(key);
            if self.newest.len() >= pass.max_keys && !self.newest.contains_key(&hash) {
                return Some(offset);
            }
            self.newest.insert(hash, offset);
        }
        None
    }

    pub(super) fn has_newer(&self, key: &[u8], offset: i64) -> bool {
        self.newest
            .get(&self.hash(key))
            .is_some_and(|newest| *newest > offset)
    }

    fn hash(&self, key: &[u8]) -> u128 {
        let [high, low] = self
            .hashers
            .each_ref()
            .map(|hasher| u128::from(hasher.hash_one(key)));
        high << 64 | low
    }
}
