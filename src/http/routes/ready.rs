//! `GET /ready`: whether this instance should get traffic.

use crate::http::AppState;
use axum::{Json, extract::State};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

const EMBEDDED_NOTICE: &str = "embedded Kafka: records live in this process's memory and nothing is kept";

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"ready": true}))]
pub struct Ready {
    ready: bool,
    /// Why not, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Configured topics that do not exist. Their routes answer 503; the others work, so it stays ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    missing_topics: Vec<String>,
    /// Said in `--embedded` mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    notice: Option<&'static str>,
}

/// Readiness: 503 while Kafka does not answer and while the service shuts down.
#[utoipa::path(
    get, path = "/ready",
    operation_id = "ready", tag = "probes",
    responses(
        (status = 200, description = "Send traffic", body = Ready),
        (status = 503, description = "Send none", body = Ready, example = json!({"ready": false, "reason": "shutting down"})),
    )
)]
pub async fn show(State(state): State<AppState>) -> (StatusCode, Json<Ready>) {
    let fault = state.readiness.fault();
    let status = if fault.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let missing = state.readiness.missing_topics();
    let ready = Ready {
        ready: fault.is_none(),
        reason: fault.as_deref().map(str::to_owned),
        missing_topics: missing.iter().map(|topic| topic.as_str().to_owned()).collect(),
        notice: state.embedded.then_some(EMBEDDED_NOTICE),
    };
    (status, Json(ready))
}

#[cfg(test)]
mod tests {
    use crate::{http::testing::App, produce::TopicName};
    use serde_json::json;

    #[tokio::test]
    async fn it_follows_the_link_to_kafka() {
        let app = App::new();
        let answer = app.get("/ready").await;
        assert_eq!((answer.status, answer.json()), (200, json!({"ready": true})));
        app.readiness.link_down("no broker answers");
        let answer = app.get("/ready").await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.json(), json!({"ready": false, "reason": "no broker answers"}));
    }

    #[tokio::test]
    async fn a_missing_topic_is_listed_and_leaves_it_ready() {
        let app = App::new();
        app.readiness.set_missing_topics(vec![TopicName::parse("rtmh.logs").unwrap()]);
        let answer = app.get("/ready").await;
        assert_eq!(
            (answer.status, answer.json()),
            (200, json!({"ready": true, "missing_topics": ["rtmh.logs"]}))
        );
    }

    #[tokio::test]
    async fn a_service_that_drains_is_not_ready() {
        let app = App::new();
        app.readiness.start_draining();
        let answer = app.get("/ready").await;
        assert_eq!((answer.status, answer.json()["reason"].as_str()), (503, Some("shutting down")));
        assert_eq!(answer.header("connection"), Some("close"));
    }

    #[tokio::test]
    async fn the_embedded_mode_says_that_nothing_is_kept() {
        let app = App::with(|parts| parts.embedded = true);
        assert!(app.get("/ready").await.json()["notice"].as_str().unwrap().contains("nothing is kept"));
    }
}
