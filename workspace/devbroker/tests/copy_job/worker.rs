//! A worker of the copy job: a process of its own that reads, copies and commits until it dies.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

use crate::{CALL, config};

/// A killed worker's transaction is over by then, and its partitions are another's.
const TRANSACTION_TIMEOUT_MS: &str = "5000";
const SESSION_TIMEOUT_MS: &str = "2000";
/// Records of one transaction, at the most. librdkafka's binding takes 100 ms for each commit.
const BATCH: usize = 1_500;

/// xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators".
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

/// Its thread takes the delivery reports, without which an abort would wait for ever.
pub type Copier = ThreadedProducer<DefaultProducerContext>;

/// Sends, and waits where the queue is full.
pub fn send(producer: &Copier, mut record: BaseRecord<'_, String, String>) -> Result<(), KafkaError> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                producer.poll(Duration::from_millis(5));
                record = back;
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// What a worker knows of its job.
pub struct Job {
    pub address: String,
    pub source: String,
    pub target: String,
    pub group: String,
    pub transactional_id: String,
    pub seed: u64,
}

impl Job {
    pub fn words(&self) -> String {
        let seed = self.seed.to_string();
        let words = [
            &self.address,
            &self.source,
            &self.target,
            &self.group,
            &self.transactional_id,
            &seed,
        ];
        words.map(String::as_str).join(" ")
    }

    pub fn of_words(words: &str) -> Self {
        let mut words = words.split(' ').map(str::to_owned);
        let mut next = || words.next().unwrap();
        Self {
            address: next(),
            source: next(),
            target: next(),
            group: next(),
            transactional_id: next(),
            seed: next().parse().unwrap(),
        }
    }

    fn consumer(&self) -> Reader {
        let settings = [
            ("group.id", self.group.as_str()),
            ("isolation.level", "read_committed"),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "earliest"),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("session.timeout.ms", SESSION_TIMEOUT_MS),
            ("heartbeat.interval.ms", "300"),
            ("fetch.queue.backoff.ms", "5"),
        ];
        let consumer: Reader = config(&self.address, &settings)
            .create_with_context(Rebalances::default())
            .unwrap();
        consumer.subscribe(&[&self.source]).unwrap();
        consumer
    }

    fn producer(&self) -> Result<Copier, KafkaError> {
        let settings = [
            ("transactional.id", self.transactional_id.as_str()),
            ("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS),
            ("compression.type", "lz4"),
            ("linger.ms", "5"),
            ("retry.backoff.ms", "5"),
            ("retry.backoff.max.ms", "50"),
        ];
        let producer: Copier = config(&self.address, &settings).create()?;
        producer.init_transactions(CALL)?;
        Ok(producer)
    }
}

/// The job of a child process. It ends only by being killed, by the test or by itself.
pub fn work(job: &Job) -> ! {
    let mut dice = Dice(job.seed);
    let consumer = job.consumer();
    let mut producer = None;
    let mut transactions = 0;
    let mut positions = Positions::new();
    loop {
        let Some(batch) = read(&consumer, &mut positions) else {
            positions = rewind(&consumer);
            continue;
        };
        if batch.records.is_empty() {
            continue;
        }
        let ready = producer.take().map_or_else(|| job.producer(), Ok);
        let copied = ready.and_then(|ready| {
            transactions += 1;
            let committed = copy(job, &ready, transactions, &batch, &mut dice)?;
            Ok((ready, committed))
        });
        match copied {
            Ok((ready, committed)) => {
                producer = Some(ready);
                if !committed {
                    positions = rewind(&consumer);
                }
            }
            // Whatever it was: a new producer, which ends what the old one left open.
            Err(error) => {
                eprintln!("{}: {error}", job.transactional_id);
                positions = rewind(&consumer);
            }
        }
    }
}

type Reader = BaseConsumer<Rebalances>;

/// Counts what changes the partitions of a member.
#[derive(Default)]
struct Rebalances(AtomicUsize);

impl rdkafka::ClientContext for Rebalances {}

impl ConsumerContext for Rebalances {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, _: &Rebalance<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The least offset that may be read next, per partition. librdkafka 2.12 goes back by itself: when a seek
/// makes a question for an offset outdated, it asks again 500 ms after the answer, and begins there
/// (`rd_kafka_toppar_handle_Offset`).
type Positions = HashMap<i32, i64>;

/// Records, and the membership in which they were read: taken before the first of them, so that what
/// changes hands meanwhile is refused.
struct Batch<'a> {
    metadata: ConsumerGroupMetadata,
    records: Vec<BorrowedMessage<'a>>,
}

/// Reads a batch; `None` where partitions came or went meanwhile.
fn read<'a>(consumer: &'a Reader, positions: &mut Positions) -> Option<Batch<'a>> {
    let rebalances = || consumer.context().0.load(Ordering::Relaxed);
    let before = rebalances();
    let metadata = consumer.group_metadata()?;
    let mut records = Vec::new();
    let until = Instant::now() + Duration::from_millis(100);
    while records.len() < BATCH && Instant::now() < until {
        match consumer.poll(Duration::from_millis(20)) {
            Some(Ok(record)) => {
                let position = positions.entry(record.partition()).or_default();
                if record.offset() >= *position {
                    *position = record.offset() + 1;
                    records.push(record);
                }
            }
            Some(Err(error)) => eprintln!("reading: {error}"),
            None => {}
        }
    }
    (rebalances() == before).then_some(Batch { metadata, records })
}

/// Copies a batch in one transaction, and says whether it was committed. Some are aborted, and at some
/// the worker dies before the end.
fn copy(
    job: &Job,
    producer: &Copier,
    number: usize,
    batch: &Batch<'_>,
    dice: &mut Dice,
) -> Result<bool, KafkaError> {
    producer.begin_transaction()?;
    let mut next = HashMap::new();
    for record in &batch.records {
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let (key, value) = (text(record.key()), text(record.payload()));
        let by = format!(
            "{} (process {}) in transaction {number} from {}@{}",
            job.transactional_id,
            std::process::id(),
            record.partition(),
            record.offset()
        );
        let by = Header {
            key: "by",
            value: Some(&by),
        };
        let copy = BaseRecord::to(&job.target)
            .partition(record.partition())
            .key(&key)
            .payload(&value)
            .headers(OwnedHeaders::new().insert(by));
        send(producer, copy)?;
        next.insert(record.partition(), record.offset() + 1);
    }
    let mut offsets = TopicPartitionList::new();
    for (partition, offset) in next {
        offsets.add_partition_offset(&job.source, partition, Offset::Offset(offset))?;
    }
    let fate = dice.roll(24);
    let result = producer
        .send_offsets_to_transaction(&offsets, &batch.metadata, CALL)
        .and_then(|()| match fate {
            // Offsets and copies are with the broker, and nobody ever ends the transaction.
            0 => producer.flush(CALL).map(|()| std::process::abort()),
            1..=4 => producer
                .flush(CALL)
                .and_then(|()| producer.abort_transaction(CALL)),
            _ => producer.commit_transaction(CALL),
        });
    match result {
        Ok(()) => Ok(fate > 4),
        // A member of an older generation is refused: its transaction goes, the member stays.
        Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {
            producer.abort_transaction(CALL)?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Goes back to the committed offsets of all partitions that are owned. Where that fails, what was
/// read would be passed over: the worker ends, and its successor begins where it should.
fn rewind(consumer: &Reader) -> Positions {
    let rewound = consumer.assignment().and_then(|owned| {
        let mut positions = Positions::new();
        for element in consumer.committed_offsets(owned, CALL)?.elements() {
            let offset = match element.offset() {
                Offset::Offset(offset) => offset,
                _ => 0,
            };
            consumer.seek(element.topic(), element.partition(), Offset::Offset(offset), CALL)?;
            positions.insert(element.partition(), offset);
        }
        Ok(positions)
    });
    rewound.unwrap_or_else(|error| {
        eprintln!("going back: {error}");
        std::process::abort();
    })
}
