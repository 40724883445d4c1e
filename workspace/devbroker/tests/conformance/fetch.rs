//! Fetching: limits, long polls, and offsets that are not there.

use std::time::{Duration, Instant};

use kafka_protocol::messages::FetchResponse;

use crate::batches::{self, Batch};
use crate::client::{Client, Isolation, Limits, Place, error};
use crate::scenarios;
use crate::stage::{Difference, Stage};

scenarios! {
    a_fetch_begins_with_a_whole_batch: "The batch that holds the offset comes whole.";
    partition_max_bytes_bounds_a_partition: "Batches beyond the bound of a partition are not sent, yet one batch always is.";
    max_bytes_bounds_the_answer: "The bound of the answer holds over its partitions; the first batch comes whole.";
    min_bytes_is_waited_for: "An answer waits for min_bytes, at most max_wait.";
    an_append_wakes_a_poll: "A waiting fetch is answered by an append, well before its time.";
    a_poll_over_partitions_is_woken_by_any: "A waiting fetch of several partitions is answered by an append to one.";
    an_error_and_a_poll: "Whether a fetch waits that holds an error." differs Difference {
        reason: "a reader hears of a missing topic at once, also where it waits for another one",
        lines: &[(
            "an unknown topic and an empty one, waits: true",
            "an unknown topic and an empty one, waits: false",
        )],
    };
    offsets_out_of_range: "Below the start, at the end, and beyond it.";
    unknown_topics_and_partitions: "Fetching what does not exist.";
    a_leader_epoch_is_checked: "A fetch names the epoch of the leader that it knows.";
    a_deleted_topic_ends_a_poll: "The reader that waits on a topic is told that it is gone.";
}

const PATIENT: Duration = Duration::from_secs(15);

/// Five batches of two records each, all of the same size.
async fn filled(stage: &mut Stage, partitions: i32) -> (String, i32) {
    let topic = stage.topic(partitions).await;
    let mut client = stage.client().await;
    let mut length = 0;
    for partition in 0..partitions {
        for number in 0..5 {
            let value = format!("{partition}-{number}-{}", "x".repeat(100));
            let bytes = Batch::of(&[&value, &value]).bytes();
            length = bytes.len() as i32;
            let request = Client::produce_request(&topic, partition, bytes, None);
            assert_eq!(client.produce_as(9, &request).await.error_code, 0);
        }
    }
    (topic, length)
}

async fn a_fetch_begins_with_a_whole_batch(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    client.produce(&topic, &Batch::of(&["a", "b", "c"])).await;
    client.produce(&topic, &Batch::of(&["d"])).await;
    for offset in 0..=4 {
        let answer = client
            .fetch(&topic, 0, offset, Limits::none(Isolation::Uncommitted))
            .await;
        stage.note_fetch(&format!("from {offset}"), &answer);
    }
}

async fn partition_max_bytes_bounds_a_partition(stage: &mut Stage) {
    let (topic, length) = filled(stage, 1).await;
    let mut client = stage.client().await;
    for (what, bytes) in [
        ("0 bytes", 0),
        ("1 byte", 1),
        ("one batch", length),
        ("a byte less than two batches", 2 * length - 1),
        ("two batches", 2 * length),
        ("a byte more than two batches", 2 * length + 1),
        ("plenty", 1 << 20),
    ] {
        let limits = Limits {
            partition_max_bytes: bytes,
            ..Limits::none(Isolation::Uncommitted)
        };
        let answer = client.fetch(&topic, 0, 2, limits).await;
        let records = answer.records.unwrap_or_default();
        stage.note(what, format!("{} whole batches", batches::count(&records)));
    }
}

async fn max_bytes_bounds_the_answer(stage: &mut Stage) {
    let (topic, length) = filled(stage, 2).await;
    let mut client = stage.client().await;
    for (what, bytes) in [
        ("1 byte", 1),
        ("one batch", length),
        ("three batches", 3 * length),
        ("six batches", 6 * length),
        ("plenty", 1 << 20),
    ] {
        let limits = Limits {
            max_bytes: bytes,
            ..Limits::none(Isolation::Uncommitted)
        };
        let request = Client::fetch_request(&[(&topic, 0, 0), (&topic, 1, 0)], limits);
        let answer = client.call(12, &request).await;
        let counts = answer.responses.iter().flat_map(|topic| &topic.partitions);
        let counts: Vec<String> = counts
            .map(|partition| {
                let records = partition.records.clone().unwrap_or_default();
                batches::count(&records).to_string()
            })
            .collect();
        stage.note(what, format!("whole batches {}", counts.join(" and ")));
    }
}

async fn min_bytes_is_waited_for(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let (mut client, mut reader) = (stage.client().await, stage.client().await);
    let length = Batch::of(&["x"]).bytes().len() as i32;
    let limits = |max_wait| Limits {
        min_bytes: 3 * length,
        max_wait,
        ..Limits::none(Isolation::Uncommitted)
    };
    let request = Client::fetch_request(&[(&topic, 0, 0)], limits(PATIENT));
    let asked = Instant::now();
    reader.wire.send(12, &request).await;
    for number in 1..=3 {
        client.produce(&topic, &Batch::of(&["x"])).await;
        let wait = Duration::from_millis(if number == 3 { 5_000 } else { 100 });
        let answered = reader.is_answered_within(wait).await;
        stage.note(format!("answered after batch {number}"), answered);
    }
    let answer: FetchResponse = reader.wire.receive(12).await;
    stage.note("before its time", asked.elapsed() < PATIENT);
    stage.note_fetch("the answer", &answer.responses[0].partitions[0]);

    let asked = Instant::now();
    let answer = client
        .fetch(&topic, 0, 2, limits(Duration::from_millis(200)))
        .await;
    stage.note("waited 200 ms", asked.elapsed() >= Duration::from_millis(200));
    stage.note_fetch("too little at the end of the wait", &answer);
}

async fn an_append_wakes_a_poll(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let (mut client, mut reader) = (stage.client().await, stage.client().await);
    for offset in 0..3 {
        let limits = Limits {
            max_wait: PATIENT,
            ..Limits::none(Isolation::Uncommitted)
        };
        let asked = Instant::now();
        let request = Client::fetch_request(&[(&topic, 0, offset)], limits);
        reader.wire.send(12, &request).await;
        client.produce(&topic, &Batch::of(&["x"])).await;
        let answer: FetchResponse = reader.wire.receive(12).await;
        stage.note("before its time", asked.elapsed() < PATIENT);
        stage.note_fetch("the answer", &answer.responses[0].partitions[0]);
    }
}

async fn a_poll_over_partitions_is_woken_by_any(stage: &mut Stage) {
    let topic = stage.topic(3).await;
    let (mut client, mut reader) = (stage.client().await, stage.client().await);
    let limits = Limits {
        max_wait: PATIENT,
        ..Limits::none(Isolation::Uncommitted)
    };
    let places = [(topic.as_str(), 0, 0), (&topic, 1, 0), (&topic, 2, 0)];
    let asked = Instant::now();
    reader
        .wire
        .send(12, &Client::fetch_request(&places, limits))
        .await;
    let request = Client::produce_request(&topic, 1, Batch::of(&["x"]).bytes(), None);
    client.produce_as(9, &request).await;
    let answer: FetchResponse = reader.wire.receive(12).await;
    stage.note("before its time", asked.elapsed() < PATIENT);
    for partition in answer.responses.iter().flat_map(|topic| &topic.partitions) {
        stage.note_fetch(&format!("partition {}", partition.partition_index), partition);
    }
}

async fn an_error_and_a_poll(stage: &mut Stage) {
    let (topic, missing) = (stage.topic(1).await, stage.name("missing"));
    let mut client = stage.client().await;
    let max_wait = Duration::from_millis(700);
    let limits = Limits {
        max_wait,
        ..Limits::none(Isolation::Uncommitted)
    };
    let cases: [(&str, &[Place<'_>]); 3] = [
        ("an offset out of range", &[(&topic, 0, 9)]),
        ("an unknown topic", &[(&missing, 0, 0)]),
        (
            "an unknown topic and an empty one",
            &[(&topic, 0, 0), (&missing, 0, 0)],
        ),
    ];
    for (what, places) in cases {
        let asked = Instant::now();
        let answer = client.call(12, &Client::fetch_request(places, limits)).await;
        stage.note(format!("{what}, waits"), asked.elapsed() >= max_wait);
        let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
        let mut codes: Vec<String> = partitions.map(|partition| error(partition.error_code)).collect();
        codes.sort();
        stage.note(what, codes.join(", "));
    }
}

async fn offsets_out_of_range(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    client.produce(&topic, &Batch::of(&["a", "b", "c", "d"])).await;
    client.produce(&topic, &Batch::of(&["e"])).await;
    client.delete_records(&topic, 2).await;
    for offset in [-2, -1, 0, 1, 2, 4, 5, 6] {
        let answer = client
            .fetch(&topic, 0, offset, Limits::none(Isolation::Uncommitted))
            .await;
        stage.note_fetch(&format!("from {offset}"), &answer);
    }
}

async fn unknown_topics_and_partitions(stage: &mut Stage) {
    let (topic, missing) = (stage.topic(1).await, stage.name("missing"));
    let mut client = stage.client().await;
    for (what, topic, partition) in [
        ("an unknown topic", &missing, 0),
        ("an unknown partition", &topic, 1),
        ("a partition below 0", &topic, -1),
    ] {
        let answer = client
            .fetch(topic, partition, 0, Limits::none(Isolation::Uncommitted))
            .await;
        stage.note_fetch(what, &answer);
    }
}

async fn a_leader_epoch_is_checked(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    for epoch in [-1, 0, 1] {
        let mut request = Client::fetch_request(&[(&topic, 0, 0)], Limits::none(Isolation::Uncommitted));
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        let answer = client.call(12, &request).await;
        stage.note_fetch(&format!("epoch {epoch}"), &answer.responses[0].partitions[0]);
    }
}

async fn a_deleted_topic_ends_a_poll(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let (mut client, mut reader) = (stage.client().await, stage.client().await);
    let limits = Limits {
        max_wait: PATIENT,
        ..Limits::none(Isolation::Uncommitted)
    };
    let asked = Instant::now();
    reader
        .wire
        .send(12, &Client::fetch_request(&[(&topic, 0, 0)], limits))
        .await;
    let deleted = client.delete_topic(&topic).await;
    stage.note("delete", error(deleted));
    let answer: FetchResponse = reader.wire.receive(12).await;
    stage.note("before its time", asked.elapsed() < PATIENT);
    stage.note_fetch("the answer", &answer.responses[0].partitions[0]);
}
