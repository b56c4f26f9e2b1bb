//! `GET /`: what this is and where things are, for programs.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
pub struct Index {
    #[schema(example = "kafka-inlet is running")]
    message: &'static str,
    #[schema(example = "0.1.0")]
    version: &'static str,
    endpoints: Endpoints,
}

/// The path of each endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct Endpoints {
    #[schema(example = "/health")]
    health: &'static str,
    #[schema(example = "/health/kafka")]
    kafka_health: &'static str,
    #[schema(example = "/ready")]
    ready: &'static str,
    #[schema(example = "/logs")]
    logs: &'static str,
    /// GET is Prometheus' text, POST produces.
    #[schema(example = "/metrics")]
    metrics: &'static str,
    #[schema(example = "/events")]
    events: &'static str,
    #[schema(example = "/produce")]
    produce: &'static str,
    #[schema(example = "/produce/batch")]
    produce_batch: &'static str,
    /// What became of a stored record.
    #[schema(example = "/receipts/{id}")]
    receipts: &'static str,
    #[schema(example = "/docs")]
    docs: &'static str,
    #[schema(example = "/openapi.json")]
    openapi: &'static str,
}

const INDEX: Index = Index {
    message: "kafka-inlet is running",
    version: env!("CARGO_PKG_VERSION"),
    endpoints: Endpoints {
        health: "/health",
        kafka_health: "/health/kafka",
        ready: "/ready",
        logs: "/logs",
        metrics: "/metrics",
        events: "/events",
        produce: "/produce",
        produce_batch: "/produce/batch",
        receipts: "/receipts/{id}",
        docs: "/docs",
        openapi: "/openapi.json",
    },
};

/// What this service is and where its endpoints are.
#[utoipa::path(get, path = "/",
    operation_id = "index", tag = "service", responses((status = 200, description = "The endpoints", body = Index)))]
pub async fn show() -> Json<Index> {
    Json(INDEX)
}
