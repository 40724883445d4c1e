//! One partition as the broker's tasks share it: log, producers and waiting readers under one lock.
//!
//! The lock is per partition and is held for copying handles, never for copying records or for
//! waiting. A reader that found too little registers a [`Notify`]; every append wakes all who are
//! registered, and a registration made before the last look at the log can not miss an append.

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::BytesMut;
use tokio::sync::Notify;

use crate::batch::{BatchHeader, Refusal};
use crate::log::{Dropped, OutOfRange, PartitionLog, Read, StoredBatch};
use crate::producers::{Producers, Verdict};
use crate::retention::{Bound, Retention};
use crate::sync::lock;
use crate::topic_config::TopicConfig;

#[derive(Debug)]
pub(crate) struct Partition {
    topic: Arc<str>,
    index: i32,
    retention: Arc<Retention>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    log: PartitionLog,
    producers: Producers,
    waiting: Vec<Arc<Notify>>,
    /// Set when the topic is deleted: what is still asked of this partition is refused.
    deleted: bool,
}

/// Where a log begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) start: i64,
    pub(crate) end: i64,
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

impl Partition {
    pub(crate) fn new(topic: Arc<str>, index: i32, retention: Arc<Retention>) -> Self {
        Self {
            topic,
            index,
            retention,
            state: Mutex::default(),
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

    /// Appends a batch that passed [`BatchHeader::check`], and wakes the readers.
    pub(crate) fn append(
        &self,
        header: &BatchHeader,
        bytes: &[u8],
    ) -> Result<Result<Appended, Refusal>, Deleted> {
        // The copy, outside the lock: it frees the request's buffer and makes the header writable.
        let batch = BytesMut::from(bytes);
        let mut state = self.state();
        if state.deleted {
            return Err(Deleted);
        }
        let log_start = state.log.start();
        if let Some(sequenced) = &header.sequenced {
            match state.producers.judge(sequenced) {
                Ok(Verdict::New) => {}
                Ok(Verdict::Duplicate { base_offset }) => {
                    return Ok(Ok(Appended {
                        base_offset,
                        log_start,
                        duplicate: true,
                    }));
                }
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
        let appended = self.retention.next_append();
        let base_offset = state.log.append(header, batch, appended);
        if let Some(sequenced) = &header.sequenced {
            state.producers.record(sequenced, base_offset, appended);
        }
        self.retention.charge(bytes.len() as u64);
        for reader in &state.waiting {
            reader.notify_one();
        }
        Ok(Ok(Appended {
            base_offset,
            log_start,
            duplicate: false,
        }))
    }

    pub(crate) fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<(Bounds, Result<Read, OutOfRange>), Deleted> {
        let state = self.state();
        if state.deleted {
            return Err(Deleted);
        }
        let bounds = Bounds {
            start: state.log.start(),
            end: state.log.end(),
        };
        Ok((bounds, state.log.read(offset, max_bytes, at_least_one)))
    }

    pub(crate) fn bounds(&self) -> Bounds {
        let state = self.state();
        Bounds {
            start: state.log.start(),
            end: state.log.end(),
        }
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
        let dropped = self.state().log.drop_oldest()?;
        self.retention.refund(dropped.bytes);
        Some(dropped)
    }

    pub(crate) fn delete_before(&self, offset: i64) -> Result<Bounds, OutOfRange> {
        let mut state = self.state();
        let dropped = state.log.delete_before(offset)?;
        self.retention.refund(dropped.bytes);
        Ok(Bounds {
            start: state.log.start(),
            end: state.log.end(),
        })
    }

    /// Drops what the topic's own bounds say, and reports it.
    pub(crate) fn enforce(&self, config: &TopicConfig, now_ms: i64) {
        if let Some(limit) = config.retention_bytes() {
            let dropped = self.drop_while(|log, _| log.bytes() > limit);
            self.retention.report(self, dropped, Bound::TopicBytes);
        }
        if let Some(age) = config.retention_ms() {
            let dropped = self.drop_while(|_, batch| batch.max_timestamp < now_ms.saturating_sub(age));
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
            let Some(dropped) = state.log.drop_oldest() else {
                break;
            };
            self.retention.refund(dropped.bytes);
            total.records += dropped.records;
            total.bytes += dropped.bytes;
        }
        total
    }

    /// Forgets everything; readers that wait are woken, so that they learn of it.
    pub(crate) fn delete(&self) {
        let mut state = self.state();
        self.retention.refund(state.log.bytes());
        state.log = PartitionLog::default();
        state.producers = Producers::default();
        state.deleted = true;
        for reader in &state.waiting {
            reader.notify_one();
        }
    }
}
