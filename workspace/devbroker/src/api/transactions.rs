//! InitProducerId, AddPartitionsToTxn, AddOffsetsToTxn, TxnOffsetCommit, EndTxn.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    EndTxnRequest, EndTxnResponse, InitProducerIdRequest, InitProducerIdResponse, ProducerId,
    TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};

use super::groups::speaker;
use super::{RequestContext, code, offsets};
use crate::batch::Outcome;
use crate::core::Core;
use crate::groups::{Absent, Command};
use crate::offsets::{Committed, PartitionOffset};
use crate::security::{Operation, Resource, ResourceType};
use crate::transactions::{Ended, Identity, Initialised, finish};

/// The first version of InitProducerId whose clients know PRODUCER_FENCED (KIP-588).
const INIT_KNOWS_FENCED_SINCE: i16 = 4;
/// The first version of the other requests whose clients know it.
const KNOWS_FENCED_SINCE: i16 = 2;

pub(super) async fn init_producer_id(
    core: &Arc<Core>,
    context: &RequestContext,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let answer = InitProducerIdResponse::default();
    match initialise(core, context, &request).await {
        Ok(identity) => answer
            .with_producer_id(ProducerId(identity.producer_id))
            .with_producer_epoch(identity.epoch),
        Err(error) => answer
            .with_error_code(told(error, context, INIT_KNOWS_FENCED_SINCE).code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    }
}

async fn initialise(
    core: &Arc<Core>,
    context: &RequestContext,
    request: &InitProducerIdRequest,
) -> Result<Identity, ResponseError> {
    let kept = core.producer_ids.ensure();
    kept.map_err(|_| ResponseError::CoordinatorNotAvailable)?;
    let Some(id) = &request.transactional_id else {
        // Who may write to some topic may do so idempotently (KIP-679).
        if !context.may_with_some(core, Operation::Write, ResourceType::Topic) {
            context.must(core, Operation::IdempotentWrite, Resource::Cluster)?;
        }
        // Without a transactional id there is a new producer id each time, whatever the client had.
        return Ok(Identity {
            producer_id: core.producer_ids.take(),
            epoch: 0,
        });
    };
    context.must(core, Operation::Write, Resource::TransactionalId(id))?;
    let claimed = match (request.producer_id.0, request.producer_epoch) {
        (-1, -1) => None,
        (-1, _) | (_, -1) => return Err(ResponseError::InvalidRequest),
        (producer_id, epoch) => Some(Identity { producer_id, epoch }),
    };
    let timeout = Duration::from_millis(u64::try_from(request.transaction_timeout_ms).unwrap_or(0));
    let now = core.clock.now();
    let initialised = core.transactions.change(id, |coordinator| {
        coordinator.initialise(now, id, timeout, claimed, || core.producer_ids.take())
    })?;
    match initialised {
        Initialised::Ready(identity) => Ok(identity),
        Initialised::Aborting(ending) => {
            finish(core, ending).await;
            Err(ResponseError::ConcurrentTransactions)
        }
    }
}

/// Older clients know of fencing by another name.
fn told(error: ResponseError, context: &RequestContext, knows_fenced_since: i16) -> ResponseError {
    if error == ResponseError::ProducerFenced && context.version < knows_fenced_since {
        ResponseError::InvalidProducerEpoch
    } else {
        error
    }
}

fn told_code(result: Result<(), ResponseError>, context: &RequestContext) -> i16 {
    code(&result.map_err(|error| told(error, context, KNOWS_FENCED_SINCE)))
}

pub(super) fn add_partitions(
    core: &Core,
    context: &RequestContext,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let identity = Identity {
        producer_id: request.v3_and_below_producer_id.0,
        epoch: request.v3_and_below_producer_epoch,
    };
    let topics = request.v3_and_below_topics;
    let id = &request.v3_and_below_transactional_id;
    let may_use = context.must(core, Operation::Write, Resource::TransactionalId(id));
    let check = |topic: &str, partition: i32| {
        may_use?;
        context.must(core, Operation::Write, Resource::Topic(topic))?;
        let found = core.topics.partition(topic, partition);
        found.map(drop).ok_or(ResponseError::UnknownTopicOrPartition)
    };
    let partitions = || {
        topics.iter().flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|partition| (topic.name.to_string(), *partition))
        })
    };
    // All or nothing: one that can not be added keeps the others out too.
    let outcome = if partitions().all(|(topic, partition)| check(&topic, partition).is_ok()) {
        let (now, now_ms) = (core.clock.now(), core.clock.unix_ms());
        let added = core.transactions.change(id, |coordinator| {
            coordinator.add(now, now_ms, id, identity, partitions(), None)
        });
        core.transactions.watch();
        Some(told_code(added, context))
    } else {
        None
    };
    let result = |topic: &str, partition: i32| match outcome {
        Some(code) => code,
        None => {
            let error = check(topic, partition).err();
            error.unwrap_or(ResponseError::OperationNotAttempted).code()
        }
    };
    let results = topics.iter().map(|topic| partition_results(topic, result));
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results.collect())
}

fn partition_results(
    topic: &AddPartitionsToTxnTopic,
    result: impl Fn(&str, i32) -> i16,
) -> AddPartitionsToTxnTopicResult {
    let partitions = topic.partitions.iter().map(|partition| {
        AddPartitionsToTxnPartitionResult::default()
            .with_partition_index(*partition)
            .with_partition_error_code(result(&topic.name, *partition))
    });
    AddPartitionsToTxnTopicResult::default()
        .with_name(topic.name.clone())
        .with_results_by_partition(partitions.collect())
}

pub(super) fn add_offsets(
    core: &Core,
    context: &RequestContext,
    request: &AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let allowed = may_commit(core, context, &request.transactional_id, &request.group_id);
    let added = allowed.and_then(|()| add_group(core, request));
    core.transactions.watch();
    AddOffsetsToTxnResponse::default().with_error_code(told_code(added, context))
}

fn add_group(core: &Core, request: &AddOffsetsToTxnRequest) -> Result<(), ResponseError> {
    if request.group_id.is_empty() {
        return Err(ResponseError::InvalidGroupId);
    }
    let identity = Identity {
        producer_id: request.producer_id.0,
        epoch: request.producer_epoch,
    };
    let (now, now_ms) = (core.clock.now(), core.clock.unix_ms());
    let group = Some(request.group_id.to_string());
    let id = &request.transactional_id;
    core.transactions.change(id, |coordinator| {
        coordinator.add(now, now_ms, id, identity, [], group)
    })
}

/// What it takes to commit offsets of a group in a transaction, the topics left aside.
fn may_commit(core: &Core, context: &RequestContext, id: &str, group: &str) -> Result<(), ResponseError> {
    context.must(core, Operation::Write, Resource::TransactionalId(id))?;
    context.must(core, Operation::Read, Resource::Group(group))
}

pub(super) async fn end(
    core: &Arc<Core>,
    context: &RequestContext,
    request: &EndTxnRequest,
) -> EndTxnResponse {
    let id = Resource::TransactionalId(&request.transactional_id);
    if let Err(error) = context.must(core, Operation::Write, id) {
        return EndTxnResponse::default().with_error_code(error.code());
    }
    let identity = Identity {
        producer_id: request.producer_id.0,
        epoch: request.producer_epoch,
    };
    let outcome = if request.committed {
        Outcome::Commit
    } else {
        Outcome::Abort
    };
    let now = core.clock.now();
    let id = &request.transactional_id;
    let ended = core
        .transactions
        .change(id, |coordinator| coordinator.end(now, id, identity, outcome));
    let result = match ended {
        Ok(Ended::Now(ending)) => {
            finish(core, ending).await;
            Ok(())
        }
        Ok(Ended::Before) => Ok(()),
        Err(error) => Err(error),
    };
    EndTxnResponse::default().with_error_code(told_code(result, context))
}

pub(super) async fn commit_offsets(
    core: &Core,
    context: &RequestContext,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let allowed = may_commit(core, context, &request.transactional_id, &request.group_id);
    let mut accepted = Vec::new();
    let mut checked = Vec::new();
    for topic in &request.topics {
        let allowed = allowed.and(context.must(core, Operation::Read, Resource::Topic(&topic.name)));
        for partition in &topic.partitions {
            let metadata = partition.committed_metadata.as_ref();
            let result =
                allowed.and_then(|()| offsets::check(core, &topic.name, partition.partition_index, metadata));
            if result.is_ok() {
                accepted.push(PartitionOffset {
                    topic: topic.name.to_string(),
                    partition: partition.partition_index,
                    committed: Committed {
                        offset: partition.committed_offset,
                        leader_epoch: partition.committed_leader_epoch,
                        metadata: super::groups::owned(metadata).unwrap_or_default(),
                    },
                });
            }
            checked.push(result);
        }
    }
    let outcome = match allowed {
        Ok(()) => hold(core, &request, accepted).await.map_err(|error| match error {
            // Kafka's groups know of no other name for it, in any version.
            ResponseError::ProducerFenced => ResponseError::InvalidProducerEpoch,
            other => other,
        }),
        Err(error) => Err(error),
    };
    let mut checked = checked.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let result = checked.next().unwrap_or(Ok(())).and(outcome);
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code(&result))
        });
        let partitions = partitions.collect();
        TxnOffsetCommitResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    });
    TxnOffsetCommitResponse::default().with_topics(topics.collect())
}

/// Keeps the offsets in the group until the transaction ends.
async fn hold(
    core: &Core,
    request: &TxnOffsetCommitRequest,
    positions: Vec<PartitionOffset>,
) -> Result<(), ResponseError> {
    if request.group_id.is_empty() {
        return Err(ResponseError::InvalidGroupId);
    }
    let identity = Identity {
        producer_id: request.producer_id.0,
        epoch: request.producer_epoch,
    };
    // The group asks too, when its turn comes. Here it keeps out whoever would make a group for nothing.
    core.transactions
        .check_group(&request.transactional_id, identity, &request.group_id)?;
    let speaker = speaker(
        &request.member_id,
        request.group_instance_id.as_ref(),
        request.generation_id,
    );
    let absent = if speaker.generation < 0 {
        Absent::Create
    } else {
        Absent::Leave
    };
    let command = |answer| Command::Hold {
        speaker: speaker.clone(),
        transactional_id: request.transactional_id.to_string(),
        identity,
        positions: positions.clone(),
        answer,
    };
    let answer = core.groups.ask(&request.group_id, absent, command).await?;
    answer.unwrap_or(Err(ResponseError::IllegalGeneration))
}
