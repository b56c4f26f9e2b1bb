//! The store: one redb file, `spool.redb`, with the tables below. Every change is one transaction with one fsync.
//!
//! | table | key | value |
//! |---|---|---|
//! | `records` | first sequence of a chunk | the chunk |
//! | `receipts` | the same | what became of records of that chunk |
//! | `resolved` | when, and the same | nothing: the order in which receipts are forgotten |
//! | `failed` | sequence | a record that was refused for ever, and why |
//! | `instances` | sequence | what the instance is called from it on |
//! | `meta` | name | the format, and where the next start's sequences may begin |
//!
//! A transaction is one fsync: redb tells by checksums whether the last one is whole, and takes the one before where it
//! is not, as after a power cut in the middle of it.
//!
//! After an I/O error redb wants the file to be opened anew, which is done here: what was not committed is gone, what
//! was is there.

mod change;
mod error;
mod names;
mod open;
mod read;
#[cfg(test)]
mod tests;

pub use change::{Change, Failure, Receipts};
pub use error::{CommitError, OpenError, ReadError, Shortage};
pub use read::{FailedRecord, Found};

use super::{Instances, directory};
use crate::produce::{InstanceId, Sequence};
use redb::{Database, TableDefinition};
use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{
            AtomicBool, AtomicI64, AtomicU64,
            Ordering::{Acquire, Release},
        },
    },
    time::SystemTime,
};

const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("records");
const RECEIPTS: TableDefinition<u64, &[u8]> = TableDefinition::new("receipts");
/// By the time of the last result in the row, in milliseconds since the Unix epoch.
const RESOLVED: TableDefinition<(i64, u64), ()> = TableDefinition::new("resolved");
const FAILED: TableDefinition<u64, &[u8]> = TableDefinition::new("failed");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// In `meta`: the version of the tables and their values.
const FORMAT_KEY: &str = "format";
const FORMAT: u64 = 1;
/// In `meta`: the first sequence of the instance's latest start.
const FLOOR_KEY: &str = "sequence_floor";
/// In `meta` while nobody has the file open, unless who had it last was killed.
const CLOSED_KEY: &str = "closed";
/// So many sequences belong to one start, at least: more than an instance can use in years.
const START: u64 = 1 << 44;

/// No chunk has this for the time at which it was stored, and no row for that of its last result.
const NONE: i64 = i64::MIN;

/// The spool's file, opened and locked.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    /// None while it can't be opened anew.
    database: RwLock<Option<Database>>,
    /// The same, for those who must not wait for the lock.
    is_open: AtomicBool,
    /// Chunks that a failed transaction may have left in the file.
    unconfirmed: Mutex<Vec<Sequence>>,
    first_sequence: Sequence,
    instances: Instances,
    totals: Totals,
}

/// What the store holds, kept up with each commit.
#[derive(Debug)]
struct Totals {
    records: AtomicU64,
    failed: AtomicU64,
    /// Of chunks and failed records, as they lie in the file's pages.
    bytes: AtomicU64,
    receipt_bytes: AtomicU64,
    oldest_stored_at: AtomicI64,
    oldest_resolved_at: AtomicI64,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

impl Store {
    /// Opens the spool in this directory, or makes one there, and locks it against other processes. New records are
    /// those of `instance`, which is remembered.
    ///
    /// # Errors
    /// Each with what to do.
    pub fn open(directory: &Path, instance: &InstanceId, now: SystemTime) -> Result<Self, OpenError> {
        open::open(directory, instance, now, true)
    }

    /// As [`open`](Self::open), to see to records that are there already. `instance` is not remembered; it is whose the
    /// records are only where no name is remembered yet.
    ///
    /// # Errors
    /// Each with what to do.
    pub fn open_for_command(
        directory: &Path,
        instance: &InstanceId,
        now: SystemTime,
    ) -> Result<Self, OpenError> {
        open::open(directory, instance, now, false)
    }

    /// Writes down that nothing more is changed, or the next start says that the spool was not closed.
    pub fn close(&self) {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(error)) = database.as_ref().map(open::close) {
            tracing::warn!(%error, "the spool could not be marked as closed");
        }
    }

    /// Whether there is one in this directory.
    pub fn is_in(directory: &Path) -> bool {
        directory.join(open::FILE).exists()
    }

    /// Where this start's sequences begin: above all that an earlier start gave.
    pub fn first_sequence(&self) -> Sequence {
        self.first_sequence
    }

    /// What the instance was and is called.
    pub fn instances(&self) -> &Instances {
        &self.instances
    }

    /// How many records wait to be sent.
    pub fn records(&self) -> u64 {
        self.totals.records.load(Acquire)
    }

    /// How many records were refused for ever and wait for the operator.
    pub fn failed_records(&self) -> u64 {
        self.totals.failed.load(Acquire)
    }

    /// Bytes of the file that records take, those that wait and those that failed: what `SPOOL_MAX_BYTES` limits.
    pub fn bytes(&self) -> u64 {
        self.totals.bytes.load(Acquire)
    }

    /// Bytes of the file that receipts take: what `RECEIPT_MAX_BYTES` limits.
    pub fn receipt_bytes(&self) -> u64 {
        self.totals.receipt_bytes.load(Acquire)
    }

    /// When the oldest chunk was stored, in milliseconds since the Unix epoch; None where there is none.
    pub fn oldest_stored_at(&self) -> Option<i64> {
        Some(self.totals.oldest_stored_at.load(Acquire)).filter(|&at| at != NONE)
    }

    /// When the last record of the receipts was resolved that are forgotten next, in milliseconds since the Unix epoch;
    /// None where there are none.
    pub fn oldest_resolved_at(&self) -> Option<i64> {
        Some(self.totals.oldest_resolved_at.load(Acquire)).filter(|&at| at != NONE)
    }

    /// The size of the file, free pages and receipts in it; 0 where it can't be told.
    pub fn file_bytes(&self) -> u64 {
        self.directory.join(open::FILE).metadata().map_or(0, |metadata| metadata.len())
    }

    /// Whether its file is open. It may not be after an I/O error, until a change is committed.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Acquire)
    }

    /// Whether the disk has room for more records.
    pub fn has_space(&self) -> bool {
        directory::space(&self.directory).is_ok_and(|space| space.free >= space.reserve)
    }

    fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn unconfirmed(&self) -> MutexGuard<'_, Vec<Sequence>> {
        self.unconfirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives free pages back to the file system, where records no longer need them. Nobody reads meanwhile.
    pub(super) fn shrink(&self) {
        /// Below this it is not worth the while.
        const WORTH: u64 = 64 << 20;
        if self.file_bytes() < WORTH + 2 * (self.bytes() + self.receipt_bytes()) {
            return;
        }
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(error)) = database.as_mut().map(Database::compact) {
            tracing::warn!(%error, "the spool's file could not be made smaller");
        }
    }
}

impl Totals {
    fn set(&self, totals: Self) {
        let Self { records, failed, bytes, receipt_bytes, oldest_stored_at, oldest_resolved_at } = totals;
        self.records.store(records.into_inner(), Release);
        self.failed.store(failed.into_inner(), Release);
        self.bytes.store(bytes.into_inner(), Release);
        self.receipt_bytes.store(receipt_bytes.into_inner(), Release);
        self.oldest_stored_at.store(oldest_stored_at.into_inner(), Release);
        self.oldest_resolved_at.store(oldest_resolved_at.into_inner(), Release);
    }
}

/// Bytes of the file that a value takes: redb gives a large one pages of its own, as many as the next power of two.
fn footprint(value: usize) -> u64 {
    const PAGE: usize = 4096;
    /// The key and what a page says of itself.
    const OVERHEAD: usize = 32;
    let needed = value + OVERHEAD;
    (if needed <= PAGE { needed } else { needed.next_power_of_two() }) as u64
}

/// Bytes of the file that a row of receipts takes, with its place in the order in which they are forgotten.
fn receipts_footprint(row: usize) -> u64 {
    const PLACE: u64 = 32;
    footprint(row) + PLACE
}
