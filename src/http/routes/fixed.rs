//! `POST /logs`, `/metrics` and `/events`: one record to the topic that the service is configured with.

use super::produce::send;
use crate::{
    envelope::Target,
    http::{
        ApiError, AppState, Sent, answer,
        extract::{ReadBody, RecordBody, RequestContext},
        openapi::{ProduceFailures, RecordEnvelope},
    },
    produce::{self, TopicName},
};
use axum::{extract::State, response::Response};

/// Writes one record to `LOG_TOPIC`.
#[utoipa::path(
    post, path = "/logs", tag = "produce",
    request_body(content = RecordEnvelope, description = "Read as JSON whatever common content type it has"),
    responses((status = 202, description = "The record is in Kafka", body = Sent), ProduceFailures)
)]
pub async fn logs(
    State(state): State<AppState>,
    context: RequestContext,
    RecordBody(body): RecordBody,
) -> Result<Response, ApiError> {
    send_to(&state.topics.logs, &state, &context, body).await
}

/// Writes one record to `METRICS_TOPIC`.
#[utoipa::path(
    post, path = "/metrics", tag = "produce",
    request_body(content = RecordEnvelope, description = "Read as JSON whatever common content type it has"),
    responses((status = 202, description = "The record is in Kafka", body = Sent), ProduceFailures)
)]
pub async fn metrics(
    State(state): State<AppState>,
    context: RequestContext,
    RecordBody(body): RecordBody,
) -> Result<Response, ApiError> {
    send_to(&state.topics.metrics, &state, &context, body).await
}

/// Writes one record to `EVENTS_TOPIC`.
#[utoipa::path(
    post, path = "/events", tag = "produce",
    request_body(content = RecordEnvelope, description = "Read as JSON whatever common content type it has"),
    responses((status = 202, description = "The record is in Kafka", body = Sent), ProduceFailures)
)]
pub async fn events(
    State(state): State<AppState>,
    context: RequestContext,
    RecordBody(body): RecordBody,
) -> Result<Response, ApiError> {
    send_to(&state.topics.events, &state, &context, body).await
}

/// The client did not choose the topic, so a missing one is the operator's fault: 503 and not 404.
async fn send_to(
    topic: &TopicName,
    state: &AppState,
    context: &RequestContext,
    body: ReadBody,
) -> Result<Response, ApiError> {
    match send(state, context, body, Target::Fixed(topic)).await {
        Ok(receipt) => Ok(answer::one(&receipt)),
        Err(ApiError::Produce(produce::Error::UnknownTopic(missing))) => {
            state.log_missing_topic(&missing);
            Err(produce::Error::TopicMissing(missing).into())
        }
        Err(error) => Err(error),
    }
}
