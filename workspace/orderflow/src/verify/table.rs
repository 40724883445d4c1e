//! What is remembered of the orders: 56 bytes for each, and an index.
//!
//! An order is known by its id *and* its partition, because the promise of one effect holds per partition:
//! an id that stands in two partitions, after these grew, has an entry in each.
//!
//! Memory for 10 million orders: 560 MB of entries (the list doubles its space in place, and space that was
//! never written to takes no memory), and an index of 2^24 places of 5 bytes, 84 MB, beside which the half
//! as large one stands while it grows: 690 MB at most.
//!
//! Pure.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use domain::{Currency, MinorUnits, Money};
use hashbrown::HashTable;

use super::key::Key;

/// Where a record stands in its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Spot {
    pub partition: i32,
    pub offset: i64,
}

impl std::fmt::Display for Spot {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}@{}", self.partition, self.offset)
    }
}

/// Which worker's group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    Fraud,
    Payments,
    Analytics,
}

impl Group {
    pub const ALL: [Self; 3] = [Self::Fraud, Self::Payments, Self::Analytics];

    /// The worker of the group.
    pub const fn worker(self) -> &'static str {
        match self {
            Self::Fraud => "fraud",
            Self::Payments => "payment",
            Self::Analytics => "analytics",
        }
    }

    pub const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// What is known of an order, as bits; the dead letters and the parked records take three bits each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks(u16);

impl Marks {
    pub const PROBE: Self = Self(1);
    /// Outside of the range that is judged.
    pub const OUTSIDE: Self = Self(1 << 1);
    pub const DOCUMENT: Self = Self(1 << 2);
    pub const PAID: Self = Self(1 << 3);
    pub const CHARGED: Self = Self(1 << 4);
    /// The same id stands in another partition too.
    pub const STRADDLES: Self = Self(1 << 5);
    /// It has a dead letter of payments-group that stands for it: one that was not replayed.
    pub const LETTER_STANDS: Self = Self(1 << 6);

    pub const fn dead_letter_of(group: Group) -> Self {
        Self((group.bit() as u16) << 8)
    }

    pub const fn parked_by(group: Group) -> Self {
        Self((group.bit() as u16) << 11)
    }
}

/// What an order may have caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// `PAID` or `DECLINED`.
    Final,
    Failed,
    Alert,
}

/// One more `FAILED` that is explained, in the upper bits of an entry's effects. As many as fit stand for any
/// number.
const FAILURE: u8 = 1 << 3;
const MOST_FAILURES: u8 = u8::MAX / FAILURE;

/// What is remembered of the first occurrence of an order in its partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub key: Key,
    offset: i64,
    minor: i64,
    /// Of the canonical text of its fields.
    pub content: u64,
    partition: i32,
    /// Of its bytes.
    pub bytes: u32,
    currency: Currency,
    /// What the rules say; 0 where they raise no alert.
    pub score: u8,
    /// The effects that it has had, and from [`FAILURE`] on how many more `FAILED` are explained.
    effects: u8,
    marks: Marks,
}

impl Entry {
    pub const fn new(key: Key, spot: Spot, money: Money) -> Self {
        Self {
            key,
            offset: spot.offset,
            minor: money.minor.0,
            content: 0,
            partition: spot.partition,
            bytes: 0,
            currency: money.currency,
            score: 0,
            effects: 0,
            marks: Marks(0),
        }
    }

    pub const fn spot(&self) -> Spot {
        Spot {
            partition: self.partition,
            offset: self.offset,
        }
    }

    pub const fn money(&self) -> Money {
        Money {
            minor: MinorUnits(self.minor),
            currency: self.currency,
        }
    }

    pub const fn has(&self, effect: Effect) -> bool {
        self.effects & 1 << effect as u8 != 0
    }

    /// Takes an effect into account; says whether it is the first of its kind.
    pub const fn is_first(&mut self, effect: Effect) -> bool {
        let had = self.has(effect);
        self.effects |= 1 << effect as u8;
        !had
    }

    /// A replay failed again: one more `FAILED` is explained.
    pub const fn explain_failure(&mut self) {
        if self.effects / FAILURE < MOST_FAILURES {
            self.effects += FAILURE;
        }
    }

    /// Whether a `FAILED` beyond the first is explained. Each explanation is good for one.
    pub const fn has_explained_failure(&mut self) -> bool {
        let left = self.effects / FAILURE;
        if 0 < left && left < MOST_FAILURES {
            self.effects -= FAILURE;
        }
        left > 0
    }

    pub const fn is(&self, mark: Marks) -> bool {
        self.marks.0 & mark.0 != 0
    }

    pub const fn mark(&mut self, mark: Marks) {
        self.marks.0 |= mark.0;
    }

    /// Whether anything is asked of it.
    pub const fn is_judged(&self) -> bool {
        !self.is(Marks::PROBE) && !self.is(Marks::OUTSIDE)
    }
}

/// The orders.
#[derive(Default)]
pub(super) struct Table {
    entries: Vec<Entry>,
    index: HashTable<u32>,
    hasher: RandomState,
}

impl Table {
    fn find(&self, key: Key, matches: impl Fn(&Entry) -> bool) -> Option<usize> {
        let hash = self.hasher.hash_one(key);
        let found = self.index.find(hash, |index| {
            self.entries
                .get(*index as usize)
                .is_some_and(|entry| entry.key == key && matches(entry))
        });
        found.map(|index| *index as usize)
    }

    /// The order of that id in that partition.
    pub fn get_mut(&mut self, key: Key, partition: i32) -> Option<&mut Entry> {
        let index = self.find(key, |entry| entry.partition == partition)?;
        self.entries.get_mut(index)
    }

    /// The order of that id in any partition that `wanted` takes.
    pub fn find_mut(&mut self, key: Key, wanted: impl Fn(&Entry) -> bool) -> Option<&mut Entry> {
        let index = self.find(key, wanted)?;
        self.entries.get_mut(index)
    }

    /// Adds an order that is not there yet; says whether its id stands in another partition.
    pub fn add(&mut self, mut entry: Entry) -> bool {
        let straddles = match self.find_mut(entry.key, |_| true) {
            Some(other) => {
                other.mark(Marks::STRADDLES);
                entry.mark(Marks::STRADDLES);
                true
            }
            None => false,
        };
        // 2^32 entries would be 240 GB.
        let index = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let Self {
            entries,
            index: table,
            hasher,
        } = self;
        entries.push(entry);
        let hash_of = |index: &u32| {
            entries
                .get(*index as usize)
                .map_or(0, |entry| hasher.hash_one(entry.key))
        };
        table.insert_unique(hasher.hash_one(entry.key), index, hash_of);
        straddles
    }

    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }
}

/// A record of `orders` that is no order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    offset: i64,
    /// Of its bytes.
    pub bytes: u32,
    /// The groups that have a dead letter of it.
    pub letters: u8,
    /// The groups that have one which was not replayed.
    pub standing: u8,
    /// Whether it is in the range that is judged.
    pub judged: bool,
}

/// The records of `orders` that are no orders: 16 bytes each.
#[derive(Default)]
pub(super) struct Refused {
    partitions: HashMap<i32, Vec<Refusal>>,
}

impl Refused {
    /// Adds a record; those of a partition come in the order of their offsets.
    pub fn add(&mut self, spot: Spot, bytes: u32, judged: bool) {
        let list = self.partitions.entry(spot.partition).or_default();
        list.push(Refusal {
            offset: spot.offset,
            bytes,
            letters: 0,
            standing: 0,
            judged,
        });
    }

    /// The record that stands there, if it is no order.
    pub fn get_mut(&mut self, spot: Spot) -> Option<&mut Refusal> {
        let list = self.partitions.get_mut(&spot.partition)?;
        let found = list.binary_search_by_key(&spot.offset, |refusal| refusal.offset);
        list.get_mut(found.ok()?)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Spot, &Refusal)> {
        self.partitions.iter().flat_map(|(partition, list)| {
            list.iter().map(|refusal| {
                let spot = Spot {
                    partition: *partition,
                    offset: refusal.offset,
                };
                (spot, refusal)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_size_that_the_arithmetic_says() {
        assert_eq!((size_of::<Entry>(), size_of::<Refusal>()), (56, 16));
    }

    fn entry(id: &str, partition: i32, offset: i64) -> Entry {
        let money = Money {
            minor: MinorUnits(100),
            currency: Currency::USD,
        };
        Entry::new(Key::of(id), Spot { partition, offset }, money)
    }

    #[test]
    fn an_id_has_an_entry_in_each_partition_and_only_then_straddles() {
        let mut table = Table::default();
        for (id, partition, offset) in [("1", 0, 0), ("2", 0, 1), ("1", 1, 0)] {
            assert!(table.get_mut(Key::of(id), partition).is_none());
            assert_eq!(table.add(entry(id, partition, offset)), partition == 1);
        }
        let mut straddles = |id: &str, partition| {
            let entry = table.get_mut(Key::of(id), partition).expect("there");
            (entry.spot().offset, entry.is(Marks::STRADDLES))
        };
        assert_eq!(straddles("1", 0), (0, true));
        assert_eq!(straddles("1", 1), (0, true));
        assert_eq!(straddles("2", 0), (1, false));
    }

    #[test]
    fn each_explanation_is_good_for_one_failure_and_touches_no_effect() {
        let mut entry = entry("1", 0, 0);
        assert!(entry.is_first(Effect::Failed) && !entry.has_explained_failure());
        entry.explain_failure();
        entry.explain_failure();
        let explained = [(); 3].map(|()| entry.has_explained_failure());
        assert_eq!(explained, [true, true, false]);
        assert!(entry.has(Effect::Failed) && !entry.has(Effect::Final) && !entry.has(Effect::Alert));
        (0..100).for_each(|_| entry.explain_failure());
        assert!(
            (0..100).all(|_| entry.has_explained_failure()),
            "many are any number"
        );
        assert!(entry.has(Effect::Failed) && !entry.has(Effect::Final));
    }

    #[test]
    fn marks_do_not_overlap() {
        let groups = Group::ALL
            .into_iter()
            .flat_map(|group| [Marks::dead_letter_of(group), Marks::parked_by(group)]);
        let single = [
            Marks::PROBE,
            Marks::OUTSIDE,
            Marks::DOCUMENT,
            Marks::PAID,
            Marks::CHARGED,
            Marks::STRADDLES,
            Marks::LETTER_STANDS,
        ];
        let all: Vec<u16> = groups.chain(single).map(|mark| mark.0).collect();
        let union = all.iter().fold(0, |union, mark| union | mark);
        assert_eq!(union.count_ones() as usize, all.len());
    }
}
