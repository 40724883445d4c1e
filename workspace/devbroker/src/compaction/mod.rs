//! Compaction: of the records with one key, the newest stays.
//!
//! What holds, and what the tests of this module try to break:
//!
//! - A reader of what is committed, from the log's start to its end, is left with the same value for
//!   each key, before and after.
//! - What stays, stays where it is: offsets do not change, and neither do the bytes of a record. A
//!   batch that loses records keeps its offsets, its producer and its sequence numbers; only its
//!   record count, its largest time, its length and its checksum are new.
//! - Records of aborted transactions go. A transaction's marker goes only after all its batches.
//! - The last batch and the last marker of each producer stay, without records if need be: after a
//!   restart the sequence numbers and epochs are read from them.
//! - Doing it again changes nothing.
//!
//! A pass looks at the batches below [`Pass::limit`], the offset from which on nothing may be touched
//! (see [`limit`]). It notes the newest offset of each key from [`Pass::clean_until`] on, up to a
//! number of keys, and drops what is older; below `clean_until` each key is there once already. So
//! memory is bounded, and what did not fit waits for the next pass. A batch whose records can not be
//! read stays as it is, and since it may hold any key, so do all tombstones after it.
//!
//! Pure: batches in, batches out. The rules are those of Kafka's log cleaner, with one difference: a
//! tombstone's (and a marker's) time to go is counted from its own time, not from its first pass.

mod keys;
mod rewriting;
#[cfg(test)]
mod tests;
mod transactions;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;

use crate::log::StoredBatch;
use crate::records::Record;
use keys::Keys;
use rewriting::{Left, emptied, filtered};
use transactions::{Fate, Transactions};

/// What a pass may do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass {
    /// Where the last pass ended; the start of the log where there was none.
    pub(crate) clean_until: i64,
    /// The first offset that must not be touched.
    pub(crate) limit: i64,
    pub(crate) now_ms: i64,
    /// How old a tombstone or a marker is when it may go.
    pub(crate) delete_retention_ms: i64,
    /// Keys that are remembered in one pass, at 32 bytes each.
    pub(crate) max_keys: usize,
}

/// What a pass made of the batches below its limit.
#[derive(Debug, Default)]
pub(crate) struct Compacted {
    /// How many of the batches that were given are below the limit.
    pub(crate) considered: usize,
    /// What stands for these from now on.
    pub(crate) batches: Vec<StoredBatch>,
    /// Where the next pass begins.
    pub(crate) clean_until: i64,
    /// The offsets of markers that went: with them goes what is known of their transactions, for no
    /// reader will see these end.
    pub(crate) removed_markers: HashSet<i64>,
    pub(crate) removed_records: u64,
}

impl Compacted {
    /// Whether every batch stayed as it was.
    pub(crate) fn changes_nothing(&self) -> bool {
        self.removed_records == 0 && self.batches.len() == self.considered
    }
}

/// The first offset that compaction may not touch, for `batches` in the order of the log: that of the
/// newest batch, of the first record without a last word on its transaction (`stable_until`), or of
/// the first batch that is younger than `min.compaction.lag.ms`, whichever comes first.
pub(crate) fn limit(batches: &VecDeque<StoredBatch>, stable_until: i64, now_ms: i64, min_lag_ms: i64) -> i64 {
    let is_young = |batch: &&StoredBatch| {
        min_lag_ms > 0 && batch.header.max_timestamp > now_ms.saturating_sub(min_lag_ms)
    };
    let untouchable = batches.iter().find(is_young).or_else(|| batches.back());
    untouchable.map_or(0, |batch| batch.base_offset.min(stable_until))
}

/// Whether a pass is worth its while: whether more than `min_dirty_ratio` of the bytes below `limit`
/// came since the last pass.
pub(crate) fn is_dirty(
    batches: &VecDeque<StoredBatch>,
    clean_until: i64,
    limit: i64,
    min_dirty_ratio: f64,
) -> bool {
    let (mut all, mut dirty) = (0, 0);
    for batch in batches.iter().take_while(|batch| batch.last_offset < limit) {
        all += batch.bytes.len();
        if batch.last_offset >= clean_until {
            dirty += batch.bytes.len();
        }
    }
    dirty as f64 > all as f64 * min_dirty_ratio
}

/// One pass over the batches of a partition, all of them, in the order of their offsets.
pub(crate) fn compact(batches: &[StoredBatch], pass: &Pass) -> Compacted {
    let considered = batches.partition_point(|batch| batch.last_offset < pass.limit);
    let below = batches.get(..considered).unwrap_or_default();
    let transactions = Transactions::of(batches);
    let mut sweep = Sweep {
        pass,
        keys: Keys::of(below, &transactions, pass),
        transactions,
        last_of_producers: last_of_producers(batches),
        tombstones_stay: false,
        unfinished: HashSet::new(),
        compacted: Compacted {
            considered,
            ..Compacted::default()
        },
    };
    for batch in below {
        sweep.batch(batch);
    }
    Compacted {
        clean_until: sweep.keys.covered_until,
        ..sweep.compacted
    }
}

/// The offsets of each producer's last data batch and last marker.
fn last_of_producers(batches: &[StoredBatch]) -> HashSet<i64> {
    let mut last: HashMap<(i64, bool), i64> = HashMap::new();
    for batch in batches {
        if let Some(sequenced) = batch.header.sequenced {
            last.insert((sequenced.producer_id, batch.header.control), batch.base_offset);
        }
    }
    last.into_values().collect()
}

/// The walk over the batches, in order.
struct Sweep<'a> {
    pass: &'a Pass,
    keys: Keys,
    transactions: Transactions,
    last_of_producers: HashSet<i64>,
    /// A batch stayed whole whose keys are not known.
    tombstones_stay: bool,
    /// Producers of whose current transaction a batch stayed.
    unfinished: HashSet<i64>,
    compacted: Compacted,
}

impl Sweep<'_> {
    fn batch(&mut self, batch: &StoredBatch) {
        let kept = if batch.header.control {
            self.marker(batch)
        } else {
            self.data(batch)
        };
        let Some(kept) = kept else {
            return;
        };
        let producer = batch.header.sequenced.map(|sequenced| sequenced.producer_id);
        if batch.header.transactional && !batch.header.control {
            self.unfinished.extend(producer);
        }
        self.compacted.batches.push(kept);
    }

    /// What is left of a batch of records, if anything.
    fn data(&mut self, batch: &StoredBatch) -> Option<StoredBatch> {
        let left = match self.transactions.fate(batch) {
            Fate::Aborted => Ok(Left::Nothing),
            Fate::Committed => filtered(batch, |record| self.stays(batch, record)),
            // Its end is not known, which below the limit does not happen.
            Fate::Open => Err(io::ErrorKind::InvalidData.into()),
        };
        let kept = match left {
            Ok(Left::Everything) => Some(batch.clone()),
            Ok(Left::Some(rewritten)) => Some(rewritten),
            Ok(Left::Nothing) if !self.last_of_producers.contains(&batch.base_offset) => None,
            Ok(Left::Nothing) if batch.header.records == 0 => Some(batch.clone()),
            Ok(Left::Nothing) => Some(emptied(batch)),
            Err(_unreadable) => {
                self.tombstones_stay = true;
                Some(batch.clone())
            }
        };
        let records = kept.as_ref().map_or(0, |kept| kept.header.records);
        self.compacted.removed_records += u64::from(batch.header.records.abs_diff(records));
        kept
    }

    fn stays(&self, batch: &StoredBatch, record: &Record<'_>) -> bool {
        let offset = batch.base_offset + record.offset_delta;
        if offset >= self.keys.covered_until {
            return true;
        }
        // Without a key a record can not be read back, and compacted topics take none.
        let Some(key) = record.key else {
            return false;
        };
        let time = batch.header.base_timestamp.saturating_add(record.timestamp_delta);
        let is_over = record.is_tombstone && !self.tombstones_stay && self.is_past_retention(time);
        !is_over && !self.keys.has_newer(key, offset)
    }

    fn marker(&mut self, batch: &StoredBatch) -> Option<StoredBatch> {
        let producer = batch.header.sequenced.map(|sequenced| sequenced.producer_id);
        let is_needed = producer.is_none_or(|producer| self.unfinished.remove(&producer))
            || self.last_of_producers.contains(&batch.base_offset);
        if is_needed || !self.is_past_retention(batch.header.max_timestamp) {
            return Some(batch.clone());
        }
        self.compacted.removed_markers.insert(batch.base_offset);
        None
    }

    fn is_past_retention(&self, time_ms: i64) -> bool {
        time_ms.saturating_add(self.pass.delete_retention_ms) <= self.pass.now_ms
    }
}
