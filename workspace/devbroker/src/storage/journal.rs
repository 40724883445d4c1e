//! The journal: everything that is kept besides records, as a row of entries.
//!
//! Its state is kept in memory too, so that the journal can be begun anew at any time: when the file
//! has grown past a bound, the state goes into a new file as a snapshot, and the entries that follow
//! go there. The old file stays until the new one is on the disk. A start takes the newest file whose
//! snapshot is whole; a newer one without was not synced, so nobody was told anything on its strength.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::error::{StorageError, WriteError};
use super::files::{Disk, DiskFile, remove_if_there};
use super::flush::Flushable;
use super::journal_file::{Damage, ReadFile, frames, read};
use super::journal_state::{Entry, JournalState};
use crate::sync::lock;

/// A file is not begun anew before it has this many bytes.
const MIN_REWRITE_BYTES: u64 = 1 << 20;
/// Nor before the entries have this many times the bytes of the snapshot that they follow.
const REWRITE_FACTOR: u64 = 4;

/// What the owner can do about damage that can not be cut off.
const REMEDY: &str = "restore the file from a copy, or start with an empty data folder";

#[derive(Debug)]
pub(crate) struct Journal {
    disk: Disk,
    folder: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: JournalState,
    file: Arc<DiskFile>,
    number: u64,
    bytes: u64,
    rewrite_at: u64,
    /// Former files, which are needed until the one that is written to is on the disk.
    former: Vec<PathBuf>,
    broken: Option<WriteError>,
}

/// Whether a new file was begun, which must be synced soon whatever the policy: until then two are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    Appended,
    BegunAnew,
}

impl Journal {
    /// Opens the journal in a folder, or begins it. Returns the state that it adds up to.
    pub(crate) fn open(disk: Disk, folder: &Path) -> Result<(Self, JournalState), StorageError> {
        let mut numbers = files(folder)?;
        numbers.sort_unstable();
        let mut unsound = None;
        while let Some(number) = numbers.pop() {
            let path = path(folder, number);
            match read(&path).map_err(StorageError::io("read", &path))? {
                Some(file) => return Self::resume(disk, folder, number, file),
                None => {
                    tracing::warn!(file = %path.display(), "a journal that was begun and not finished is put aside");
                    unsound.get_or_insert(path);
                }
            }
        }
        match unsound {
            Some(path) => Err(damaged(&path, 0, "its snapshot is not whole")),
            None => Self::begin(disk, folder),
        }
    }

    /// Whether a folder has a journal.
    pub(crate) fn exists(folder: &Path) -> Result<bool, StorageError> {
        Ok(!files(folder)?.is_empty())
    }

    fn begin(disk: Disk, folder: &Path) -> Result<(Self, JournalState), StorageError> {
        let path = path(folder, 1);
        let begun = || {
            let snapshot = frames(&[JournalState::default()])?;
            disk.replace(&path, &snapshot)?;
            Ok((disk.open(&path)?, snapshot.len() as u64))
        };
        let (file, bytes) = begun().map_err(StorageError::io("write", &path))?;
        let state = JournalState::default();
        let journal = Self::of(disk, folder, state.clone(), file, 1, bytes, bytes);
        Ok((journal, state))
    }

    fn resume(
        disk: Disk,
        folder: &Path,
        number: u64,
        read: ReadFile,
    ) -> Result<(Self, JournalState), StorageError> {
        let path = path(folder, number);
        if read.damage == Some(Damage::InTheMiddle) {
            return Err(damaged(
                &path,
                read.sound_bytes,
                "an entry is damaged, and others follow",
            ));
        }
        let file = disk.open(&path).map_err(StorageError::io("open", &path))?;
        if read.damage.is_some() {
            tracing::warn!(
                file = %path.display(),
                position = read.sound_bytes,
                cut_bytes = read.file_bytes - read.sound_bytes,
                "the end of the journal is torn and was cut off at the last sound entry"
            );
            file.truncate(read.sound_bytes)
                .map_err(StorageError::io("cut the torn end of", &path))?;
        }
        // What a killed process wrote counts from now on, so it has to be on the disk.
        let synced = file.sync().and_then(|()| disk.sync_folder(folder));
        synced.map_err(StorageError::io("sync", &path))?;
        for other in files(folder)?.into_iter().filter(|other| *other != number) {
            let other = self::path(folder, other);
            remove_if_there(&other).map_err(StorageError::io("remove", &other))?;
        }
        let state = read.state;
        let journal = Self::of(
            disk,
            folder,
            state.clone(),
            file,
            number,
            read.sound_bytes,
            read.snapshot_bytes,
        );
        Ok((journal, state))
    }

    fn of(
        disk: Disk,
        folder: &Path,
        state: JournalState,
        file: DiskFile,
        number: u64,
        bytes: u64,
        snapshot_bytes: u64,
    ) -> Self {
        let inner = Inner {
            state,
            file: Arc::new(file),
            number,
            bytes,
            rewrite_at: rewrite_at(snapshot_bytes),
            former: Vec::new(),
            broken: None,
        };
        Self {
            disk,
            folder: folder.to_owned(),
            inner: Mutex::new(inner),
        }
    }

    /// Writes entries, all or none of them.
    pub(crate) fn write(&self, entries: Vec<Entry>) -> Result<Written, WriteError> {
        let failed = |error: io::Error| WriteError(format!("can not write to the journal: {error}"));
        let bytes = frames(&entries).map_err(failed)?;
        let mut inner = lock(&self.inner);
        if let Some(reason) = &inner.broken {
            return Err(reason.clone());
        }
        if let Err(error) = inner.file.append(&bytes) {
            inner.undo();
            return Err(failed(error));
        }
        inner.bytes += bytes.len() as u64;
        entries.into_iter().for_each(|entry| inner.state.apply(entry));
        if inner.bytes < inner.rewrite_at {
            return Ok(Written::Appended);
        }
        Ok(self.begin_anew(&mut inner))
    }

    /// Begins a new file with a snapshot. Where that fails, the old one simply grows on.
    fn begin_anew(&self, inner: &mut Inner) -> Written {
        let number = inner.number + 1;
        let path = path(&self.folder, number);
        let begun = frames(&[&inner.state]).and_then(|snapshot| {
            let file = self.disk.create(&path)?;
            file.append(&snapshot)?;
            Ok((file, snapshot.len() as u64))
        });
        match begun {
            Ok((file, bytes)) => {
                inner.former.push(inner.file.path().to_owned());
                inner.file = Arc::new(file);
                inner.number = number;
                inner.bytes = bytes;
                inner.rewrite_at = rewrite_at(bytes);
                Written::BegunAnew
            }
            Err(error) => {
                inner.rewrite_at = inner.rewrite_at.saturating_mul(2);
                tracing::warn!(file = %path.display(), %error, "the journal can not be begun anew and grows on");
                drop(remove_if_there(&path));
                Written::Appended
            }
        }
    }

    /// Why it takes no more entries.
    pub(crate) fn failure(&self) -> Option<WriteError> {
        lock(&self.inner).broken.clone()
    }

    fn sync(&self, file: &DiskFile) -> io::Result<()> {
        file.sync()?;
        self.disk.sync_folder(&self.folder)
    }
}

impl Inner {
    /// Takes what a failed write left out of the file again.
    fn undo(&mut self) {
        if let Err(error) = self.file.truncate(self.bytes) {
            let path = self.file.path().display();
            self.break_off(format!("a torn entry can not be cut from `{path}`: {error}"));
        }
    }

    fn break_off(&mut self, reason: String) {
        if self.broken.is_none() {
            tracing::error!(
                file = %self.file.path().display(),
                reason,
                "the journal takes no more entries; mend the disk and restart the broker, which then recovers what \
                 is on it"
            );
            self.broken = Some(WriteError(reason));
        }
    }
}

impl Flushable for Journal {
    fn flush(&self) {
        let (file, former) = {
            let mut inner = lock(&self.inner);
            (Arc::clone(&inner.file), std::mem::take(&mut inner.former))
        };
        if let Err(error) = self.sync(&file) {
            let reason = format!("`{}` can not be synced: {error}", file.path().display());
            lock(&self.inner).break_off(reason);
            return;
        }
        for path in former {
            if let Err(error) = remove_if_there(&path) {
                tracing::warn!(file = %path.display(), %error, "a journal that is not needed any more can not be removed");
            }
        }
    }
}

fn rewrite_at(snapshot_bytes: u64) -> u64 {
    MIN_REWRITE_BYTES.max(snapshot_bytes.saturating_mul(REWRITE_FACTOR))
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("journal-{number:010}"))
}

/// The numbers of the journal's files in a folder.
fn files(folder: &Path) -> Result<Vec<u64>, StorageError> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(StorageError::io("list", folder))? {
        let entry = entry.map_err(StorageError::io("list", folder))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("journal-"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    Ok(numbers)
}

fn damaged(path: &Path, position: u64, reason: &str) -> StorageError {
    StorageError::Damaged {
        file: path.to_owned(),
        position,
        reason: reason.to_owned(),
        remedy: REMEDY,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::super::files::DiskFaults;
    use super::*;

    fn taken(below: i64) -> Entry {
        Entry::ProducerIdsTaken { below }
    }

    /// An entry of about `bytes` bytes that overwrites the one before.
    fn large(text: char, bytes: usize) -> Entry {
        Entry::TopicCreated {
            name: "a".to_owned(),
            id: Uuid::nil(),
            partitions: 1,
            settings: BTreeMap::from([("x".to_owned(), text.to_string().repeat(bytes))]),
        }
    }

    fn opened(folder: &Path) -> (Journal, JournalState) {
        Journal::open(Disk::default(), folder).unwrap()
    }

    #[test]
    fn what_was_written_is_there_again() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, state) = opened(folder.path());
        assert_eq!(state, JournalState::default());
        journal.write(vec![taken(5), taken(6)]).unwrap();
        journal.write(vec![taken(7)]).unwrap();
        drop(journal);
        assert_eq!(opened(folder.path()).1.producer_ids_below, 7);
    }

    #[test]
    fn a_journal_that_grew_is_begun_anew_and_the_old_file_goes_once_the_new_one_is_synced() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, _) = opened(folder.path());
        let mut rewritten = 0;
        for round in 0..40 {
            let text = if round % 2 == 0 { 'a' } else { 'b' };
            rewritten +=
                usize::from(journal.write(vec![large(text, 100_000)]).unwrap() == Written::BegunAnew);
        }
        assert!((2..8).contains(&rewritten), "{rewritten}");
        assert_eq!(files(folder.path()).unwrap().len(), rewritten + 1);
        journal.flush();
        assert_eq!(files(folder.path()).unwrap().len(), 1);
        journal.write(vec![taken(7)]).unwrap();
        drop(journal);
        let state = opened(folder.path()).1;
        assert!(state.topics["a"].settings["x"].starts_with('b'));
        assert_eq!(state.producer_ids_below, 7);
    }

    #[test]
    fn a_newer_file_without_a_whole_snapshot_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, _) = opened(folder.path());
        journal.write(vec![taken(7)]).unwrap();
        drop(journal);
        let snapshot = frames(&[JournalState::default()]).unwrap();
        std::fs::write(path(folder.path(), 2), &snapshot[..snapshot.len() - 1]).unwrap();
        assert_eq!(opened(folder.path()).1.producer_ids_below, 7);
        assert_eq!(files(folder.path()).unwrap(), [1]);
        std::fs::write(path(folder.path(), 1), &snapshot[..20]).unwrap();
        let error = Journal::open(Disk::default(), folder.path())
            .unwrap_err()
            .to_string();
        assert!(error.contains("journal-0000000001"), "{error}");
    }

    #[test]
    fn a_failed_write_leaves_nothing_and_the_next_one_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let faults = Arc::new(DiskFaults::default());
        let (journal, _) = Journal::open(Disk::new(Arc::clone(&faults)), folder.path()).unwrap();
        journal.write(vec![taken(1)]).unwrap();
        faults.leave_room(10);
        journal.write(vec![taken(2)]).unwrap_err();
        faults.lift();
        journal.write(vec![taken(3)]).unwrap();
        drop(journal);
        assert_eq!(opened(folder.path()).1.producer_ids_below, 3);
    }

    #[test]
    fn after_a_failed_sync_nothing_more_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let faults = Arc::new(DiskFaults::default());
        let (journal, _) = Journal::open(Disk::new(Arc::clone(&faults)), folder.path()).unwrap();
        journal.write(vec![taken(1)]).unwrap();
        faults.fail_syncs();
        journal.flush();
        faults.lift();
        assert!(journal.failure().is_some());
        journal.write(vec![taken(2)]).unwrap_err();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// The process is killed at any byte of what it wrote after the last sync; the state that
        /// comes back is the one after some entry, and not before the last that was synced.
        #[test]
        fn a_kill_at_any_byte_keeps_what_was_synced(synced in 0..10_i64, more in 0..10_i64, cut in 0.0..=1.0_f64) {
            let folder = tempfile::tempdir().unwrap();
            let (journal, _) = opened(folder.path());
            let write = |below| assert_eq!(journal.write(vec![taken(below)]), Ok(Written::Appended));
            (1..=synced).for_each(write);
            journal.flush();
            let file = path(folder.path(), 1);
            let safe = std::fs::metadata(&file).unwrap().len();
            (synced + 1..=synced + more).for_each(write);
            drop(journal);
            let end = std::fs::metadata(&file).unwrap().len();
            let length = safe + ((end - safe) as f64 * cut) as u64;
            std::fs::File::options().write(true).open(&file).unwrap().set_len(length).unwrap();
            let below = opened(folder.path()).1.producer_ids_below;
            prop_assert!((synced..=synced + more).contains(&below));
            // And it goes on from there.
            let (journal, _) = opened(folder.path());
            journal.write(vec![taken(100)]).unwrap();
            drop(journal);
            prop_assert_eq!(opened(folder.path()).1.producer_ids_below, 100);
        }
    }
}
