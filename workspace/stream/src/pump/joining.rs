//! Whether a pump becomes a member of its group.
//!
//! With the group protocol `consumer` the client asks a coordinator that does not serve it again and again,
//! and tells nobody (librdkafka 2.12, `rd_kafka_ConsumerGroupHeartbeatRequest`). A coordinator that answers
//! other questions, and of whose group this pump is no member for long, is taken for one of those.

use std::time::{Duration, Instant};

use super::{COMMITTED_TIMEOUT, Pump};
use crate::error::StreamError;
use crate::position::{Partition, TopicIndex, TopicPartition};
use crate::settings::GroupProtocol;
use crate::source::Source;
use crate::stage::Stage;

/// A member is in its group after two or three requests.
const JOIN_LIMIT: Duration = Duration::from_secs(15);

impl<S: Source, G: Stage> Pump<S, G> {
    /// The subscription is there: the group has to take this pump in.
    pub(super) fn begin_to_join(&mut self) {
        let is_silent = self.parts.settings.group_protocol == GroupProtocol::Consumer;
        self.joining_since = is_silent.then(Instant::now);
    }

    pub(super) fn watch_joining(&mut self) -> Result<(), StreamError> {
        let Some(since) = self.joining_since else {
            return Ok(());
        };
        if self.source.group_offsets(&[])?.are_of_a_member() {
            self.joining_since = None;
            return Ok(());
        }
        if since.elapsed() < JOIN_LIMIT {
            return Ok(());
        }
        let first = TopicPartition {
            topic: TopicIndex(0),
            partition: Partition(0),
        };
        match self.source.committed(&[first], COMMITTED_TIMEOUT) {
            Ok(_) => Err(StreamError::GroupProtocol {
                group: self.parts.unit.group.clone(),
                cause: format!(
                    "the coordinator answers, and has not taken this member in for {} s",
                    JOIN_LIMIT.as_secs()
                ),
            }),
            Err(error) => {
                tracing::debug!(%error, "no member of the group yet");
                self.joining_since = Some(Instant::now());
                Ok(())
            }
        }
    }
}
