//! What librdkafka reports about one record: also whether it may have been persisted, and the broker's own words,
//! which rdkafka does not wrap.
#![expect(unsafe_code, reason = "rdkafka has no safe access to rd_kafka_message_status and _produce_errstr")]

use crate::produce::{AutomaticHeaders, Header, Record, TopicName};
use bytes::Bytes;
use rdkafka::{bindings as sys, message::BorrowedMessage, types::RDKafkaErrorCode};
use std::{
    ffi::CStr,
    marker::PhantomData,
    ptr::{self, NonNull},
    slice,
    sync::Arc,
};

/// `RD_KAFKA_OFFSET_INVALID`: what a record has for an offset before an answer to its own request has come.
const NO_ANSWER: i64 = sys::RD_KAFKA_OFFSET_INVALID as i64;
/// The offset in the answer to a batch that the broker has already (DUPLICATE_SEQUENCE_NUMBER). librdkafka counts on from
/// it through the batch.
const DUPLICATE: i64 = -1;

/// The report on one record, part of a delivery event that lives for at least `'a`.
#[derive(Clone, Copy)]
pub struct DeliveryReport<'a> {
    message: NonNull<sys::rd_kafka_message_t>,
    event: PhantomData<&'a sys::rd_kafka_message_t>,
}

/// `rd_kafka_msg_status_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    Not,
    Possibly,
    Certain,
}

/// When the record is, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    pub millis: i64,
    /// The broker set it (`LogAppendTime`), else the producer did.
    pub is_append_time: bool,
}

impl<'a> DeliveryReport<'a> {
    /// # Safety
    /// `message` is one of a delivery event.
    pub(super) unsafe fn new(message: &'a sys::rd_kafka_message_t) -> Self {
        Self { message: NonNull::from(message), event: PhantomData }
    }

    /// Must be of a message that a producer's delivery callback was given.
    pub fn of(message: &'a BorrowedMessage<'_>) -> Option<Self> {
        NonNull::new(message.ptr()).map(|message| Self { message, event: PhantomData })
    }

    fn message(&self) -> &sys::rd_kafka_message_t {
        // SAFETY: it lives for `'a`, and nothing writes to it.
        unsafe { self.message.as_ref() }
    }

    /// None where the record is acknowledged.
    pub fn failure(&self) -> Option<RDKafkaErrorCode> {
        let code = self.message().err.into();
        (code != RDKafkaErrorCode::NoError).then_some(code)
    }

    pub fn partition(&self) -> i32 {
        self.message().partition
    }

    /// Bytes of the key and the value.
    pub fn length(&self) -> usize {
        self.message().len + self.message().key_len
    }

    /// Only meaningful where the record is acknowledged, by an answer to its own request.
    pub fn offset(&self) -> i64 {
        self.message().offset
    }

    /// librdkafka takes the record for written, for no other reason than that a later one is (`rd_kafka_dr_implicit_ack`).
    pub fn is_implied(&self) -> bool {
        self.failure().is_none() && self.offset() == NO_ANSWER
    }

    /// The broker has had the batch before, of which this is the first record: none of it has an offset.
    pub fn begins_duplicate(&self) -> bool {
        self.failure().is_none() && self.offset() == DUPLICATE
    }

    /// The record as it was sent, in memory of its own, to be sent again.
    pub fn record(&self, topic: TopicName, timestamp: i64) -> Record {
        let message = self.message();
        // SAFETY: the bytes live as long as the message.
        let (key, value) =
            unsafe { (copy(message.key.cast(), message.key_len), copy(message.payload.cast(), message.len)) };
        Record {
            topic,
            partition: None,
            key,
            value,
            headers: self.headers(),
            automatic: Arc::new(AutomaticHeaders::default()),
            timestamp,
            receipt: None,
        }
    }

    fn headers(&self) -> Vec<Header> {
        let mut list = ptr::null_mut();
        // SAFETY: the message is alive, and the list is its own.
        let found = unsafe { sys::rd_kafka_message_headers(self.message.as_ptr(), &raw mut list) };
        if RDKafkaErrorCode::from(found) != RDKafkaErrorCode::NoError {
            return Vec::new();
        }
        let header = |index| {
            let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
            // SAFETY: the list is alive; what it gives lives as long, and its names end with NUL.
            unsafe {
                let found =
                    sys::rd_kafka_header_get_all(list, index, &raw mut name, &raw mut value, &raw mut length);
                let is_there = RDKafkaErrorCode::from(found) == RDKafkaErrorCode::NoError;
                is_there
                    .then(|| text(name))
                    .flatten()
                    .map(|name| Header { name, value: copy(value.cast(), length) })
            }
        };
        (0..).map_while(header).collect()
    }

    /// Only meaningful where the record is acknowledged.
    pub fn timestamp(&self) -> Timestamp {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive.
        let millis = unsafe { sys::rd_kafka_message_timestamp(self.message.as_ptr(), &raw mut kind) };
        let is_append_time = kind == sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME;
        Timestamp { millis, is_append_time }
    }

    /// Whether the record is in Kafka.
    pub fn persistence(&self) -> Persistence {
        // SAFETY: the message is alive.
        match unsafe { sys::rd_kafka_message_status(self.message.as_ptr()) } {
            sys::rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED => Persistence::Not,
            sys::rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_POSSIBLY_PERSISTED => Persistence::Possibly,
            sys::rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_PERSISTED => Persistence::Certain,
        }
    }

    /// The broker's reason for refusing the record, where it gave one.
    pub fn broker_reason(&self) -> Option<String> {
        // SAFETY: the text lives as long as the message.
        unsafe { text(sys::rd_kafka_message_produce_errstr(self.message.as_ptr())) }
    }

    /// The name of the record's topic.
    pub fn topic(&self) -> Option<&'a str> {
        // SAFETY: the message holds a reference to its topic, whose name lives as long and ends with NUL.
        unsafe {
            let name = sys::rd_kafka_topic_name(self.message().rkt);
            if name.is_null() { None } else { CStr::from_ptr(name).to_str().ok() }
        }
    }
}

/// Bytes in memory of their own; null is Kafka's null.
///
/// # Safety
/// `start` is null or the start of `length` bytes.
unsafe fn copy(start: *const u8, length: usize) -> Option<Bytes> {
    // SAFETY: by the contract.
    (!start.is_null()).then(|| Bytes::copy_from_slice(unsafe { slice::from_raw_parts(start, length) }))
}

/// # Safety
/// `text` is null or ends with NUL.
unsafe fn text(text: *const std::ffi::c_char) -> Option<String> {
    // SAFETY: by the contract.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}
