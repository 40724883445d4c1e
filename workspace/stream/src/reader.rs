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
    let whole = (0..partitions).map(|partition| (Partition(partition), Span::default()));
    let each = move |record: &Record<'_>| {
        each(record);
        Next::GoOn
    };
    read(settings, topic, whole.collect(), idle_limit, each).await
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
    let spans = ends.iter().map(|(partition, end)| {
        let span = Span {
            end: *end,
            ..Span::default()
        };
        (*partition, span)
    });
    let each = move |record: &Record<'_>| match each(record) {
        ControlFlow::Continue(()) => Next::GoOn,
        ControlFlow::Break(()) => Next::Stop,
    };
    read(settings, topic, spans.collect(), idle_limit, each).await
}

/// Which of these partitions have a committed record at this offset or behind it now. Markers, aborted and
/// compacted records, which nobody is given to read, are none.
///
/// # Errors
/// As [`read_to_end`].
pub async fn with_records_from(
    settings: &KafkaSettings,
    topic: &str,
    starts: &BTreeMap<Partition, Offset>,
    idle_limit: Duration,
) -> Result<BTreeSet<Partition>, StreamError> {
    let (found, finds) = mpsc::sync_channel(starts.len());
    let spans = starts.iter().map(|(partition, start)| {
        let span = Span {
            start: StartAt::Offset(*start),
            ..Span::default()
        };
        (*partition, span)
    });
    let first_alone = move |record: &Record<'_>| {
        // There is room: each partition is told once, and then left.
        let _told = found.try_send(record.at.partition).is_ok();
        Next::LeavePartition
    };
    read(settings, topic, spans.collect(), idle_limit, first_alone).await?;
    Ok(finds.try_iter().collect())
}

/// What is read of a partition: from the start to the end that is there now, or to before this one.
#[derive(Clone, Copy)]
struct Span {
    start: StartAt,
    end: Offset,
}

impl Default for Span {
    fn default() -> Self {
        Self {
            start: StartAt::Earliest,
            end: Offset(i64::MAX),
        }
    }
}

/// What is read after a record.
enum Next {
    GoOn,
    LeavePartition,
    Stop,
}

async fn read(
    settings: &KafkaSettings,
    topic: &str,
    spans: BTreeMap<Partition, Span>,
    idle_limit: Duration,
    mut each: impl FnMut(&Record<'_>) -> Next + Send + 'static,
) -> Result<u64, StreamError> {
    if spans.is_empty() {
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
    let (brokers, topic) = (settings.brokers.clone(), topic.to_owned());
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
        let end_of = |at: TopicPartition| spans.get(&at.partition).map_or(Offset(0), |span| span.end);
        let mut unfinished: BTreeSet<TopicPartition> = spans.keys().copied().map(at).collect();
        let starts: Vec<_> = spans
            .iter()
            .map(|(partition, span)| (at(*partition), span.start))
            .collect();
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
                        let mut is_over = record.offset.next() >= end;
                        if record.offset < end {
                            count += 1;
                            match each(&record) {
                                Next::GoOn => {}
                                Next::LeavePartition => is_over = true,
                                Next::Stop => break 'reading,
                            }
                            heard = Instant::now();
                        }
                        if is_over {
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
