//! What librdkafka knows about a record beside its error: whether it may have been persisted, and the broker's
//! own words. rdkafka wraps neither.
#![expect(unsafe_code, reason = "rdkafka has no safe access to rd_kafka_message_status and _produce_errstr")]

use rdkafka::{bindings as sys, message::BorrowedMessage};
use std::ffi::CStr;

/// `rd_kafka_msg_status_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    Not,
    Possibly,
    Certain,
}

/// Whether the record of this delivery report is in Kafka.
pub fn persistence(message: &BorrowedMessage<'_>) -> Persistence {
    // SAFETY: `ptr` is the message of a live delivery report event, which `message` borrows.
    match unsafe { sys::rd_kafka_message_status(message.ptr()) } {
        sys::rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED => Persistence::Not,
        sys::rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_POSSIBLY_PERSISTED => Persistence::Possibly,
        sys::rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_PERSISTED => Persistence::Certain,
    }
}

/// The broker's reason for refusing the record, where it gave one.
pub fn broker_reason(message: &BorrowedMessage<'_>) -> Option<String> {
    // SAFETY: as above; the text lives as long as the message and is copied before it goes.
    unsafe {
        let text = sys::rd_kafka_message_produce_errstr(message.ptr());
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}
