//! Where topics begin and end, and where groups stand, told as it is: an open transaction is seen and not
//! waited for. For verdicts; a worker knows its own offsets from its ledger.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::time::Duration;

use crate::admin;
use crate::error::StreamError;
use crate::ffi::{End, Inquirer};
use crate::position::{Offset, Partition};
use crate::settings::KafkaSettings;

const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// A partition by its topic's name.
pub type NamedPartition = (String, Partition);

/// The offsets between which the records of a partition are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionEnds {
    /// The oldest offset that is there.
    pub begin: Offset,
    /// Where the oldest open transaction begins; the end where none is open.
    pub last_stable: Offset,
    /// The offset after the newest record.
    pub end: Offset,
}

/// What a group has committed in a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupOffset {
    /// The next offset to read, where it has committed any.
    pub next: Option<Offset>,
    /// Whether an open transaction is about to move it.
    pub unstable: bool,
}

/// The ends of all partitions of these topics; topics that do not exist are left out.
///
/// # Errors
/// When the cluster does not answer in time or does not let us.
pub async fn partition_ends(
    settings: &KafkaSettings,
    service: &str,
    topics: &[String],
) -> Result<BTreeMap<NamedPartition, PartitionEnds>, StreamError> {
    let places = places(settings, service, topics).await?;
    let properties = settings.properties(service);
    ask(move || {
        let inquirer = Inquirer::open(&properties)?;
        let mut all = BTreeMap::<NamedPartition, [Option<i64>; 3]>::new();
        // In this order a partition that grows meanwhile has no open transaction that is none.
        for (place, end) in [End::First, End::OfAll, End::OfCommitted].into_iter().enumerate() {
            for (topic, partition, offset) in inquirer.ends(&places, end, ASK_TIMEOUT)? {
                let found = all.entry(named(topic, partition)).or_default();
                if let Some(slot) = found.get_mut(place) {
                    *slot = Some(offset);
                }
            }
        }
        let whole = all.into_iter().filter_map(|(at, found)| match found {
            [Some(begin), Some(end), Some(last_stable)] => {
                let ends = PartitionEnds {
                    begin: Offset(begin),
                    last_stable: Offset(last_stable),
                    end: Offset(end.max(last_stable)),
                };
                Some((at, ends))
            }
            _ => None,
        });
        let whole: BTreeMap<NamedPartition, PartitionEnds> = whole.collect();
        if whole.len() == places.len() {
            return Ok(whole);
        }
        Err(StreamError::Client {
            what: "asking for the ends of partitions".to_owned(),
            cause: format!("{} of {} answered", whole.len(), places.len()),
            retriable: true,
        })
    })
    .await
}

/// What a group has committed in the partitions of these topics; topics that do not exist are left out.
///
/// # Errors
/// When the cluster does not answer in time or does not let us.
pub async fn group_offsets(
    settings: &KafkaSettings,
    service: &str,
    group: &str,
    topics: &[String],
) -> Result<BTreeMap<NamedPartition, GroupOffset>, StreamError> {
    let places = places(settings, service, topics).await?;
    let properties = settings.properties(service);
    let group = group.to_owned();
    ask(move || {
        if places.is_empty() {
            return Ok(BTreeMap::new());
        }
        let inquirer = Inquirer::open(&properties)?;
        let mut all: BTreeMap<NamedPartition, GroupOffset> = places
            .iter()
            .map(|(topic, partition)| (named(topic.clone(), *partition), GroupOffset::default()))
            .collect();
        for ((topic, partition), offset) in inquirer.committed(&group, &places, ASK_TIMEOUT)? {
            all.entry(named(topic, partition)).or_default().next = Some(Offset(offset));
        }
        for (topic, partition) in inquirer.unstable(&group, &places, ASK_TIMEOUT)? {
            all.entry(named(topic, partition)).or_default().unstable = true;
        }
        Ok(all)
    })
    .await
}

async fn places(
    settings: &KafkaSettings,
    service: &str,
    topics: &[String],
) -> Result<Vec<(CString, i32)>, StreamError> {
    let there = admin::topics(settings, service).await?;
    let mut places = Vec::new();
    for (topic, count) in there.iter().filter(|(topic, _)| topics.contains(topic)) {
        let name = CString::new(topic.as_str()).map_err(|_| StreamError::Config {
            message: format!("the topic name `{topic}` contains a zero byte"),
        })?;
        places.extend((0..*count).map(|partition| (name.clone(), partition)));
    }
    Ok(places)
}

fn named(topic: CString, partition: i32) -> NamedPartition {
    (topic.to_string_lossy().into_owned(), Partition(partition))
}

async fn ask<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StreamError> + Send + 'static,
) -> Result<T, StreamError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(StreamError::Client {
            what: "asking for offsets".to_owned(),
            cause: error.to_string(),
            retriable: false,
        })
    })
}
