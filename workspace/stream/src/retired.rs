//! Retry topics that the configuration does not name any more.
//!
//! Whoever takes a delay out of `stream.retry_delays` takes its topic away from the only reader that it has.
//! Orders that still wait there would wait for ever, so the worker does not start before somebody has
//! decided about them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::admin;
use crate::error::StreamError;
use crate::parking;
use crate::position::{Offset, Partition};
use crate::reader::with_records_from;
use crate::settings::KafkaSettings;

const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// Fails where the group has left records in a retry topic of these sources that is not among `known`.
pub(crate) async fn check(
    kafka: &KafkaSettings,
    service: &str,
    group: &str,
    sources: &[String],
    known: &[String],
) -> Result<(), StreamError> {
    let all = admin::topics(kafka, service).await?;
    let prefixes: Vec<String> = sources
        .iter()
        .map(|source| parking::retry_topic_prefix(source, group))
        .collect();
    let is_of_group = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()));
    for topic in all
        .keys()
        .filter(|name| is_of_group(name) && !known.contains(name))
    {
        let positions = admin::group_positions(kafka, group, std::slice::from_ref(topic)).await?;
        let mut behind: BTreeMap<Partition, Offset> = BTreeMap::new();
        for ((_, partition), position) in positions {
            if position.lag() > 0 {
                behind.insert(partition, position.committed.unwrap_or(position.start));
            }
        }
        let left = with_records_from(kafka, topic, &behind, IDLE_LIMIT).await?;
        if !left.is_empty() {
            let partitions: Vec<String> = left.iter().map(ToString::to_string).collect();
            return Err(StreamError::Config {
                message: format!(
                    "`stream.retry_delays` does not name the delay of `{topic}` any more, and records of group \
                     `{group}` wait there (partitions {}): put the delay back until they are taken, or delete \
                     the topic to give them up",
                    partitions.join(" ")
                ),
            });
        }
    }
    Ok(())
}
