//! The files of one partition: what is appended, rolled, dropped, and replaced by compaction.
//!
//! The files tile the log: each one begins at the offset where the one before it ends. Only the last
//! one grows. After a failed write the file is cut back to its last whole batch, so a torn batch is
//! found in a file only where the process ended while it wrote; if even the cut fails, the partition
//! takes nothing more until the next start has looked at it.
//!
//! Nothing here syncs on its own: [`PartitionFiles::take_unsynced`] says what must be synced, and the
//! flusher does it. The caller brings the lock.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::WriteError;
use super::files::{Disk, DiskFile, remove_if_there};
use super::segment_name::SegmentName;
use crate::batch::Extent;

/// What the partitions of one data folder have in common.
#[derive(Debug, Clone)]
pub(crate) struct FilesConfig {
    pub(crate) disk: Disk,
    /// A file that would pass this with the next batch is left as it is, and a new one begun.
    pub(crate) segment_bytes: u64,
    /// Whether anybody will ask for what must be synced.
    pub(crate) synced: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) name: SegmentName,
    /// The offset after its last record.
    pub(super) end: i64,
    pub(super) bytes: u64,
}

/// Files and folders whose content or entries are not known to be on the disk.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    files: Vec<Arc<DiskFile>>,
    /// From the inside to the outside.
    folders: Vec<PathBuf>,
}

impl Unsynced {
    /// Returns when all of it is on the disk: oldest file first, so that a power loss in between
    /// leaves no hole.
    pub(crate) fn sync(&self, disk: &Disk) -> io::Result<()> {
        self.files.iter().try_for_each(|file| file.sync())?;
        self.folders
            .iter()
            .try_for_each(|folder| disk.sync_folder(folder))
    }

    fn add_file(&mut self, file: &Arc<DiskFile>) {
        if !self.files.last().is_some_and(|last| Arc::ptr_eq(last, file)) {
            self.files.push(Arc::clone(file));
        }
    }

    fn add_folder(&mut self, folder: &Path) {
        if !self.folders.iter().any(|known| known == folder) {
            self.folders.push(folder.to_owned());
        }
    }
}

#[derive(Debug)]
pub(crate) struct PartitionFiles {
    pub(super) config: FilesConfig,
    pub(super) folder: PathBuf,
    pub(super) segments: VecDeque<Segment>,
    /// The offset of the next record.
    pub(super) end: i64,
    /// The last segment, once it was written to.
    pub(super) active: Option<Arc<DiskFile>>,
    /// The last segment is to be left as it is.
    pub(super) sealed: bool,
    pub(super) unsynced: Unsynced,
    pub(super) broken: Option<WriteError>,
}

impl PartitionFiles {
    /// A partition without a file yet, whose first record will have this offset.
    pub(crate) fn new(config: FilesConfig, folder: PathBuf, first_offset: i64) -> Self {
        Self {
            config,
            folder,
            segments: VecDeque::new(),
            end: first_offset,
            active: None,
            sealed: false,
            unsynced: Unsynced::default(),
            broken: None,
        }
    }

    /// The offset of the next record.
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// The first offset that is in a file.
    pub(crate) fn start(&self) -> i64 {
        self.segments.front().map_or(self.end, |first| first.name.base())
    }

    /// Appends a batch. It begins at [`PartitionFiles::end`]; after an error it is not in the file.
    pub(crate) fn append(&mut self, extent: Extent, bytes: &[u8]) -> Result<(), WriteError> {
        if let Some(reason) = &self.broken {
            return Err(reason.clone());
        }
        if extent.base_offset != self.end {
            let (base, end) = (extent.base_offset, self.end);
            return Err(WriteError(format!(
                "the batch begins at offset {base}, the file ends at {end}"
            )));
        }
        let length = bytes.len() as u64;
        let file = self.writable(length).map_err(|error| self.failed(&error))?;
        if let Err(error) = file.append(bytes) {
            self.undo(&file);
            return Err(self.failed(&error));
        }
        self.end = extent.last_offset.saturating_add(1);
        if let Some(last) = self.segments.back_mut() {
            last.end = self.end;
            last.bytes += length;
        }
        if self.config.synced {
            self.unsynced.add_file(&file);
        }
        Ok(())
    }

    /// The file that the next batch of `length` bytes goes to.
    fn writable(&mut self, length: u64) -> io::Result<Arc<DiskFile>> {
        let grows = self.segments.back().filter(|last| {
            let has_room = last.bytes == 0 || last.bytes.saturating_add(length) <= self.config.segment_bytes;
            matches!(last.name, SegmentName::Dense { .. }) && has_room && !self.sealed
        });
        let Some(last) = grows else {
            return self.roll();
        };
        if let Some(active) = &self.active {
            return Ok(Arc::clone(active));
        }
        let file = Arc::new(self.config.disk.open(&self.folder.join(last.name.to_string()))?);
        self.active = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Begins the file of the next record.
    fn roll(&mut self) -> io::Result<Arc<DiskFile>> {
        if !self.folder.is_dir() {
            std::fs::create_dir_all(&self.folder)?;
            // A partition's folder is in its topic's, and that in the folder of all topics.
            let above: Vec<PathBuf> = self
                .folder
                .ancestors()
                .skip(1)
                .take(2)
                .map(Path::to_owned)
                .collect();
            self.note_folder(&self.folder.clone());
            above.iter().for_each(|folder| self.note_folder(folder));
        }
        let name = SegmentName::Dense { base: self.end };
        let path = self.folder.join(name.to_string());
        // A file whose first batch found no room is there already, and empty.
        let begun = self.segments.back().is_some_and(|last| last.name == name);
        let file = if begun {
            self.config.disk.open(&path)?
        } else {
            self.config.disk.create(&path)?
        };
        let file = Arc::new(file);
        self.note_folder(&self.folder.clone());
        if !begun {
            self.segments.push_back(Segment {
                name,
                end: self.end,
                bytes: 0,
            });
        }
        self.sealed = false;
        self.active = Some(Arc::clone(&file));
        Ok(file)
    }

    pub(super) fn note_folder(&mut self, folder: &Path) {
        if self.config.synced {
            self.unsynced.add_folder(folder);
        }
    }

    /// Takes what a failed write left out of the file again.
    fn undo(&mut self, file: &DiskFile) {
        let length = self.segments.back().map_or(0, |last| last.bytes);
        if let Err(error) = file.truncate(length) {
            let message = format!(
                "a torn batch can not be cut from `{}`: {error}",
                file.path().display()
            );
            self.break_off(message);
        }
    }

    /// Refuses every write from now on. Only a restart, which looks at the files, can know more.
    pub(crate) fn break_off(&mut self, reason: String) {
        if self.broken.is_none() {
            tracing::error!(
                folder = %self.folder.display(),
                reason,
                "the partition takes no more records; mend the disk and restart the broker, which then recovers \
                 what is on it"
            );
            self.broken = Some(WriteError(reason));
        }
    }

    pub(crate) fn broken(&self) -> Option<&WriteError> {
        self.broken.as_ref()
    }

    fn failed(&self, error: &io::Error) -> WriteError {
        WriteError(format!("can not write to `{}`: {error}", self.folder.display()))
    }

    /// Removes the files that lie wholly before `offset`; the last one stays in any case.
    pub(crate) fn drop_before(&mut self, offset: i64) {
        while let (Some(first), Some(second)) = (self.segments.front(), self.segments.get(1)) {
            if second.name.base() > offset {
                break;
            }
            let path = self.folder.join(first.name.to_string());
            if let Err(error) = remove_if_there(&path) {
                tracing::warn!(file = %path.display(), %error, "a file that is not needed any more can not be removed");
                break;
            }
            self.segments.pop_front();
        }
    }

    /// Takes what must be synced; what is written afterwards is noted anew.
    pub(crate) fn take_unsynced(&mut self) -> Unsynced {
        std::mem::take(&mut self.unsynced)
    }

    /// Removes everything.
    pub(crate) fn delete(&mut self) {
        self.active = None;
        self.segments.clear();
        self.unsynced = Unsynced::default();
        self.broken = Some(WriteError("the partition was deleted".to_owned()));
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(folder = %self.folder.display(), %error, "the folder of a deleted partition can not be removed; the next start tries again");
            }
            _ => {}
        }
    }
}

/// Removes the files that were replaced, then gives the replacement its name. Can be done again from
/// any point: the replacement keeps the name that says so until the others are gone.
pub(super) fn settle(
    folder: &Path,
    swap: &Path,
    name: SegmentName,
    replaced: impl Iterator<Item = SegmentName>,
) -> io::Result<()> {
    for old in replaced.filter(|old| *old != name) {
        remove_if_there(&folder.join(old.to_string()))?;
    }
    std::fs::rename(swap, folder.join(name.to_string()))
}
