//! The answers to requests that reached Kafka's verdict: one record, or a result for each of a batch.

mod body;
mod shape;
mod writer;

pub use body::AnswerBody;
pub use shape::{BatchAnswer, BatchResult, Failed, RecordAnswer, Sent, Stored};
pub use writer::timestamp_text;

use super::{
    error::{Failure, level_of, produce_status, set_retry_after, topic_of},
    route,
};
use crate::produce::{Accepted, Outcome, Verdict};
use axum::{body::Body, response::Response};
use http::{HeaderValue, StatusCode, header};
use writer::Writer;

/// About what one record's result takes.
const SENT_BYTES: usize = 192;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// 202: the record is in Kafka, or on the disk until it is. `Location` is then where to ask for it.
pub fn one(accepted: &Accepted) -> Response {
    let mut writer = Writer::with_capacity(SENT_BYTES);
    writer.accepted(accepted);
    let mut response = json(StatusCode::ACCEPTED, writer.json);
    if let Accepted::Stored(stored) = accepted
        && let Ok(location) = HeaderValue::try_from(route::receipt(&stored.id))
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// About how many bytes the answer to so many records takes.
pub fn expected_bytes(records: usize) -> usize {
    SENT_BYTES * (records + 1)
}

/// One result a record: 202 all written or stored, 207 some, else the status of [`all_failed`].
pub fn many(verdicts: &[Verdict]) -> Response {
    let accepted = verdicts.iter().flatten().count();
    let stored = verdicts.iter().flatten().filter(|accepted| accepted.is_stored()).count();
    let status = match accepted {
        accepted if accepted == verdicts.len() => StatusCode::ACCEPTED,
        0 => all_failed(verdicts),
        _ => StatusCode::MULTI_STATUS,
    };
    let mut writer = Writer::with_capacity(expected_bytes(verdicts.len()));
    writer.text(if accepted == verdicts.len() { r#"{"success":true"# } else { r#"{"success":false"# });
    writer.text(r#","messages_sent":"#);
    writer.integer(accepted - stored);
    if stored > 0 {
        writer.text(r#","messages_stored":"#);
        writer.integer(stored);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::produce::{self, Error, InstanceId, Receipt, ReceiptId, Sequence, TopicName};
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    fn receipt(topic: &str, offset: Option<i64>) -> Receipt {
        let topic = TopicName::parse(topic).unwrap();
        Receipt { topic, partition: 2, offset, timestamp: 1_795_228_481_123 }
    }

    fn in_spool(topic: &str) -> Accepted {
        let instance = InstanceId::parse("here").unwrap();
        Accepted::Stored(produce::Stored {
            id: ReceiptId { instance, sequence: Sequence(255) },
            topic: TopicName::parse(topic).unwrap(),
            timestamp: 1_795_228_481_124,
        })
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
        let stored = || Stored {
            ok: true,
            success: true,
            message: "Message stored; it will be sent to Kafka",
            stored: "spool",
            receipt: "here-00000000000000ff".into(),
            topic: "orders".into(),
            timestamp: "2026-11-21T02:34:41.124Z".into(),
        };
        assert_eq!(text(one(&in_spool("orders"))).await, serde_json::to_string(&stored()).unwrap());
        let error = Error::KeyRequired(TopicName::parse("t").unwrap());
        let batch = BatchAnswer {
            success: false,
            messages_sent: 1,
            messages_stored: Some(2),
            results: vec![
                BatchResult::Sent(sent()),
                BatchResult::Stored(stored()),
                BatchResult::Failed((&error).into()),
                BatchResult::Stored(stored()),
            ],
        };
        let verdicts =
            [Ok(Accepted::Written(receipt)), Ok(in_spool("orders")), Err(error), Ok(in_spool("orders"))];
        assert_eq!(text(many(&verdicts)).await, serde_json::to_string(&batch).unwrap());
    }

    #[tokio::test]
    async fn what_is_not_stored_is_not_counted_as_such() {
        let batch = BatchAnswer { success: true, messages_sent: 0, messages_stored: None, results: vec![] };
        assert_eq!(text(many(&[])).await, serde_json::to_string(&batch).unwrap());
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
