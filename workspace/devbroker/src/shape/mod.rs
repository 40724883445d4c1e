//! A look over a request before it is decoded.
//!
//! The decoder reserves room for as many array elements as the request announces, so four hostile
//! bytes could make it ask for hundreds of gigabytes, which ends the process. Here every length of
//! a request is walked first: after [`check`] the announced elements are really there, and they are
//! not too many. A test encodes every advertised request with the real codec and checks that the walk
//! ends exactly at its last byte.
//!
//! - `tables`: the fields of each request.
//!
//! Pure.

mod tables;

use kafka_protocol::messages::ApiKey;

use tables::{Field, Kind, Shape, shape};

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
