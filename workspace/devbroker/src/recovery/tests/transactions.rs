//! Transactions on a data folder whose broker stops, or loses a topic, while an outcome is made true.

use std::time::Duration;

use super::*;
use crate::transactions::{Ended, Identity, Initialised, finish};

const PATIENCE: Duration = Duration::from_secs(20);

/// A scene with topic `orders`, whose transactions end without a pause, and with room for one id.
async fn scene(folder: &Path) -> Scene {
    let faults = Arc::new(DiskFaults::default());
    let options = Options {
        transaction_marker_delay: Duration::ZERO,
        max_transactional_ids: 1,
        ..Options::default()
    };
    let opened = open(options, DataOptions::new(folder), Arc::clone(&faults)).await;
    let scene = Scene {
        core: opened.unwrap(),
        faults,
    };
    scene.create("orders").unwrap();
    scene
}

impl Scene {
    fn initialise(&self) -> Identity {
        self.core.producer_ids.ensure().unwrap();
        match self.try_to_initialise("id").unwrap() {
            Initialised::Ready(identity) => identity,
            other => panic!("{other:?}"),
        }
    }

    fn try_to_initialise(&self, id: &str) -> Result<Initialised, ResponseError> {
        let core = &self.core;
        let now = core.clock.now();
        core.transactions.change(id, |coordinator| {
            coordinator.initialise(now, id, Duration::from_secs(60), None, || {
                core.producer_ids.take()
            })
        })
    }

    fn add(&self, identity: Identity, partitions: &[(&str, i32)], group: Option<&str>) {
        let now = self.core.clock.now();
        let partitions = partitions
            .iter()
            .map(|(topic, index)| ((*topic).to_owned(), *index));
        let added = self.core.transactions.change("id", |coordinator| {
            coordinator.add(now, 0, "id", identity, partitions, group.map(str::to_owned))
        });
        added.unwrap();
    }

    /// Decides to commit.
    fn decide(&self, identity: Identity) -> Ending {
        let now = self.core.clock.now();
        let ended = self.core.transactions.change("id", |coordinator| {
            coordinator.end(now, "id", identity, Outcome::Commit)
        });
        match ended.unwrap() {
            Ended::Now(ending) => ending,
            Ended::Before => panic!("it had ended before"),
        }
    }

    /// Lets group `readers` hold a position in `orders` for the producer's transaction.
    async fn hold(&self, identity: Identity, offset: i64) {
        let position = PartitionOffset {
            topic: "orders".to_owned(),
            partition: 0,
            committed: Committed {
                offset,
                leader_epoch: 0,
                metadata: String::new(),
            },
        };
        let hold = |answer| Command::Hold {
            speaker: Speaker {
                member_id: String::new(),
                instance_id: None,
                generation: -1,
            },
            transactional_id: "id".to_owned(),
            identity,
            positions: vec![position.clone()],
            answer,
        };
        let held = self.core.groups.ask("readers", Absent::Create, hold).await;
        held.unwrap().unwrap().unwrap();
    }

    /// Appends two records of the producer's transaction to `orders`.
    fn append_in_transaction(&self, identity: Identity) {
        let bytes = transactional(Sequenced {
            producer_id: identity.producer_id,
            epoch: identity.epoch,
            first: 0,
            last: 1,
        });
        let header = BatchHeader::check(&bytes).unwrap();
        let appended = self.partition().append(&header, &bytes, Membership::Verified);
        appended.unwrap().unwrap().unwrap();
    }

    fn state(&self) -> &'static str {
        let coordinator = self.core.transactions.coordinator();
        coordinator.get("id").unwrap().state.name()
    }

    async fn reaches(&self, state: &str) {
        let reached = tokio::time::timeout(PATIENCE, async {
            while self.state() != state {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(reached.await.is_ok(), "it stays {}", self.state());
    }
}

#[tokio::test]
async fn a_stop_while_a_commit_is_made_true_keeps_its_offsets_for_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let scene = scene(folder.path()).await;
    let identity = scene.initialise();
    scene.add(identity, &[], Some("readers"));
    scene.hold(identity, 42).await;
    let ending = scene.decide(identity);
    let core = Arc::clone(&scene.core);
    // The decision has to be synced before the group is told, and the group has ended by then.
    tokio::join!(finish(&core, ending), async {
        core.stopping.cancel();
    });
    drop(core);
    assert_eq!(scene.state(), "PrepareCommit");
    scene.close().await;

    let scene = Scene::open(folder.path()).await;
    scene.reaches("CompleteCommit").await;
    assert_eq!(scene.committed().await, Some(42));
    scene.close().await;
}

#[tokio::test]
async fn a_topic_that_is_deleted_while_its_marker_is_synced_does_not_hold_the_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let scene = scene(folder.path()).await;
    let identity = scene.initialise();
    scene.add(identity, &[("orders", 0)], None);
    scene.append_in_transaction(identity);
    let partition = scene.partition();
    let ending = scene.decide(identity);
    let core = Arc::clone(&scene.core);
    tokio::join!(finish(&core, ending), async {
        while !partition.producers().iter().any(|producer| producer.has_marker) {
            tokio::task::yield_now().await;
        }
        core.topics.delete("orders").unwrap();
    });
    drop(core);
    scene.reaches("CompleteCommit").await;
    scene.close().await;
}

#[tokio::test]
async fn a_broker_that_is_dropped_while_a_commit_is_made_true_frees_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let scene = scene(folder.path()).await;
    let identity = scene.initialise();
    scene.add(identity, &[("orders", 0)], None);
    scene.append_in_transaction(identity);
    let ending = scene.decide(identity);
    scene.core.settled_with_records().await.unwrap();
    // As the broker's `Drop` does; the thread that syncs has nothing to do, and ends.
    scene.core.stopping.cancel();
    scene.core.storage.as_ref().unwrap().abandon();
    let ended = tokio::time::timeout(PATIENCE, async {
        while scene.core.settled_with_records().await.is_ok() {
            tokio::task::yield_now().await;
        }
        finish(&scene.core, ending).await;
        scene.core.tasks.close();
        scene.core.tasks.wait().await;
    });
    assert!(ended.await.is_ok(), "it waits for a thread that has ended");
    assert_eq!(scene.state(), "PrepareCommit");
    drop(scene);

    let scene = Scene::open(folder.path()).await;
    scene.reaches("CompleteCommit").await;
    scene.close().await;
}

#[tokio::test]
async fn an_id_that_made_room_for_one_that_could_not_be_kept_is_known_again() {
    let folder = tempfile::tempdir().unwrap();
    let scene = scene(folder.path()).await;
    let identity = scene.initialise();
    scene.faults.leave_room(20);
    assert_eq!(
        scene.try_to_initialise("newcomer"),
        Err(ResponseError::NotCoordinator)
    );
    scene.faults.lift();
    scene.add(identity, &[("orders", 0)], None);
    assert_eq!(scene.state(), "Ongoing");
    let known = scene.core.transactions.coordinator().all().count();
    assert_eq!(known, 1, "nothing of the newcomer stays");
    scene.close().await;
}
