//! What the answers look like, as serde and OpenAPI see them.

use crate::{http::error::public_detail, produce::Error};
use serde::Serialize;
use utoipa::ToSchema;

// the shape of what `Writer::sent` writes by hand, which is many times faster
/// A record that is in Kafka, acknowledged by all in-sync replicas.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "ok": true, "success": true, "message": "Message sent successfully",
    "topic": "rtmh.logs", "partition": 0, "offset": 42, "timestamp": "2026-11-20T12:34:41.123Z"
}))]
pub struct Sent {
    /// Always true.
    pub(super) ok: bool,
    /// Always true.
    pub(super) success: bool,
    /// Always "Message sent successfully".
    pub(super) message: &'static str,
    pub(super) topic: String,
    pub(super) partition: i32,
    /// Null where Kafka confirmed the record but a retried acknowledgement lost its offset.
    #[schema(required = true)]
    pub(super) offset: Option<i64>,
    /// The record's timestamp in Kafka.
    #[schema(format = DateTime)]
    pub(super) timestamp: String,
}

// the shape of what `Writer::stored` writes
/// A record that is on this service's disk, with `DELIVERY=durable`, and will be sent to Kafka.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "ok": true, "success": true, "message": "Message stored; it will be sent to Kafka", "stored": "spool",
    "receipt": "inlet-0-18a3f2b1c4d5e6f7", "topic": "rtmh.logs", "timestamp": "2026-11-20T12:34:41.123Z"
}))]
pub struct Stored {
    /// Always true.
    pub(super) ok: bool,
    /// Always true.
    pub(super) success: bool,
    /// Always "Message stored; it will be sent to Kafka".
    pub(super) message: &'static str,
    /// Always `spool`.
    pub(super) stored: &'static str,
    /// Names the record: `GET /receipts/{receipt}` tells what became of it.
    pub(super) receipt: String,
    pub(super) topic: String,
    /// The record's timestamp.
    #[schema(format = DateTime)]
    pub(super) timestamp: String,
}

/// A record that will not be lost.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum RecordAnswer {
    Sent(Sent),
    Stored(Stored),
}

/// A record of a batch that was not accepted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "success": false, "outcome": "not_written", "error": "unknown_topic",
    "detail": "topic 'orders' does not exist; create it, or check the spelling", "retriable": false
}))]
pub struct Failed {
    /// Always false.
    pub(super) success: bool,
    /// `not_written`, or `unknown`: it may be in Kafka, and a resend may duplicate it.
    #[schema(pattern = "^(not_written|unknown)$")]
    pub(super) outcome: &'static str,
    /// The error's stable name.
    pub(super) error: &'static str,
    /// What is wrong and what to do.
    pub(super) detail: String,
    /// The same bytes may succeed later.
    pub(super) retriable: bool,
}

/// What became of one record of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum BatchResult {
    Sent(Sent),
    Stored(Stored),
    Failed(Failed),
}

// the shape of what `many` writes
/// What became of each record of a batch, in the order of the request.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchAnswer {
    /// Every record is in Kafka or stored.
    pub(super) success: bool,
    /// Records that are in Kafka.
    pub(super) messages_sent: usize,
    /// Records that are stored and will be sent; absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = usize, required = false)]
    pub(super) messages_stored: Option<usize>,
    pub(super) results: Vec<BatchResult>,
}

impl From<&Error> for Failed {
    fn from(error: &Error) -> Self {
        Self {
            success: false,
            outcome: error.outcome().as_str(),
            error: error.tag(),
            detail: public_detail(error),
            retriable: error.is_retriable(),
        }
    }
}
