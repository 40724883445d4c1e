//! The group's state machine: scenarios by hand, and a property over random schedules.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use proptest::prelude::*;

use super::group::{Group, GroupSettings, Speaker, SyncRequest};
use super::member::{JoinReply, JoinRequest, Joined, Protocol, Reply, SyncReply, Ticket};

const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(60);

/// A group with its own time, and everything that it answered.
struct Stage {
    group: Group,
    now: Duration,
    tickets: Ticket,
    joins: BTreeMap<Ticket, JoinReply>,
    syncs: BTreeMap<Ticket, SyncReply>,
}

impl Stage {
    fn new(initial_rebalance_delay: Duration) -> Self {
        let settings = GroupSettings {
            initial_rebalance_delay,
            max_size: 5,
        };
        Self {
            group: Group::new("group".to_owned(), settings),
            now: Duration::ZERO,
            tickets: 0,
            joins: BTreeMap::new(),
            syncs: BTreeMap::new(),
        }
    }

    fn collect(&mut self) {
        for reply in self.group.take_replies() {
            let repeated = match reply {
                Reply::Join(ticket, reply) => self.joins.insert(ticket, reply).is_some(),
                Reply::Sync(ticket, reply) => self.syncs.insert(ticket, reply).is_some(),
            };
            assert!(!repeated, "a ticket was answered twice");
        }
    }

    fn ask_join(&mut self, request: JoinRequest) -> Ticket {
        self.tickets += 1;
        self.group.join(self.now, request, self.tickets);
        self.collect();
        self.tickets
    }

    /// A member that exists under `id` (or comes with it as its new id) waits to join.
    fn join(&mut self, id: &str) -> Ticket {
        let known = self.group.describe().members.iter().any(|member| member.id == id);
        self.ask_join(JoinRequest {
            member_id: if known { id.to_owned() } else { String::new() },
            ..member(id)
        })
    }

    fn joined(&self, ticket: Ticket) -> &Joined {
        self.joins[&ticket].as_ref().unwrap()
    }

    fn join_error(&self, ticket: Ticket) -> ResponseError {
        self.joins[&ticket].as_ref().unwrap_err().error
    }

    fn sync(&mut self, id: &str, generation: i32, assignments: &[(&str, &'static str)]) -> Ticket {
        self.tickets += 1;
        let assignments = assignments
            .iter()
            .map(|(id, bytes)| ((*id).to_owned(), Bytes::from_static(bytes.as_bytes())));
        let request = SyncRequest {
            speaker: speaker(id, generation),
            protocol_type: None,
            protocol: None,
            assignments: assignments.collect(),
        };
        self.group.sync(self.now, request, self.tickets);
        self.collect();
        self.tickets
    }

    fn heartbeat(&mut self, id: &str, generation: i32) -> Result<(), ResponseError> {
        let result = self.group.heartbeat(self.now, &speaker(id, generation));
        self.collect();
        result
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.group.advance(self.now);
        self.collect();
    }

    /// Members of one stable generation, the first one leading; returns the generation.
    fn stable(&mut self, ids: &[&str]) -> i32 {
        for id in ids {
            self.join(id);
        }
        let tickets: Vec<Ticket> = ids.iter().map(|id| self.join(id)).collect();
        let generation = tickets
            .iter()
            .filter_map(|ticket| self.joins.get(ticket))
            .next_back();
        let generation = generation.unwrap().as_ref().unwrap().generation;
        for id in ids.iter().rev() {
            self.sync(id, generation, &[(ids[0], "part-0")]);
        }
        assert_eq!(self.group.state_name(), "Stable");
        generation
    }
}

fn speaker(id: &str, generation: i32) -> Speaker {
    Speaker {
        member_id: id.to_owned(),
        instance_id: None,
        generation,
    }
}

fn protocol(name: &str, metadata: &'static str) -> Protocol {
    Protocol {
        name: name.to_owned(),
        metadata: Bytes::from_static(metadata.as_bytes()),
    }
}

fn member(fresh_id: &str) -> JoinRequest {
    JoinRequest {
        member_id: String::new(),
        instance_id: None,
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![protocol("range", "topics"), protocol("sticky", "topics")],
        session_timeout: SESSION,
        rebalance_timeout: REBALANCE,
        fresh_id: fresh_id.to_owned(),
        id_required: false,
        may_skip_assignment: true,
    }
}

fn static_member(fresh_id: &str, instance: &str) -> JoinRequest {
    JoinRequest {
        instance_id: Some(instance.to_owned()),
        ..member(fresh_id)
    }
}

#[test]
fn a_generation_is_formed_when_everybody_joined_and_works_when_the_leader_assigned() {
    let mut stage = Stage::new(Duration::ZERO);
    let first = stage.join("a");
    assert_eq!(stage.joined(first).generation, 1, "alone, at once");
    let second = stage.join("b");
    assert!(!stage.joins.contains_key(&second), "`a` did not join yet");
    assert_eq!(stage.heartbeat("a", 1), Err(ResponseError::RebalanceInProgress));
    let first = stage.join("a");
    for ticket in [first, second] {
        assert_eq!(
            (
                stage.joined(ticket).generation,
                stage.joined(ticket).leader.as_str()
            ),
            (2, "a")
        );
    }
    let ids: Vec<&str> = stage
        .joined(first)
        .members
        .iter()
        .map(|member| member.id.as_str())
        .collect();
    assert_eq!(ids, ["a", "b"], "the leader hears of all");
    assert!(stage.joined(second).members.is_empty(), "the others do not");

    let waiting = stage.sync("b", 2, &[]);
    assert!(!stage.syncs.contains_key(&waiting));
    let leading = stage.sync("a", 2, &[("a", "part-0"), ("b", "part-1")]);
    assert_eq!(stage.syncs[&leading].as_ref().unwrap().assignment, "part-0");
    assert_eq!(stage.syncs[&waiting].as_ref().unwrap().assignment, "part-1");
    let again = stage.sync("b", 2, &[]);
    assert_eq!(
        stage.syncs[&again].as_ref().unwrap().assignment,
        "part-1",
        "a lost answer is repeated"
    );
    assert_eq!(stage.heartbeat("b", 2), Ok(()));
}

#[test]
fn a_new_member_gets_an_id_first_and_counts_when_it_comes_with_it() {
    let mut stage = Stage::new(Duration::ZERO);
    let ticket = stage.ask_join(JoinRequest {
        id_required: true,
        ..member("a")
    });
    let refused = stage.joins[&ticket].as_ref().unwrap_err();
    assert_eq!(
        (refused.error, refused.member_id.as_str()),
        (ResponseError::MemberIdRequired, "a")
    );
    assert!(!stage.group.is_empty(), "an id was given out");
    let ticket = stage.ask_join(JoinRequest {
        member_id: "a".to_owned(),
        ..member("unused")
    });
    assert_eq!(stage.joined(ticket).member_id, "a");

    stage.ask_join(JoinRequest {
        id_required: true,
        ..member("late")
    });
    stage.pass(SESSION);
    let late = stage.ask_join(JoinRequest {
        member_id: "late".to_owned(),
        ..member("unused")
    });
    assert_eq!(
        stage.join_error(late),
        ResponseError::UnknownMemberId,
        "the id lapsed"
    );
}

#[test]
fn an_older_generation_is_not_heard() {
    let mut stage = Stage::new(Duration::ZERO);
    let generation = stage.stable(&["a", "b"]);
    assert_eq!(
        stage.heartbeat("a", generation - 1),
        Err(ResponseError::IllegalGeneration)
    );
    assert_eq!(
        stage.heartbeat("stranger", generation),
        Err(ResponseError::UnknownMemberId)
    );
    let sync = stage.sync("a", generation - 1, &[("a", "stolen")]);
    assert_eq!(stage.syncs[&sync], Err(ResponseError::IllegalGeneration));
    let now = stage.now;
    assert_eq!(
        stage.group.check_commit(now, &speaker("a", generation - 1)),
        Err(ResponseError::IllegalGeneration)
    );
    assert_eq!(stage.group.check_commit(now, &speaker("a", generation)), Ok(()));
    assert_eq!(
        stage.group.check_commit(now, &speaker("", -1)),
        Err(ResponseError::UnknownMemberId)
    );
}

#[test]
fn commits_wait_for_the_assignment_and_go_on_during_a_rebalance() {
    let mut stage = Stage::new(Duration::ZERO);
    assert_eq!(
        stage.group.check_commit(Duration::ZERO, &speaker("", -1)),
        Ok(()),
        "without members"
    );
    stage.join("a");
    let now = stage.now;
    assert_eq!(
        stage.group.check_commit(now, &speaker("a", 1)),
        Err(ResponseError::RebalanceInProgress)
    );
    stage.sync("a", 1, &[]);
    stage.join("b");
    assert_eq!(stage.group.state_name(), "PreparingRebalance");
    assert_eq!(
        stage.group.check_commit(now, &speaker("a", 1)),
        Ok(()),
        "what was done before can be kept"
    );
}

#[test]
fn a_silent_member_is_removed_after_its_session_and_the_others_go_on() {
    let mut stage = Stage::new(Duration::ZERO);
    let generation = stage.stable(&["a", "b"]);
    stage.pass(SESSION / 2);
    assert_eq!(stage.heartbeat("a", generation), Ok(()));
    stage.pass(SESSION / 2);
    assert_eq!(
        stage.heartbeat("a", generation),
        Err(ResponseError::RebalanceInProgress)
    );
    assert_eq!(
        stage.heartbeat("b", generation),
        Err(ResponseError::UnknownMemberId)
    );
    let ticket = stage.join("a");
    assert_eq!(
        stage.joined(ticket).generation,
        generation + 1,
        "nobody else is waited for"
    );
}

#[test]
fn who_does_not_join_in_time_is_left_behind() {
    let mut stage = Stage::new(Duration::ZERO);
    let generation = stage.stable(&["a", "b"]);
    let ticket = stage.join("c");
    let back = stage.join("b");
    // `a` heartbeats all the time, so it is alive, and yet it does not join.
    for _ in 0..20 {
        stage.pass(REBALANCE / 20);
        let answer = stage.heartbeat("a", generation);
        assert!(
            answer == Err(ResponseError::RebalanceInProgress)
                || answer == Err(ResponseError::UnknownMemberId)
        );
    }
    assert_eq!(
        stage.joined(ticket).leader,
        "b",
        "the leader stayed away, the next one leads"
    );
    assert_eq!(stage.joined(back).members.len(), 2);
    assert_eq!(
        stage.heartbeat("a", generation),
        Err(ResponseError::UnknownMemberId)
    );
}

#[test]
fn who_joins_and_never_asks_for_its_assignment_is_removed() {
    let mut stage = Stage::new(Duration::ZERO);
    stage.stable(&["a", "b"]);
    stage.join("a");
    let ticket = stage.join("b");
    let generation = stage.joined(ticket).generation;
    let waiting = stage.sync("b", generation, &[]);
    for _ in 0..20 {
        stage.pass(REBALANCE / 20);
        // `a` leads, heartbeats, and never hands out.
        assert!(!stage.syncs.contains_key(&waiting) || stage.heartbeat("a", generation).is_err());
        stage.group.heartbeat(stage.now, &speaker("a", generation)).ok();
    }
    assert_eq!(stage.syncs[&waiting], Err(ResponseError::RebalanceInProgress));
    let ticket = stage.join("b");
    assert_eq!(stage.joined(ticket).leader, "b");
}

#[test]
fn a_leaving_member_starts_a_rebalance_and_the_last_one_empties_the_group() {
    let mut stage = Stage::new(Duration::ZERO);
    let generation = stage.stable(&["a", "b"]);
    stage.group.leave(stage.now, "a", None).unwrap();
    stage.collect();
    assert_eq!(
        stage.heartbeat("b", generation),
        Err(ResponseError::RebalanceInProgress)
    );
    stage.group.leave(stage.now, "b", None).unwrap();
    assert!(stage.group.is_empty());
    assert_eq!(
        stage.group.leave(stage.now, "b", None),
        Err(ResponseError::UnknownMemberId)
    );
}

#[test]
fn members_without_a_common_protocol_can_not_be_in_one_group() {
    let mut stage = Stage::new(Duration::ZERO);
    stage.stable(&["a"]);
    for request in [
        JoinRequest {
            protocols: vec![protocol("other", "x")],
            ..member("b")
        },
        JoinRequest {
            protocol_type: "connect".to_owned(),
            ..member("b")
        },
        JoinRequest {
            protocols: Vec::new(),
            ..member("b")
        },
        JoinRequest {
            protocols: vec![protocol("range", "x"); 65],
            ..member("b")
        },
    ] {
        let ticket = stage.ask_join(request);
        assert_eq!(stage.join_error(ticket), ResponseError::InconsistentGroupProtocol);
    }
}

#[test]
fn the_protocol_is_what_most_members_like_best_of_what_all_can_do() {
    let mut stage = Stage::new(Duration::from_secs(3));
    let choices = [
        vec![protocol("x", ""), protocol("sticky", ""), protocol("range", "")],
        vec![protocol("sticky", ""), protocol("range", "")],
        vec![protocol("range", ""), protocol("sticky", "")],
    ];
    let mut tickets = Vec::new();
    for (id, protocols) in ["a", "b", "c"].iter().zip(choices) {
        tickets.push(stage.ask_join(JoinRequest {
            protocols,
            ..member(id)
        }));
    }
    stage.pass(Duration::from_secs(3));
    stage.pass(Duration::from_secs(3));
    assert_eq!(stage.joined(tickets[0]).protocol.as_deref(), Some("sticky"));
}

#[test]
fn the_first_rebalance_waits_a_little_longer_for_each_newcomer() {
    let delay = Duration::from_secs(3);
    let mut stage = Stage::new(delay);
    let first = stage.join("a");
    stage.pass(Duration::from_secs(2));
    let second = stage.join("b");
    stage.pass(Duration::from_secs(1));
    assert!(stage.joins.is_empty(), "somebody came, so it waits once more");
    stage.pass(delay);
    assert_eq!(
        (stage.joined(first).generation, stage.joined(second).generation),
        (1, 1)
    );
}

#[test]
fn a_member_that_is_lost_is_unknown_and_the_others_rebalance() {
    let mut stage = Stage::new(Duration::ZERO);
    let generation = stage.stable(&["a", "b"]);
    assert!(stage.group.lose_member(stage.now, "a"));
    assert!(!stage.group.lose_member(stage.now, "a"));
    assert_eq!(
        stage.heartbeat("a", generation),
        Err(ResponseError::UnknownMemberId)
    );
    assert_eq!(
        stage.heartbeat("b", generation),
        Err(ResponseError::RebalanceInProgress)
    );
}

#[test]
fn a_group_that_is_lost_tells_all_who_wait_and_begins_anew() {
    let mut stage = Stage::new(Duration::ZERO);
    let generation = stage.stable(&["a", "b"]);
    let waiting = stage.join("a");
    stage.group.lose_all();
    stage.collect();
    assert_eq!(stage.join_error(waiting), ResponseError::UnknownMemberId);
    assert!(stage.group.is_empty());
    assert_eq!(
        stage.heartbeat("b", generation),
        Err(ResponseError::UnknownMemberId)
    );
    stage.stable(&["c"]);
}

#[test]
fn a_group_has_a_largest_size() {
    let mut stage = Stage::new(Duration::ZERO);
    stage.stable(&["a", "b", "c", "d", "e"]);
    let ticket = stage.join("f");
    assert_eq!(stage.join_error(ticket), ResponseError::GroupMaxSizeReached);
}

#[test]
fn a_static_member_that_comes_back_keeps_its_place_and_its_former_self_is_fenced() {
    let mut stage = Stage::new(Duration::ZERO);
    stage.ask_join(static_member("a-1", "a"));
    stage.ask_join(static_member("b-1", "b"));
    stage.ask_join(JoinRequest {
        member_id: "a-1".to_owned(),
        ..static_member("", "a")
    });
    let generation = stage.joins.values().last().unwrap().as_ref().unwrap().generation;
    stage.sync("b-1", generation, &[]);
    stage.sync("a-1", generation, &[("a-1", "part-0"), ("b-1", "part-1")]);

    // A cooperative member says what it owns, and that is nothing after a restart.
    let back = stage.ask_join(JoinRequest {
        protocols: vec![protocol("range", "owns nothing")],
        ..static_member("b-2", "b")
    });
    assert_eq!(
        (
            stage.joined(back).generation,
            stage.joined(back).member_id.as_str()
        ),
        (generation, "b-2")
    );
    let sync = stage.sync("b-2", generation, &[]);
    assert_eq!(
        stage.syncs[&sync].as_ref().unwrap().assignment,
        "part-1",
        "the same as before"
    );
    assert_eq!(stage.heartbeat("a-1", generation), Ok(()), "nobody else noticed");

    let former = Speaker {
        instance_id: Some("b".to_owned()),
        ..speaker("b-1", generation)
    };
    let now = stage.now;
    assert_eq!(
        stage.group.heartbeat(now, &former),
        Err(ResponseError::FencedInstanceId)
    );
    let leader = stage.ask_join(static_member("a-2", "a"));
    assert!(
        stage.joined(leader).skip_assignment,
        "the leader is told that there is nothing to assign"
    );
    assert_eq!(stage.joined(leader).leader, "a-2");
}

#[test]
fn a_static_member_may_leave_by_its_instance_id() {
    let mut stage = Stage::new(Duration::ZERO);
    stage.ask_join(static_member("a-1", "a"));
    assert_eq!(
        stage.group.leave(stage.now, "other", Some("a")),
        Err(ResponseError::FencedInstanceId)
    );
    assert_eq!(
        stage.group.leave(stage.now, "", Some("b")),
        Err(ResponseError::UnknownMemberId)
    );
    assert_eq!(stage.group.leave(stage.now, "", Some("a")), Ok(()));
    assert!(stage.group.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Join { member: usize, id_required: bool },
    Sync { member: usize },
    Heartbeat { member: usize },
    Leave { member: usize },
    Pass { milliseconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let member = 0..4_usize;
    prop_oneof![
        5 => (member.clone(), any::<bool>()).prop_map(|(member, id_required)| Step::Join { member, id_required }),
        5 => member.clone().prop_map(|member| Step::Sync { member }),
        2 => member.clone().prop_map(|member| Step::Heartbeat { member }),
        1 => member.prop_map(|member| Step::Leave { member }),
        3 => (0..15_000_u64).prop_map(|milliseconds| Step::Pass { milliseconds }),
    ]
}

/// A client as it remembers itself.
#[derive(Default, Clone)]
struct Client {
    id: String,
    generation: i32,
    waiting: Option<Ticket>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever clients do: a ticket is answered once at the most, generations only grow and have one
    /// leader and one protocol, an assignment reaches members of the current generation only, and when
    /// everybody falls silent, all tickets are answered and the group is empty in bounded time.
    #[test]
    fn no_schedule_loses_a_request_or_mixes_generations(
        steps in prop::collection::vec(step(), 1..120),
        delay in prop_oneof![Just(0_u64), Just(3_000)],
    ) {
        let mut stage = Stage::new(Duration::from_millis(delay));
        let mut clients = vec![Client::default(); 4];
        let mut join_tickets = BTreeSet::new();
        let mut sync_tickets = BTreeSet::new();
        let mut leaders: BTreeMap<i32, String> = BTreeMap::new();
        let mut newest = 0;
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Join { member: index, id_required } if clients[index].waiting.is_none() => {
                    let request = JoinRequest {
                        member_id: clients[index].id.clone(),
                        id_required,
                        ..member(&format!("member-{index}-{number}"))
                    };
                    let ticket = stage.ask_join(request);
                    join_tickets.insert(ticket);
                    clients[index].waiting = Some(ticket);
                }
                Step::Sync { member: index } if clients[index].waiting.is_none() && clients[index].generation > 0 => {
                    let Client { id, generation, .. } = clients[index].clone();
                    let ticket = stage.sync(&id, generation, &[]);
                    sync_tickets.insert(ticket);
                    let current = stage.group.describe();
                    if let Some(Ok(_)) = stage.syncs.get(&ticket) {
                        prop_assert_eq!(current.state, "Stable");
                        prop_assert_eq!(generation, newest, "an assignment of an old generation");
                    }
                }
                Step::Heartbeat { member } => {
                    let Client { id, generation, .. } = clients[member].clone();
                    if stage.heartbeat(&id, generation).is_ok() {
                        prop_assert_eq!(generation, newest);
                    }
                }
                Step::Leave { member } => {
                    let left = stage.group.leave(stage.now, &clients[member].id, None);
                    stage.collect();
                    if left.is_ok() {
                        clients[member] = Client { waiting: clients[member].waiting, ..Client::default() };
                    }
                }
                Step::Pass { milliseconds } => stage.pass(Duration::from_millis(milliseconds)),
                Step::Join { .. } | Step::Sync { .. } => {}
            }
            for client in &mut clients {
                let Some(answer) = client.waiting.and_then(|ticket| stage.joins.get(&ticket)) else { continue };
                client.waiting = None;
                match answer {
                    Ok(joined) => {
                        client.id = joined.member_id.clone();
                        client.generation = joined.generation;
                        newest = newest.max(joined.generation);
                        let leader = leaders.entry(joined.generation).or_insert_with(|| joined.leader.clone());
                        prop_assert_eq!(&*leader, &joined.leader, "two leaders in one generation");
                        prop_assert!(joined.protocol.is_some());
                    }
                    Err(refused) if refused.error == ResponseError::MemberIdRequired => {
                        client.id = refused.member_id.clone();
                    }
                    Err(_) => *client = Client::default(),
                }
            }
        }
        // Silence. Time moves only to where the group itself asks to be woken.
        for _ in 0..200 {
            let Some(deadline) = stage.group.next_deadline() else { break };
            let wait = deadline.saturating_sub(stage.now);
            stage.pass(wait);
        }
        prop_assert!(stage.group.is_empty(), "state {}", stage.group.state_name());
        prop_assert!(join_tickets.iter().all(|ticket| stage.joins.contains_key(ticket)));
        prop_assert!(sync_tickets.iter().all(|ticket| stage.syncs.contains_key(ticket)));
    }
}
