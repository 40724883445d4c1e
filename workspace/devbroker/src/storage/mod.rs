//! A data folder: what of the broker outlives its process.
//!
//! Records are in memory whether there is a folder or not; the folder mirrors them, and a start reads
//! it back. Three rules hold:
//!
//! 1. What a client was told is safe, is: with [`Flush::Always`] an answer waits until everything that
//!    it tells of is on the disk.
//! 2. What was not written is not seen: a write that fails changes nothing in memory.
//! 3. Damage is cut off only where nobody was told of what is lost, at the end of what was written
//!    last; anywhere else it is an error that names the file.
//!
//! Layout: `devbroker.json` (format and cluster id), `lock`, `journal-<number>` (all but records), and
//! `topics/<name>.<topic id>/<partition>/` with the files that `segment_name` describes.
//!
//! - `partition_files`, `segment`, `segment_name`, `recovery`, `replacing`: records.
//! - `journal`, `journal_file`, `journal_state`: everything else.
//! - `flush`: one thread that syncs for all; `files`: the file system, with faults; `error`.

mod error;
mod files;
mod flush;
mod journal;
mod journal_file;
mod journal_state;
mod partition_files;
mod recovery;
mod replacing;
mod segment;
mod segment_name;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use error::StorageError;
pub(crate) use error::WriteError;
pub(crate) use files::{Disk, DiskFaults};
pub use flush::Flush;
pub(crate) use flush::Flushable;
pub(crate) use journal_state::{
    Entry, JournalState, KeptOffset, KeptPhase, KeptTopic, KeptTransaction, PlacedOffset,
};
pub(crate) use partition_files::PartitionFiles;
pub(crate) use replacing::Replaced;

use crate::batch::Extent;
use flush::Flusher;
use journal::{Journal, Written};
use partition_files::FilesConfig;

/// The version of the layout that this code writes and reads.
const FORMAT: u32 = 1;
/// The part of a topic's name that its folder shows; the id behind it is what counts.
const SHOWN_NAME_CHARS: usize = 100;

/// Where the broker keeps its data, and how careful it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataOptions {
    /// The folder. It is created where it does not exist, and one broker at a time may use it.
    pub folder: PathBuf,
    /// When what was written is synced.
    pub flush: Flush,
    /// Bytes after which a partition begins a new file.
    pub segment_bytes: u64,
}

impl DataOptions {
    /// The defaults: sync before each answer, files of 64 MiB.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            flush: Flush::default(),
            segment_bytes: 64 << 20,
        }
    }
}

/// An open data folder.
#[derive(Debug)]
pub(crate) struct Storage {
    folder: PathBuf,
    files: FilesConfig,
    journal: Arc<Journal>,
    flush: Flush,
    flusher: Flusher,
    /// Holds the lock for as long as it lives.
    lock: File,
}

/// What a folder held when it was opened; records come from [`Storage::open_partition`].
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) cluster_id: String,
    pub(crate) state: JournalState,
}

#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    format: u32,
    cluster_id: String,
}

impl Storage {
    /// Opens or creates a data folder. Blocks.
    pub(crate) fn open(
        options: &DataOptions,
        faults: Arc<DiskFaults>,
    ) -> Result<(Self, Recovered), StorageError> {
        let folder = &options.folder;
        let topics = folder.join("topics");
        std::fs::create_dir_all(&topics).map_err(StorageError::io("create", &topics))?;
        let lock = take_lock(folder)?;
        let disk = Disk::new(faults);
        let cluster_id = identify(&disk, folder)?;
        let has_topics = std::fs::read_dir(&topics)
            .map_err(StorageError::io("list", &topics))?
            .next()
            .is_some();
        if has_topics && !Journal::exists(folder)? {
            return Err(StorageError::Unclaimed {
                folder: folder.clone(),
            });
        }
        let (journal, state) = Journal::open(disk.clone(), folder)?;
        let known = state
            .topics
            .iter()
            .map(|(name, topic)| topic_folder(name, topic.id))
            .collect();
        remove_strangers(&topics, &known)?;
        let flusher =
            Flusher::start(options.flush).map_err(StorageError::io("start the thread that syncs", folder))?;
        let storage = Self {
            folder: folder.clone(),
            files: FilesConfig {
                disk,
                segment_bytes: options.segment_bytes,
                synced: options.flush != Flush::Never,
            },
            journal: Arc::new(journal),
            flush: options.flush,
            flusher,
            lock,
        };
        Ok((storage, Recovered { cluster_id, state }))
    }

    /// Reads what a partition has, and hands out each batch. Blocks.
    pub(crate) fn open_partition(
        &self,
        topic: (&str, Uuid),
        partition: i32,
        log_start: i64,
        visit: impl FnMut(Extent, Bytes),
    ) -> Result<PartitionFiles, StorageError> {
        let folder = self.partition_folder(topic, partition);
        PartitionFiles::open(self.files.clone(), folder, log_start, visit)
    }

    /// The files of a partition that is new.
    pub(crate) fn new_partition(&self, topic: (&str, Uuid), partition: i32) -> PartitionFiles {
        PartitionFiles::new(self.files.clone(), self.partition_folder(topic, partition), 0)
    }

    fn partition_folder(&self, (name, id): (&str, Uuid), partition: i32) -> PathBuf {
        let topics = self.folder.join("topics");
        topics.join(topic_folder(name, id)).join(partition.to_string())
    }

    /// Removes what is left of a topic whose partitions were deleted.
    pub(crate) fn remove_topic(&self, name: &str, id: Uuid) {
        let folder = self.folder.join("topics").join(topic_folder(name, id));
        // Where it can not be removed, or never was, the next start sees to it.
        drop(std::fs::remove_dir_all(folder));
    }

    /// Writes entries to the journal, all or none. They are kept once [`Storage::settled`] says so.
    pub(crate) fn record(&self, entries: Vec<Entry>) -> Result<(), WriteError> {
        let journal = Arc::clone(&self.journal);
        match self.journal.write(entries)? {
            Written::Appended => self.flusher.dirty(journal),
            Written::BegunAnew => self.flusher.urgent(journal),
        }
        Ok(())
    }

    /// Takes note that a partition was written to.
    pub(crate) fn dirty(&self, partition: Arc<dyn Flushable>) {
        self.flusher.dirty(partition);
    }

    /// Returns when all entries that were written before are as safe as the folder's policy wants them.
    pub(crate) async fn settled(&self) -> Result<(), WriteError> {
        let journal = Arc::clone(&self.journal) as Arc<dyn Flushable>;
        self.flusher.settled_for(&journal).await?;
        self.journal.failure().map_or(Ok(()), Err)
    }

    /// The same for records too. Partitions are to be asked whether they failed.
    pub(crate) async fn settled_with_records(&self) -> Result<(), WriteError> {
        self.records_settled().await?;
        self.journal.failure().map_or(Ok(()), Err)
    }

    /// The same for records alone, whatever became of the journal.
    pub(crate) async fn records_settled(&self) -> Result<(), WriteError> {
        self.flusher.settled().await
    }

    /// Whether records are shown to readers only once they are on the disk.
    pub(crate) fn shows_synced_only(&self) -> bool {
        self.flush == Flush::Always
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.files.disk
    }

    /// Lets the thread that syncs end, so that the folder is freed when nobody uses it any more.
    pub(crate) fn abandon(&self) {
        self.flusher.ask_to_stop();
    }

    /// Syncs what is written, ends the thread that does it, and frees the folder. Blocks.
    pub(crate) fn close(&self) {
        self.flusher.stop();
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(folder = %self.folder.display(), %error, "the data folder can not be freed before the process ends");
        }
    }
}

fn topic_folder(name: &str, id: Uuid) -> String {
    let shown: String = name.chars().take(SHOWN_NAME_CHARS).collect();
    format!("{shown}.{id}")
}

/// Takes the folder for this process. The operating system frees it however the process ends.
fn take_lock(folder: &Path) -> Result<File, StorageError> {
    let path = folder.join("lock");
    let opened = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let mut file = opened.map_err(StorageError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            if file.read_to_string(&mut holder).is_err() || holder.trim().is_empty() {
                holder = "unknown".to_owned();
            }
            return Err(StorageError::Locked {
                folder: folder.to_owned(),
                lock: path,
                holder: holder.trim().to_owned(),
            });
        }
        Err(TryLockError::Error(error)) => return Err(StorageError::io("lock", &path)(error)),
    }
    let written = file
        .set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(StorageError::io("write", &path))?;
    Ok(file)
}

/// The cluster id of the folder, which it gets when it is new.
fn identify(disk: &Disk, folder: &Path) -> Result<String, StorageError> {
    let path = folder.join("devbroker.json");
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let cluster_id = Uuid::new_v4().simple().to_string();
            let identity = serde_json::json!({ "format": FORMAT, "cluster_id": &cluster_id });
            let written = disk.replace(&path, format!("{identity}\n").as_bytes());
            written.map_err(StorageError::io("write", &path))?;
            return Ok(cluster_id);
        }
        text => text.map_err(StorageError::io("read", &path))?,
    };
    match serde_json::from_str::<Identity>(&text) {
        Ok(identity) if identity.format == FORMAT => Ok(identity.cluster_id),
        _ => Err(StorageError::Format {
            file: path,
            found: text.trim().chars().take(100).collect(),
        }),
    }
}

/// Removes the folders of topics that the journal does not know: deleted ones.
fn remove_strangers(topics: &Path, known: &HashSet<String>) -> Result<(), StorageError> {
    for entry in std::fs::read_dir(topics).map_err(StorageError::io("list", topics))? {
        let entry = entry.map_err(StorageError::io("list", topics))?;
        let path = entry.path();
        let name = entry.file_name();
        let is_topic = |name: &str| {
            name.rsplit_once('.')
                .is_some_and(|(_, id)| Uuid::parse_str(id).is_ok())
        };
        if name
            .to_str()
            .is_some_and(|name| is_topic(name) && !known.contains(name))
        {
            tracing::info!(folder = %path.display(), "the folder of a topic that was deleted is removed");
            std::fs::remove_dir_all(&path).map_err(StorageError::io("remove", &path))?;
        }
    }
    Ok(())
}
