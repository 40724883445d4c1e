//! A broker on a data folder: full and failing disks, restarts, and what each answer waits for.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::{Buf, Bytes};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{ApiKey, ProduceResponse};
use kafka_protocol::protocol::Decodable;

use super::*;
use crate::api::{self, Answer};
use crate::batch::Sequenced;
use crate::groups::{Absent, Command, Speaker};
use crate::offsets::{Committed, PartitionOffset};
use crate::partition::{Appended, Isolation, Membership};
use crate::samples;
use crate::storage::{Entry, KeptOffset, KeptPhase, KeptTransaction};

struct Scene {
    core: Arc<Core>,
    faults: Arc<DiskFaults>,
}

impl Scene {
    async fn open(folder: &Path) -> Self {
        let faults = Arc::new(DiskFaults::default());
        let opened = open(Options::default(), DataOptions::new(folder), Arc::clone(&faults)).await;
        Self {
            core: opened.unwrap(),
            faults,
        }
    }

    /// With topic `orders` of one partition.
    async fn new(folder: &Path) -> Self {
        let scene = Self::open(folder).await;
        scene.create("orders").unwrap();
        scene
    }

    fn create(&self, topic: &str) -> Result<(), ResponseError> {
        let created = self.core.topics.create(topic, 1, TopicConfig::default(), false);
        created.map(drop).map_err(|refusal| refusal.error)
    }

    fn partition(&self) -> Arc<Partition> {
        self.core.topics.partition("orders", 0).unwrap()
    }

    /// Appends a batch of two records as number `number` of producer 7.
    fn append(&self, number: i32) -> Result<Appended, ResponseError> {
        let bytes = samples::batch(2, 0, Some(sequenced(number)));
        let header = BatchHeader::check(&bytes).unwrap();
        let appended = self.partition().append(&header, &bytes, Membership::Unknown);
        appended.unwrap().unwrap().map_err(|refusal| refusal.error)
    }

    async fn commit(&self, offset: i64) -> Result<(), ResponseError> {
        let speaker = Speaker {
            member_id: String::new(),
            instance_id: None,
            generation: -1,
        };
        let position = PartitionOffset {
            topic: "orders".to_owned(),
            partition: 0,
            committed: Committed {
                offset,
                leader_epoch: 0,
                metadata: String::new(),
            },
        };
        let command = |answer| Command::Commit(speaker.clone(), vec![position.clone()], answer);
        self.core
            .groups
            .ask("readers", Absent::Create, command)
            .await?
            .unwrap()
    }

    async fn committed(&self) -> Option<i64> {
        let wanted = vec![("orders".to_owned(), 0)];
        let command = |answer| Command::Fetch(Some(wanted.clone()), answer);
        let found = self
            .core
            .groups
            .ask("readers", Absent::Leave, command)
            .await
            .unwrap()?;
        found[0].committed.as_ref().map(|committed| committed.offset)
    }

    /// Ends the broker as a stop does.
    async fn close(self) {
        self.core.stopping.cancel();
        self.core.tasks.close();
        self.core.tasks.wait().await;
        let storage = self.core.storage.clone().unwrap();
        tokio::task::spawn_blocking(move || storage.close())
            .await
            .unwrap();
    }
}

fn sequenced(number: i32) -> Sequenced {
    Sequenced {
        producer_id: 7,
        epoch: 0,
        first: number * 2,
        last: number * 2 + 1,
    }
}

#[tokio::test]
async fn readers_see_a_record_when_it_is_synced() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(folder.path()).await;
    let partition = scene.partition();
    let reader = Arc::default();
    partition.register(&reader);
    scene.append(0).unwrap();
    // Whoever is woken by the flusher finds the records.
    reader.notified().await;
    assert_eq!(partition.bounds().end, 2);
    scene.close().await;
}

#[tokio::test]
async fn what_a_full_disk_refuses_is_not_there_and_what_comes_later_is() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(folder.path()).await;
    scene.append(0).unwrap();
    scene.commit(1).await.unwrap();
    scene.faults.leave_room(20);
    assert_eq!(scene.append(1).unwrap_err(), ResponseError::KafkaStorageError);
    assert_eq!(scene.commit(2).await, Err(ResponseError::NotCoordinator));
    assert_eq!(scene.create("other"), Err(ResponseError::KafkaStorageError));
    let deleted = scene
        .core
        .topics
        .delete("orders")
        .map_err(|refusal| refusal.error);
    assert_eq!(deleted.unwrap_err(), ResponseError::KafkaStorageError);
    scene.core.settled_with_records().await.unwrap();
    assert_eq!(
        (scene.partition().bounds().end, scene.committed().await),
        (2, Some(1))
    );
    assert!(scene.core.topics.get("other").is_none());
    scene.faults.lift();
    assert_eq!(scene.append(1).unwrap().base_offset, 2);
    scene.commit(2).await.unwrap();
    scene.close().await;

    let scene = Scene::open(folder.path()).await;
    assert_eq!(
        (scene.partition().bounds().end, scene.committed().await),
        (4, Some(2))
    );
    assert!(scene.append(1).unwrap().duplicate, "the producer is known");
    scene.close().await;
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_shown_or_taken_until_a_restart_has_looked() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(folder.path()).await;
    scene.append(0).unwrap();
    scene.core.settled_with_records().await.unwrap();
    scene.faults.fail_syncs();
    scene.append(1).unwrap();
    drop(scene.core.settled_with_records().await);
    scene.faults.lift();
    let partition = scene.partition();
    assert!(partition.failure().is_some());
    for number in [1, 2] {
        assert_eq!(
            scene.append(number).unwrap_err(),
            ResponseError::KafkaStorageError,
            "not even a repeat"
        );
    }
    let (bounds, read) = partition
        .read(2, Isolation::ReadUncommitted, 1_000, true)
        .unwrap();
    assert_eq!((bounds.end, read.unwrap().read.batches.len()), (2, 0));
    scene.close().await;

    let scene = Scene::open(folder.path()).await;
    assert_eq!(scene.partition().bounds().end, 4, "the file had it");
    scene.append(2).unwrap();
    scene.close().await;
}

#[tokio::test]
async fn after_a_failed_sync_of_the_journal_its_changes_are_not_answered() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(folder.path()).await;
    scene.core.settled().await.unwrap();
    scene.faults.fail_syncs();
    scene.commit(1).await.unwrap();
    scene.core.settled().await.unwrap_err();
    scene.faults.lift();
    assert_eq!(scene.commit(2).await, Err(ResponseError::NotCoordinator));
    scene.close().await;
}

/// The answer to a request in version 8, which has a header of eight bytes.
async fn answer(scene: &Scene, key: ApiKey) -> Result<Bytes, String> {
    answer_in(scene, key, 8).await
}

async fn answer_in(scene: &Scene, key: ApiKey, version: i16) -> Result<Bytes, String> {
    let context = samples::context(key, version);
    let mut session = scene.core.guard.session(None);
    match api::answer(
        &scene.core,
        &context,
        &mut session,
        samples::request(key, version),
    )
    .await
    .unwrap()
    {
        Answer::Frame(frame) => {
            let mut frame = frame.unwrap();
            frame.advance(8);
            Ok(frame.copy_to_bytes(frame.remaining()))
        }
        Answer::Close(reason) => Err(reason),
        Answer::Silence | Answer::Drop(_) => panic!("no answer"),
    }
}

#[tokio::test]
async fn an_answer_waits_for_the_sync_and_tells_when_it_fails() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::open(folder.path()).await;
    scene.create("topic").unwrap();
    let code = async || {
        let mut body = answer(&scene, ApiKey::Produce).await.unwrap();
        let response = ProduceResponse::decode(&mut body, 8).unwrap();
        response.responses[0].partition_responses[0].error_code
    };
    assert_eq!(code().await, 0);
    let partition = scene.core.topics.partition("topic", 0).unwrap();
    assert_eq!(partition.bounds().end, 2, "what was answered is synced");
    scene.faults.fail_syncs();
    assert_eq!(code().await, ResponseError::KafkaStorageError.code());
    assert_eq!(partition.bounds().end, 2);
    let reason = answer(&scene, ApiKey::OffsetCommit).await.unwrap_err();
    assert!(reason.contains("can not be synced"), "{reason}");
    for (key, version) in [
        (ApiKey::ApiVersions, 0),
        (ApiKey::Metadata, 8),
        (ApiKey::OffsetFetch, 5),
    ] {
        let answered = answer_in(&scene, key, version).await;
        assert!(answered.is_ok(), "{key:?} changes nothing: {answered:?}");
    }
    scene.close().await;
}

/// A batch of two records that belongs to a transaction.
fn transactional(sequenced: Sequenced) -> Vec<u8> {
    let mut bytes = samples::batch(2, 0, Some(sequenced));
    bytes[22] |= 0x10;
    let checksum = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

#[tokio::test]
async fn a_transaction_that_nobody_knows_of_is_aborted() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(folder.path()).await;
    let bytes = transactional(sequenced(0));
    let header = BatchHeader::check(&bytes).unwrap();
    let appended = scene.partition().append(&header, &bytes, Membership::Verified);
    appended.unwrap().unwrap().unwrap();
    scene.core.settled_with_records().await.unwrap();
    assert_eq!(scene.partition().bounds().stable, 0);
    scene.close().await;

    let scene = Scene::open(folder.path()).await;
    scene.core.settled_with_records().await.unwrap();
    let bounds = scene.partition().bounds();
    assert_eq!((bounds.stable, bounds.end), (3, 3), "two records and a marker");
    let (_, read) = scene
        .partition()
        .read(0, Isolation::ReadCommitted, 1_000, true)
        .unwrap();
    assert_eq!(read.unwrap().aborted.len(), 1);
    scene.close().await;
}

#[tokio::test]
async fn a_start_on_an_empty_folder_is_quick() {
    let folder = tempfile::tempdir().unwrap();
    let begun = std::time::Instant::now();
    let scene = Scene::open(folder.path()).await;
    let took = begun.elapsed();
    assert!(took < std::time::Duration::from_secs(1), "{took:?}");
    scene.close().await;
}

const COMPACTED: [(&str, Option<&str>); 2] = [
    ("cleanup.policy", Some("compact")),
    ("min.cleanable.dirty.ratio", Some("0")),
];

/// A scene whose topic `orders` is compacted, with five batches of records of one key.
async fn compacted_scene(folder: &Path) -> Scene {
    let scene = Scene::open(folder).await;
    let config = TopicConfig::parse(COMPACTED).unwrap();
    scene.core.topics.create("orders", 1, config, false).unwrap();
    for number in 0..5 {
        scene.append(number).unwrap();
    }
    scene.core.settled_with_records().await.unwrap();
    scene
}

fn kept(scene: &Scene) -> Vec<Bytes> {
    let read = scene
        .partition()
        .read(0, Isolation::ReadUncommitted, usize::MAX, true);
    read.unwrap().1.unwrap().read.batches
}

fn bytes_in_files(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let bytes = entries.map(|entry| match entry.path() {
        path if path.is_dir() => bytes_in_files(&path),
        path => path.metadata().unwrap().len(),
    });
    bytes.sum()
}

#[tokio::test]
async fn what_compaction_took_is_gone_from_the_files_and_stays_gone_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let scene = compacted_scene(folder.path()).await;
    let topics = folder.path().join("topics");
    let (all, bytes) = (kept(&scene), bytes_in_files(&topics));
    scene.core.compact();
    let compacted = kept(&scene);
    assert_eq!(compacted.len(), 2, "the newest value, and the newest batch");
    assert_eq!(compacted.last(), all.last());
    assert!(bytes_in_files(&topics) < bytes);
    let appended = scene.append(5).unwrap();
    assert_eq!(appended.base_offset, 10);
    scene.core.settled_with_records().await.unwrap();
    let (compacted, bounds) = (kept(&scene), scene.partition().bounds());
    scene.close().await;

    let scene = Scene::open(folder.path()).await;
    assert_eq!((kept(&scene), scene.partition().bounds()), (compacted, bounds));
    assert!(scene.append(5).unwrap().duplicate, "the producer is known");
    scene.core.compact();
    assert_eq!(kept(&scene).len(), 2, "it is compacted further");
    scene.close().await;
}

#[tokio::test]
async fn compaction_that_finds_no_room_changes_nothing_and_is_done_later() {
    let folder = tempfile::tempdir().unwrap();
    let scene = compacted_scene(folder.path()).await;
    let all = kept(&scene);
    scene.faults.leave_room(20);
    scene.core.compact();
    assert_eq!(kept(&scene), all);
    scene.faults.lift();
    scene.append(5).unwrap();
    scene.core.settled_with_records().await.unwrap();
    scene.core.compact();
    assert_eq!(kept(&scene).len(), 2);
    scene.close().await;
}

#[test]
fn of_positions_the_later_one_counts_after_a_restart_too() {
    let kept = |offset| KeptOffset {
        topic: "orders".to_owned(),
        partition: 0,
        offset,
        leader_epoch: 0,
        metadata: String::new(),
    };
    let group = || "readers".to_owned();
    let begun = Entry::TransactionChanged {
        transactional_id: "id".to_owned(),
        transaction: KeptTransaction {
            producer_id: 7,
            epoch: 0,
            previous_producer_id: -1,
            last_epoch: -1,
            timeout_ms: 60_000,
            phase: KeptPhase::Ongoing,
            partitions: BTreeSet::new(),
            groups: BTreeSet::from([group()]),
            started_ms: 1,
        },
    };
    let held = Entry::OffsetsPending {
        producer_id: 7,
        group: group(),
        offsets: vec![kept(5)],
    };
    let committed = Entry::OffsetsCommitted {
        group: group(),
        offsets: vec![kept(9)],
    };
    for (entries, counts) in [
        ([begun.clone(), held.clone(), committed.clone()], 9),
        ([begun, committed, held], 5),
    ] {
        let mut state = JournalState::default();
        entries.into_iter().for_each(|entry| state.apply(entry));
        let mut offsets = offsets(&state).remove("readers").unwrap();
        assert!(offsets.is_unstable("orders", 0));
        assert_eq!(offsets.get("orders", 0).unwrap().offset, 9);
        offsets.end_transaction(7, Outcome::Commit);
        assert_eq!(offsets.get("orders", 0).unwrap().offset, counts);
    }
}

mod deletion;
mod transactions;
