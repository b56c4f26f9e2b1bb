//! `POST /logs`, `/metrics` and `/events`: one record to the topic that the service is configured with.

use super::produce::send;
use crate::{
    http::{
        ApiError, AppState, answer,
        extract::{ReadBody, RecordBody, RequestContext},
        openapi::{Preferences, ProduceFailures, RecordAccepted, RecordEnvelope},
    },
    produce::{self, TopicName},
};
use axum::{extract::State, response::Response};

/// Writes one record to `LOG_TOPIC`.
#[utoipa::path(
    post, path = "/logs",
    operation_id = "produce_log", tag = "produce",
    request_body(content = RecordEnvelope, description = "Read as JSON whatever common content type it has"),
    params(Preferences),
    responses(RecordAccepted, ProduceFailures)
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
    post, path = "/metrics",
    operation_id = "produce_metric", tag = "produce",
    request_body(content = RecordEnvelope, description = "Read as JSON whatever common content type it has"),
    params(Preferences),
    responses(RecordAccepted, ProduceFailures)
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
    post, path = "/events",
    operation_id = "produce_event", tag = "produce",
    request_body(content = RecordEnvelope, description = "Read as JSON whatever common content type it has"),
    params(Preferences),
    responses(RecordAccepted, ProduceFailures)
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
    let prefer = body.prefer;
    match send(state, context, body, Some(topic)).await {
        Ok(accepted) => Ok(prefer.say_applied(answer::one(&accepted), [&accepted])),
        Err(ApiError::Produce(produce::Error::UnknownTopic(missing))) => {
            let error = produce::Error::TopicMissing(missing);
            state.log_topic_fault(&error);
            Err(error.into())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        http::testing::App,
        produce::{TopicName, TraceId},
    };

    const RECORD: &str = r#"{"project":"p","value":{"a":1},"topic":"ignored","partition":99}"#;

    #[tokio::test]
    async fn each_route_writes_to_its_own_topic() {
        let app = App::new();
        for (route, topic) in
            [("/logs", "rtmh.logs"), ("/metrics/", "rtmh.metrics"), ("/events", "rtmh.events")]
        {
            let answer = app.post(route, RECORD).await;
            assert_eq!((answer.status, answer.json()["topic"].as_str()), (202, Some(topic)));
        }
    }

    #[tokio::test]
    async fn a_missing_configured_topic_is_the_operators_fault() {
        let app = App::with(|parts| parts.topics.logs = TopicName::parse("none").unwrap());
        let answer = app.post("/logs", RECORD).await;
        assert_eq!(answer.error(), (503, "topic_missing".into()));
        assert!(answer.text().contains("KAFKA_CREATE_TOPICS"), "{}", answer.text());
        assert_eq!(app.post("/events", RECORD).await.status, 202);
    }

    #[tokio::test]
    async fn records_carry_the_trace_of_the_request() {
        let app = App::new();
        let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        app.post_with("/logs", &[("traceparent", traceparent)], RECORD).await;
        let sent = app.producer.sent();
        assert_eq!(sent[0].0.automatic.trace_id, TraceId::parse("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert_eq!(sent[0].0.automatic.traceparent.as_deref(), Some(traceparent));
    }
}
