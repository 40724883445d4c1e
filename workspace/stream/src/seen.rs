//! Which keys were seen lately, and where first.
//!
//! The same record may stand in a topic twice: a client retried, a spool was sent again after a crash.
//! For each partition the keys of the last records are remembered with the offset at which each stood
//! first, and a record whose key stood before it is a *repeat*: it ends without an effect. Only what
//! had its effect is remembered for good: a record that became a dead letter is forgotten, so that its
//! corrected successor is worked on.
//!
//! A record is a repeat only of what stands *before* it. So a record that is read again, after a failed
//! unit of work or by the next owner, is no repeat of itself.
//!
//! Keys are kept as keyed hashes of 64 bits, of which two are the same once in 10^9 windows of 100,000.
//! The window forgets the oldest first. Beyond it, the effects' own idempotence has to hold.
//!
//! Pure: no clock, no I/O.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use crate::position::{Offset, TopicPartition};

/// What a key and its place say of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// The key did not stand before it, as far as is known.
    First,
    /// It repeats a record with the same content.
    Repeat,
    /// It repeats the key of a record with other content.
    Conflict {
        /// Where that record stands.
        first: Offset,
    },
}

/// A short fingerprint of a record's value. Stable, because it travels in headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// Of a value; a record without one has the fingerprint of nothing.
    #[must_use]
    pub fn of(value: Option<&[u8]>) -> Self {
        let value = value.unwrap_or_default();
        Self(u64::from(crc32c::crc32c(value)) << 32 | value.len() as u64 & 0xffff_ffff)
    }

    /// As it is written into a header.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// As it was read from a header.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(u64::from_be_bytes(bytes.try_into().ok()?)))
    }
}

#[derive(Clone, Copy)]
struct Slot {
    hash: u64,
    first: Offset,
    digest: Digest,
    /// It had its effect. Told apart only where a record came from a retry topic or from a former owner.
    settled: bool,
    /// Forgotten before it became the oldest.
    gone: bool,
}

/// Where a record was read.
pub type Place = (TopicPartition, Offset);

/// The window of one partition: a ring of slots, and a table that finds them.
#[derive(Default)]
struct Window {
    slots: Vec<Slot>,
    /// The slot that is overwritten next, once the ring is full.
    oldest: usize,
    by_hash: HashTable<u32>,
    /// Records of retry topics that are in work, by the hash of their key. As many as the budget allows.
    retried: HashMap<u64, Place>,
}

impl Window {
    fn find(&self, hash: u64) -> Option<&Slot> {
        let index = self
            .by_hash
            .find(hash, |index| self.hash_at(*index) == Some(hash))?;
        self.slots.get(*index as usize)
    }

    fn find_mut(&mut self, hash: u64) -> Option<&mut Slot> {
        let index = *self
            .by_hash
            .find(hash, |index| self.hash_at(*index) == Some(hash))?;
        self.slots.get_mut(index as usize)
    }

    fn hash_at(&self, index: u32) -> Option<u64> {
        self.slots.get(index as usize).map(|slot| slot.hash)
    }

    /// Puts the slots in their order again, and keeps the newest `limit` of them.
    fn rebuild(&mut self, limit: usize) {
        self.slots.rotate_left(self.oldest);
        self.oldest = 0;
        self.slots.retain(|slot| !slot.gone);
        let surplus = self.slots.len().saturating_sub(limit);
        self.slots.drain(..surplus);
        self.slots.shrink_to(limit);
        self.by_hash = HashTable::with_capacity(self.slots.len());
        let Self { slots, by_hash, .. } = self;
        let hash_of = |index: &u32| slots.get(*index as usize).map_or(0, |slot| slot.hash);
        for (index, slot) in (0_u32..).zip(slots.iter()) {
            by_hash.insert_unique(slot.hash, index, hash_of);
        }
    }

    fn remember(&mut self, slot: Slot, limit: usize) {
        // The limit has changed since the ring was full.
        if self.slots.len() > limit || (self.slots.len() < limit && self.oldest > 0) {
            self.rebuild(limit);
        }
        let index = if self.slots.len() < limit {
            self.slots.push(slot);
            self.slots.len() - 1
        } else {
            let index = self.oldest;
            self.oldest = (self.oldest + 1) % self.slots.len().max(1);
            if let Some(old) = self.slots.get(index).copied().filter(|old| !old.gone) {
                self.unlink(old.hash);
            }
            match self.slots.get_mut(index) {
                Some(place) => *place = slot,
                None => return,
            }
            index
        };
        let Ok(index) = u32::try_from(index) else {
            return;
        };
        let Self { slots, by_hash, .. } = self;
        let hash_of = |index: &u32| slots.get(*index as usize).map_or(0, |slot| slot.hash);
        by_hash.insert_unique(slot.hash, index, hash_of);
    }

    fn unlink(&mut self, hash: u64) -> Option<u32> {
        let Self { slots, by_hash, .. } = self;
        let is_it = |index: &u32| slots.get(*index as usize).is_some_and(|slot| slot.hash == hash);
        let entry = by_hash.find_entry(hash, is_it).ok()?;
        Some(entry.remove().0)
    }
}

/// The windows of one pump.
pub struct SeenWindows {
    windows: HashMap<TopicPartition, Window>,
    hasher: RandomState,
    /// Records that are remembered per partition, and over all of them.
    per_partition: usize,
    in_all: usize,
}

impl SeenWindows {
    /// Windows of so many records per partition, and so many over all partitions. With 0 nothing is
    /// remembered.
    #[must_use]
    pub fn new(per_partition: usize, in_all: usize) -> Self {
        Self {
            windows: HashMap::new(),
            hasher: RandomState::new(),
            per_partition,
            in_all,
        }
    }

    /// Whether anything is remembered at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.per_partition > 0
    }

    /// A partition was assigned: nothing is known of it yet.
    pub fn open(&mut self, at: TopicPartition) {
        if !self.is_on() {
            return;
        }
        self.windows.insert(at, Window::default());
        let limit = self.limit();
        for window in self.windows.values_mut() {
            if window.slots.len() > limit {
                window.rebuild(limit);
            }
        }
    }

    /// A partition was given up.
    pub fn close(&mut self, at: TopicPartition) {
        self.windows.remove(&at);
    }

    /// How many records of one partition are remembered.
    #[must_use]
    pub fn limit(&self) -> usize {
        let share = self.in_all / self.windows.len().max(1);
        self.per_partition.min(share).max(1)
    }

    /// Looks at a record, and remembers it where it is the first one with its key.
    pub fn see(&mut self, at: TopicPartition, offset: Offset, key: &[u8], digest: Digest) -> Sighting {
        let limit = self.limit();
        let hash = self.hasher.hash_one(key);
        let Some(window) = self.windows.get_mut(&at) else {
            return Sighting::First;
        };
        match window.find(hash) {
            Some(seen) if seen.first < offset && seen.digest == digest => Sighting::Repeat,
            Some(seen) if seen.first < offset => Sighting::Conflict { first: seen.first },
            Some(_) => Sighting::First,
            None => {
                let slot = Slot {
                    hash,
                    first: offset,
                    digest,
                    settled: false,
                    gone: false,
                };
                window.remember(slot, limit);
                Sighting::First
            }
        }
    }

    /// Whether a later record took the place of one that had no effect.
    #[must_use]
    pub fn has_later(&self, at: TopicPartition, offset: Offset, key: &[u8]) -> bool {
        let hash = self.hasher.hash_one(key);
        let seen = self.windows.get(&at).and_then(|window| window.find(hash));
        seen.is_some_and(|seen| seen.first > offset)
    }

    /// The first record with this key has had its effect.
    pub fn settle(&mut self, at: TopicPartition, first: Offset, key: &[u8]) {
        let hash = self.hasher.hash_one(key);
        if let Some(window) = self.windows.get_mut(&at)
            && let Some(slot) = window.find_mut(hash).filter(|slot| slot.first == first)
        {
            slot.settled = true;
        }
    }

    /// Looks at a record of a retry topic, which stood first at `origin`. It is a repeat where another
    /// record has its key, where it had its effect already, or where it is in work from another place:
    /// a dead letter may be replayed twice.
    pub fn see_retry(&mut self, origin: Place, key: &[u8], digest: Digest, place: Place) -> Sighting {
        let limit = self.limit();
        let hash = self.hasher.hash_one(key);
        let (at, first) = origin;
        let Some(window) = self.windows.get_mut(&at) else {
            return Sighting::First;
        };
        match window.find(hash) {
            Some(seen) if seen.first != first && seen.digest != digest => {
                return Sighting::Conflict { first: seen.first };
            }
            Some(seen) if seen.first != first || seen.settled => return Sighting::Repeat,
            Some(_) => {}
            None => window.remember(
                Slot {
                    hash,
                    first,
                    digest,
                    settled: false,
                    gone: false,
                },
                limit,
            ),
        }
        match window.retried.insert(hash, place) {
            Some(other) if other != place => {
                window.retried.insert(hash, other);
                Sighting::Repeat
            }
            _ => Sighting::First,
        }
    }

    /// The work on a record of a retry topic is over: it had its effect, or goes elsewhere.
    pub fn end_retry(&mut self, at: TopicPartition, key: &[u8], place: Place, settled: bool) {
        let hash = self.hasher.hash_one(key);
        if let Some(window) = self.windows.get_mut(&at)
            && window.retried.get(&hash) == Some(&place)
        {
            window.retried.remove(&hash);
            if let Some(slot) = window.find_mut(hash).filter(|_| settled) {
                slot.settled = true;
            }
        }
    }

    /// The record at this offset had no effect: its key counts as not seen.
    pub fn forget(&mut self, at: TopicPartition, offset: Offset, key: &[u8]) {
        let hash = self.hasher.hash_one(key);
        let Some(window) = self.windows.get_mut(&at) else {
            return;
        };
        if window.find(hash).is_some_and(|seen| seen.first == offset)
            && let Some(index) = window.unlink(hash)
            && let Some(slot) = window.slots.get_mut(index as usize)
        {
            slot.gone = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{Partition, TopicIndex};

    fn at(partition: i32) -> TopicPartition {
        TopicPartition {
            topic: TopicIndex(0),
            partition: Partition(partition),
        }
    }

    fn windows(limit: usize) -> SeenWindows {
        let mut windows = SeenWindows::new(limit, 1_000_000);
        windows.open(at(0));
        windows
    }

    fn see(windows: &mut SeenWindows, offset: i64, key: &str, value: &str) -> Sighting {
        windows.see(
            at(0),
            Offset(offset),
            key.as_bytes(),
            Digest::of(Some(value.as_bytes())),
        )
    }

    #[test]
    fn a_later_record_with_the_key_of_an_earlier_one_is_a_repeat() {
        let mut windows = windows(10);
        assert_eq!(see(&mut windows, 5, "a", "x"), Sighting::First);
        assert_eq!(see(&mut windows, 6, "b", "x"), Sighting::First);
        assert_eq!(see(&mut windows, 7, "a", "x"), Sighting::Repeat);
        let conflict = Sighting::Conflict { first: Offset(5) };
        assert_eq!(see(&mut windows, 8, "a", "y"), conflict);
    }

    #[test]
    fn a_record_that_is_read_again_is_no_repeat_of_itself() {
        let mut windows = windows(10);
        see(&mut windows, 5, "a", "x");
        see(&mut windows, 7, "a", "x");
        assert_eq!(see(&mut windows, 5, "a", "x"), Sighting::First);
        assert_eq!(see(&mut windows, 7, "a", "x"), Sighting::Repeat);
    }

    #[test]
    fn what_had_no_effect_is_forgotten_and_its_successor_counts() {
        let mut windows = windows(10);
        see(&mut windows, 5, "a", "poison");
        windows.forget(at(0), Offset(5), b"a");
        assert_eq!(see(&mut windows, 6, "a", "mended"), Sighting::First);
        windows.forget(at(0), Offset(5), b"a");
        assert_eq!(
            see(&mut windows, 7, "a", "mended"),
            Sighting::Repeat,
            "what stands elsewhere is not forgotten"
        );
    }

    #[test]
    fn the_oldest_are_forgotten_first_and_no_more_are_kept_than_allowed() {
        let mut windows = windows(3);
        for (offset, key) in ["a", "b", "c", "d"].into_iter().enumerate() {
            see(&mut windows, offset as i64, key, "x");
        }
        assert_eq!(see(&mut windows, 10, "b", "x"), Sighting::Repeat);
        assert_eq!(see(&mut windows, 11, "a", "x"), Sighting::First, "forgotten");
        assert_eq!(
            see(&mut windows, 12, "b", "x"),
            Sighting::First,
            "pushed out by it"
        );
        let window = &windows.windows[&at(0)];
        assert_eq!((window.slots.len(), window.by_hash.len()), (3, 3));
    }

    #[test]
    fn a_partition_that_was_given_up_is_not_remembered() {
        let mut windows = windows(10);
        see(&mut windows, 5, "a", "x");
        windows.close(at(0));
        assert_eq!(see(&mut windows, 6, "a", "x"), Sighting::First);
        windows.open(at(0));
        assert_eq!(see(&mut windows, 7, "a", "x"), Sighting::First);
    }

    #[test]
    fn the_partitions_share_what_there_is_in_all() {
        let mut windows = SeenWindows::new(100, 120);
        windows.open(at(0));
        assert_eq!(windows.limit(), 100);
        windows.open(at(1));
        windows.open(at(2));
        assert_eq!(windows.limit(), 40);
    }

    #[test]
    fn a_window_that_shrinks_and_grows_keeps_the_newest_in_their_order() {
        let mut windows = SeenWindows::new(6, 6);
        windows.open(at(0));
        for offset in 0..9 {
            see(&mut windows, offset, &offset.to_string(), "x");
        }
        windows.open(at(1));
        assert_eq!(windows.limit(), 3);
        assert_eq!(windows.windows[&at(0)].slots.len(), 3, "6, 7 and 8");
        windows.close(at(1));
        for offset in 9..12 {
            see(&mut windows, offset, &offset.to_string(), "x");
        }
        let window: Vec<i64> = windows.windows[&at(0)]
            .slots
            .iter()
            .map(|slot| slot.first.0)
            .collect();
        assert_eq!(window, [6, 7, 8, 9, 10, 11]);
        assert_eq!(see(&mut windows, 100, "8", "x"), Sighting::Repeat);
        assert_eq!(see(&mut windows, 101, "12", "x"), Sighting::First);
        assert_eq!(
            see(&mut windows, 102, "6", "x"),
            Sighting::First,
            "the oldest went"
        );
    }

    proptest::proptest! {
        /// Keys come and go at random; a window that is large enough says the same as a plain list.
        #[test]
        fn a_window_says_what_a_plain_list_says(steps in proptest::collection::vec((0..8_u8, 0..2_u8, 0..10_u8), 1..200)) {
            let mut windows = windows(1_000);
            let mut list: Vec<(u8, i64, u8)> = Vec::new();
            for (offset, (key, value, step)) in (0_i64..).zip(steps) {
                let known = list.iter().find(|(known, ..)| *known == key).copied();
                if step == 0 {
                    // The newest record of the key ended without an effect.
                    if let Some((_, first, _)) = known {
                        windows.forget(at(0), Offset(first), &[key]);
                        list.retain(|(known, ..)| *known != key);
                    }
                    continue;
                }
                let expected = match known {
                    None => {
                        list.push((key, offset, value));
                        Sighting::First
                    }
                    Some((_, _, first)) if first == value => Sighting::Repeat,
                    Some((_, first, _)) => Sighting::Conflict { first: Offset(first) },
                };
                let sighting = windows.see(at(0), Offset(offset), &[key], Digest::of(Some(&[value])));
                proptest::prop_assert_eq!(sighting, expected);
            }
        }
    }
}
