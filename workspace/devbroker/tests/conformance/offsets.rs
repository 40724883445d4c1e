//! Finding offsets, and committing those of a group.

use crate::batches::Batch;
use crate::client::{Client, Isolation, Joined, Member, error, found_at};
use crate::scenarios;
use crate::stage::Stage;

scenarios! {
    the_ends_of_a_log: "Earliest and latest, before and after records are deleted.";
    offsets_by_time: "The first record at or after a time, inside batches too.";
    offsets_by_time_when_times_go_back: "The first offset counts whose record is late enough, not the earliest time.";
    the_largest_time: "The record with the largest time, the first of several.";
    finding_offsets_of_the_unknown: "ListOffsets of topics and partitions that do not exist, and special times.";
    the_end_of_a_leader_epoch: "OffsetForLeaderEpoch of the current epoch, an unknown one, and none.";
    a_group_without_members_takes_offsets: "OffsetCommit of nobody, and what OffsetFetch gives.";
    commits_of_members_are_checked: "OffsetCommit with a wrong member, generation or instance.";
    commits_for_unknown_partitions: "OffsetCommit for what does not exist.";
    all_offsets_of_a_group: "OffsetFetch without topics gives all, and nothing for an unknown group.";
}

async fn the_ends_of_a_log(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    for what in ["empty", "three records", "one deleted", "all deleted"] {
        match what {
            "three records" => drop(client.produce(&topic, &Batch::of(&["a", "b", "c"])).await),
            "one deleted" => drop(client.delete_records(&topic, 1).await),
            "all deleted" => drop(client.delete_records(&topic, -1).await),
            _ => {}
        }
        for (name, timestamp) in [("earliest", -2), ("latest", -1)] {
            let found = client
                .list_offsets(&topic, timestamp, Isolation::Uncommitted)
                .await;
            stage.note(format!("{what}, {name}"), found_at(&found));
        }
    }
}

/// Notes what is found for each of the times.
async fn note_times(stage: &mut Stage, topic: &str, times: &[i64]) {
    let mut client = stage.client().await;
    for after_ms in times {
        let time = crate::batches::moment(*after_ms);
        let found = client.list_offsets(topic, time, Isolation::Uncommitted).await;
        stage.note(format!("time {after_ms}"), found_at(&found));
    }
}

async fn offsets_by_time(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    for (base, codec) in [
        (0, kafka_protocol::records::Compression::None),
        (100, kafka_protocol::records::Compression::Zstd),
        (200, kafka_protocol::records::Compression::Gzip),
    ] {
        let batch = Batch::of(&["a", "b", "c"]).at(base).packed(codec);
        client.produce(&topic, &batch).await;
    }
    note_times(stage, &topic, &[-5, 0, 1, 2, 3, 100, 101, 103, 202, 203]).await;
}

async fn offsets_by_time_when_times_go_back(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    for base in [500, 100, 300, 700] {
        client.produce(&topic, &Batch::of(&["a", "b"]).at(base)).await;
    }
    note_times(stage, &topic, &[0, 100, 301, 501, 502, 701, 702]).await;
}

async fn the_largest_time(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    let empty = client.list_offsets(&topic, -3, Isolation::Uncommitted).await;
    stage.note("empty", found_at(&empty));
    for base in [10, 40, 20, 40] {
        client.produce(&topic, &Batch::of(&["a", "b"]).at(base)).await;
    }
    let found = client.list_offsets(&topic, -3, Isolation::Uncommitted).await;
    stage.note("four batches", found_at(&found));
}

async fn finding_offsets_of_the_unknown(stage: &mut Stage) {
    let (topic, missing) = (stage.topic(1).await, stage.name("missing"));
    let mut client = stage.client().await;
    for (what, topic, partition) in [
        ("an unknown topic", &missing, 0),
        ("an unknown partition", &topic, 1),
    ] {
        let request = Client::list_offsets_request(topic, partition, -1, Isolation::Uncommitted);
        let answer = client.call(7, &request).await;
        stage.note(what, found_at(&answer.topics[0].partitions[0]));
    }
    for epoch in [0, 1] {
        let mut request = Client::list_offsets_request(&topic, 0, -1, Isolation::Uncommitted);
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        let answer = client.call(7, &request).await;
        stage.note(
            format!("epoch {epoch}"),
            found_at(&answer.topics[0].partitions[0]),
        );
    }
}

async fn the_end_of_a_leader_epoch(stage: &mut Stage) {
    use kafka_protocol::messages::OffsetForLeaderEpochRequest;
    use kafka_protocol::messages::offset_for_leader_epoch_request::{
        OffsetForLeaderPartition, OffsetForLeaderTopic,
    };
    let topic = stage.topic(1).await;
    let mut client = stage.client().await;
    client.produce(&topic, &Batch::of(&["a", "b"])).await;
    for (partition, epoch) in [(0, 0), (0, 5), (0, -1), (3, 0)] {
        let asked = OffsetForLeaderPartition::default()
            .with_partition(partition)
            .with_current_leader_epoch(-1)
            .with_leader_epoch(epoch);
        let topics = OffsetForLeaderTopic::default()
            .with_topic(crate::client::topic_name(&topic))
            .with_partitions(vec![asked]);
        let request = OffsetForLeaderEpochRequest::default()
            .with_replica_id(kafka_protocol::messages::BrokerId(-1))
            .with_topics(vec![topics]);
        let answer = client.call(4, &request).await;
        let end = &answer.topics[0].partitions[0];
        stage.note(
            format!("partition {partition}, epoch {epoch}"),
            format!(
                "{}, epoch {}, end {}",
                error(end.error_code),
                end.leader_epoch,
                end.end_offset
            ),
        );
    }
}

async fn a_group_without_members_takes_offsets(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    let seen = client.committed(&group, &topic, false).await;
    stage.note("before", seen);
    let nobody = Member::nobody();
    for offset in [5, 3, 0] {
        let code = client.commit_offset(&group, &nobody, &topic, offset).await;
        stage.note(format!("commit {offset}"), error(code));
        let seen = client.committed(&group, &topic, true).await;
        stage.note("committed", seen);
    }
}

async fn commits_of_members_are_checked(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    let member = client
        .only_member(&Joined::new(&group, &topic).of_instance("desk-1"))
        .await;
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
                instance: None,
                ..member.clone()
            },
        ),
        (
            "another member for the instance",
            Member {
                id: "stranger".to_owned(),
                ..member.clone()
            },
        ),
        (
            "an unknown instance",
            Member {
                instance: Some("desk-2".to_owned()),
                ..member.clone()
            },
        ),
        ("nobody", Member::nobody()),
    ];
    for (offset, (what, member)) in cases.into_iter().enumerate() {
        let code = client.commit_offset(&group, &member, &topic, offset as i64).await;
        stage.note(what, error(code));
    }
    let seen = client.committed(&group, &topic, true).await;
    stage.note("committed", seen);
    let left = client.leave(&group, &[(&member.id, Some("desk-1"))]).await;
    stage.note("leave", error(left.error_code));
    let code = client.commit_offset(&group, &member, &topic, 9).await;
    stage.note("the member after it left", error(code));
    let code = client.commit_offset(&group, &Member::nobody(), &topic, 9).await;
    stage.note("nobody after it left", error(code));
}

async fn commits_for_unknown_partitions(stage: &mut Stage) {
    let (topic, missing, group) = (stage.topic(1).await, stage.name("missing"), stage.name("group"));
    let mut client = stage.client().await;
    let nobody = Member::nobody();
    for (what, topic, partition) in [
        ("an unknown topic", &missing, 0),
        ("an unknown partition", &topic, 7),
    ] {
        let code = client
            .commit_offset_of(&group, &nobody, topic, partition, 1)
            .await;
        stage.note(what, error(code));
    }
    let seen = client.committed(&group, &missing, false).await;
    stage.note("committed for the unknown topic", seen);
}

async fn all_offsets_of_a_group(stage: &mut Stage) {
    let (topic, group) = (stage.topic(3).await, stage.name("group"));
    let mut client = stage.client().await;
    let unknown = stage.name("group");
    client.commit_offset(&group, &Member::nobody(), &topic, 4).await;
    client
        .commit_offset_of(&group, &Member::nobody(), &topic, 2, 6)
        .await;
    for (what, group) in [("the group", &group), ("an unknown group", &unknown)] {
        let mut request = Client::offset_fetch_request(group, &topic, false);
        request.groups[0].topics = None;
        let answer = client.call(8, &request).await;
        let group = &answer.groups[0];
        let partitions = group.topics.iter().flat_map(|topic| &topic.partitions);
        let mut offsets: Vec<String> = partitions
            .map(|partition| format!("{} at {}", partition.partition_index, partition.committed_offset))
            .collect();
        offsets.sort();
        stage.note(
            what,
            format!("{}, [{}]", error(group.error_code), offsets.join(", ")),
        );
    }
}
