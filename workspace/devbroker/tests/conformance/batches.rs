//! Record batches: made as a scenario wants them, and read back.

use std::io::{Read, Write};
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

use crate::wire::{Numbering, PLAIN};

/// The moment that all times count from, in milliseconds of the epoch: a minute ago. Much older times
/// would have Kafka begin a segment at each control batch, and a fetch reads one segment only.
static BEGINNING: LazyLock<i64> = LazyLock::new(|| {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_millis() as i64 - 60_000
});

/// So many milliseconds after the beginning.
pub fn moment(after_ms: i64) -> i64 {
    *BEGINNING + after_ms
}

/// A batch before it is encoded. Record `i` has the time of the first one plus `i` milliseconds.
#[derive(Clone)]
pub struct Batch {
    records: Vec<(Option<String>, Option<String>)>,
    base_time: i64,
    numbering: Numbering,
    transactional: bool,
    codec: Compression,
}

impl Batch {
    /// Records with these values and no keys.
    pub fn of(values: &[&str]) -> Self {
        let record = |value: &&str| (None, Some((*value).to_owned()));
        Self::from_records(values.iter().map(record).collect())
    }

    /// Records with keys; one without a value removes its key.
    pub fn keyed(records: &[(&str, Option<&str>)]) -> Self {
        let record =
            |(key, value): &(&str, Option<&str>)| (Some((*key).to_owned()), value.map(str::to_owned));
        Self::from_records(records.iter().map(record).collect())
    }

    fn from_records(records: Vec<(Option<String>, Option<String>)>) -> Self {
        Self {
            records,
            base_time: moment(0),
            numbering: PLAIN,
            transactional: false,
            codec: Compression::None,
        }
    }

    /// The first record's time, in milliseconds after the beginning.
    pub fn at(mut self, after_ms: i64) -> Self {
        self.base_time = moment(after_ms);
        self
    }

    pub fn numbered(mut self, producer: i64, epoch: i16, sequence: i32) -> Self {
        self.numbering = Numbering {
            producer,
            epoch,
            sequence,
        };
        self
    }

    pub fn transactional(mut self) -> Self {
        self.transactional = true;
        self
    }

    pub fn packed(mut self, codec: Compression) -> Self {
        self.codec = codec;
        self
    }

    pub fn bytes(&self) -> Bytes {
        let record = |(index, (key, value)): (usize, &(Option<String>, Option<String>))| {
            let index = index as i32;
            let bytes = |text: &Option<String>| text.clone().map(Bytes::from);
            Record {
                transactional: self.transactional,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: -1,
                producer_id: self.numbering.producer,
                producer_epoch: self.numbering.epoch,
                timestamp_type: TimestampType::Creation,
                offset: i64::from(index),
                sequence: self.numbering.sequence + index,
                timestamp: self.base_time + i64::from(index),
                key: bytes(key),
                value: bytes(value),
                headers: Default::default(),
            }
        };
        let records: Vec<Record> = self.records.iter().enumerate().map(record).collect();
        let options = RecordEncodeOptions {
            version: 2,
            compression: self.codec,
        };
        let mut bytes = BytesMut::new();
        let pack = |plain: &mut BytesMut, out: &mut BytesMut, codec| {
            out.put_slice(&packed(plain, codec));
            Ok(())
        };
        RecordBatchEncoder::encode_with_custom_compression(&mut bytes, &records, &options, Some(pack))
            .unwrap();
        bytes.freeze()
    }
}

fn packed(plain: &[u8], codec: Compression) -> Vec<u8> {
    match codec {
        Compression::None => plain.to_vec(),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Snappy => snap::raw::Encoder::new().compress_vec(plain).unwrap(),
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::stream::encode_all(plain, 0).unwrap(),
    }
}

fn unpacked(bytes: &[u8], codec: Compression) -> Vec<u8> {
    let mut plain = Vec::new();
    match codec {
        Compression::None => plain.extend_from_slice(bytes),
        Compression::Gzip => drop(
            flate2::read::GzDecoder::new(bytes)
                .read_to_end(&mut plain)
                .unwrap(),
        ),
        Compression::Snappy => plain = snap::raw::Decoder::new().decompress_vec(bytes).unwrap(),
        Compression::Lz4 => drop(
            lz4_flex::frame::FrameDecoder::new(bytes)
                .read_to_end(&mut plain)
                .unwrap(),
        ),
        Compression::Zstd => plain = zstd::stream::decode_all(bytes).unwrap(),
    }
    plain
}

/// All records of the batches that a fetch brought. A batch that is cut off at the end is left out,
/// as clients do.
pub fn records(bytes: &Bytes) -> Vec<Record> {
    let mut rest = whole_batches(bytes);
    let mut all = Vec::new();
    while !rest.is_empty() {
        let unpack = |packed: &mut Bytes, codec| Ok(Bytes::from(unpacked(packed, codec)));
        let set = RecordBatchDecoder::decode_with_custom_compression(&mut rest, Some(unpack)).unwrap();
        all.extend(set.records);
    }
    all
}

/// How many whole batches there are.
pub fn count(bytes: &Bytes) -> usize {
    let mut rest = bytes.clone();
    std::iter::from_fn(|| next_batch(&mut rest)).count()
}

fn whole_batches(bytes: &Bytes) -> Bytes {
    let mut rest = bytes.clone();
    let whole: usize = std::iter::from_fn(|| next_batch(&mut rest))
        .map(|batch| batch.len())
        .sum();
    bytes.slice(..whole)
}

fn next_batch(rest: &mut Bytes) -> Option<Bytes> {
    let length: [u8; 4] = rest.get(8..12)?.try_into().ok()?;
    let whole = 12 + u32::from_be_bytes(length) as usize;
    (whole <= rest.len()).then(|| rest.split_to(whole))
}
