//! The size of a record as Kafka stores it, so that what is too large is refused before it is sent.

use super::Record;

/// Bytes of a version 2 record batch before its first record (Kafka documentation, "Record Batch").
pub const BATCH_OVERHEAD: usize = 61;

/// Bytes of the version 2 record batch that holds this record alone, uncompressed: the measure that a broker
/// compares with `max.message.bytes` (`org.apache.kafka.common.record.DefaultRecordBatch#sizeInBytes`).
pub fn batch_size(record: &Record) -> usize {
    BATCH_OVERHEAD + record_size(record, 0, 0)
}

/// Bytes of the record in a batch: `timestamp_delta` is from the first record's timestamp, in milliseconds, and
/// `offset_delta` from its offset.
pub fn record_size(record: &Record, timestamp_delta: i64, offset_delta: i64) -> usize {
    let mut headers = 0;
    let mut count = 0;
    record.for_each_header(|name, value| {
        count += 1;
        headers += varint(name.len() as i64) + name.len() + field(value.map(<[u8]>::len));
    });
    // the attributes are one byte
    let body = 1
        + varint(timestamp_delta)
        + varint(offset_delta)
        + field(record.key.as_ref().map(bytes::Bytes::len))
        + field(record.value.as_ref().map(bytes::Bytes::len))
        + varint(count)
        + headers;
    varint(body as i64) + body
}

/// A length-prefixed field, whose null has the length −1.
fn field(length: Option<usize>) -> usize {
    match length {
        Some(length) => varint(length as i64) + length,
        None => varint(-1),
    }
}

/// Bytes of a zigzag-encoded variable-length integer (Protocol Buffers encoding, as Kafka's `ByteUtils`).
fn varint(value: i64) -> usize {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    let bits = 64 - zigzag.leading_zeros() as usize;
    bits.div_ceil(7).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::produce::{AutomaticHeaders, Header, TopicName};
    use bytes::Bytes;
    use std::sync::Arc;

    fn record(key: Option<&'static str>, value: usize, headers: Vec<Header>) -> Record {
        Record {
            topic: TopicName::parse("t").unwrap(),
            partition: None,
            key: key.map(Bytes::from_static_str),
            value: Some(Bytes::from(vec![b'x'; value])),
            headers,
            automatic: Arc::new(AutomaticHeaders::default()),
            timestamp: 0,
            receipt: None,
        }
    }

    trait FromStaticStr {
        fn from_static_str(text: &'static str) -> Bytes;
    }
    impl FromStaticStr for Bytes {
        fn from_static_str(text: &'static str) -> Bytes {
            Bytes::from_static(text.as_bytes())
        }
    }

    #[test]
    fn varints_grow_at_the_powers_of_128() {
        assert_eq!([-1, 0, 63, 64, 8191, 8192].map(varint), [1, 1, 1, 2, 2, 3]);
    }

    #[test]
    fn a_record_alone_is_the_batch_overhead_and_its_fields() {
        // length 1 + attributes, deltas 3 + null key 1 + value length 1 + value 10 + header count 1
        assert_eq!(batch_size(&record(None, 10, vec![])), 61 + 1 + 3 + 1 + 1 + 10 + 1);
    }

    #[test]
    fn key_and_headers_count() {
        let plain = batch_size(&record(None, 10, vec![]));
        assert_eq!(batch_size(&record(Some("abc"), 10, vec![])), plain + 3);
        let header = Header { name: "h".into(), value: Some(Bytes::from_static(b"vv")) };
        assert_eq!(batch_size(&record(None, 10, vec![header])), plain + 1 + 1 + 1 + 2);
    }
}
