//! The broker against what no good client sends, and its answers where clients hide them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

#[path = "support/wire.rs"]
mod wire;

use std::time::{Duration, Instant};

use devbroker::{Broker, Options};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use rand_bytes::Noise;
use tokio::io::AsyncWriteExt;
use wire::*;

const NO_WAIT: Duration = Duration::ZERO;

/// Bytes without a pattern, the same in each run.
mod rand_bytes {
    pub struct Noise(pub u64);

    impl Noise {
        pub fn bytes(&mut self, count: usize) -> Vec<u8> {
            // xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators".
            let mut next = || {
                self.0 ^= self.0 >> 12;
                self.0 ^= self.0 << 25;
                self.0 ^= self.0 >> 27;
                (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 56) as u8
            };
            (0..count).map(|_| next()).collect()
        }
    }
}

async fn broker() -> Broker {
    let broker = Broker::start(Options::default()).await.unwrap();
    broker.create_topic("orders", 1).unwrap();
    broker
}

/// The broker still works for others.
async fn works(broker: &Broker) {
    let mut wire = Wire::connect(broker).await;
    let answer = wire.produce("orders", batch(1, b"x", 0, PLAIN)).await;
    assert_eq!(answer.error_code, 0);
}

async fn sent(broker: &Broker, bytes: &[u8]) -> Wire {
    let mut wire = Wire::connect(broker).await;
    // The broker may close while this is being written, which is as good.
    drop(wire.stream.write_all(bytes).await);
    wire
}

#[tokio::test]
async fn lengths_of_2_gb_and_below_zero_close_the_connection() {
    let broker = broker().await;
    for length in [i32::MAX, i32::MIN, -1, 0, 104_857_601] {
        let mut wire = sent(&broker, &length.to_be_bytes()).await;
        assert!(wire.is_closed().await, "{length}");
    }
    assert_eq!(broker.stats().malformed_total, 5);
    works(&broker).await;
}

#[tokio::test]
async fn a_text_protocol_is_not_answered() {
    let broker = broker().await;
    let mut wire = sent(&broker, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(wire.is_closed().await);
    works(&broker).await;
}

#[tokio::test]
async fn a_request_that_ends_early_is_counted_and_harms_nobody() {
    let broker = broker().await;
    let mut wire = sent(&broker, &[0, 0, 1, 0, 0, 3, 0, 1]).await;
    wire.stream.shutdown().await.unwrap();
    assert!(wire.is_closed().await);
    assert_eq!(broker.stats().malformed_total, 1);
    works(&broker).await;
}

#[tokio::test]
async fn random_bytes_in_valid_frames_never_stop_the_broker() {
    let broker = broker().await;
    let mut noise = Noise(0x0D0E_5EED);
    for round in 0..2_000_usize {
        let mut body = noise.bytes(4 + round % 120);
        if round % 2 == 0 {
            // A key and a version that exist, so that the noise reaches shape and codec.
            body[0] = 0;
            body[1] %= 62;
            body[2] = 0;
            body[3] %= 13;
        }
        let mut frame = (body.len() as u32).to_be_bytes().to_vec();
        frame.extend(body);
        let mut wire = Wire::connect(&broker).await;
        drop(wire.stream.write_all(&frame).await);
        drop(wire.stream.shutdown().await);
    }
    works(&broker).await;
    let stats = broker.stats();
    assert!(stats.malformed_total > 1_000, "{stats:?}");
    broker.stop().await;
}

/// The codec alone would reserve room for two thousand million topics, which ends the process.
#[tokio::test]
async fn an_array_that_is_announced_and_not_sent_closes_the_connection() {
    let broker = broker().await;
    // Metadata version 1, correlation id 7, no client id, then the count.
    let frame = [
        &14_u32.to_be_bytes()[..],
        &[0, 3, 0, 1],
        &[0, 0, 0, 7],
        &[255, 255],
        &i32::MAX.to_be_bytes(),
    ]
    .concat();
    let mut wire = sent(&broker, &frame).await;
    assert!(wire.is_closed().await);
    assert_eq!(broker.stats().malformed_total, 1);
    works(&broker).await;
}

#[tokio::test]
async fn an_unknown_request_or_version_closes_the_connection() {
    let broker = broker().await;
    for (key, version) in [(999_i16, 0_i16), (-1, 0), (1, 13), (0, 2), (22, 5), (24, 0)] {
        let mut frame = 12_u32.to_be_bytes().to_vec();
        frame.extend(key.to_be_bytes());
        frame.extend(version.to_be_bytes());
        frame.extend([0; 8]);
        let mut wire = sent(&broker, &frame).await;
        assert!(wire.is_closed().await, "{key} {version}");
    }
    works(&broker).await;
}

#[tokio::test]
async fn a_thousand_idle_connections_are_fine_and_more_than_allowed_are_refused() {
    let options = Options {
        max_connections: 1_000,
        ..Options::default()
    };
    let broker = Broker::start(options).await.unwrap();
    broker.create_topic("orders", 1).unwrap();
    let mut idle = Vec::new();
    for _ in 0..999 {
        idle.push(Wire::connect(&broker).await);
    }
    let mut last = Wire::connect(&broker).await;
    assert_eq!(
        last.produce("orders", batch(1, b"x", 0, PLAIN)).await.error_code,
        0
    );
    let mut refused = Wire::connect(&broker).await;
    assert!(refused.is_closed().await);
    assert_eq!(broker.stats().connections_refused_total, 1);
    let stopped = Instant::now();
    broker.stop().await;
    assert!(
        stopped.elapsed() < Duration::from_secs(2),
        "stopping took {:?}",
        stopped.elapsed()
    );
}

#[tokio::test]
async fn a_repeated_batch_is_acknowledged_with_its_first_offset() {
    let broker = broker().await;
    let mut wire = Wire::connect(&broker).await;
    let id = wire
        .call(4, &InitProducerIdRequest::default().with_transactional_id(None))
        .await;
    assert_eq!((id.error_code, id.producer_epoch), (0, 0));
    let numbered = |sequence| Numbering {
        producer: id.producer_id.0,
        epoch: 0,
        sequence,
    };
    let mut offsets = Vec::new();
    for sequence in [0, 3, 3, 0, 6] {
        let answer = wire
            .produce("orders", batch(3, b"x", 0, numbered(sequence)))
            .await;
        assert_eq!(answer.error_code, 0);
        offsets.push(answer.base_offset);
    }
    assert_eq!(offsets, [0, 3, 3, 0, 6]);
    assert_eq!(broker.stats().records_appended_total, 9);
    assert_eq!(broker.stats().duplicate_batches_total, 2);

    let gap = wire.produce("orders", batch(1, b"x", 0, numbered(20))).await;
    assert_eq!(
        (gap.error_code, gap.base_offset),
        (45, -1),
        "OUT_OF_ORDER_SEQUENCE_NUMBER"
    );
    let stale = Numbering {
        producer: id.producer_id.0,
        epoch: 1,
        sequence: 0,
    };
    assert_eq!(
        wire.produce("orders", batch(1, b"x", 0, stale)).await.error_code,
        0
    );
    let fenced = wire.produce("orders", batch(1, b"x", 0, numbered(9))).await;
    assert_eq!(fenced.error_code, 47, "INVALID_PRODUCER_EPOCH");
}

#[tokio::test]
async fn each_refusal_of_a_batch_has_its_code() {
    let broker = broker().await;
    let mut wire = Wire::connect(&broker).await;
    let good = batch(2, b"value", 1_000, PLAIN);
    let mut flipped = good.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let tomorrow = 4_102_444_800_000; // 2100-01-01
    let cases = [
        (
            "orders",
            batch(1, &vec![0; 1_100_000], 0, PLAIN),
            10,
            "MESSAGE_TOO_LARGE",
        ),
        ("orders", flipped.into(), 2, "CORRUPT_MESSAGE"),
        ("orders", good.slice(..50), 87, "INVALID_RECORD"),
        (
            "orders",
            [good.clone(), good.clone()].concat().into(),
            87,
            "INVALID_RECORD",
        ),
        ("orders", batch(1, b"x", tomorrow, PLAIN), 32, "INVALID_TIMESTAMP"),
        ("missing", good.clone(), 3, "UNKNOWN_TOPIC_OR_PARTITION"),
    ];
    for (topic, batch, code, name) in cases {
        let answer = wire.produce(topic, batch).await;
        assert_eq!((answer.error_code, answer.base_offset), (code, -1), "{name}");
        assert!(answer.error_message.is_some(), "{name} says why");
    }
    let answer = wire.call(9, &produce("orders", good, 7)).await;
    assert_eq!(
        answer.responses[0].partition_responses[0].error_code, 21,
        "INVALID_REQUIRED_ACKS"
    );
    assert_eq!(broker.stats().records_appended_total, 0);
}

#[tokio::test]
async fn without_acknowledgement_success_is_silent_and_failure_closes() {
    let broker = broker().await;
    let mut wire = Wire::connect(&broker).await;
    wire.send(9, &produce("orders", batch(1, b"x", 0, PLAIN), 0))
        .await;
    // The next answer on the connection belongs to the next request.
    let fetched = wire.fetch("orders", 0, NO_WAIT).await;
    assert_eq!(fetched.high_watermark, 1);
    wire.send(9, &produce("missing", batch(1, b"x", 0, PLAIN), 0))
        .await;
    assert!(wire.is_closed().await);
}

#[tokio::test]
async fn what_is_fetched_is_what_was_produced_with_its_offset() {
    let broker = broker().await;
    let mut wire = Wire::connect(&broker).await;
    let first = batch(3, b"first", 10, PLAIN);
    let second = batch(2, &[7; 20_000], 20, PLAIN);
    wire.produce("orders", first.clone()).await;
    wire.produce("orders", second.clone()).await;
    let stamped =
        |batch: &[u8], offset: i64| [&offset.to_be_bytes(), &batch[8..12], &[0; 4], &batch[16..]].concat();
    let all = wire.fetch("orders", 0, NO_WAIT).await;
    let expected = [stamped(&first, 0), stamped(&second, 3)].concat();
    assert_eq!(all.records.as_deref(), Some(&expected[..]));
    let rest = wire.fetch("orders", 4, NO_WAIT).await;
    assert_eq!(
        rest.records.as_deref(),
        Some(&stamped(&second, 3)[..]),
        "the whole batch that holds offset 4"
    );
    let end = wire.fetch("orders", 5, NO_WAIT).await;
    assert_eq!((end.error_code, end.records.unwrap_or_default().len()), (0, 0));
    for offset in [-1, 6] {
        assert_eq!(
            wire.fetch("orders", offset, NO_WAIT).await.error_code,
            1,
            "OFFSET_OUT_OF_RANGE"
        );
    }
    assert_eq!(
        wire.fetch("missing", 0, DEADLINE).await.error_code,
        3,
        "at once, without a wait"
    );
}

#[tokio::test]
async fn a_waiting_fetch_is_answered_by_an_append_a_time_out_or_the_end_of_the_topic() {
    let broker = broker().await;
    let (mut reader, mut writer) = (Wire::connect(&broker).await, Wire::connect(&broker).await);
    let mut waits = Vec::new();
    for offset in 0..20 {
        reader.send(12, &fetch("orders", offset, DEADLINE)).await;
        let began = Instant::now();
        writer.produce("orders", batch(1, b"x", 0, PLAIN)).await;
        let answer: FetchResponse = reader.receive(12).await;
        assert!(
            !answer.responses[0].partitions[0]
                .records
                .clone()
                .unwrap_or_default()
                .is_empty()
        );
        waits.push(began.elapsed());
    }
    waits.sort();
    // Under 1 ms where nothing else runs; the bound leaves room for a busy machine.
    assert!(
        waits[10] < Duration::from_millis(100),
        "produce to fetch: {waits:?}"
    );
    eprintln!(
        "produce to fetch: median {:?}, slowest {:?}",
        waits[10], waits[19]
    );
    let began = Instant::now();
    let nothing = reader.fetch("orders", 20, Duration::from_millis(150)).await;
    assert_eq!(nothing.records.unwrap_or_default().len(), 0);
    assert!(began.elapsed() >= Duration::from_millis(150));

    reader.send(12, &fetch("orders", 20, DEADLINE)).await;
    let names = vec![TopicName(StrBytes::from_static_str("orders"))];
    let deleted = writer
        .call(5, &DeleteTopicsRequest::default().with_topic_names(names))
        .await;
    assert_eq!(deleted.responses[0].error_code, 0);
    let answer: FetchResponse = reader.receive(12).await;
    assert_eq!(
        answer.responses[0].partitions[0].error_code, 3,
        "the reader is told that the topic is gone"
    );
    assert_eq!(broker.stats().bytes_stored, 0);
}

#[tokio::test]
async fn a_waiting_reader_leaves_nothing_behind_when_its_connection_ends() {
    let broker = broker().await;
    for _ in 0..50 {
        let mut reader = Wire::connect(&broker).await;
        reader
            .send(12, &fetch("orders", 0, Duration::from_millis(20)))
            .await;
        drop(reader);
    }
    let deadline = Instant::now() + DEADLINE;
    while broker.stats().connections_open > 0 {
        assert!(Instant::now() < deadline, "{:?}", broker.stats());
        tokio::task::yield_now().await;
    }
}
