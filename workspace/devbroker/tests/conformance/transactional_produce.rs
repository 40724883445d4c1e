//! Batches of transactional producers.

use crate::batches::Batch;
use crate::client::{Client, Identity, error, placed};
use crate::scenarios;
use crate::stage::Stage;
use crate::transactions::producer;

scenarios! {
    a_partition_that_was_not_added_takes_no_records: "A transactional batch to a partition outside of the transaction, in each version of Produce.";
    a_batch_outside_of_any_transaction: "A transactional batch before the first transaction and after the last one.";
    a_plain_batch_of_a_transactional_producer: "A batch without the transactional flag, from the producer of an open transaction.";
    a_transactional_batch_without_a_transactional_id: "The batch says that it is transactional, the request does not.";
    a_batch_says_an_unknown_producer: "A transactional batch with a producer id that nobody was given.";
    sequences_go_on_over_transactions: "Sequences are checked over the end of a transaction, and repeats are recognised.";
    a_new_epoch_starts_at_sequence_0: "The first batch of a new epoch must have sequence 0.";
    an_old_epoch_takes_no_records: "A batch of an older epoch is refused, one of a future epoch too.";
}

async fn a_partition_that_was_not_added_takes_no_records(stage: &mut Stage) {
    let (topic, other) = (stage.topic(1).await, stage.topic(1).await);
    let mut client = stage.client().await;
    for version in [7, 9, 10, 11] {
        let a = producer(stage, &mut client, "A").await;
        client.add(&a, &topic).await;
        let batch = a.batch(&["x"], 0).bytes();
        let request = Client::produce_request(&other, 0, batch, Some(&a.transactional_id));
        let answer = client.produce_as(version, &request).await;
        stage.note(format!("Produce {version}"), placed(&answer));
        stage.note("commit", error(client.commit(&a).await));
    }
    stage.note_log("at the end", &other, 0).await;
}

async fn a_batch_outside_of_any_transaction(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    let id = &a.transactional_id;
    let answer = client.produce_in(id, &topic, 0, &a.batch(&["early"], 0)).await;
    stage.note("before", placed(&answer));
    client.add(&a, &topic).await;
    let answer = client.produce_in(id, &topic, 0, &a.batch(&["inside"], 0)).await;
    stage.note("inside", placed(&answer));
    client.commit(&a).await;
    client.until_stable(&topic, 0, 2).await;
    let answer = client.produce_in(id, &topic, 0, &a.batch(&["late"], 1)).await;
    stage.note("after", placed(&answer));
    stage.note_log("at the end", &topic, 0).await;
}

async fn a_plain_batch_of_a_transactional_producer(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    let plain = |sequence| Batch::of(&["plain"]).numbered(a.producer_id, a.epoch, sequence);
    client.add(&a, &topic).await;
    let answer = client
        .produce_in(&a.transactional_id, &topic, 0, &a.batch(&["first"], 0))
        .await;
    stage.note("transactional", placed(&answer));
    let answer = client.produce_in(&a.transactional_id, &topic, 0, &plain(1)).await;
    stage.note("plain, the request names the transaction", placed(&answer));
    let answer = client.produce(&topic, &plain(1)).await;
    stage.note("plain", placed(&answer));
    stage.note("commit", error(client.commit(&a).await));
    client.until_stable(&topic, 0, 2).await;
    let answer = client.produce(&topic, &plain(1)).await;
    stage.note("plain, after the end", placed(&answer));
}

async fn a_transactional_batch_without_a_transactional_id(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    client.add(&a, &topic).await;
    let answer = client.produce(&topic, &a.batch(&["x"], 0)).await;
    stage.note("no transactional id", placed(&answer));
    let other = stage.name("other");
    let answer = client.produce_in(&other, &topic, 0, &a.batch(&["x"], 0)).await;
    stage.note("an unknown transactional id", placed(&answer));
}

async fn a_batch_says_an_unknown_producer(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    client.add(&a, &topic).await;
    let wrong = Identity {
        producer_id: a.producer_id + 1_000_000,
        ..a.clone()
    };
    let answer = client
        .produce_in(&a.transactional_id, &topic, 0, &wrong.batch(&["x"], 0))
        .await;
    stage.note("a producer id that nobody was given", placed(&answer));
}

async fn sequences_go_on_over_transactions(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    let id = &a.transactional_id;
    client.add(&a, &topic).await;
    for sequence in [0, 1, 1, 3] {
        let answer = client.produce_in(id, &topic, 0, &a.batch(&["x"], sequence)).await;
        stage.note(format!("sequence {sequence}"), placed(&answer));
    }
    client.commit(&a).await;
    client.until_stable(&topic, 0, 3).await;
    client.add(&a, &topic).await;
    for sequence in [2, 1, 0, 4] {
        let answer = client.produce_in(id, &topic, 0, &a.batch(&["y"], sequence)).await;
        stage.note(format!("next transaction, sequence {sequence}"), placed(&answer));
    }
    stage.note("abort", error(client.abort(&a).await));
    client.until_stable(&topic, 0, 5).await;
    stage.note_log("at the end", &topic, 0).await;
}

async fn a_new_epoch_starts_at_sequence_0(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let old = producer(stage, &mut client, "A").await;
    let id = &old.transactional_id;
    client.add(&old, &topic).await;
    client.produce_in(id, &topic, 0, &old.batch(&["x"], 0)).await;
    client.commit(&old).await;
    client.until_stable(&topic, 0, 2).await;
    let new = client.init(id).await;
    client.add(&new, &topic).await;
    for sequence in [1, 5, 0] {
        let answer = client
            .produce_in(id, &topic, 0, &new.batch(&["y"], sequence))
            .await;
        stage.note(format!("sequence {sequence}"), placed(&answer));
    }
}

async fn an_old_epoch_takes_no_records(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let old = producer(stage, &mut client, "A").await;
    let id = &old.transactional_id;
    client.add(&old, &topic).await;
    client.produce_in(id, &topic, 0, &old.batch(&["x"], 0)).await;
    let new = client.init(id).await;
    client.until_stable(&topic, 0, 2).await;
    client.add(&new, &topic).await;
    for version in [7, 9, 10, 11] {
        let batch = old.batch(&["x"], 1).bytes();
        let request = Client::produce_request(&topic, 0, batch, Some(id));
        let answer = client.produce_as(version, &request).await;
        stage.note(format!("old epoch, Produce {version}"), placed(&answer));
    }
    let future = Identity {
        epoch: new.epoch + 3,
        ..new
    };
    let answer = client.produce_in(id, &topic, 0, &future.batch(&["x"], 0)).await;
    stage.note("future epoch", placed(&answer));
}
