//! `GET /receipts/{id}`: what became of a record that was stored.

use crate::{
    http::{
        ApiError, AppState,
        answer::timestamp_text,
        error::RETRY_AFTER,
        extract::wait_of,
        openapi::{ReceiptFailures, ReceiptWait},
    },
    produce::{DeadLetter, Failure, RFC3339_LENGTH, Receipt, ReceiptId, ReceiptState, Sequence, Spool},
};
use axum::{
    Json,
    extract::{Path, RawQuery, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header};
use serde::Serialize;
use std::time::Duration;
use tokio::time::Instant;
use utoipa::ToSchema;

/// How often a request that waits looks whether the service drains.
const LOOK: Duration = Duration::from_millis(500);

pub const FORGOTTEN: &str = "its record was never stored, because Kafka took it at once or not at all, or what became of \
                         it was forgotten since (RECEIPT_TTL, RECEIPT_MAX_BYTES)";
const DIRECT: &str = "this instance runs with DELIVERY=direct, which keeps no receipts";

/// What became of a stored record.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "receipt": "inlet-0-18a3f2b1c4d5e6f7", "state": "written", "topic": "rtmh.logs", "partition": 0, "offset": 42,
    "timestamp": "2026-11-20T12:34:41.123Z"
}))]
pub struct ReceiptAnswer {
    /// The id that was asked for.
    receipt: String,
    #[serde(flatten)]
    state: RecordState,
}

/// Told apart by `state`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RecordState {
    /// It waits to be sent, or for Kafka to confirm it.
    Pending,
    /// It is in Kafka, acknowledged by all in-sync replicas.
    Written {
        #[serde(flatten)]
        place: Place,
        /// The record's timestamp in Kafka.
        #[schema(format = DateTime)]
        timestamp: String,
    },
    /// Kafka refused it for good.
    Failed {
        /// The error's stable name.
        error: String,
        /// Why.
        reason: String,
        /// Where it is instead; absent where it is kept on this service's disk.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Place, required = false)]
        dead_letter: Option<Place>,
    },
}

/// Where a record is in Kafka.
#[derive(Debug, Serialize, ToSchema)]
pub struct Place {
    topic: String,
    partition: i32,
    /// Null where Kafka confirmed the record but a retried acknowledgement lost its offset.
    #[schema(required = true)]
    offset: Option<i64>,
}

/// Tells what became of a record that was stored (DELIVERY=durable).
#[utoipa::path(
    get, path = "/receipts/{id}",
    operation_id = "receipt", tag = "receipts",
    params(
        ("id" = String, Path, description = "The receipt that the answer to the record had"),
        ReceiptWait
    ),
    responses(
        (
            status = 200, description = "What became of the record so far", body = ReceiptAnswer,
            headers(("Retry-After" = i64, description = "Seconds until to ask again; where it is pending"))
        ),
        ReceiptFailures
    )
)]
pub async fn show(
    State(state): State<AppState>,
    id: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Response {
    let found = find(&state, id.ok().as_deref(), query.as_deref()).await;
    let mut response = found.map_or_else(IntoResponse::into_response, answer);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// None of its states is [`ReceiptState::Unknown`].
async fn find(
    state: &AppState,
    id: Option<&String>,
    query: Option<&str>,
) -> Result<(ReceiptId, ReceiptState), ApiError> {
    let id = id.and_then(|id| ReceiptId::parse(id)).ok_or(ApiError::InvalidReceipt)?;
    let wait = wait_of(query)?.unwrap_or_default();
    let spool = match state.pipeline.spool() {
        Some(spool) if spool.gave(&id) => spool,
        _ if id.instance != state.instance => {
            return Err(ApiError::WrongInstance { instance: id.instance, here: state.instance.clone() });
        }
        Some(_) => return Err(ApiError::UnknownReceipt(FORGOTTEN)),
        None => return Err(ApiError::UnknownReceipt(DIRECT)),
    };
    match outcome(state, &**spool, id.sequence, wait).await? {
        ReceiptState::Unknown => Err(ApiError::UnknownReceipt(FORGOTTEN)),
        found => Ok((id, found)),
    }
}

/// What is known once it is final, the wait is over, or the service drains.
async fn outcome(
    state: &AppState,
    spool: &dyn Spool,
    sequence: Sequence,
    wait: Duration,
) -> Result<ReceiptState, ApiError> {
    let until = Instant::now() + wait;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let patience = if state.readiness.is_draining() { Duration::ZERO } else { left.min(LOOK) };
        let found = spool.receipt(sequence, patience).await?;
        if found != ReceiptState::Pending || patience.is_zero() {
            return Ok(found);
        }
    }
}

fn answer((id, found): (ReceiptId, ReceiptState)) -> Response {
    let is_pending = found == ReceiptState::Pending;
    let state = match found {
        ReceiptState::Pending | ReceiptState::Unknown => RecordState::Pending,
        ReceiptState::Written(receipt) => {
            let timestamp = timestamp_text(receipt.timestamp, &mut [0; RFC3339_LENGTH]).to_owned();
            RecordState::Written { place: receipt.into(), timestamp }
        }
        ReceiptState::Failed(Failure { error, reason, dead_letter }) => {
            RecordState::Failed { error, reason, dead_letter: dead_letter.map(Place::from) }
        }
    };
    let mut response = Json(ReceiptAnswer { receipt: id.to_string(), state }).into_response();
    if is_pending {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}

impl From<Receipt> for Place {
    fn from(receipt: Receipt) -> Self {
        let Receipt { topic, partition, offset, .. } = receipt;
        Self { topic: topic.as_str().to_owned(), partition, offset }
    }
}

impl From<DeadLetter> for Place {
    fn from(letter: DeadLetter) -> Self {
        let DeadLetter { topic, partition, offset } = letter;
        Self { topic: topic.as_str().to_owned(), partition, offset }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        http::testing::{Answer, App, request},
        produce::{DeadLetter, Error, Failure, Receipt, ReceiptId, ReceiptState, Sequence, TopicName},
    };
    use axum::body::Body;
    use http::Method;
    use serde_json::json;
    use std::{sync::atomic::Ordering::Relaxed, time::Duration};
    use tokio::time::timeout;

    const RECORD: &str = r#"{"project":"p","value":1}"#;
    /// Of the first record that a new durable app stores: it was named for a direct attempt before.
    const FIRST: &str = "/receipts/here-0000000000000001";

    /// A durable app with one stored record.
    async fn storing() -> App {
        let app = App::durable();
        let answer = app.post_with("/logs", &[("prefer", "respond-async")], RECORD).await;
        assert_eq!((answer.status, answer.header("location")), (202, Some(FIRST)));
        app
    }

    fn receipt(topic: &str, offset: Option<i64>) -> Receipt {
        let topic = TopicName::parse(topic).unwrap();
        Receipt { topic, partition: 2, offset, timestamp: 1_795_228_481_123 }
    }

    /// Gets an answer that waits while something is done about it, once the spool is asked.
    async fn get_while(app: &App, path: &str, done: impl FnOnce()) -> Answer {
        let meanwhile = async {
            while app.spool.asked.load(Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
            done();
        };
        let both = async { tokio::join!(app.get(path), meanwhile) };
        timeout(Duration::from_secs(20), both).await.unwrap().0
    }

    #[tokio::test]
    async fn a_stored_record_is_pending_and_asked_for_again() {
        let app = storing().await;
        let answer = app.get(FIRST).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.text(), r#"{"receipt":"here-0000000000000001","state":"pending"}"#);
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(app.get(&format!("{FIRST}/")).await.status, 200);
    }

    #[tokio::test]
    async fn a_written_record_has_its_place_in_kafka() {
        let app = storing().await;
        for (offset, text) in [(Some(7), "7"), (None, "null")] {
            app.spool.resolve(Sequence(1), ReceiptState::Written(receipt("orders", offset)));
            let answer = app.get(FIRST).await;
            let expected = format!(
                r#"{{"receipt":"here-0000000000000001","state":"written","topic":"orders","partition":2,"offset":{text},"timestamp":"2026-11-21T02:34:41.123Z"}}"#
            );
            assert_eq!((answer.status, answer.text()), (200, &*expected));
            assert_eq!(answer.header("retry-after"), None);
        }
    }

    #[tokio::test]
    async fn a_failed_record_has_its_reason_and_where_it_is_instead() {
        let app = storing().await;
        let failure = |dead_letter| Failure {
            error: "record_too_large".into(),
            reason: "too large".into(),
            dead_letter,
        };
        app.spool.resolve(Sequence(1), ReceiptState::Failed(failure(None)));
        let answer = app.get(FIRST).await;
        let mut expected = json!({
            "receipt": "here-0000000000000001", "state": "failed",
            "error": "record_too_large", "reason": "too large"
        });
        assert_eq!((answer.status, answer.json()), (200, expected.clone()));
        let topic = TopicName::parse("orders.dlq").unwrap();
        let dead_letter = Some(DeadLetter { topic, partition: 2, offset: Some(3) });
        app.spool.resolve(Sequence(1), ReceiptState::Failed(failure(dead_letter)));
        expected["dead_letter"] = json!({"topic": "orders.dlq", "partition": 2, "offset": 3});
        assert_eq!(app.get(FIRST).await.json(), expected);
    }

    #[tokio::test]
    async fn a_head_request_has_no_body_and_another_method_is_405() {
        let app = storing().await;
        let answer = app.send(request(Method::HEAD, FIRST, &[], Body::empty())).await;
        assert_eq!((answer.status, answer.body.len()), (200, 0));
        assert_eq!(answer.header("retry-after"), Some("1"));
        let answer = app.post(FIRST, RECORD).await;
        assert_eq!(answer.error(), (405, "method_not_allowed".into()));
        assert_eq!(answer.header("allow"), Some("GET,HEAD"));
    }

    #[tokio::test]
    async fn who_waits_is_answered_when_it_is_written() {
        let app = storing().await;
        let written = || app.spool.resolve(Sequence(1), ReceiptState::Written(receipt("orders", Some(7))));
        let answer = get_while(&app, &format!("{FIRST}?wait=1m"), written).await;
        assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("written")));
    }

    #[tokio::test]
    async fn who_waits_is_answered_when_the_service_drains() {
        let app = storing().await;
        let draining = || app.readiness.start_draining();
        let answer = get_while(&app, &format!("{FIRST}?wait=1m"), draining).await;
        assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("pending")));
        assert_eq!(answer.header("connection"), Some("close"));
    }

    #[tokio::test]
    async fn who_waits_too_short_learns_that_it_is_pending() {
        let app = storing().await;
        let answer = app.get(&format!("{FIRST}?wait=20ms")).await;
        assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("pending")));
        assert_eq!(app.spool.asked.load(Relaxed), 2, "once with patience, once at the end");
    }

    #[tokio::test]
    async fn what_is_no_receipt_is_400_and_says_what_one_is() {
        let app = storing().await;
        for path in [
            "/",
            "x",
            "here-1",
            "here-000000000000000G",
            "here-00000000000000FF",
            "a%2Fb-00000000000000ff",
            "%ff",
        ] {
            let answer = app.get(&format!("/receipts/{path}?wait=soon")).await;
            assert_eq!(answer.error(), (400, "invalid_receipt".into()), "{path}");
            assert!(answer.text().contains("a hyphen and 16"), "{}", answer.text());
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        }
        assert_eq!(app.get("/receipts/%68ere-0000000000000001").await.status, 200);
    }

    #[tokio::test]
    async fn a_wait_that_cannot_be_read_is_400() {
        let answer = storing().await.get(&format!("{FIRST}?wait=2m")).await;
        assert_eq!(answer.error(), (400, "invalid_wait".into()));
        assert_eq!(answer.json()["outcome"], "unknown");
    }

    #[tokio::test]
    async fn the_receipt_of_another_instance_is_421_with_its_name() {
        for app in [storing().await, App::new()] {
            let answer = app.get("/receipts/there-0-0000000000000001").await;
            assert_eq!(answer.error(), (421, "wrong_instance".into()));
            assert_eq!(answer.header("receipt-instance"), Some("there-0"));
            let problem = answer.json();
            assert!(problem["detail"].as_str().unwrap().contains("'there-0'"), "{problem}");
            assert_eq!((&problem["outcome"], &problem["retriable"]), (&json!("unknown"), &json!(true)));
        }
    }

    #[tokio::test]
    async fn a_receipt_that_it_gave_under_an_earlier_name_is_told() {
        let app = storing().await;
        let earlier = "there-0-0000000000000001";
        *app.spool.earlier.lock().unwrap() = vec![ReceiptId::parse(earlier).unwrap()];
        let answer = app.get(&format!("/receipts/{earlier}")).await;
        assert_eq!((answer.status, &answer.json()["receipt"]), (200, &json!(earlier)));
        assert_eq!(app.get(FIRST).await.error(), (404, "unknown_receipt".into()), "it has the earlier name");
        let other = app.get("/receipts/there-0-0000000000000002").await;
        assert_eq!(other.error(), (421, "wrong_instance".into()), "another instance may be called so now");
    }

    #[tokio::test]
    async fn what_is_not_known_is_404_and_says_nothing_of_the_record() {
        let app = storing().await;
        let answer = app.get("/receipts/here-00000000000000ff?wait=1m").await;
        assert_eq!(answer.error(), (404, "unknown_receipt".into()));
        let problem = answer.json();
        assert_eq!((&problem["outcome"], &problem["retriable"]), (&json!("unknown"), &json!(false)));
        assert!(problem["detail"].as_str().unwrap().contains("RECEIPT_TTL"), "{problem}");
    }

    #[tokio::test]
    async fn direct_delivery_keeps_no_receipts() {
        let answer = App::new().get(FIRST).await;
        assert_eq!(answer.error(), (404, "unknown_receipt".into()));
        assert!(answer.text().contains("DELIVERY=direct"), "{}", answer.text());
    }

    #[tokio::test]
    async fn a_spool_that_cannot_be_read_is_500_and_says_nothing() {
        let app = storing().await;
        *app.spool.unreadable.lock().unwrap() = Some(Error::Internal("secret".into()));
        let answer = app.get(FIRST).await;
        assert_eq!(answer.error(), (500, "internal".into()));
        assert!(!answer.text().contains("secret"));
    }
}
