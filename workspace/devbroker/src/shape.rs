//! A look over a request before it is decoded.
//!
//! The decoder reserves room for as many array elements as the request announces, so four hostile
//! bytes could make it ask for hundreds of gigabytes, which ends the process. Here every length of
//! a request is walked first: after [`check`] the announced elements are really there, and they are
//! not too many. The tables follow Kafka's message definitions; a test encodes every advertised
//! request with the real codec and checks that the walk ends exactly at its last byte.
//!
//! Pure.

use kafka_protocol::messages::ApiKey;

/// Elements that one request may have over all its arrays.
const MAX_ELEMENTS: u32 = 500_000;

/// Why a body is not the request that its header announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShapeError {
    #[error("it ends inside a field")]
    Truncated,
    #[error("a length or count is out of range")]
    Length,
    #[error("it has more than {MAX_ELEMENTS} elements")]
    TooManyElements,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
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
struct Field {
    from: i16,
    to: i16,
    kind: Kind,
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
struct Shape(i16, &'static [Field]);

fn shape(key: ApiKey) -> Option<Shape> {
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

/// Checks that `body` holds the lengths that it announces. Bytes after the last field are allowed,
/// as they are in Kafka.
pub(crate) fn check(key: ApiKey, version: i16, body: &[u8]) -> Result<(), ShapeError> {
    let Some(Shape(flexible_from, fields)) = shape(key) else {
        return Ok(());
    };
    let mut walk = Walk {
        rest: body,
        version,
        compact: version >= flexible_from,
        elements: 0,
    };
    walk.structure(fields)
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    compact: bool,
    elements: u32,
}

impl Walk<'_> {
    fn structure(&mut self, fields: &[Field]) -> Result<(), ShapeError> {
        for field in fields {
            if (field.from..=field.to).contains(&self.version) {
                self.value(&field.kind)?;
            }
        }
        if self.compact {
            self.tagged_fields()
        } else {
            Ok(())
        }
    }

    fn value(&mut self, kind: &Kind) -> Result<(), ShapeError> {
        match kind {
            Kind::Fixed(bytes) => self.skip(*bytes),
            Kind::Text => {
                let length = if self.compact {
                    self.compact_length()?
                } else {
                    self.short_length()?
                };
                self.skip(length)
            }
            Kind::Bytes => {
                let length = if self.compact {
                    self.compact_length()?
                } else {
                    self.long_length()?
                };
                self.skip(length)
            }
            Kind::Structs(fields) => {
                for _ in 0..self.element_count()? {
                    self.structure(fields)?;
                }
                Ok(())
            }
            Kind::Values(kind) => {
                for _ in 0..self.element_count()? {
                    self.value(kind)?;
                }
                Ok(())
            }
        }
    }

    fn tagged_fields(&mut self) -> Result<(), ShapeError> {
        let count = self.varint()?;
        for _ in 0..count {
            self.charge(1)?;
            self.varint()?;
            let length = self.varint()?;
            self.skip(length as usize)?;
        }
        Ok(())
    }

    fn element_count(&mut self) -> Result<usize, ShapeError> {
        let count = if self.compact {
            self.compact_length()?
        } else {
            self.long_length()?
        };
        self.charge(count)?;
        Ok(count)
    }

    fn charge(&mut self, elements: usize) -> Result<(), ShapeError> {
        let elements = u32::try_from(elements).map_err(|_| ShapeError::TooManyElements)?;
        self.elements = self.elements.saturating_add(elements);
        if self.elements > MAX_ELEMENTS {
            Err(ShapeError::TooManyElements)
        } else {
            Ok(())
        }
    }

    fn skip(&mut self, bytes: usize) -> Result<(), ShapeError> {
        self.rest = self.rest.get(bytes..).ok_or(ShapeError::Truncated)?;
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], ShapeError> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(ShapeError::Truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// Null counts as empty, here and below.
    fn short_length(&mut self) -> Result<usize, ShapeError> {
        match i16::from_be_bytes(self.take()?) {
            -1 => Ok(0),
            length => usize::try_from(length).map_err(|_| ShapeError::Length),
        }
    }

    fn long_length(&mut self) -> Result<usize, ShapeError> {
        match i32::from_be_bytes(self.take()?) {
            -1 => Ok(0),
            length => usize::try_from(length).map_err(|_| ShapeError::Length),
        }
    }

    fn compact_length(&mut self) -> Result<usize, ShapeError> {
        Ok((self.varint()? as usize).saturating_sub(1))
    }

    fn varint(&mut self) -> Result<u32, ShapeError> {
        let mut value = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.take::<1>()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| ShapeError::Length);
            }
        }
        Err(ShapeError::Length)
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::Decodable;
    use proptest::prelude::*;

    use super::*;
    use crate::samples;
    use crate::versions::SUPPORTED;

    fn every_request() -> Vec<(ApiKey, i16)> {
        SUPPORTED
            .iter()
            .flat_map(|api| (api.min..=api.max).map(|version| (api.key, version)))
            .collect()
    }

    #[test]
    fn the_walk_ends_exactly_where_the_codec_ends() {
        for (key, version) in every_request() {
            let body = samples::request(key, version);
            let Shape(flexible_from, fields) = shape(key).unwrap();
            let mut walk = Walk {
                rest: &body,
                version,
                compact: version >= flexible_from,
                elements: 0,
            };
            assert_eq!(walk.structure(fields), Ok(()), "{key:?} {version}");
            assert!(
                walk.rest.is_empty(),
                "{key:?} {version}: {} bytes left",
                walk.rest.len()
            );
            for length in 0..body.len() {
                assert!(
                    check(key, version, &body[..length]).is_err(),
                    "{key:?} {version} cut at {length}"
                );
            }
        }
    }

    #[test]
    fn an_announced_array_that_is_not_there_is_refused() {
        // Metadata version 1: an array of 2,147,483,647 topics, and nothing behind it.
        assert_eq!(
            check(ApiKey::Metadata, 1, &i32::MAX.to_be_bytes()),
            Err(ShapeError::TooManyElements)
        );
        assert_eq!(
            check(ApiKey::Metadata, 1, &400_000_i32.to_be_bytes()),
            Err(ShapeError::Truncated)
        );
        assert_eq!(
            check(ApiKey::Metadata, 1, &(-2_i32).to_be_bytes()),
            Err(ShapeError::Length)
        );
        // Metadata version 9: the same as a varint.
        assert_eq!(
            check(ApiKey::Metadata, 9, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            Err(ShapeError::TooManyElements)
        );
        assert_eq!(check(ApiKey::Metadata, 9, &[0xff; 9]), Err(ShapeError::Length));
    }

    /// Decodes with the codec what the walk let through. Memory and panics are what is tested.
    fn decode(key: ApiKey, version: i16, body: &[u8]) {
        if check(key, version, body).is_err() {
            return;
        }
        let mut bytes = bytes::Bytes::copy_from_slice(body);
        use kafka_protocol::messages::*;
        let decoded = match key {
            ApiKey::Produce => ProduceRequest::decode(&mut bytes, version).map(drop),
            ApiKey::Fetch => FetchRequest::decode(&mut bytes, version).map(drop),
            ApiKey::ListOffsets => ListOffsetsRequest::decode(&mut bytes, version).map(drop),
            ApiKey::Metadata => MetadataRequest::decode(&mut bytes, version).map(drop),
            ApiKey::OffsetCommit => OffsetCommitRequest::decode(&mut bytes, version).map(drop),
            ApiKey::OffsetFetch => OffsetFetchRequest::decode(&mut bytes, version).map(drop),
            ApiKey::JoinGroup => JoinGroupRequest::decode(&mut bytes, version).map(drop),
            ApiKey::SyncGroup => SyncGroupRequest::decode(&mut bytes, version).map(drop),
            ApiKey::LeaveGroup => LeaveGroupRequest::decode(&mut bytes, version).map(drop),
            ApiKey::CreateTopics => CreateTopicsRequest::decode(&mut bytes, version).map(drop),
            ApiKey::CreatePartitions => CreatePartitionsRequest::decode(&mut bytes, version).map(drop),
            ApiKey::DescribeConfigs => DescribeConfigsRequest::decode(&mut bytes, version).map(drop),
            ApiKey::CreateAcls => CreateAclsRequest::decode(&mut bytes, version).map(drop),
            ApiKey::DeleteAcls => DeleteAclsRequest::decode(&mut bytes, version).map(drop),
            ApiKey::SaslAuthenticate => SaslAuthenticateRequest::decode(&mut bytes, version).map(drop),
            ApiKey::AlterConfigs => AlterConfigsRequest::decode(&mut bytes, version).map(drop),
            ApiKey::IncrementalAlterConfigs => {
                IncrementalAlterConfigsRequest::decode(&mut bytes, version).map(drop)
            }
            ApiKey::DescribeProducers => DescribeProducersRequest::decode(&mut bytes, version).map(drop),
            ApiKey::DescribeTransactions => {
                DescribeTransactionsRequest::decode(&mut bytes, version).map(drop)
            }
            ApiKey::ListTransactions => ListTransactionsRequest::decode(&mut bytes, version).map(drop),
            ApiKey::OffsetDelete => OffsetDeleteRequest::decode(&mut bytes, version).map(drop),
            _ => RequestHeader::decode(&mut bytes, 2).map(drop),
        };
        drop(decoded);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn damaged_requests_neither_panic_nor_ask_for_much_memory(
            pick in any::<prop::sample::Index>(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let (key, version) = *pick.get(&every_request());
            let mut body = samples::request(key, version).to_vec();
            prop_assume!(!body.is_empty());
            for (place, byte) in damage {
                *place.get_mut(&mut body) = byte;
            }
            decode(key, version, &body);
        }

        #[test]
        fn random_bytes_neither_panic_nor_ask_for_much_memory(
            pick in any::<prop::sample::Index>(),
            body in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let (key, version) = *pick.get(&every_request());
            decode(key, version, &body);
        }
    }
}
