//! Offsets of a group that are committed in a transaction.

use crate::client::{Client, Coordinator, Identity, Joined, Member, error};
use crate::scenarios;
use crate::stage::Stage;
use crate::transactions::producer;

scenarios! {
    offsets_show_after_the_commit: "An offset in an open transaction is unstable, and is there after the commit.";
    offsets_are_dropped_on_abort: "After an abort the offset from before counts.";
    the_last_offset_of_a_transaction_counts: "Several offsets of one partition in one transaction.";
    offsets_of_a_new_instance: "A second instance aborts the offsets of the first one.";
    offsets_of_a_transaction_that_timed_out: "The coordinator's abort drops the offsets too.";
    a_plain_commit_beside_a_transaction: "A plain OffsetCommit while a transaction holds an offset; the later one counts.";
    two_transactions_hold_offsets_of_one_group: "The offset is unstable until both have ended; the last commit counts.";
    a_member_must_be_of_the_generation: "TxnOffsetCommit 3 checks member, generation and instance.";
    a_group_that_was_not_added: "TxnOffsetCommit without AddOffsetsToTxn.";
    offsets_of_wrong_producers: "TxnOffsetCommit with a wrong id, an old epoch, for unknown topics.";
    offsets_without_records: "A transaction with offsets only.";
}

/// A producer with the group added.
async fn begun(stage: &mut Stage, client: &mut Client, group: &str) -> Identity {
    client.until_coordinated(Coordinator::Group, group).await;
    let a = producer(stage, client, "A").await;
    assert_eq!(client.add_offsets(&a, group).await, 0);
    a
}

async fn note_offsets(stage: &mut Stage, client: &mut Client, what: &str, group: &str, topic: &str) {
    for (require_stable, how) in [(false, "any"), (true, "stable")] {
        let seen = client.committed(group, topic, require_stable).await;
        stage.note(format!("{what}, {how}"), seen);
    }
}

async fn offsets_show_after_the_commit(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    let a = begun(stage, &mut client, &group).await;
    note_offsets(stage, &mut client, "group added", &group, &topic).await;
    let answer = client
        .commit_offset_in(&a, &group, &Member::nobody(), &topic, 7)
        .await;
    stage.note("commit offset 7", error(answer));
    note_offsets(stage, &mut client, "open", &group, &topic).await;
    stage.note("commit", error(client.commit(&a).await));
    client.committed_when_stable(&group, &topic).await;
    note_offsets(stage, &mut client, "committed", &group, &topic).await;
}

async fn offsets_are_dropped_on_abort(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    let nobody = Member::nobody();
    let committed = client.commit_offset(&group, &nobody, &topic, 3).await;
    stage.note("plain commit of 3", error(committed));
    let a = begun(stage, &mut client, &group).await;
    client.commit_offset_in(&a, &group, &nobody, &topic, 7).await;
    note_offsets(stage, &mut client, "open", &group, &topic).await;
    stage.note("abort", error(client.abort(&a).await));
    client.committed_when_stable(&group, &topic).await;
    note_offsets(stage, &mut client, "aborted", &group, &topic).await;
}

async fn the_last_offset_of_a_transaction_counts(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    let a = begun(stage, &mut client, &group).await;
    for offset in [7, 9, 8] {
        let answer = client
            .commit_offset_in(&a, &group, &Member::nobody(), &topic, offset)
            .await;
        stage.note(format!("commit offset {offset}"), error(answer));
    }
    client.commit(&a).await;
    let seen = client.committed_when_stable(&group, &topic).await;
    stage.note("committed", seen);
}

async fn offsets_of_a_new_instance(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    let nobody = Member::nobody();
    let old = begun(stage, &mut client, &group).await;
    client.commit_offset_in(&old, &group, &nobody, &topic, 7).await;
    let new = client.init(&old.transactional_id).await;
    let seen = client.committed_when_stable(&group, &topic).await;
    stage.note("after the second instance came", seen);
    let answer = client.commit_offset_in(&old, &group, &nobody, &topic, 8).await;
    stage.note("the old one commits an offset", error(answer));
    stage.note("the new one adds", error(client.add_offsets(&new, &group).await));
    let answer = client.commit_offset_in(&old, &group, &nobody, &topic, 8).await;
    stage.note(
        "the old one commits an offset in the new one's transaction",
        error(answer),
    );
    let answer = client.commit_offset_in(&new, &group, &nobody, &topic, 9).await;
    stage.note("the new one commits an offset", error(answer));
    stage.note("commit", error(client.commit(&new).await));
    let seen = client.committed_when_stable(&group, &topic).await;
    stage.note("at the end", seen);
}

async fn offsets_of_a_transaction_that_timed_out(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    client.until_coordinated(Coordinator::Group, &group).await;
    let id = stage.name("transactional-id");
    let a = client.init_with_timeout(&id, 500).await;
    client.add_offsets(&a, &group).await;
    client
        .commit_offset_in(&a, &group, &Member::nobody(), &topic, 7)
        .await;
    let seen = client.committed_when_stable(&group, &topic).await;
    stage.note("after the time-out", seen);
    stage.note("commit", error(client.commit(&a).await));
}

async fn a_plain_commit_beside_a_transaction(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    let nobody = Member::nobody();
    let a = begun(stage, &mut client, &group).await;
    client.commit_offset_in(&a, &group, &nobody, &topic, 7).await;
    let answer = client.commit_offset(&group, &nobody, &topic, 4).await;
    stage.note("a plain commit of 4", error(answer));
    note_offsets(stage, &mut client, "open", &group, &topic).await;
    client.commit(&a).await;
    let seen = client.committed_when_stable(&group, &topic).await;
    stage.note("after the commit", seen);
}

async fn two_transactions_hold_offsets_of_one_group(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    let nobody = Member::nobody();
    let a = begun(stage, &mut client, &group).await;
    let b = begun(stage, &mut client, &group).await;
    let answer = client.commit_offset_in(&a, &group, &nobody, &topic, 7).await;
    stage.note("A", error(answer));
    let answer = client.commit_offset_in(&b, &group, &nobody, &topic, 5).await;
    stage.note("B", error(answer));
    stage.note("A commits", error(client.commit(&a).await));
    let request = Client::offset_fetch_request(&group, &topic, false);
    client
        .until(8, &request, |answer| {
            answer.groups[0].topics[0].partitions[0].committed_offset == 7
        })
        .await;
    note_offsets(stage, &mut client, "B is open", &group, &topic).await;
    stage.note("B commits", error(client.commit(&b).await));
    let seen = client.committed_when_stable(&group, &topic).await;
    stage.note("both ended", seen);
}

async fn a_member_must_be_of_the_generation(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    let member = client.only_member(&Joined::new(&group, &topic)).await;
    let a = begun(stage, &mut client, &group).await;
    let cases = [
        ("the member", member.clone()),
        (
            "an older generation",
            Member {
                generation: member.generation - 1,
                ..member.clone()
            },
        ),
        (
            "a future generation",
            Member {
                generation: member.generation + 1,
                ..member.clone()
            },
        ),
        (
            "an unknown member",
            Member {
                id: "stranger".to_owned(),
                ..member.clone()
            },
        ),
        (
            "an unknown instance",
            Member {
                instance: Some("stranger".to_owned()),
                ..member.clone()
            },
        ),
        ("nobody", Member::nobody()),
        (
            "a member without a generation",
            Member {
                generation: -1,
                ..member.clone()
            },
        ),
    ];
    for (what, member) in cases {
        let answer = client.commit_offset_in(&a, &group, &member, &topic, 7).await;
        stage.note(what, error(answer));
    }
    for version in [0, 2] {
        let answer = client
            .commit_offset_as(version, &a, &group, &member, (&topic, 0, 8))
            .await;
        stage.note(
            format!("version {version}, which knows no members"),
            error(answer),
        );
    }
}

async fn a_group_that_was_not_added(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    client.until_coordinated(Coordinator::Group, &group).await;
    let a = producer(stage, &mut client, "A").await;
    let nobody = Member::nobody();
    let answer = client.commit_offset_in(&a, &group, &nobody, &topic, 7).await;
    stage.note("no transaction", error(answer));
    let a = producer(stage, &mut client, "A").await;
    client.add(&a, &topic).await;
    let answer = client.commit_offset_in(&a, &group, &nobody, &topic, 7).await;
    stage.note("a transaction without the group", error(answer));
    stage.note("commit", error(client.commit(&a).await));
}

async fn offsets_of_wrong_producers(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    let nobody = Member::nobody();
    let a = begun(stage, &mut client, &group).await;
    let wrong = Identity {
        producer_id: a.producer_id + 1_000_000,
        ..a.clone()
    };
    let answer = client.commit_offset_in(&wrong, &group, &nobody, &topic, 7).await;
    stage.note("a wrong producer id", error(answer));
    let future = Identity {
        epoch: a.epoch + 3,
        ..a.clone()
    };
    let answer = client.commit_offset_in(&future, &group, &nobody, &topic, 7).await;
    stage.note("a future epoch", error(answer));
    let missing = stage.name("missing");
    let answer = client.commit_offset_in(&a, &group, &nobody, &missing, 7).await;
    stage.note("an unknown topic", error(answer));
    let answer = client
        .commit_offset_as(3, &a, &group, &nobody, (&topic, 9, 7))
        .await;
    stage.note("an unknown partition", error(answer));
}

async fn offsets_without_records(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    let nobody = Member::nobody();
    for offset in 1..=3 {
        let a = begun(stage, &mut client, &group).await;
        client.commit_offset_in(&a, &group, &nobody, &topic, offset).await;
        stage.note("commit", error(client.commit(&a).await));
        let seen = client.committed_when_stable(&group, &topic).await;
        stage.note("committed", seen);
    }
    stage.note_log("the topic", &topic, 0).await;
}
