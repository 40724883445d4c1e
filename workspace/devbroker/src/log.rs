//! The log of one partition: batches in the order of their offsets.
//!
//! Batches are kept as the bytes that came in. The log is dense at its end (the next batch begins
//! at [`PartitionLog::end`]) and only ever loses batches at its front. Two rules hold always, and
//! the property test in this file tries to break them: every offset in `start..end` is in exactly
//! one kept batch, and a read returns whole batches of which the first holds the offset asked for.
//!
//! Pure: no clock, no lock, no I/O.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::batch::{BatchHeader, Compression, stamp};

#[derive(Debug, Clone)]
pub(crate) struct StoredBatch {
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    /// When it was appended, in batches over the whole broker: the order in which retention drops.
    pub(crate) appended: u64,
    pub(crate) header: BatchHeader,
    pub(crate) bytes: Bytes,
}

#[derive(Debug, Default)]
pub(crate) struct PartitionLog {
    batches: VecDeque<StoredBatch>,
    start: i64,
    end: i64,
    bytes: u64,
}

/// What left the front of a log.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

/// The offset is not in the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OutOfRange;

/// Whole batches for a reader.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) batches: Vec<Bytes>,
    pub(crate) bytes: usize,
    /// The offset after the last of them.
    pub(crate) end: i64,
    /// Whether one of them needs a reader that knows zstd.
    pub(crate) zstd: bool,
}

impl PartitionLog {
    /// The first offset that can be read.
    pub(crate) fn start(&self) -> i64 {
        self.start
    }

    /// The offset of the next record.
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// Bytes of all kept batches.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends a checked batch and returns the offset of its first record.
    pub(crate) fn append(&mut self, header: &BatchHeader, mut bytes: BytesMut, appended: u64) -> i64 {
        let base_offset = self.end;
        stamp(&mut bytes, base_offset);
        let bytes = bytes.freeze();
        self.end += i64::from(header.records);
        self.bytes += bytes.len() as u64;
        self.batches.push_back(StoredBatch {
            base_offset,
            last_offset: self.end - 1,
            appended,
            header: *header,
            bytes,
        });
        base_offset
    }

    /// Batches from the one that holds `offset` on that begin before `limit`, up to `max_bytes`; the
    /// first one is returned even when it alone is larger, if `at_least_one` is set, so that a reader
    /// always gets on.
    pub(crate) fn read(
        &self,
        offset: i64,
        limit: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<Read, OutOfRange> {
        if offset < self.start || offset > self.end {
            return Err(OutOfRange);
        }
        let mut read = Read::default();
        for batch in self.batches.range(self.position(offset)..) {
            let forced = at_least_one && read.batches.is_empty();
            let too_many = !forced && read.bytes + batch.bytes.len() > max_bytes;
            if too_many || batch.base_offset >= limit {
                break;
            }
            read.end = batch.last_offset + 1;
            read.bytes += batch.bytes.len();
            read.zstd |= batch.header.compression == Compression::Zstd;
            read.batches.push(batch.bytes.clone());
        }
        Ok(read)
    }

    /// The batches that may hold the first record at or after `timestamp`, oldest first.
    pub(crate) fn candidates(&self, timestamp: i64) -> impl Iterator<Item = &StoredBatch> {
        self.batches
            .iter()
            .filter(move |batch| batch.header.max_timestamp >= timestamp)
    }

    /// The first batch with the largest timestamp of the log.
    pub(crate) fn latest(&self) -> Option<&StoredBatch> {
        self.batches
            .iter()
            .rev()
            .max_by_key(|batch| batch.header.max_timestamp)
    }

    /// The oldest batch, unless it is the only one: the newest always stays.
    pub(crate) fn oldest_droppable(&self) -> Option<&StoredBatch> {
        if self.batches.len() > 1 {
            self.batches.front()
        } else {
            None
        }
    }

    /// Drops the oldest batch, unless it is the only one.
    pub(crate) fn drop_oldest(&mut self) -> Option<Dropped> {
        if self.batches.len() < 2 {
            return None;
        }
        let batch = self.batches.pop_front()?;
        let readable_from = self.start.max(batch.base_offset);
        self.start = batch.last_offset + 1;
        self.bytes -= batch.bytes.len() as u64;
        Some(Dropped {
            records: u64::try_from(self.start - readable_from).unwrap_or(0),
            bytes: batch.bytes.len() as u64,
        })
    }

    /// Makes everything before `offset` unreadable and frees the batches that lie wholly before it.
    pub(crate) fn delete_before(&mut self, offset: i64) -> Result<Dropped, OutOfRange> {
        if offset < 0 || offset > self.end {
            return Err(OutOfRange);
        }
        let mut dropped = Dropped::default();
        if offset <= self.start {
            return Ok(dropped);
        }
        dropped.records = u64::try_from(offset - self.start).unwrap_or(0);
        self.start = offset;
        while let Some(front) = self.batches.front() {
            if front.last_offset >= offset {
                break;
            }
            dropped.bytes += front.bytes.len() as u64;
            self.bytes -= front.bytes.len() as u64;
            self.batches.pop_front();
        }
        Ok(dropped)
    }

    /// The index of the batch that holds `offset`; the number of batches at the end of the log.
    fn position(&self, offset: i64) -> usize {
        self.batches.partition_point(|batch| batch.last_offset < offset)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(records: i32, max_timestamp: i64) -> BatchHeader {
        BatchHeader {
            compression: Compression::None,
            records,
            base_timestamp: max_timestamp,
            max_timestamp,
            sequenced: None,
            transactional: false,
            control: false,
        }
    }

    fn append(log: &mut PartitionLog, records: i32, bytes: usize) -> i64 {
        log.append(&header(records, 0), BytesMut::zeroed(bytes), 0)
    }

    fn base_offset(batch: &Bytes) -> i64 {
        i64::from_be_bytes(batch[..8].try_into().unwrap())
    }

    #[derive(Debug, Clone)]
    enum Step {
        Append { records: i32, bytes: usize },
        DropOldest,
        DeleteBefore(i64),
        Read { offset: i64, max_bytes: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1..20_i32, 61..500_usize).prop_map(|(records, bytes)| Step::Append { records, bytes }),
            1 => Just(Step::DropOldest),
            1 => (0..300_i64).prop_map(Step::DeleteBefore),
            4 => (-2..300_i64, 0..2_000_usize).prop_map(|(offset, max_bytes)| Step::Read { offset, max_bytes }),
        ]
    }

    /// A log that keeps for each offset which batch has it.
    #[derive(Default)]
    struct Model {
        batch_of: Vec<i64>,
        sizes: std::collections::BTreeMap<i64, usize>,
        start: i64,
    }

    impl Model {
        fn end(&self) -> i64 {
            self.batch_of.len() as i64
        }

        fn kept_bytes(&self) -> u64 {
            let first_kept = self
                .batch_of
                .get(self.start as usize)
                .copied()
                .unwrap_or(i64::MAX);
            self.sizes.range(first_kept..).map(|(_, size)| *size as u64).sum()
        }
    }

    proptest! {
        #[test]
        fn every_offset_between_start_and_end_is_readable_and_no_other(steps in prop::collection::vec(step(), 1..80)) {
            let mut log = PartitionLog::default();
            let mut model = Model::default();
            for step in steps {
                match step {
                    Step::Append { records, bytes } => {
                        let base = append(&mut log, records, bytes);
                        prop_assert_eq!(base, model.end());
                        model.sizes.insert(base, bytes);
                        model.batch_of.extend(std::iter::repeat_n(base, records as usize));
                    }
                    Step::DropOldest => {
                        let before = log.start();
                        if let Some(dropped) = log.drop_oldest() {
                            prop_assert_eq!(dropped.records as i64, log.start() - before);
                            model.start = log.start();
                        }
                        prop_assert!(log.end() == 0 || log.start() < log.end() || before == log.end(), "the newest batch stays");
                    }
                    Step::DeleteBefore(offset) => {
                        let result = log.delete_before(offset);
                        prop_assert_eq!(result.is_err(), offset > model.end());
                        if result.is_ok() {
                            model.start = model.start.max(offset);
                        }
                    }
                    Step::Read { offset, max_bytes } => {
                        let readable = offset >= model.start && offset <= model.end();
                        let read = log.read(offset, log.end(), max_bytes, true);
                        prop_assert_eq!(read.is_ok(), readable);
                        let Ok(read) = read else { continue };
                        prop_assert_eq!(read.batches.is_empty(), offset == model.end());
                        if let Some(first) = read.batches.first() {
                            prop_assert_eq!(base_offset(first), model.batch_of[offset as usize]);
                            prop_assert!(read.batches.len() == 1 || read.bytes <= max_bytes);
                        }
                        // What follows is what was appended next, without a hole.
                        let mut expected = read.batches.first().map(base_offset);
                        for batch in &read.batches {
                            prop_assert_eq!(Some(base_offset(batch)), expected);
                            expected = model.sizes.range(base_offset(batch) + 1..).next().map(|(base, _)| *base);
                        }
                    }
                }
                prop_assert_eq!((log.start(), log.end()), (model.start, model.end()));
                prop_assert_eq!(log.bytes(), model.kept_bytes());
            }
        }
    }

    #[test]
    fn a_batch_larger_than_the_limit_is_read_alone() {
        let mut log = PartitionLog::default();
        append(&mut log, 1, 1_000);
        append(&mut log, 1, 1_000);
        assert_eq!(log.read(0, 2, 10, true).unwrap().batches.len(), 1);
        assert_eq!(log.read(0, 2, 10, false).unwrap().batches.len(), 0);
        assert_eq!(log.read(0, 2, 2_000, false).unwrap().batches.len(), 2);
        assert_eq!(
            log.read(0, 1, 2_000, true).unwrap().batches.len(),
            1,
            "nothing beyond the limit"
        );
    }

    #[test]
    fn the_newest_batch_is_never_dropped() {
        let mut log = PartitionLog::default();
        assert_eq!(log.drop_oldest(), None);
        append(&mut log, 5, 100);
        assert_eq!(log.drop_oldest(), None);
        append(&mut log, 5, 100);
        assert_eq!(
            log.drop_oldest(),
            Some(Dropped {
                records: 5,
                bytes: 100
            })
        );
        assert_eq!(log.drop_oldest(), None);
        assert_eq!((log.start(), log.end()), (5, 10));
    }

    #[test]
    fn the_latest_batch_is_the_first_with_the_largest_time() {
        let mut log = PartitionLog::default();
        for timestamp in [5, 9, 9, 1] {
            log.append(&header(1, timestamp), BytesMut::zeroed(61), 0);
        }
        assert_eq!(log.latest().unwrap().base_offset, 1);
        let offsets: Vec<i64> = log.candidates(6).map(|batch| batch.base_offset).collect();
        assert_eq!(offsets, [1, 2]);
    }
}
