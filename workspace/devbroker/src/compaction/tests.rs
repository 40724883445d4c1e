//! Random logs, compacted, and read back with the codec crate's own decoder.

use std::collections::{BTreeMap, HashMap};

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{
    Compression as WireCompression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions,
    TimestampType,
};
use proptest::prelude::*;

use super::*;
use crate::batch::{BatchHeader, Compression, Sequenced, patch, stamp};
use crate::codec;

const CODECS: [(WireCompression, Compression); 5] = [
    (WireCompression::None, Compression::None),
    (WireCompression::Gzip, Compression::Gzip),
    (WireCompression::Snappy, Compression::Snappy),
    (WireCompression::Lz4, Compression::Lz4),
    (WireCompression::Zstd, Compression::Zstd),
];
const PLAIN: i64 = -1;
/// The time of every sample's "now"; records are older.
const NOW: i64 = 10_000;

/// Key, value, time.
type Entry = (Option<u8>, Option<u8>, i64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Commit,
    Abort,
}

#[derive(Debug, Clone)]
enum Step {
    Write {
        producer: i64,
        transactional: bool,
        codec: usize,
        records: Vec<Entry>,
    },
    End(i64, Ending),
}

/// A log as it grows, and what it means.
#[derive(Default)]
struct Log {
    batches: Vec<StoredBatch>,
    end: i64,
    sequences: HashMap<i64, i32>,
    /// The first offset of each open transaction.
    open: BTreeMap<i64, i64>,
}

impl Log {
    fn of(steps: &[Step]) -> Self {
        let mut log = Self::default();
        for step in steps {
            log.apply(step);
        }
        log
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Write {
                producer,
                transactional,
                codec,
                records,
            } => {
                // Within a transaction a producer writes nothing else.
                let transactional =
                    *producer != PLAIN && (*transactional || self.open.contains_key(producer));
                if transactional {
                    self.open.entry(*producer).or_insert(self.end);
                }
                let records = records.clone();
                self.append(*producer, transactional, None, *codec, &records);
            }
            Step::End(producer, ending) => {
                if self.open.remove(producer).is_some() {
                    self.append(*producer, true, Some(*ending), 0, &[(None, Some(0), 5_000)]);
                }
            }
        }
    }

    fn append(
        &mut self,
        producer: i64,
        transactional: bool,
        ending: Option<Ending>,
        codec: usize,
        entries: &[Entry],
    ) {
        let first = match (producer, ending) {
            (PLAIN, _) | (_, Some(_)) => -1,
            _ => {
                let next = self.sequences.entry(producer).or_default();
                *next += entries.len() as i32;
                *next - entries.len() as i32
            }
        };
        let record = |(index, (key, value, timestamp)): (usize, &Entry)| Record {
            transactional,
            control: ending.is_some(),
            delete_horizon: false,
            partition_leader_epoch: 0,
            producer_id: producer,
            producer_epoch: if producer == PLAIN { -1 } else { 0 },
            timestamp_type: TimestampType::Creation,
            offset: self.end + index as i64,
            sequence: first + index as i32,
            timestamp: *timestamp,
            key: match ending {
                Some(ending) => Some(Bytes::copy_from_slice(&[
                    0,
                    0,
                    0,
                    u8::from(ending == Ending::Commit),
                ])),
                None => key.map(|key| Bytes::copy_from_slice(&[key])),
            },
            value: value.map(|value| Bytes::from(vec![value; 20])),
            headers: Default::default(),
        };
        let records: Vec<Record> = entries.iter().enumerate().map(record).collect();
        let (wire, own) = CODECS[codec];
        let mut bytes = BytesMut::new();
        let options = RecordEncodeOptions {
            version: 2,
            compression: wire,
        };
        let pack = |unpacked: &mut BytesMut, out: &mut BytesMut, _| {
            out.extend_from_slice(&codec::packed(own, unpacked)?);
            Ok(())
        };
        RecordBatchEncoder::encode_with_custom_compression(&mut bytes, &records, &options, Some(pack))
            .unwrap();
        stamp(&mut bytes, self.end);
        self.batches.push(stored(bytes.freeze()));
        self.end += entries.len() as i64;
    }

    fn stable_until(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.end)
    }

    fn limit(&self, stable_until: i64, min_lag_ms: i64) -> i64 {
        limit(&self.batches.clone().into(), stable_until, NOW, min_lag_ms)
    }

    fn pass(&self, clean_until: i64, max_keys: usize) -> Pass {
        Pass {
            clean_until,
            limit: self.limit(self.stable_until(), 0),
            now_ms: NOW,
            delete_retention_ms: 2_000,
            max_keys,
        }
    }

    fn compact(&mut self, clean_until: i64, max_keys: usize) -> Compacted {
        let compacted = compact(&self.batches, &self.pass(clean_until, max_keys));
        for batch in &compacted.batches {
            assert_eq!(
                *batch,
                stored(batch.bytes.clone()),
                "the bytes say what is known of them"
            );
        }
        self.batches
            .splice(..compacted.considered, compacted.batches.iter().cloned());
        compacted
    }
}

/// A batch as the log keeps it, with what its own header says.
fn stored(bytes: Bytes) -> StoredBatch {
    let header = BatchHeader::read(&bytes).unwrap();
    let base_offset = i64::from_be_bytes(bytes[..8].try_into().unwrap());
    StoredBatch {
        base_offset,
        last_offset: base_offset + i64::from(header.last_offset_delta),
        appended: 0,
        header,
        bytes,
    }
}

/// The records of a batch as a client decodes them.
fn decoded(batch: &StoredBatch) -> Vec<Record> {
    let unpack = |packed: &mut Bytes, wire| {
        let own = CODECS.iter().find(|(known, _)| *known == wire).unwrap().1;
        let unpacked = codec::unpacked_whole(own, packed, 1 << 20)?.into_owned();
        Ok(Bytes::from(unpacked))
    };
    RecordBatchDecoder::decode_with_custom_compression(&mut batch.bytes.clone(), Some(unpack))
        .unwrap()
        .records
}

fn all_records(batches: &[StoredBatch]) -> BTreeMap<i64, Record> {
    let records = batches.iter().flat_map(decoded);
    records.map(|record| (record.offset, record)).collect()
}

/// What a reader of committed records does: it holds back a transaction's records until their end.
fn committed(batches: &[StoredBatch]) -> Vec<Record> {
    let mut open: HashMap<i64, Vec<Record>> = HashMap::new();
    let mut seen = Vec::new();
    for record in batches.iter().flat_map(decoded) {
        if record.control {
            let held = open.remove(&record.producer_id).unwrap_or_default();
            if record.key.unwrap()[3] == 1 {
                seen.extend(held);
            }
        } else if record.transactional {
            open.entry(record.producer_id).or_default().push(record);
        } else {
            seen.push(record);
        }
    }
    seen.sort_by_key(|record| record.offset);
    seen
}

/// The table that such a reader builds.
fn table(batches: &[StoredBatch]) -> BTreeMap<Bytes, Bytes> {
    let mut table = BTreeMap::new();
    for record in committed(batches) {
        match (record.key, record.value) {
            (Some(key), Some(value)) => table.insert(key, value),
            (Some(key), None) => table.remove(&key),
            (None, _) => None,
        };
    }
    table
}

/// What the last batch and the last marker of each producer say about it.
fn last_words(batches: &[StoredBatch]) -> BTreeMap<(i64, bool), (i64, i64, Sequenced)> {
    let words = batches.iter().filter_map(|batch| {
        let sequenced = batch.header.sequenced?;
        let key = (sequenced.producer_id, batch.header.control);
        Some((key, (batch.base_offset, batch.last_offset, sequenced)))
    });
    words.collect()
}

fn entry() -> impl Strategy<Value = Entry> {
    (
        prop_oneof![9 => (0..6_u8).prop_map(Some), 1 => Just(None)],
        prop_oneof![3 => any::<u8>().prop_map(Some), 1 => Just(None)],
        5_000..9_990_i64,
    )
}

fn step() -> impl Strategy<Value = Step> {
    let write = (
        prop_oneof![Just(PLAIN), 1..4_i64],
        any::<bool>(),
        0..CODECS.len(),
        prop::collection::vec(entry(), 1..6),
    );
    prop_oneof![
        3 => write.prop_map(|(producer, transactional, codec, records)| Step::Write {
            producer, transactional, codec, records
        }),
        1 => (1..4_i64, prop_oneof![Just(Ending::Commit), Just(Ending::Abort)])
            .prop_map(|(producer, ending)| Step::End(producer, ending)),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..40)
}

proptest! {
    #[test]
    fn a_reader_of_committed_records_is_left_with_the_same_table(
        steps in steps(),
        more in steps(),
        max_keys in prop_oneof![1..5_usize, Just(1_000)],
    ) {
        let mut log = Log::of(&steps);
        let mut clean_until = 0;
        for round in [&[][..], &more] {
            round.iter().for_each(|step| log.apply(step));
            let before = log.batches.clone();
            for _ in 0..300 {
                let compacted = log.compact(clean_until, max_keys);
                let progressed = compacted.clean_until > clean_until;
                prop_assert!(progressed || compacted.clean_until == clean_until);
                clean_until = compacted.clean_until;
                prop_assert_eq!(table(&log.batches), table(&before));
                if !progressed {
                    break;
                }
            }
            let (kept, given) = (all_records(&log.batches), all_records(&before));
            for (offset, record) in &kept {
                prop_assert_eq!(Some(record), given.get(offset), "what stays, stays as it was");
            }
            prop_assert_eq!(last_words(&log.batches), last_words(&before));
            let bound = log.limit(log.stable_until(), 0);
            let untouched = |batches: &[StoredBatch]| -> Vec<StoredBatch> {
                let above = batches.iter().filter(|batch| batch.last_offset >= bound);
                above.cloned().collect()
            };
            prop_assert_eq!(untouched(&log.batches), untouched(&before));
        }
    }

    #[test]
    fn below_the_limit_nothing_is_left_that_need_not_be(steps in steps()) {
        let mut log = Log::of(&steps);
        let limit = log.pass(0, 1_000).limit;
        let before = all_records(&log.batches).len();
        let compacted = log.compact(0, 1_000);
        let records = all_records(&log.batches);
        prop_assert_eq!(compacted.removed_records as usize + compacted.removed_markers.len(), before - records.len());
        let stays: HashSet<i64> = committed(&log.batches).iter().map(|record| record.offset).collect();
        let mut keys = HashSet::new();
        for (offset, record) in records.range(..limit).filter(|(_, record)| !record.control) {
            prop_assert!(stays.contains(offset), "{offset} was aborted");
            prop_assert!(keys.insert(record.key.clone().unwrap()), "a key is there twice");
            prop_assert!(record.value.is_some() || record.timestamp + 2_000 > NOW, "a tombstone is over");
        }
        let once = log.batches.clone();
        log.compact(compacted.clean_until, 1_000);
        prop_assert_eq!(log.batches, once, "a second pass changes nothing");
    }
}

fn write(producer: i64, transactional: bool, records: &[Entry]) -> Step {
    Step::Write {
        producer,
        transactional,
        codec: 0,
        records: records.to_vec(),
    }
}

/// A record of the key, so that what is before it is not the newest batch.
fn newest() -> Step {
    write(PLAIN, false, &[(Some(99), Some(0), 9_990)])
}

fn offsets(log: &Log) -> Vec<i64> {
    all_records(&log.batches).into_keys().collect()
}

#[test]
fn a_tombstone_outlives_what_it_deletes_and_goes_when_its_time_is_over() {
    let (old, young) = (NOW - 2_000, NOW - 1_999);
    for (time, expected) in [(old, vec![2]), (young, vec![1, 2])] {
        let mut log = Log::of(&[
            write(PLAIN, false, &[(Some(1), Some(7), 0)]),
            write(PLAIN, false, &[(Some(1), None, time)]),
            newest(),
        ]);
        log.compact(0, 10);
        assert_eq!(offsets(&log), expected);
    }
}

#[test]
fn a_tombstone_stays_behind_a_batch_that_can_not_be_read() {
    let mut log = Log::of(&[
        write(PLAIN, false, &[(Some(1), Some(7), 0)]),
        write(
            PLAIN,
            false,
            &[(Some(1), None, 0), (Some(2), None, 0), (Some(2), Some(1), 0)],
        ),
        newest(),
    ]);
    // The first batch says that it is packed, and is not.
    let mut damaged = BytesMut::from(&log.batches[0].bytes[..]);
    let header = BatchHeader {
        compression: Compression::Zstd,
        ..log.batches[0].header
    };
    patch(&mut damaged, &header);
    log.batches[0] = stored(damaged.freeze());
    let damaged = log.batches[0].clone();
    log.compact(0, 10);
    assert_eq!(log.batches.remove(0), damaged);
    assert_eq!(offsets(&log), [1, 3, 4], "the value may be in the first batch");
}

#[test]
fn a_marker_goes_after_all_batches_of_its_transaction_unless_it_is_its_producers_last() {
    let mut log = Log::of(&[
        write(1, true, &[(Some(1), Some(1), 0)]),
        Step::End(1, Ending::Abort),
        write(1, true, &[(Some(2), Some(1), 0)]),
        Step::End(1, Ending::Commit),
        write(1, true, &[(Some(3), Some(1), 0)]),
        Step::End(1, Ending::Commit),
        newest(),
    ]);
    let compacted = log.compact(0, 10);
    assert_eq!(compacted.removed_markers, HashSet::from([1]), "the aborted one's");
    assert_eq!(offsets(&log), [2, 3, 4, 5, 6]);
    // The keys come again, and so nothing is left of the second transaction.
    log.apply(&write(
        PLAIN,
        false,
        &[(Some(2), Some(2), 0), (Some(3), Some(2), 0)],
    ));
    log.apply(&newest());
    let compacted = log.compact(compacted.clean_until, 10);
    assert_eq!(compacted.removed_markers, HashSet::from([3]));
    assert_eq!(offsets(&log), [5, 6, 7, 8, 9]);
    let emptied = &log.batches[0];
    assert_eq!(
        (
            emptied.base_offset,
            emptied.header.records,
            emptied.header.max_timestamp
        ),
        (4, 0, -1),
        "the last batch of the producer stays without its record"
    );
}

#[test]
fn nothing_is_touched_from_the_first_open_transaction_or_young_batch_on() {
    let mut log = Log::of(&[
        write(PLAIN, false, &[(Some(1), Some(1), 100)]),
        write(1, true, &[(Some(1), Some(2), 200)]),
        write(PLAIN, false, &[(Some(1), Some(3), 300)]),
        newest(),
    ]);
    assert_eq!(log.limit(log.stable_until(), 0), 1);
    assert_eq!(log.limit(log.end, 0), 3, "the newest batch");
    assert_eq!(log.limit(log.end, NOW - 199), 1, "200 is too young");
    log.compact(0, 10);
    assert_eq!(offsets(&log), [0, 1, 2, 3]);
}

#[test]
fn a_pass_waits_until_enough_is_new() {
    let log = Log::of(&[
        write(PLAIN, false, &[(Some(1), Some(1), 100)]),
        write(PLAIN, false, &[(Some(1), Some(1), 100)]),
        newest(),
    ]);
    let batches = log.batches.into();
    assert!(is_dirty(&batches, 0, 2, 0.99));
    assert!(is_dirty(&batches, 1, 2, 0.49));
    assert!(
        !is_dirty(&batches, 1, 2, 0.5),
        "half is not more than half, as in Kafka"
    );
    assert!(!is_dirty(&batches, 2, 2, 0.0), "nothing is new");
}
