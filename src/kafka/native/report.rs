//! What librdkafka reports about one record: also whether it may have been persisted, and the broker's own words,
//! which rdkafka does not wrap.
#![expect(unsafe_code, reason = "rdkafka has no safe access to rd_kafka_message_status and _produce_errstr")]

use rdkafka::{bindings as sys, message::BorrowedMessage, types::RDKafkaErrorCode};
use std::{ffi::CStr, marker::PhantomData, ptr::NonNull};

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

    /// None where librdkafka does not know it, for which it has negative ones.
    pub fn offset(&self) -> Option<i64> {
        Some(self.message().offset).filter(|&offset| offset >= 0)
    }

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
    pub fn topic(&self) -> Option<String> {
        // SAFETY: the message holds a reference to its topic, whose name lives as long.
        unsafe { text(sys::rd_kafka_topic_name(self.message().rkt)) }
    }
}

/// # Safety
/// `text` is null or ends with NUL.
unsafe fn text(text: *const std::ffi::c_char) -> Option<String> {
    // SAFETY: by the contract.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}
