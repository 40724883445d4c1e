//! Records of one key, one after the other.
//!
//! A record whose key has another one at work waits for its turn, in read order. Keys are told apart by
//! a hash: two that share one wait for each other, which costs time and nothing else.
//!
//! Pure: no clock, no I/O.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap, RandomState};
use std::hash::BuildHasher;

use crate::ledger::Ticket;
use crate::position::{Epoch, TopicPartition};

/// The key of a record, in one life of its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Turn {
    at: TopicPartition,
    epoch: Epoch,
    key: u64,
}

/// Work that waits for its turn, by key. A key is here while one of its records is at work.
pub(super) struct Turns<W> {
    hasher: RandomState,
    waiting: HashMap<Turn, VecDeque<W>>,
}

impl<W> Default for Turns<W> {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            waiting: HashMap::new(),
        }
    }
}

impl<W> Turns<W> {
    pub fn of(&self, ticket: &Ticket, key: &[u8]) -> Turn {
        Turn {
            at: ticket.at,
            epoch: ticket.epoch,
            key: self.hasher.hash_one(key),
        }
    }

    /// Gives the work back where it is its turn at once; else it waits.
    pub fn take(&mut self, turn: Turn, work: W) -> Option<W> {
        match self.waiting.entry(turn) {
            Entry::Vacant(free) => {
                free.insert(VecDeque::new());
                Some(work)
            }
            Entry::Occupied(mut taken) => {
                taken.get_mut().push_back(work);
                None
            }
        }
    }

    /// The work whose turn it is now that the one before it is over.
    pub fn pass(&mut self, turn: Turn) -> Option<W> {
        let next = self.waiting.get_mut(&turn)?.pop_front();
        if next.is_none() {
            self.waiting.remove(&turn);
        }
        next
    }

    /// Drops what waits of these partitions, and tells how much that was.
    pub fn give_up(&mut self, partitions: &[TopicPartition]) -> usize {
        let mut dropped = 0;
        self.waiting.retain(|turn, waiting| {
            let is_given_up = partitions.contains(&turn.at);
            dropped += if is_given_up { waiting.len() } else { 0 };
            !is_given_up
        });
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;
    use crate::position::{Offset, Partition, StartAt, TopicIndex};

    fn at(partition: i32) -> TopicPartition {
        TopicPartition {
            topic: TopicIndex(0),
            partition: Partition(partition),
        }
    }

    #[test]
    fn each_key_has_one_at_work_and_the_others_in_read_order() {
        let mut ledger = Ledger::<()>::default();
        ledger.assign(at(0), StartAt::Earliest);
        let ticket = ledger.charge(at(0), Offset(0), 0, 0).expect("charged");
        let mut turns = Turns::default();
        let (a, b) = (turns.of(&ticket, b"a"), turns.of(&ticket, b"b"));
        assert_eq!(turns.take(a, 1), Some(1));
        assert_eq!(turns.take(a, 2), None);
        assert_eq!(turns.take(b, 3), Some(3), "another key waits for nobody");
        assert_eq!(turns.take(a, 4), None);
        assert_eq!(turns.pass(a), Some(2));
        assert_eq!(turns.pass(a), Some(4));
        assert_eq!(turns.pass(a), None);
        assert_eq!(turns.take(a, 5), Some(5), "nobody is at work any more");
        assert_eq!(turns.pass(b), None);
    }

    #[test]
    fn what_waits_of_a_partition_goes_with_it() {
        let mut ledger = Ledger::<()>::default();
        let mut turns = Turns::default();
        let mut turn = |partition| {
            ledger.assign(at(partition), StartAt::Earliest);
            let ticket = ledger.charge(at(partition), Offset(0), 0, 0).expect("charged");
            turns.of(&ticket, b"k")
        };
        let (before, other) = (turn(0), turn(1));
        let after = turn(0);
        for first in [before, other] {
            assert!(turns.take(first, 1).is_some());
            assert!(turns.take(first, 2).is_none());
        }
        assert_eq!(turns.give_up(&[at(0)]), 1);
        assert_eq!(turns.take(after, 3), Some(3), "its next life begins anew");
        assert_eq!(turns.pass(before), None, "the one that was at work reports late");
        assert_eq!(turns.pass(other), Some(2));
    }
}
