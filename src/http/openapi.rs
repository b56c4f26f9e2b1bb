//! The OpenAPI description, generated from the handlers' and the types' own definitions.
//!
//! The bodies of requests are read without types ([`crate::envelope`]), so the types here only describe them.

use super::{
    ApiError, Problem,
    answer::{BatchAnswer, RecordAnswer},
    problem,
    routes::{batch, docs, fixed, health, index, metrics, produce as produce_route, ready, receipts},
};
use crate::produce::{self, InstanceId, TopicName};
use std::collections::BTreeMap;
use utoipa::{IntoParams, IntoResponses, OpenApi, ToSchema, openapi::RefOr};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "kafka-inlet",
        description = "HTTP in, Kafka out. A 2xx means that the record is in Kafka, acknowledged by all in-sync \
                       replicas, or, with DELIVERY=durable, stored on this service's disk until it is. Every other answer says whether the record was not written, and whether sending \
                       it again can help, or whether that is unknown.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        index::show,
        health::service,
        health::kafka,
        ready::show,
        metrics::show,
        docs::openapi,
        docs::page,
        fixed::logs,
        fixed::metrics,
        fixed::events,
        produce_route::one,
        batch::many,
        receipts::show,
    ),
    // those that only a type of `IntoResponses` names
    components(schemas(RecordAnswer, BatchAnswer, Problem)),
    tags(
        (name = "produce", description = "Write records"),
        (name = "receipts", description = "What became of stored records"),
        (name = "probes", description = "Liveness and readiness"),
        (name = "service", description = "About the service itself"),
    )
)]
struct Document;

/// The description of everything that is served.
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
            let is_receipt = operation.operation_id.as_deref() == Some("receipt");
            for (status, response) in &mut operation.responses.responses {
                let RefOr::T(response) = response else { continue };
                let Some(RefOr::T(content)) = response.content.get_mut(problem::CONTENT_TYPE) else {
                    continue;
                };
                let example = example(status, is_receipt).map(|error| error.problem());
                content.example = example.and_then(|problem| serde_json::to_value(problem).ok());
            }
        }
    }
    document
}

/// An error that has this status, as one meets it.
fn example(status: &str, is_receipt: bool) -> Option<ApiError> {
    let orders = || TopicName::parse("orders").ok();
    Some(match (status, is_receipt) {
        ("400", false) => {
            produce::Error::InvalidPartition { topic: orders()?, partition: 12, count: 3 }.into()
        }
        ("400", true) => ApiError::InvalidReceipt,
        ("403", _) => produce::Error::Unauthorized(orders()?).into(),
        ("404", false) => produce::Error::UnknownTopic(orders()?).into(),
        ("404", true) => ApiError::UnknownReceipt(receipts::FORGOTTEN),
        ("408", _) => ApiError::RequestTimeout { limit_s: 30 },
        ("413", _) => ApiError::BodyTooLarge { limit: 8_388_608 },
        ("415", _) => ApiError::UnsupportedMediaType("send application/json"),
        ("421", _) => {
            let named = |name| InstanceId::parse(name).ok();
            ApiError::WrongInstance { instance: named("inlet-1")?, here: named("inlet-0")? }
        }
        ("431", _) => ApiError::HeadTooLarge,
        ("500", _) => ApiError::Internal(String::new()),
        ("503", _) => produce::Error::Overloaded { used: 33_553_000, limit: 33_554_432 }.into(),
        ("504", _) => produce::Error::DeliveryTimeout { timeout_ms: 10_000 }.into(),
        _ => return None,
    })
}

/// A record and where it goes.
#[derive(ToSchema)]
#[schema(example = json!({"topic": "orders", "project": "shop", "key": "customer-7", "value": {"total": 12}}))]
#[expect(dead_code, reason = "describes a body")]
pub struct NamedRecord {
    /// An existing topic that is not internal.
    #[schema(pattern = "^[a-zA-Z0-9._-]{1,249}$")]
    topic: String,
    /// Absent, null or -1: the partitioner chooses.
    #[schema(minimum = -1)]
    partition: Option<i32>,
    #[serde(flatten)]
    record: RecordEnvelope,
}

/// A record in one of its forms, told apart by their members.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(example = json!({"project": "shop", "value": {"level": "info", "text": "hello"}}))]
pub enum RecordEnvelope {
    Value(ValueForm),
    Message(MessageForm),
    Tombstone(TombstoneForm),
}

/// Any JSON value. An object gets `project` as a member, anything else becomes `{"value": ..., "project": ...}`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes a body")]
pub struct ValueForm {
    value: serde_json::Value,
    /// Not blank.
    #[schema(pattern = r"\S")]
    project: String,
    #[serde(flatten)]
    options: RecordOptions,
}

/// A JSON object, enriched with `timestamp`, `source` and `server_time` where the sender has not set them.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes a body")]
pub struct MessageForm {
    #[schema(value_type = Object)]
    message: serde_json::Value,
    project: Option<String>,
    #[serde(flatten)]
    options: RecordOptions,
}

/// Kafka's null value, which deletes the key from a compacted topic. Needs a key.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes a body")]
pub struct TombstoneForm {
    /// `true`.
    tombstone: bool,
    key: String,
    #[serde(flatten)]
    options: RecordOptions,
}

/// What every form may have.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes a body")]
pub struct RecordOptions {
    /// Absent, null or "": no key.
    key: Option<String>,
    headers: Option<BTreeMap<String, HeaderText>>,
    timestamp: Option<RecordTimestamp>,
}

/// The value of a record header.
#[derive(ToSchema)]
#[serde(untagged)]
pub enum HeaderText {
    Text(String),
    Binary {
        /// RFC 4648.
        base64: String,
    },
    /// A header without a value.
    Null,
}

/// The record's timestamp; absent: now.
#[derive(ToSchema)]
#[serde(untagged)]
pub enum RecordTimestamp {
    /// Since the Unix epoch.
    Milliseconds(i64),
    /// UTC where no zone is given.
    Rfc3339(String),
}

/// What the client would like of the answer.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header")]
pub struct Preferences {
    /// `respond-async`: store the record and answer; `wait=SECONDS`: store it if Kafka has not taken it by then (RFC
    /// 7240). Without DELIVERY=durable both are ignored.
    #[param(rename = "Prefer", required = false, example = "respond-async, wait=2")]
    prefer: String,
}

/// How one record can be accepted.
#[derive(IntoResponses)]
pub enum RecordAccepted {
    /// The record is in Kafka; or, with DELIVERY=durable, stored
    #[response(
        status = 202,
        headers(
            ("Location" = String, description = "Where to ask for the outcome of a stored record"),
            ("Preference-Applied" = String, description = "`respond-async`, where the record was stored for that"),
        )
    )]
    Accepted(RecordAnswer),
}

/// How a batch can be accepted.
#[derive(IntoResponses)]
pub enum BatchAccepted {
    /// All records are in Kafka; or, with DELIVERY=durable, stored
    #[response(
        status = 202,
        headers(
            ("Preference-Applied" = String, description = "`respond-async`, where a record was stored for that"),
        )
    )]
    All(BatchAnswer),
    /// Some records are in Kafka or stored; where none is, the status is that of the failures
    #[response(
        status = 207,
        headers(
            ("Preference-Applied" = String, description = "`respond-async`, where a record was stored for that"),
        )
    )]
    Some(BatchAnswer),
}

/// How long to wait for the outcome.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes a query")]
pub struct ReceiptWait {
    /// With unit, at most a minute: the answer is held back until the record is written or failed. Absent: not at all.
    #[param(required = false, example = "10s")]
    wait: String,
}

/// Why a receipt may not be told; says nothing of the record.
#[derive(IntoResponses)]
pub enum ReceiptFailures {
    /// invalid_receipt, invalid_wait
    #[response(status = 400, content_type = "application/problem+json")]
    BadRequest(Problem),
    /// unknown_receipt: the record was never stored, or what became of it was forgotten
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
    /// wrong_instance: the receipt is of another instance
    #[response(
        status = 421,
        content_type = "application/problem+json",
        headers(("receipt-instance" = String, description = "That instance's name"))
    )]
    Misdirected(Problem),
    /// internal, a bug or a disk that cannot be read
    #[response(status = 500, content_type = "application/problem+json")]
    Internal(Problem),
}

/// How producing can fail. `error` names the fault, `outcome` says whether the record may be in Kafka.
#[derive(IntoResponses)]
pub enum ProduceFailures {
    /// bad_request, invalid_prefer, invalid_json, invalid_body, missing_value, missing_project, missing_topic,
    /// invalid_topic, invalid_partition, invalid_key, invalid_header, invalid_timestamp, record_rejected: not written
    #[response(status = 400, content_type = "application/problem+json")]
    BadRequest(Problem),
    /// kafka_unauthorized, foreign_origin: not written
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// unknown_topic: not written
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
    /// request_timeout, the body came too slowly: not written
    #[response(status = 408, content_type = "application/problem+json")]
    RequestTimeout(Problem),
    /// body_too_large, record_too_large: not written
    #[response(status = 413, content_type = "application/problem+json")]
    ContentTooLarge(Problem),
    /// unsupported_media_type: not written
    #[response(status = 415, content_type = "application/problem+json")]
    UnsupportedMediaType(Problem),
    /// head_too_large: not written
    #[response(status = 431, content_type = "application/problem+json")]
    HeadTooLarge(Problem),
    /// internal, a bug: unknown
    #[response(status = 500, content_type = "application/problem+json")]
    Internal(Problem),
    /// not_ready, overloaded, broker_unavailable, topic_missing, spool_full: not written, see `Retry-After`
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
    /// delivery_timeout: unknown, a resend may duplicate the record
    #[response(status = 504, content_type = "application/problem+json")]
    GatewayTimeout(Problem),
}

#[cfg(test)]
mod tests {
    /// A change of this snapshot is a change of the contract.
    #[test]
    fn the_contract_is_the_reviewed_one() {
        insta::assert_json_snapshot!(super::document());
    }

    #[test]
    fn every_schema_that_is_named_is_described() {
        let document = serde_json::to_value(super::document()).unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let text = document.to_string();
        for (at, prefix) in text.match_indices("\"#/components/schemas/") {
            let name = text[at + prefix.len()..].split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
    }
}
