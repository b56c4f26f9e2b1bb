//! Everything that a request can fail with, and the only place that knows which status it gets.

use super::{
    extract::{FAIR_BYTES_PER_SECOND, MAX_WAIT},
    problem::{self, Fault, Problem},
    server::MAX_HEAD_BYTES,
};
use crate::{
    envelope,
    produce::{self, InstanceId, Outcome, TopicName, duration_text},
};
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use tracing::Level;

/// Seconds until a retry makes sense, for 429 and 503, and for a receipt that is pending.
pub const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Who to ask for a receipt instead.
const RECEIPT_INSTANCE: HeaderName = HeaderName::from_static("receipt-instance");

/// Why a request is answered with a problem.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error(transparent)]
    Produce(#[from] produce::Error),
    #[error(transparent)]
    Envelope(#[from] envelope::Error),
    /// Of the elements of a batch; at least one is faulty.
    #[error("{}", batch_detail(.0))]
    Batch(envelope::Faults),
    #[error("a batch holds at most {limit} records; send smaller batches")]
    TooManyRecords { limit: usize },
    #[error("the head of the request is not HTTP/1.1; correct its first line and its headers")]
    MalformedHead,
    #[error(
        "a request has one Host header: the name or the address of this service, with its port; send that"
    )]
    InvalidHost,
    #[error(
        "the body has a transfer coding other than chunked; send it in none, and a packed one with Content-Encoding"
    )]
    TransferEncoding,
    #[error("the head of the request is too large; send at most {MAX_HEAD_BYTES} bytes and 100 headers")]
    HeadTooLarge,
    /// The text says in what way.
    #[error(
        "the Prefer header {0}; send respond-async, wait=SECONDS or other preferences, separated by commas (RFC 7240)"
    )]
    InvalidPrefer(&'static str),
    #[error(
        "the query's `wait` must be given once, as a whole number with the unit ms, s or m, at most {}: wait=10s for example",
        duration_text(MAX_WAIT)
    )]
    InvalidWait,
    #[error(
        "this is no receipt: one is the name of an instance, a hyphen and 16 of the characters 0-9 and a-f, as the \
         answer to the record had it"
    )]
    InvalidReceipt,
    #[error("the receipt is of instance '{instance}', and this is instance '{here}'; ask that one")]
    WrongInstance { instance: InstanceId, here: InstanceId },
    /// The text says why.
    #[error("nothing is known of this receipt: {0}")]
    UnknownReceipt(&'static str),
    #[error("nothing is served at this path; GET / lists the endpoints")]
    NotFound,
    #[error("this path does not take this method; the Allow header lists those that it takes")]
    MethodNotAllowed,
    #[error("web pages of another origin may not write here; {0}")]
    ForeignOrigin(&'static str),
    #[error("the body took too long to arrive; send it within {limit_s} s and at 1 KiB/s or more")]
    RequestTimeout { limit_s: u64 },
    #[error(
        "the body came too slowly while others need the room; send it at {} KiB/s or more and without pauses",
        FAIR_BYTES_PER_SECOND >> 10
    )]
    GaveWay,
    #[error("the body is larger than {limit} bytes, the limit; send smaller batches")]
    BodyTooLarge { limit: usize },
    #[error("{0}")]
    UnsupportedMediaType(&'static str),
    #[error("the body could not be read: {0}")]
    UnreadableBody(String),
    #[error("all connections are in use; send again later, or have clients keep fewer (MAX_CONNECTIONS)")]
    TooManyConnections,
    #[error("too many large bodies are being read; send again later, or smaller batches")]
    TooManyLargeBodies,
    #[error(
        "answers that clients do not read leave no room for this one; send again later, or smaller batches"
    )]
    TooManyAnswers,
    /// A bug. The text is for the log alone.
    #[error("internal error: {0}")]
    Internal(String),
}

/// One failed request, for the log; the middleware finds it among the answer's extensions.
#[derive(Debug, Clone)]
pub struct Failure {
    pub level: Level,
    pub error: &'static str,
    pub topic: Option<TopicName>,
    pub detail: String,
}

/// Whose fault it is, which decides all else that an answer says.
enum Blame<'a> {
    /// Kafka's, or of a record that only Kafka could judge.
    Produce(&'a produce::Error),
    /// The request's: refused before anything was written.
    Request { tag: &'static str, status: StatusCode },
    /// A bug.
    Service,
}

impl ApiError {
    fn blame(&self) -> Blame<'_> {
        let request = |tag, status| Blame::Request { tag, status };
        match self {
            Self::Produce(error) => Blame::Produce(error),
            Self::Internal(_) => Blame::Service,
            Self::Envelope(error) => request(error.kind.tag(), StatusCode::BAD_REQUEST),
            Self::Batch(faults) => {
                let tag = faults.named.first().map_or("invalid_body", |(_, fault)| fault.kind.tag());
                request(tag, StatusCode::BAD_REQUEST)
            }
            Self::UnreadableBody(_) => request("invalid_body", StatusCode::BAD_REQUEST),
            Self::InvalidPrefer(_) => request("invalid_prefer", StatusCode::BAD_REQUEST),
            Self::InvalidWait => request("invalid_wait", StatusCode::BAD_REQUEST),
            Self::InvalidReceipt => request("invalid_receipt", StatusCode::BAD_REQUEST),
            Self::WrongInstance { .. } => request("wrong_instance", StatusCode::MISDIRECTED_REQUEST),
            Self::UnknownReceipt(_) => request("unknown_receipt", StatusCode::NOT_FOUND),
            Self::MalformedHead | Self::InvalidHost => request("bad_request", StatusCode::BAD_REQUEST),
            Self::TransferEncoding => request("not_implemented", StatusCode::NOT_IMPLEMENTED),
            Self::HeadTooLarge => request("head_too_large", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Self::ForeignOrigin(_) => request("foreign_origin", StatusCode::FORBIDDEN),
            Self::TooManyConnections | Self::TooManyLargeBodies | Self::TooManyAnswers => {
                request("overloaded", StatusCode::SERVICE_UNAVAILABLE)
            }
            Self::NotFound => request("not_found", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => request("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED),
            Self::RequestTimeout { .. } | Self::GaveWay => {
                request("request_timeout", StatusCode::REQUEST_TIMEOUT)
            }
            Self::TooManyRecords { .. } | Self::BodyTooLarge { .. } => {
                request("body_too_large", StatusCode::PAYLOAD_TOO_LARGE)
            }
            Self::UnsupportedMediaType(_) => {
                request("unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE)
            }
        }
    }

    /// The stable name of the error.
    pub fn tag(&self) -> &'static str {
        match self.blame() {
            Blame::Produce(error) => error.tag(),
            Blame::Request { tag, .. } => tag,
            Blame::Service => "internal",
        }
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self.blame() {
            Blame::Produce(error) => produce_status(error),
            Blame::Request { status, .. } => status,
            Blame::Service => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The body of the answer.
    pub fn problem(&self) -> Problem {
        let error = self.tag();
        Problem {
            type_: problem::type_of(error),
            title: problem::title_of(error),
            status: self.status().as_u16(),
            detail: self.detail(),
            error,
            outcome: self.outcome().as_str(),
            retriable: self.is_retriable(),
            errors: self.faults(),
            errors_total: if let Self::Batch(faults) = self { Some(faults.total) } else { None },
        }
    }

    fn outcome(&self) -> Outcome {
        match self.blame() {
            Blame::Produce(error) => error.outcome(),
            // the record was accepted: what was asked in vain is only what became of it
            Blame::Request { .. } if self.is_about_receipt() => Outcome::Unknown,
            Blame::Request { .. } => Outcome::NotWritten,
            // nobody knows how far a request came that met a bug
            Blame::Service => Outcome::Unknown,
        }
    }

    fn is_about_receipt(&self) -> bool {
        matches!(
            self,
            Self::InvalidWait | Self::InvalidReceipt | Self::WrongInstance { .. } | Self::UnknownReceipt(_)
        )
    }

    fn is_retriable(&self) -> bool {
        match self.blame() {
            Blame::Produce(error) => error.is_retriable(),
            // the same bytes may come faster, or to another instance
            Blame::Request { status, .. } => {
                matches!(
                    status,
                    StatusCode::REQUEST_TIMEOUT
                        | StatusCode::MISDIRECTED_REQUEST
                        | StatusCode::SERVICE_UNAVAILABLE
                )
            }
            Blame::Service => true,
        }
    }

    /// What the client may read.
    fn detail(&self) -> String {
        match self.blame() {
            Blame::Produce(error) => public_detail(error),
            Blame::Request { .. } => self.to_string(),
            Blame::Service => INTERNAL_DETAIL.into(),
        }
    }

    /// How loud the log is about it.
    fn level(&self) -> Level {
        match self.blame() {
            Blame::Produce(error) => level_of(error),
            // of no consequence here
            Blame::Request { .. } => Level::DEBUG,
            Blame::Service => Level::ERROR,
        }
    }

    fn faults(&self) -> Vec<Fault> {
        let Self::Batch(faults) = self else { return Vec::new() };
        faults
            .named
            .iter()
            .map(|(index, fault)| Fault {
                index: *index,
                error: fault.kind.tag(),
                detail: fault.detail.clone(),
            })
            .collect()
    }

    fn topic(&self) -> Option<&TopicName> {
        if let Self::Produce(error) = self { topic_of(error) } else { None }
    }
}

impl From<envelope::BatchError> for ApiError {
    fn from(error: envelope::BatchError) -> Self {
        match error {
            envelope::BatchError::Body(error) => Self::Envelope(error),
            envelope::BatchError::Elements(faults) => Self::Batch(faults),
            envelope::BatchError::TooManyRecords { limit } => Self::TooManyRecords { limit },
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static(problem::CONTENT_TYPE))];
        let mut response = (self.status(), content_type, self.problem().to_json()).into_response();
        set_retry_after(&mut response);
        if let Self::WrongInstance { instance, .. } = &self
            && let Ok(name) = HeaderValue::from_str(instance.as_str())
        {
            response.headers_mut().insert(RECEIPT_INSTANCE, name);
        }
        response.extensions_mut().insert(Failure {
            level: self.level(),
            error: self.tag(),
            topic: self.topic().cloned(),
            detail: self.to_string(),
        });
        response
    }
}

/// All that a client is told of a bug.
pub const INTERNAL_DETAIL: &str = "a fault in this service; the record may have been written. The operator finds the x-request-id in its log";

/// The text of a produce error that the client may read.
pub fn public_detail(error: &produce::Error) -> String {
    if let produce::Error::Internal(_) = error { INTERNAL_DETAIL.into() } else { error.to_string() }
}

/// The status of a produce error, the only such map.
pub fn produce_status(error: &produce::Error) -> StatusCode {
    use produce::Error as E;
    match error {
        E::InvalidPartition { .. }
        | E::PartitionGone { .. }
        | E::KeyRequired(_)
        | E::TimestampOutOfRange { .. }
        | E::ReservedHeader(_)
        | E::Rejected { .. } => StatusCode::BAD_REQUEST,
        E::Unauthorized(_) => StatusCode::FORBIDDEN,
        E::UnknownTopic(_) => StatusCode::NOT_FOUND,
        E::RecordTooLarge { .. } | E::BatchRefusedAsTooLarge | E::BatchTooLarge { .. } => {
            StatusCode::PAYLOAD_TOO_LARGE
        }
        E::TopicMissing(_)
        | E::NotReady { .. }
        | E::Overloaded { .. }
        | E::PartitionBusy { .. }
        | E::SpoolFull { .. }
        | E::TooManyLookUps(_)
        | E::NeighbourRejected
        | E::BrokerUnavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        E::DeliveryTimeout { .. } | E::AcknowledgementLost { .. } => StatusCode::GATEWAY_TIMEOUT,
        E::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The topic that the error is about, where it names one.
pub fn topic_of(error: &produce::Error) -> Option<&TopicName> {
    use produce::Error as E;
    match error {
        E::UnknownTopic(topic)
        | E::TopicMissing(topic)
        | E::KeyRequired(topic)
        | E::Unauthorized(topic)
        | E::TooManyLookUps(topic)
        | E::InvalidPartition { topic, .. }
        | E::PartitionGone { topic, .. }
        | E::PartitionBusy { topic, .. }
        | E::TimestampOutOfRange { topic, .. }
        | E::RecordTooLarge { topic, .. } => Some(topic),
        E::Rejected { .. }
        | E::BatchRefusedAsTooLarge
        | E::NeighbourRejected
        | E::ReservedHeader(_)
        | E::BatchTooLarge { .. }
        | E::NotReady { .. }
        | E::Overloaded { .. }
        | E::SpoolFull { .. }
        | E::BrokerUnavailable { .. }
        | E::DeliveryTimeout { .. }
        | E::AcknowledgementLost { .. }
        | E::Internal(_) => None,
    }
}

/// How loud the log is about a produce error: a client's fault is of no consequence here, an outage is somebody's,
/// a bug needs a person.
pub fn level_of(error: &produce::Error) -> Level {
    use produce::Error as E;
    match error {
        E::Internal(_) => Level::ERROR,
        E::NeighbourRejected
        | E::BrokerUnavailable { .. }
        | E::DeliveryTimeout { .. }
        | E::AcknowledgementLost { .. } => Level::WARN,
        // these would come with every request for as long as the state lasts: the link's own lines, the line once
        // a minute about a topic and the metrics tell of it
        E::NotReady { .. }
        | E::Overloaded { .. }
        | E::PartitionBusy { .. }
        | E::SpoolFull { .. }
        | E::TooManyLookUps(_)
        | E::TopicMissing(_)
        | E::Unauthorized(_) => Level::DEBUG,
        E::UnknownTopic(_)
        | E::InvalidPartition { .. }
        | E::PartitionGone { .. }
        | E::KeyRequired(_)
        | E::TimestampOutOfRange { .. }
        | E::RecordTooLarge { .. }
        | E::BatchRefusedAsTooLarge
        | E::Rejected { .. }
        | E::ReservedHeader(_)
        | E::BatchTooLarge { .. } => Level::DEBUG,
    }
}

/// Adds `Retry-After` where the status calls for it.
pub fn set_retry_after(response: &mut Response) {
    if matches!(response.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    }
}

fn batch_detail(faults: &envelope::Faults) -> String {
    match &*faults.named {
        [] => "the batch is invalid".into(),
        [(index, fault), ..] => format!(
            "{} of the batch's records cannot be taken, so none was written; record {index}: {fault}",
            faults.total
        ),
    }
}
