//! One record on its way to Kafka.

use super::{ReceiptId, TopicName};
use bytes::Bytes;
use std::{fmt, sync::Arc};

/// A Kafka record. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub struct Record {
    pub topic: TopicName,
    /// None lets the partitioner choose.
    pub partition: Option<i32>,
    pub key: Option<Bytes>,
    /// None is a tombstone: Kafka's null value.
    pub value: Option<Bytes>,
    /// The headers that the sender set, in the sender's order.
    pub headers: Vec<Header>,
    /// The headers that the service adds, shared by all records of one request.
    pub automatic: Arc<AutomaticHeaders>,
    /// Milliseconds since the Unix epoch (Kafka's `CreateTime`).
    pub timestamp: i64,
    /// In durable mode, its name for good.
    pub receipt: Option<RecordReceipt>,
}

/// What tells a record from its own duplicate: the headers `receipt` and, of one that is sent from the spool,
/// `receipt-replayed: true`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordReceipt {
    pub id: ReceiptId,
    pub replayed: bool,
}

/// A record header. Kafka allows repeated names and null values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub name: String,
    pub value: Option<Bytes>,
}

/// The headers that every record of one request gets, each only where the sender has not set that name.
/// An absent part is not written (`RECORD_HEADERS`).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct AutomaticHeaders {
    /// `content-type`
    pub content_type: Option<&'static str>,
    /// `trace-id`
    pub trace_id: Option<TraceId>,
    /// `timestamp`: the record's own timestamp in milliseconds.
    pub timestamp: bool,
    /// `traceparent`, as the request brought it (W3C Trace Context).
    pub traceparent: Option<String>,
}

/// The id of a trace (W3C Trace Context, section 3.2.2.3): 32 lower-case hex digits, not all of them 0.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceId([u8; Self::LENGTH]);

impl TraceId {
    pub const LENGTH: usize = 32;

    /// A new id.
    pub fn random() -> Self {
        let number = fastrand::u128(1..);
        let mut digits = [0; Self::LENGTH];
        for (place, digit) in digits.iter_mut().rev().enumerate() {
            *digit = b"0123456789abcdef"[(number >> (4 * place)) as usize & 0xf];
        }
        Self(digits)
    }

    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes().try_into().ok().map(Self)?;
        let is_hex = digits.0.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        (is_hex && digits.0.iter().any(|&digit| digit != b'0')).then_some(digits)
    }

    /// Its digits, in ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

pub const CONTENT_TYPE: &str = "content-type";
pub const TRACE_ID: &str = "trace-id";
pub const TIMESTAMP: &str = "timestamp";
pub const TRACEPARENT: &str = "traceparent";
pub const RECEIPT: &str = "receipt";
pub const RECEIPT_REPLAYED: &str = "receipt-replayed";

impl Record {
    /// Every header as it is written: the automatic ones that the sender has not set, the receipt, then the sender's.
    pub fn for_each_header(&self, mut visit: impl FnMut(&str, Option<&[u8]>)) {
        self.for_each_automatic_header(&mut visit);
        if let Some(receipt) = &self.receipt {
            visit(RECEIPT, Some(receipt.id.write(&mut [0; ReceiptId::MAX_LENGTH]).as_bytes()));
            if receipt.replayed {
                visit(RECEIPT_REPLAYED, Some(b"true"));
            }
        }
        for header in &self.headers {
            visit(&header.name, header.value.as_deref());
        }
    }

    /// The same without the receipt, which says how the record is sent, not what it is.
    pub fn for_each_header_but_receipt(&self, mut visit: impl FnMut(&str, Option<&[u8]>)) {
        self.for_each_automatic_header(&mut visit);
        for header in &self.headers {
            visit(&header.name, header.value.as_deref());
        }
    }

    fn for_each_automatic_header(&self, visit: &mut impl FnMut(&str, Option<&[u8]>)) {
        let set_by_sender = |name: &str| self.headers.iter().any(|header| header.name == name);
        let auto = &*self.automatic;
        if let Some(content_type) = auto.content_type
            && self.value.is_some()
            && !set_by_sender(CONTENT_TYPE)
        {
            visit(CONTENT_TYPE, Some(content_type.as_bytes()));
        }
        if let Some(trace_id) = &auto.trace_id
            && !set_by_sender(TRACE_ID)
        {
            visit(TRACE_ID, Some(trace_id.as_bytes()));
        }
        if auto.timestamp && !set_by_sender(TIMESTAMP) {
            visit(TIMESTAMP, Some(itoa::Buffer::new().format(self.timestamp).as_bytes()));
        }
        if let Some(traceparent) = &auto.traceparent
            && !set_by_sender(TRACEPARENT)
        {
            visit(TRACEPARENT, Some(traceparent.as_bytes()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(headers: Vec<Header>) -> Record {
        Record {
            topic: TopicName::parse("t").unwrap(),
            partition: None,
            key: None,
            value: Some(Bytes::from_static(b"{}")),
            headers,
            automatic: Arc::new(AutomaticHeaders {
                content_type: Some("application/json"),
                trace_id: TraceId::parse("4bf92f3577b34da6a3ce929d0e0e4736"),
                timestamp: true,
                traceparent: None,
            }),
            timestamp: 1_795_228_481_123,
            receipt: None,
        }
    }

    fn written(record: &Record) -> Vec<(String, Option<Vec<u8>>)> {
        let mut all = Vec::new();
        record.for_each_header(|name, value| all.push((name.to_owned(), value.map(<[u8]>::to_vec))));
        all
    }

    #[test]
    fn a_trace_id_is_32_lower_case_hex_digits() {
        assert_eq!(
            TraceId::parse(std::str::from_utf8(TraceId::random().as_bytes()).unwrap()).map(|_| ()),
            Some(())
        );
        assert_ne!(TraceId::random(), TraceId::random());
        for other in ["", "4bf92f", &"0".repeat(32), &"G".repeat(32), &"A".repeat(32), &"a".repeat(33)] {
            assert_eq!(TraceId::parse(other), None, "{other}");
        }
    }

    #[test]
    fn automatic_headers_come_first() {
        let sender = Header { name: "tenant-id".into(), value: Some(Bytes::from_static(b"7")) };
        let names: Vec<_> = written(&record(vec![sender])).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, [CONTENT_TYPE, TRACE_ID, TIMESTAMP, "tenant-id"]);
    }

    #[test]
    fn the_senders_header_replaces_the_automatic_one() {
        let sender = Header { name: CONTENT_TYPE.into(), value: Some(Bytes::from_static(b"text/x")) };
        let all = written(&record(vec![sender]));
        assert_eq!(all.iter().filter(|(name, _)| name == CONTENT_TYPE).count(), 1);
        assert_eq!(all.last().unwrap().1.as_deref(), Some(&b"text/x"[..]));
    }

    #[test]
    fn a_tombstone_has_no_content_type() {
        let mut tombstone = record(vec![]);
        tombstone.value = None;
        assert!(written(&tombstone).iter().all(|(name, _)| name != CONTENT_TYPE));
    }

    #[test]
    fn the_receipt_is_a_header_and_a_replay_says_so() {
        let id = ReceiptId::parse("inlet-0-00000000000000ff").unwrap();
        let with = |replayed| Record {
            receipt: Some(RecordReceipt { id: id.clone(), replayed }),
            automatic: Arc::default(),
            ..record(vec![])
        };
        let receipt = (RECEIPT.to_owned(), Some(b"inlet-0-00000000000000ff".to_vec()));
        let replayed = (RECEIPT_REPLAYED.to_owned(), Some(b"true".to_vec()));
        assert_eq!(written(&with(false)), std::slice::from_ref(&receipt));
        assert_eq!(written(&with(true)), [receipt, replayed]);
    }

    #[test]
    fn the_timestamp_header_equals_the_records_timestamp() {
        let all = written(&record(vec![]));
        assert!(all.contains(&(TIMESTAMP.into(), Some(b"1795228481123".to_vec()))));
    }
}
