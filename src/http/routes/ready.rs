//! `GET /ready`: whether this instance should get traffic.

use crate::{http::AppState, lifecycle::readiness::State as Readiness};
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
    /// What to know about where records go: in `--embedded` mode, and while they are stored on disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<String>,
}

/// Readiness: 503 while records can go nowhere, neither to Kafka nor to the spool, and while the service shuts down.
#[utoipa::path(
    get, path = "/ready",
    operation_id = "ready", tag = "probes",
    responses(
        (status = 200, description = "Send traffic", body = Ready),
        (status = 503, description = "Send none", body = Ready, example = json!({"ready": false, "reason": "shutting down"})),
    )
)]
pub async fn show(State(state): State<AppState>) -> (StatusCode, Json<Ready>) {
    let (status, reason, storing) = match state.readiness.state() {
        Readiness::Ready => (StatusCode::OK, None, None),
        Readiness::Storing(reason) => (StatusCode::OK, None, Some(storing_notice(&reason))),
        Readiness::Unready(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, Some(reason.as_ref().to_owned()), None)
        }
    };
    let missing = state.readiness.missing_topics();
    let embedded = state.embedded.then(|| EMBEDDED_NOTICE.to_owned());
    let ready = Ready {
        ready: reason.is_none(),
        reason,
        missing_topics: missing.iter().map(|topic| topic.as_str().to_owned()).collect(),
        // the embedded Kafka is the less pressing news
        notice: storing.or(embedded),
    };
    (status, Json(ready))
}

fn storing_notice(reason: &str) -> String {
    format!("Kafka does not answer ({reason}); records are stored on disk until it does")
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
    async fn with_room_in_the_spool_it_is_ready_without_kafka_and_says_so() {
        let app = App::new();
        app.readiness.set_spool_room(true);
        assert_eq!(app.get("/ready").await.json(), json!({"ready": true}));
        app.readiness.link_down("no broker answers");
        let answer = app.get("/ready").await;
        let notice = "Kafka does not answer (no broker answers); records are stored on disk until it does";
        assert_eq!((answer.status, answer.json()), (200, json!({"ready": true, "notice": notice})));
        assert_eq!(app.get("/health/kafka").await.status, 503, "it tells of the connection alone");
        assert_eq!(app.get("/health").await.json()["kafka_connected"], false);
    }

    #[tokio::test]
    async fn with_a_full_spool_it_is_not_ready_without_kafka() {
        let app = App::new();
        app.readiness.set_spool_room(false);
        assert_eq!(app.get("/ready").await.status, 200);
        app.readiness.link_down("no broker answers");
        let answer = app.get("/ready").await;
        let reason = "no broker answers; the spool is full and stores no more records";
        assert_eq!((answer.status, answer.json()), (503, json!({"ready": false, "reason": reason})));
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
