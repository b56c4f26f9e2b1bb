//! What every request passes, outermost first. One function does most of it, because every layer costs every
//! request a boxed future:
//!
//! 1. the request's id and trace; metrics; one line of log a request, one more a failure
//! 2. `Connection: close` while the service drains
//! 3. a panic becomes a 500
//!
//! The limits of a body (origin, size, budget, time) are applied where it is read: [`super::extract`].

use super::{
    ApiError, AppState,
    error::Failure,
    extract::{RequestContext, X_REQUEST_ID},
};
use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, header};
use std::{
    any::Any,
    time::{Duration, Instant},
};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Level;

/// The `route` label of requests that no route takes.
const UNMATCHED: &str = "unmatched";

/// Wraps every route and the fallbacks that `router` has so far.
pub fn wrap(router: Router<AppState>, state: AppState) -> Router<AppState> {
    // axum applies the last layer first
    router.layer(CatchPanicLayer::custom(panic_answer)).layer(from_fn_with_state(state, observe))
}

async fn observe(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let context = RequestContext::from_headers(request.headers());
    let request_id = context.request_id.clone();
    let method = method_label(request.method());
    let matched = request.extensions().get::<MatchedPath>().cloned();
    request.extensions_mut().insert(context);

    let mut response = next.run(request).await;

    let route = matched.as_ref().map_or(UNMATCHED, |path| route_label(path.as_str()));
    let duration = started.elapsed();
    state.metrics.observe_request(method, route, response.status().as_str(), duration);
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        log_failure(&failure, &request_id, route);
    }
    log_request(&request_id, method, route, &response, duration);
    response.headers_mut().insert(X_REQUEST_ID, request_id);
    if state.readiness.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The route's path without the trailing slash that is accepted on it.
fn route_label(matched: &str) -> &str {
    matched.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(matched)
}

/// A closed set: any token may be a method.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn log_request(id: &HeaderValue, method: &str, route: &str, response: &Response, duration: Duration) {
    tracing::debug!(
        request_id = text(id),
        method,
        route,
        status = response.status().as_u16(),
        duration_ms = duration.as_secs_f64() * 1000.0,
        "request"
    );
}

fn log_failure(failure: &Failure, id: &HeaderValue, route: &str) {
    let Failure { error, detail, .. } = failure;
    let topic = failure.topic.as_ref().map(|topic| topic.as_str());
    let request_id = text(id);
    // the macros need their level at compile time
    if failure.level == Level::ERROR {
        tracing::error!(request_id, route, error, topic, detail, "request failed");
    } else if failure.level == Level::WARN {
        tracing::warn!(request_id, route, error, topic, detail, "request failed");
    } else {
        tracing::debug!(request_id, route, error, topic, detail, "request refused");
    }
}

fn text(id: &HeaderValue) -> &str {
    id.to_str().unwrap_or_default()
}

/// A bug in a handler costs its own request only.
fn panic_answer(panic: Box<dyn Any + Send>) -> Response {
    ApiError::Internal(panic_text(&*panic)).into_response()
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("no text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{App, request};
    use axum::body::Body;
    use std::sync::atomic::Ordering::Relaxed;

    #[tokio::test]
    async fn the_request_id_is_returned_or_made() {
        let app = App::new();
        let answer = app.post_with("/nothing", &[("x-request-id", "abc")], "").await;
        assert_eq!(answer.header("x-request-id"), Some("abc"));
        assert_eq!(app.get("/health").await.header("x-request-id").map(str::len), Some(32));
    }

    #[tokio::test]
    async fn a_panic_is_500_and_says_nothing() {
        let app = App::new();
        app.producer.panics.store(true, Relaxed);
        let answer = app.post("/logs", r#"{"project":"p","value":1}"#).await;
        assert_eq!(answer.error(), (500, "internal".into()));
        assert!(!answer.text().contains("as a test"));
        assert!(answer.header("x-request-id").is_some());
    }

    #[tokio::test]
    async fn answers_close_the_connection_while_the_service_drains() {
        let app = App::new();
        assert_eq!(app.get("/health").await.header("connection"), None);
        app.readiness.start_draining();
        assert_eq!(app.get("/health").await.header("connection"), Some("close"));
    }

    #[tokio::test]
    async fn a_head_request_is_answered_as_a_get_without_a_body() {
        let app = App::new();
        for path in ["/", "/health", "/ready/", "/metrics", "/openapi.json", "/docs"] {
            let answer = app.send(request(Method::HEAD, path, &[], Body::empty())).await;
            assert_eq!((answer.status, answer.body.len()), (200, 0), "{path}");
        }
    }

    #[test]
    fn methods_are_a_closed_set() {
        assert_eq!(method_label(&Method::from_bytes(b"BREW").unwrap()), "other");
    }
}
