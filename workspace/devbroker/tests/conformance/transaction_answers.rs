//! What each state of a transaction answers to each request, said by the right producer and others.

use crate::client::{Client, Coordinator, Identity, Member, error, errors};
use crate::scenarios;
use crate::stage::Stage;
use crate::transactions::producer;

scenarios! {
    answers_when_nothing_was_begun: "All requests to a transactional id that was only initialised.";
    answers_in_an_open_transaction: "All requests while a transaction is open.";
    answers_after_a_commit: "All requests after a commit: a repeated commit succeeds, an abort does not.";
    answers_after_an_abort: "All requests after an abort: a repeated abort succeeds, a commit does not.";
    answers_to_an_unknown_transactional_id: "All requests of an id that was never initialised.";
    older_versions_name_old_epochs_otherwise: "Versions without PRODUCER_FENCED say INVALID_PRODUCER_EPOCH.";
    an_unknown_topic_adds_nothing: "AddPartitionsToTxn is all or nothing.";
    every_version_adds_partitions: "AddPartitionsToTxn 0 to 3, AddOffsetsToTxn 0 to 3 and EndTxn 0 to 3 work alike.";
    an_empty_transaction_can_end: "A transaction with a partition and no record commits and aborts.";
}

#[derive(Clone, Copy)]
enum State {
    Empty,
    Open,
    Committed,
    Aborted,
}

const REQUESTS: [&str; 6] = [
    "add partitions",
    "add offsets",
    "commit offsets",
    "commit",
    "abort",
    "init",
];

/// A producer whose transaction is in that state.
async fn brought_to(stage: &mut Stage, client: &mut Client, topic: &str, state: State) -> Identity {
    let identity = producer(stage, client, "A").await;
    if matches!(state, State::Empty) {
        return identity;
    }
    assert_eq!(client.add(&identity, topic).await, 0);
    match state {
        State::Committed => assert_eq!(client.commit(&identity).await, 0),
        State::Aborted => assert_eq!(client.abort(&identity).await, 0),
        State::Empty | State::Open => {}
    }
    identity
}

async fn answer(client: &mut Client, request: &str, who: &Identity, topic: &str, group: &str) -> String {
    match request {
        "add partitions" => error(client.add(who, topic).await),
        "add offsets" => error(client.add_offsets(who, group).await),
        "commit offsets" => {
            let nobody = Member::nobody();
            error(client.commit_offset_in(who, group, &nobody, topic, 5).await)
        }
        "commit" => error(client.commit(who).await),
        "abort" => error(client.abort(who).await),
        _ => {
            let answer = client.init_again(who).await;
            if answer.error_code == 0 {
                format!("NONE, epochs further {}", answer.producer_epoch - who.epoch)
            } else {
                error(answer.error_code)
            }
        }
    }
}

/// Each request in the state, said by the right producer and by wrong ones, each on a new id.
async fn answers(stage: &mut Stage, state: State) {
    let topic = stage.topic(1).await;
    let group = stage.name("group");
    let mut client = stage.client().await;
    client.until_coordinated(Coordinator::Group, &group).await;
    for request in REQUESTS {
        for wrong in ["right", "wrong id", "old epoch", "future epoch"] {
            let mut who = brought_to(stage, &mut client, &topic, state).await;
            match wrong {
                "wrong id" => who.producer_id += 1_000_000,
                "old epoch" => {
                    let new = client.init(&who.transactional_id).await;
                    assert!(new.epoch > who.epoch);
                    let id = who.transactional_id.clone();
                    restore(&mut client, &id, &topic, new, state).await;
                }
                "future epoch" => who.epoch += 3,
                _ => {}
            }
            let seen = answer(&mut client, request, &who, &topic, &group).await;
            stage.note(format!("{request}, {wrong}"), seen);
        }
    }
}

/// Brings the new instance to the state in which the old one was.
async fn restore(client: &mut Client, id: &str, topic: &str, new: Identity, state: State) {
    if matches!(state, State::Empty) {
        return;
    }
    assert_eq!(new.transactional_id, id);
    assert_eq!(client.add(&new, topic).await, 0);
    match state {
        State::Committed => assert_eq!(client.commit(&new).await, 0),
        State::Aborted => assert_eq!(client.abort(&new).await, 0),
        State::Empty | State::Open => {}
    }
}

async fn answers_when_nothing_was_begun(stage: &mut Stage) {
    answers(stage, State::Empty).await;
}

async fn answers_in_an_open_transaction(stage: &mut Stage) {
    answers(stage, State::Open).await;
}

async fn answers_after_a_commit(stage: &mut Stage) {
    answers(stage, State::Committed).await;
}

async fn answers_after_an_abort(stage: &mut Stage) {
    answers(stage, State::Aborted).await;
}

async fn answers_to_an_unknown_transactional_id(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let group = stage.name("group");
    let mut client = stage.client().await;
    client.until_coordinated(Coordinator::Group, &group).await;
    let known = producer(stage, &mut client, "A").await;
    for request in REQUESTS {
        let unknown = Identity {
            transactional_id: stage.name("transactional-id"),
            ..known.clone()
        };
        let seen = answer(&mut client, request, &unknown, &topic, &group).await;
        stage.note(request, seen);
    }
    let nameless = Identity {
        transactional_id: String::new(),
        ..known
    };
    for request in ["add partitions", "add offsets", "commit"] {
        let seen = answer(&mut client, request, &nameless, &topic, &group).await;
        stage.note(format!("{request} without a name"), seen);
    }
}

async fn older_versions_name_old_epochs_otherwise(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let group = stage.name("group");
    let mut client = stage.client().await;
    client.until_coordinated(Coordinator::Group, &group).await;
    let old = producer(stage, &mut client, "A").await;
    client.init(&old.transactional_id).await;
    let new = client.init(&old.transactional_id).await;
    client.add(&new, &topic).await;
    for version in 0..=3 {
        let added = client
            .add_as(version, &Client::add_request(&old, &topic, &[0]))
            .await;
        stage.note(format!("AddPartitionsToTxn {version}"), errors(added));
        let added = client.add_offsets_as(version, &old, &group).await;
        stage.note(format!("AddOffsetsToTxn {version}"), error(added));
        let ended = client.end_as(version, &old, true).await;
        stage.note(format!("EndTxn {version}"), error(ended));
    }
    for version in 3..=4 {
        let request = Client::init_request(Some(&old.transactional_id), 60_000, old.producer_id, old.epoch);
        let answer = client.init_as(version, &request).await;
        stage.note(format!("InitProducerId {version}"), error(answer.error_code));
    }
}

async fn an_unknown_topic_adds_nothing(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let missing = stage.name("missing");
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    let mut request = Client::add_request(&a, &topic, &[0, 7]);
    let codes = client.add_as(3, &request).await;
    stage.note("partitions 0 and 7 of 1", errors(codes));
    request = Client::add_request(&a, &missing, &[0]);
    let codes = client.add_as(3, &request).await;
    stage.note("an unknown topic", errors(codes));
    let both = [&topic, &missing].map(|topic| {
        let request = Client::add_request(&a, topic, &[0]);
        request.v3_and_below_topics[0].clone()
    });
    request.v3_and_below_topics = both.to_vec();
    let mut codes = client.call(3, &request).await.results_by_topic_v3_and_below;
    // The order of the topics in the answer is nobody's promise.
    codes.sort_by_key(|result| *result.name != *topic);
    let codes = codes
        .iter()
        .map(|topic| topic.results_by_partition[0].partition_error_code);
    stage.note("a known and an unknown topic", errors(codes));
    let answer = client
        .produce_in(&a.transactional_id, &topic, 0, &a.batch(&["x"], 0))
        .await;
    stage.note("produce to the known one", crate::client::placed(&answer));
    stage.note("commit", error(client.commit(&a).await));
}

async fn every_version_adds_partitions(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let group = stage.name("group");
    let mut client = stage.client().await;
    client.until_coordinated(Coordinator::Group, &group).await;
    for version in 0..=3 {
        let a = producer(stage, &mut client, "A").await;
        let added = client
            .add_as(version, &Client::add_request(&a, &topic, &[0]))
            .await;
        stage.note(format!("AddPartitionsToTxn {version}"), errors(added));
        let added = client.add_offsets_as(version, &a, &group).await;
        stage.note(format!("AddOffsetsToTxn {version}"), error(added));
        let nobody = Member::nobody();
        let committed = client
            .commit_offset_as(version, &a, &group, &nobody, (&topic, 0, 1))
            .await;
        stage.note(format!("TxnOffsetCommit {version}"), error(committed));
        let ended = client.end_as(version, &a, true).await;
        stage.note(format!("EndTxn {version}"), error(ended));
    }
}

async fn an_empty_transaction_can_end(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    for (committed, end) in [(true, 1), (false, 2)] {
        stage.note("add", error(client.add(&a, &topic).await));
        stage.note("end", error(client.end(&a, committed).await));
        client.until_stable(&topic, 0, end).await;
    }
    stage.note_log("at the end", &topic, 0).await;
}
