//! The least that an axum service does with JSON: parse it, look for the two members, answer. No Kafka.
//!
//! `bare --port PORT`

use axum::{
    Router,
    body::Bytes,
    extract::DefaultBodyLimit,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use kafka_inlet_bench::{Arguments, Outcome};
use serde_json::Value;

#[tokio::main]
async fn main() -> Outcome {
    let port: u16 = Arguments::read()?.required("port")?;
    let routes = Router::new()
        .route("/health", get(|| async { "ok" }))
        .route("/logs", post(one))
        .route("/produce", post(one))
        .route("/produce/batch", post(many))
        .layer(DefaultBodyLimit::max(64 << 20));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(listener, routes).await?;
    Ok(())
}

async fn one(body: Bytes) -> Response {
    match serde_json::from_slice::<Value>(&body) {
        Ok(record) if record["project"].is_string() && record.get("value").is_some() => {
            answer(StatusCode::ACCEPTED, r#"{"ok":true}"#.into())
        }
        _ => answer(StatusCode::BAD_REQUEST, r#"{"ok":false}"#.into()),
    }
}

async fn many(body: Bytes) -> Response {
    match serde_json::from_slice::<Vec<Value>>(&body) {
        Ok(records) => answer(StatusCode::ACCEPTED, format!(r#"{{"ok":true,"count":{}}}"#, records.len())),
        Err(_) => answer(StatusCode::BAD_REQUEST, r#"{"ok":false}"#.into()),
    }
}

fn answer(status: StatusCode, body: String) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}
