//! Producing: acknowledgements, codecs, batches that are refused, and repeats.

use bytes::Bytes;
use kafka_protocol::records::Compression;

use crate::batches::Batch;
use crate::client::{Client, Isolation, Limits, error, placed};
use crate::scenarios;
use crate::stage::Stage;

scenarios! {
    each_level_of_acknowledgement: "acks 0, 1 and all are taken, any other is refused.";
    without_acknowledgement_a_failure_closes: "With acks 0 a batch that is refused ends the connection.";
    each_codec_comes_back: "Batches of each codec are kept and given out as they came.";
    several_partitions_in_one_request: "Each partition of a request has its own answer.";
    batches_that_are_refused: "Damaged, doubled, cut off and empty batches, and a control batch of a client.";
    a_message_that_is_too_large: "A batch over max.message.bytes of its topic is refused, one at the limit is taken.";
    timestamps_out_of_range: "A time in the far future is refused, an old one is not.";
    unknown_topics_and_partitions: "Producing to what does not exist.";
    a_key_is_needed_in_a_compacted_topic: "A compacted topic refuses records without a key.";
    the_last_five_batches_are_remembered: "A repeat of one of the last five batches is acknowledged with its offset and not appended.";
    an_older_repeat_is_refused: "What is older than the last five batches is out of order.";
    a_repeat_must_be_the_same_batch: "A batch that overlaps a known one without being it is out of order.";
    a_gap_in_the_sequence: "A sequence that leaves a gap is refused, and the right one is taken after it.";
    a_new_producer_may_start_anywhere: "The first batch of an unknown producer may have any sequence.";
    sequences_wrap_around: "After the largest sequence comes 0.";
    epochs_of_an_idempotent_producer: "A higher epoch starts at 0 and fences the lower one.";
    a_producer_without_a_sequence: "A producer id without a sequence, and a sequence without an epoch.";
}

async fn idempotent(stage: &mut Stage, client: &mut Client) -> i64 {
    let request = Client::init_request(None, 60_000, -1, -1);
    let answer = client.init_as(4, &request).await;
    assert_eq!(answer.error_code, 0, "a producer id is given");
    stage.named(answer.producer_id.0, "A");
    answer.producer_id.0
}

async fn each_level_of_acknowledgement(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    for acks in [1, -1, 2, -2] {
        let request = Client::produce_request(&topic, 0, Batch::of(&["x"]).bytes(), None).with_acks(acks);
        let answer = client.produce_as(9, &request).await;
        stage.note(format!("acks {acks}"), placed(&answer));
    }
    let request = Client::produce_request(&topic, 0, Batch::of(&["silent"]).bytes(), None).with_acks(0);
    client.wire.send(9, &request).await;
    client.until_stable(&topic, 0, 3).await;
    stage.note_log("at the end", &topic, 0).await;
}

async fn without_acknowledgement_a_failure_closes(stage: &mut Stage) {
    let missing = stage.name("missing");
    let mut client = stage.client().await;
    let request = Client::produce_request(&missing, 0, Batch::of(&["x"]).bytes(), None).with_acks(0);
    client.wire.send(9, &request).await;
    stage.note("the connection is closed", client.wire.is_closed().await);
}

async fn each_codec_comes_back(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    for codec in [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let batch = Batch::keyed(&[("a", Some("one")), ("b", Some("two")), ("c", None)]).packed(codec);
        let answer = client.produce(&topic, &batch).await;
        stage.note(format!("{codec:?}"), placed(&answer));
        let fetched = client
            .fetch(
                &topic,
                0,
                answer.base_offset,
                Limits::none(Isolation::Uncommitted),
            )
            .await;
        let bytes = fetched.records.unwrap_or_default();
        // Before byte 16 are the base offset, the length, and the leader's epoch.
        let same = bytes.get(16..) == batch.bytes().get(16..);
        stage.note("the same bytes", same);
    }
    stage.note_log("at the end", &topic, 0).await;
}

async fn several_partitions_in_one_request(stage: &mut Stage) {
    let topic = stage.topic(2).await;
    let mut client = stage.client().await;
    let mut request = Client::produce_request(&topic, 0, Batch::of(&["x"]).bytes(), None);
    for partition in [1, 5] {
        let more = Client::produce_request(&topic, partition, Batch::of(&["y", "z"]).bytes(), None);
        let data = more.topic_data[0].partition_data[0].clone();
        request.topic_data[0].partition_data.push(data);
    }
    let answer = client.call(9, &request).await;
    let mut partitions = answer.responses[0].partition_responses.clone();
    partitions.sort_by_key(|partition| partition.index);
    for partition in partitions {
        stage.note(format!("partition {}", partition.index), placed(&partition));
    }
}

async fn batches_that_are_refused(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let good = Batch::of(&["one", "two"]).bytes();
    let changed = |at: usize, value: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = value;
        Bytes::from(bytes)
    };
    // Attributes are bytes 21 and 22, the count is in bytes 57 to 60; both are under the checksum.
    let signed = |at: usize, value: u8| checked(changed(at, value));
    let cases = [
        ("a flipped bit", changed(good.len() - 1, good[good.len() - 1] ^ 1)),
        ("cut off", good.slice(..good.len() - 5)),
        ("two batches", [good.clone(), good.clone()].concat().into()),
        ("an old format", changed(16, 1)),
        ("an unknown format", changed(16, 9)),
        ("a control batch", signed(22, 0x20)),
        ("a count of 1 for two records", signed(60, 1)),
        ("a count of 3 for two records", signed(60, 3)),
        ("no bytes", Bytes::new()),
    ];
    for (what, bytes) in cases {
        let answer = client.produce_bytes(&topic, bytes).await;
        stage.note(what, placed(&answer));
    }
    stage.note_log("at the end", &topic, 0).await;
}

/// With the checksum that fits.
fn checked(bytes: Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    let checksum = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    bytes.into()
}

async fn a_message_that_is_too_large(stage: &mut Stage) {
    let batch = |length: usize| Batch::of(&[&"x".repeat(length)]);
    let limit = batch(1_000).bytes().len().to_string();
    let topic = stage.topic_with(1, &[("max.message.bytes", &limit)]).await;
    let mut client = stage.client().await;
    for length in [1_000, 1_001, 500_000] {
        let answer = client.produce(&topic, &batch(length)).await;
        stage.note(format!("{length} bytes of value"), placed(&answer));
    }
    let usual = stage.topic(1).await;
    for length in [1_040_000, 1_100_000] {
        let answer = client.produce(&usual, &batch(length)).await;
        stage.note(format!("{length} bytes of value, no limit set"), placed(&answer));
    }
}

async fn timestamps_out_of_range(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let day_ms = 86_400_000;
    for (what, after_ms) in [
        ("in a day", day_ms),
        ("in a minute", 60_000),
        ("a day ago", -day_ms),
    ] {
        let answer = client.produce(&topic, &Batch::of(&["x"]).at(after_ms)).await;
        stage.note(what, placed(&answer));
    }
}

async fn unknown_topics_and_partitions(stage: &mut Stage) {
    let (topic, missing) = (stage.topic(1).await, stage.name("missing"));
    let mut client = stage.client().await;
    for (what, topic, partition) in [
        ("an unknown topic", missing.as_str(), 0),
        ("an unknown partition", &topic, 1),
        ("a partition below 0", &topic, -1),
        ("an illegal name", "no spaces", 0),
    ] {
        let request = Client::produce_request(topic, partition, Batch::of(&["x"]).bytes(), None);
        let answer = client.produce_as(9, &request).await;
        stage.note(what, placed(&answer));
    }
}

async fn a_key_is_needed_in_a_compacted_topic(stage: &mut Stage) {
    let topic = stage.topic_with(1, &[("cleanup.policy", "compact")]).await;
    let mut client = stage.client().await;
    let answer = client.produce(&topic, &Batch::of(&["no key"])).await;
    stage.note("no key", placed(&answer));
    let answer = client.produce(&topic, &Batch::keyed(&[("k", Some("v"))])).await;
    stage.note("a key", placed(&answer));
}

/// Produces two records with each of the sequences, and notes what came of it.
async fn note_sequences(stage: &mut Stage, topic: &str, id: i64, epoch: i16, sequences: &[i32]) {
    let mut client = stage.client().await;
    for sequence in sequences {
        let batch = Batch::of(&["x", "y"]).numbered(id, epoch, *sequence);
        let answer = client.produce(topic, &batch).await;
        stage.note(format!("epoch {epoch}, sequence {sequence}"), placed(&answer));
    }
}

async fn the_last_five_batches_are_remembered(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let id = idempotent(stage, &mut client).await;
    note_sequences(stage, &topic, id, 0, &[0, 2, 4, 6, 8, 10]).await;
    note_sequences(stage, &topic, id, 0, &[10, 8, 6, 4, 2]).await;
    client.until_stable(&topic, 0, 12).await;
}

async fn an_older_repeat_is_refused(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let id = idempotent(stage, &mut client).await;
    note_sequences(stage, &topic, id, 0, &[0, 2, 4, 6, 8, 10, 0]).await;
}

async fn a_repeat_must_be_the_same_batch(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let id = idempotent(stage, &mut client).await;
    note_sequences(stage, &topic, id, 0, &[0, 2, 1, 3]).await;
    let longer = Batch::of(&["x", "y", "z"]).numbered(id, 0, 2);
    let answer = client.produce(&topic, &longer).await;
    stage.note("the same first sequence, one record more", placed(&answer));
}

async fn a_gap_in_the_sequence(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let id = idempotent(stage, &mut client).await;
    note_sequences(stage, &topic, id, 0, &[0, 3, 4, 2]).await;
    stage.note_log("at the end", &topic, 0).await;
}

async fn a_new_producer_may_start_anywhere(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let id = idempotent(stage, &mut client).await;
    note_sequences(stage, &topic, id, 0, &[7, 9]).await;
    note_sequences(stage, &topic, id + 1_000_000, 5, &[3, 5]).await;
}

async fn sequences_wrap_around(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let id = idempotent(stage, &mut client).await;
    for sequence in [i32::MAX - 1, 0, i32::MAX - 1] {
        note_sequences(stage, &topic, id, 0, &[sequence]).await;
    }
}

async fn epochs_of_an_idempotent_producer(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let id = idempotent(stage, &mut client).await;
    note_sequences(stage, &topic, id, 0, &[0]).await;
    note_sequences(stage, &topic, id, 1, &[2, 0, 2]).await;
    note_sequences(stage, &topic, id, 0, &[2, 0]).await;
    note_sequences(stage, &topic, id, 3, &[0]).await;
    let request = Client::init_request(None, 60_000, id, 3);
    let answer = client.init_as(4, &request).await;
    stage.note("InitProducerId with id and epoch", error(answer.error_code));
}

async fn a_producer_without_a_sequence(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let id = idempotent(stage, &mut client).await;
    let batch = Batch::of(&["x"]);
    let answer = client.produce(&topic, &batch.clone().numbered(id, 0, -1)).await;
    stage.note("no sequence", placed(&answer));
    let answer = client.produce(&topic, &batch.clone().numbered(id, -1, 0)).await;
    stage.note("no epoch", placed(&answer));
    let answer = client.produce(&topic, &batch.numbered(-1, 0, 0)).await;
    stage.note("no producer id", placed(&answer));
}
