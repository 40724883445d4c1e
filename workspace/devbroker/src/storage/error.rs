//! What can go wrong with a data folder.

use std::io;
use std::path::{Path, PathBuf};

/// Why a data folder can not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Another broker has the folder.
    #[error(
        "data folder `{}` is in use by process {holder}, which holds `{}`; stop that broker, or choose another folder",
        folder.display(),
        lock.display()
    )]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// The file that is locked.
        lock: PathBuf,
        /// The process that holds it, as it wrote itself down.
        holder: String,
    },
    /// The folder was written by something else.
    #[error(
        "`{}` says `{found}`, and this version of devbroker reads format 1; use the version that wrote the \
         folder, or choose another folder",
        file.display()
    )]
    Format {
        /// The file that tells the format.
        file: PathBuf,
        /// What it says.
        found: String,
    },
    /// There are topics, and nothing that says what they are.
    #[error(
        "`{}` has a folder `topics` and no journal; restore the files `journal-*` from a copy, or choose another folder",
        folder.display()
    )]
    Unclaimed {
        /// The folder.
        folder: PathBuf,
    },
    /// A file is damaged in a place where cutting it would lose what was acknowledged.
    #[error(
        "`{}` is damaged at byte {position}: {reason}; {remedy}",
        file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it.
        position: u64,
        /// What is wrong there.
        reason: String,
        /// What the owner can do.
        remedy: &'static str,
    },
    /// A batch is whole, and not one that this version can have written.
    #[error(
        "the batch at offset {offset} in partition {partition} of `{topic}` can not be used: {reason}; use the \
         version that wrote it, or start with an empty data folder"
    )]
    Unreadable {
        /// The topic.
        topic: String,
        /// The index of the partition.
        partition: i32,
        /// The offset of the batch.
        offset: i64,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system refused.
    #[error("can not {doing} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl StorageError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// Something could not be written, or not be brought to the disk. The sentence is for the client
/// that asked; the log has its own line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WriteError(pub(crate) String);
