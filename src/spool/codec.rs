//! How records lie on disk: one after another in a chunk, in postcard's format. Decoding shares the chunk's bytes.
//!
//! A chunk is its head, then each record that is left in it: the length of its encoding (u32, little-endian), topic
//! and key, the rest of it, its headers.

use super::Instances;
use crate::produce::{AutomaticHeaders, Header, Record, RecordReceipt, Sequence, TopicName};
use bytes::Bytes;
use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The format that is written, in the first byte of each value.
pub(super) const FORMAT: u8 = 1;
/// Bytes before each record that hold its length.
const LENGTH: usize = 4;

/// What is on disk is not what was written there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the spool holds bytes that are no record: {0}")]
pub struct Corrupt(pub String);

/// Records as they lie in a chunk, in order, for any chunk.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Encoded {
    bytes: Vec<u8>,
    count: u32,
}

/// One chunk: records of contiguous sequences, or what is left of them.
#[derive(Debug, Clone)]
pub struct Chunk {
    first: Sequence,
    head: Head,
    records: Bytes,
}

/// What a chunk says of itself, before its records.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Head {
    format: u8,
    /// Milliseconds since the Unix epoch.
    stored_at: i64,
    /// How many records the chunk had at first: its sequences are `first..first + span`.
    span: u32,
    /// The indices of the records that are left, rising; empty where none has left yet.
    left: Vec<u32>,
}

#[derive(Serialize, Deserialize)]
struct Slot<'a> {
    topic: &'a str,
    #[serde(borrow)]
    key: Option<&'a serde_bytes::Bytes>,
}

#[derive(Serialize, Deserialize)]
struct Body<'a> {
    partition: Option<i32>,
    timestamp: i64,
    #[serde(borrow)]
    value: Option<&'a serde_bytes::Bytes>,
    headers: u32,
}

#[derive(Serialize, Deserialize)]
struct HeaderLine<'a> {
    name: &'a str,
    #[serde(borrow)]
    value: Option<&'a serde_bytes::Bytes>,
}

impl Encoded {
    /// Appends a record, with the headers that the service adds but without those that name its receipt.
    pub fn push(&mut self, record: &Record) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; LENGTH]);
        let mut headers = 0;
        record.for_each_header_but_receipt(|_, _| headers += 1);
        let key = record.key.as_deref().map(serde_bytes::Bytes::new);
        append(&Slot { topic: record.topic.as_str(), key }, &mut self.bytes);
        let value = record.value.as_deref().map(serde_bytes::Bytes::new);
        let (partition, timestamp) = (record.partition, record.timestamp);
        append(&Body { partition, timestamp, value, headers }, &mut self.bytes);
        record.for_each_header_but_receipt(|name, value| {
            append(&HeaderLine { name, value: value.map(serde_bytes::Bytes::new) }, &mut self.bytes);
        });
        // a record is smaller than a request's body, which is far below 4 GiB
        let length = (self.bytes.len() - start - LENGTH) as u32;
        self.bytes[start..start + LENGTH].copy_from_slice(&length.to_le_bytes());
        self.count += 1;
    }

    /// How many records it holds.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Its size in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Each record's bytes, with their length before them.
    pub(super) fn records(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || {
            let record = framed(rest).ok()?;
            rest = &rest[record.len()..];
            Some(record)
        })
    }
}

impl<'a> FromIterator<&'a Record> for Encoded {
    fn from_iter<T: IntoIterator<Item = &'a Record>>(records: T) -> Self {
        let mut encoded = Self::default();
        records.into_iter().for_each(|record| encoded.push(record));
        encoded
    }
}

/// A new chunk of so many records, which are encoded already; `stored_at` in milliseconds since the Unix epoch.
pub fn chunk(stored_at: i64, count: u32, records: &[u8]) -> Vec<u8> {
    joined(&Head { format: FORMAT, stored_at, span: count, left: Vec::new() }, records)
}

fn joined(head: &Head, records: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(records.len() + 32 + 5 * head.left.len());
    append(head, &mut value);
    value.extend_from_slice(records);
    value
}

impl Head {
    /// Reads it, and returns what is after it.
    ///
    /// # Errors
    /// Where the value is no chunk.
    pub fn parse(value: &[u8]) -> Result<(Self, &[u8]), Corrupt> {
        let (head, rest): (Self, _) = take(value)?;
        if head.format != FORMAT {
            return Err(Corrupt(format!("format {} of a chunk, this version writes {FORMAT}", head.format)));
        }
        let rises = head.left.is_sorted_by(|a, b| a < b);
        if head.span == 0 || !rises || head.left.last().is_some_and(|&last| last >= head.span) {
            return Err(Corrupt("the head of a chunk contradicts itself".into()));
        }
        Ok((head, rest))
    }

    /// When the chunk was stored, in milliseconds since the Unix epoch.
    pub fn stored_at(&self) -> i64 {
        self.stored_at
    }

    /// How many sequences are its own, from the first on.
    pub fn span(&self) -> u32 {
        self.span
    }

    /// How many records are left in it.
    pub fn count(&self) -> usize {
        if self.left.is_empty() { self.span as usize } else { self.left.len() }
    }
}

impl Chunk {
    /// Reads the head of the value under `first`.
    ///
    /// # Errors
    /// Where the value is no chunk. What its records hold shows when they are read.
    pub fn parse(first: Sequence, value: Bytes) -> Result<Self, Corrupt> {
        let (head, rest) = Head::parse(&value)?;
        let records = value.slice_ref(rest);
        Ok(Self { first, head, records })
    }

    /// Its key.
    pub fn first(&self) -> Sequence {
        self.first
    }

    /// How many records are left in it.
    pub fn count(&self) -> usize {
        self.head.count()
    }

    /// Whether this record is in it still.
    pub fn contains(&self, sequence: Sequence) -> bool {
        let Some(index) = index(self.first, self.head.span, sequence) else { return false };
        self.head.left.is_empty() || self.head.left.binary_search(&index).is_ok()
    }

    /// The records that are left, in order, as they are to be sent again.
    ///
    /// # Errors
    /// Where the bytes are no records.
    pub fn records(&self, instances: &Instances) -> Result<Vec<(Sequence, Record)>, Corrupt> {
        let mut decoder = Decoder::new(instances);
        let mut records = Vec::with_capacity(self.count().min(self.records.len() / LENGTH));
        self.for_each(|sequence, bytes| {
            records.push((sequence, decoder.record(sequence, &self.records, bytes)?));
            Ok(())
        })?;
        Ok(records)
    }

    /// Some of the records that are left, in order, each in memory of its own.
    ///
    /// # Errors
    /// Where the bytes are no records.
    pub fn copies(
        &self,
        instances: &Instances,
        mut is_wanted: impl FnMut(Sequence) -> bool,
    ) -> Result<Vec<(Sequence, Record)>, Corrupt> {
        let (mut decoder, mut records) = (Decoder::new(instances), Vec::new());
        self.for_each(|sequence, bytes| {
            if is_wanted(sequence) {
                let bytes = Bytes::copy_from_slice(bytes);
                records.push((sequence, decoder.record(sequence, &bytes, &bytes)?));
            }
            Ok(())
        })?;
        Ok(records)
    }

    /// Only what order depends on: each record's sequence, topic and key.
    ///
    /// # Errors
    /// Where the bytes are no records.
    pub fn for_each_key(&self, mut visit: impl FnMut(Sequence, &str, Option<&[u8]>)) -> Result<(), Corrupt> {
        self.for_each(|sequence, bytes| {
            let (slot, _): (Slot, _) = take(bytes)?;
            visit(sequence, slot.topic, slot.key.map(|key| &**key));
            Ok(())
        })
    }

    /// The same chunk with the records alone whose index is kept; None where none is.
    ///
    /// # Errors
    /// Where the bytes are no records.
    pub fn keeping(&self, mut keep: impl FnMut(u32) -> bool) -> Result<Option<Vec<u8>>, Corrupt> {
        let (mut left, mut records) = (Vec::new(), Vec::new());
        self.for_each(|sequence, bytes| {
            let index = (sequence.0 - self.first.0) as u32;
            if keep(index) {
                left.push(index);
                records.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                records.extend_from_slice(bytes);
            }
            Ok(())
        })?;
        let head = Head { left, ..self.head };
        Ok((!head.left.is_empty()).then(|| joined(&head, &records)))
    }

    fn for_each(&self, mut visit: impl FnMut(Sequence, &[u8]) -> Result<(), Corrupt>) -> Result<(), Corrupt> {
        let mut rest = &self.records[..];
        for place in 0..self.count() {
            let framed = framed(rest)?;
            rest = &rest[framed.len()..];
            let index = self.head.left.get(place).map_or(place as u64, |&index| u64::from(index));
            visit(Sequence(self.first.0.saturating_add(index)), &framed[LENGTH..])?;
        }
        if rest.is_empty() { Ok(()) } else { Err(Corrupt("a chunk has bytes after its records".into())) }
    }
}

/// The place of a sequence among `span` ones from `first` on.
pub(super) fn index(first: Sequence, span: u32, sequence: Sequence) -> Option<u32> {
    let index = sequence.0.checked_sub(first.0)?;
    u32::try_from(index).ok().filter(|&index| index < span)
}

/// Reads records one after another; those of one topic share its name.
pub(super) struct Decoder<'a> {
    instances: &'a Instances,
    topic: Option<TopicName>,
    /// None: they are among the record's own.
    automatic: Arc<AutomaticHeaders>,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(instances: &'a Instances) -> Self {
        Self { instances, topic: None, automatic: Arc::default() }
    }

    /// The record whose encoding, without its length, is `bytes`, a part of `all`.
    pub(super) fn record(
        &mut self,
        sequence: Sequence,
        all: &Bytes,
        bytes: &[u8],
    ) -> Result<Record, Corrupt> {
        let share = |field: Option<&serde_bytes::Bytes>| field.map(|field| all.slice_ref(field));
        let (slot, rest): (Slot, _) = take(bytes)?;
        let (body, mut rest): (Body, _) = take(rest)?;
        // each header has two bytes or more
        let mut headers = Vec::with_capacity((body.headers as usize).min(rest.len()));
        for _ in 0..body.headers {
            let (line, after): (HeaderLine, _) = take(rest)?;
            rest = after;
            headers.push(Header { name: line.name.to_owned(), value: share(line.value) });
        }
        if !rest.is_empty() {
            return Err(Corrupt("a record has bytes after its headers".into()));
        }
        let id = self.instances.receipt(sequence);
        Ok(Record {
            topic: self.topic(slot.topic)?,
            partition: body.partition,
            key: share(slot.key),
            value: share(body.value),
            headers,
            automatic: Arc::clone(&self.automatic),
            timestamp: body.timestamp,
            receipt: Some(RecordReceipt { id, replayed: true }),
        })
    }

    fn topic(&mut self, name: &str) -> Result<TopicName, Corrupt> {
        if let Some(topic) = self.topic.as_ref().filter(|topic| topic.as_str() == name) {
            return Ok(topic.clone());
        }
        let topic = topic(name)?;
        Ok(self.topic.insert(topic).clone())
    }
}

pub(super) fn topic(name: &str) -> Result<TopicName, Corrupt> {
    TopicName::parse(name).map_err(|error| Corrupt(format!("{error}: {name:?}")))
}

/// The first record of these bytes, with its length.
fn framed(bytes: &[u8]) -> Result<&[u8], Corrupt> {
    let length = bytes.first_chunk().map(|length| u32::from_le_bytes(*length) as usize);
    let end = length.and_then(|length| length.checked_add(LENGTH));
    end.and_then(|end| bytes.get(..end)).ok_or_else(|| Corrupt("a record is cut off".into()))
}

/// A record's bytes without their length.
pub(super) fn unframed(bytes: &[u8]) -> Result<&[u8], Corrupt> {
    Ok(&framed(bytes)?[LENGTH..])
}

/// Reads one value from the front.
pub(super) fn take<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), Corrupt> {
    postcard::take_from_bytes(bytes).map_err(|error| Corrupt(error.to_string()))
}

/// Writes one value to the end.
pub(super) fn append(value: &impl Serialize, to: &mut Vec<u8>) {
    // memory takes all bytes, and none of the types here refuses to be serialised
    let written = postcard::serialize_with_flavor(value, Appended(to));
    debug_assert!(written.is_ok(), "{written:?}");
}

struct Appended<'a>(&'a mut Vec<u8>);

impl Flavor for Appended<'_> {
    type Output = ();

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
