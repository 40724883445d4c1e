//! Requests by family: decode, ask the broker's parts, encode.
//!
//! A handler gets the decoded request and returns the decoded response; what it refuses, it refuses
//! with Kafka's error codes inside the response. Only bytes that are no request are an `Err` here.

mod acls;
mod alter_configs;
mod cluster;
mod configs;
mod describe_transactions;
mod fetch;
mod groups;
mod list_offsets;
mod metadata;
pub(crate) mod names;
mod offset_delete;
mod offsets;
mod produce;
mod records;
mod refuse;
mod sasl;
mod topics;
mod transactions;
pub(crate) mod versions;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

pub(crate) use refuse::refuse;

use crate::core::Core;
use crate::frame::{Frame, FrameBuilder};
use crate::security::{Operation, Principal, Resource, ResourceType, Session};

/// Where a request comes from and what it is.
#[derive(Debug)]
pub(crate) struct RequestContext {
    pub(crate) key: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) client_id: String,
    /// The address that the client reached, which is what it is told as the broker's address.
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) principal: Principal,
}

/// What to do with the connection after a request.
pub(crate) enum Answer {
    /// Send this; or close because it can not be encoded, which is a bug of the broker.
    Frame(Result<Frame, String>),
    /// The client wants no answer.
    Silence,
    /// Close the connection, for this reason.
    Close(String),
    /// Close the connection, for an injected fault of this name.
    Drop(&'static str),
}

/// The body is not what its header says.
pub(crate) type Malformed = String;

impl RequestContext {
    /// A frame that has its header and wants the body.
    fn builder(&self) -> FrameBuilder {
        let mut builder = FrameBuilder::default();
        builder.head().put_i32(self.correlation_id);
        if self.key.response_header_version(self.version) >= 1 {
            builder.head().put_u8(0);
        }
        builder
    }

    /// Whether whoever sent the request may do this.
    fn may(&self, core: &Core, operation: Operation, resource: Resource<'_>) -> bool {
        core.guard
            .allows(&self.principal, self.peer.ip(), operation, resource)
    }

    /// The same, where a denial is an error of the answer.
    fn must(&self, core: &Core, operation: Operation, resource: Resource<'_>) -> Result<(), ResponseError> {
        if self.may(core, operation, resource) {
            return Ok(());
        }
        Err(match resource {
            Resource::Topic(_) => ResponseError::TopicAuthorizationFailed,
            Resource::Group(_) => ResponseError::GroupAuthorizationFailed,
            Resource::Cluster => ResponseError::ClusterAuthorizationFailed,
            Resource::TransactionalId(_) => ResponseError::TransactionalIdAuthorizationFailed,
        })
    }

    /// Whether they may do this with some resource of the type.
    fn may_with_some(&self, core: &Core, operation: Operation, resource: ResourceType) -> bool {
        core.guard
            .allows_some(&self.principal, self.peer.ip(), operation, resource)
    }

    fn encode(&self, response: &impl Encodable, version: i16) -> Result<Frame, String> {
        let mut builder = self.builder();
        response
            .encode(builder.head(), version)
            .map_err(|error| error.to_string())?;
        builder
            .finish()
            .ok_or_else(|| "the answer is longer than a frame".to_owned())
    }

    fn decode<R: Decodable>(&self, mut body: Bytes) -> Result<R, Malformed> {
        R::decode(&mut body, self.version).map_err(|error| error.to_string())
    }

    fn answer(&self, response: &impl Encodable) -> Result<Answer, Malformed> {
        Ok(Answer::Frame(self.encode(response, self.version)))
    }
}

/// Answers a request whose key and version are supported and whose shape was checked. Those of SASL
/// change who is on the other side of the session. The answer waits until what it tells of is kept.
pub(crate) async fn answer(
    core: &Arc<Core>,
    context: &RequestContext,
    session: &mut Session,
    body: Bytes,
) -> Result<Answer, Malformed> {
    let answer = handle(core, context, session, body).await?;
    // These two tell of records, which see to it themselves.
    if matches!(context.key, ApiKey::Produce | ApiKey::Fetch) {
        return Ok(answer);
    }
    Ok(match core.settled().await {
        Ok(()) => answer,
        // What failed was somebody else's change. Here is told what the broker knows.
        Err(_) if only_asks(context.key) => answer,
        Err(error) => Answer::Close(format!(
            "the data folder can not keep what was asked for: {error}"
        )),
    })
}

/// Whether requests of this kind change nothing that the data folder keeps. Metadata that creates a topic
/// is told by an error where that can not be kept.
fn only_asks(key: ApiKey) -> bool {
    matches!(
        key,
        ApiKey::ApiVersions
            | ApiKey::SaslHandshake
            | ApiKey::SaslAuthenticate
            | ApiKey::Metadata
            | ApiKey::DescribeCluster
            | ApiKey::DescribeConfigs
            | ApiKey::DescribeAcls
            | ApiKey::ListOffsets
            | ApiKey::OffsetForLeaderEpoch
            | ApiKey::FindCoordinator
            | ApiKey::JoinGroup
            | ApiKey::SyncGroup
            | ApiKey::Heartbeat
            | ApiKey::LeaveGroup
            | ApiKey::ListGroups
            | ApiKey::DescribeGroups
            | ApiKey::OffsetFetch
            | ApiKey::DescribeProducers
            | ApiKey::ListTransactions
            | ApiKey::DescribeTransactions
    )
}

async fn handle(
    core: &Arc<Core>,
    context: &RequestContext,
    session: &mut Session,
    body: Bytes,
) -> Result<Answer, Malformed> {
    match context.key {
        ApiKey::SaslHandshake => {
            context.answer(&sasl::handshake(core, context, session, &context.decode(body)?))
        }
        ApiKey::SaslAuthenticate => {
            context.answer(&sasl::authenticate(core, session, &context.decode(body)?))
        }
        ApiKey::Produce => produce::produce(core, context, context.decode(body)?).await,
        ApiKey::Fetch => Ok(fetch::fetch(core, context, context.decode(body)?).await),
        ApiKey::ApiVersions => context.answer(&versions::versions()),
        ApiKey::Metadata => context.answer(&metadata::metadata(core, context, context.decode(body)?)),
        ApiKey::DescribeCluster => context.answer(&cluster::describe(core, context, &context.decode(body)?)),
        ApiKey::InitProducerId => {
            let request = context.decode(body)?;
            context.answer(&transactions::init_producer_id(core, context, request).await)
        }
        ApiKey::CreateTopics => context.answer(&topics::create(core, context, context.decode(body)?)),
        ApiKey::DeleteTopics => context.answer(&topics::delete(core, context, context.decode(body)?).await),
        ApiKey::CreatePartitions => context.answer(&topics::grow(core, context, context.decode(body)?)),
        ApiKey::DeleteRecords => context.answer(&records::delete(core, context, context.decode(body)?)),
        ApiKey::DescribeConfigs => context.answer(&configs::describe(core, context, context.decode(body)?)),
        ApiKey::AlterConfigs => context.answer(&alter_configs::alter(core, context, context.decode(body)?)),
        ApiKey::IncrementalAlterConfigs => context.answer(&alter_configs::alter_incrementally(
            core,
            context,
            context.decode(body)?,
        )),
        ApiKey::ListOffsets => context.answer(&list_offsets::list(core, context, context.decode(body)?)),
        ApiKey::OffsetForLeaderEpoch => {
            context.answer(&list_offsets::for_epoch(core, context, context.decode(body)?))
        }
        ApiKey::FindCoordinator => {
            context.answer(&cluster::find_coordinator(core, context, context.decode(body)?))
        }
        ApiKey::JoinGroup => context.answer(&groups::join(core, context, context.decode(body)?).await),
        ApiKey::SyncGroup => context.answer(&groups::sync(core, context, context.decode(body)?).await),
        ApiKey::Heartbeat => context.answer(&groups::heartbeat(core, context, context.decode(body)?).await),
        ApiKey::LeaveGroup => context.answer(&groups::leave(core, context, context.decode(body)?).await),
        ApiKey::ListGroups => context.answer(&groups::list(core, context, context.decode(body)?).await),
        ApiKey::DescribeGroups => {
            context.answer(&groups::describe(core, context, context.decode(body)?).await)
        }
        ApiKey::DeleteGroups => context.answer(&groups::delete(core, context, context.decode(body)?).await),
        ApiKey::OffsetCommit => context.answer(&offsets::commit(core, context, context.decode(body)?).await),
        ApiKey::OffsetFetch => context.answer(&offsets::fetch(core, context, context.decode(body)?).await),
        ApiKey::AddPartitionsToTxn => context.answer(&transactions::add_partitions(
            core,
            context,
            context.decode(body)?,
        )),
        ApiKey::AddOffsetsToTxn => {
            context.answer(&transactions::add_offsets(core, context, &context.decode(body)?))
        }
        ApiKey::TxnOffsetCommit => {
            context.answer(&transactions::commit_offsets(core, context, context.decode(body)?).await)
        }
        ApiKey::EndTxn => context.answer(&transactions::end(core, context, &context.decode(body)?).await),
        ApiKey::DescribeAcls => context.answer(&acls::describe(core, context, &context.decode(body)?)),
        ApiKey::CreateAcls => context.answer(&acls::create(core, context, &context.decode(body)?)),
        ApiKey::DeleteAcls => context.answer(&acls::delete(core, context, &context.decode(body)?)),
        ApiKey::OffsetDelete => {
            context.answer(&offset_delete::delete(core, context, context.decode(body)?).await)
        }
        ApiKey::DescribeProducers => context.answer(&describe_transactions::producers(
            core,
            context,
            context.decode(body)?,
        )),
        ApiKey::ListTransactions => context.answer(&describe_transactions::list(
            core,
            context,
            &context.decode(body)?,
        )),
        ApiKey::DescribeTransactions => context.answer(&describe_transactions::describe(
            core,
            context,
            context.decode(body)?,
        )),
        // The table of versions and this match name the same keys; a test sends each of them.
        other => Err(format!("{other:?} has no handler")),
    }
}

/// The code on the wire: 0 for success.
fn code<T>(result: &Result<T, ResponseError>) -> i16 {
    result.as_ref().err().map_or(0, ResponseError::code)
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
