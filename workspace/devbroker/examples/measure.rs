//! The client of `scripts/bench broker`: one measurement on a running broker, as one line of JSON.
//!
//! `measure produce|fetch|latency ADDRESS TOPIC RECORDS`, with librdkafka and so for any broker. Produce
//! and latency create the topic. Records are 200 bytes, idempotent, not compressed, and spread over
//! twelve partitions. What is timed begins when connections, metadata and the producer's id are there.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;

const PARTITIONS: i32 = 12;
const RECORD_BYTES: usize = 200;
/// How far apart the records of the latency measurement are.
const PACE: Duration = Duration::from_millis(1);
/// The client spins in the last millisecond of a poll, which takes from the broker: long, and seldom.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(10);
/// How often it is asked whether everything is acknowledged.
const FINISH_CHECK: Duration = Duration::from_millis(1);
/// The longest that any single step may take.
const DEADLINE: Duration = Duration::from_secs(60);

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, address, topic, records] = arguments.as_slice() else {
        return Err("measure produce|fetch|latency ADDRESS TOPIC RECORDS".into());
    };
    let records: u64 = records.parse()?;
    match mode.as_str() {
        "produce" => {
            create_topic(address, topic).await?;
            let elapsed = produce(address, topic, records).await?;
            println!(r#"{{"seconds":{:.6}}}"#, elapsed.as_secs_f64());
        }
        "fetch" => {
            let elapsed = fetch(address, topic, records)?;
            println!(r#"{{"seconds":{:.6}}}"#, elapsed.as_secs_f64());
        }
        "latency" => {
            create_topic(address, topic).await?;
            let mut delays = latency(address, topic, records).await?;
            delays.sort_unstable();
            let [p50, p99] = [percentile(&delays, 50), percentile(&delays, 99)].map(as_millis);
            println!(r#"{{"p50_ms":{p50:.3},"p99_ms":{p99:.3}}}"#);
        }
        other => return Err(format!("unknown measurement `{other}`").into()),
    }
    Ok(())
}

fn config(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address);
    config
}

async fn create_topic(address: &str, topic: &str) -> Result<(), Failure> {
    let admin: AdminClient<DefaultClientContext> = config(address).create()?;
    let topic = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
    for result in admin.create_topics([&topic], &AdminOptions::new()).await? {
        result.map_err(|(topic, error)| format!("can not create `{topic}`: {error}"))?;
    }
    Ok(())
}

/// Counts what was not acknowledged. Successes are not reported, which spares the client work.
#[derive(Default)]
struct Failures(AtomicU64);

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A producer that has met every partition, so that what follows meets no first time.
async fn warm_producer(
    address: &str,
    topic: &str,
    linger_ms: &str,
) -> Result<BaseProducer<Failures>, Failure> {
    let producer: BaseProducer<Failures> = config(address)
        .set("enable.idempotence", "true")
        .set("compression.type", "none")
        .set("linger.ms", linger_ms)
        .set("queue.buffering.max.messages", "500000")
        .set("delivery.report.only.error", "true")
        .create_with_context(Failures::default())?;
    for partition in 0..PARTITIONS {
        send(&producer, topic, partition, &[0; RECORD_BYTES])?;
    }
    finish(&producer).await?;
    Ok(producer)
}

fn send(
    producer: &BaseProducer<Failures>,
    topic: &str,
    partition: i32,
    payload: &[u8],
) -> Result<(), KafkaError> {
    let mut record = BaseRecord::<(), [u8]>::to(topic)
        .partition(partition)
        .payload(payload);
    loop {
        match producer.send(record) {
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                record = refused;
                producer.poll(QUEUE_FULL_PAUSE);
            }
            Err((error, _)) => return Err(error),
            Ok(()) => return Ok(()),
        }
    }
}

/// Returns when everything is acknowledged. The client's own flush looks each 100 ms only.
async fn finish(producer: &BaseProducer<Failures>) -> Result<(), Failure> {
    let deadline = Instant::now() + DEADLINE;
    while producer.in_flight_count() > 0 {
        if Instant::now() > deadline {
            return Err("the records were not acknowledged in time".into());
        }
        producer.poll(Duration::ZERO);
        tokio::time::sleep(FINISH_CHECK).await;
    }
    match producer.context().0.load(Ordering::Relaxed) {
        0 => Ok(()),
        failed => Err(format!("{failed} records were not acknowledged").into()),
    }
}

/// The time from the first of `records` to the acknowledgement of the last.
async fn produce(address: &str, topic: &str, records: u64) -> Result<Duration, Failure> {
    let producer = warm_producer(address, topic, "5").await?;
    let started = Instant::now();
    for (number, partition) in (0..records).zip((0..PARTITIONS).cycle()) {
        send(&producer, topic, partition, &payload(number))?;
    }
    finish(&producer).await?;
    Ok(started.elapsed())
}

/// 200 bytes that begin with the number.
fn payload(number: u64) -> [u8; RECORD_BYTES] {
    let mut payload = [b'x'; RECORD_BYTES];
    if let Some(head) = payload.first_chunk_mut() {
        *head = number.to_be_bytes();
    }
    payload
}

/// A consumer that knows the topic and reads all of its partitions from `offset` on.
fn assigned_consumer(address: &str, topic: &str, offset: Offset) -> Result<BaseConsumer, Failure> {
    let consumer: BaseConsumer = config(address)
        .set("group.id", "measure")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .create()?;
    consumer.fetch_metadata(Some(topic), DEADLINE)?;
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions.add_partition_offset(topic, partition, offset)?;
    }
    consumer.assign(&partitions)?;
    Ok(consumer)
}

/// The time from the assignment to having `records` of them.
fn fetch(address: &str, topic: &str, records: u64) -> Result<Duration, Failure> {
    let consumer = assigned_consumer(address, topic, Offset::Offset(0))?;
    let started = Instant::now();
    for received in 0..records {
        match consumer.poll(DEADLINE) {
            Some(message)
                if message
                    .as_ref()
                    .is_ok_and(|message| message.payload_len() == RECORD_BYTES) => {}
            Some(message) => {
                return Err(format!("record {received} is not what was sent: {message:?}").into());
            }
            None => return Err(format!("{received} of {records} records came").into()),
        }
    }
    Ok(started.elapsed())
}

/// Sends a record each millisecond, and returns how long after sending each was read.
async fn latency(address: &str, topic: &str, records: u64) -> Result<Vec<Duration>, Failure> {
    let producer = warm_producer(address, topic, "0").await?;
    let consumer = assigned_consumer(address, topic, Offset::Offset(0))?;
    // When the records of the warm-up are here, the consumer is in its long polls.
    for _ in 0..PARTITIONS {
        consumer.poll(DEADLINE).ok_or("the consumer got nothing")??;
    }
    let origin = Instant::now();
    let reading = tokio::task::spawn_blocking(move || read_delays(&consumer, origin, records));
    let mut pace = tokio::time::interval(PACE);
    for partition in (0..PARTITIONS).cycle().take(usize::try_from(records)?) {
        pace.tick().await;
        let now = u64::try_from(origin.elapsed().as_nanos())?;
        send(&producer, topic, partition, &payload(now))?;
    }
    finish(&producer).await?;
    reading.await?
}

fn read_delays(consumer: &BaseConsumer, origin: Instant, records: u64) -> Result<Vec<Duration>, Failure> {
    let mut delays = Vec::new();
    for received in 0..records {
        let message = consumer.poll(DEADLINE);
        let message = message.ok_or_else(|| format!("{received} of {records} records came"))??;
        let now = origin.elapsed();
        let head = message.payload().and_then(|payload| payload.first_chunk());
        let sent = head.ok_or("a record is too short")?;
        delays.push(now.saturating_sub(Duration::from_nanos(u64::from_be_bytes(*sent))));
    }
    Ok(delays)
}

/// The smallest of the sorted values that is not less than so many percent of them.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or_default()
}

fn as_millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
