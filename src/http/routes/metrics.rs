//! `GET /metrics`: for Prometheus. A POST on the same path produces: [`super::fixed::metrics`].

use crate::http::{ApiError, AppState, unread};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::header;

/// Prometheus' text format, version 0.0.4.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4";

/// The service's metrics in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics",
    operation_id = "metrics", tag = "service",
    responses((status = 200, description = "Prometheus text format, version 0.0.4", body = String, content_type = "text/plain"))
)]
pub async fn show(State(state): State<AppState>) -> Result<Response, ApiError> {
    let text = state.metrics.render(state.pipeline.in_flight());
    let text = text.map_err(|error| ApiError::Internal(format!("metrics were not rendered: {error}")))?;
    let room = match text.len() {
        unread::LARGE.. => Some(state.answers().try_reserve(text.len()).ok_or(ApiError::TooManyAnswers)?),
        _ => None,
    };
    let mut response = ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response();
    if let Some(room) = room {
        room.goes_with(&mut response);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use crate::http::testing::App;

    #[tokio::test]
    async fn requests_are_counted_by_their_normalised_route() {
        let app = App::new();
        app.get("/health/").await;
        app.get("/health").await;
        app.get("/no/such/path").await;
        app.post("/logs", r#"{"project":"p","value":1}"#).await;
        let answer = app.get("/metrics").await;
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4"));
        for line in [
            r#"http_requests_total{method="GET",route="/health",status="200"} 2"#,
            r#"http_requests_total{method="GET",route="unmatched",status="404"} 1"#,
            r#"http_requests_total{method="POST",route="/logs",status="202"} 1"#,
        ] {
            assert!(answer.text().contains(line), "{line}\n{}", answer.text());
        }
        assert!(!answer.text().contains("such"));
    }
}
