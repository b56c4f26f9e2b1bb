//! Why the spool can't be opened, read or written.

use super::super::{codec::Corrupt, directory::Unfit};
use redb::DatabaseError;
use std::{
    io,
    path::{Path, PathBuf},
};

/// Why the service can't start with this spool.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("SPOOL_DIR={0} does not exist; create it, on a disk that lasts")]
    Missing(PathBuf),
    #[error("SPOOL_DIR={0} is not a directory; name one")]
    NotADirectory(PathBuf),
    #[error("SPOOL_DIR={directory} can't be written: {reason}; give this user the right to write there")]
    Unwritable { directory: PathBuf, reason: String },
    #[error("SPOOL_DIR={0} is locked by another running instance; give each instance a directory of its own")]
    Locked(PathBuf),
    #[error(
        "the spool in SPOOL_DIR={directory} was written by another version of this service (its format is {found}, \
         this version reads {known}); start that version, or name an empty directory"
    )]
    OtherVersion { directory: PathBuf, found: u64, known: u64 },
    #[error(
        "the spool in SPOOL_DIR={directory} is damaged ({reason}); check the disk, and restore spool.redb from a \
         copy, or move it away to start with an empty one"
    )]
    Corrupt { directory: PathBuf, reason: String },
    #[error(
        "the spool in SPOOL_DIR={directory} can't be opened: {reason}; check the disk and its free space"
    )]
    Io { directory: PathBuf, reason: String },
}

/// Why a change is not in the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    #[error("the spool is full: {0}")]
    Full(Shortage),
    #[error("the spool can't be written: {0}")]
    Io(String),
}

/// What is used up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    #[error("it holds as much as SPOOL_MAX_BYTES={max_bytes} allows")]
    MaxBytes { max_bytes: u64 },
    #[error("the disk under SPOOL_DIR has no room left")]
    Disk,
}

/// Why the store can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the spool can't be read: {0}")]
pub struct ReadError(pub String);

impl From<Corrupt> for ReadError {
    fn from(error: Corrupt) -> Self {
        Self(error.to_string())
    }
}

impl From<Corrupt> for CommitError {
    fn from(error: Corrupt) -> Self {
        Self::Io(error.to_string())
    }
}

/// All of redb's errors come as its widest one.
pub(super) fn unread(error: impl Into<redb::Error>) -> ReadError {
    ReadError(error.into().to_string())
}

pub(super) fn uncommitted(error: impl Into<redb::Error>) -> CommitError {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match error.into() {
        redb::Error::Io(error) if matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge) => {
            CommitError::Full(Shortage::Disk)
        }
        error => CommitError::Io(error.to_string()),
    }
}

impl OpenError {
    /// True where starting again cannot help until the settings are corrected.
    pub fn is_of_settings(&self) -> bool {
        matches!(
            self,
            Self::Missing(_) | Self::NotADirectory(_) | Self::Unwritable { .. } | Self::OtherVersion { .. }
        )
    }

    pub(super) fn unfit(directory: &Path, why: Unfit) -> Self {
        let directory = directory.to_owned();
        match why {
            Unfit::Missing => Self::Missing(directory),
            Unfit::NotADirectory => Self::NotADirectory(directory),
            Unfit::Unreadable(error) => Self::io(&directory, &error),
        }
    }

    pub(super) fn corrupt(directory: &Path, reason: impl ToString) -> Self {
        Self::Corrupt { directory: directory.to_owned(), reason: reason.to_string() }
    }

    fn io(directory: &Path, error: &io::Error) -> Self {
        use io::ErrorKind::{InvalidData, PermissionDenied, ReadOnlyFilesystem, UnexpectedEof};
        let (directory, reason) = (directory.to_owned(), error.to_string());
        match error.kind() {
            PermissionDenied | ReadOnlyFilesystem => Self::Unwritable { directory, reason },
            InvalidData | UnexpectedEof => Self::Corrupt { directory, reason },
            _ => Self::Io { directory, reason },
        }
    }

    pub(super) fn database(directory: &Path, error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                Self::Locked(directory.to_owned())
            }
            DatabaseError::UpgradeRequired(version) => Self::OtherVersion {
                directory: directory.to_owned(),
                found: u64::from(version),
                known: super::FORMAT,
            },
            DatabaseError::Storage(error) => Self::storage(directory, error),
            error => Self::corrupt(directory, error),
        }
    }

    pub(super) fn storage(directory: &Path, error: impl Into<redb::Error>) -> Self {
        match error.into() {
            redb::Error::Io(error) => Self::io(directory, &error),
            redb::Error::Corrupted(reason) => Self::corrupt(directory, reason),
            // the tables are there, but of another type
            error => Self::corrupt(directory, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use io::ErrorKind;

    fn of(kind: ErrorKind) -> OpenError {
        OpenError::io(Path::new("/spool"), &kind.into())
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_a_fault_of_the_settings_and_says_what_to_do() {
        for kind in [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem] {
            let (error, reason) = (of(kind), io::Error::from(kind).to_string());
            assert!(error.is_of_settings(), "{error}");
            let text = error.to_string();
            for words in
                ["SPOOL_DIR=/spool can't be written", &reason, "give this user the right to write there"]
            {
                assert!(text.contains(words), "{words}: {text}");
            }
        }
    }

    #[test]
    fn a_directory_that_cannot_be_looked_into_is_the_same() {
        let unfit = Unfit::Unreadable(ErrorKind::PermissionDenied.into());
        assert!(matches!(OpenError::unfit(Path::new("/spool"), unfit), OpenError::Unwritable { .. }));
    }

    #[test]
    fn what_redb_says_of_the_file_system_is_read_the_same_way() {
        let error = || io::Error::from(ErrorKind::ReadOnlyFilesystem);
        let database = DatabaseError::Storage(redb::StorageError::Io(error()));
        for error in [
            OpenError::database(Path::new("/spool"), database),
            OpenError::storage(Path::new("/spool"), redb::Error::Io(error())),
        ] {
            assert!(matches!(error, OpenError::Unwritable { .. }), "{error}");
        }
    }

    #[test]
    fn a_disk_at_fault_or_a_damaged_file_is_no_fault_of_the_settings() {
        for (kind, words) in [
            (ErrorKind::StorageFull, "check the disk and its free space"),
            (ErrorKind::InvalidData, "is damaged"),
            (ErrorKind::UnexpectedEof, "is damaged"),
        ] {
            let error = of(kind);
            assert!(!error.is_of_settings() && error.to_string().contains(words), "{error}");
        }
    }
}
