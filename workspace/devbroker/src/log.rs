//! The log of one partition: batches in the order of their offsets.
//!
//! Batches are kept as the bytes that came in. The log is dense at its end (the next batch begins
//! at [`PartitionLog::end`]). It loses batches at its front, and compaction takes records and whole
//! batches out of its middle. These rules hold always, and the property test in this file tries to
//! break them: batches lie in the order of their offsets and share none; an offset in `start..end`
//! that no batch holds is one that compaction took; the newest batch stays; and a read returns whole
//! batches, the first of which is the first one that ends at the offset asked for or later.
//!
//! Pure: no clock, no lock, no I/O.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::batch::{BatchHeader, Compression, Extent, stamp};

#[derive(Debug, Clone, PartialEq)]
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

    /// The batches, oldest first.
    pub(crate) fn batches(&self) -> &VecDeque<StoredBatch> {
        &self.batches
    }

    /// Whether these are still the oldest batches, and not all of them.
    pub(crate) fn begins_with(&self, former: &[StoredBatch]) -> bool {
        let same = |(now, former): (&StoredBatch, &StoredBatch)| {
            now.base_offset == former.base_offset && now.bytes.as_ptr() == former.bytes.as_ptr()
        };
        self.batches.len() > former.len() && self.batches.iter().zip(former).all(same)
    }

    /// Puts other batches, of the same offsets or fewer, in the place of the oldest ones. False, and
    /// nothing is done, where the log does not begin with `former` any more.
    pub(crate) fn replace(&mut self, former: &[StoredBatch], batches: Vec<StoredBatch>) -> bool {
        if !self.begins_with(former) {
            return false;
        }
        let newer = self.batches.split_off(former.len());
        self.batches = batches.into();
        self.batches.extend(newer);
        self.bytes = self.batches.iter().map(|batch| batch.bytes.len() as u64).sum();
        true
    }

    /// Appends a checked batch and returns the offset of its first record.
    pub(crate) fn append(&mut self, header: &BatchHeader, mut bytes: BytesMut, appended: u64) -> i64 {
        let base_offset = self.end;
        stamp(&mut bytes, base_offset);
        let bytes = bytes.freeze();
        let last_offset = base_offset + i64::from(header.last_offset_delta);
        self.end = last_offset + 1;
        self.bytes += bytes.len() as u64;
        self.batches.push_back(StoredBatch {
            base_offset,
            last_offset,
            appended,
            header: *header,
            bytes,
        });
        base_offset
    }

    /// An empty log whose next record has this offset.
    pub(crate) fn beginning_at(offset: i64) -> Self {
        Self {
            start: offset,
            end: offset,
            ..Self::default()
        }
    }

    /// Takes a batch that an earlier process had in this log, with the offsets that it has.
    pub(crate) fn restore(&mut self, extent: Extent, header: &BatchHeader, bytes: Bytes, appended: u64) {
        self.end = extent.last_offset + 1;
        self.bytes += bytes.len() as u64;
        self.batches.push_back(StoredBatch {
            base_offset: extent.base_offset,
            last_offset: extent.last_offset,
            appended,
            header: *header,
            bytes,
        });
    }

    /// Says where a restored log ends, which can be behind its last batch.
    pub(crate) fn end_at(&mut self, end: i64) {
        self.end = self.end.max(end);
    }

    /// Batches from the one that holds `offset` on that begin before `limit`, up to `max_bytes`; none
    /// where `offset` has reached the limit. The
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
        // A limit may lie within the batch that holds it.
        if offset >= limit {
            return Ok(read);
        }
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
        let offsets = u64::try_from(self.start - readable_from).unwrap_or(0);
        Some(Dropped {
            records: offsets.min(u64::from(batch.header.records.unsigned_abs())),
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
        // Offsets, really: the batches are not looked into.
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
        // Readers that keep up ask for the end, in each look of each long poll: no search for them.
        if offset >= self.end {
            return self.batches.len();
        }
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
            last_offset_delta: records - 1,
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
        Append {
            records: i32,
            bytes: usize,
        },
        DropOldest,
        DeleteBefore(i64),
        /// Takes the batches away whose bit is set, the newest excepted.
        Compact(u64),
        Read {
            offset: i64,
            max_bytes: usize,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1..20_i32, 61..500_usize).prop_map(|(records, bytes)| Step::Append { records, bytes }),
            1 => Just(Step::DropOldest),
            1 => (0..300_i64).prop_map(Step::DeleteBefore),
            1 => any::<u64>().prop_map(Step::Compact),
            4 => (-2..300_i64, 0..2_000_usize).prop_map(|(offset, max_bytes)| Step::Read { offset, max_bytes }),
        ]
    }

    /// The batches of a log by their last offsets: where each begins, and its size.
    #[derive(Default)]
    struct Model {
        batches: std::collections::BTreeMap<i64, (i64, usize)>,
        start: i64,
        end: i64,
    }

    impl Model {
        fn drop_before(&mut self, start: i64) {
            self.start = self.start.max(start);
            self.batches = self.batches.split_off(&self.start);
        }

        fn compact(&mut self, log: &mut PartitionLog, taken: u64) {
            let former: Vec<StoredBatch> = log.batches().iter().cloned().collect();
            let Some((_newest, former)) = former.split_last() else {
                return;
            };
            let stays = |index: usize| taken >> (index % 64) & 1 == 0;
            let kept = (0..).zip(former).filter(|(index, _)| stays(*index));
            let kept: Vec<StoredBatch> = kept.map(|(_, batch)| batch.clone()).collect();
            for (index, batch) in former.iter().enumerate() {
                if !stays(index) {
                    self.batches.remove(&batch.last_offset);
                }
            }
            assert!(log.replace(former, kept.clone()));
            let differs = kept.len() < former.len();
            assert!(
                !differs || !log.replace(former, kept),
                "it begins with other batches now"
            );
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
                        prop_assert_eq!(base, model.end);
                        model.end += i64::from(records);
                        model.batches.insert(model.end - 1, (base, bytes));
                    }
                    Step::DropOldest => {
                        let oldest = model.batches.keys().next().copied();
                        let dropped = log.drop_oldest();
                        prop_assert_eq!(dropped.is_some(), model.batches.len() > 1, "the newest batch stays");
                        if let (Some(dropped), Some(last)) = (dropped, oldest) {
                            prop_assert!(dropped.records as i64 <= last + 1 - model.start);
                            model.drop_before(last + 1);
                        }
                    }
                    Step::DeleteBefore(offset) => {
                        let result = log.delete_before(offset);
                        prop_assert_eq!(result.is_err(), offset > model.end);
                        if result.is_ok() {
                            model.drop_before(offset);
                        }
                    }
                    Step::Compact(taken) => model.compact(&mut log, taken),
                    Step::Read { offset, max_bytes } => {
                        let readable = offset >= model.start && offset <= model.end;
                        let read = log.read(offset, i64::MAX, max_bytes, true);
                        prop_assert_eq!(read.is_ok(), readable);
                        let Ok(read) = read else { continue };
                        prop_assert_eq!(read.batches.is_empty(), offset == model.end);
                        prop_assert!(read.batches.len() <= 1 || read.bytes <= max_bytes);
                        let bases: Vec<i64> = read.batches.iter().map(base_offset).collect();
                        let expected: Vec<i64> = model.batches.range(offset..).map(|(_, (base, _))| *base).collect();
                        prop_assert!(expected.starts_with(&bases), "{bases:?} of {expected:?}");
                    }
                }
                prop_assert_eq!((log.start(), log.end()), (model.start, model.end));
                prop_assert_eq!(log.bytes(), model.batches.values().map(|(_, size)| *size as u64).sum::<u64>());
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

    #[test]
    fn a_limit_within_a_batch_ends_a_read_that_has_reached_it() {
        let mut log = PartitionLog::default();
        log.append(&header(10, 0), BytesMut::zeroed(100), 0);
        assert_eq!(log.read(4, 5, 1_000, true).unwrap().batches.len(), 1);
        assert_eq!(log.read(5, 5, 1_000, true).unwrap().batches.len(), 0);
    }
}
