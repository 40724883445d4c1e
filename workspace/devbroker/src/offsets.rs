//! The offsets that one group committed.
//!
//! Pure. Offsets of open transactions will be kept beside these, by producer, until they end.

use std::collections::BTreeMap;

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

#[derive(Debug, Default)]
pub(crate) struct Offsets {
    by_topic: BTreeMap<String, BTreeMap<i32, Committed>>,
}

impl Offsets {
    pub(crate) fn commit(&mut self, offset: PartitionOffset) {
        self.by_topic
            .entry(offset.topic)
            .or_default()
            .insert(offset.partition, offset.committed);
    }

    pub(crate) fn get(&self, topic: &str, partition: i32) -> Option<&Committed> {
        self.by_topic.get(topic)?.get(&partition)
    }

    /// All positions, by topic and partition.
    pub(crate) fn all(&self) -> Vec<PartitionOffset> {
        let pairs = self.by_topic.iter().flat_map(|(topic, partitions)| {
            partitions
                .iter()
                .map(move |(partition, committed)| PartitionOffset {
                    topic: topic.clone(),
                    partition: *partition,
                    committed: committed.clone(),
                })
        });
        pairs.collect()
    }

    pub(crate) fn forget_topic(&mut self, topic: &str) {
        self.by_topic.remove(topic);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }
}
