//! The answer of a request that is refused without being looked into: for injected faults.
//!
//! Each request has its error code in a place of its own, often one per topic, partition or group,
//! and clients look only there. So the request is decoded, and everything that it asks about is
//! answered with the error where a broker would put it: what concerns the whole request at the top
//! where there is a top, what concerns single things at each of them. A request about nothing has
//! no place for an error and gets its empty answer.
//!
//! Complete over the table of versions: a test refuses each version of each request, and reads the
//! error from the answer with the codec.
//!
//! - `records`: Produce, Fetch and what else is about partitions.
//! - `groups`: consumer groups and their positions.
//! - `transactions`: producer ids and transactions.
//! - `cluster`: topics, settings, coordinators.
//! - `security`: authentication and access rules.

mod cluster;
mod groups;
mod records;
mod security;
#[cfg(test)]
mod tests;
mod transactions;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;

use super::{Answer, Malformed, RequestContext};
use crate::core::Core;

/// The answer with which everything in the request is refused. It has no other effect.
pub(crate) fn refuse(
    core: &Core,
    context: &RequestContext,
    body: Bytes,
    error: ResponseError,
) -> Result<Answer, Malformed> {
    let code = error.code();
    match context.key {
        ApiKey::Produce => records::produce(context, context.decode(body)?, error),
        ApiKey::Fetch => context.answer(&records::fetch(context, context.decode(body)?, error)),
        ApiKey::ListOffsets => context.answer(&records::list_offsets(context.decode(body)?, code)),
        ApiKey::OffsetForLeaderEpoch => context.answer(&records::for_epoch(context.decode(body)?, code)),
        ApiKey::DeleteRecords => context.answer(&records::delete(context.decode(body)?, code)),
        ApiKey::OffsetCommit => context.answer(&groups::commit(context.decode(body)?, code)),
        ApiKey::OffsetFetch => context.answer(&groups::positions(context, context.decode(body)?, error)),
        ApiKey::JoinGroup => context.answer(&groups::join(&context.decode(body)?, code)),
        ApiKey::SyncGroup => context.answer(&groups::sync(code)),
        ApiKey::Heartbeat => context.answer(&groups::heartbeat(code)),
        ApiKey::LeaveGroup => context.answer(&groups::leave(context, context.decode(body)?, error)),
        ApiKey::ListGroups => context.answer(&groups::list(code)),
        ApiKey::DescribeGroups => context.answer(&groups::describe(context.decode(body)?, code)),
        ApiKey::DeleteGroups => context.answer(&groups::delete(context.decode(body)?, code)),
        ApiKey::ApiVersions => context.answer(&super::versions::versions().with_error_code(code)),
        ApiKey::Metadata => context.answer(&cluster::metadata(core, context, context.decode(body)?, code)),
        ApiKey::DescribeCluster => context.answer(&cluster::describe(code)),
        ApiKey::FindCoordinator => {
            context.answer(&cluster::find_coordinator(context, context.decode(body)?, code))
        }
        ApiKey::InitProducerId => context.answer(&transactions::init_producer_id(code)),
        ApiKey::CreateTopics => context.answer(&cluster::create_topics(context.decode(body)?, code)),
        ApiKey::DeleteTopics => context.answer(&cluster::delete_topics(context, context.decode(body)?, code)),
        ApiKey::CreatePartitions => context.answer(&cluster::grow(context.decode(body)?, code)),
        ApiKey::DescribeConfigs => context.answer(&cluster::describe_configs(context.decode(body)?, code)),
        ApiKey::AlterConfigs => context.answer(&cluster::alter_configs(context.decode(body)?, code)),
        ApiKey::IncrementalAlterConfigs => {
            context.answer(&cluster::alter_configs_incrementally(context.decode(body)?, code))
        }
        ApiKey::OffsetDelete => context.answer(&groups::delete_offsets(code)),
        ApiKey::AddPartitionsToTxn => {
            context.answer(&transactions::add_partitions(context.decode(body)?, code))
        }
        ApiKey::AddOffsetsToTxn => context.answer(&transactions::add_offsets(code)),
        ApiKey::TxnOffsetCommit => context.answer(&transactions::commit_offsets(context.decode(body)?, code)),
        ApiKey::EndTxn => context.answer(&transactions::end(code)),
        ApiKey::DescribeProducers => {
            context.answer(&records::describe_producers(context.decode(body)?, code))
        }
        ApiKey::ListTransactions => context.answer(&transactions::list(code)),
        ApiKey::DescribeTransactions => context.answer(&transactions::describe(context.decode(body)?, code)),
        ApiKey::SaslHandshake => context.answer(&security::handshake(code)),
        ApiKey::SaslAuthenticate => context.answer(&security::authenticate(code)),
        ApiKey::DescribeAcls => context.answer(&security::describe_acls(code)),
        ApiKey::CreateAcls => context.answer(&security::create_acls(&context.decode(body)?, code)),
        ApiKey::DeleteAcls => context.answer(&security::delete_acls(&context.decode(body)?, code)),
        // The table of versions and this match name the same keys; a test refuses each of them.
        other => Err(format!("{other:?} can not be refused")),
    }
}
