//! The classic group protocol, request by request.

use std::time::{Duration, Instant};

use kafka_protocol::messages::{JoinGroupResponse, SyncGroupResponse};

use crate::client::{Client, Coordinator, Joined, Member, error};
use crate::scenarios;
use crate::stage::Stage;

scenarios! {
    a_first_member_joins_and_leads: "The first join gives a member id, the second one generation 1 and the leadership.";
    joining_checks_its_values: "Session time-outs, protocols, unknown members and empty names.";
    a_second_member_makes_a_new_generation: "The first member is told to join again; both get the assignments of the leader.";
    members_with_nothing_in_common: "A member whose protocols fit nobody is refused; the common protocol is chosen.";
    generations_fence: "Heartbeat and SyncGroup of an old, a future and an unknown member.";
    a_leader_that_joins_again_rebalances: "The leader's second join makes a new generation, a follower's one does not.";
    a_member_that_leaves: "The others are told to join again, and the leaver is unknown.";
    leaving_several_and_strangers: "LeaveGroup answers for each member.";
    a_silent_member_is_removed: "After its session time-out a member is unknown, and the others rebalance.";
    a_member_that_does_not_rejoin_is_removed: "A rebalance waits for a member no longer than the rebalance time-out.";
    a_static_member_keeps_its_place: "An instance that joins again gets its assignment back without a rebalance.";
    a_static_member_fences_its_double: "The member id that the instance had before is fenced.";
    a_static_member_leaves_by_its_name: "LeaveGroup by instance alone, and by an unknown instance.";
    a_sync_waits_for_the_leader: "Followers get their assignment when the leader has sent it.";
    a_sync_is_repeated: "SyncGroup in a stable group gives the assignment again.";
    another_protocol_type_is_refused: "A group of consumers takes no member of another type.";
}

/// Two members of one group: the leader of the second generation and the follower.
async fn pair(stage: &mut Stage, group: &str, topic: &str) -> (Pair, Pair) {
    let (mut first, mut second) = (stage.client().await, stage.client().await);
    let how = Joined::new(group, topic);
    let leader = first.only_member(&how).await;
    let id = second.join(&how).await.member_id.to_string();
    let waiting = how.clone().of_member(&id);
    second.wire.send(5, &waiting.request()).await;
    until_rebalancing(&mut first, group, &leader).await;
    let answer = first.join(&how.clone().of_member(&leader.id)).await;
    let generation = answer.generation_id;
    assert_eq!(answer.leader, answer.member_id, "the first member still leads");
    let joined: JoinGroupResponse = second.wire.receive(5).await;
    assert_eq!((joined.error_code, joined.generation_id), (0, generation));
    let member = |id: &str| Member {
        id: id.to_owned(),
        generation,
        instance: None,
    };
    let (leader, follower) = (member(&leader.id), member(&id));
    let assignments = [(leader.id.as_str(), "left"), (&follower.id, "right")];
    assert_eq!(first.sync(group, &leader, &assignments).await.error_code, 0);
    assert_eq!(second.sync(group, &follower, &[]).await.error_code, 0);
    (
        Pair {
            client: first,
            member: leader,
        },
        Pair {
            client: second,
            member: follower,
        },
    )
}

struct Pair {
    client: Client,
    member: Member,
}

/// Waits until a member is told to join again.
async fn until_rebalancing(client: &mut Client, group: &str, member: &Member) {
    let deadline = Instant::now() + crate::wire::DEADLINE;
    while error(client.heartbeat(group, member).await) != "REBALANCE_IN_PROGRESS" {
        assert!(
            Instant::now() < deadline,
            "the member was never told to join again"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn synced(answer: &SyncGroupResponse) -> String {
    if answer.error_code != 0 {
        return error(answer.error_code);
    }
    format!("assigned `{}`", String::from_utf8_lossy(&answer.assignment))
}

fn joined(answer: &JoinGroupResponse) -> String {
    if answer.error_code != 0 {
        return error(answer.error_code);
    }
    format!(
        "generation {}, protocol {}, leads {}, knows {} members",
        answer.generation_id,
        answer.protocol_name.as_deref().unwrap_or("(none)"),
        answer.leader == answer.member_id,
        answer.members.len()
    )
}

async fn a_first_member_joins_and_leads(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    let how = Joined::new(&group, &topic);
    let first = client.join(&how).await;
    stage.note("without a member id", error(first.error_code));
    stage.note("a member id comes with it", !first.member_id.is_empty());
    stage.note("generation", first.generation_id);
    let second = client.join(&how.of_member(&first.member_id)).await;
    stage.note("with the member id", joined(&second));
    let member = Member {
        id: second.member_id.to_string(),
        generation: second.generation_id,
        instance: None,
    };
    stage.note(
        "heartbeat before the sync",
        error(client.heartbeat(&group, &member).await),
    );
    let answer = client.sync(&group, &member, &[(&member.id, "all")]).await;
    stage.note("sync", synced(&answer));
    stage.note("heartbeat", error(client.heartbeat(&group, &member).await));
    // Versions before 4 let a member in without asking twice.
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    client.until_coordinated(Coordinator::Group, &group).await;
    let mut request = Joined::new(&group, &topic).request();
    request.group_instance_id = None;
    let answer = client
        .until(3, &request, |answer: &JoinGroupResponse| answer.error_code != 14)
        .await;
    stage.note("version 3 without a member id", joined(&answer));
}

async fn joining_checks_its_values(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    let good = Joined::new(&group, &topic);
    for session_timeout_ms in [0, 999, 1_800_001] {
        let answer = client
            .join(&Joined {
                session_timeout_ms,
                ..good.clone()
            })
            .await;
        stage.note(
            format!("a session time-out of {session_timeout_ms} ms"),
            error(answer.error_code),
        );
    }
    let cases = [
        (
            "no protocols",
            Joined {
                protocols: Vec::new(),
                ..good.clone()
            },
        ),
        (
            "no protocol type",
            Joined {
                protocol_type: String::new(),
                ..good.clone()
            },
        ),
        ("an unknown member", good.clone().of_member("stranger")),
    ];
    for (what, how) in cases {
        let answer = client.join(&how).await;
        stage.note(what, error(answer.error_code));
    }
    let nobody = Member::nobody();
    stage.note(
        "heartbeat of nobody",
        error(client.heartbeat(&group, &nobody).await),
    );
    let unknown = stage.name("group");
    let stranger = Member {
        id: "stranger".to_owned(),
        generation: 1,
        instance: None,
    };
    stage.note(
        "heartbeat in an unknown group",
        error(client.heartbeat(&unknown, &stranger).await),
    );
    stage.note(
        "sync in an unknown group",
        synced(&client.sync(&unknown, &stranger, &[]).await),
    );
}

async fn a_second_member_makes_a_new_generation(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let (mut left, mut right) = pair(stage, &group, &topic).await;
    stage.note("generation", left.member.generation);
    for (name, who) in [("leader", &mut left), ("follower", &mut right)] {
        stage.note(
            format!("{name}, heartbeat"),
            error(who.client.heartbeat(&group, &who.member).await),
        );
        let answer = who.client.sync(&group, &who.member, &[]).await;
        stage.note(format!("{name}, sync"), synced(&answer));
    }
}

async fn members_with_nothing_in_common(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let (mut first, mut second) = (stage.client().await, stage.client().await);
    let how = |protocols: &[&str]| Joined {
        protocols: protocols.iter().map(|name| (*name).to_owned()).collect(),
        ..Joined::new(&group, &topic)
    };
    let (answer, leader) = first.join_new(&how(&["sticky", "range"])).await;
    stage.note("alone", joined(&answer));
    first.sync(&group, &leader, &[(&leader.id, "all")]).await;
    let answer = second.join(&how(&["roundrobin"])).await;
    stage.note("a member with another protocol", error(answer.error_code));
    let id = second
        .join(&how(&["range", "roundrobin"]))
        .await
        .member_id
        .to_string();
    let request = how(&["range", "roundrobin"]).of_member(&id).request();
    second.wire.send(5, &request).await;
    until_rebalancing(&mut first, &group, &leader).await;
    let answer = first.join(&how(&["sticky", "range"]).of_member(&leader.id)).await;
    stage.note("together", joined(&answer));
    let answer: JoinGroupResponse = second.wire.receive(5).await;
    stage.note("the other one", joined(&answer));
}

async fn generations_fence(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    let member = client.only_member(&Joined::new(&group, &topic)).await;
    for (what, generation, id) in [
        ("the member", member.generation, member.id.as_str()),
        ("an older generation", member.generation - 1, &member.id),
        ("a future generation", member.generation + 1, &member.id),
        ("an unknown member", member.generation, "stranger"),
    ] {
        let who = Member {
            id: id.to_owned(),
            generation,
            instance: None,
        };
        stage.note(
            format!("heartbeat, {what}"),
            error(client.heartbeat(&group, &who).await),
        );
        stage.note(
            format!("sync, {what}"),
            synced(&client.sync(&group, &who, &[]).await),
        );
    }
}

async fn a_leader_that_joins_again_rebalances(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let (mut left, mut right) = pair(stage, &group, &topic).await;
    let how = Joined::new(&group, &topic);
    let answer = right.client.join(&how.clone().of_member(&right.member.id)).await;
    stage.note("a follower joins again, generation", answer.generation_id);
    let answer = right.client.sync(&group, &right.member, &[]).await;
    stage.note("and syncs", synced(&answer));
    let request = how.clone().of_member(&left.member.id).request();
    left.client.wire.send(5, &request).await;
    until_rebalancing(&mut right.client, &group, &right.member).await;
    let answer = right.client.join(&how.of_member(&right.member.id)).await;
    stage.note("after the leader joined again", joined(&answer));
    let answer: JoinGroupResponse = left.client.wire.receive(5).await;
    stage.note("the leader", joined(&answer));
}

async fn a_member_that_leaves(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let (mut left, mut right) = pair(stage, &group, &topic).await;
    let answer = right.client.leave(&group, &[(&right.member.id, None)]).await;
    stage.note("leave", error(answer.error_code));
    until_rebalancing(&mut left.client, &group, &left.member).await;
    stage.note(
        "the leaver's heartbeat",
        error(right.client.heartbeat(&group, &right.member).await),
    );
    stage.note(
        "a sync of the old generation",
        synced(&left.client.sync(&group, &left.member, &[]).await),
    );
    let how = Joined::new(&group, &topic).of_member(&left.member.id);
    let answer = left.client.join(&how).await;
    stage.note("the other one joins again", joined(&answer));
}

async fn leaving_several_and_strangers(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let (mut left, right) = pair(stage, &group, &topic).await;
    let leavers = [
        (left.member.id.as_str(), None),
        ("stranger", None),
        (&right.member.id, None),
    ];
    let answer = left.client.leave(&group, &leavers).await;
    stage.note("all", error(answer.error_code));
    for (name, member) in ["leader", "stranger", "follower"].iter().zip(&answer.members) {
        stage.note(name, error(member.error_code));
    }
    let unknown = stage.name("group");
    let answer = left.client.leave(&unknown, &[("stranger", None)]).await;
    stage.note("an unknown group", error(answer.error_code));
    for member in &answer.members {
        stage.note("its member", error(member.error_code));
    }
}

async fn a_silent_member_is_removed(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    let how = Joined {
        session_timeout_ms: 1_000,
        ..Joined::new(&group, &topic)
    };
    let silent = client.only_member(&how).await;
    let began = Instant::now();
    let seen = loop {
        // Another's view: a heartbeat of the silent one would keep it alive.
        let members = client.members(&group).await;
        if members == 0 {
            break began.elapsed();
        }
        assert!(began.elapsed() < crate::wire::DEADLINE, "the member stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    stage.note("not before its time", seen >= Duration::from_millis(900));
    stage.note("soon after it", seen < Duration::from_secs(5));
    stage.note("its heartbeat", error(client.heartbeat(&group, &silent).await));
}

async fn a_member_that_does_not_rejoin_is_removed(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let (mut first, mut second) = (stage.client().await, stage.client().await);
    let how = Joined {
        rebalance_timeout_ms: 1_000,
        ..Joined::new(&group, &topic)
    };
    let absent = first.only_member(&how).await;
    let began = Instant::now();
    let (answer, _) = second.join_new(&how).await;
    stage.note("the second one", joined(&answer));
    stage.note(
        "waited for the first one",
        began.elapsed() >= Duration::from_millis(900),
    );
    stage.note(
        "the first one's heartbeat",
        error(first.heartbeat(&group, &absent).await),
    );
}

async fn a_static_member_keeps_its_place(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    let how = Joined::new(&group, &topic).of_instance("desk-1");
    let answer = client.join(&how).await;
    stage.note("the first join", joined(&answer));
    let member = Member {
        id: answer.member_id.to_string(),
        generation: answer.generation_id,
        instance: Some("desk-1".to_owned()),
    };
    client.sync(&group, &member, &[(&member.id, "all")]).await;
    let again = client.join(&how).await;
    stage.note("the instance joins again, generation", again.generation_id);
    stage.note("another member id", again.member_id != answer.member_id);
    stage.note(
        "the leader that is named is the former id",
        again.leader == answer.member_id,
    );
    let back = Member {
        id: again.member_id.to_string(),
        generation: again.generation_id,
        ..member
    };
    let answer = client.sync(&group, &back, &[]).await;
    stage.note("its assignment", synced(&answer));
    stage.note("heartbeat", error(client.heartbeat(&group, &back).await));
}

async fn a_static_member_fences_its_double(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    let how = Joined::new(&group, &topic).of_instance("desk-1");
    let old = client.only_member(&how).await;
    let again = client.join(&how).await;
    stage.note("the second instance", error(again.error_code));
    stage.note(
        "heartbeat of the first",
        error(client.heartbeat(&group, &old).await),
    );
    stage.note("sync of the first", synced(&client.sync(&group, &old, &[]).await));
    let answer = client.join(&how.of_member(&old.id)).await;
    stage.note("join of the first", error(answer.error_code));
    let code = client.commit_offset(&group, &old, &topic, 1).await;
    stage.note("commit of the first", error(code));
    let left = client.leave(&group, &[(&old.id, Some("desk-1"))]).await;
    stage.note("leave of the first", error(left.members[0].error_code));
}

async fn a_static_member_leaves_by_its_name(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    let how = Joined::new(&group, &topic).of_instance("desk-1");
    let member = client.only_member(&how).await;
    let left = client.leave(&group, &[("", Some("desk-2"))]).await;
    stage.note("an unknown instance", error(left.members[0].error_code));
    let left = client.leave(&group, &[("", Some("desk-1"))]).await;
    stage.note("the instance", error(left.members[0].error_code));
    stage.note("its heartbeat", error(client.heartbeat(&group, &member).await));
}

async fn a_sync_waits_for_the_leader(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let (mut left, mut right) = pair(stage, &group, &topic).await;
    let how = Joined::new(&group, &topic);
    left.client
        .wire
        .send(5, &how.clone().of_member(&left.member.id).request())
        .await;
    until_rebalancing(&mut right.client, &group, &right.member).await;
    let answer = right.client.join(&how.of_member(&right.member.id)).await;
    let _leader: JoinGroupResponse = left.client.wire.receive(5).await;
    for who in [&mut left, &mut right] {
        who.member.generation = answer.generation_id;
    }
    let request = Client::sync_request(&group, &right.member, &[]);
    right.client.wire.send(3, &request).await;
    let early = right.client.is_answered_within(Duration::from_millis(200)).await;
    stage.note("answered before the leader's", early);
    let assignments = [(left.member.id.as_str(), "one"), (&right.member.id, "two")];
    let answer = left.client.sync(&group, &left.member, &assignments).await;
    stage.note("the leader", synced(&answer));
    let answer: SyncGroupResponse = right.client.wire.receive(3).await;
    stage.note("the follower", synced(&answer));
}

async fn a_sync_is_repeated(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    let member = client.only_member(&Joined::new(&group, &topic)).await;
    for assignment in ["all", "other"] {
        let answer = client.sync(&group, &member, &[(&member.id, assignment)]).await;
        stage.note(format!("sent `{assignment}`"), synced(&answer));
    }
}

async fn another_protocol_type_is_refused(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client = stage.client().await;
    client.only_member(&Joined::new(&group, &topic)).await;
    let answer = client
        .join(&Joined {
            protocol_type: "connect".to_owned(),
            ..Joined::new(&group, &topic)
        })
        .await;
    stage.note("a member of type `connect`", error(answer.error_code));
}
