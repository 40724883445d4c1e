//! Publishing with an answer per record: what the intake needs.
//!
//! A record counts as published when all in-sync replicas have it. Producing is idempotent, so a retry
//! inside of the client never doubles a record.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::error::StreamError;
use crate::ffi::{DeliveryReport, Outgoing, ProduceError, Producer, Topic};
use crate::position::{Offset, Partition};
use crate::settings::KafkaSettings;

/// How often a full local queue is tried again; the client empties it as the broker acknowledges.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);
/// The longest step of the thread that serves delivery reports.
const POLL_STEP: Duration = Duration::from_millis(100);

/// A record to publish. Its partition follows from its key.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// Where it goes.
    pub topic: &'a str,
    /// Records of one key keep their order.
    pub key: &'a [u8],
    /// The content.
    pub value: &'a [u8],
    /// Names and contents of its headers.
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// Where a published record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// The partition that its key chose.
    pub partition: Partition,
    /// Its offset there.
    pub offset: Offset,
}

/// Becomes ready when the broker has acknowledged the record, or refused it for good.
pub struct Delivery {
    topic: String,
    report: oneshot::Receiver<DeliveryReport>,
}

impl Future for Delivery {
    type Output = Result<Acknowledged, StreamError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(report) = Pin::new(&mut self.report).poll(context) else {
            return Poll::Pending;
        };
        let lost = |cause: String| StreamError::Delivery {
            topic: self.topic.clone(),
            failed: 1,
            cause,
        };
        Poll::Ready(match report {
            Ok(Ok(at)) => Ok(Acknowledged {
                partition: at.partition,
                offset: at.offset,
            }),
            Ok(Err((code, message))) => Err(lost(format!("{message} ({code})"))),
            Err(_) => Err(lost(
                "the producer was closed before the broker answered".to_owned(),
            )),
        })
    }
}

struct Inner {
    producer: Producer,
    topics: Mutex<HashMap<String, Topic>>,
    closed: AtomicBool,
}

/// An idempotent producer that answers for every record. Clones share one connection.
#[derive(Clone)]
pub struct Publisher {
    inner: Arc<Inner>,
    /// Ends the polling thread with the last clone.
    _closer: Arc<Closer>,
}

struct Closer(Arc<Inner>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
    }
}

impl Publisher {
    /// Opens the connection; `service` names this client to the brokers.
    ///
    /// # Errors
    /// When the client refuses the settings. That brokers answer is asked by
    /// [`crate::admin::connect`].
    pub fn connect(settings: &KafkaSettings, service: &str) -> Result<Self, StreamError> {
        let mut properties = settings.properties(service);
        properties.extend(settings.producer_properties());
        let producer = Producer::open(&settings.brokers, &properties, true)?;
        let inner = Arc::new(Inner {
            producer,
            topics: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let polling = Arc::clone(&inner);
        let spawned = std::thread::Builder::new()
            .name("kafka-reports".to_owned())
            .spawn(move || {
                while !polling.closed.load(Ordering::Acquire) {
                    polling.producer.poll(POLL_STEP);
                }
            });
        spawned.map_err(|error| StreamError::Client {
            what: "starting the thread that serves delivery reports".to_owned(),
            cause: error.to_string(),
            retriable: false,
        })?;
        let closer = Arc::new(Closer(Arc::clone(&inner)));
        Ok(Self {
            inner,
            _closer: closer,
        })
    }

    /// Queues a record, and waits while the local queue is full. The returned future tells when the
    /// record is safe; dropping it does not take the record back.
    ///
    /// # Errors
    /// When this record will never be taken, for example because it is too large.
    pub async fn send(&self, record: NewRecord<'_>) -> Result<Delivery, StreamError> {
        let topic = self.topic(record.topic)?;
        loop {
            let (answer, report) = oneshot::channel();
            let outgoing = Outgoing {
                topic: &topic,
                partition: None,
                key: Some(record.key),
                value: Some(record.value),
                headers: record.headers,
            };
            let waiting = Box::new(move |outcome: DeliveryReport| {
                // Whoever asked may have gone away; the record is delivered all the same.
                let _heard = answer.send(outcome).is_ok();
            });
            match self.inner.producer.produce(&outgoing, Some(waiting)) {
                Ok(()) => {
                    return Ok(Delivery {
                        topic: record.topic.to_owned(),
                        report,
                    });
                }
                Err(ProduceError::QueueFull) => tokio::time::sleep(QUEUE_FULL_PAUSE).await,
                Err(ProduceError::Refused { code, message }) => {
                    let cause = format!("{message} ({code})");
                    return Err(StreamError::Delivery {
                        topic: record.topic.to_owned(),
                        failed: 1,
                        cause,
                    });
                }
            }
        }
    }

    fn topic(&self, name: &str) -> Result<Topic, StreamError> {
        let mut topics = self.inner.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.get(name) {
            return Ok(topic.clone());
        }
        let topic = self.inner.producer.topic(name)?;
        topics.insert(name.to_owned(), topic.clone());
        Ok(topic)
    }

    /// Waits until everything that was queued is acknowledged or refused.
    ///
    /// # Errors
    /// When the deadline passes first; the cause is what the client saw last.
    pub async fn flush(&self, deadline: Duration) -> Result<(), StreamError> {
        let inner = Arc::clone(&self.inner);
        let flushed = tokio::task::spawn_blocking(move || {
            let end = Instant::now() + deadline;
            inner.producer.flush(|| end, || ())
        })
        .await;
        flushed.unwrap_or_else(|error| {
            Err(StreamError::Client {
                what: "flushing".to_owned(),
                cause: error.to_string(),
                retriable: false,
            })
        })
    }

    /// Records that are queued or on their way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.inner.producer.in_flight()
    }

    /// What the connection complained about last.
    #[must_use]
    pub fn last_error(&self) -> Option<StreamError> {
        self.inner.producer.last_error()
    }
}
