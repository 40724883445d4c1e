//! The life of a transaction: committed, aborted, timed out, fenced.

use crate::client::{Client, Coordinator, Identity, error, placed};
use crate::scenarios;
use crate::stage::Stage;

scenarios! {
    a_commit_makes_the_records_stable: "Records of an open transaction are beyond the last stable offset; a commit writes a marker and moves it.";
    an_abort_leaves_the_records_and_lists_them: "Aborted records stay in the log and are in the list of aborted transactions.";
    one_transaction_after_another: "A producer commits and aborts in turn; each partition gets the markers of its own transactions only.";
    a_transaction_over_partitions_and_topics_ends_in_all: "The end of a transaction is marked in each partition that was added, written to or not.";
    a_transaction_that_takes_too_long_is_aborted: "The coordinator aborts after the time-out of the transaction and fences the producer until it is initialised again.";
    a_new_instance_aborts_and_fences_the_old_one: "InitProducerId without an id aborts the open transaction, and each request of the old epoch is refused.";
    a_producer_renews_its_own_epoch: "InitProducerId with the current id and epoch raises the epoch; said twice it gives the same epoch; older ones are fenced.";
    a_producer_renews_in_an_open_transaction: "InitProducerId with id and epoch in an open transaction aborts that.";
    a_renewal_with_wrong_values_is_refused: "A wrong producer id, a future epoch and an epoch without an id.";
    initialising_checks_its_values: "Time-outs out of range and an empty transactional id.";
    every_initialisation_raises_the_epoch: "An idle transactional id keeps its producer id and gets the next epoch each time.";
    a_producer_without_transactions_gets_fresh_ids: "InitProducerId without a transactional id gives another id each time, with epoch 0.";
    adding_right_after_an_end_is_too_early: "AddPartitionsToTxn while the markers are still written answers CONCURRENT_TRANSACTIONS.";
    ending_again_while_the_end_is_written: "EndTxn of the same kind again at once is told CONCURRENT_TRANSACTIONS or success, the other kind INVALID_TXN_STATE or CONCURRENT_TRANSACTIONS.";
}

/// A producer named `name` in the outcome.
pub async fn producer(stage: &mut Stage, client: &mut Client, name: &str) -> Identity {
    let id = stage.name("transactional-id");
    let identity = client.init(&id).await;
    stage.named(identity.producer_id, name);
    identity
}

async fn a_commit_makes_the_records_stable(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    stage.note("first epoch", a.epoch);
    stage.note("add", error(client.add(&a, &topic).await));
    stage.note_log("nothing written", &topic, 0).await;
    let placed_at = client
        .produce_in(&a.transactional_id, &topic, 0, &a.batch(&["one", "two"], 0))
        .await;
    stage.note("produce", placed(&placed_at));
    stage.note_log("open", &topic, 0).await;
    stage.note("commit", error(client.commit(&a).await));
    client.until_stable(&topic, 0, 3).await;
    stage.note_log("committed", &topic, 0).await;
}

async fn an_abort_leaves_the_records_and_lists_them(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    stage.note("add", error(client.add(&a, &topic).await));
    client
        .produce_in(&a.transactional_id, &topic, 0, &a.batch(&["one", "two"], 0))
        .await;
    stage.note("abort", error(client.abort(&a).await));
    client.until_stable(&topic, 0, 3).await;
    stage.note_log("aborted", &topic, 0).await;
}

async fn one_transaction_after_another(stage: &mut Stage) {
    let (left, right) = (stage.topic(1).await, stage.topic(1).await);
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    let mut end = 0;
    for round in 0..4 {
        stage.note("add", error(client.add(&a, &left).await));
        let value = format!("round {round}");
        let answer = client
            .produce_in(&a.transactional_id, &left, 0, &a.batch(&[&value], round))
            .await;
        stage.note("produce", placed(&answer));
        stage.note("end", error(client.end(&a, round % 2 == 0).await));
        end += 2;
        client.until_stable(&left, 0, end).await;
    }
    stage.note_log("left", &left, 0).await;
    stage.note_log("right", &right, 0).await;
}

async fn a_transaction_over_partitions_and_topics_ends_in_all(stage: &mut Stage) {
    let (left, right) = (stage.topic(2).await, stage.topic(1).await);
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    let added = client.add_as(3, &Client::add_request(&a, &left, &[0, 1])).await;
    stage.note("add both of the left", crate::client::errors(added));
    stage.note("add the right", error(client.add(&a, &right).await));
    stage.note("add the right again", error(client.add(&a, &right).await));
    for (topic, partition) in [(&left, 0), (&right, 0)] {
        let answer = client
            .produce_in(&a.transactional_id, topic, partition, &a.batch(&["x"], 0))
            .await;
        stage.note("produce", placed(&answer));
    }
    stage.note("commit", error(client.commit(&a).await));
    client.until_stable(&left, 0, 2).await;
    client.until_stable(&left, 1, 1).await;
    client.until_stable(&right, 0, 2).await;
    stage.note_log("left 0", &left, 0).await;
    stage.note_log("left 1, not written to", &left, 1).await;
    stage.note_log("right 0", &right, 0).await;
}

async fn a_transaction_that_takes_too_long_is_aborted(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let id = stage.name("transactional-id");
    let a = client.init_with_timeout(&id, 500).await;
    stage.named(a.producer_id, "A");
    stage.note("add", error(client.add(&a, &topic).await));
    client.produce_in(&id, &topic, 0, &a.batch(&["late"], 0)).await;
    client.until_stable(&topic, 0, 2).await;
    stage.note_log("after the time-out", &topic, 0).await;
    let answer = client.produce_in(&id, &topic, 0, &a.batch(&["later"], 1)).await;
    stage.note("produce", placed(&answer));
    stage.note("commit", error(client.commit(&a).await));
    stage.note("abort", error(client.abort(&a).await));
    stage.note("add", error(client.add(&a, &topic).await));
    let renewed = client.init_again(&a).await;
    stage.note("init with id and epoch", error(renewed.error_code));
    stage.note("epochs further", renewed.producer_epoch - a.epoch);
    let b = client.init(&id).await;
    stage.note("the new instance has the same id", a.producer_id == b.producer_id);
    stage.note("epochs further", b.epoch - a.epoch);
    stage.note("add", error(client.add(&b, &topic).await));
    stage.note("commit", error(client.commit(&b).await));
}

async fn a_new_instance_aborts_and_fences_the_old_one(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let old = producer(stage, &mut client, "A").await;
    let id = &old.transactional_id;
    client.add(&old, &topic).await;
    client.produce_in(id, &topic, 0, &old.batch(&["old"], 0)).await;
    let new = client.init(id).await;
    stage.note("the same producer id", new.producer_id == old.producer_id);
    stage.note("epochs further", new.epoch - old.epoch);
    client.until_stable(&topic, 0, 2).await;
    stage.note_log("after the second instance came", &topic, 0).await;

    let answer = client.produce_in(id, &topic, 0, &old.batch(&["zombie"], 1)).await;
    stage.note("the old one produces", placed(&answer));
    stage.note("the old one adds", error(client.add(&old, &topic).await));
    stage.note("the old one commits", error(client.commit(&old).await));
    stage.note("the old one aborts", error(client.abort(&old).await));
    let group = stage.name("group");
    stage.note(
        "the old one adds offsets",
        error(client.add_offsets(&old, &group).await),
    );
    let renewed = client.init_again(&old).await;
    stage.note("the old one renews its epoch", error(renewed.error_code));

    stage.note("the new one adds", error(client.add(&new, &topic).await));
    let answer = client.produce_in(id, &topic, 0, &new.batch(&["new"], 0)).await;
    stage.note("the new one produces", placed(&answer));
    stage.note("the new one commits", error(client.commit(&new).await));
    client.until_stable(&topic, 0, 4).await;
    stage.note_log("at the end", &topic, 0).await;
}

async fn a_producer_renews_its_own_epoch(stage: &mut Stage) {
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    let first = client.init_again(&a).await;
    stage.note("renewed", error(first.error_code));
    stage.note("the same id", first.producer_id.0 == a.producer_id);
    stage.note("epochs further", first.producer_epoch - a.epoch);
    let repeated = client.init_again(&a).await;
    stage.note("the same request again", error(repeated.error_code));
    stage.note(
        "epochs further",
        repeated.producer_epoch.checked_sub(a.epoch).unwrap_or(-1),
    );
    let now = Identity {
        epoch: first.producer_epoch,
        ..a.clone()
    };
    let second = client.init_again(&now).await;
    stage.note("renewed again", error(second.error_code));
    stage.note("epochs further", second.producer_epoch - a.epoch);
    let stale = client.init_again(&a).await;
    stage.note("with the first epoch", error(stale.error_code));
    let request = Client::init_request(Some(&a.transactional_id), 60_000, a.producer_id, a.epoch);
    let stale = client.init_as(3, &request).await;
    stage.note("with the first epoch in version 3", error(stale.error_code));
    stage.note(
        "then id and epoch",
        format!("{} {}", stale.producer_id.0, stale.producer_epoch),
    );
}

async fn a_producer_renews_in_an_open_transaction(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    client.add(&a, &topic).await;
    client
        .produce_in(&a.transactional_id, &topic, 0, &a.batch(&["dropped"], 0))
        .await;
    let renewed = client.init_again(&a).await;
    stage.note("renewed", error(renewed.error_code));
    stage.note("epochs further", renewed.producer_epoch - a.epoch);
    client.until_stable(&topic, 0, 2).await;
    stage.note_log("after it", &topic, 0).await;
    let now = Identity {
        epoch: renewed.producer_epoch,
        ..a.clone()
    };
    stage.note("add", error(client.add(&now, &topic).await));
    let answer = client
        .produce_in(&a.transactional_id, &topic, 0, &now.batch(&["kept"], 0))
        .await;
    stage.note("produce", placed(&answer));
    stage.note("commit", error(client.commit(&now).await));
}

async fn a_renewal_with_wrong_values_is_refused(stage: &mut Stage) {
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    let cases = [
        ("another producer id", a.producer_id + 1_000_000, a.epoch),
        ("a future epoch", a.producer_id, a.epoch + 5),
        ("an id without an epoch", a.producer_id, -1),
        ("an epoch without an id", -1, a.epoch),
    ];
    for (what, producer_id, epoch) in cases {
        let request = Client::init_request(Some(&a.transactional_id), 60_000, producer_id, epoch);
        let answer = client.init_as(4, &request).await;
        stage.note(what, error(answer.error_code));
    }
    let unknown = stage.name("transactional-id");
    client.until_coordinated(Coordinator::Transaction, &unknown).await;
    let request = Client::init_request(Some(&unknown), 60_000, a.producer_id, a.epoch);
    let answer = client.init_as(4, &request).await;
    stage.note(
        "an id and epoch for an unknown transactional id",
        error(answer.error_code),
    );
}

async fn initialising_checks_its_values(stage: &mut Stage) {
    let mut client = stage.client().await;
    let id = stage.name("transactional-id");
    client.until_coordinated(Coordinator::Transaction, &id).await;
    for timeout_ms in [-1, 0, 1, 900_000, 900_001] {
        let request = Client::init_request(Some(&id), timeout_ms, -1, -1);
        let answer = client.init_as(4, &request).await;
        stage.note(format!("a time-out of {timeout_ms} ms"), error(answer.error_code));
    }
    let request = Client::init_request(Some(""), 60_000, -1, -1);
    let answer = client.init_as(4, &request).await;
    stage.note("an empty transactional id", error(answer.error_code));
}

async fn every_initialisation_raises_the_epoch(stage: &mut Stage) {
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    for _ in 0..3 {
        let next = client.init(&a.transactional_id).await;
        stage.note("the same id", next.producer_id == a.producer_id);
        stage.note("epochs further", next.epoch - a.epoch);
    }
}

async fn a_producer_without_transactions_gets_fresh_ids(stage: &mut Stage) {
    let mut client = stage.client().await;
    let request = Client::init_request(None, 60_000, -1, -1);
    let first = client.init_as(4, &request).await;
    let second = client.init_as(4, &request).await;
    stage.note(
        "first",
        format!("{}, epoch {}", error(first.error_code), first.producer_epoch),
    );
    stage.note(
        "second",
        format!("{}, epoch {}", error(second.error_code), second.producer_epoch),
    );
    stage.note("the same id", first.producer_id == second.producer_id);
}

/// How often something that is a matter of milliseconds is tried.
const TRIES: i32 = 50;

async fn adding_right_after_an_end_is_too_early(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    let mut answers = Vec::new();
    client.add(&a, &topic).await;
    for sequence in 0..TRIES {
        client
            .produce_in(&a.transactional_id, &topic, 0, &a.batch(&["x"], sequence))
            .await;
        client.commit(&a).await;
        answers.push(client.add_at_once(&a, &topic).await);
        assert_eq!(client.add(&a, &topic).await, 0, "later it is let in");
    }
    stage.note(
        "CONCURRENT_TRANSACTIONS was seen",
        answers.contains(&crate::client::CONCURRENT_TRANSACTIONS),
    );
    answers.retain(|code| *code != 0 && *code != crate::client::CONCURRENT_TRANSACTIONS);
    stage.note("other errors", answers.len());
}

async fn ending_again_while_the_end_is_written(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    let (mut same, mut other) = (Vec::new(), Vec::new());
    for round in 0..TRIES {
        client.add(&a, &topic).await;
        client.commit(&a).await;
        let repeats = round % 2 == 0;
        let answer = client.call(3, &Client::end_request(&a, repeats)).await;
        if repeats { &mut same } else { &mut other }.push(error(answer.error_code));
    }
    stage.note(
        "while committing, a commit",
        seen_of(&same, &["NONE", "CONCURRENT_TRANSACTIONS"]),
    );
    stage.note(
        "while committing, an abort",
        seen_of(&other, &["INVALID_TXN_STATE", "CONCURRENT_TRANSACTIONS"]),
    );
}

/// Which answers were not among those that are allowed.
fn seen_of(answers: &[String], allowed: &[&str]) -> String {
    let others: Vec<&str> = answers
        .iter()
        .map(String::as_str)
        .filter(|answer| !allowed.contains(answer))
        .collect();
    if others.is_empty() {
        return format!("only {}", allowed.join(" and "));
    }
    format!("also {}", others.join(", "))
}
