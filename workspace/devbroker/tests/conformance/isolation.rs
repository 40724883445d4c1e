//! read_committed beside read_uncommitted.

use std::time::{Duration, Instant};

use kafka_protocol::messages::FetchResponse;

use crate::batches::{self, Batch, moment};
use crate::client::{Isolation, Limits, error, found_at};
use crate::scenarios;
use crate::stage::Stage;
use crate::transactions::producer;

scenarios! {
    two_producers_take_turns: "The last stable offset is the first one of the oldest open transaction.";
    an_older_open_transaction_hides_a_committed_one: "A committed transaction behind an open one stays hidden until that ends.";
    plain_records_wait_behind_an_open_transaction: "Records without a transaction are beyond the last stable offset too.";
    aborted_lists_name_what_overlaps: "A fetch lists the aborted transactions that reach into what it returns.";
    an_aborted_transaction_over_several_batches: "One entry names the first offset of the transaction, wherever the fetch begins.";
    a_marker_wakes_a_read_committed_poll: "A waiting read_committed fetch is answered when the transaction ends, not when records come.";
    a_read_committed_fetch_beyond_the_stable_offset: "Between the last stable offset and the high watermark there is nothing, and it is no error.";
    deleting_into_an_open_transaction_shows_none_of_it: "Where the log begins within a batch of an open transaction, read_committed gets nothing of it.";
    the_latest_offset_depends_on_the_isolation: "ListOffsets latest is the high watermark or the last stable offset.";
    offsets_by_time_depend_on_the_isolation: "Times beyond the last stable offset are not found by read_committed.";
    small_fetches_walk_over_markers: "A reader that takes one batch at a time passes control batches by their offsets.";
}

async fn two_producers_take_turns(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    let b = producer(stage, &mut client, "B").await;
    for who in [&a, &b] {
        client.add(who, &topic).await;
    }
    for sequence in 0..2 {
        for (who, value) in [(&a, "of A"), (&b, "of B")] {
            client
                .produce_in(&who.transactional_id, &topic, 0, &who.batch(&[value], sequence))
                .await;
        }
    }
    stage.note_log("both open", &topic, 0).await;
    stage.note("A aborts", error(client.abort(&a).await));
    wait_for_end(stage, &topic, 5).await;
    stage.note_log("B open", &topic, 0).await;
    stage.note("B commits", error(client.commit(&b).await));
    client.until_stable(&topic, 0, 6).await;
    stage.note_log("both ended", &topic, 0).await;
}

/// Waits until the log ends there.
async fn wait_for_end(stage: &Stage, topic: &str, end: i64) {
    let mut client = stage.client().await;
    let request = crate::client::Client::list_offsets_request(topic, 0, -1, Isolation::Uncommitted);
    client
        .until(7, &request, |answer| answer.topics[0].partitions[0].offset == end)
        .await;
}

async fn an_older_open_transaction_hides_a_committed_one(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    let b = producer(stage, &mut client, "B").await;
    for (who, value) in [(&a, "of A"), (&b, "of B")] {
        client.add(who, &topic).await;
        client
            .produce_in(&who.transactional_id, &topic, 0, &who.batch(&[value], 0))
            .await;
    }
    stage.note("B commits", error(client.commit(&b).await));
    wait_for_end(stage, &topic, 3).await;
    stage.note_log("A is open", &topic, 0).await;
    stage.note("A commits", error(client.commit(&a).await));
    client.until_stable(&topic, 0, 4).await;
    stage.note_log("both ended", &topic, 0).await;
}

async fn plain_records_wait_behind_an_open_transaction(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    client.produce(&topic, &Batch::of(&["before"])).await;
    client.add(&a, &topic).await;
    client
        .produce_in(&a.transactional_id, &topic, 0, &a.batch(&["inside"], 0))
        .await;
    client.produce(&topic, &Batch::of(&["behind"])).await;
    stage.note_log("open", &topic, 0).await;
    client.commit(&a).await;
    client.until_stable(&topic, 0, 4).await;
    stage.note_log("committed", &topic, 0).await;
}

async fn aborted_lists_name_what_overlaps(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    let mut end = 0;
    for round in 0..3 {
        client.add(&a, &topic).await;
        client
            .produce_in(&a.transactional_id, &topic, 0, &a.batch(&["a", "b"], round * 2))
            .await;
        client.end(&a, round == 1).await;
        end += 3;
        client.until_stable(&topic, 0, end).await;
    }
    for offset in 0..=end {
        let answer = client
            .fetch(&topic, 0, offset, Limits::none(Isolation::Committed))
            .await;
        stage.note_fetch(&format!("from {offset}"), &answer);
    }
    let limits = Limits {
        partition_max_bytes: 1,
        ..Limits::none(Isolation::Committed)
    };
    let answer = client.fetch(&topic, 0, 0, limits).await;
    stage.note_fetch("from 0, one batch", &answer);
    let answer = client.fetch(&topic, 0, 3, limits).await;
    stage.note_fetch("from 3, one batch", &answer);
}

async fn an_aborted_transaction_over_several_batches(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    client.produce(&topic, &Batch::of(&["before"])).await;
    client.add(&a, &topic).await;
    for sequence in 0..3 {
        client
            .produce_in(&a.transactional_id, &topic, 0, &a.batch(&["x"], sequence))
            .await;
        client.produce(&topic, &Batch::of(&["between"])).await;
    }
    client.abort(&a).await;
    client.until_stable(&topic, 0, 8).await;
    for offset in [0, 3, 7] {
        let answer = client
            .fetch(&topic, 0, offset, Limits::none(Isolation::Committed))
            .await;
        stage.note_fetch(&format!("from {offset}"), &answer);
    }
}

async fn a_marker_wakes_a_read_committed_poll(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let (mut client, mut reader) = (stage.client().await, stage.client().await);
    let a = producer(stage, &mut client, "A").await;
    client.add(&a, &topic).await;
    let limits = Limits {
        max_wait: Duration::from_secs(15),
        ..Limits::none(Isolation::Committed)
    };
    let request = crate::client::Client::fetch_request(&[(&topic, 0, 0)], limits);
    let asked = Instant::now();
    reader.wire.send(12, &request).await;
    client
        .produce_in(&a.transactional_id, &topic, 0, &a.batch(&["x"], 0))
        .await;
    let early = reader.is_answered_within(Duration::from_millis(300)).await;
    stage.note("answered by records", early);
    client.commit(&a).await;
    let answer: FetchResponse = reader.wire.receive(12).await;
    stage.note("answered by the end", asked.elapsed() < Duration::from_secs(10));
    stage.note_fetch("the answer", &answer.responses[0].partitions[0]);
}

async fn a_read_committed_fetch_beyond_the_stable_offset(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    client.produce(&topic, &Batch::of(&["before"])).await;
    client.add(&a, &topic).await;
    client
        .produce_in(&a.transactional_id, &topic, 0, &a.batch(&["x", "y", "z"], 0))
        .await;
    for offset in 1..=5 {
        for (isolation, name) in [
            (Isolation::Uncommitted, "read_uncommitted"),
            (Isolation::Committed, "read_committed"),
        ] {
            let answer = client.fetch(&topic, 0, offset, Limits::none(isolation)).await;
            stage.note_fetch(&format!("from {offset}, {name}"), &answer);
        }
    }
}

async fn deleting_into_an_open_transaction_shows_none_of_it(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    client.add(&a, &topic).await;
    client
        .produce_in(&a.transactional_id, &topic, 0, &a.batch(&["x", "y", "z"], 0))
        .await;
    let (code, start) = client.delete_records(&topic, 2).await;
    stage.note("deleted", format!("{}, start {start}", error(code)));
    for (isolation, name) in [
        (Isolation::Uncommitted, "read_uncommitted"),
        (Isolation::Committed, "read_committed"),
    ] {
        let answer = client.fetch(&topic, 0, 2, Limits::none(isolation)).await;
        stage.note_fetch(&format!("open, {name}"), &answer);
    }
    stage.note("committed", error(client.commit(&a).await));
    let stable = crate::client::Client::list_offsets_request(&topic, 0, -1, Isolation::Committed);
    client
        .until(7, &stable, |answer| answer.topics[0].partitions[0].offset == 4)
        .await;
    let answer = client
        .fetch(&topic, 0, 2, Limits::none(Isolation::Committed))
        .await;
    stage.note_fetch("ended, read_committed", &answer);
}

async fn the_latest_offset_depends_on_the_isolation(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    client.produce(&topic, &Batch::of(&["before"])).await;
    client.add(&a, &topic).await;
    client
        .produce_in(&a.transactional_id, &topic, 0, &a.batch(&["x", "y"], 0))
        .await;
    for what in ["open", "committed"] {
        for (isolation, name) in [
            (Isolation::Uncommitted, "read_uncommitted"),
            (Isolation::Committed, "read_committed"),
        ] {
            let latest = client.list_offsets(&topic, -1, isolation).await;
            stage.note(
                format!("{what}, {name}"),
                format!("{} {}", error(latest.error_code), latest.offset),
            );
        }
        if what == "open" {
            client.commit(&a).await;
            client.until_stable(&topic, 0, 4).await;
        }
    }
}

async fn offsets_by_time_depend_on_the_isolation(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    client
        .produce(&topic, &Batch::of(&["before", "before"]).at(1_000))
        .await;
    client.add(&a, &topic).await;
    client
        .produce_in(&a.transactional_id, &topic, 0, &a.batch(&["x", "y"], 0).at(2_000))
        .await;
    for after_ms in [0, 1_001, 1_002, 2_001, 2_002] {
        for (isolation, name) in [
            (Isolation::Uncommitted, "read_uncommitted"),
            (Isolation::Committed, "read_committed"),
        ] {
            let found = client.list_offsets(&topic, moment(after_ms), isolation).await;
            stage.note(format!("time {after_ms}, {name}"), found_at(&found));
        }
    }
    let largest = client.list_offsets(&topic, -3, Isolation::Uncommitted).await;
    stage.note("the largest time", found_at(&largest));
}

async fn small_fetches_walk_over_markers(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    let mut end = 0;
    for round in 0..3 {
        client.add(&a, &topic).await;
        client
            .produce_in(&a.transactional_id, &topic, 0, &a.batch(&["x"], round))
            .await;
        client.end(&a, round != 1).await;
        end += 2;
        client.until_stable(&topic, 0, end).await;
    }
    let limits = Limits {
        partition_max_bytes: 1,
        ..Limits::none(Isolation::Committed)
    };
    let mut offset = 0;
    while offset < end {
        let answer = client.fetch(&topic, 0, offset, limits).await;
        stage.note_fetch(&format!("from {offset}"), &answer);
        let bytes = answer.records.clone().unwrap_or_default();
        stage.note("batches", batches::count(&bytes));
        offset = batches::records(&bytes)
            .last()
            .map_or(end, |last| last.offset + 1);
    }
}
