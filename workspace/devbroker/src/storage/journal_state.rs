//! What a data folder keeps besides records, as plain data: entries, and the state that they add up to.
//!
//! Pure. The state is what the broker's parts are rebuilt from at a start, and what a snapshot of the
//! journal holds. Applying an entry twice is the same as applying it once.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Entry {
    TopicCreated {
        name: String,
        #[serde(with = "uuid_text")]
        id: Uuid,
        partitions: i32,
        settings: BTreeMap<String, String>,
    },
    TopicGrown {
        name: String,
        partitions: i32,
    },
    TopicConfigured {
        name: String,
        settings: BTreeMap<String, String>,
    },
    /// The topic with its log starts, and all positions in it.
    TopicDeleted {
        name: String,
    },
    LogStartMoved {
        topic: String,
        partition: i32,
        offset: i64,
    },
    OffsetsCommitted {
        group: String,
        offsets: Vec<KeptOffset>,
    },
    OffsetsForgotten {
        group: String,
        partitions: Vec<(String, i32)>,
    },
    /// The group with its positions, those of open transactions included.
    GroupDeleted {
        group: String,
    },
    /// Positions that become committed, or nothing, with the producer's transaction.
    OffsetsPending {
        producer_id: i64,
        group: String,
        offsets: Vec<KeptOffset>,
    },
    OffsetsEnded {
        producer_id: i64,
        group: String,
        committed: bool,
    },
    TransactionChanged {
        transactional_id: String,
        transaction: KeptTransaction,
    },
    TransactionalIdForgotten {
        transactional_id: String,
    },
    /// Every producer id below this one may have been given out.
    ProducerIdsTaken {
        below: i64,
    },
}

/// A committed position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptOffset {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
}

/// Where a transaction of a transactional id stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeptPhase {
    Empty,
    Ongoing,
    PrepareCommit,
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
}

/// What is known of a transactional id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptTransaction {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    /// The producer id before its epochs were used up.
    pub(crate) previous_producer_id: i64,
    /// The epoch before a bump whose answer may have been lost.
    pub(crate) last_epoch: i16,
    pub(crate) timeout_ms: u64,
    pub(crate) phase: KeptPhase,
    /// Partitions that have, or may have, records of it.
    pub(crate) partitions: BTreeSet<(String, i32)>,
    /// Groups that have pending positions of it.
    pub(crate) groups: BTreeSet<String>,
    /// When it began, in milliseconds since 1970; -1 where there is none.
    pub(crate) started_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeptTopic {
    #[serde(with = "uuid_text")]
    pub(crate) id: Uuid,
    pub(crate) partitions: i32,
    pub(crate) settings: BTreeMap<String, String>,
    /// First readable offsets, where they are not 0.
    pub(crate) log_starts: BTreeMap<i32, i64>,
}

/// A position, and how many came before it: of two the later one counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlacedOffset {
    pub(crate) order: u64,
    pub(crate) offset: KeptOffset,
}

/// The positions of one group, by topic and partition.
pub(crate) type KeptOffsets = BTreeMap<String, BTreeMap<i32, PlacedOffset>>;

/// Everything that is kept besides records.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct JournalState {
    pub(crate) topics: BTreeMap<String, KeptTopic>,
    pub(crate) groups: BTreeMap<String, KeptOffsets>,
    /// By producer id and group.
    pub(crate) pending: BTreeMap<i64, BTreeMap<String, KeptOffsets>>,
    /// How many positions came.
    pub(crate) offset_count: u64,
    pub(crate) transactions: BTreeMap<String, KeptTransaction>,
    pub(crate) producer_ids_below: i64,
}

impl JournalState {
    pub(crate) fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::TopicCreated {
                name,
                id,
                partitions,
                settings,
            } => {
                let log_starts = BTreeMap::new();
                let topic = KeptTopic {
                    id,
                    partitions,
                    settings,
                    log_starts,
                };
                self.topics.insert(name, topic);
            }
            Entry::TopicGrown { name, partitions } => {
                self.topic(&name, |topic| topic.partitions = partitions);
            }
            Entry::TopicConfigured { name, settings } => self.topic(&name, |topic| topic.settings = settings),
            Entry::TopicDeleted { name } => self.delete_topic(&name),
            Entry::LogStartMoved {
                topic,
                partition,
                offset,
            } => self.topic(&topic, |topic| {
                topic.log_starts.insert(partition, offset);
            }),
            Entry::OffsetsCommitted { group, offsets } => {
                let placed = self.placed(offsets);
                merge(self.groups.entry(group).or_default(), placed);
            }
            Entry::OffsetsForgotten { group, partitions } => self.forget_offsets(&group, &partitions),
            Entry::GroupDeleted { group } => self.delete_group(&group),
            Entry::OffsetsPending {
                producer_id,
                group,
                offsets,
            } => {
                let placed = self.placed(offsets);
                let of_producer = self.pending.entry(producer_id).or_default();
                merge(of_producer.entry(group).or_default(), placed);
            }
            Entry::OffsetsEnded {
                producer_id,
                group,
                committed,
            } => self.end_offsets(producer_id, &group, committed),
            Entry::TransactionChanged {
                transactional_id,
                transaction,
            } => {
                self.transactions.insert(transactional_id, transaction);
            }
            Entry::TransactionalIdForgotten { transactional_id } => {
                self.transactions.remove(&transactional_id);
            }
            Entry::ProducerIdsTaken { below } => {
                self.producer_ids_below = self.producer_ids_below.max(below);
            }
        }
    }

    fn topic(&mut self, name: &str, change: impl FnOnce(&mut KeptTopic)) {
        if let Some(topic) = self.topics.get_mut(name) {
            change(topic);
        }
    }

    fn delete_topic(&mut self, name: &str) {
        self.topics.remove(name);
        let pending = self.pending.values_mut().flat_map(BTreeMap::values_mut);
        for offsets in self.groups.values_mut().chain(pending) {
            offsets.remove(name);
        }
        self.groups.retain(|_, offsets| !offsets.is_empty());
    }

    /// Forgets a group, what open transactions would commit in it included.
    fn delete_group(&mut self, group: &str) {
        self.groups.remove(group);
        self.pending.retain(|_, of_producer| {
            of_producer.remove(group);
            !of_producer.is_empty()
        });
    }

    fn placed(&mut self, offsets: Vec<KeptOffset>) -> Vec<PlacedOffset> {
        let placed = offsets.into_iter().map(|offset| {
            self.offset_count += 1;
            let order = self.offset_count;
            PlacedOffset { order, offset }
        });
        placed.collect()
    }

    /// Forgets positions, those that open transactions would commit included.
    fn forget_offsets(&mut self, group: &str, partitions: &[(String, i32)]) {
        let pending = self.pending.values_mut();
        let pending = pending.filter_map(|of_producer| of_producer.get_mut(group));
        for offsets in self.groups.get_mut(group).into_iter().chain(pending) {
            for (topic, partition) in partitions {
                if let Some(of_topic) = offsets.get_mut(topic) {
                    of_topic.remove(partition);
                }
            }
            offsets.retain(|_, of_topic| !of_topic.is_empty());
        }
        self.groups.retain(|_, offsets| !offsets.is_empty());
    }

    fn end_offsets(&mut self, producer_id: i64, group: &str, committed: bool) {
        let Some(of_producer) = self.pending.get_mut(&producer_id) else {
            return;
        };
        let ended = of_producer.remove(group);
        if of_producer.is_empty() {
            self.pending.remove(&producer_id);
        }
        if let Some(offsets) = ended.filter(|offsets| committed && !offsets.is_empty()) {
            let offsets = offsets.into_values().flat_map(BTreeMap::into_values);
            merge(self.groups.entry(group.to_owned()).or_default(), offsets);
        }
    }
}

/// A position that came before the one that is there does not replace it.
fn merge(into: &mut KeptOffsets, offsets: impl IntoIterator<Item = PlacedOffset>) {
    for placed in offsets {
        let of_topic = into.entry(placed.offset.topic.clone()).or_default();
        let known = of_topic.get(&placed.offset.partition);
        if known.is_none_or(|known| known.order < placed.order) {
            of_topic.insert(placed.offset.partition, placed);
        }
    }
}

mod uuid_text {
    use serde::{Deserialize, Deserializer, Serializer};
    use uuid::Uuid;

    pub(super) fn serialize<S: Serializer>(id: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
        let text = String::deserialize(deserializer)?;
        Uuid::parse_str(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(topic: &str, partition: i32, offset: i64) -> KeptOffset {
        KeptOffset {
            topic: topic.to_owned(),
            partition,
            offset,
            leader_epoch: 0,
            metadata: String::new(),
        }
    }

    fn state(entries: impl IntoIterator<Item = Entry>) -> JournalState {
        let mut state = JournalState::default();
        entries.into_iter().for_each(|entry| state.apply(entry));
        state
    }

    fn created(name: &str) -> Entry {
        Entry::TopicCreated {
            name: name.to_owned(),
            id: Uuid::new_v4(),
            partitions: 2,
            settings: BTreeMap::new(),
        }
    }

    fn committed(group: &str, offsets: Vec<KeptOffset>) -> Entry {
        let group = group.to_owned();
        Entry::OffsetsCommitted { group, offsets }
    }

    fn pending(offsets: Vec<KeptOffset>) -> Entry {
        let group = "g".to_owned();
        Entry::OffsetsPending {
            producer_id: 7,
            group,
            offsets,
        }
    }

    fn ended(committed: bool) -> Entry {
        let group = "g".to_owned();
        Entry::OffsetsEnded {
            producer_id: 7,
            group,
            committed,
        }
    }

    #[test]
    fn a_deleted_topic_takes_its_positions_and_its_log_starts_with_it() {
        let moved = Entry::LogStartMoved {
            topic: "a".to_owned(),
            partition: 1,
            offset: 9,
        };
        let name = "a".to_owned();
        let gone = [created("a"), created("b"), moved.clone()].into_iter().chain([
            committed("g", vec![offset("a", 0, 5), offset("b", 0, 6)]),
            committed("only-a", vec![offset("a", 0, 5)]),
            Entry::TopicDeleted { name },
            created("a"),
        ]);
        let state = state(gone);
        assert!(state.topics["a"].log_starts.is_empty());
        assert_eq!(state.groups.keys().collect::<Vec<_>>(), ["g"]);
        assert_eq!(state.groups["g"].keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn pending_positions_count_when_their_transaction_commits_and_never_when_it_aborts() {
        let before = [
            created("a"),
            committed("g", vec![offset("a", 0, 1)]),
            pending(vec![offset("a", 0, 5)]),
        ];
        let open = state(before.clone());
        assert_eq!(open.groups["g"]["a"][&0].offset.offset, 1);
        let aborted = state(before.clone().into_iter().chain([ended(false)]));
        assert_eq!(aborted.groups["g"]["a"][&0].offset.offset, 1);
        let done = state(before.into_iter().chain([ended(true), ended(true)]));
        assert_eq!(done.groups["g"]["a"][&0].offset.offset, 5);
        assert!(done.pending.is_empty() && aborted.pending.is_empty());
    }

    #[test]
    fn of_a_plain_commit_and_one_in_a_transaction_the_later_one_counts() {
        let plain = || committed("g", vec![offset("a", 0, 9)]);
        let held = || pending(vec![offset("a", 0, 5)]);
        let plain_last = state([created("a"), held(), plain(), ended(true)]);
        assert_eq!(plain_last.groups["g"]["a"][&0].offset.offset, 9);
        let held_last = state([created("a"), plain(), held(), ended(true)]);
        assert_eq!(held_last.groups["g"]["a"][&0].offset.offset, 5);
    }

    #[test]
    fn a_forgotten_position_is_not_committed_by_a_transaction_that_held_it() {
        let forgotten = Entry::OffsetsForgotten {
            group: "g".to_owned(),
            partitions: vec![("a".to_owned(), 0)],
        };
        let held = pending(vec![offset("a", 0, 5), offset("a", 1, 6)]);
        let state = state([created("a"), held, forgotten, ended(true)]);
        assert_eq!(state.groups["g"]["a"].keys().collect::<Vec<_>>(), [&1]);
    }

    #[test]
    fn what_a_transaction_held_in_a_deleted_group_does_not_come_back_with_the_next_one() {
        let group = "g".to_owned();
        // There is no group to tell that the first transaction is aborted, so nothing is written of it.
        let entries = [
            created("a"),
            pending(vec![offset("a", 0, 5)]),
            Entry::GroupDeleted { group },
            pending(vec![offset("a", 1, 6)]),
            ended(true),
        ];
        let state = state(entries);
        assert_eq!(state.groups["g"]["a"].keys().collect::<Vec<_>>(), [&1]);
        assert!(state.pending.is_empty());
    }

    #[test]
    fn a_group_without_positions_is_none() {
        let partitions = vec![("a".to_owned(), 0)];
        let group = "g".to_owned();
        let forgotten = Entry::OffsetsForgotten { group, partitions };
        let entries = [created("a"), committed("g", vec![offset("a", 0, 1)]), forgotten];
        assert!(state(entries).groups.is_empty());
    }

    #[test]
    fn producer_ids_never_come_back() {
        let taken = [2_000, 1_000].map(|below| Entry::ProducerIdsTaken { below });
        assert_eq!(state(taken).producer_ids_below, 2_000);
    }

    #[test]
    fn the_state_is_the_same_after_a_journey_through_json() {
        let transaction = KeptTransaction {
            producer_id: 7,
            previous_producer_id: -1,
            epoch: 1,
            last_epoch: 0,
            timeout_ms: 60_000,
            phase: KeptPhase::PrepareCommit,
            partitions: BTreeSet::from([("a".to_owned(), 0)]),
            groups: BTreeSet::from(["g".to_owned()]),
            started_ms: 1,
        };
        let changed = Entry::TransactionChanged {
            transactional_id: "t".to_owned(),
            transaction,
        };
        let all = [
            created("a"),
            committed("g", vec![offset("a", 0, 1)]),
            pending(vec![offset("a", 1, 5)]),
            changed,
        ];
        let state = state(all);
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<JournalState>(&text).unwrap(), state);
    }
}
