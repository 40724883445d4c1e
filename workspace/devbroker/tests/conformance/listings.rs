//! Groups and transactions as an administrator sees them.

use kafka_protocol::messages::{JoinGroupResponse, ListTransactionsRequest, ProducerId};

use crate::batches::Batch;
use crate::client::{Client, Joined, Member, error, text};
use crate::scenarios;
use crate::stage::Stage;
use crate::transactions::producer;

scenarios! {
    the_states_of_a_group: "A group is described and listed as empty, joining, syncing, stable, and dead.";
    a_group_of_offsets_only: "A group without members that has offsets is empty and has no protocol type.";
    groups_are_deleted: "A group with members is not deleted; an empty one takes its offsets with it.";
    offsets_of_a_group_are_deleted: "OffsetDelete spares topics that the group reads now.";
    the_states_of_a_transaction: "A transactional id is described and listed as empty, ongoing, and complete.";
    transactions_are_filtered: "By state, by producer id, and by how long they run; unknown states are named.";
    the_producers_of_a_partition: "DescribeProducers shows sequence, epoch and open transaction of each producer.";
}

async fn note_group(stage: &mut Stage, what: &str, group: &str) {
    let mut client = stage.client().await;
    let described = client.describe_group(group).await;
    let members = described.members.len();
    stage.note(
        what,
        format!(
            "{}, state {}, type `{}`, protocol `{}`, {members} members",
            error(described.error_code),
            described.group_state,
            described.protocol_type,
            described.protocol_data
        ),
    );
    let listed = client.listed_group(group, &[]).await;
    stage.note(format!("{what}, listed"), format!("{listed:?}"));
    let stable = client.listed_group(group, &["Stable", "Empty"]).await;
    stage.note(format!("{what}, listed as stable or empty"), stable.is_some());
}

async fn the_states_of_a_group(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let (mut client, mut other) = (stage.client().await, stage.client().await);
    note_group(stage, "unknown", &group).await;
    let how = Joined::new(&group, &topic);
    let (_, member) = client.join_new(&how).await;
    note_group(stage, "joined", &group).await;
    client.sync(&group, &member, &[(&member.id, "all")]).await;
    note_group(stage, "synced", &group).await;
    let id = other.join(&how).await.member_id.to_string();
    let waiting = how.of_member(&id).request();
    other.wire.send(5, &waiting).await;
    let deadline = std::time::Instant::now() + crate::wire::DEADLINE;
    while error(client.heartbeat(&group, &member).await) != "REBALANCE_IN_PROGRESS" {
        assert!(std::time::Instant::now() < deadline, "the group never rebalances");
    }
    note_group(stage, "a second member waits", &group).await;
    client.leave(&group, &[(&member.id, None)]).await;
    let joined: JoinGroupResponse = other.wire.receive(5).await;
    stage.note("the second one", error(joined.error_code));
    client.leave(&group, &[(&id, None)]).await;
    note_group(stage, "all left", &group).await;
}

async fn a_group_of_offsets_only(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    client.commit_offset(&group, &Member::nobody(), &topic, 3).await;
    note_group(stage, "offsets only", &group).await;
}

async fn groups_are_deleted(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    let member = client.only_member(&Joined::new(&group, &topic)).await;
    client.commit_offset(&group, &member, &topic, 3).await;
    let code = client.delete_group(&group).await;
    stage.note("with a member", error(code));
    client.leave(&group, &[(&member.id, None)]).await;
    let seen = client.committed(&group, &topic, true).await;
    stage.note("committed", seen);
    let code = client.delete_group(&group).await;
    stage.note("empty", error(code));
    let code = client.delete_group(&group).await;
    stage.note("again", error(code));
    let seen = client.committed(&group, &topic, true).await;
    stage.note("committed", seen);
    let unknown = stage.name("group");
    let code = client.delete_group(&unknown).await;
    stage.note("an unknown group", error(code));
}

async fn offsets_of_a_group_are_deleted(stage: &mut Stage) {
    let (topic, other, group) = (stage.topic(1).await, stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    let member = client.only_member(&Joined::new(&group, &topic)).await;
    for topic in [&topic, &other] {
        client.commit_offset(&group, &member, topic, 3).await;
    }
    for (what, topic) in [("a topic that is read", &topic), ("another topic", &other)] {
        let answer = client.delete_offset(&group, topic).await;
        let code = answer.topics[0].partitions[0].error_code;
        stage.note(what, error(code));
        let seen = client.committed(&group, topic, true).await;
        stage.note("committed", seen);
    }
    client.leave(&group, &[(&member.id, None)]).await;
    let answer = client.delete_offset(&group, &topic).await;
    stage.note(
        "without members",
        error(answer.topics[0].partitions[0].error_code),
    );
    let seen = client.committed(&group, &topic, true).await;
    stage.note("committed", seen);
    let unknown = stage.name("group");
    let answer = client.delete_offset(&unknown, &topic).await;
    stage.note("an unknown group", error(answer.error_code));
}

async fn note_transaction(stage: &mut Stage, client: &mut Client, what: &str, id: &str, topic: &str) {
    let described = client.describe_transaction(id).await;
    let topics = described.topics.iter().map(|one| {
        let name = if *one.topic.0 == *topic {
            "the topic"
        } else {
            "another topic"
        };
        let mut partitions = one.partitions.clone();
        partitions.sort_unstable();
        format!("{name} {partitions:?}")
    });
    let topics: Vec<String> = topics.collect();
    stage.note(
        what,
        format!(
            "{}, state {}, time-out {} ms, begun {}, [{}]",
            error(described.error_code),
            described.transaction_state,
            described.transaction_timeout_ms,
            described.transaction_start_time_ms > 0,
            topics.join(", ")
        ),
    );
    let listed = client.listed_transaction(id, &[]).await;
    stage.note(format!("{what}, listed"), format!("{listed:?}"));
    let ongoing = client.listed_transaction(id, &["Ongoing"]).await;
    stage.note(format!("{what}, listed as ongoing"), ongoing.is_some());
}

async fn the_states_of_a_transaction(stage: &mut Stage) {
    let topic = stage.topic(2).await;
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    let id = a.transactional_id.clone();
    note_transaction(stage, &mut client, "initialised", &id, &topic).await;
    client.add_as(3, &Client::add_request(&a, &topic, &[0, 1])).await;
    note_transaction(stage, &mut client, "open", &id, &topic).await;
    client.commit(&a).await;
    client.until_stable(&topic, 1, 1).await;
    until_complete(&mut client, &id).await;
    note_transaction(stage, &mut client, "committed", &id, &topic).await;
    client.add(&a, &topic).await;
    client.abort(&a).await;
    client.until_stable(&topic, 0, 2).await;
    until_complete(&mut client, &id).await;
    note_transaction(stage, &mut client, "aborted", &id, &topic).await;
    let unknown = stage.name("transactional-id");
    note_transaction(stage, &mut client, "unknown", &unknown, &topic).await;
}

/// Waits until the coordinator knows that all markers are written.
async fn until_complete(client: &mut Client, id: &str) {
    let deadline = std::time::Instant::now() + crate::wire::DEADLINE;
    while !client
        .describe_transaction(id)
        .await
        .transaction_state
        .starts_with("Complete")
    {
        assert!(
            std::time::Instant::now() < deadline,
            "the transaction never completes"
        );
    }
}

async fn transactions_are_filtered(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let a = producer(stage, &mut client, "A").await;
    client.add(&a, &topic).await;
    let own = || ListTransactionsRequest::default().with_duration_filter(-1);
    let states = |states: &[&str]| own().with_state_filters(states.iter().map(|state| text(state)).collect());
    let producers =
        |ids: &[i64]| own().with_producer_id_filters(ids.iter().map(|id| ProducerId(*id)).collect());
    let cases = [
        ("ongoing", states(&["Ongoing"])),
        ("empty", states(&["Empty"])),
        ("ongoing or unknown", states(&["Ongoing", "Sleeping"])),
        ("unknown", states(&["Sleeping"])),
        ("its producer id", producers(&[a.producer_id])),
        ("another producer id", producers(&[a.producer_id + 1_000_000])),
        ("running for 0 ms", own().with_duration_filter(0)),
        ("running for an hour", own().with_duration_filter(3_600_000)),
    ];
    // It must have run for a while.
    client
        .produce_in(&a.transactional_id, &topic, 0, &a.batch(&["x"], 0))
        .await;
    for (what, request) in cases {
        let answer = client.call(1, &request).await;
        let mut listed = answer.transaction_states.iter();
        let is_listed = listed.any(|listed| *listed.transactional_id.0 == *a.transactional_id);
        let unknown = answer.unknown_state_filters.iter().map(|state| state.as_str());
        stage.note(
            what,
            format!(
                "listed {is_listed}, unknown states {:?}",
                unknown.collect::<Vec<_>>()
            ),
        );
    }
}

async fn note_producers(stage: &mut Stage, what: &str, topic: &str) {
    let mut client = stage.client().await;
    let described = client.producers(topic, 0).await;
    stage.note(what, error(described.error_code));
    let mut lines: Vec<String> = described
        .active_producers
        .iter()
        .map(|one| {
            format!(
                "{}: epoch {}, last sequence {}, transaction from {}",
                stage.producer(one.producer_id.0),
                one.producer_epoch,
                one.last_sequence,
                one.current_txn_start_offset
            )
        })
        .collect();
    lines.sort();
    for line in lines {
        stage.note(what, line);
    }
}

async fn the_producers_of_a_partition(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    note_producers(stage, "empty", &topic).await;
    client.produce(&topic, &Batch::of(&["plain"])).await;
    note_producers(stage, "a plain record", &topic).await;
    let a = producer(stage, &mut client, "A").await;
    client.add(&a, &topic).await;
    client
        .produce_in(&a.transactional_id, &topic, 0, &a.batch(&["x", "y"], 0))
        .await;
    let request = Client::init_request(None, 60_000, -1, -1);
    let b = client.init_as(4, &request).await.producer_id.0;
    stage.named(b, "B");
    client.produce(&topic, &Batch::of(&["z"]).numbered(b, 0, 0)).await;
    note_producers(stage, "A is open, B idempotent", &topic).await;
    client.commit(&a).await;
    client.until_stable(&topic, 0, 5).await;
    note_producers(stage, "A committed", &topic).await;
    let missing = stage.name("missing");
    note_producers(stage, "an unknown topic", &missing).await;
}
