//! The OpenAPI description, generated from the handlers' and the types' own definitions.
//!
//! The bodies of requests are read without types ([`crate::envelope`]), so the types here only describe them.

use super::{
    Problem,
    routes::{batch, docs, fixed, health, index, metrics, produce, ready},
};
use std::collections::BTreeMap;
use utoipa::{IntoResponses, OpenApi, ToSchema};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "kafka-inlet",
        description = "HTTP in, Kafka out. A 2xx means that the record is in Kafka, acknowledged by all in-sync \
                       replicas. Every other answer says whether the record was not written, and whether sending \
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
        produce::one,
        batch::many,
    ),
    tags(
        (name = "produce", description = "Write records"),
        (name = "probes", description = "Liveness and readiness"),
        (name = "service", description = "About the service itself"),
    )
)]
struct Document;

/// The description of everything that is served.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
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
    /// not_ready, overloaded, broker_unavailable, topic_missing: not written, see `Retry-After`
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
}
