//! How much may be in work at once, and which partitions must pause for it.
//!
//! A budget counts records and bytes that were read and whose commit is not confirmed. Half of it is
//! split into equal shares, one per assigned partition; the other half is a pool that any partition
//! may draw on. So one slow partition can take the pool but never the share of its neighbours, and a
//! partition with nothing in work may always read. A partition that is full is paused, and resumed
//! when it has fallen to half (low water), so that it does not flap.
//!
//! Pure: no clock, no I/O.

use std::collections::HashMap;

use crate::ledger::Volume;
use crate::position::TopicPartition;

/// The limits of one pump.
#[derive(Clone, Copy, Debug)]
pub struct BudgetLimits {
    /// Records in work.
    pub records: u64,
    /// Bytes of keys and values in work.
    pub bytes: u64,
}

#[derive(Default)]
struct Account {
    used: Volume,
    paused: bool,
}

/// What the consumer has to be told after the budget changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Gate {
    /// Partitions to pause.
    pub pause: Vec<TopicPartition>,
    /// Partitions to resume.
    pub resume: Vec<TopicPartition>,
}

/// The budget of one pump.
pub struct Budget {
    limits: BudgetLimits,
    accounts: HashMap<TopicPartition, Account>,
}

impl Budget {
    /// An unused budget.
    #[must_use]
    pub fn new(limits: BudgetLimits) -> Self {
        Self {
            limits,
            accounts: HashMap::new(),
        }
    }

    /// A partition joins with nothing in work.
    pub fn assign(&mut self, at: TopicPartition) {
        self.accounts.insert(at, Account::default());
    }

    /// A partition leaves, and what it held is free again. Tells whether it was paused.
    pub fn revoke(&mut self, at: TopicPartition) -> bool {
        self.accounts.remove(&at).is_some_and(|account| account.paused)
    }

    /// Records were read.
    pub fn debit(&mut self, at: TopicPartition, volume: Volume) {
        if let Some(account) = self.accounts.get_mut(&at) {
            account.used.add(volume);
        }
    }

    /// A commit that covers these records was confirmed, or they were given up by a rewind.
    pub fn refund(&mut self, at: TopicPartition, volume: Volume) {
        if let Some(account) = self.accounts.get_mut(&at) {
            account.used.records = account.used.records.saturating_sub(volume.records);
            account.used.bytes = account.used.bytes.saturating_sub(volume.bytes);
        }
    }

    /// Whether more than half of the whole budget is in work: time to commit early.
    #[must_use]
    pub fn is_half_used(&self) -> bool {
        let used = self.used();
        used.records * 2 >= self.limits.records || used.bytes * 2 >= self.limits.bytes
    }

    /// Everything in work.
    #[must_use]
    pub fn used(&self) -> Volume {
        self.accounts
            .values()
            .fold(Volume::default(), |mut total, account| {
                total.add(account.used);
                total
            })
    }

    /// Whether a partition is paused.
    #[must_use]
    pub fn is_paused(&self, at: TopicPartition) -> bool {
        self.accounts.get(&at).is_some_and(|account| account.paused)
    }

    /// How many partitions are paused.
    #[must_use]
    pub fn paused(&self) -> usize {
        self.accounts.values().filter(|account| account.paused).count()
    }

    /// Decides which partitions must pause and which may go on, and remembers it.
    pub fn gate(&mut self) -> Gate {
        let share = self.share();
        let (pool, drawn) = (self.pool(), self.drawn(share));
        let pool_is_empty = drawn.records >= pool.records || drawn.bytes >= pool.bytes;
        let pool_is_low = drawn.records * 2 > pool.records || drawn.bytes * 2 > pool.bytes;
        let mut gate = Gate::default();
        for (at, account) in &mut self.accounts {
            let used = account.used;
            let over_share = used.records >= share.records || used.bytes >= share.bytes;
            let over_half = used.records * 2 > share.records || used.bytes * 2 > share.bytes;
            if !account.paused && used.records > 0 && over_share && pool_is_empty {
                account.paused = true;
                gate.pause.push(*at);
            } else if account.paused && (used.records == 0 || !over_half || (!pool_is_low && !over_share)) {
                account.paused = false;
                gate.resume.push(*at);
            }
        }
        gate
    }

    /// Whether every partition that has anything in work has used up its room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let share = self.share();
        let (pool, drawn) = (self.pool(), self.drawn(share));
        let mut busy = self.accounts.values().filter(|account| account.used.records > 0);
        (drawn.records >= pool.records || drawn.bytes >= pool.bytes)
            && busy.all(|account| account.used.records >= share.records || account.used.bytes >= share.bytes)
    }

    fn pool(&self) -> Volume {
        Volume {
            records: self.limits.records / 2,
            bytes: self.limits.bytes / 2,
        }
    }

    /// What partitions have in work beyond their shares.
    fn drawn(&self, share: Volume) -> Volume {
        self.accounts
            .values()
            .fold(Volume::default(), |mut total, account| {
                total.add(over(account.used, share));
                total
            })
    }

    fn share(&self) -> Volume {
        let partitions = (self.accounts.len() as u64).max(1);
        Volume {
            records: (self.limits.records / 2 / partitions).max(1),
            bytes: (self.limits.bytes / 2 / partitions).max(1),
        }
    }
}

fn over(used: Volume, share: Volume) -> Volume {
    Volume {
        records: used.records.saturating_sub(share.records),
        bytes: used.bytes.saturating_sub(share.bytes),
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

    fn records(records: u64) -> Volume {
        Volume { records, bytes: 0 }
    }

    #[test]
    fn a_budget_is_full_when_all_that_work_have_used_up_their_room() {
        // A share is 25 records, and the pool has 50.
        let mut budget = Budget::new(BudgetLimits {
            records: 100,
            bytes: 1 << 20,
        });
        budget.assign(at(0));
        budget.assign(at(1));
        assert!(!budget.is_full(), "nothing is in work");
        budget.debit(at(0), records(75));
        assert!(budget.is_full(), "the other one has nothing to do");
        budget.debit(at(1), records(24));
        assert!(!budget.is_full(), "the other one has room in its share");
        budget.debit(at(1), records(1));
        assert!(budget.is_full());
        budget.refund(at(0), records(51));
        assert!(!budget.is_full(), "there is room in the pool");
    }
}
