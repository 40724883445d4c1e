//! Sends the orders of a run.
//!
//! The pace is even, and falls towards the end while faults are still to come: the last orders must not
//! be through before the last fault has met work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;

use crate::orders::Sent;

/// The pace: slow enough for faults to fall into the middle of the work, on two cores too.
const ORDERS_PER_S: f64 = 250.0;
/// While faults are to come, what is left to send always lasts for so long at the present pace.
const RESERVE_S: f64 = 8.0;
const STEP: Duration = Duration::from_millis(100);
/// A broker that is away for so long makes the run fail.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Clone, Default)]
struct Delivered {
    acknowledged: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = match result {
            Ok(_) => &self.acknowledged,
            Err((error, record)) => {
                let key = String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned();
                eprintln!("chaos: the record `{key}` was not delivered: {error}");
                &self.failed
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the sender is told while it sends.
#[derive(Debug, Default)]
pub struct Cues {
    /// No fault waits for work any more.
    pub faults_done: AtomicBool,
    /// The run is over.
    pub stop: AtomicBool,
}

/// Orders per second, with so many left to send.
fn pace(left: usize, faults_to_come: bool) -> f64 {
    let left = f64::from(u32::try_from(left).unwrap_or(u32::MAX));
    if faults_to_come {
        ORDERS_PER_S.min(left / RESERVE_S)
    } else {
        ORDERS_PER_S
    }
}

/// Sends all records in their order and returns when each is acknowledged. Blocks its thread.
///
/// # Errors
/// A record that the broker did not take.
pub fn send(brokers: &str, topic: &str, records: &[Sent], cues: &Cues) -> anyhow::Result<()> {
    let delivered = Delivered::default();
    let producer: BaseProducer<Delivered> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("client.id", "chaos-sender")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "2")
        .set("message.timeout.ms", DELIVERY_TIMEOUT.as_millis().to_string())
        .set("enable.metrics.push", "false")
        .create_with_context(delivered.clone())
        .context("the sender's producer")?;
    let mut last = Instant::now();
    for (number, record) in records.iter().enumerate() {
        loop {
            let pace = pace(records.len() - number, !cues.faults_done.load(Ordering::Relaxed));
            let due = last + Duration::from_secs_f64(1.0 / pace);
            let wait = due.saturating_duration_since(Instant::now());
            // Looked at again soon: the faults may be done meanwhile.
            producer.poll(wait.min(STEP));
            if cues.stop.load(Ordering::Relaxed) {
                bail!("the run was over before all orders were sent");
            }
            if wait.is_zero() {
                last = due;
                break;
            }
        }
        enqueue(&producer, topic, record)?;
    }
    while producer.in_flight_count() > 0 && !cues.stop.load(Ordering::Relaxed) {
        producer.poll(STEP);
    }
    let failed = delivered.failed.load(Ordering::Relaxed);
    let acknowledged = delivered.acknowledged.load(Ordering::Relaxed);
    if failed > 0 || acknowledged != records.len() as u64 {
        bail!("of {} records {acknowledged} were acknowledged", records.len());
    }
    Ok(())
}

fn enqueue(producer: &BaseProducer<Delivered>, topic: &str, record: &Sent) -> anyhow::Result<()> {
    let mut outgoing = BaseRecord::to(topic).key(&record.key).payload(&record.value);
    loop {
        match producer.send(outgoing) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                outgoing = refused;
                producer.poll(Duration::from_millis(20));
            }
            Err((error, _)) => bail!("the record `{}` was refused: {error}", record.key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_orders_wait_for_the_last_fault_and_no_longer() {
        assert_eq!(pace(20_000, true), ORDERS_PER_S);
        assert_eq!(pace(800, true), 100.0);
        assert_eq!(pace(1, true), 0.125);
        assert_eq!(pace(1, false), ORDERS_PER_S);
    }
}
