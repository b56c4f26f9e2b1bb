//! Looking into the store. Each call is one transaction of its own, which sees one state.

use super::{
    super::{
        Instances,
        codec::{Chunk, Corrupt, Decoder, Encoded, FORMAT, Head, append, index, take, unframed},
        results::{self, Resolved},
    },
    FAILED, RECEIPTS, RECORDS, ReadError, Store,
    error::unread,
};
use crate::produce::{Record, Sequence};
use bytes::Bytes;
use redb::{ReadTransaction, ReadableDatabase, ReadableTable};
use serde::{Deserialize, Serialize};

/// So many others may lie between a record and the key of its chunk, or of its row of receipts: what is retried is a chunk
/// of its own among the sequences of the one that it was stored with.
const NEAR: usize = 64;
/// Bytes of failed records that are read at once, or one record.
const FAILED_READ: usize = 4 << 20;

/// What the store knows of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It waits to be sent.
    Pending,
    Resolved(Resolved),
    /// It was refused for ever, and waits for the operator.
    Failed {
        error: String,
        reason: String,
    },
    /// It never was here, or is forgotten.
    Unknown,
}

/// A record that was refused for ever, and why.
#[derive(Debug, Clone)]
pub struct FailedRecord {
    pub sequence: Sequence,
    pub record: Record,
    /// The error's tag, as clients see it.
    pub error: String,
    pub reason: String,
    /// Milliseconds since the Unix epoch.
    pub failed_at: i64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct FailedHead<'a> {
    pub format: u8,
    pub failed_at: i64,
    pub error: &'a str,
    pub reason: &'a str,
}

impl Store {
    /// Chunks from the one on whose key is `cursor` or the next above, in order: as many as have `max_bytes`
    /// together, but one at least, where there is one.
    ///
    /// # Errors
    /// Where the file can't be read.
    pub fn chunks_from(
        &self,
        cursor: Sequence,
        max_bytes: usize,
    ) -> Result<Vec<(Sequence, Bytes)>, ReadError> {
        self.read(|transaction| {
            let (mut chunks, mut bytes) = (Vec::new(), 0);
            for entry in transaction.open_table(RECORDS)?.range(cursor.0..)? {
                let (key, value) = entry?;
                let value = value.value();
                bytes += value.len();
                if bytes > max_bytes && !chunks.is_empty() {
                    break;
                }
                chunks.push((Sequence(key.value()), Bytes::copy_from_slice(value)));
            }
            Ok(Ok(chunks))
        })
    }

    /// The chunk under this key, whichever of its records are left.
    ///
    /// # Errors
    /// Where the file can't be read.
    pub fn chunk_at(&self, first: Sequence) -> Result<Option<Bytes>, ReadError> {
        self.read(|transaction| {
            let value = transaction.open_table(RECORDS)?.get(first.0)?;
            Ok(Ok(value.map(|value| Bytes::copy_from_slice(value.value()))))
        })
    }

    /// Whether a chunk is there to which this sequence belongs, whichever of its records are left.
    ///
    /// # Errors
    /// Where the file can't be read.
    pub fn has_neighbours(&self, sequence: Sequence) -> Result<bool, ReadError> {
        self.read(|transaction| {
            let Some(entry) = transaction.open_table(RECORDS)?.range(..=sequence.0)?.next_back() else {
                return Ok(Ok(false));
            };
            let (key, value) = entry?;
            let head = Head::parse(value.value());
            Ok(head.map(|(head, _)| index(Sequence(key.value()), head.span(), sequence).is_some()))
        })
    }

    /// When the next chunk above this sequence was stored, in milliseconds since the Unix epoch; None where there is none.
    ///
    /// # Errors
    /// Where the file can't be read.
    pub fn next_stored_at(&self, sequence: Sequence) -> Result<Option<i64>, ReadError> {
        self.read(|transaction| {
            let records = transaction.open_table(RECORDS)?;
            let Some(entry) = records.range(sequence.0.saturating_add(1)..)?.next() else {
                return Ok(Ok(None));
            };
            Ok(Head::parse(entry?.1.value()).map(|(head, _)| Some(head.stored_at())))
        })
    }

    /// The first sequence of the last chunk; None where there is none.
    ///
    /// # Errors
    /// Where the file can't be read.
    pub fn last_chunk(&self) -> Result<Option<Sequence>, ReadError> {
        self.read(|transaction| {
            let records = transaction.open_table(RECORDS)?;
            let last = records.last()?;
            Ok(Ok(last.map(|(first, _)| Sequence(first.value()))))
        })
    }

    /// The chunk that holds this record still.
    ///
    /// # Errors
    /// Where the file can't be read.
    #[cfg(test)]
    pub fn chunk(&self, sequence: Sequence) -> Result<Option<(Sequence, Bytes)>, ReadError> {
        self.read(|transaction| {
            let found = pending(transaction, sequence)?;
            Ok(found.map(|found| found.map(|chunk| (chunk.0.first(), chunk.1))))
        })
    }

    /// What became of this record.
    ///
    /// # Errors
    /// Where the file can't be read.
    pub fn find(&self, sequence: Sequence) -> Result<Found, ReadError> {
        self.read(|transaction| {
            if let Some(row) = transaction.open_table(FAILED)?.get(sequence.0)? {
                return Ok(take::<FailedHead>(row.value()).map(|(head, _)| Found::Failed {
                    error: head.error.to_owned(),
                    reason: head.reason.to_owned(),
                }));
            }
            match pending(transaction, sequence)? {
                Ok(None) => {}
                found => return Ok(found.map(|_| Found::Pending)),
            }
            for entry in transaction.open_table(RECEIPTS)?.range(..=sequence.0)?.rev().take(NEAR) {
                let (key, row) = entry?;
                // a row says only what its own chunk had
                let Some(index) = index(Sequence(key.value()), u32::MAX, sequence) else { break };
                match results::find(row.value(), index) {
                    Ok(None) => {}
                    found => return Ok(found.map(|found| found.map_or(Found::Unknown, Found::Resolved))),
                }
            }
            Ok(Ok(Found::Unknown))
        })
    }

    /// Records that failed, `from` this sequence on, in order, at most `limit`, and so many of them that they can be held
    /// in memory; one at least, where there is one.
    ///
    /// # Errors
    /// Where the file can't be read.
    pub fn failed(&self, from: Sequence, limit: usize) -> Result<Vec<FailedRecord>, ReadError> {
        self.read(|transaction| {
            let (mut records, mut bytes) = (Vec::new(), 0);
            for entry in transaction.open_table(FAILED)?.range(from.0..)?.take(limit) {
                let (key, row) = entry?;
                bytes += row.value().len();
                if bytes > FAILED_READ && !records.is_empty() {
                    break;
                }
                match decode(Sequence(key.value()), &Bytes::copy_from_slice(row.value()), &self.instances) {
                    Ok(record) => records.push(record),
                    Err(error) => return Ok(Err(error)),
                }
            }
            Ok(Ok(records))
        })
    }

    fn read<T>(
        &self,
        look: impl FnOnce(&ReadTransaction) -> Result<Result<T, Corrupt>, redb::Error>,
    ) -> Result<T, ReadError> {
        let database = self.database();
        let closed = || ReadError("its disk failed; the next write opens it anew".into());
        let transaction = database.as_ref().ok_or_else(closed)?.begin_read().map_err(unread)?;
        Ok(look(&transaction).map_err(unread)??)
    }
}

/// The chunk that holds this record still, and its value.
fn pending(
    transaction: &ReadTransaction,
    sequence: Sequence,
) -> Result<Result<Option<(Chunk, Bytes)>, Corrupt>, redb::Error> {
    let records = transaction.open_table(RECORDS)?;
    for entry in records.range(..=sequence.0)?.rev().take(NEAR) {
        let (key, value) = entry?;
        let value = Bytes::copy_from_slice(value.value());
        match Chunk::parse(Sequence(key.value()), value.clone()) {
            Ok(chunk) if chunk.contains(sequence) => return Ok(Ok(Some((chunk, value)))),
            Ok(_) => {}
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(None))
}

/// The row of a failed record.
pub(super) fn encode(record: &Record, error: &str, reason: &str, failed_at: i64) -> Vec<u8> {
    let mut row = Vec::new();
    append(&FailedHead { format: FORMAT, failed_at, error, reason }, &mut row);
    let mut encoded = Encoded::default();
    encoded.push(record);
    encoded.records().for_each(|record| row.extend_from_slice(record));
    row
}

fn decode(sequence: Sequence, row: &Bytes, instances: &Instances) -> Result<FailedRecord, Corrupt> {
    let (head, rest): (FailedHead, _) = take(row)?;
    if head.format != FORMAT {
        return Err(Corrupt(format!("format {} of a failed record", head.format)));
    }
    let record = Decoder::new(instances).record(sequence, row, unframed(rest)?)?;
    let (error, reason, failed_at) = (head.error.to_owned(), head.reason.to_owned(), head.failed_at);
    Ok(FailedRecord { sequence, record, error, reason, failed_at })
}
