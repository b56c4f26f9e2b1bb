//! The answers to requests that reached Kafka's verdict: one record, or a result for each of a batch.

use super::error::{Failure, level_of, produce_status, public_detail, set_retry_after, topic_of};
use crate::produce::{Outcome, Receipt, Verdict};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A record that is in Kafka, acknowledged by all in-sync replicas.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "ok": true, "success": true, "message": "Message sent successfully",
    "topic": "rtmh.logs", "partition": 0, "offset": 42, "timestamp": "2026-11-20T12:34:41.123Z"
}))]
pub struct Sent<'a> {
    /// Always true.
    ok: bool,
    /// Always true.
    success: bool,
    /// Always "Message sent successfully".
    message: &'static str,
    topic: &'a str,
    partition: i32,
    /// Null where Kafka confirmed the record but a retried acknowledgement lost its offset.
    #[schema(required = true)]
    offset: Option<i64>,
    /// The record's timestamp in Kafka.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    timestamp: i64,
}

/// A record of a batch that has no receipt.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "success": false, "outcome": "not_written", "error": "unknown_topic",
    "detail": "topic 'orders' does not exist; create it, or check the spelling", "retriable": false
}))]
pub struct Failed {
    /// Always false.
    success: bool,
    /// `not_written`, or `unknown`: it may be in Kafka, and a resend may duplicate it.
    #[schema(pattern = "^(not_written|unknown)$")]
    outcome: &'static str,
    /// The error's stable name.
    error: &'static str,
    /// What is wrong and what to do.
    detail: String,
    /// The same bytes may succeed later.
    retriable: bool,
}

/// What became of one record of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum BatchResult<'a> {
    Sent(Sent<'a>),
    Failed(Failed),
}

/// What became of each record of a batch, in the order of the request.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchAnswer<'a> {
    /// Every record is in Kafka.
    success: bool,
    /// Records that are in Kafka.
    messages_sent: usize,
    results: Vec<BatchResult<'a>>,
}

impl<'a> From<&'a Receipt> for Sent<'a> {
    fn from(receipt: &'a Receipt) -> Self {
        Self {
            ok: true,
            success: true,
            message: "Message sent successfully",
            topic: receipt.topic.as_str(),
            partition: receipt.partition,
            offset: receipt.offset,
            timestamp: receipt.timestamp,
        }
    }
}

impl<'a> From<&'a Verdict> for BatchResult<'a> {
    fn from(verdict: &'a Verdict) -> Self {
        match verdict {
            Ok(receipt) => Self::Sent(receipt.into()),
            Err(error) => Self::Failed(Failed {
                success: false,
                outcome: error.outcome().as_str(),
                error: error.tag(),
                detail: public_detail(error),
                retriable: error.is_retriable(),
            }),
        }
    }
}

/// 202: the record is in Kafka.
pub fn one(receipt: &Receipt) -> Response {
    json(StatusCode::ACCEPTED, 192, &Sent::from(receipt))
}

/// One result a record: 202 all written, 207 some, else the status of [`all_failed`].
pub fn many(verdicts: &[Verdict]) -> Response {
    let messages_sent = verdicts.iter().filter(|verdict| verdict.is_ok()).count();
    let status = match messages_sent {
        sent if sent == verdicts.len() => StatusCode::ACCEPTED,
        0 => all_failed(verdicts),
        _ => StatusCode::MULTI_STATUS,
    };
    let answer = BatchAnswer {
        success: messages_sent == verdicts.len(),
        messages_sent,
        results: verdicts.iter().map(BatchResult::from).collect(),
    };
    let mut response = json(status, 64 + 192 * verdicts.len(), &answer);
    set_retry_after(&mut response);
    if let Some(failure) = failure(verdicts) {
        response.extensions_mut().insert(failure);
    }
    response
}

/// The status that the records share; else 400 where no resend can help, 504 where one may be in Kafka, 503.
fn all_failed(verdicts: &[Verdict]) -> StatusCode {
    let errors = || verdicts.iter().filter_map(|verdict| verdict.as_ref().err());
    let mut statuses = errors().map(produce_status);
    match statuses.next() {
        Some(first) if statuses.all(|status| status == first) => first,
        _ if !errors().any(|error| error.is_retriable()) => StatusCode::BAD_REQUEST,
        _ if errors().any(|error| error.outcome() == Outcome::Unknown) => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// One line of log for the batch: its gravest failure, and how many there are.
fn failure(verdicts: &[Verdict]) -> Option<Failure> {
    let errors = || verdicts.iter().filter_map(|verdict| verdict.as_ref().err());
    // tracing orders levels by verbosity: the gravest is the least
    let gravest = errors().min_by_key(|error| level_of(error))?;
    Some(Failure {
        level: level_of(gravest),
        error: gravest.tag(),
        topic: topic_of(gravest).cloned(),
        detail: format!("{} of {} records; {gravest}", errors().count(), verdicts.len()),
    })
}

/// Serialises straight into the answer's buffer, of about `size` bytes.
fn json(status: StatusCode, size: usize, body: &impl Serialize) -> Response {
    let mut buffer = Vec::with_capacity(size);
    match serde_json::to_writer(&mut buffer, body) {
        Ok(()) => (status, [(header::CONTENT_TYPE, JSON)], buffer).into_response(),
        Err(error) => {
            super::ApiError::Internal(format!("an answer was not serialised: {error}")).into_response()
        }
    }
}

/// Milliseconds since the Unix epoch as RFC 3339 in UTC; years above 9999 have no such form and end there.
fn rfc3339<S: Serializer>(milliseconds: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    let timestamp = jiff::Timestamp::from_millisecond(*milliseconds).unwrap_or(jiff::Timestamp::MAX);
    serializer.collect_str(&format_args!("{timestamp:.3}"))
}
