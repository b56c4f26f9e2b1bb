//! The service that anyone would write first: axum, a JSON DOM, and one `FutureProducer` future a record.
//!
//! `naive --port PORT --bootstrap HOST:PORT --topic TOPIC`

#![expect(clippy::disallowed_types, reason = "FutureProducer is what this program is about")]

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::future::join_all;
use kafka_inlet_bench::{Arguments, Outcome};
use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

struct Service {
    producer: FutureProducer,
    topic: String,
}

#[tokio::main]
async fn main() -> Outcome {
    let arguments = Arguments::read()?;
    let port: u16 = arguments.required("port")?;
    let producer = ClientConfig::new()
        .set("bootstrap.servers", arguments.required::<String>("bootstrap")?)
        .set("acks", "all")
        .set("linger.ms", "1")
        .create()?;
    let service = Service { producer, topic: arguments.required("topic")? };
    let routes = Router::new()
        .route("/health", get(|| async { "ok" }))
        .route("/logs", post(one))
        .route("/produce/batch", post(many))
        .layer(DefaultBodyLimit::max(64 << 20))
        .with_state(Arc::new(service));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(listener, routes).await?;
    Ok(())
}

async fn one(State(service): State<Arc<Service>>, body: Bytes) -> Response {
    let Ok(record) = serde_json::from_slice::<Value>(&body) else {
        return answer(StatusCode::BAD_REQUEST, 0);
    };
    match service.send(record).await {
        Ok(()) => answer(StatusCode::ACCEPTED, 1),
        Err(status) => answer(status, 0),
    }
}

async fn many(State(service): State<Arc<Service>>, body: Bytes) -> Response {
    let Ok(records) = serde_json::from_slice::<Vec<Value>>(&body) else {
        return answer(StatusCode::BAD_REQUEST, 0);
    };
    let count = records.len();
    let results = join_all(records.into_iter().map(|record| service.send(record))).await;
    match results.into_iter().find_map(Result::err) {
        None => answer(StatusCode::ACCEPTED, count),
        Some(status) => answer(status, 0),
    }
}

impl Service {
    /// The value with the project as one more member; values that are not objects are wrapped.
    async fn send(&self, record: Value) -> Result<(), StatusCode> {
        let Value::Object(mut record) = record else { return Err(StatusCode::BAD_REQUEST) };
        let (Some(project), Some(value)) = (record.remove("project"), record.remove("value")) else {
            return Err(StatusCode::BAD_REQUEST);
        };
        let mut value = if value.is_object() { value } else { json!({ "value": value }) };
        value["project"] = project;
        let payload = value.to_string();
        let record = FutureRecord::<(), _>::to(&self.topic).payload(&payload);
        let sent = self.producer.send(record, Duration::from_secs(10)).await;
        sent.map(|_| ()).map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
    }
}

fn answer(status: StatusCode, count: usize) -> Response {
    let body = format!(r#"{{"ok":{},"count":{count}}}"#, count > 0);
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}
