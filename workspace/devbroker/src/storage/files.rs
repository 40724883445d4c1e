//! The file system as the storage uses it, with faults on request.
//!
//! Everything that is kept on disk is written and synced through here, so a test can fill the disk,
//! tear a write in the middle, or make a sync fail, without root rights and on any machine.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What is wrong with the disk, by decision of a test. Nothing, unless told otherwise.
#[derive(Debug)]
pub(crate) struct DiskFaults {
    /// Bytes that still fit; `u64::MAX` is a disk that never fills.
    room: AtomicU64,
    syncs_fail: AtomicBool,
}

impl Default for DiskFaults {
    fn default() -> Self {
        Self {
            room: AtomicU64::new(u64::MAX),
            syncs_fail: AtomicBool::new(false),
        }
    }
}

impl DiskFaults {
    /// Lets `bytes` more be written. The write that passes them is torn: what fits is written, and
    /// the writer hears that the disk is full.
    pub(crate) fn leave_room(&self, bytes: u64) {
        self.room.store(bytes, Ordering::Relaxed);
    }

    /// Makes every sync fail, as a dying disk does.
    #[cfg(test)]
    pub(crate) fn fail_syncs(&self) {
        self.syncs_fail.store(true, Ordering::Relaxed);
    }

    /// Ends all faults.
    pub(crate) fn lift(&self) {
        self.room.store(u64::MAX, Ordering::Relaxed);
        self.syncs_fail.store(false, Ordering::Relaxed);
    }

    /// Takes room for up to `wanted` bytes, and says for how many there was.
    fn take(&self, wanted: u64) -> u64 {
        let rest = |room: u64| (room != u64::MAX).then(|| room.saturating_sub(wanted));
        match self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest) {
            Ok(before) => wanted.min(before),
            Err(_unlimited) => wanted,
        }
    }
}

/// The disk. Clones share their faults.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    faults: Arc<DiskFaults>,
}

impl Disk {
    pub(crate) fn new(faults: Arc<DiskFaults>) -> Self {
        Self { faults }
    }

    pub(crate) fn faults(&self) -> &DiskFaults {
        &self.faults
    }

    /// Creates a file that must not exist.
    pub(crate) fn create(&self, path: &Path) -> io::Result<DiskFile> {
        if self.faults.room.load(Ordering::Relaxed) == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file(path, OpenOptions::new().append(true).create_new(true))
    }

    /// Opens a file for appending.
    pub(crate) fn open(&self, path: &Path) -> io::Result<DiskFile> {
        self.file(path, OpenOptions::new().append(true))
    }

    fn file(&self, path: &Path, options: &OpenOptions) -> io::Result<DiskFile> {
        Ok(DiskFile {
            file: options.open(path)?,
            path: path.to_owned(),
            faults: Arc::clone(&self.faults),
        })
    }

    /// Brings the entries of a folder (files made, renamed, removed) to the disk.
    pub(crate) fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        if self.faults.syncs_fail.load(Ordering::Relaxed) {
            return Err(injected_sync_failure());
        }
        File::open(folder)?.sync_all()
    }

    /// Writes a file under another name, syncs it, and moves it to `path`: whoever looks finds the
    /// old content or the new, never half of one, even after a power loss.
    pub(crate) fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let new = path.with_extension("new");
        remove_if_there(&new)?;
        let file = self.create(&new)?;
        file.append(content)?;
        file.sync()?;
        std::fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |folder| self.sync_folder(folder))
    }
}

/// A file that grows at its end.
#[derive(Debug)]
pub(crate) struct DiskFile {
    file: File,
    path: PathBuf,
    faults: Arc<DiskFaults>,
}

impl DiskFile {
    /// Appends all of the bytes. After an error any part of them may be in the file.
    pub(crate) fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let granted = self.faults.take(bytes.len() as u64);
        let fits = usize::try_from(granted).unwrap_or(usize::MAX);
        let part = bytes.get(..fits).unwrap_or(bytes);
        (&self.file).write_all(part)?;
        if part.len() < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// Cuts the file to its first `length` bytes.
    pub(crate) fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    /// Returns when everything that was written is on the disk. After an error nobody knows what is:
    /// asking again may say yes for pages that the kernel has already given up.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if self.faults.syncs_fail.load(Ordering::Relaxed) {
            return Err(injected_sync_failure());
        }
        self.file.sync_data()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn injected_sync_failure() -> io::Error {
    io::Error::other("a fault was injected: the disk does not sync")
}

/// Removes a file that need not be there.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_tears_the_write_that_passes_it_and_takes_more_when_it_has_room_again() {
        let folder = tempfile::tempdir().unwrap();
        let faults = Arc::new(DiskFaults::default());
        let disk = Disk::new(Arc::clone(&faults));
        let file = disk.create(&folder.path().join("a")).unwrap();
        faults.leave_room(5);
        file.append(b"abc").unwrap();
        let error = file.append(b"def").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(std::fs::read(file.path()).unwrap(), b"abcde");
        assert_eq!(
            disk.create(&folder.path().join("b")).unwrap_err().kind(),
            io::ErrorKind::StorageFull
        );
        faults.lift();
        file.truncate(3).unwrap();
        file.append(b"xyz").unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), b"abcxyz");
    }

    #[test]
    fn a_replaced_file_has_the_old_content_or_the_new() {
        let folder = tempfile::tempdir().unwrap();
        let faults = Arc::new(DiskFaults::default());
        let disk = Disk::new(Arc::clone(&faults));
        let path = folder.path().join("file");
        disk.replace(&path, b"old").unwrap();
        faults.leave_room(2);
        disk.replace(&path, b"new").unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        faults.lift();
        faults.fail_syncs();
        disk.replace(&path, b"new").unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        faults.lift();
        disk.replace(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }
}
