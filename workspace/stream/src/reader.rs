//! Reading a topic to its end, without a group: for counts, verdicts and the report.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::admin;
use crate::error::StreamError;
use crate::ffi::Consumer;
use crate::position::{Offset, Partition, StartAt, TopicIndex, TopicPartition};
use crate::record::Record;
use crate::settings::{KafkaSettings, StreamSettings};
use crate::source::{Entry, Source};

const READ_STEP: Duration = Duration::from_millis(200);
const BATCH: usize = 10_000;

/// Reads every committed record that is in the topic now, each once, those of a partition in order. Returns
/// how many there were; a topic that does not exist has none.
///
/// # Errors
/// When the cluster refuses, or when nothing comes for `idle_limit` before the end is reached.
pub async fn read_to_end(
    settings: &KafkaSettings,
    topic: &str,
    idle_limit: Duration,
    mut each: impl FnMut(&Record<'_>) + Send + 'static,
) -> Result<u64, StreamError> {
    let Some(partitions) = admin::topics(settings, "reader").await?.get(topic).copied() else {
        return Ok(0);
    };
    let starts = (0..partitions).map(|partition| (Partition(partition), StartAt::Earliest));
    let each = move |record: &Record<'_>| {
        each(record);
        ControlFlow::Continue(())
    };
    read(settings, topic, starts.collect(), idle_limit, each).await
}

/// Which of these partitions have a committed record at this offset or behind it now. Markers, aborted and
/// compacted records, which nobody is given to read, are none.
///
/// # Errors
/// As for [`read_to_end`].
pub async fn with_records_from(
    settings: &KafkaSettings,
    topic: &str,
    starts: Vec<(Partition, Offset)>,
    idle_limit: Duration,
) -> Result<BTreeSet<Partition>, StreamError> {
    let (found, finds) = mpsc::sync_channel(starts.len());
    let starts = starts
        .into_iter()
        .map(|(partition, from)| (partition, StartAt::Offset(from)));
    let first_alone = move |record: &Record<'_>| {
        // There is room: each partition is told once, and then broken off.
        let _told = found.try_send(record.at.partition).is_ok();
        ControlFlow::Break(())
    };
    read(settings, topic, starts.collect(), idle_limit, first_alone).await?;
    Ok(finds.try_iter().collect())
}

/// Reads partitions from where they start to their ends, or until `each` breaks off the one of its record.
/// Returns how many records there were.
async fn read(
    settings: &KafkaSettings,
    topic: &str,
    starts: Vec<(Partition, StartAt)>,
    idle_limit: Duration,
    mut each: impl FnMut(&Record<'_>) -> ControlFlow<()> + Send + 'static,
) -> Result<u64, StreamError> {
    let mut properties = settings.properties("reader");
    let stream = StreamSettings {
        prefetch_kbytes: 16_384,
        ..StreamSettings::default()
    };
    properties.extend(stream.consumer_properties("orderflow-reader"));
    // An empty partition says that it has ended when the wait is over.
    properties.push(("fetch.wait.max.ms".to_owned(), "10".to_owned()));
    // Harmless here: this reader neither pauses nor shares its partitions.
    properties.push(("enable.partition.eof".to_owned(), "true".to_owned()));
    let (brokers, topic) = (settings.brokers.clone(), topic.to_owned());
    let read = tokio::task::spawn_blocking(move || {
        let mut consumer = Consumer::open(
            &brokers,
            "orderflow-reader",
            &properties,
            std::slice::from_ref(&topic),
        )?;
        let topic_index = TopicIndex(0);
        let starts: Vec<_> = starts
            .into_iter()
            .map(|(partition, start)| {
                (
                    TopicPartition {
                        topic: topic_index,
                        partition,
                    },
                    start,
                )
            })
            .collect();
        let mut unfinished: BTreeSet<TopicPartition> = starts.iter().map(|(at, _)| *at).collect();
        consumer.assign(&starts)?;
        let (mut count, mut heard) = (0, Instant::now());
        // The client may go back by itself, to an answer about offsets that has become outdated.
        let mut next: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
        while !unfinished.is_empty() {
            let batch = consumer.read(READ_STEP, BATCH);
            for entry in consumer.entries(&batch) {
                match entry {
                    Entry::Record(record) if unfinished.contains(&record.at) => {
                        heard = Instant::now();
                        if next.get(&record.at).is_some_and(|next| record.offset < *next) {
                            continue;
                        }
                        next.insert(record.at, record.offset.next());
                        count += 1;
                        if each(&record).is_break() {
                            unfinished.remove(&record.at);
                        }
                    }
                    Entry::Record(_) => {}
                    Entry::EndOfPartition(at, _) => {
                        heard = Instant::now();
                        unfinished.remove(&at);
                    }
                    Entry::Error(_, error) if error.is_retriable() => {
                        tracing::debug!(%error, "reading a topic")
                    }
                    Entry::Error(_, error) => return Err(error),
                }
            }
            if heard.elapsed() > idle_limit {
                return Err(StreamError::Timeout {
                    what: format!("reading topic `{topic}` to its end"),
                    limit_ms: idle_limit.as_millis(),
                    cause: consumer
                        .take_complaint()
                        .map_or_else(|| "nothing came".to_owned(), |error| error.to_string()),
                });
            }
        }
        if let Err(error) = consumer.close(Duration::from_secs(3)) {
            tracing::debug!(%error, "closing a reader that has read everything");
        }
        Ok(count)
    });
    read.await.unwrap_or_else(|error| {
        Err(StreamError::Client {
            what: "reading a topic".to_owned(),
            cause: error.to_string(),
            retriable: false,
        })
    })
}
