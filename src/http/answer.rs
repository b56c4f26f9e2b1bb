//! The answers to requests that reached Kafka's verdict: one record, or a result for each of a batch.

use super::error::{Failure, level_of, produce_status, public_detail, set_retry_after, topic_of};
use crate::produce::{
    Accepted, Error, Outcome, RFC3339_LENGTH, Receipt, Stored, TopicName, Verdict, write_rfc3339,
};
use axum::{body::Body, response::Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use std::ops::Range;
use utoipa::ToSchema;

/// About what one record's result takes.
const SENT_BYTES: usize = 192;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

// the shape of what `Writer::sent` writes by hand, which is many times faster
/// A record that is in Kafka, acknowledged by all in-sync replicas.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "ok": true, "success": true, "message": "Message sent successfully",
    "topic": "rtmh.logs", "partition": 0, "offset": 42, "timestamp": "2026-11-20T12:34:41.123Z"
}))]
pub struct Sent {
    /// Always true.
    ok: bool,
    /// Always true.
    success: bool,
    /// Always "Message sent successfully".
    message: &'static str,
    topic: String,
    partition: i32,
    /// Null where Kafka confirmed the record but a retried acknowledgement lost its offset.
    #[schema(required = true)]
    offset: Option<i64>,
    /// The record's timestamp in Kafka.
    #[schema(format = DateTime)]
    timestamp: String,
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
pub enum BatchResult {
    Sent(Sent),
    Failed(Failed),
}

// the shape of what `many` writes
/// What became of each record of a batch, in the order of the request.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchAnswer {
    /// Every record is in Kafka.
    success: bool,
    /// Records that are in Kafka.
    messages_sent: usize,
    results: Vec<BatchResult>,
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

/// 202: the record is in Kafka, or on the disk until it is.
pub fn one(accepted: &Accepted) -> Response {
    let mut writer = Writer::with_capacity(SENT_BYTES);
    writer.accepted(accepted);
    json(StatusCode::ACCEPTED, writer.json)
}

/// One result a record: 202 all written, 207 some, else the status of [`all_failed`].
pub fn many(verdicts: &[Verdict]) -> Response {
    let messages_sent = verdicts.iter().filter(|verdict| verdict.is_ok()).count();
    let status = match messages_sent {
        sent if sent == verdicts.len() => StatusCode::ACCEPTED,
        0 => all_failed(verdicts),
        _ => StatusCode::MULTI_STATUS,
    };
    let mut writer = Writer::with_capacity(SENT_BYTES * (verdicts.len() + 1));
    writer.text(if messages_sent == verdicts.len() { r#"{"success":true"# } else { r#"{"success":false"# });
    writer.text(r#","messages_sent":"#);
    writer.integer(messages_sent);
    writer.text(r#","results":["#);
    for (index, verdict) in verdicts.iter().enumerate() {
        if index > 0 {
            writer.text(",");
        }
        match verdict {
            Ok(accepted) => writer.accepted(accepted),
            Err(error) => writer.failed(&error.into()),
        }
    }
    writer.text("]}");
    let mut response = json(status, writer.json);
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

fn json(status: StatusCode, text: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// Writes answers as JSON, remembering the parts that the records of a batch mostly share.
struct Writer<'a> {
    json: Vec<u8>,
    /// The topic of the last record, and where its result up to the partition is.
    head: Option<(&'a TopicName, Range<usize>)>,
    /// The last timestamp, and where its text is.
    timestamp: Option<(i64, Range<usize>)>,
}

impl<'a> Writer<'a> {
    fn with_capacity(bytes: usize) -> Self {
        Self { json: Vec::with_capacity(bytes), head: None, timestamp: None }
    }

    fn text(&mut self, text: &str) {
        self.json.extend_from_slice(text.as_bytes());
    }

    fn integer(&mut self, number: impl itoa::Integer) {
        self.text(itoa::Buffer::new().format(number));
    }

    fn accepted(&mut self, accepted: &'a Accepted) {
        match accepted {
            Accepted::Written(receipt) => self.sent(receipt),
            Accepted::Stored(stored) => self.stored(stored),
        }
    }

    fn stored(&mut self, stored: &'a Stored) {
        self.text(r#"{"ok":true,"success":true,"message":"Message stored","stored":"spool","receipt":""#);
        self.text(&stored.id.to_string());
        self.text(r#"","topic":""#);
        self.text(stored.topic.as_str());
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
        match &self.timestamp {
            Some((millis, text)) if *millis == receipt.timestamp => {
                self.json.extend_from_within(text.clone());
            }
            _ => self.first_timestamp(receipt.timestamp),
        }
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

    /// RFC 3339 in UTC, from milliseconds since the Unix epoch; years above 9999 have no such form and end there.
    fn first_timestamp(&mut self, millis: i64) {
        let start = self.json.len();
        let last = jiff::Timestamp::MAX.as_millisecond();
        self.text(write_rfc3339(millis.min(last), &mut [0; RFC3339_LENGTH]).unwrap_or_default());
        self.timestamp = Some((millis, start..self.json.len()));
    }

    fn failed(&mut self, failed: &Failed) {
        // writing to memory what has only plain members cannot fail
        let _ = serde_json::to_writer(&mut self.json, failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    fn receipt(topic: &str, offset: Option<i64>) -> Receipt {
        let topic = TopicName::parse(topic).unwrap();
        Receipt { topic, partition: 2, offset, timestamp: 1_795_228_481_123 }
    }

    async fn text(response: Response) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn what_is_written_by_hand_is_what_serde_writes() {
        let receipt = receipt("orders", Some(7));
        let sent = || Sent {
            ok: true,
            success: true,
            message: "Message sent successfully",
            topic: "orders".into(),
            partition: 2,
            offset: Some(7),
            timestamp: "2026-11-21T02:34:41.123Z".into(),
        };
        assert_eq!(
            text(one(&Accepted::Written(receipt.clone()))).await,
            serde_json::to_string(&sent()).unwrap()
        );
        let error = Error::KeyRequired(TopicName::parse("t").unwrap());
        let batch = BatchAnswer {
            success: false,
            messages_sent: 1,
            results: vec![BatchResult::Sent(sent()), BatchResult::Failed((&error).into())],
        };
        assert_eq!(
            text(many(&[Ok(Accepted::Written(receipt)), Err(error)])).await,
            serde_json::to_string(&batch).unwrap()
        );
    }

    #[tokio::test]
    async fn each_record_of_a_batch_has_its_own_topic_offset_and_timestamp() {
        let later = Receipt { timestamp: 1_795_228_481_124, ..receipt("a", None) };
        let verdicts = [receipt("a", Some(0)), receipt("b", Some(1)), later, receipt("a", Some(3))]
            .map(|receipt| Ok(Accepted::Written(receipt)));
        let answer: Value = serde_json::from_str(&text(many(&verdicts)).await).unwrap();
        let results = &answer["results"];
        let of = |name: &str| -> Vec<Value> {
            results.as_array().unwrap().iter().map(|result| result[name].clone()).collect()
        };
        assert_eq!(of("topic"), [json!("a"), json!("b"), json!("a"), json!("a")]);
        assert_eq!(of("offset"), [json!(0), json!(1), json!(null), json!(3)]);
        let timestamps = ["123", "123", "124", "123"].map(|ms| json!(format!("2026-11-21T02:34:41.{ms}Z")));
        assert_eq!(of("timestamp"), timestamps);
    }
}
