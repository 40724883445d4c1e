//! The offsets that one group committed.
//!
//! Those that were committed in a transaction are held beside the others, by producer, until the
//! transaction ends: then they replace those that came before them, or are dropped. Until then a
//! partition is *unstable*.
//!
//! Pure.

use std::collections::BTreeMap;

use crate::batch::Outcome;
use crate::storage::KeptOffset;

/// A committed position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
}

/// A partition and the position that is committed for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionOffset {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) committed: Committed,
}

impl PartitionOffset {
    /// As the data folder keeps it.
    pub(crate) fn kept(&self) -> KeptOffset {
        KeptOffset {
            topic: self.topic.clone(),
            partition: self.partition,
            offset: self.committed.offset,
            leader_epoch: self.committed.leader_epoch,
            metadata: self.committed.metadata.clone(),
        }
    }
}

impl From<KeptOffset> for PartitionOffset {
    fn from(kept: KeptOffset) -> Self {
        Self {
            topic: kept.topic,
            partition: kept.partition,
            committed: Committed {
                offset: kept.offset,
                leader_epoch: kept.leader_epoch,
                metadata: kept.metadata,
            },
        }
    }
}

/// A position, and how many came before it.
#[derive(Debug)]
struct Placed {
    order: u64,
    committed: Committed,
}

#[derive(Debug, Default)]
pub(crate) struct Offsets {
    by_topic: BTreeMap<String, BTreeMap<i32, Placed>>,
    /// Held for open transactions, by producer id.
    held: BTreeMap<i64, BTreeMap<(String, i32), Placed>>,
    /// How many positions came.
    count: u64,
}

impl Offsets {
    pub(crate) fn commit(&mut self, offset: PartitionOffset) {
        let placed = self.placed(offset.committed);
        self.by_topic
            .entry(offset.topic)
            .or_default()
            .insert(offset.partition, placed);
    }

    /// Keeps a position until the transaction of this producer ends.
    pub(crate) fn hold(&mut self, producer_id: i64, offset: PartitionOffset) {
        let placed = self.placed(offset.committed);
        let held = self.held.entry(producer_id).or_default();
        held.insert((offset.topic, offset.partition), placed);
    }

    fn placed(&mut self, committed: Committed) -> Placed {
        self.count += 1;
        Placed {
            order: self.count,
            committed,
        }
    }

    /// The transaction of this producer ended. A position that came before the one that counts now
    /// does not replace it.
    pub(crate) fn end_transaction(&mut self, producer_id: i64, outcome: Outcome) {
        let held = self.held.remove(&producer_id).unwrap_or_default();
        if outcome == Outcome::Abort {
            return;
        }
        for ((topic, partition), placed) in held {
            let partitions = self.by_topic.entry(topic).or_default();
            let known = partitions.get(&partition);
            if known.is_none_or(|known| known.order < placed.order) {
                partitions.insert(partition, placed);
            }
        }
    }

    /// Whether a transaction that has not ended may move this position.
    pub(crate) fn is_unstable(&self, topic: &str, partition: i32) -> bool {
        let key = (topic.to_owned(), partition);
        self.held.values().any(|held| held.contains_key(&key))
    }

    pub(crate) fn get(&self, topic: &str, partition: i32) -> Option<&Committed> {
        let placed = self.by_topic.get(topic)?.get(&partition)?;
        Some(&placed.committed)
    }

    /// The partitions with a committed position, sorted.
    pub(crate) fn partitions(&self) -> Vec<(String, i32)> {
        let pairs = self.by_topic.iter().flat_map(|(topic, partitions)| {
            partitions
                .keys()
                .map(move |partition| (topic.clone(), *partition))
        });
        pairs.collect()
    }

    /// Forgets a position, the one that an open transaction would commit included.
    pub(crate) fn forget(&mut self, topic: &str, partition: i32) {
        if let Some(partitions) = self.by_topic.get_mut(topic) {
            partitions.remove(&partition);
            if partitions.is_empty() {
                self.by_topic.remove(topic);
            }
        }
        self.forget_held(|name, index| name == topic && index == partition);
    }

    pub(crate) fn forget_topic(&mut self, topic: &str) {
        self.by_topic.remove(topic);
        self.forget_held(|name, _| name == topic);
    }

    fn forget_held(&mut self, unwanted: impl Fn(&str, i32) -> bool) {
        for held in self.held.values_mut() {
            held.retain(|(name, partition), _| !unwanted(name, *partition));
        }
        self.held.retain(|_, held| !held.is_empty());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_topic.is_empty() && self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(partition: i32, offset: i64) -> PartitionOffset {
        PartitionOffset {
            topic: "orders".to_owned(),
            partition,
            committed: Committed {
                offset,
                leader_epoch: 0,
                metadata: String::new(),
            },
        }
    }

    fn committed(offsets: &Offsets, partition: i32) -> Option<i64> {
        offsets.get("orders", partition).map(|committed| committed.offset)
    }

    #[test]
    fn offsets_of_a_transaction_count_when_it_commits_and_only_then() {
        let mut offsets = Offsets::default();
        offsets.commit(position(0, 5));
        offsets.hold(1, position(0, 10));
        offsets.hold(2, position(1, 20));
        assert_eq!((committed(&offsets, 0), committed(&offsets, 1)), (Some(5), None));
        assert!(offsets.is_unstable("orders", 0) && offsets.is_unstable("orders", 1));
        offsets.end_transaction(1, Outcome::Commit);
        offsets.end_transaction(2, Outcome::Abort);
        assert_eq!((committed(&offsets, 0), committed(&offsets, 1)), (Some(10), None));
        assert!(!offsets.is_unstable("orders", 0) && !offsets.is_unstable("orders", 1));
    }

    #[test]
    fn the_position_that_came_last_counts_whenever_transactions_end() {
        let mut offsets = Offsets::default();
        offsets.hold(1, position(0, 10));
        offsets.hold(2, position(0, 20));
        offsets.end_transaction(2, Outcome::Commit);
        offsets.end_transaction(1, Outcome::Commit);
        assert_eq!(committed(&offsets, 0), Some(20));
        offsets.hold(1, position(0, 30));
        offsets.commit(position(0, 5));
        assert!(offsets.is_unstable("orders", 0));
        offsets.end_transaction(1, Outcome::Commit);
        assert_eq!(committed(&offsets, 0), Some(5));
    }

    #[test]
    fn a_deleted_topic_takes_held_offsets_with_it() {
        let mut offsets = Offsets::default();
        offsets.hold(1, position(0, 10));
        offsets.forget_topic("orders");
        assert!(offsets.is_empty());
        offsets.end_transaction(1, Outcome::Commit);
        assert!(offsets.is_empty());
    }

    #[test]
    fn a_forgotten_offset_does_not_come_back_with_a_transaction() {
        let mut offsets = Offsets::default();
        for partition in [0, 1] {
            offsets.commit(position(partition, 5));
            offsets.hold(1, position(partition, 10));
        }
        offsets.forget("orders", 0);
        offsets.end_transaction(1, Outcome::Commit);
        assert_eq!((committed(&offsets, 0), committed(&offsets, 1)), (None, Some(10)));
    }
}
