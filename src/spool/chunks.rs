//! Lays records into chunks.

use super::codec::{self, Encoded};
use crate::produce::Sequence;

/// A chunk has at most so many bytes of records, or one record: with its head it fills pages of the file, whose sizes
/// are powers of two.
const CHUNK: usize = (64 << 10) - 128;

/// A record as a chunk of its own; None where there is none. `stored_at` in milliseconds since the Unix epoch.
pub(super) fn alone(sequence: Sequence, record: &Encoded, stored_at: i64) -> Option<(Sequence, Vec<u8>)> {
    // one record, as the sequence names one
    record.records().next().map(|record| (sequence, codec::chunk(stored_at, 1, record)))
}

/// Puts records into chunks, in order.
pub(super) struct Chunks {
    pub(super) stored_at: i64,
    first: Sequence,
    count: u32,
    records: Vec<u8>,
    full: Vec<(Sequence, Vec<u8>)>,
}

impl Chunks {
    pub(super) fn from(first: Sequence, stored_at: i64) -> Self {
        Self { stored_at, first, count: 0, records: Vec::new(), full: Vec::new() }
    }

    /// The sequence of the record that is pushed next.
    pub(super) fn next(&self) -> Sequence {
        Sequence(self.first.0 + u64::from(self.count))
    }

    pub(super) fn push(&mut self, record: &[u8]) {
        if self.records.len() + record.len() > CHUNK {
            self.close();
        }
        self.records.extend_from_slice(record);
        self.count += 1;
    }

    fn close(&mut self) {
        if self.count > 0 {
            self.full.push((self.first, codec::chunk(self.stored_at, self.count, &self.records)));
            self.first = self.next();
            self.count = 0;
            self.records.clear();
        }
    }

    pub(super) fn finish(mut self) -> Vec<(Sequence, Vec<u8>)> {
        self.close();
        self.full
    }
}
