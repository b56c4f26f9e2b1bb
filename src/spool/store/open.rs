//! Opening the file: what it must be, what it is told, and counting what it holds.

use super::{
    super::codec::Head, CLOSED_KEY, FAILED, FLOOR_KEY, FORMAT, FORMAT_KEY, Instances, META, NONE, OpenError,
    RECEIPTS, RECORDS, RESOLVED, START, Store, Totals, directory, footprint, names, receipts_footprint,
};
use crate::produce::{InstanceId, Sequence};
use redb::{Database, ReadableDatabase, ReadableTable};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Mutex, RwLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64},
    },
    time::SystemTime,
};

pub(super) const FILE: &str = "spool.redb";
/// For pages that are read; those of a transaction under way are held besides.
const CACHE: usize = 8 << 20;

pub(super) fn open(
    path: &Path,
    instance: &InstanceId,
    now: SystemTime,
    takes_records: bool,
) -> Result<Store, OpenError> {
    directory::check(path).map_err(|why| OpenError::unfit(path, why))?;
    if let Some(why) = directory::lost_by(path) {
        tracing::warn!(directory = %path.display(), "SPOOL_DIR does not last: {why}");
    }
    let database = database(path)?;
    check_format(&database, path)?;
    let (first_sequence, instances) = begin(&database, path, instance, now, takes_records)?;
    let totals = count(&database, path)?;
    let (directory, database) = (path.to_owned(), RwLock::new(Some(database)));
    let is_open = AtomicBool::new(true);
    Ok(Store {
        directory,
        database,
        is_open,
        unconfirmed: Mutex::default(),
        first_sequence,
        instances,
        totals,
    })
}

/// The database, repaired where the last writer was killed.
pub(super) fn database(path: &Path) -> Result<Database, OpenError> {
    let mut builder = Database::builder();
    builder
        .set_cache_size(CACHE)
        // without it redb takes a damaged file at its word, and may panic
        .set_check_integrity_on_open(true);
    // redb holds what it reads of a header for true by assertions
    let opened = catch_unwind(AssertUnwindSafe(|| create(&builder, path)));
    opened
        .map_err(|_| OpenError::corrupt(path, "its header contradicts the file"))?
        .map_err(|error| OpenError::database(path, error))
}

/// Writes down that the file was closed, for [`begin`] of the next start. redb keeps that to itself.
pub(super) fn close(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert(CLOSED_KEY, 1)?;
    transaction.commit()?;
    Ok(())
}

#[cfg(not(test))]
fn create(builder: &redb::Builder, path: &Path) -> Result<Database, redb::DatabaseError> {
    builder.create(path.join(FILE))
}

#[cfg(test)]
use super::tests::create;

/// Refuses what another version wrote, before anything is changed.
fn check_format(database: &Database, path: &Path) -> Result<(), OpenError> {
    let stored = || -> Result<Option<u64>, redb::Error> {
        match database.begin_read()?.open_table(META) {
            Ok(meta) => Ok(meta.get(FORMAT_KEY)?.map(|format| format.value())),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    match stored().map_err(|error| OpenError::storage(path, error))? {
        None | Some(FORMAT) => Ok(()),
        Some(found) => Err(OpenError::OtherVersion { directory: path.to_owned(), found, known: FORMAT }),
    }
}

/// Makes the tables, and takes this start's range of sequences for good, with the name that its records have.
fn begin(
    database: &Database,
    path: &Path,
    instance: &InstanceId,
    now: SystemTime,
    takes_records: bool,
) -> Result<(Sequence, Instances), OpenError> {
    let begun = || -> Result<(Sequence, Instances), redb::Error> {
        let transaction = database.begin_write()?;
        let first = {
            transaction.open_table(RECORDS)?;
            transaction.open_table(RECEIPTS)?;
            transaction.open_table(RESOLVED)?;
            transaction.open_table(FAILED)?;
            let mut meta = transaction.open_table(META)?;
            let floor = meta.get(FLOOR_KEY)?.map_or(0, |floor| floor.value());
            let is_new = meta.get(FORMAT_KEY)?.is_none();
            if meta.remove(CLOSED_KEY)?.is_none() && !is_new {
                tracing::warn!(
                    directory = %path.display(),
                    "the spool was not closed when it was used last; what had not been confirmed to anyone was cut off"
                );
            }
            let first = nanoseconds(now).max(floor.saturating_add(START));
            meta.insert(FORMAT_KEY, FORMAT)?;
            meta.insert(FLOOR_KEY, first)?;
            first
        };
        if takes_records {
            names::add(&transaction, instance, first)?;
        }
        let instances = names::read(&transaction, instance)?;
        transaction.commit()?;
        Ok((Sequence(first), instances))
    };
    begun().map_err(|error| OpenError::storage(path, error))
}

fn nanoseconds(now: SystemTime) -> u64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX / 2)
}

/// All that the store holds.
pub(super) fn count(database: &Database, path: &Path) -> Result<Totals, OpenError> {
    let (mut records, mut failed, mut bytes, mut receipt_bytes) = (0, 0, 0, 0);
    let (mut oldest, mut oldest_resolved) = (NONE, NONE);
    let mut damaged = None;
    let mut counted = || -> Result<(), redb::Error> {
        let transaction = database.begin_read()?;
        for entry in transaction.open_table(RECORDS)?.iter()? {
            let (_, value) = entry?;
            bytes += footprint(value.value().len());
            match Head::parse(value.value()) {
                Ok((head, _)) => {
                    records += head.count() as u64;
                    oldest = if oldest == NONE { head.stored_at() } else { oldest };
                }
                Err(error) => damaged = Some(error),
            }
        }
        for entry in transaction.open_table(FAILED)?.iter()? {
            failed += 1;
            bytes += footprint(entry?.1.value().len());
        }
        for entry in transaction.open_table(RECEIPTS)?.iter()? {
            receipt_bytes += receipts_footprint(entry?.1.value().len());
        }
        if let Some((place, _)) = transaction.open_table(RESOLVED)?.first()? {
            oldest_resolved = place.value().0;
        }
        Ok(())
    };
    counted().map_err(|error| OpenError::storage(path, error))?;
    if let Some(error) = damaged {
        return Err(OpenError::corrupt(path, error));
    }
    Ok(Totals {
        records: AtomicU64::new(records),
        failed: AtomicU64::new(failed),
        bytes: AtomicU64::new(bytes),
        receipt_bytes: AtomicU64::new(receipt_bytes),
        oldest_stored_at: AtomicI64::new(oldest),
        oldest_resolved_at: AtomicI64::new(oldest_resolved),
    })
}
