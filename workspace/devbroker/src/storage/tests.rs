//! The files of a partition and the folder as a whole, under kills and damage.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;
use uuid::Uuid;

use super::partition_files::FilesConfig;
use super::replacing::Replacing;
use super::*;
use crate::batch::stamp;
use crate::samples;

const SEGMENT_BYTES: u64 = 600;

fn config(disk: Disk) -> FilesConfig {
    FilesConfig {
        disk,
        segment_bytes: SEGMENT_BYTES,
        synced: true,
    }
}

/// A partition's folder, and what was written to it.
struct Written {
    folder: TempDir,
    faults: Arc<DiskFaults>,
    files: PartitionFiles,
    batches: Vec<Bytes>,
}

impl Written {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let faults = Arc::new(DiskFaults::default());
        let path = folder.path().join("topic/0");
        Self {
            files: PartitionFiles::new(config(Disk::new(Arc::clone(&faults))), path, 0),
            folder,
            faults,
            batches: Vec::new(),
        }
    }

    fn with_batches(sizes: impl IntoIterator<Item = i32>) -> Self {
        let mut written = Self::new();
        sizes
            .into_iter()
            .for_each(|records| written.append(records).unwrap());
        written
    }

    fn append(&mut self, records: i32) -> Result<(), WriteError> {
        let (extent, bytes) = batch(self.files.end(), records);
        self.files.append(extent, &bytes)?;
        self.batches.push(bytes);
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("topic/0")
    }

    fn reopen(&self) -> Result<(PartitionFiles, Vec<Bytes>), StorageError> {
        reopen(&self.path(), 0)
    }

    /// The files with records, in the order of offsets.
    fn segments(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        paths
    }
}

fn batch(base_offset: i64, records: i32) -> (Extent, Bytes) {
    let mut bytes = samples::batch(records, base_offset, None);
    stamp(&mut bytes, base_offset);
    let extent = Extent::of_stored(&bytes).unwrap();
    assert_eq!(extent.last_offset, base_offset + i64::from(records) - 1);
    (extent, Bytes::from(bytes))
}

fn reopen(path: &Path, log_start: i64) -> Result<(PartitionFiles, Vec<Bytes>), StorageError> {
    let mut batches = Vec::new();
    let files = PartitionFiles::open(config(Disk::default()), path.to_owned(), log_start, |_, bytes| {
        batches.push(bytes)
    })?;
    Ok((files, batches))
}

fn cut(path: &Path, length: u64) {
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(length)
        .unwrap();
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// The process is killed at any byte of what it wrote after the last sync: what comes back is what
    /// was synced and perhaps more, in order, and the log goes on from there.
    #[test]
    fn a_kill_at_any_byte_keeps_what_was_synced(
        synced in prop::collection::vec(1..9_i32, 0..12),
        more in prop::collection::vec(1..9_i32, 0..12),
        at in 0.0..=1.0_f64,
        garbage in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut written = Written::with_batches(synced.iter().copied());
        let kept: BTreeMap<PathBuf, u64> =
            if synced.is_empty() { BTreeMap::new() }
            else { written.segments().into_iter().map(|path| (path.clone(), length(&path))).collect() };
        more.iter().for_each(|records| written.append(*records).unwrap());
        prop_assume!(!written.batches.is_empty());
        // Bytes after the cut never reached the disk, and whole files with them.
        let segments = written.segments();
        let safe = |path: &PathBuf| kept.get(path).copied().unwrap_or(0);
        let open: u64 = segments.iter().map(|path| length(path) - safe(path)).sum();
        let mut left = (open as f64 * at) as u64;
        let mut torn = None;
        for path in &segments {
            let added = length(path) - safe(path);
            if torn.is_some() {
                std::fs::remove_file(path).unwrap();
            } else if left < added {
                cut(path, safe(path) + left);
                torn = Some(path);
            }
            left = left.saturating_sub(added);
        }
        if let Some(path) = torn {
            use std::io::Write;
            File::options().append(true).open(path).unwrap().write_all(&garbage).unwrap();
        }
        let (files, batches) = written.reopen().unwrap();
        prop_assert!(batches.len() >= synced.len());
        prop_assert_eq!(&batches[..], &written.batches[..batches.len()]);
        written.files = files;
        written.batches = batches;
        written.append(3).unwrap();
        prop_assert_eq!(written.reopen().unwrap().1, written.batches);
    }

    /// A bit that flips anywhere is an error, except in the very last batch, which is taken for a torn one:
    /// whatever stands before sound batches is never cut off together with them.
    #[test]
    fn a_damaged_byte_is_found(
        sizes in prop::collection::vec(1..9_i32, 1..20),
        file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bit in 0..8_u32,
    ) {
        let written = Written::with_batches(sizes);
        let segments = written.segments();
        let path = file.get(&segments);
        let mut bytes = std::fs::read(path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        std::fs::write(path, bytes).unwrap();
        match written.reopen() {
            Ok((_, batches)) => {
                prop_assert_eq!(Some(path), segments.last());
                prop_assert_eq!(batches.len(), written.batches.len() - 1);
                prop_assert_eq!(&batches[..], &written.batches[..batches.len()]);
            }
            Err(error) => {
                prop_assert!(error.to_string().contains(path.file_name().unwrap().to_str().unwrap()));
            }
        }
    }
}

#[test]
fn files_are_rolled_and_tile_the_log() {
    let written = Written::with_batches([3; 20]);
    let segments = written.segments();
    assert!(segments.len() > 3, "{segments:?}");
    assert!(segments.iter().all(|path| length(path) <= SEGMENT_BYTES));
    assert_eq!(written.reopen().unwrap().1, written.batches);
}

#[test]
fn a_batch_larger_than_a_file_has_one_of_its_own() {
    let written = Written::with_batches([1, 100, 1]);
    assert_eq!(written.segments().len(), 3);
    assert_eq!(written.reopen().unwrap().1, written.batches);
}

#[test]
fn whole_files_before_the_log_start_go_and_the_last_one_stays() {
    let mut written = Written::with_batches([3; 20]);
    let second = written.reopen().unwrap().0.segments[1].name.base();
    written.files.drop_before(second - 1);
    assert_eq!(written.files.start(), 0);
    written.files.drop_before(second);
    assert_eq!(written.files.start(), second);
    written.files.drop_before(i64::MAX);
    assert_eq!(written.segments().len(), 1);
    let (files, batches) = written.reopen().unwrap();
    assert_eq!(files.end(), 60);
    assert!(written.batches.ends_with(&batches) && !batches.is_empty());
}

#[test]
fn a_log_that_ends_before_its_start_begins_anew_there() {
    let written = Written::with_batches([3; 5]);
    let (mut files, _) = reopen(&written.path(), 100).unwrap();
    assert_eq!((files.start(), files.end()), (100, 100));
    let (extent, bytes) = batch(100, 2);
    files.append(extent, &bytes).unwrap();
    assert_eq!(reopen(&written.path(), 100).unwrap().1, [bytes]);
}

#[test]
fn a_missing_file_in_the_middle_is_an_error() {
    let written = Written::with_batches([3; 20]);
    std::fs::remove_file(&written.segments()[1]).unwrap();
    let error = written.reopen().unwrap_err().to_string();
    assert!(error.contains("the file before it ends at offset"), "{error}");
}

#[test]
fn a_file_that_was_begun_and_never_used_does_not_make_a_torn_end_an_error() {
    let mut written = Written::with_batches([3; 4]);
    let last = written.segments().pop().unwrap();
    cut(&last, length(&last) - 1);
    written.batches.pop();
    File::create(written.path().join("00000000000000000012.log")).unwrap();
    assert_eq!(written.reopen().unwrap().1, written.batches);
}

#[test]
fn a_full_disk_refuses_a_batch_and_leaves_nothing_of_it() {
    let mut written = Written::with_batches([2, 2]);
    for room in [0, 1, 60, 100] {
        written.faults.leave_room(room);
        let refused = written.append(4).unwrap_err();
        assert!(refused.0.contains("topic/0"), "{refused}");
        written.faults.lift();
        written.append(1).unwrap();
    }
    assert_eq!(written.reopen().unwrap().1, written.batches);
    written.append(4).unwrap();
    assert_eq!(written.reopen().unwrap().1, written.batches);
}

#[test]
fn what_must_be_synced_is_told_once_with_the_folders_of_new_files() {
    let mut written = Written::with_batches([2]);
    let first = format!("{:?}", written.files.take_unsynced());
    assert!(
        first.contains("00000000000000000000.log") && first.contains("topic/0\""),
        "{first}"
    );
    written.append(2).unwrap();
    let second = written.files.take_unsynced();
    assert!(!format!("{second:?}").contains("topic/0\""), "{second:?}");
    written.faults.fail_syncs();
    second.sync(&Disk::new(Arc::clone(&written.faults))).unwrap_err();
    assert!(!format!("{:?}", written.files.take_unsynced()).contains(".log"));
}

#[test]
fn a_deleted_partition_leaves_no_file_and_takes_nothing() {
    let mut written = Written::with_batches([2]);
    written.files.delete();
    assert!(!written.path().exists());
    written.append(2).unwrap_err();
}

/// Compaction that keeps every second batch, in its steps.
struct Compaction {
    written: Written,
    kept: Vec<Bytes>,
    replacing: Replacing,
}

fn compaction() -> Compaction {
    let mut written = Written::with_batches([3; 12]);
    let replacing = written.files.begin_replacing().unwrap();
    assert_eq!(replacing.range(), 0..36);
    let kept = written.batches.iter().step_by(2).cloned().collect();
    // Records come in while compaction is at work.
    written.append(2).unwrap();
    Compaction {
        written,
        kept,
        replacing,
    }
}

#[test]
fn compaction_takes_its_place_beside_what_came_in_meanwhile() {
    let Compaction {
        mut written,
        kept,
        replacing,
    } = compaction();
    let replaced = replacing.write(kept.iter().cloned()).unwrap();
    written.files.finish_replacing(&replaced).unwrap();
    written.append(2).unwrap();
    assert_eq!(written.segments().len(), 2);
    let expected = [&kept[..], &written.batches[12..]].concat();
    let (mut files, batches) = written.reopen().unwrap();
    assert_eq!(batches, expected);
    assert_eq!((files.start(), files.end()), (0, 40));
    // Again, over the result of the first time, with nothing left of it.
    let replaced = files.begin_replacing().unwrap().write([]).unwrap();
    files.finish_replacing(&replaced).unwrap();
    let (files, batches) = written.reopen().unwrap();
    assert!(batches.is_empty());
    assert_eq!(
        (files.start(), files.end()),
        (0, 40),
        "the log still ends where it ended"
    );
}

#[test]
fn compaction_that_is_interrupted_before_it_is_whole_changed_nothing() {
    let Compaction {
        written,
        kept,
        replacing,
    } = compaction();
    written.faults.leave_room(100);
    replacing.write(kept).unwrap_err();
    std::fs::write(written.path().join("00000000000000000000.new"), b"half").unwrap();
    assert_eq!(written.reopen().unwrap().1, written.batches);
    assert!(
        written
            .segments()
            .iter()
            .all(|path| path.extension().unwrap() == "log")
    );
}

#[test]
fn a_file_whose_first_batch_found_no_room_is_used_after_compaction_too() {
    let mut written = Written::with_batches([8]);
    while length(written.segments().last().unwrap()) + batch(0, 8).1.len() as u64 <= SEGMENT_BYTES {
        written.append(8).unwrap();
    }
    let files = written.segments().len();
    written.faults.leave_room(10);
    written.append(8).unwrap_err();
    written.faults.lift();
    assert_eq!(written.segments().len(), files + 1, "the next file was begun");
    let replacing = written.files.begin_replacing().unwrap();
    written.append(8).unwrap();
    let kept = written.batches[..1].to_vec();
    let replaced = replacing.write(kept.clone()).unwrap();
    written.files.finish_replacing(&replaced).unwrap();
    written.append(8).unwrap();
    let newer = written.batches.len() - 2;
    let expected = [&kept[..], &written.batches[newer..]].concat();
    assert_eq!(written.reopen().unwrap().1, expected);
}

#[test]
fn compaction_that_is_whole_is_finished_by_the_next_start_whatever_was_already_removed() {
    for removed in 0..4 {
        let Compaction {
            written,
            kept,
            replacing,
        } = compaction();
        replacing.write(kept.iter().cloned()).unwrap();
        for path in written
            .segments()
            .iter()
            .filter(|path| path.extension().unwrap() == "log")
            .take(removed)
        {
            std::fs::remove_file(path).unwrap();
        }
        let expected = [&kept[..], &written.batches[12..]].concat();
        assert_eq!(written.reopen().unwrap().1, expected);
        assert_eq!(written.reopen().unwrap().1, expected, "and the start after it");
    }
}

#[test]
fn damage_in_a_compacted_file_is_an_error_wherever_it_is() {
    let Compaction {
        mut written,
        kept,
        replacing,
    } = compaction();
    let replaced = replacing.write(kept).unwrap();
    written.files.finish_replacing(&replaced).unwrap();
    let path = written.segments().remove(0);
    let sound = std::fs::read(&path).unwrap();
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        written.reopen().unwrap_err();
    }
    std::fs::write(&path, &sound[..sound.len() / 2]).unwrap();
    written.reopen().unwrap_err();
}

fn open(folder: &Path) -> Result<(Storage, Recovered), StorageError> {
    Storage::open(&DataOptions::new(folder), Arc::default())
}

#[test]
fn a_second_broker_on_the_same_folder_is_refused_by_name_until_the_first_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).unwrap();
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains(&std::process::id().to_string()) && error.contains("lock"),
        "{error}"
    );
    let cluster_id = first.1.cluster_id.clone();
    drop(first);
    assert_eq!(open(folder.path()).unwrap().1.cluster_id, cluster_id);
}

#[test]
fn a_folder_of_another_format_or_with_topics_of_someone_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("topics/mine")).unwrap();
    assert!(matches!(open(folder.path()), Err(StorageError::Unclaimed { .. })));
    std::fs::remove_dir(folder.path().join("topics/mine")).unwrap();
    std::fs::write(
        folder.path().join("devbroker.json"),
        r#"{"format":2,"cluster_id":"x"}"#,
    )
    .unwrap();
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains(r#"{"format":2"#) && error.contains("devbroker.json"),
        "{error}"
    );
}

#[tokio::test]
async fn the_folder_of_a_deleted_topic_goes_with_the_next_start_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (storage, _) = open(folder.path()).unwrap();
    let ids = ["a", "b"].map(|name| (name, Uuid::new_v4()));
    for (name, id) in ids {
        let created = Entry::TopicCreated {
            name: name.to_owned(),
            id,
            partitions: 1,
            settings: BTreeMap::new(),
        };
        storage.record(vec![created]).unwrap();
        let (extent, bytes) = batch(0, 1);
        storage
            .new_partition((name, id), 0)
            .append(extent, &bytes)
            .unwrap();
    }
    storage
        .record(vec![Entry::TopicDeleted { name: "a".to_owned() }])
        .unwrap();
    storage.settled().await.unwrap();
    storage.close();
    drop(storage);
    let (storage, recovered) = open(folder.path()).unwrap();
    assert_eq!(recovered.state.topics.keys().collect::<Vec<_>>(), ["b"]);
    let left: Vec<_> = std::fs::read_dir(folder.path().join("topics")).unwrap().collect();
    assert_eq!(left.len(), 1);
    let mut found = 0;
    let files = storage.open_partition(ids[1], 0, 0, |_, _| found += 1).unwrap();
    assert_eq!((found, files.end()), (1, 1));
}
