//! The fields of each request, by Kafka's message definitions.

use kafka_protocol::messages::ApiKey;

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// A string, may be null.
    Text,
    /// Bytes, may be null.
    Bytes,
    /// An array of structures, may be null.
    Structs(&'static [Field]),
    /// An array of plain values, may be null.
    Values(&'static Kind),
}

/// A field and the versions that have it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) from: i16,
    pub(super) to: i16,
    pub(super) kind: Kind,
}

const fn always(kind: Kind) -> Field {
    Field {
        from: 0,
        to: i16::MAX,
        kind,
    }
}

const fn since(from: i16, kind: Kind) -> Field {
    Field {
        from,
        to: i16::MAX,
        kind,
    }
}

const fn between(from: i16, to: i16, kind: Kind) -> Field {
    Field { from, to, kind }
}

const BOOL: Kind = Kind::Fixed(1);
const INT8: Kind = Kind::Fixed(1);
const INT16: Kind = Kind::Fixed(2);
const INT32: Kind = Kind::Fixed(4);
const INT64: Kind = Kind::Fixed(8);
const UUID: Kind = Kind::Fixed(16);
const TEXT: Kind = Kind::Text;
const BYTES: Kind = Kind::Bytes;
const INT32S: Kind = Kind::Values(&INT32);
const TEXTS: Kind = Kind::Values(&TEXT);

/// The first version in the compact encoding with tagged fields, and the fields.
pub(super) struct Shape(pub(super) i16, pub(super) &'static [Field]);

pub(super) fn shape(key: ApiKey) -> Option<Shape> {
    Some(match key {
        ApiKey::Produce => Shape(9, PRODUCE),
        ApiKey::Fetch => Shape(12, FETCH),
        ApiKey::ListOffsets => Shape(6, LIST_OFFSETS),
        ApiKey::Metadata => Shape(9, METADATA),
        ApiKey::OffsetCommit => Shape(8, OFFSET_COMMIT),
        ApiKey::OffsetFetch => Shape(6, OFFSET_FETCH),
        ApiKey::FindCoordinator => Shape(3, FIND_COORDINATOR),
        ApiKey::JoinGroup => Shape(6, JOIN_GROUP),
        ApiKey::Heartbeat => Shape(4, HEARTBEAT),
        ApiKey::LeaveGroup => Shape(4, LEAVE_GROUP),
        ApiKey::SyncGroup => Shape(4, SYNC_GROUP),
        ApiKey::DescribeGroups => Shape(5, DESCRIBE_GROUPS),
        ApiKey::ListGroups => Shape(3, LIST_GROUPS),
        // No version of it is in the compact encoding.
        ApiKey::SaslHandshake => Shape(i16::MAX, SASL_HANDSHAKE),
        ApiKey::ApiVersions => Shape(3, API_VERSIONS),
        ApiKey::CreateTopics => Shape(5, CREATE_TOPICS),
        ApiKey::DeleteTopics => Shape(4, DELETE_TOPICS),
        ApiKey::DeleteRecords => Shape(2, DELETE_RECORDS),
        ApiKey::InitProducerId => Shape(2, INIT_PRODUCER_ID),
        ApiKey::OffsetForLeaderEpoch => Shape(4, OFFSET_FOR_LEADER_EPOCH),
        ApiKey::AddPartitionsToTxn => Shape(3, ADD_PARTITIONS_TO_TXN),
        ApiKey::AddOffsetsToTxn => Shape(3, ADD_OFFSETS_TO_TXN),
        ApiKey::EndTxn => Shape(3, END_TXN),
        ApiKey::TxnOffsetCommit => Shape(3, TXN_OFFSET_COMMIT),
        ApiKey::DescribeAcls => Shape(2, ACL_FILTER),
        ApiKey::CreateAcls => Shape(2, CREATE_ACLS),
        ApiKey::DeleteAcls => Shape(2, DELETE_ACLS),
        ApiKey::DescribeConfigs => Shape(4, DESCRIBE_CONFIGS),
        ApiKey::SaslAuthenticate => Shape(2, SASL_AUTHENTICATE),
        ApiKey::AlterConfigs => Shape(2, ALTER_CONFIGS),
        ApiKey::IncrementalAlterConfigs => Shape(1, INCREMENTAL_ALTER_CONFIGS),
        ApiKey::CreatePartitions => Shape(2, CREATE_PARTITIONS),
        ApiKey::DeleteGroups => Shape(2, DELETE_GROUPS),
        ApiKey::DescribeProducers => Shape(0, DESCRIBE_PRODUCERS),
        ApiKey::DescribeTransactions => Shape(0, DESCRIBE_TRANSACTIONS),
        ApiKey::ListTransactions => Shape(0, LIST_TRANSACTIONS),
        ApiKey::OffsetDelete => Shape(i16::MAX, OFFSET_DELETE),
        ApiKey::DescribeCluster => Shape(0, DESCRIBE_CLUSTER),
        _ => return None,
    })
}

const FIND_COORDINATOR: &[Field] = &[between(0, 3, TEXT), since(1, INT8), since(4, TEXTS)];

const HEARTBEAT: &[Field] = &[always(TEXT), always(INT32), always(TEXT), since(3, TEXT)];

const DESCRIBE_GROUPS: &[Field] = &[always(TEXTS), since(3, BOOL)];

const LIST_GROUPS: &[Field] = &[since(4, TEXTS), since(5, TEXTS)];

const SASL_HANDSHAKE: &[Field] = &[always(TEXT)];

const SASL_AUTHENTICATE: &[Field] = &[always(BYTES)];

const API_VERSIONS: &[Field] = &[since(3, TEXT), since(3, TEXT)];

const INIT_PRODUCER_ID: &[Field] = &[always(TEXT), always(INT32), since(3, INT64), since(3, INT16)];

const ADD_PARTITIONS_TO_TXN: &[Field] = &[
    always(TEXT),
    always(INT64),
    always(INT16),
    always(Kind::Structs(&[always(TEXT), always(INT32S)])),
];

const ADD_OFFSETS_TO_TXN: &[Field] = &[always(TEXT), always(INT64), always(INT16), always(TEXT)];

const END_TXN: &[Field] = &[always(TEXT), always(INT64), always(INT16), always(BOOL)];

const TXN_OFFSET_COMMIT: &[Field] = &[
    always(TEXT),
    always(TEXT),
    always(INT64),
    always(INT16),
    since(3, INT32),
    since(3, TEXT),
    since(3, TEXT),
    always(Kind::Structs(&[
        always(TEXT),
        always(Kind::Structs(&[
            always(INT32),
            always(INT64),
            since(2, INT32),
            always(TEXT),
        ])),
    ])),
];

const DELETE_GROUPS: &[Field] = &[always(TEXTS)];

const DESCRIBE_CLUSTER: &[Field] = &[always(BOOL), since(1, INT8)];

const PRODUCE: &[Field] = &[
    always(TEXT),
    always(INT16),
    always(INT32),
    always(Kind::Structs(&[
        always(TEXT),
        always(Kind::Structs(&[always(INT32), always(BYTES)])),
    ])),
];

const FETCH: &[Field] = &[
    always(INT32),
    always(INT32),
    always(INT32),
    always(INT32),
    always(INT8),
    since(7, INT32),
    since(7, INT32),
    always(Kind::Structs(&[
        always(TEXT),
        always(Kind::Structs(&[
            always(INT32),
            since(9, INT32),
            always(INT64),
            since(12, INT32),
            since(5, INT64),
            always(INT32),
        ])),
    ])),
    since(7, Kind::Structs(&[always(TEXT), always(INT32S)])),
    since(11, TEXT),
];

const LIST_OFFSETS: &[Field] = &[
    always(INT32),
    since(2, INT8),
    always(Kind::Structs(&[
        always(TEXT),
        always(Kind::Structs(&[always(INT32), since(4, INT32), always(INT64)])),
    ])),
];

const METADATA: &[Field] = &[
    always(Kind::Structs(&[since(10, UUID), always(TEXT)])),
    since(4, BOOL),
    between(8, 10, BOOL),
    since(8, BOOL),
];

const OFFSET_COMMIT: &[Field] = &[
    always(TEXT),
    always(INT32),
    always(TEXT),
    since(7, TEXT),
    between(2, 4, INT64),
    always(Kind::Structs(&[
        always(TEXT),
        always(Kind::Structs(&[
            always(INT32),
            always(INT64),
            since(6, INT32),
            always(TEXT),
        ])),
    ])),
];

const OFFSET_FETCH: &[Field] = &[
    between(0, 7, TEXT),
    between(0, 7, Kind::Structs(&[always(TEXT), always(INT32S)])),
    since(
        8,
        Kind::Structs(&[
            always(TEXT),
            since(9, TEXT),
            since(9, INT32),
            always(Kind::Structs(&[always(TEXT), always(INT32S)])),
        ]),
    ),
    since(7, BOOL),
];

const JOIN_GROUP: &[Field] = &[
    always(TEXT),
    always(INT32),
    since(1, INT32),
    always(TEXT),
    since(5, TEXT),
    always(TEXT),
    always(Kind::Structs(&[always(TEXT), always(BYTES)])),
    since(8, TEXT),
];

const LEAVE_GROUP: &[Field] = &[
    always(TEXT),
    between(0, 2, TEXT),
    since(3, Kind::Structs(&[always(TEXT), always(TEXT), since(5, TEXT)])),
];

const SYNC_GROUP: &[Field] = &[
    always(TEXT),
    always(INT32),
    always(TEXT),
    since(3, TEXT),
    since(5, TEXT),
    since(5, TEXT),
    always(Kind::Structs(&[always(TEXT), always(BYTES)])),
];

const CREATE_TOPICS: &[Field] = &[
    always(Kind::Structs(&[
        always(TEXT),
        always(INT32),
        always(INT16),
        always(Kind::Structs(&[always(INT32), always(INT32S)])),
        always(Kind::Structs(&[always(TEXT), always(TEXT)])),
    ])),
    always(INT32),
    since(1, BOOL),
];

const DELETE_TOPICS: &[Field] = &[
    since(6, Kind::Structs(&[always(TEXT), always(UUID)])),
    between(0, 5, TEXTS),
    always(INT32),
];

const DELETE_RECORDS: &[Field] = &[
    always(Kind::Structs(&[
        always(TEXT),
        always(Kind::Structs(&[always(INT32), always(INT64)])),
    ])),
    always(INT32),
];

const OFFSET_FOR_LEADER_EPOCH: &[Field] = &[
    since(3, INT32),
    always(Kind::Structs(&[
        always(TEXT),
        always(Kind::Structs(&[always(INT32), since(2, INT32), always(INT32)])),
    ])),
];

const DESCRIBE_CONFIGS: &[Field] = &[
    always(Kind::Structs(&[always(INT8), always(TEXT), always(TEXTS)])),
    since(1, BOOL),
    since(3, BOOL),
];

/// A filter and a rule have the same fields: resource type, name, pattern type, principal, host,
/// operation, permission.
const ACL_FILTER: &[Field] = &[
    always(INT8),
    always(TEXT),
    always(INT8),
    always(TEXT),
    always(TEXT),
    always(INT8),
    always(INT8),
];

const CREATE_ACLS: &[Field] = &[always(Kind::Structs(ACL_FILTER))];

const DELETE_ACLS: &[Field] = &[always(Kind::Structs(ACL_FILTER))];

const ALTER_CONFIGS: &[Field] = &[
    always(Kind::Structs(&[
        always(INT8),
        always(TEXT),
        always(Kind::Structs(&[always(TEXT), always(TEXT)])),
    ])),
    always(BOOL),
];

const INCREMENTAL_ALTER_CONFIGS: &[Field] = &[
    always(Kind::Structs(&[
        always(INT8),
        always(TEXT),
        always(Kind::Structs(&[always(TEXT), always(INT8), always(TEXT)])),
    ])),
    always(BOOL),
];

const DESCRIBE_PRODUCERS: &[Field] = &[always(Kind::Structs(&[always(TEXT), always(INT32S)]))];

const DESCRIBE_TRANSACTIONS: &[Field] = &[always(TEXTS)];

const LIST_TRANSACTIONS: &[Field] = &[
    always(TEXTS),
    always(Kind::Values(&INT64)),
    since(1, INT64),
    since(2, TEXT),
];

const OFFSET_DELETE: &[Field] = &[
    always(TEXT),
    always(Kind::Structs(&[
        always(TEXT),
        always(Kind::Structs(&[always(INT32)])),
    ])),
];

const CREATE_PARTITIONS: &[Field] = &[
    always(Kind::Structs(&[
        always(TEXT),
        always(INT32),
        always(Kind::Structs(&[always(INT32S)])),
    ])),
    always(INT32),
    always(BOOL),
];
