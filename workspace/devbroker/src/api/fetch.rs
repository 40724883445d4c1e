//! Fetch, with long polls that wake on append.
//!
//! The answer is encoded here by hand: the codec's types would copy each batch twice, and this is
//! the path on which all records leave. A test decodes the result with the codec, for each version.
//!
//! Fetch sessions are declined (session id 0), which every client must accept (KIP-227).

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_request::FetchPartition;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::{Answer, RequestContext};
use crate::batch::LEADER_EPOCH;
use crate::core::Core;
use crate::frame::{Frame, FrameBuilder};
use crate::partition::{Bounds, Isolation, Partition};
use crate::security::{Operation, Resource};
use crate::transaction_index::Aborted;

/// The first version in the compact encoding with tagged fields.
const COMPACT_SINCE: i16 = 12;
/// The first version whose reader knows zstd (KIP-110).
const ZSTD_SINCE: i16 = 10;
/// The longest that a reader may ask to wait.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// What one look at all partitions found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) topics: Vec<FoundTopic>,
    bytes: usize,
    /// Whether something other than "nothing new" must be told at once.
    urgent: bool,
}

#[derive(Debug)]
pub(super) struct FoundTopic {
    pub(super) name: String,
    pub(super) partitions: Vec<FoundPartition>,
}

#[derive(Debug)]
pub(super) struct FoundPartition {
    pub(super) index: i32,
    pub(super) error: Option<ResponseError>,
    pub(super) bounds: Bounds,
    /// For readers of committed records only.
    pub(super) aborted: Option<Vec<Aborted>>,
    pub(super) batches: Vec<Bytes>,
}

impl FoundPartition {
    fn without_records(index: i32, error: Option<ResponseError>) -> Self {
        Self {
            index,
            error,
            bounds: Bounds::UNKNOWN,
            aborted: None,
            batches: Vec::new(),
        }
    }
}

pub(super) async fn fetch(core: &Arc<Core>, context: &RequestContext, request: FetchRequest) -> Answer {
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(MAX_WAIT);
    let deadline = Instant::now() + wait;
    let enough = usize::try_from(request.min_bytes).unwrap_or(0);
    let mut found = look(core, context, &request);
    if found.bytes < enough && !found.urgent && !wait.is_zero() {
        let registration = Registration::new(core, &request);
        loop {
            // Only a look after the registration is sure to be followed by a wake-up.
            found = look(core, context, &request);
            if found.bytes >= enough || found.urgent {
                break;
            }
            if timeout_at(deadline, registration.reader.notified())
                .await
                .is_err()
            {
                break;
            }
        }
    }
    Answer::Frame(encode(context, &found))
}

/// A reader that waits on its partitions, until it is dropped.
struct Registration {
    reader: Arc<Notify>,
    partitions: Vec<Arc<Partition>>,
}

impl Registration {
    fn new(core: &Core, request: &FetchRequest) -> Self {
        let reader = Arc::new(Notify::new());
        let mut partitions = Vec::new();
        for topic in &request.topics {
            let Some(found) = core.topics.get(&topic.topic) else {
                continue;
            };
            partitions.extend(
                topic
                    .partitions
                    .iter()
                    .filter_map(|wanted| found.partition(wanted.partition)),
            );
        }
        for partition in &partitions {
            partition.register(&reader);
        }
        Self { reader, partitions }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        for partition in &self.partitions {
            partition.unregister(&self.reader);
        }
    }
}

fn look(core: &Core, context: &RequestContext, request: &FetchRequest) -> Found {
    let limit = usize::try_from(request.max_bytes)
        .unwrap_or(0)
        .min(core.options.max_fetch_bytes as usize);
    let mut found = Found::default();
    for topic in &request.topics {
        let allowed = context.must(core, Operation::Read, Resource::Topic(&topic.topic));
        let known = core.topics.get(&topic.topic);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let partition = known.as_ref().and_then(|known| known.partition(wanted.partition));
            let room = limit.saturating_sub(found.bytes);
            let isolation = Isolation::of(request.isolation_level);
            let first = found.bytes == 0;
            let result = match allowed {
                Ok(()) => read(context, partition.as_deref(), wanted, isolation, room, first),
                Err(error) => FoundPartition::without_records(wanted.partition, Some(error)),
            };
            found.urgent |= result.error.is_some();
            found.bytes += result.batches.iter().map(Bytes::len).sum::<usize>();
            partitions.push(result);
        }
        found.topics.push(FoundTopic {
            name: topic.topic.to_string(),
            partitions,
        });
    }
    // A request without partitions can not become richer by waiting.
    found.urgent |= found.topics.iter().all(|topic| topic.partitions.is_empty());
    found
}

fn read(
    context: &RequestContext,
    partition: Option<&Partition>,
    wanted: &FetchPartition,
    isolation: Isolation,
    room: usize,
    first: bool,
) -> FoundPartition {
    let mut result = FoundPartition::without_records(wanted.partition, None);
    let max_bytes = usize::try_from(wanted.partition_max_bytes).unwrap_or(0).min(room);
    let Some(Ok((bounds, read))) =
        partition.map(|partition| partition.read(wanted.fetch_offset, isolation, max_bytes, first))
    else {
        result.error = Some(ResponseError::UnknownTopicOrPartition);
        return result;
    };
    result.bounds = bounds;
    match (epoch_error(wanted.current_leader_epoch), read) {
        (Some(error), _) => result.error = Some(error),
        (None, Err(_)) => result.error = Some(ResponseError::OffsetOutOfRange),
        (None, Ok(fetched)) if fetched.read.zstd && context.version < ZSTD_SINCE => {
            result.error = Some(ResponseError::UnsupportedCompressionType);
        }
        (None, Ok(fetched)) => {
            result.batches = fetched.read.batches;
            result.aborted = (isolation == Isolation::ReadCommitted).then_some(fetched.aborted);
        }
    }
    result
}

/// What a client is told whose idea of the leader epoch is not ours; -1 is "no idea".
pub(super) fn epoch_error(client_epoch: i32) -> Option<ResponseError> {
    match client_epoch {
        -1 | LEADER_EPOCH => None,
        epoch if epoch > LEADER_EPOCH => Some(ResponseError::UnknownLeaderEpoch),
        _ => Some(ResponseError::FencedLeaderEpoch),
    }
}

pub(super) fn encode(context: &RequestContext, found: &Found) -> Result<Frame, String> {
    let version = context.version;
    let compact = version >= COMPACT_SINCE;
    let mut builder = context.builder();
    let head = builder.head();
    head.put_i32(0);
    if version >= 7 {
        head.put_i16(0);
        head.put_i32(0);
    }
    put_count(head, found.topics.len(), compact);
    for topic in &found.topics {
        let head = builder.head();
        put_text(head, &topic.name, compact);
        put_count(head, topic.partitions.len(), compact);
        for partition in &topic.partitions {
            put_partition(&mut builder, partition, version, compact);
        }
        end_structure(builder.head(), compact);
    }
    end_structure(builder.head(), compact);
    builder
        .finish()
        .ok_or_else(|| "the answer is longer than a frame".to_owned())
}

fn put_partition(builder: &mut FrameBuilder, partition: &FoundPartition, version: i16, compact: bool) {
    let head = builder.head();
    head.put_i32(partition.index);
    head.put_i16(partition.error.map_or(0, |error| error.code()));
    // One replica: everything appended is on all of them.
    head.put_i64(partition.bounds.end);
    head.put_i64(partition.bounds.stable);
    if version >= 5 {
        head.put_i64(partition.bounds.start);
    }
    put_aborted(head, partition.aborted.as_deref(), compact);
    if version >= 11 {
        head.put_i32(-1);
    }
    put_count(head, partition.batches.iter().map(Bytes::len).sum(), compact);
    for batch in &partition.batches {
        builder.append(batch);
    }
    end_structure(builder.head(), compact);
}

/// The aborted transactions in the range of the records; null where nobody asked.
fn put_aborted(head: &mut BytesMut, aborted: Option<&[Aborted]>, compact: bool) {
    match aborted {
        None if compact => head.put_u8(0),
        None => head.put_i32(-1),
        Some(aborted) => {
            put_count(head, aborted.len(), compact);
            for transaction in aborted {
                head.put_i64(transaction.producer_id);
                head.put_i64(transaction.first);
                end_structure(head, compact);
            }
        }
    }
}

/// A count or a length; the compact form is one more, as a varint.
fn put_count(head: &mut BytesMut, count: usize, compact: bool) {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    if !compact {
        head.put_u32(count);
        return;
    }
    let mut rest = count.saturating_add(1);
    while rest >= 0x80 {
        head.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    head.put_u8(rest as u8);
}

fn put_text(head: &mut BytesMut, text: &str, compact: bool) {
    if compact {
        put_count(head, text.len(), true);
    } else {
        head.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    }
    head.put_slice(text.as_bytes());
}

/// No tagged fields.
fn end_structure(head: &mut BytesMut, compact: bool) {
    if compact {
        head.put_u8(0);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf;
    use kafka_protocol::messages::{ApiKey, FetchResponse};
    use kafka_protocol::protocol::Decodable;

    use super::*;
    use crate::options::Options;
    use crate::topic_config::TopicConfig;
    use crate::transaction_index::TransactionIndex;
    use crate::versions::SUPPORTED;

    fn context(version: i16) -> RequestContext {
        RequestContext {
            key: ApiKey::Fetch,
            version,
            correlation_id: 42,
            client_id: String::new(),
            local: ([127, 0, 0, 1], 1).into(),
            peer: ([127, 0, 0, 1], 2).into(),
            principal: crate::security::Principal::anonymous(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_is_registered_while_it_waits_and_no_longer() {
        let core = Arc::new(Core::in_memory(Options::default()));
        let topic = core
            .topics
            .create("topic", 1, TopicConfig::default(), false)
            .unwrap();
        let partition = topic.partition(0).unwrap();
        let mut body = crate::samples::request(ApiKey::Fetch, 12);
        let request = FetchRequest::decode(&mut body, 12).unwrap();
        let request = request.with_max_wait_ms(60_000).with_min_bytes(1);
        let context = context(12);
        {
            let waiting = fetch(&core, &context, request.clone());
            let waited = tokio::time::timeout(Duration::from_secs(1), waiting);
            tokio::pin!(waited);
            let first_look = tokio::time::timeout(Duration::ZERO, &mut waited).await;
            assert!(first_look.is_err());
            assert_eq!(partition.waiting_readers(), 1);
            assert!(waited.await.is_err(), "given up, as when the connection ends");
        }
        assert_eq!(partition.waiting_readers(), 0);
        // Time is paused, so this returns at once, after its minute.
        drop(fetch(&core, &context, request).await);
        assert_eq!(partition.waiting_readers(), 0);
    }

    #[test]
    fn the_codec_reads_what_is_encoded_here_in_each_version() {
        let large = Bytes::from(vec![7; 50_000]);
        let small = Bytes::from_static(b"small");
        let mut index = TransactionIndex::default();
        index.begin(4_711, 40);
        index.abort(4_711, 40, 50);
        let found = Found {
            topics: vec![FoundTopic {
                name: "orders".to_owned(),
                partitions: vec![
                    FoundPartition {
                        index: 0,
                        error: None,
                        bounds: Bounds {
                            start: 3,
                            end: 99,
                            stable: 77,
                        },
                        aborted: Some(index.aborted_between(0, 99)),
                        batches: vec![small.clone(), large.clone(), small.clone()],
                    },
                    FoundPartition {
                        index: 5,
                        error: Some(ResponseError::OffsetOutOfRange),
                        bounds: Bounds::UNKNOWN,
                        aborted: None,
                        batches: Vec::new(),
                    },
                ],
            }],
            ..Found::default()
        };
        let range = SUPPORTED
            .iter()
            .find(|api| api.key as i16 == ApiKey::Fetch as i16)
            .unwrap();
        for version in range.min..=range.max {
            let context = context(version);
            let mut frame = encode(&context, &found).unwrap();
            let mut bytes = frame.copy_to_bytes(frame.remaining());
            assert_eq!(bytes.get_i32() as usize, bytes.len());
            assert_eq!(bytes.get_i32(), 42);
            if version >= COMPACT_SINCE {
                assert_eq!(bytes.get_u8(), 0);
            }
            let response = FetchResponse::decode(&mut bytes, version).unwrap();
            assert!(bytes.is_empty(), "version {version}");
            assert_eq!(response.session_id, 0);
            let topic = &response.responses[0];
            assert_eq!(topic.topic.as_str(), "orders");
            let first = &topic.partitions[0];
            assert_eq!((first.partition_index, first.error_code), (0, 0));
            assert_eq!((first.high_watermark, first.last_stable_offset), (99, 77));
            let aborted = first.aborted_transactions.as_ref().unwrap();
            assert_eq!(
                (aborted[0].producer_id.0, aborted[0].first_offset, aborted.len()),
                (4_711, 40, 1)
            );
            assert_eq!(first.log_start_offset, if version >= 5 { 3 } else { -1 });
            assert_eq!(first.records, Some([&*small, &*large, &*small].concat().into()));
            let second = &topic.partitions[1];
            assert_eq!((second.partition_index, second.error_code), (5, 1));
            assert_eq!(second.aborted_transactions, None);
            assert_eq!(second.records.as_deref().unwrap_or_default(), b"");
        }
    }
}
