//! The versions of each request that this broker answers: what it tells clients, and what it checks.

use kafka_protocol::messages::ApiKey;

/// A request and the versions of it that are answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Supported {
    pub(crate) key: ApiKey,
    pub(crate) min: i16,
    pub(crate) max: i16,
    /// The lowest version that is told to clients.
    pub(crate) told_min: i16,
}

const fn versions(key: ApiKey, min: i16, max: i16) -> Supported {
    Supported {
        key,
        min,
        max,
        told_min: min,
    }
}

/// Upper ends: Fetch 13 and Produce 13 name topics by id; Produce 12, TxnOffsetCommit 5 and EndTxn 5
/// are those of transactions v2, and InitProducerId 5, AddOffsetsToTxn 4, TxnOffsetCommit 4 and
/// EndTxn 4 know its TRANSACTION_ABORTABLE (KIP-890); AddPartitionsToTxn 4 is for brokers among
/// themselves; OffsetFetch 10 and OffsetCommit 10 name topics by id.
pub(crate) const SUPPORTED: &[Supported] = &[
    // Versions 0 to 2 carry the message format before 0.11 and are answered by no broker since 4.0,
    // yet librdkafka up to 2.11 compresses only for a broker that says version 0 (KAFKA-18659).
    Supported {
        key: ApiKey::Produce,
        min: 3,
        max: 11,
        told_min: 0,
    },
    versions(ApiKey::Fetch, 4, 12),
    versions(ApiKey::ListOffsets, 1, 8),
    versions(ApiKey::Metadata, 0, 12),
    versions(ApiKey::OffsetCommit, 2, 9),
    versions(ApiKey::OffsetFetch, 1, 9),
    versions(ApiKey::FindCoordinator, 0, 4),
    versions(ApiKey::JoinGroup, 0, 9),
    versions(ApiKey::Heartbeat, 0, 4),
    versions(ApiKey::LeaveGroup, 0, 5),
    versions(ApiKey::SyncGroup, 0, 5),
    versions(ApiKey::DescribeGroups, 0, 5),
    versions(ApiKey::ListGroups, 0, 5),
    versions(ApiKey::SaslHandshake, 0, 1),
    versions(ApiKey::ApiVersions, 0, 3),
    versions(ApiKey::CreateTopics, 2, 7),
    versions(ApiKey::DeleteTopics, 1, 6),
    versions(ApiKey::DeleteRecords, 0, 2),
    versions(ApiKey::InitProducerId, 0, 4),
    versions(ApiKey::OffsetForLeaderEpoch, 2, 4),
    versions(ApiKey::AddPartitionsToTxn, 0, 3),
    versions(ApiKey::AddOffsetsToTxn, 0, 3),
    versions(ApiKey::EndTxn, 0, 3),
    versions(ApiKey::TxnOffsetCommit, 0, 3),
    versions(ApiKey::DescribeAcls, 1, 3),
    versions(ApiKey::CreateAcls, 1, 3),
    versions(ApiKey::DeleteAcls, 1, 3),
    versions(ApiKey::DescribeConfigs, 1, 4),
    versions(ApiKey::SaslAuthenticate, 0, 2),
    versions(ApiKey::AlterConfigs, 0, 2),
    versions(ApiKey::CreatePartitions, 0, 3),
    versions(ApiKey::DeleteGroups, 0, 2),
    versions(ApiKey::IncrementalAlterConfigs, 0, 1),
    versions(ApiKey::OffsetDelete, 0, 0),
    versions(ApiKey::DescribeCluster, 0, 1),
    versions(ApiKey::DescribeProducers, 0, 0),
    versions(ApiKey::DescribeTransactions, 0, 0),
    versions(ApiKey::ListTransactions, 0, 1),
];

/// Whether a request of this key and version is answered.
pub(crate) fn is_supported(key: ApiKey, version: i16) -> bool {
    SUPPORTED
        .iter()
        .any(|api| api.key as i16 == key as i16 && (api.min..=api.max).contains(&version))
}
