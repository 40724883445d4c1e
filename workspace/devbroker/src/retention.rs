//! The broker's bound on kept bytes.
//!
//! One budget for all partitions. When an append passes it, the oldest batches of the whole broker
//! go until there is a sixteenth of the budget free again, so that a broker at its limit does not
//! drop (and log) at each append. The newest batch of each partition stays in any case. Every drop
//! is a WARN line and is counted: a reader that came too late must be explainable.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::log::Dropped;
use crate::partition::Partition;
use crate::stats::Counters;
use crate::topics::Topics;

#[derive(Debug)]
pub(crate) struct Retention {
    limit_bytes: u64,
    appended: AtomicU64,
    sweeping: Mutex<()>,
    counters: Arc<Counters>,
}

/// Which bound a batch was dropped for; the word is part of the log line.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    Broker,
    TopicBytes,
    TopicAge,
}

impl Bound {
    fn name(self) -> &'static str {
        match self {
            Self::Broker => "retention_bytes of the broker",
            Self::TopicBytes => "retention.bytes of the topic",
            Self::TopicAge => "retention.ms of the topic",
        }
    }
}

impl Retention {
    pub(crate) fn new(limit_bytes: u64, counters: Arc<Counters>) -> Self {
        Self {
            limit_bytes,
            appended: AtomicU64::new(0),
            sweeping: Mutex::new(()),
            counters,
        }
    }

    /// The next number in the broker's order of appends.
    pub(crate) fn next_append(&self) -> u64 {
        self.appended.fetch_add(1, Ordering::Relaxed)
    }

    /// A batch of an earlier process is in memory again, at this place of the order.
    pub(crate) fn restore(&self, appended: u64, bytes: u64) {
        self.appended
            .fetch_max(appended.saturating_add(1), Ordering::Relaxed);
        self.charge(bytes);
    }

    pub(crate) fn charge(&self, bytes: u64) {
        self.counters.bytes_stored.add(bytes);
    }

    pub(crate) fn refund(&self, bytes: u64) {
        self.counters.bytes_stored.subtract(bytes);
    }

    pub(crate) fn count_compacted(&self, records: u64) {
        self.counters.compacted_records.add(records);
    }

    /// Whether the bound is passed, so that [`Retention::sweep`] has work.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.counters.bytes_stored.get() > self.limit_bytes
    }

    /// Drops the oldest batches of the broker until the bound holds with some room.
    pub(crate) fn sweep(&self, topics: &Topics) {
        // Whoever sweeps already does the work of this call too.
        let Ok(_guard) = self.sweeping.try_lock() else {
            return;
        };
        let target = self.limit_bytes - self.limit_bytes / 16;
        let partitions = topics.partitions();
        let mut dropped = vec![Dropped::default(); partitions.len()];
        let mut heads: BinaryHeap<_> = partitions
            .iter()
            .enumerate()
            .filter_map(|(index, partition)| Some(Reverse((partition.oldest_droppable()?, index))))
            .collect();
        while self.counters.bytes_stored.get() > target {
            let Some(Reverse((_, index))) = heads.pop() else {
                break;
            };
            let Some((partition, total)) = partitions.get(index).zip(dropped.get_mut(index)) else {
                break;
            };
            let Some(one) = partition.drop_oldest() else {
                continue;
            };
            total.records += one.records;
            total.bytes += one.bytes;
            if let Some(next) = partition.oldest_droppable() {
                heads.push(Reverse((next, index)));
            }
        }
        for (partition, dropped) in partitions.iter().zip(dropped) {
            self.report(partition, dropped, Bound::Broker);
        }
    }

    /// Counts and logs what left a partition.
    pub(crate) fn report(&self, partition: &Partition, dropped: Dropped, bound: Bound) {
        if dropped == Dropped::default() {
            return;
        }
        partition.start_moved();
        self.counters.retention_dropped_records.add(dropped.records);
        self.counters.retention_dropped_bytes.add(dropped.bytes);
        tracing::warn!(
            topic = partition.topic(),
            partition = partition.index(),
            records = dropped.records,
            bytes = dropped.bytes,
            log_start_offset = partition.start(),
            bound = bound.name(),
            "retention dropped the oldest records; a reader that had not read them can not any more"
        );
    }
}
