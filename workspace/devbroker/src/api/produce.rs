//! Produce.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TransactionalId};

use super::{Answer, Malformed, RequestContext, text};
use crate::batch::{BatchHeader, Compression, HEADER_BYTES, Refusal};
use crate::core::Core;
use crate::partition::{Appended, Membership, Partition};
use crate::records::all_have_keys;
use crate::security::{Operation, Resource};
use crate::topics::Topic;
use crate::transactions::Identity;

/// How far a record may be ahead of the broker's clock: `message.timestamp.after.max.ms`.
const MAX_AHEAD_MS: i64 = 3_600_000;
/// The first version that may carry zstd (KIP-110).
const ZSTD_SINCE: i16 = 7;
/// The first version whose clients know TRANSACTION_ABORTABLE (KIP-890).
const ABORTABLE_SINCE: i16 = 11;

pub(super) async fn produce(
    core: &Core,
    context: &RequestContext,
    request: ProduceRequest,
) -> Result<Answer, Malformed> {
    let known_acks = matches!(request.acks, -1..=1);
    let id = request.transactional_id.as_ref();
    let may_use_id = id.map_or(Ok(()), |id| {
        context.must(core, Operation::Write, Resource::TransactionalId(id))
    });
    let mut refused = None;
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for data in request.topic_data {
        let topic = core.topics.get(&data.name);
        let allowed = may_use_id.and(context.must(core, Operation::Write, Resource::Topic(&data.name)));
        let mut partitions = Vec::with_capacity(data.partition_data.len());
        for partition in &data.partition_data {
            let result = if let Err(error) = allowed {
                Err(Refusal::new(error, "this client may not write here"))
            } else if known_acks {
                append(core, context, topic.as_deref(), id, partition)
            } else {
                let message = format!("`acks` is `{}`, must be -1, 0 or 1", request.acks);
                Err(Refusal::new(ResponseError::InvalidRequiredAcks, message))
            };
            if let Err(refusal) = &result {
                tracing::debug!(topic = %data.name.0, partition = partition.index, reason = %refusal.message, "batch refused");
                refused.get_or_insert_with(|| refusal.message.clone());
            }
            partitions.push((partition.index, result));
        }
        topics.push((data.name, partitions));
    }
    if core.retention.is_exceeded() {
        core.retention.sweep(&core.topics);
    }
    match (request.acks, refused) {
        (0, None) => Ok(Answer::Silence),
        (0, Some(reason)) => Ok(Answer::Close(reason)),
        _ => {
            let settled = core.records_settled().await;
            let kept = |appended| {
                settled
                    .clone()
                    .map_err(Refusal::from)
                    .and_then(|()| kept(appended))
            };
            let responses = topics.into_iter().map(|(name, partitions)| {
                let partitions = partitions
                    .into_iter()
                    .map(|(index, result)| response(index, result.and_then(&kept)));
                TopicProduceResponse::default()
                    .with_name(name)
                    .with_partition_responses(partitions.collect())
            });
            context.answer(&ProduceResponse::default().with_responses(responses.collect()))
        }
    }
}

/// Whether the batch is where the data folder's policy wants it, now that it had the time.
fn kept((partition, appended): (Arc<Partition>, Appended)) -> Result<Appended, Refusal> {
    partition
        .failure()
        .map_or(Ok(appended), |failure| Err(failure.into()))
}

fn append(
    core: &Core,
    context: &RequestContext,
    topic: Option<&Topic>,
    id: Option<&TransactionalId>,
    data: &PartitionProduceData,
) -> Result<(Arc<Partition>, Appended), Refusal> {
    let unknown = || {
        Refusal::new(
            ResponseError::UnknownTopicOrPartition,
            "this broker does not have the topic or partition",
        )
    };
    let topic = topic.ok_or_else(unknown)?;
    let partition = topic.partition(data.index).ok_or_else(unknown)?;
    let bytes = data.records.as_deref().unwrap_or_default();
    let config = topic.config();
    let limit = config
        .max_message_bytes()
        .unwrap_or(core.options.max_message_bytes);
    if bytes.len() > limit as usize {
        let message = format!(
            "the batch has {} bytes, more than the topic's {limit}",
            bytes.len()
        );
        return Err(Refusal::new(ResponseError::MessageTooLarge, message));
    }
    let header = BatchHeader::check(bytes)?;
    if header.transactional && id.is_none() {
        return Err(nameless());
    }
    if header.compression == Compression::Zstd && context.version < ZSTD_SINCE {
        let message = "zstd needs version 7 of Produce or later";
        return Err(Refusal::new(ResponseError::UnsupportedCompressionType, message));
    }
    if header.max_timestamp > core.clock.unix_ms().saturating_add(MAX_AHEAD_MS) {
        let message = format!("timestamp `{}` is more than an hour ahead", header.max_timestamp);
        return Err(Refusal::new(ResponseError::InvalidTimestamp, message));
    }
    if config.compaction().is_some() {
        check_keys(&header, bytes)?;
    }
    let appended = partition
        .append(&header, bytes, Membership::Unknown)
        .map_err(|_deleted| unknown())?;
    let appended = match appended {
        Some(appended) => appended?,
        None => append_first(core, context, &partition, id, &header, bytes)?.ok_or_else(unknown)?,
    };
    if appended.duplicate {
        core.counters.duplicate_batches.add(1);
    } else {
        core.counters
            .records_appended
            .add(u64::from(header.records.unsigned_abs()));
        core.counters.bytes_appended.add(bytes.len() as u64);
        if config.retention_bytes().is_some() {
            partition.enforce(&config, core.clock.unix_ms());
        }
    }
    Ok((partition, appended))
}

/// A compacted topic takes no records without a key: they could never be told apart.
fn check_keys(header: &BatchHeader, bytes: &[u8]) -> Result<(), Refusal> {
    let packed = bytes.get(HEADER_BYTES..).unwrap_or_default();
    match all_have_keys(header.compression, packed, header.records) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal::new(
            ResponseError::InvalidRecord,
            "a compacted topic takes no records without a key",
        )),
        Err(error) => Err(Refusal::new(
            ResponseError::CorruptMessage,
            format!("the records of the batch can not be read: {error}"),
        )),
    }
}

/// Appends the first batch of a transaction in this partition, where the coordinator says that it is
/// part of it. `None` where the topic is gone.
fn append_first(
    core: &Core,
    context: &RequestContext,
    partition: &Arc<Partition>,
    id: Option<&TransactionalId>,
    header: &BatchHeader,
    bytes: &[u8],
) -> Result<Option<Appended>, Refusal> {
    let (Some(id), Some(sequenced)) = (id, header.sequenced) else {
        return Err(nameless());
    };
    let identity = Identity {
        producer_id: sequenced.producer_id,
        epoch: sequenced.epoch,
    };
    let place = (partition.topic().to_owned(), partition.index());
    let appended = core.transactions.while_open(id, identity, &place, || {
        partition.append(header, bytes, Membership::Verified)
    });
    match appended.map_err(|error| not_in_transaction(error, context, id, &place))? {
        Ok(Some(appended)) => appended.map(Some),
        Ok(None) | Err(_) => Ok(None),
    }
}

fn nameless() -> Refusal {
    let message = "a transactional batch needs a transactional id";
    Refusal::new(ResponseError::TransactionalIdAuthorizationFailed, message)
}

/// What a producer hears whose batch is in no transaction of its own, in the words of Kafka.
fn not_in_transaction(
    error: ResponseError,
    context: &RequestContext,
    id: &TransactionalId,
    place: &(String, i32),
) -> Refusal {
    let (topic, partition) = place;
    let message = format!(
        "the transaction of `{}` does not take this batch in partition {partition} of `{topic}`: {error:?}",
        id.0
    );
    let error = match error {
        ResponseError::ProducerFenced => ResponseError::InvalidProducerEpoch,
        // The client is to try again; this code is one on which it does.
        ResponseError::ConcurrentTransactions => ResponseError::NotEnoughReplicas,
        ResponseError::InvalidTxnState if context.version >= ABORTABLE_SINCE => {
            ResponseError::TransactionAbortable
        }
        other => other,
    };
    Refusal::new(error, message)
}

fn response(index: i32, result: Result<Appended, Refusal>) -> PartitionProduceResponse {
    let answer = PartitionProduceResponse::default().with_index(index);
    match result {
        Ok(appended) => answer
            .with_base_offset(appended.base_offset)
            .with_log_start_offset(appended.log_start),
        Err(refusal) => answer
            .with_base_offset(-1)
            .with_error_code(refusal.error.code())
            .with_error_message(Some(text(&refusal.message))),
    }
}
