//! Which transactions of one partition are open, and which were aborted.
//!
//! A reader that wants committed records only is given what lies before the first record of the
//! oldest open transaction (the *last stable offset*), together with the transactions in that range
//! that were aborted, so that it can leave out their records. The rules are those of Kafka's
//! `ProducerStateManager` and `TransactionIndex`.
//!
//! Pure.

use std::collections::{BTreeMap, HashSet, VecDeque};

/// A transaction that was aborted: its records lie in `first..last`, and its marker at `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Aborted {
    pub(crate) producer_id: i64,
    pub(crate) first: i64,
    pub(crate) last: i64,
    /// The last stable offset right after the marker: whatever ends later begins here or later.
    stable: i64,
}

#[derive(Debug, Default)]
pub(crate) struct TransactionIndex {
    /// The producers of open transactions by the offset of the first record.
    open: BTreeMap<i64, i64>,
    /// In the order of their markers.
    aborted: VecDeque<Aborted>,
}

impl TransactionIndex {
    /// A producer's first record of a transaction was appended.
    pub(crate) fn begin(&mut self, producer_id: i64, first: i64) {
        self.open.insert(first, producer_id);
    }

    /// The marker at `marker` committed the transaction that began at `first`.
    pub(crate) fn commit(&mut self, first: i64) {
        self.open.remove(&first);
    }

    /// The marker at `marker` aborted the transaction that began at `first`.
    pub(crate) fn abort(&mut self, producer_id: i64, first: i64, marker: i64) {
        self.open.remove(&first);
        self.aborted.push_back(Aborted {
            producer_id,
            first,
            last: marker,
            stable: self.first_open().unwrap_or(marker + 1),
        });
    }

    /// Where the oldest open transaction begins.
    pub(crate) fn first_open(&self) -> Option<i64> {
        self.open.keys().next().copied()
    }

    /// The aborted transactions with records in `from..to`.
    pub(crate) fn aborted_between(&self, from: i64, to: i64) -> Vec<Aborted> {
        let ended_before = self.aborted.partition_point(|aborted| aborted.last < from);
        let mut found = Vec::new();
        for aborted in self.aborted.range(ended_before..) {
            if aborted.first < to {
                found.push(*aborted);
            }
            if aborted.stable >= to {
                break;
            }
        }
        found
    }

    /// Forgets the aborted transactions whose markers, at these offsets, are gone from the log.
    pub(crate) fn forget_markers(&mut self, markers: &HashSet<i64>) {
        self.aborted.retain(|aborted| !markers.contains(&aborted.last));
    }

    /// Forgets the aborted transactions that lie wholly before the new start of the log.
    pub(crate) fn forget_before(&mut self, start: i64) {
        while self.aborted.front().is_some_and(|aborted| aborted.last < start) {
            self.aborted.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn readers_see_up_to_the_oldest_open_transaction() {
        let mut index = TransactionIndex::default();
        assert_eq!(index.first_open(), None);
        index.begin(1, 10);
        index.begin(2, 12);
        assert_eq!(index.first_open(), Some(10));
        index.abort(1, 10, 20);
        assert_eq!(index.first_open(), Some(12));
        index.commit(12);
        assert_eq!(index.first_open(), None);
        let ranges = |from, to| {
            let found = index.aborted_between(from, to);
            found
                .iter()
                .map(|aborted| (aborted.first, aborted.last))
                .collect::<Vec<_>>()
        };
        assert_eq!(ranges(0, 10), []);
        assert_eq!(ranges(0, 11), [(10, 20)]);
        assert_eq!(ranges(20, 30), [(10, 20)]);
        assert_eq!(ranges(21, 30), []);
        index.forget_before(21);
        assert_eq!(index.aborted_between(0, 30), []);
    }

    proptest! {
        /// Producers begin and end at random; the search finds exactly the overlaps that a plain look
        /// at all ended transactions finds.
        #[test]
        fn the_search_finds_what_a_full_look_finds(
            steps in prop::collection::vec((0..4_i64, any::<bool>()), 1..120),
            from in 0..120_i64,
            length in 0..60_i64,
        ) {
            let mut index = TransactionIndex::default();
            let mut open: BTreeMap<i64, i64> = BTreeMap::new();
            let mut all = Vec::new();
            for (offset, (producer, abort)) in (0_i64..).zip(steps) {
                match open.remove(&producer) {
                    None => {
                        open.insert(producer, offset);
                        index.begin(producer, offset);
                    }
                    Some(first) if abort => {
                        index.abort(producer, first, offset);
                        all.push((first, offset));
                    }
                    Some(first) => index.commit(first),
                }
                prop_assert_eq!(index.first_open(), open.values().min().copied());
            }
            let to = from + length;
            let found: Vec<_> = index.aborted_between(from, to).iter().map(|a| (a.first, a.last)).collect();
            let wanted: Vec<_> = all.into_iter().filter(|(first, last)| *last >= from && *first < to).collect();
            prop_assert_eq!(found, wanted);
        }
    }
}
