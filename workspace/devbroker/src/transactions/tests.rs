//! The coordinator's answers in each state, as Apache Kafka gives them.

use std::time::Duration;

use kafka_protocol::error::ResponseError::{self, *};
use proptest::prelude::*;

use super::coordinator::*;
use crate::batch::Outcome::{self, Abort, Commit};

const SECOND: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);
const ID: &str = "worker-0";

struct Scene {
    coordinator: Coordinator,
    now: Duration,
    next_producer_id: i64,
}

impl Scene {
    fn new() -> Self {
        Self {
            coordinator: Coordinator::new(3, Duration::from_secs(900)),
            now: Duration::ZERO,
            next_producer_id: 1_000,
        }
    }

    fn initialise(&mut self, id: &str, claimed: Option<Identity>) -> Result<Initialised, ResponseError> {
        let next = &mut self.next_producer_id;
        self.coordinator.initialise(self.now, id, TIMEOUT, claimed, || {
            *next += 1;
            *next
        })
    }

    fn ready(&mut self, id: &str) -> Identity {
        match self.initialise(id, None) {
            Ok(Initialised::Ready(identity)) => identity,
            other => panic!("{other:?}"),
        }
    }

    fn add(&mut self, identity: Identity, partition: i32) -> Result<(), ResponseError> {
        let partition = ("orders".to_owned(), partition);
        self.coordinator.add(self.now, 0, ID, identity, [partition], None)
    }

    fn end(&mut self, identity: Identity, outcome: Outcome) -> Result<Ended, ResponseError> {
        self.coordinator.end(self.now, ID, identity, outcome)
    }

    fn expire(&mut self, now: Duration) -> Vec<Ending> {
        let overdue = self.coordinator.overdue(now).into_iter();
        overdue
            .filter_map(|id| self.coordinator.expire(now, &id))
            .collect()
    }

    /// Ends a transaction and carries it out.
    fn finish(&mut self, identity: Identity, outcome: Outcome) -> Ending {
        let Ok(Ended::Now(ending)) = self.end(identity, outcome) else {
            panic!("nothing ended");
        };
        self.coordinator.complete(ID);
        ending
    }
}

#[test]
fn each_initialisation_raises_the_epoch_and_fences_the_one_before() {
    let mut scene = Scene::new();
    let first = scene.ready(ID);
    let second = scene.ready(ID);
    assert_eq!(first.producer_id, second.producer_id);
    assert_eq!((first.epoch, second.epoch), (0, 1));
    assert_eq!(scene.add(first, 0), Err(ProducerFenced));
    assert_eq!(scene.add(second, 0), Ok(()));
    assert_eq!(scene.end(first, Commit), Err(ProducerFenced));
}

#[test]
fn a_transaction_ends_with_the_partitions_and_groups_that_it_was_given() {
    let mut scene = Scene::new();
    let identity = scene.ready(ID);
    scene.add(identity, 3).unwrap();
    let group = Some("fraud".to_owned());
    scene
        .coordinator
        .add(scene.now, 0, ID, identity, [], group)
        .unwrap();
    let ending = scene.finish(identity, Commit);
    assert_eq!(
        ending.partitions.into_iter().collect::<Vec<_>>(),
        [("orders".to_owned(), 3)]
    );
    assert_eq!(ending.groups.into_iter().collect::<Vec<_>>(), ["fraud"]);
    scene.add(identity, 4).unwrap();
    let next = scene.finish(identity, Abort);
    assert_eq!(
        next.partitions.into_iter().collect::<Vec<_>>(),
        [("orders".to_owned(), 4)]
    );
}

#[test]
fn the_end_of_a_transaction_is_answered_by_its_state() {
    let mut scene = Scene::new();
    let identity = scene.ready(ID);
    assert_eq!(
        scene.end(identity, Commit),
        Err(InvalidTxnState),
        "nothing was begun"
    );
    scene.add(identity, 0).unwrap();
    assert!(matches!(scene.end(identity, Commit), Ok(Ended::Now(_))));
    // The markers are being written.
    assert_eq!(scene.end(identity, Commit), Err(ConcurrentTransactions));
    assert_eq!(scene.end(identity, Abort), Err(InvalidTxnState));
    assert_eq!(scene.add(identity, 0), Err(ConcurrentTransactions));
    assert_eq!(scene.initialise(ID, None), Err(ConcurrentTransactions));
    let place = ("orders".to_owned(), 0);
    let checked = scene.coordinator.check_partition(ID, identity, &place);
    assert_eq!(checked, Err(ConcurrentTransactions));
    scene.coordinator.complete(ID);
    assert_eq!(scene.end(identity, Commit), Ok(Ended::Before), "a repeat");
    assert_eq!(scene.end(identity, Abort), Err(InvalidTxnState));
    assert_eq!(scene.add(identity, 0), Ok(()));
}

#[test]
fn strangers_are_told_apart_from_the_fenced() {
    let mut scene = Scene::new();
    let identity = scene.ready(ID);
    let stranger = Identity {
        producer_id: 1,
        ..identity
    };
    assert_eq!(scene.add(stranger, 0), Err(InvalidProducerIdMapping));
    let newer = Identity { epoch: 5, ..identity };
    assert_eq!(scene.add(newer, 0), Err(ProducerFenced));
    let unknown = scene.coordinator.end(scene.now, "nobody", identity, Commit);
    assert_eq!(unknown, Err(InvalidProducerIdMapping));
    let empty = scene.coordinator.end(scene.now, "", identity, Commit);
    assert_eq!(empty, Err(InvalidRequest));
}

#[test]
fn a_batch_is_taken_only_by_a_transaction_with_its_partition() {
    let mut scene = Scene::new();
    let identity = scene.ready(ID);
    scene.add(identity, 0).unwrap();
    let mut check = |partition| {
        let place = ("orders".to_owned(), partition);
        scene.coordinator.check_partition(ID, identity, &place)
    };
    assert_eq!(check(0), Ok(()));
    assert_eq!(check(1), Err(InvalidTxnState));
    assert_eq!(
        scene.coordinator.check_group(ID, identity, "fraud"),
        Err(InvalidTxnState)
    );
    scene.finish(identity, Commit);
    let place = ("orders".to_owned(), 0);
    let late = scene.coordinator.check_partition(ID, identity, &place);
    assert_eq!(late, Err(InvalidTxnState), "late, after the end");
}

#[test]
fn an_open_transaction_is_aborted_before_its_id_changes_hands() {
    let mut scene = Scene::new();
    let first = scene.ready(ID);
    scene.add(first, 0).unwrap();
    let Ok(Initialised::Aborting(ending)) = scene.initialise(ID, None) else {
        panic!("the id changed hands over an open transaction");
    };
    assert_eq!(ending.outcome, Abort);
    assert!(ending.identity.epoch > first.epoch, "the marker fences too");
    assert_eq!(scene.initialise(ID, None), Err(ConcurrentTransactions));
    scene.coordinator.complete(ID);
    let second = scene.ready(ID);
    assert!(second.epoch > ending.identity.epoch);
    assert_eq!(scene.end(first, Commit), Err(ProducerFenced));
}

#[test]
fn a_transaction_that_takes_too_long_is_aborted_and_its_producer_fenced() {
    let mut scene = Scene::new();
    let identity = scene.ready(ID);
    assert_eq!(scene.coordinator.next_deadline(), None);
    scene.now = SECOND;
    scene.add(identity, 0).unwrap();
    assert_eq!(scene.coordinator.next_deadline(), Some(SECOND + TIMEOUT));
    let just_before = SECOND + TIMEOUT - Duration::from_nanos(1);
    assert_eq!(scene.expire(just_before), []);
    let expired = scene.expire(SECOND + TIMEOUT);
    assert_eq!(expired.len(), 1);
    assert_eq!(expired[0].outcome, Abort);
    scene.coordinator.complete(ID);
    assert_eq!(scene.end(identity, Commit), Err(ProducerFenced));
    assert_eq!(scene.coordinator.next_deadline(), None);
}

#[test]
fn a_producer_that_goes_on_after_an_error_keeps_its_id() {
    let mut scene = Scene::new();
    let identity = scene.ready(ID);
    let Ok(Initialised::Ready(next)) = scene.initialise(ID, Some(identity)) else {
        panic!("refused");
    };
    assert_eq!(next.epoch, identity.epoch + 1);
    let again = scene.initialise(ID, Some(identity));
    assert_eq!(
        again,
        Ok(Initialised::Ready(next)),
        "the answer was lost: the same again"
    );
    let other = scene.ready(ID);
    assert_eq!(
        scene.initialise(ID, Some(next)),
        Err(ProducerFenced),
        "somebody else came"
    );
    let stranger = Identity {
        producer_id: 1,
        ..other
    };
    assert_eq!(scene.initialise(ID, Some(stranger)), Err(ProducerFenced));
}

#[test]
fn a_producer_whose_transaction_was_aborted_may_name_its_old_epoch() {
    let mut scene = Scene::new();
    let old = scene.ready(ID);
    scene.add(old, 0).unwrap();
    let aborting = scene.initialise(ID, Some(old));
    assert!(matches!(aborting, Ok(Initialised::Aborting(_))));
    scene.coordinator.complete(ID);
    let Ok(Initialised::Ready(renewed)) = scene.initialise(ID, Some(old)) else {
        panic!("fenced by itself");
    };
    assert_eq!(renewed.epoch, old.epoch + 1);
    scene.add(renewed, 0).unwrap();
    assert_eq!(scene.expire(TIMEOUT + SECOND).len(), 1);
    scene.coordinator.complete(ID);
    let again = scene.initialise(ID, Some(renewed));
    assert!(matches!(again, Ok(Initialised::Ready(_))), "{again:?}");
}

#[test]
fn when_the_epochs_are_used_up_a_new_producer_id_begins() {
    let mut scene = Scene::new();
    let mut identity = scene.ready(ID);
    let first = identity.producer_id;
    let mut last = identity;
    while identity.producer_id == first {
        last = identity;
        identity = scene.ready(ID);
    }
    assert_eq!((last.epoch, identity.epoch), (i16::MAX - 1, 0));
    let retry = scene.initialise(ID, Some(last));
    assert_eq!(retry, Err(ProducerFenced), "somebody else initialised it");
}

#[test]
fn what_can_not_be_a_time_out_or_an_id_is_refused() {
    let mut scene = Scene::new();
    assert_eq!(scene.initialise("", None), Err(InvalidRequest));
    for timeout in [Duration::ZERO, Duration::from_secs(901)] {
        let refused = scene.coordinator.initialise(scene.now, ID, timeout, None, || 1);
        assert_eq!(refused, Err(InvalidTransactionTimeout));
    }
}

#[test]
fn the_id_that_was_silent_longest_is_forgotten_first_and_one_in_work_never() {
    let mut scene = Scene::new();
    let working = scene.ready(ID);
    scene.add(working, 0).unwrap();
    scene.now = SECOND;
    let old = scene.ready("old");
    scene.now = 2 * SECOND;
    scene.ready("new");
    scene.ready("newest");
    let forgotten = scene.coordinator.end(scene.now, "old", old, Commit);
    assert_eq!(forgotten, Err(InvalidProducerIdMapping));
    assert!(matches!(scene.end(working, Commit), Ok(Ended::Now(_))));
}

proptest! {
    /// Whatever comes in whatever order: an outcome never changes once it is decided, an epoch never
    /// falls, and only the newest identity gets anything done.
    #[test]
    fn outcomes_are_final_and_epochs_only_rise(steps in prop::collection::vec((0..6_u8, any::<bool>(), 0..3_usize), 1..200)) {
        let mut scene = Scene::new();
        let mut identities = vec![scene.ready(ID)];
        let mut decided: Option<Outcome> = None;
        for (step, commit, back) in steps {
            let newest = identities[identities.len() - 1];
            let who = identities[identities.len().saturating_sub(1 + back)];
            let outcome = if commit { Commit } else { Abort };
            match step {
                0 => if scene.add(who, 0).is_ok() {
                    prop_assert!(who == newest && decided.is_none());
                },
                1 => match scene.end(who, outcome) {
                    Ok(Ended::Now(ending)) => {
                        prop_assert!(who == newest && decided.is_none());
                        prop_assert_eq!(ending.outcome, outcome);
                        decided = Some(outcome);
                    }
                    Ok(Ended::Before) => prop_assert!(who == newest && decided.is_none()),
                    Err(_) => {}
                },
                2 => {
                    scene.coordinator.complete(ID);
                    decided = None;
                }
                3 => match scene.initialise(ID, None) {
                    Ok(Initialised::Ready(identity)) => {
                        prop_assert!(decided.is_none() && identity.epoch > newest.epoch);
                        identities.push(identity);
                    }
                    Ok(Initialised::Aborting(ending)) => {
                        prop_assert!(decided.is_none() && ending.outcome == Abort);
                        identities.push(ending.identity);
                        decided = Some(Abort);
                    }
                    Err(_) => prop_assert!(decided.is_some()),
                },
                4 => scene.now += SECOND,
                _ => for ending in scene.expire(scene.now) {
                    prop_assert!(decided.is_none());
                    identities.push(ending.identity);
                    decided = Some(Abort);
                },
            }
        }
    }
}

#[test]
fn a_transaction_has_a_bounded_number_of_partitions_and_groups() {
    let mut scene = Scene::new();
    let identity = scene.ready(ID);
    let now = scene.now;
    let orders = |partitions: std::ops::Range<usize>| {
        partitions.map(|partition| ("orders".to_owned(), partition as i32))
    };
    let mut add = |partitions, group: Option<String>| {
        scene
            .coordinator
            .add(now, 0, ID, identity, orders(partitions), group)
    };
    assert_eq!(
        add(0..MAX_PARTITIONS + 1, None),
        Err(PolicyViolation),
        "all or none"
    );
    assert_eq!(add(0..MAX_PARTITIONS - 1, None), Ok(()));
    assert_eq!(
        add(0..MAX_PARTITIONS, None),
        Ok(()),
        "those it has do not count twice"
    );
    assert_eq!(
        add(MAX_PARTITIONS..MAX_PARTITIONS + 1, None),
        Err(PolicyViolation)
    );
    for group in 0..MAX_GROUPS {
        assert_eq!(add(0..0, Some(format!("group-{group}"))), Ok(()));
    }
    assert_eq!(add(0..0, Some("group-0".to_owned())), Ok(()));
    assert_eq!(add(0..0, Some("another".to_owned())), Err(PolicyViolation));
    let transaction = scene.coordinator.get(ID).unwrap();
    assert_eq!(
        (transaction.partitions.len(), transaction.groups.len()),
        (MAX_PARTITIONS, MAX_GROUPS)
    );
    assert!(matches!(scene.end(identity, Abort), Ok(Ended::Now(_))));
}
