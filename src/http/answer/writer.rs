//! Answers as JSON, written by hand.

use super::shape::Failed;
use crate::produce::{self, Accepted, RFC3339_LENGTH, Receipt, ReceiptId, TopicName, write_rfc3339};
use std::ops::Range;

/// RFC 3339 in UTC, from milliseconds since the Unix epoch; years above 9999 have no such form and end there.
pub fn timestamp_text(millis: i64, buffer: &mut [u8; RFC3339_LENGTH]) -> &str {
    let last = jiff::Timestamp::MAX.as_millisecond();
    write_rfc3339(millis.min(last), buffer).unwrap_or_default()
}

/// Writes answers as JSON, remembering the parts that the records of a batch mostly share.
pub struct Writer<'a> {
    pub json: Vec<u8>,
    /// The topic of the last record, and where its result up to the partition is.
    head: Option<(&'a TopicName, Range<usize>)>,
    /// The last timestamp, and where its text is.
    timestamp: Option<(i64, Range<usize>)>,
}

impl<'a> Writer<'a> {
    pub fn with_capacity(bytes: usize) -> Self {
        Self { json: Vec::with_capacity(bytes), head: None, timestamp: None }
    }

    pub fn text(&mut self, text: &str) {
        self.json.extend_from_slice(text.as_bytes());
    }

    pub fn integer(&mut self, number: impl itoa::Integer) {
        self.text(itoa::Buffer::new().format(number));
    }

    pub fn accepted(&mut self, accepted: &'a Accepted) {
        match accepted {
            Accepted::Written(receipt) => self.sent(receipt),
            Accepted::Stored(stored) => self.stored(stored),
        }
    }

    fn stored(&mut self, stored: &produce::Stored) {
        self.text(r#"{"ok":true,"success":true,"message":"Message stored; it will be sent to Kafka","#);
        self.text(r#""stored":"spool","receipt":""#);
        // its characters need no escapes, and neither do the topic's
        self.text(stored.id.write(&mut [0; ReceiptId::MAX_LENGTH]));
        self.text(r#"","topic":""#);
        self.text(stored.topic.as_str());
        self.text(r#"","timestamp":""#);
        self.timestamp(stored.timestamp);
        self.text(r#""}"#);
    }

    fn sent(&mut self, receipt: &'a Receipt) {
        match &self.head {
            Some((topic, head)) if **topic == receipt.topic => self.json.extend_from_within(head.clone()),
            _ => self.first_sent_to(&receipt.topic),
        }
        self.integer(receipt.partition);
        self.text(r#","offset":"#);
        match receipt.offset {
            Some(offset) => self.integer(offset),
            None => self.text("null"),
        }
        self.text(r#","timestamp":""#);
        self.timestamp(receipt.timestamp);
        self.text(r#""}"#);
    }

    fn first_sent_to(&mut self, topic: &'a TopicName) {
        let start = self.json.len();
        self.text(r#"{"ok":true,"success":true,"message":"Message sent successfully","topic":""#);
        // its characters need no escapes
        self.text(topic.as_str());
        self.text(r#"","partition":"#);
        self.head = Some((topic, start..self.json.len()));
    }

    fn timestamp(&mut self, millis: i64) {
        match &self.timestamp {
            Some((last, text)) if *last == millis => self.json.extend_from_within(text.clone()),
            _ => {
                let start = self.json.len();
                self.text(timestamp_text(millis, &mut [0; RFC3339_LENGTH]));
                self.timestamp = Some((millis, start..self.json.len()));
            }
        }
    }

    pub fn failed(&mut self, failed: &Failed) {
        // writing to memory what has only plain members cannot fail
        let _ = serde_json::to_writer(&mut self.json, failed);
    }
}
