//! Reading a topic from its start to its end, without a group: for counts, verdicts and the report.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
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
    let ends = (0..partitions).map(|partition| (Partition(partition), Offset(i64::MAX)));
    let each = move |record: &Record<'_>| {
        each(record);
        ControlFlow::Continue(())
    };
    read_until(settings, topic, &ends.collect(), idle_limit, each).await
}

/// Reads as [`read_to_end`] does, but these partitions alone, no record at its offset here or behind it,
/// and no further than `each` says. `each` may take its time: the reader is no member of a group.
///
/// # Errors
/// As [`read_to_end`].
pub async fn read_until(
    settings: &KafkaSettings,
    topic: &str,
    ends: &BTreeMap<Partition, Offset>,
    idle_limit: Duration,
    mut each: impl FnMut(&Record<'_>) -> ControlFlow<()> + Send + 'static,
) -> Result<u64, StreamError> {
    if ends.is_empty() {
        return Ok(0);
    }
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
    let (brokers, topic, ends) = (settings.brokers.clone(), topic.to_owned(), ends.clone());
    let read = tokio::task::spawn_blocking(move || {
        let mut consumer = Consumer::open(
            &brokers,
            "orderflow-reader",
            &properties,
            std::slice::from_ref(&topic),
        )?;
        let at = |partition| TopicPartition {
            topic: TopicIndex(0),
            partition,
        };
        let end_of = |at: TopicPartition| ends.get(&at.partition).copied().unwrap_or(Offset(0));
        let mut unfinished: BTreeSet<TopicPartition> = ends.keys().copied().map(at).collect();
        let starts: Vec<_> = unfinished.iter().map(|at| (*at, StartAt::Earliest)).collect();
        consumer.assign(&starts)?;
        let (mut count, mut heard) = (0, Instant::now());
        // The client may go back by itself, to an answer about offsets that has become outdated.
        let mut next: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
        'reading: while !unfinished.is_empty() {
            let batch = consumer.read(READ_STEP, BATCH);
            for entry in consumer.entries(&batch) {
                match entry {
                    Entry::Record(record) if unfinished.contains(&record.at) => {
                        heard = Instant::now();
                        if next.get(&record.at).is_some_and(|next| record.offset < *next) {
                            continue;
                        }
                        next.insert(record.at, record.offset.next());
                        let end = end_of(record.at);
                        if record.offset < end {
                            count += 1;
                            if each(&record).is_break() {
                                break 'reading;
                            }
                            heard = Instant::now();
                        }
                        if record.offset.next() >= end {
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
            tracing::debug!(%error, "closing a reader");
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
