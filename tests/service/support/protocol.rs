//! The little of Kafka's protocol that a proxy has to read: what a producer asks, in flexible versions (KIP-482), with one
//! batch a request. None is said where the bytes are anything else.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
};

pub const PRODUCE: i16 = 0;
pub const METADATA: i16 = 3;
pub const INIT_PRODUCER_ID: i16 = 22;

/// Longer than any message of a test.
const MESSAGE_LIMIT: usize = 128 << 20;

/// The next message, without its length. None where the connection ends.
pub fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let length =
        usize::try_from(i32::from_be_bytes(length)).ok().filter(|length| *length <= MESSAGE_LIMIT)?;
    let mut message = vec![0; length];
    stream.read_exact(&mut message).ok()?;
    Some(message)
}

pub fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat())
}

/// What every request begins with.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead {
    pub kind: i16,
    pub version: i16,
    /// The answer begins with it.
    pub correlation: i32,
}

impl RequestHead {
    pub fn read(request: &[u8]) -> Option<Self> {
        let mut reader = Reader(request);
        Some(Self { kind: reader.i16()?, version: reader.i16()?, correlation: reader.i32()? })
    }
}

/// The correlation id of an answer.
pub fn correlation(answer: &[u8]) -> Option<i32> {
    Reader(answer).i32()
}

/// A Produce request, version 9 or later, that is to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Produce {
    pub topic: String,
    pub partition: i32,
    /// -1: of all in-sync replicas.
    pub acks: i16,
    pub producer_id: i64,
    pub epoch: i16,
    pub base_sequence: i32,
    pub records: i32,
}

impl Produce {
    pub fn read(request: &[u8]) -> Option<Self> {
        let mut reader = Reader(request);
        let (_kind, version, _correlation) = (reader.i16()?, reader.i16()?, reader.i32()?);
        let client = reader.i16()?;
        reader.take(usize::try_from(client).unwrap_or(0))?;
        reader.tags()?;
        let _transaction = reader.compact()?;
        let acks = reader.i16()?;
        let _timeout = reader.i32()?;
        if version < 9 || acks == 0 || reader.count()? != 1 {
            return None;
        }
        let topic = String::from_utf8(reader.compact()?.to_vec()).ok()?;
        if reader.count()? != 1 {
            return None;
        }
        let partition = reader.i32()?;
        let mut batch = Reader(reader.compact()?);
        // offset, length, leader's epoch, magic, checksum, attributes, last offset, two timestamps
        batch.take(8 + 4 + 4 + 1 + 4 + 2 + 4 + 2 * 8)?;
        Some(Self {
            topic,
            partition,
            acks,
            producer_id: batch.i64()?,
            epoch: batch.i16()?,
            base_sequence: batch.i32()?,
            records: batch.i32()?,
        })
    }

    /// The answer that refuses it.
    pub fn refusal(&self, correlation: i32, code: i16) -> Vec<u8> {
        const NO_TAGS: u8 = 0;
        const NONE: i64 = -1;
        let mut answer = correlation.to_be_bytes().to_vec();
        answer.push(NO_TAGS);
        put_count(&mut answer, 1);
        put_count(&mut answer, self.topic.len());
        answer.extend(self.topic.as_bytes());
        put_count(&mut answer, 1);
        answer.extend(self.partition.to_be_bytes());
        answer.extend(code.to_be_bytes());
        // base offset, append time, start of the log
        answer.extend([NONE; 3].map(i64::to_be_bytes).concat());
        // no error of a single record, no text
        put_count(&mut answer, 0);
        answer.extend([0, NO_TAGS, NO_TAGS]);
        let throttle = 0_i32;
        answer.extend(throttle.to_be_bytes());
        answer.push(NO_TAGS);
        answer
    }
}

/// What the broker answered to a [`Produce`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProduceAnswer {
    pub code: i16,
    pub base_offset: i64,
    /// Where the code is in the message.
    place: usize,
}

impl ProduceAnswer {
    pub fn read(answer: &[u8]) -> Option<Self> {
        let mut reader = Reader(answer);
        reader.i32()?;
        reader.tags()?;
        reader.count()?;
        reader.compact()?;
        reader.count()?;
        let _partition = reader.i32()?;
        let place = answer.len() - reader.0.len();
        Some(Self { code: reader.i16()?, base_offset: reader.i64()?, place })
    }

    /// Has the answer say this code, and no offset.
    pub fn replace(self, answer: &mut [u8], code: i16) {
        answer[self.place..][..2].copy_from_slice(&code.to_be_bytes());
        answer[self.place + 2..][..8].copy_from_slice(&(-1_i64).to_be_bytes());
    }
}

/// Has the answer to an InitProducerId request give this epoch. None where it gives no producer id.
pub fn replace_epoch(answer: &mut [u8], version: i16, epoch: i16) -> Option<()> {
    let mut reader = Reader(answer);
    reader.i32()?;
    if version >= 2 {
        reader.tags()?;
    }
    let _throttle = reader.i32()?;
    let code = reader.i16()?;
    let _producer_id = reader.i64()?;
    let place = answer.len() - reader.0.len();
    reader.i16().filter(|_| code == 0)?;
    answer[place..][..2].copy_from_slice(&epoch.to_be_bytes());
    Some(())
}

/// Has the answer to a Metadata request, version 9 or later, list no broker.
pub fn remove_brokers(answer: &mut Vec<u8>) -> Option<()> {
    let mut reader = Reader(answer);
    reader.i32()?;
    reader.tags()?;
    let _throttle = reader.i32()?;
    let start = answer.len() - reader.0.len();
    for _ in 0..reader.count()? {
        let _id = reader.i32()?;
        let _host = reader.compact()?;
        let _port = reader.i32()?;
        let _rack = reader.compact()?;
        reader.tags()?;
    }
    let end = answer.len() - reader.0.len();
    let mut none = Vec::new();
    put_count(&mut none, 0);
    answer.splice(start..end, none);
    Some(())
}

/// A compact length or number of elements: one more than it is, since 0 is null.
fn put_count(bytes: &mut Vec<u8>, count: usize) {
    let mut rest = count + 1;
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        self.take(LENGTH)?.try_into().ok()
    }

    fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    fn varint(&mut self) -> Option<usize> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// As [`put_count`] writes it; null is 0.
    fn count(&mut self) -> Option<usize> {
        self.varint().map(|count| count.saturating_sub(1))
    }

    /// The bytes of a compact string or bytes; none of null.
    fn compact(&mut self) -> Option<&'a [u8]> {
        let length = self.count()?;
        self.take(length)
    }

    fn tags(&mut self) -> Option<()> {
        for _ in 0..self.varint()? {
            let _tag = self.varint()?;
            let length = self.varint()?;
            self.take(length)?;
        }
        Some(())
    }
}
