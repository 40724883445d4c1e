//! One partition as the broker's tasks share it: log, producers, transactions and waiting readers
//! under one lock.
//!
//! The lock is per partition and is held for copying handles, never for copying records or for
//! waiting. A reader that found too little registers a [`Notify`]; every append wakes all who are
//! registered, and a registration made before the last look at the log can not miss an append.
//!
//! With a data folder a batch goes to its file before it goes to memory, and a file that refuses it
//! keeps it out of both. Where answers wait for the disk, readers do too: they see the log up to what
//! is synced, so that a power loss takes nothing back that somebody has seen.

mod compacting;
mod keeping;

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::BytesMut;
use kafka_protocol::error::ResponseError;
use tokio::sync::Notify;

use crate::batch::{self, BatchHeader, Extent, Outcome, Refusal};
use crate::log::{Dropped, OutOfRange, PartitionLog, Read, StoredBatch};
use crate::producers::{DescribedProducer, Producers, Verdict};
use crate::retention::{Bound, Retention};
use crate::storage::{Flushable, PartitionFiles, Storage, WriteError};
use crate::sync::lock;
use crate::topic_config::TopicConfig;
use crate::transaction_index::{Aborted, TransactionIndex};

#[derive(Debug)]
pub(crate) struct Partition {
    topic: Arc<str>,
    index: i32,
    retention: Arc<Retention>,
    storage: Option<Arc<Storage>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// With a data folder, where the records are kept.
    files: Option<PartitionFiles>,
    /// Where answers wait for the disk, the offset before which everything is on it.
    synced_end: Option<i64>,
    log: PartitionLog,
    producers: Producers,
    transactions: TransactionIndex,
    /// Where the last compaction pass ended.
    clean_until: i64,
    waiting: Vec<Arc<Notify>>,
    /// Set when the topic is deleted: what is still asked of this partition is refused.
    deleted: bool,
}

/// Where a log begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// The last stable offset: before it every transaction has ended.
    pub(crate) stable: i64,
}

impl Bounds {
    /// What is told of a partition that is not there.
    pub(crate) const UNKNOWN: Self = Self {
        start: -1,
        end: -1,
        stable: -1,
    };

    /// The end as a reader of this isolation sees it.
    pub(crate) fn end_for(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::ReadUncommitted => self.end,
            Isolation::ReadCommitted => self.stable,
        }
    }
}

/// Whether a reader wants records of open and aborted transactions too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    ReadUncommitted,
    ReadCommitted,
}

impl Isolation {
    /// As requests say it.
    pub(crate) fn of(level: i8) -> Self {
        if level == 1 {
            Self::ReadCommitted
        } else {
            Self::ReadUncommitted
        }
    }
}

/// Whether the coordinator says that the partition is part of the batch's transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Membership {
    /// Nobody asked. Enough where the transaction has records here already.
    Unknown,
    Verified,
}

/// What a reader gets.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) read: Read,
    /// For readers of committed records: the aborted transactions that have records in `read`.
    pub(crate) aborted: Vec<Aborted>,
}

/// What became of a batch that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) base_offset: i64,
    pub(crate) log_start: i64,
    pub(crate) duplicate: bool,
}

/// The topic of the partition was deleted in the meantime.
#[derive(Debug)]
pub(crate) struct Deleted;

/// Why records could not be deleted.
#[derive(Debug)]
pub(crate) enum NotDeleted {
    OutOfRange,
    NotKept,
    /// The topic was deleted in the meantime.
    TopicDeleted,
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        Self::new(ResponseError::KafkaStorageError, error.0)
    }
}

impl State {
    fn bounds(&self) -> Bounds {
        let start = self.log.start();
        let end = self.synced_end.map_or(self.log.end(), |synced| synced.max(start));
        // Retention and DeleteRecords may have taken the beginning of an open transaction. As in Kafka it
        // is then the beginning of the first batch that is left, part of which may be deleted too.
        let left = self
            .log
            .batches()
            .front()
            .map_or(start, |batch| batch.base_offset);
        let stable = self
            .transactions
            .first_open()
            .map_or(end, |first| first.max(left).min(end));
        Bounds { start, end, stable }
    }

    /// Books a batch that stands in the log at `base_offset`; `ends` tells that it is a marker.
    fn account(&mut self, header: &BatchHeader, ends: Option<Outcome>, base_offset: i64, now: u64) {
        let Some(sequenced) = &header.sequenced else {
            return;
        };
        let producer_id = sequenced.producer_id;
        match ends {
            None => {
                let producers = &mut self.producers;
                if producers.record(sequenced, header.transactional, base_offset, now) {
                    self.transactions.begin(producer_id, base_offset);
                }
            }
            // A marker without records before it ends nothing here.
            Some(outcome) => match (self.producers.end(producer_id, sequenced.epoch, now), outcome) {
                (Some(first), Outcome::Commit) => self.transactions.commit(first),
                (Some(first), Outcome::Abort) => self.transactions.abort(producer_id, first, base_offset),
                (None, _) => {}
            },
        }
        self.producers
            .date(producer_id, header.max_timestamp, header.control);
    }

    fn drop_oldest(&mut self) -> Option<Dropped> {
        let dropped = self.log.drop_oldest()?;
        self.transactions.forget_before(self.log.start());
        Some(dropped)
    }

    fn wake_readers(&self) {
        for reader in &self.waiting {
            reader.notify_one();
        }
    }

    /// Why nothing more can be kept.
    fn failure(&self) -> Option<WriteError> {
        self.files.as_ref().and_then(|files| files.broken().cloned())
    }
}

impl Partition {
    /// A partition without records, and with a data folder the files that it will have.
    pub(crate) fn new(
        topic: Arc<str>,
        index: i32,
        retention: Arc<Retention>,
        kept: Option<(Arc<Storage>, PartitionFiles)>,
    ) -> Self {
        let (storage, files) = kept.unzip();
        let synced_end = storage.as_ref().filter(|storage| storage.shows_synced_only());
        let state = State {
            synced_end: synced_end.map(|_| 0),
            files,
            ..State::default()
        };
        Self {
            topic,
            index,
            retention,
            storage,
            state: Mutex::new(state),
        }
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    pub(crate) fn index(&self) -> i32 {
        self.index
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Appends a batch that passed [`BatchHeader::check`], and wakes the readers. `None` where it is
    /// the first of a transaction, and the coordinator has to be asked before.
    pub(crate) fn append(
        self: &Arc<Self>,
        header: &BatchHeader,
        bytes: &[u8],
        membership: Membership,
    ) -> Result<Option<Result<Appended, Refusal>>, Deleted> {
        // The copy, outside the lock: it frees the request's buffer and makes the header writable.
        let batch = BytesMut::from(bytes);
        let mut state = self.state();
        if state.deleted {
            return Err(Deleted);
        }
        if let Some(failure) = state.failure() {
            return Ok(Some(Err(failure.into())));
        }
        let log_start = state.log.start();
        if let Some(sequenced) = &header.sequenced {
            let begun = state.producers.is_open(sequenced.producer_id, sequenced.epoch);
            if header.transactional && !begun && membership == Membership::Unknown {
                return Ok(None);
            }
            match state.producers.judge(sequenced, header.transactional) {
                Ok(Verdict::New) => {}
                Ok(Verdict::Duplicate { base_offset }) => {
                    return Ok(Some(Ok(Appended {
                        base_offset,
                        log_start,
                        duplicate: true,
                    })));
                }
                Err(refusal) => return Ok(Some(Err(refusal))),
            }
        }
        let pushed = self.push(&mut state, header, batch).map(|base_offset| Appended {
            base_offset,
            log_start,
            duplicate: false,
        });
        Ok(Some(pushed.map_err(Refusal::from)))
    }

    /// Ends a producer's transaction in this partition, and wakes the readers. An epoch that is older
    /// than what the partition has seen is refused: its transaction was ended by someone else.
    pub(crate) fn end_transaction(
        self: &Arc<Self>,
        producer_id: i64,
        epoch: i16,
        outcome: Outcome,
        timestamp: i64,
    ) -> Result<(), ResponseError> {
        let bytes = batch::marker(producer_id, epoch, outcome, timestamp);
        let header = BatchHeader::read(&bytes).map_err(|refusal| refusal.error)?;
        let mut state = self.state();
        if state.deleted {
            return Err(ResponseError::UnknownTopicOrPartition);
        }
        if state.producers.is_fenced(producer_id, epoch) {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        let pushed = self.push(&mut state, &header, bytes);
        pushed.map(drop).map_err(|_| ResponseError::KafkaStorageError)
    }

    /// Appends what was decided to be right, and keeps the books on its producer and transaction.
    fn push(
        self: &Arc<Self>,
        state: &mut State,
        header: &BatchHeader,
        mut bytes: BytesMut,
    ) -> Result<i64, WriteError> {
        if let Some(files) = &mut state.files {
            let base_offset = state.log.end();
            let last_offset = base_offset + i64::from(header.last_offset_delta);
            batch::stamp(&mut bytes, base_offset);
            let extent = Extent {
                base_offset,
                last_offset,
            };
            files.append(extent, &bytes)?;
        }
        let base_offset = self.book(state, header, bytes);
        if let Some(storage) = &self.storage {
            storage.dirty(Arc::clone(self) as Arc<dyn Flushable>);
        }
        if state.synced_end.is_none() {
            state.wake_readers();
        }
        Ok(base_offset)
    }

    /// Takes a batch into memory.
    fn book(&self, state: &mut State, header: &BatchHeader, bytes: BytesMut) -> i64 {
        self.retention.charge(bytes.len() as u64);
        let ends = header.control.then(|| batch::outcome(&bytes)).flatten();
        let appended = self.retention.next_append();
        let base_offset = state.log.append(header, bytes, appended);
        state.account(header, ends, base_offset, appended);
        base_offset
    }

    pub(crate) fn read(
        &self,
        offset: i64,
        isolation: Isolation,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<(Bounds, Result<Fetched, OutOfRange>), Deleted> {
        let state = self.state();
        if state.deleted {
            return Err(Deleted);
        }
        let bounds = state.bounds();
        let limit = bounds.end_for(isolation);
        let read = state.log.read(offset, limit, max_bytes, at_least_one);
        let fetched = read.map(|read| {
            let aborted = match isolation {
                Isolation::ReadCommitted if !read.batches.is_empty() => {
                    state.transactions.aborted_between(offset, read.end)
                }
                _ => Vec::new(),
            };
            Fetched { read, aborted }
        });
        Ok((bounds, fetched))
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.state().bounds()
    }

    pub(crate) fn start(&self) -> i64 {
        self.bounds().start
    }

    /// The batches that may hold the first record at or after `timestamp`.
    pub(crate) fn candidates(&self, timestamp: i64) -> Vec<StoredBatch> {
        self.state().log.candidates(timestamp).cloned().collect()
    }

    /// The first batch with the largest timestamp.
    pub(crate) fn latest(&self) -> Option<StoredBatch> {
        self.state().log.latest().cloned()
    }

    /// The idempotent and transactional producers that are remembered.
    pub(crate) fn producers(&self) -> Vec<DescribedProducer> {
        self.state().producers.describe()
    }

    pub(crate) fn register(&self, reader: &Arc<Notify>) {
        self.state().waiting.push(Arc::clone(reader));
    }

    pub(crate) fn unregister(&self, reader: &Arc<Notify>) {
        self.state().waiting.retain(|other| !Arc::ptr_eq(other, reader));
    }

    #[cfg(test)]
    pub(crate) fn waiting_readers(&self) -> usize {
        self.state().waiting.len()
    }

    /// The place of the oldest batch in the broker's order of appends, if it may be dropped.
    pub(crate) fn oldest_droppable(&self) -> Option<u64> {
        self.state().log.oldest_droppable().map(|batch| batch.appended)
    }

    pub(crate) fn drop_oldest(&self) -> Option<Dropped> {
        let dropped = self.state().drop_oldest()?;
        self.retention.refund(dropped.bytes);
        Some(dropped)
    }

    pub(crate) fn delete_before(&self, offset: i64) -> Result<Bounds, NotDeleted> {
        let mut state = self.state();
        if state.deleted {
            return Err(NotDeleted::TopicDeleted);
        }
        let bounds = state.bounds();
        if offset < 0 || offset > bounds.end {
            return Err(NotDeleted::OutOfRange);
        }
        self.keep_start(offset.max(bounds.start))
            .map_err(|_| NotDeleted::NotKept)?;
        let deleted = state.log.delete_before(offset);
        let dropped = deleted.map_err(|OutOfRange| NotDeleted::OutOfRange)?;
        state.transactions.forget_before(offset);
        if let Some(files) = &mut state.files {
            files.drop_before(offset);
        }
        self.retention.refund(dropped.bytes);
        Ok(state.bounds())
    }

    /// Drops what the topic's own bounds say, and reports it.
    pub(crate) fn enforce(&self, config: &TopicConfig, now_ms: i64) {
        if let Some(limit) = config.retention_bytes() {
            let dropped = self.drop_while(|log, _| log.bytes() > limit);
            self.retention.report(self, dropped, Bound::TopicBytes);
        }
        if let Some(age) = config.retention_ms() {
            let dropped = self.drop_while(|_, batch| batch.header.max_timestamp < now_ms.saturating_sub(age));
            self.retention.report(self, dropped, Bound::TopicAge);
        }
    }

    fn drop_while(&self, condition: impl Fn(&PartitionLog, &StoredBatch) -> bool) -> Dropped {
        let mut total = Dropped::default();
        let mut state = self.state();
        while state
            .log
            .oldest_droppable()
            .is_some_and(|batch| condition(&state.log, batch))
        {
            let Some(dropped) = state.drop_oldest() else {
                break;
            };
            self.retention.refund(dropped.bytes);
            total.records += dropped.records;
            total.bytes += dropped.bytes;
        }
        total
    }

    /// From here on everything is refused, and nothing more goes to the journal under the topic's name.
    pub(crate) fn refuse_all(&self) {
        self.state().deleted = true;
    }

    /// Forgets everything; readers that wait are woken, so that they learn of it.
    pub(crate) fn delete(&self) {
        let mut state = self.state();
        self.retention.refund(state.log.bytes());
        state.synced_end = state.synced_end.map(|_| 0);
        state.log = PartitionLog::default();
        state.producers = Producers::default();
        state.transactions = TransactionIndex::default();
        state.deleted = true;
        if let Some(files) = &mut state.files {
            files.delete();
        }
        state.wake_readers();
    }
}
