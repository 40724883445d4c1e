//! Which topics the members of a group read, from what they said when they joined.
//!
//! A member's metadata is its own affair, except that consumers begin theirs in one way: a version,
//! then the names of their topics. That beginning is the same in every version. It comes from the
//! network, so nothing is reserved for what it announces.
//!
//! Pure.

use std::collections::HashSet;

use bytes::{Buf, Bytes};
use kafka_protocol::error::ResponseError;

use super::group::{Group, State};

/// The protocol type of consumers, whose metadata can be read.
const CONSUMER: &str = "consumer";

/// The topics that live members read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Subscription {
    Topics(HashSet<Bytes>),
    /// It can not be told, so any topic is taken to be read.
    Unknown,
}

impl Subscription {
    pub(crate) fn covers(&self, topic: &str) -> bool {
        match self {
            Self::Topics(topics) => topics.contains(topic.as_bytes()),
            Self::Unknown => true,
        }
    }
}

impl Group {
    /// What the group's offsets are needed for. Those of a group that is at work, and not with the
    /// protocol of consumers, may not be touched.
    pub(crate) fn subscription(&self) -> Result<Subscription, ResponseError> {
        if self.state == State::Empty {
            return Ok(Subscription::Topics(HashSet::new()));
        }
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return Err(ResponseError::NonEmptyGroup);
        }
        let mut all = HashSet::new();
        for member in self.members.values() {
            let Some(topics) = topics(&member.metadata(self.protocol.as_deref())) else {
                return Ok(Subscription::Unknown);
            };
            all.extend(topics);
        }
        Ok(Subscription::Topics(all))
    }
}

/// The names of the topics at the beginning of a consumer's metadata.
fn topics(metadata: &Bytes) -> Option<HashSet<Bytes>> {
    let mut rest = metadata.clone();
    let _version = rest.try_get_i16().ok()?;
    let count = rest.try_get_i32().ok()?;
    let mut topics = HashSet::new();
    for _ in 0..count {
        let length = usize::try_from(rest.try_get_i16().ok()?).ok()?;
        if length > rest.len() {
            return None;
        }
        topics.insert(rest.split_to(length));
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::ConsumerProtocolSubscription;
    use kafka_protocol::protocol::{Encodable, StrBytes};

    use super::*;

    #[test]
    fn the_topics_of_each_version_of_the_metadata_are_read() {
        for version in 0..=3_i16 {
            let names = ["orders", "payments"].map(StrBytes::from_static_str);
            let subscription = ConsumerProtocolSubscription::default()
                .with_topics(names.to_vec())
                .with_user_data(Some(Bytes::from_static(b"more")));
            let mut metadata = BytesMut::from(&version.to_be_bytes()[..]);
            subscription.encode(&mut metadata, version).unwrap();
            let expected = ["orders", "payments"].map(|topic| Bytes::from_static(topic.as_bytes()));
            let metadata = metadata.freeze();
            assert_eq!(topics(&metadata), Some(expected.into()), "version {version}");
            for length in 0..metadata.len().min(20) {
                assert_eq!(topics(&metadata.slice(..length)), None, "cut at {length}");
            }
        }
    }

    #[test]
    fn topics_that_are_announced_and_not_there_are_not_known() {
        let read = |metadata: &'static [u8]| topics(&Bytes::from_static(metadata));
        assert_eq!(read(&[0, 0, 0x7f, 0xff, 0xff, 0xff]), None);
        assert_eq!(read(&[0, 0, 0, 0, 0, 1, 0xff, 0xff]), None);
        assert_eq!(read(&[0, 0, 0, 0, 0, 0]), Some(HashSet::new()));
    }
}
