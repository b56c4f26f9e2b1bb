//! Writing to the store: one change, one transaction, one fsync, all of it or nothing.

use super::{
    super::{
        codec::{Corrupt, Head},
        results::{self, Resolution},
    },
    CommitError, FAILED, NONE, RECEIPTS, RECORDS, RESOLVED, Shortage, Store, Totals, directory,
    error::uncommitted,
    footprint, open, read, receipts_footprint,
};
use crate::produce::{Record, Sequence};
use redb::{Database, Durability, ReadableTable, Table, WriteTransaction};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{PoisonError, atomic::Ordering::Release},
};

/// So many rows of receipts are forgotten in one transaction, at most, or as many as make room for its own.
const FORGET: usize = 4096;

/// What one transaction does. All parts that name what is not there do nothing.
#[derive(Debug, Default)]
pub struct Change {
    /// New chunks, refused where the disk is nearly full.
    pub insert: Vec<(Sequence, Vec<u8>)>,
    /// Chunks that are rewritten with what is left in them.
    pub replace: Vec<(Sequence, Vec<u8>)>,
    /// Chunks that are resolved as a whole.
    pub remove: Vec<Sequence>,
    /// What became of records, added to what is known of their chunks.
    pub resolved: Vec<Resolution>,
    /// Records that are refused for ever.
    pub fail: Vec<Failure>,
    /// Failed records that are failed no longer.
    pub unfail: Vec<Sequence>,
    /// How many receipts may stay.
    pub receipts: Receipts,
}

/// A record that is refused for ever and has no dead letter.
#[derive(Debug, Clone)]
pub struct Failure {
    pub sequence: Sequence,
    pub record: Record,
    /// The error's tag, as clients see it.
    pub error: String,
    pub reason: String,
    /// Milliseconds since the Unix epoch.
    pub failed_at: i64,
}

/// What is forgotten of receipts: rows whose last record was resolved first go first.
#[derive(Debug, Clone, Copy)]
pub struct Receipts {
    /// At most so many bytes stay.
    pub max_bytes: u64,
    /// What was resolved before goes, in milliseconds since the Unix epoch; where there is much of it, over several
    /// changes. None: nothing is too old.
    pub resolved_before: Option<i64>,
}

impl Default for Receipts {
    /// Forgets nothing.
    fn default() -> Self {
        Self { max_bytes: u64::MAX, resolved_before: None }
    }
}

/// How much came and went.
#[derive(Debug, Default, Clone, Copy)]
struct Moved {
    more: u64,
    less: u64,
}

#[derive(Debug, Default)]
struct Effects {
    bytes: Moved,
    records: Moved,
    failed: Moved,
    receipts: Moved,
    oldest: Option<i64>,
    /// None where nobody looked.
    oldest_resolved: Option<i64>,
}

impl Moved {
    fn insert(&mut self, bytes: usize) {
        self.more += footprint(bytes);
    }

    fn remove(&mut self, bytes: usize) {
        self.less += footprint(bytes);
    }
}

/// A fault of the store, which must be opened anew then, or of what it holds.
enum Fault {
    Store(redb::Error),
    Corrupt(Corrupt),
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Store(error.into())
    }
}

impl Store {
    /// Does all of it, on the disk when this returns.
    ///
    /// # Errors
    /// Nothing of it is done. Where an I/O error was the reason, the store goes on with what it had before.
    pub fn commit(&self, change: &Change) -> Result<(), CommitError> {
        if !change.insert.is_empty() {
            let space = directory::space(&self.directory).map_err(uncommitted)?;
            if space.free < space.reserve {
                return Err(CommitError::Full(Shortage::Disk));
            }
        }
        if self.database().is_none() {
            self.reopen()?;
        }
        let done = match &*self.database() {
            Some(database) => apply(database, change, self.receipt_bytes()),
            None => return Err(CommitError::Io("its file is not open".into())),
        };
        match done {
            Ok(effects) => {
                self.totals.take(&effects);
                Ok(())
            }
            Err(Fault::Corrupt(error)) => Err(error.into()),
            Err(Fault::Store(error)) => {
                tracing::warn!(%error, "the spool could not be written");
                self.unconfirmed().extend(change.insert.iter().map(|(first, _)| *first));
                if let Err(error) = self.reopen() {
                    tracing::warn!(%error, "the next write tries again");
                }
                Err(uncommitted(error))
            }
        }
    }

    /// Opens the file anew after an I/O error, and verifies what the disk has of it. Who reads meanwhile is told, since it
    /// takes as long as the file is large.
    fn reopen(&self) -> Result<(), CommitError> {
        let failed =
            |error: super::OpenError| CommitError::Io(format!("it could not be opened anew: {error}"));
        // first, since it is locked
        self.set(None);
        // after a failed fsync memory has what the disk may not have
        directory::forget_cached(&self.directory.join(open::FILE)).map_err(uncommitted)?;
        let opened = open::database(&self.directory).map_err(failed)?;
        let mut unconfirmed = self.unconfirmed();
        // a transaction whose last fsync failed may be in the file, though its senders were told that it is not
        let undo = Change { remove: unconfirmed.clone(), ..Change::default() };
        if let Err(Fault::Store(error)) = apply(&opened, &undo, 0) {
            return Err(uncommitted(error));
        }
        unconfirmed.clear();
        self.totals.set(open::count(&opened, &self.directory).map_err(failed)?);
        tracing::warn!("the spool was opened anew after an error of the disk");
        self.set(Some(opened));
        Ok(())
    }

    fn set(&self, opened: Option<Database>) {
        self.is_open.store(opened.is_some(), Release);
        let before = {
            let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *database, opened)
        };
        // it is closed when nobody has to wait for that
        drop(before);
    }
}

impl Totals {
    fn take(&self, effects: &Effects) {
        Self::add(&self.bytes, effects.bytes);
        Self::add(&self.records, effects.records);
        Self::add(&self.failed, effects.failed);
        Self::add(&self.receipt_bytes, effects.receipts);
        self.oldest_stored_at.store(effects.oldest.unwrap_or(NONE), Release);
        if let Some(oldest) = effects.oldest_resolved {
            self.oldest_resolved_at.store(oldest, Release);
        }
    }

    /// One thread writes.
    fn add(total: &std::sync::atomic::AtomicU64, Moved { more, less }: Moved) {
        use std::sync::atomic::Ordering::Relaxed;
        total.store(total.load(Relaxed).saturating_add(more).saturating_sub(less), Release);
    }
}

fn apply(database: &Database, change: &Change, receipt_bytes: u64) -> Result<Effects, Fault> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    let mut effects = Effects::default();
    write(&transaction, change, receipt_bytes, &mut effects)?;
    transaction.commit()?;
    Ok(effects)
}

fn write(
    transaction: &WriteTransaction,
    change: &Change,
    receipt_bytes: u64,
    effects: &mut Effects,
) -> Result<(), Fault> {
    let mut records = transaction.open_table(RECORDS)?;
    for first in &change.remove {
        let old = records.remove(first.0)?;
        gone(old.as_ref().map(|old| old.value()), effects)?;
    }
    for (first, value) in change.insert.iter().chain(&change.replace) {
        effects.bytes.insert(value.len());
        effects.records.more += head(value)?.count() as u64;
        let old = records.insert(first.0, value.as_slice())?;
        gone(old.as_ref().map(|old| old.value()), effects)?;
    }
    if !change.fail.is_empty() || !change.unfail.is_empty() {
        write_failed(transaction, change, effects)?;
    }
    if !change.resolved.is_empty() || change.receipts.resolved_before.is_some() {
        let mut rows = Rows {
            receipts: transaction.open_table(RECEIPTS)?,
            resolved: transaction.open_table(RESOLVED)?,
            moved: &mut effects.receipts,
        };
        for resolution in at_home(&rows.receipts, &change.resolved)? {
            rows.write(&resolution)?;
        }
        rows.forget(change.receipts, receipt_bytes)?;
        effects.oldest_resolved = Some(rows.oldest()?.map_or(NONE, |(resolved_at, _)| resolved_at));
    }
    if let Some((_, value)) = records.first()? {
        effects.oldest = Some(head(value.value())?.stored_at());
    }
    Ok(())
}

fn head(chunk: &[u8]) -> Result<Head, Fault> {
    Head::parse(chunk).map(|(head, _)| head).map_err(Fault::Corrupt)
}

/// Counts a chunk that was in the table.
fn gone(old: Option<&[u8]>, effects: &mut Effects) -> Result<(), Fault> {
    if let Some(old) = old {
        effects.bytes.remove(old.len());
        effects.records.less += head(old)?.count() as u64;
    }
    Ok(())
}

fn write_failed(transaction: &WriteTransaction, change: &Change, effects: &mut Effects) -> Result<(), Fault> {
    let mut failed = transaction.open_table(FAILED)?;
    for failure in &change.fail {
        let Failure { sequence, record, error, reason, failed_at } = failure;
        let row = read::encode(record, error, reason, *failed_at);
        effects.bytes.insert(row.len());
        effects.failed.more += 1;
        if let Some(old) = failed.insert(sequence.0, row.as_slice())? {
            effects.bytes.remove(old.value().len());
            effects.failed.less += 1;
        }
    }
    for sequence in &change.unfail {
        if let Some(old) = failed.remove(sequence.0)? {
            effects.bytes.remove(old.value().len());
            effects.failed.less += 1;
        }
    }
    Ok(())
}

/// What became of records that were retried, each as a chunk of its own, goes to the row of the chunk that they were stored
/// with: rows among the sequences of another one would come between it and those who look for its records.
fn at_home<'a>(
    receipts: &Table<u64, &[u8]>,
    resolved: &'a [Resolution],
) -> Result<Vec<Cow<'a, Resolution>>, Fault> {
    let mut homes: Vec<Cow<'a, Resolution>> = Vec::with_capacity(resolved.len());
    // by the first sequence of the row
    let mut moved: BTreeMap<u64, Resolution> = BTreeMap::new();
    for resolution in resolved {
        let Some(first) = home(receipts, resolution)? else {
            homes.push(Cow::Borrowed(resolution));
            continue;
        };
        let Resolution { results, resolved_at, .. } = resolution;
        let index = (resolution.first.0 - first) as u32;
        let new = || Resolution { first: Sequence(first), results: Vec::new(), resolved_at: *resolved_at };
        let home = moved.entry(first).or_insert_with(new);
        home.results.extend(results.iter().map(|(_, resolved)| (index, resolved.clone())));
    }
    homes.extend(moved.into_values().map(Cow::Owned));
    Ok(homes)
}

/// The row that has a result of this lone record already, and is not its own.
fn home(receipts: &Table<u64, &[u8]>, resolution: &Resolution) -> Result<Option<u64>, Fault> {
    if !matches!(resolution.results[..], [(0, _)]) {
        return Ok(None);
    }
    let sequence = resolution.first.0;
    let Some(entry) = receipts.range(..sequence)?.next_back() else { return Ok(None) };
    let (key, row) = entry?;
    let Ok(index) = u32::try_from(sequence - key.value()) else { return Ok(None) };
    let has_one = results::find(row.value(), index).map_err(Fault::Corrupt)?.is_some();
    Ok(has_one.then_some(key.value()))
}

/// The receipts in a transaction, and the order in which they are forgotten.
struct Rows<'a> {
    receipts: Table<'a, u64, &'static [u8]>,
    resolved: Table<'a, (i64, u64), ()>,
    moved: &'a mut Moved,
}

impl Rows<'_> {
    fn write(&mut self, resolution: &Resolution) -> Result<(), Fault> {
        let first = resolution.first;
        let earlier = match self.receipts.get(first.0)? {
            Some(row) => {
                self.moved.less += receipts_footprint(row.value().len());
                Some(Resolution::decode(first, row.value()).map_err(Fault::Corrupt)?)
            }
            None => None,
        };
        let row = match earlier {
            Some(earlier) => {
                self.resolved.remove((earlier.resolved_at, first.0))?;
                let mut both = resolution.clone();
                both.merge(earlier);
                both.encode()
            }
            None => resolution.encode(),
        };
        self.moved.more += receipts_footprint(row.len());
        self.receipts.insert(first.0, row.as_slice())?;
        self.resolved.insert((resolution.resolved_at, first.0), ())?;
        Ok(())
    }

    /// When the row was resolved that is forgotten next, and its key.
    fn oldest(&self) -> Result<Option<(i64, u64)>, Fault> {
        Ok(self.resolved.first()?.map(|(place, _)| place.value()))
    }

    /// Forgets what is too old or too much; `before` bytes of receipts were there before this transaction.
    fn forget(&mut self, bounds: Receipts, before: u64) -> Result<(), Fault> {
        let mut forgotten = 0;
        while let Some((resolved_at, first)) = self.oldest()? {
            let is_old = bounds.resolved_before.is_some_and(|before| resolved_at < before);
            let held = before.saturating_add(self.moved.more).saturating_sub(self.moved.less);
            let makes_room = held > bounds.max_bytes && held > before;
            if !(is_old || held > bounds.max_bytes) || (forgotten >= FORGET && !makes_room) {
                break;
            }
            self.resolved.remove((resolved_at, first))?;
            if let Some(row) = self.receipts.remove(first)? {
                self.moved.less += receipts_footprint(row.value().len());
            }
            forgotten += 1;
        }
        Ok(())
    }
}
