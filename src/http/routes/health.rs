//! `GET /health` and `GET /health/kafka`: whether the process serves, and whether Kafka answers it.

use crate::http::AppState;
use axum::{Json, extract::State};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// Always `healthy`.
    #[schema(example = "healthy")]
    status: &'static str,
    #[schema(format = DateTime, example = "2026-11-20T12:34:41.123Z")]
    timestamp: String,
    kafka_connected: bool,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaHealth {
    /// `connected` or `disconnected`.
    #[schema(example = "connected")]
    status: &'static str,
    #[schema(example = "kafka-inlet")]
    client_id: String,
    /// The bootstrap addresses, as they are configured.
    #[schema(example = json!(["localhost:9092"]))]
    brokers: Vec<String>,
}

/// Liveness: 200 while the process serves, whatever Kafka does.
#[utoipa::path(get, path = "/health",
    operation_id = "health", tag = "probes", responses((status = 200, description = "The process serves", body = Health)))]
pub async fn service(State(state): State<AppState>) -> Json<Health> {
    Json(Health {
        status: "healthy",
        timestamp: format!("{:.3}", jiff::Timestamp::now()),
        kafka_connected: state.readiness.is_connected(),
    })
}

/// Whether Kafka answers.
#[utoipa::path(
    get, path = "/health/kafka",
    operation_id = "kafka_health", tag = "probes",
    responses(
        (status = 200, description = "Kafka answers", body = KafkaHealth),
        (status = 503, description = "Kafka does not answer", body = KafkaHealth),
    )
)]
pub async fn kafka(State(state): State<AppState>) -> (StatusCode, Json<KafkaHealth>) {
    let (code, status) = match state.readiness.is_connected() {
        true => (StatusCode::OK, "connected"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "disconnected"),
    };
    (code, Json(KafkaHealth { status, client_id: state.client_id.clone(), brokers: state.brokers.clone() }))
}

#[cfg(test)]
mod tests {
    use crate::http::testing::App;
    use serde_json::json;

    #[tokio::test]
    async fn health_is_200_whether_or_not_kafka_answers() {
        let app = App::new();
        for connected in [true, false] {
            let answer = app.get("/health").await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.json()["status"], "healthy");
            assert_eq!(answer.json()["kafka_connected"], connected);
            app.readiness.link_down("no broker answers");
        }
    }

    #[tokio::test]
    async fn the_health_of_kafka_is_503_while_it_does_not_answer() {
        let app = App::new();
        let answer = app.get("/health/kafka").await;
        assert_eq!(answer.status, 200);
        let connected =
            json!({"status": "connected", "clientId": "inlet-test", "brokers": ["localhost:9092"]});
        assert_eq!(answer.json(), connected);
        app.readiness.link_down("no broker answers");
        let answer = app.get("/health/kafka").await;
        assert_eq!((answer.status, answer.json()["status"].as_str()), (503, Some("disconnected")));
    }
}
