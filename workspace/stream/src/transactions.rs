//! Publishing records of several topics all at once or not at all: what the operator's command needs.
//!
//! A publisher has a transactional id, and whoever opens one with the same id ends what the other left open
//! and shuts it out. So of two that are given one id only the later one goes on, and what the earlier one had
//! committed is committed before the later one is open.
//!
//! After an error nobody may go on with a publisher, for a late request could end a later transaction
//! (`ffi::transaction`): publishing takes it and gives it back only when all is well. What was in the
//! transaction then counts for nothing, or as a whole, which the topics tell.
//!
//! Everything here blocks its thread.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::error::StreamError;
use crate::ffi::{Outgoing, ProduceError, Producer, Topic, TransactionError, Verdict};
use crate::position::Partition;
use crate::settings::{KafkaSettings, transaction_properties};

/// One step of opening may take so long; it is repeated.
const OPEN_STEP: Duration = Duration::from_secs(3);
/// Everything of a transaction may take so long together, which is less than its time-out.
const PUBLISH_LIMIT: Duration = Duration::from_secs(9);
const AGAIN_PAUSE: Duration = Duration::from_millis(5);
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(20);

/// A record to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedRecord {
    /// Where it goes.
    pub topic: String,
    /// In which partition; `None` lets the key decide.
    pub partition: Option<Partition>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// The content.
    pub value: Option<Vec<u8>>,
    /// Names and contents of its headers.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl PlacedRecord {
    /// Bytes of key, value and headers.
    #[must_use]
    pub fn size(&self) -> usize {
        let bytes = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        let headers = self.headers.iter();
        let in_headers: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
        bytes(&self.key) + bytes(&self.value) + in_headers
    }
}

/// Publishes in transactions.
pub struct TransactionalPublisher {
    producer: Producer,
    topics: HashMap<String, Topic>,
    id: String,
}

impl TransactionalPublisher {
    /// Opens a publisher with this transactional id, within `limit`.
    ///
    /// # Errors
    /// When the brokers do not answer in time, or do not let us have the id.
    pub fn open(
        settings: &KafkaSettings,
        service: &str,
        id: &str,
        limit: Duration,
    ) -> Result<Self, StreamError> {
        let mut properties = settings.properties(service);
        properties.extend(settings.producer_properties());
        properties.extend(transaction_properties(id));
        let publisher = Self {
            producer: Producer::open(&settings.brokers, &properties, false)?,
            topics: HashMap::new(),
            id: id.to_owned(),
        };
        let started = Instant::now();
        loop {
            match publisher.producer.init_transactions(OPEN_STEP) {
                Ok(()) => return Ok(publisher),
                // The call itself goes on after a time-out, and is only asked again.
                Err(failed)
                    if started.elapsed() < limit
                        && matches!(
                            failed.verdict,
                            Verdict::Again | Verdict::Indefinite | Verdict::Abort
                        ) =>
                {
                    std::thread::park_timeout(AGAIN_PAUSE);
                }
                Err(failed) => return Err(publisher.in_our_words(failed)),
            }
        }
    }

    /// Publishes all of these records, and returns when they count.
    ///
    /// # Errors
    /// When they count for nothing, or when nobody knows whether they count.
    pub fn publish(mut self, records: &[PlacedRecord]) -> Result<Self, StreamError> {
        let end = Instant::now() + PUBLISH_LIMIT;
        self.call(end, |producer, _| producer.begin_transaction())
            .map_err(|failed| self.in_our_words(failed))?;
        if let Err(error) = self.send(records, end) {
            // Whoever was shut out hears it in the answer to this.
            return Err(match self.abort() {
                Err(failed) if failed.verdict == Verdict::Fenced => self.in_our_words(failed),
                _ => error,
            });
        }
        match self.call(end, Producer::commit_transaction) {
            Ok(()) => Ok(self),
            Err(failed) => {
                if failed.verdict == Verdict::Abort
                    && let Err(aborting) = self.abort()
                {
                    tracing::debug!(error = %aborting.error, "aborting a transaction");
                }
                Err(self.in_our_words(failed))
            }
        }
    }

    fn send(&mut self, records: &[PlacedRecord], end: Instant) -> Result<(), StreamError> {
        for record in records {
            let topic = match self.topics.get(&record.topic) {
                Some(topic) => topic.clone(),
                None => {
                    let topic = self.producer.topic(&record.topic)?;
                    self.topics.insert(record.topic.clone(), topic.clone());
                    topic
                }
            };
            let headers: Vec<(&str, &[u8])> = record
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_slice()))
                .collect();
            let outgoing = Outgoing {
                topic: &topic,
                partition: record.partition,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &headers,
            };
            let refused = |cause| StreamError::Delivery {
                topic: record.topic.clone(),
                failed: 1,
                cause,
            };
            loop {
                match self.producer.produce(&outgoing, None) {
                    Ok(()) => break,
                    Err(ProduceError::QueueFull) if Instant::now() < end => {
                        self.producer.poll(QUEUE_FULL_PAUSE);
                    }
                    Err(ProduceError::QueueFull) => {
                        return Err(refused("the local queue is full".to_owned()));
                    }
                    Err(ProduceError::Refused { code, message }) => {
                        return Err(refused(format!("{message} ({code})")));
                    }
                }
            }
        }
        let flushed = self.producer.flush(|| end, || ());
        // Why a record was not delivered says more than that one was not.
        self.producer.take_failures().and(flushed)
    }

    fn abort(&self) -> Result<(), TransactionError> {
        self.call(Instant::now() + OPEN_STEP, Producer::abort_transaction)
    }

    /// Makes a transactional call until it succeeds or fails for good.
    fn call(
        &self,
        end: Instant,
        call: impl Fn(&Producer, Duration) -> Result<(), TransactionError>,
    ) -> Result<(), TransactionError> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match call(&self.producer, left) {
                Err(failed) if failed.verdict == Verdict::Again && !left.is_zero() => {
                    std::thread::park_timeout(AGAIN_PAUSE);
                }
                result => return result,
            }
        }
    }

    fn in_our_words(&self, failed: TransactionError) -> StreamError {
        match failed.verdict {
            Verdict::Fenced => StreamError::Fenced {
                id: self.id.clone(),
                cause: failed.error.to_string(),
            },
            _ => failed.error,
        }
    }
}
