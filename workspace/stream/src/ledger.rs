//! Which offsets may be committed.
//!
//! A record is *charged* when it is read and *ended* when its fate is settled, in any order. Its
//! *ending* (what is to be published for it) waits in the ledger until every record before it in its
//! partition has ended too; then it is *published*, in read order. The *frontier* of a partition is
//! the offset after its published prefix, and it is the only number that this crate ever commits: a
//! record that has not ended can not be passed.
//!
//! Read order is the only order here. Transactional and compacted topics have gaps, so nothing
//! computes with offsets beyond "the one after this record".
//!
//! Pure: no clock, no I/O. `tests/ledger.rs` drives it with random schedules of read, end, revoke
//! and reassign, and checks that the frontier never passes an open record.

use std::collections::VecDeque;

use crate::position::{Epoch, Offset, StartAt, TopicPartition};

/// The claim on a charged record: where it stands, and in which life of its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The record's partition.
    pub at: TopicPartition,
    /// The life of the assignment under which the record was read.
    pub epoch: Epoch,
    sequence: u64,
}

/// How many records and bytes something amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Records.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

impl Volume {
    /// Adds another volume to this one.
    pub fn add(&mut self, other: Volume) {
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

/// An offset that may be committed now, and what the commit would free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The partition.
    pub at: TopicPartition,
    /// The life of the assignment that the offset belongs to.
    pub epoch: Epoch,
    /// The next offset to read, as consumer groups commit it.
    pub next: Offset,
    /// What is refunded to the budget once the commit is confirmed.
    pub volume: Volume,
}

/// A record that the ledger would not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChargeError {
    /// The partition is not assigned (any more): the record is of a former life and is dropped.
    #[error("the partition is not assigned")]
    NotAssigned,
    /// The record stands before the place where reading goes on: a leftover from before a seek.
    #[error("offset `{offset}` is behind the read position `{position}`")]
    Behind {
        /// The record's offset.
        offset: Offset,
        /// The least offset that may be read next.
        position: Offset,
    },
}

struct Slot<E> {
    offset: Offset,
    bytes: u32,
    record_time_ms: i64,
    ending: Option<E>,
}

struct PartitionLedger<E> {
    at: TopicPartition,
    epoch: Epoch,
    /// Charged and not yet committed, in read order.
    slots: VecDeque<Slot<E>>,
    /// Sequence number of `slots[0]`.
    base: u64,
    /// How many slots at the front have ended.
    ended: usize,
    /// How many slots at the front were published; never more than `ended`.
    published: usize,
    /// The least offset that may be read next.
    position: Offset,
    /// The offset after the published prefix.
    frontier: Offset,
    committed: Offset,
    /// Where reading begins again after a rewind: what is committed, or the first record that was read.
    begins: StartAt,
    /// Nothing of it is published or committed for now.
    is_held: bool,
}

impl<E> PartitionLedger<E> {
    fn new(at: TopicPartition, epoch: Epoch, begins: StartAt) -> Self {
        let start = match begins {
            StartAt::Earliest => Offset(0),
            StartAt::Offset(offset) => offset,
        };
        Self {
            at,
            epoch,
            slots: VecDeque::new(),
            base: 0,
            ended: 0,
            published: 0,
            position: start,
            frontier: start,
            committed: start,
            begins,
            is_held: false,
        }
    }

    fn outstanding(&self) -> Volume {
        volume_of(self.slots.iter())
    }

    fn end(&mut self, sequence: u64, ending: E) -> bool {
        let Some(index) = sequence
            .checked_sub(self.base)
            .and_then(|index| usize::try_from(index).ok())
        else {
            return false;
        };
        let Some(slot) = self.slots.get_mut(index) else {
            return false;
        };
        if slot.ending.is_some() {
            return false;
        }
        slot.ending = Some(ending);
        while self
            .slots
            .get(self.ended)
            .is_some_and(|slot| slot.ending.is_some())
        {
            self.ended += 1;
        }
        true
    }
}

fn volume_of<'a, E: 'a>(slots: impl Iterator<Item = &'a Slot<E>>) -> Volume {
    slots.fold(Volume::default(), |mut volume, slot| {
        volume.add(Volume {
            records: 1,
            bytes: u64::from(slot.bytes),
        });
        volume
    })
}

/// The ledger of one pump: one account per assigned partition. `E` is what a record's ending carries.
pub struct Ledger<E> {
    /// A pump has few partitions, and records come in runs of one partition: a look at the account
    /// that was used last beats a hash map.
    accounts: Vec<PartitionLedger<E>>,
    last_used: usize,
    epoch: Epoch,
}

impl<E> Default for Ledger<E> {
    fn default() -> Self {
        Self {
            accounts: Vec::new(),
            last_used: 0,
            epoch: Epoch(0),
        }
    }
}

impl<E> Ledger<E> {
    fn account(&self, at: TopicPartition) -> Option<&PartitionLedger<E>> {
        self.accounts.iter().find(|account| account.at == at)
    }

    fn account_mut(&mut self, at: TopicPartition) -> Option<&mut PartitionLedger<E>> {
        if self
            .accounts
            .get(self.last_used)
            .is_none_or(|account| account.at != at)
        {
            self.last_used = self.accounts.iter().position(|account| account.at == at)?;
        }
        self.accounts.get_mut(self.last_used)
    }

    /// Opens an account for a partition that was just assigned and is read from `start` on.
    /// An account that was open already is replaced: its tickets become void.
    pub fn assign(&mut self, at: TopicPartition, start: StartAt) -> Epoch {
        self.epoch = self.epoch.next();
        let opened = PartitionLedger::new(at, self.epoch, start);
        match self.account_mut(at) {
            Some(account) => *account = opened,
            None => self.accounts.push(opened),
        }
        self.epoch
    }

    /// Closes the account of a partition and tells what it still held.
    pub fn revoke(&mut self, at: TopicPartition) -> Volume {
        let Some(index) = self.accounts.iter().position(|account| account.at == at) else {
            return Volume::default();
        };
        self.accounts.swap_remove(index).outstanding()
    }

    /// Takes back everything after the last committed offset of a partition: its tickets become void,
    /// and reading has to go on at the returned offset. Tells also what the account still held.
    pub fn rewind(&mut self, at: TopicPartition) -> Option<(StartAt, Volume)> {
        let epoch = self.epoch.next();
        let account = self.account_mut(at)?;
        let volume = account.outstanding();
        let start = account.begins;
        let is_held = account.is_held;
        *account = PartitionLedger::new(at, epoch, start);
        account.is_held = is_held;
        self.epoch = epoch;
        Some((start, volume))
    }

    /// Whether the ticket belongs to the present life of its partition.
    #[must_use]
    pub fn is_current(&self, ticket: &Ticket) -> bool {
        self.account(ticket.at)
            .is_some_and(|account| account.epoch == ticket.epoch)
    }

    /// The assigned partitions, in no particular order.
    pub fn assigned(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        self.accounts.iter().map(|account| account.at)
    }

    /// Charges a record that was just read.
    ///
    /// # Errors
    /// A record of a partition that is not assigned, or from before the read position, is refused: it
    /// is a leftover of a former life and must not be worked on.
    pub fn charge(
        &mut self,
        at: TopicPartition,
        offset: Offset,
        bytes: u32,
        record_time_ms: i64,
    ) -> Result<Ticket, ChargeError> {
        let account = self.account_mut(at).ok_or(ChargeError::NotAssigned)?;
        if offset < account.position {
            return Err(ChargeError::Behind {
                offset,
                position: account.position,
            });
        }
        if account.begins == StartAt::Earliest {
            account.begins = StartAt::Offset(offset);
        }
        let sequence = account.base + account.slots.len() as u64;
        account.slots.push_back(Slot {
            offset,
            bytes,
            record_time_ms,
            ending: None,
        });
        account.position = offset.next();
        Ok(Ticket {
            at,
            epoch: account.epoch,
            sequence,
        })
    }

    /// Ends a record. `false` when the ticket is void (its partition was revoked or rewound) or was
    /// used before: the ending is dropped then, because somebody else answers for the record.
    pub fn end(&mut self, ticket: &Ticket, ending: E) -> bool {
        match self.account_mut(ticket.at) {
            Some(account) if account.epoch == ticket.epoch => account.end(ticket.sequence, ending),
            _ => false,
        }
    }

    /// The reader stands at `next` and nothing more is there to read: gaps at the end of a partition
    /// (transaction markers, aborted or compacted records) are passed, unless a record is open.
    pub fn reached_end(&mut self, at: TopicPartition, next: Offset) {
        if let Some(account) = self.account_mut(at)
            && next > account.position
        {
            account.position = next;
        }
    }

    /// Hands the endings of the ended prefix of every partition to `publish`, each once and in read
    /// order. An ending stays in the ledger until its commit is confirmed, so that it can go into
    /// another attempt after [`Ledger::unpublish`].
    ///
    /// # Errors
    /// The first error of `publish` stops; the ending that it was called with counts as not published.
    pub fn publish<X>(
        &mut self,
        mut publish: impl FnMut(TopicPartition, Offset, &E) -> Result<(), X>,
    ) -> Result<(), X> {
        for account in self.accounts.iter_mut().filter(|account| !account.is_held) {
            while account.published < account.ended {
                let Some(slot) = account.slots.get(account.published) else {
                    break;
                };
                if let Some(ending) = &slot.ending {
                    publish(account.at, slot.offset, ending)?;
                }
                account.published += 1;
                account.frontier = slot.offset.next();
            }
            if account.published == account.slots.len() && account.position > account.frontier {
                account.frontier = account.position;
            }
        }
        Ok(())
    }

    /// What was published and not committed is to be published again: the attempt that carried it failed.
    pub fn unpublish(&mut self) {
        for account in &mut self.accounts {
            account.published = 0;
            account.frontier = account.committed;
        }
    }

    /// Takes back endings that were not published: their records are open again. Returns them with their
    /// tickets, in read order.
    pub fn reopen(&mut self, at: TopicPartition, mut takes_back: impl FnMut(&E) -> bool) -> Vec<(Ticket, E)> {
        let Some(account) = self.account_mut(at) else {
            return Vec::new();
        };
        let (epoch, base) = (account.epoch, account.base);
        let mut reopened = Vec::new();
        for (index, slot) in account.slots.iter_mut().enumerate().skip(account.published) {
            if let Some(ending) = slot.ending.take_if(|ending| takes_back(ending)) {
                account.ended = account.ended.min(index);
                let sequence = base + index as u64;
                reopened.push((Ticket { at, epoch, sequence }, ending));
            }
        }
        reopened
    }

    /// From now on nothing of the partition is published, and what was published and not committed counts
    /// as not published; or all of it goes on.
    pub fn hold(&mut self, at: TopicPartition, is_held: bool) {
        if let Some(account) = self.account_mut(at) {
            account.is_held = is_held;
            if is_held {
                account.published = 0;
                account.frontier = account.committed;
            }
        }
    }

    /// What the group has committed of a partition, as far as is known.
    #[must_use]
    pub fn committed_offset(&self, at: TopicPartition) -> Option<Offset> {
        self.account(at).map(|account| account.committed)
    }

    /// The present life of a partition.
    #[must_use]
    pub fn epoch(&self, at: TopicPartition) -> Option<Epoch> {
        self.account(at).map(|account| account.epoch)
    }

    /// Where the partition would be read again by its next owner; `None` where nothing was committed or
    /// read yet.
    #[must_use]
    pub fn begins(&self, at: TopicPartition) -> Option<Offset> {
        let account = self.account(at)?;
        match account.begins {
            StartAt::Offset(offset) => Some(offset),
            StartAt::Earliest => None,
        }
    }

    /// Where reading of a partition has to go on, whatever the reader believes.
    #[must_use]
    pub fn read_position(&self, at: TopicPartition) -> Option<StartAt> {
        let account = self.account(at)?;
        let untouched = account.slots.is_empty() && account.position == account.committed;
        Some(if untouched {
            account.begins
        } else {
            StartAt::Offset(account.position)
        })
    }

    /// The least offset that may be read next.
    #[must_use]
    pub fn position(&self, at: TopicPartition) -> Option<Offset> {
        self.account(at).map(|account| account.position)
    }

    /// The offset after the published prefix of a partition.
    #[must_use]
    pub fn frontier(&self, at: TopicPartition) -> Option<Offset> {
        self.account(at).map(|account| account.frontier)
    }

    /// Whether nothing of a partition is in work or waits for its commit.
    #[must_use]
    pub fn is_idle(&self, at: TopicPartition) -> bool {
        self.account(at).is_some_and(|account| account.slots.is_empty())
    }

    /// Whether a record of a partition has not ended.
    #[must_use]
    pub fn has_open(&self, at: TopicPartition) -> bool {
        self.account(at)
            .is_some_and(|account| account.ended < account.slots.len())
    }

    /// When the oldest record that is not committed was sent, in milliseconds; `None` when nothing is
    /// outstanding.
    #[must_use]
    pub fn oldest_record_time_ms(&self, at: TopicPartition) -> Option<i64> {
        self.account(at)?.slots.front().map(|slot| slot.record_time_ms)
    }

    /// What may be committed now: every partition whose frontier is ahead of what was committed.
    #[must_use]
    pub fn commits(&self) -> Vec<Commit> {
        let ahead = self
            .accounts
            .iter()
            .filter(|account| account.frontier > account.committed);
        ahead
            .map(|account| Commit {
                at: account.at,
                epoch: account.epoch,
                next: account.frontier,
                volume: volume_of(account.slots.iter().take(account.published)),
            })
            .collect()
    }

    /// The group has committed these offsets: what they cover leaves the ledger. `false` when the
    /// partition has another life by now, or the commit is known already.
    pub fn committed(&mut self, commit: &Commit) -> bool {
        let Some(account) = self.account_mut(commit.at) else {
            return false;
        };
        if account.epoch != commit.epoch || commit.next <= account.committed {
            return false;
        }
        account.committed = commit.next;
        account.begins = StartAt::Offset(commit.next);
        // All of them were published when the commit was asked for, also where that was taken back since.
        while account
            .slots
            .front()
            .is_some_and(|slot| slot.offset < commit.next)
        {
            account.slots.pop_front();
            account.base += 1;
            account.published = account.published.saturating_sub(1);
            account.ended = account.ended.saturating_sub(1);
        }
        true
    }

    /// Records that have not ended, over all partitions.
    #[must_use]
    pub fn open_records(&self) -> usize {
        self.accounts
            .iter()
            .map(|account| {
                account
                    .slots
                    .iter()
                    .skip(account.ended)
                    .filter(|slot| slot.ending.is_none())
                    .count()
            })
            .sum()
    }

    /// Records that are charged and not committed, over all partitions.
    #[must_use]
    pub fn outstanding(&self) -> Volume {
        self.accounts
            .iter()
            .fold(Volume::default(), |mut total, account| {
                total.add(account.outstanding());
                total
            })
    }
}
