//! The whole of the service as one function from request to answer. What every request passes is here and not in
//! layers of the router, each of which costs every request several allocations:
//!
//! 1. the request's id and trace; metrics; one line of log a request, one more a failure
//! 2. `Connection: close` while the service drains
//! 3. a panic becomes a 500
//!
//! The limits of a body (origin, size, budget, time) are applied where it is read: [`super::extract`].

use super::{
    ApiError, AppState,
    answer::AnswerBody,
    error::Failure,
    extract::{self, RequestContext, Underway, X_REQUEST_ID},
    route::Route,
    router,
    unread::{Answers, Room},
};
use crate::telemetry::metrics::RequestMetrics;
use axum::{
    BoxError, Router,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::BodyExt;
use hyper::body::Body;
use std::{
    any::Any,
    convert::Infallible,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tower_http::{body::UnsyncBoxBody, catch_panic::CatchPanic};
use tower_service::Service as _;
use tracing::Level;

/// A closed set: any token may be a method.
const METHODS: [&str; 8] = ["POST", "GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "other"];

/// What a request is answered with.
pub type Answer = http::Response<AnswerBody>;

/// Makes the answer in place of a handler that panicked.
type PanicAnswer = fn(Box<dyn Any + Send>) -> Response;

/// Answers requests. Cloning is cheap.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    state: AppState,
    routes: CatchPanic<Router, PanicAnswer>,
    /// By route, then by method; made with the first request.
    metrics: [[OnceLock<RequestMetrics>; METHODS.len()]; Route::COUNT],
}

impl Service {
    /// Serves every route.
    pub fn new(state: AppState) -> Self {
        let routes = CatchPanic::custom(router(state.clone()), panic_answer as PanicAnswer);
        Self(Arc::new(Inner { state, routes, metrics: Default::default() }))
    }

    /// The bodies that are still coming.
    pub fn underway(&self) -> &Arc<Underway> {
        self.0.state.underway()
    }

    /// The answers that wait for their readers.
    pub fn answers(&self) -> &Arc<Answers> {
        self.0.state.answers()
    }

    /// The answer to one request; never an error.
    pub async fn answer<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let refusal = extract::check_head(&request).err();
        self.answer_or_refuse(request, refusal).await
    }

    /// The answer to a request for whose connection there is no place; never an error.
    pub async fn refuse<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.answer_or_refuse(request, Some(ApiError::TooManyConnections)).await
    }

    async fn answer_or_refuse<B>(&self, mut request: Request<B>, refusal: Option<ApiError>) -> Answer
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let started = Instant::now();
        let Inner { state, routes, .. } = &*self.0;
        let context = RequestContext::from_headers(request.headers());
        let request_id = context.request_id(request.headers());
        let method = method_index(request.method());
        let route = Route::of(request.uri().path());
        request.extensions_mut().insert(context);

        let mut answer = match refusal {
            None => {
                let Ok::<_, Infallible>(mut answer) = routes.clone().call(request).await;
                let room = answer.extensions_mut().remove::<Arc<Room>>();
                answer.map(|body| AnswerBody::new(body, room))
            }
            Some(error) => refuse(error),
        };

        let duration = started.elapsed();
        self.metrics(route, method).observe(answer.status().as_str(), duration);
        if let Some(failure) = answer.extensions_mut().remove::<Failure>() {
            log_failure(&failure, &request_id, route.label());
        }
        log_request(&request_id, METHODS[method], route.label(), &answer, duration);
        answer.headers_mut().insert(X_REQUEST_ID, request_id);
        if state.readiness.is_draining() {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    fn metrics(&self, route: Route, method: usize) -> &RequestMetrics {
        let Inner { state, metrics, .. } = &*self.0;
        metrics[route.index()][method].get_or_init(|| state.metrics.request(METHODS[method], route.label()))
    }
}

/// The method's place in [`METHODS`].
fn method_index(method: &Method) -> usize {
    METHODS.iter().position(|&known| known == method.as_str()).unwrap_or(METHODS.len() - 1)
}

fn log_request(id: &HeaderValue, method: &str, route: &str, answer: &Answer, duration: Duration) {
    tracing::debug!(
        request_id = text(id),
        method,
        route,
        status = answer.status().as_u16(),
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

/// The last answer of its connection: who is refused before a route is looked for may be anyone. The body is not awaited:
/// the connection throws away what comes while it closes.
fn refuse(error: ApiError) -> Answer {
    extract::closing(error.into_response())
        .map(|body| AnswerBody::new(UnsyncBoxBody::new(body.map_err(BoxError::from)), None))
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
    use futures_util::FutureExt;
    use std::sync::atomic::Ordering::Relaxed;

    #[tokio::test]
    async fn the_request_id_is_returned_or_made() {
        let app = App::new();
        let answer = app.post_with("/nothing", &[("x-request-id", "abc")], "").await;
        assert_eq!(answer.header("x-request-id"), Some("abc"));
        assert_eq!(app.get("/health").await.header("x-request-id").map(str::len), Some(32));
    }

    #[tokio::test]
    async fn who_has_no_place_is_refused_before_the_body_has_come() {
        let app = App::new();
        let never = Body::from_stream(futures_util::stream::pending::<Result<Bytes, BoxError>>());
        let answer = app.service.refuse(request(Method::POST, "/logs", &[], never)).now_or_never().unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["connection"]),
            (503, &"close".parse().unwrap())
        );
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
    async fn what_has_a_label_of_its_own_is_served_and_nothing_else_is() {
        let app = App::new();
        for path in [
            "/",
            "/docs",
            "/docs/",
            "/docs/index.css",
            "/health",
            "/health/kafka/",
            "/ready",
            "/openapi.json",
        ]
        .into_iter()
        .chain([
            "/logs",
            "/metrics/",
            "/events",
            "/produce",
            "/produce/batch/",
            "/nothing",
            "//",
            "/logs//",
            "/Logs",
            "/receipts/",
            "/receipts//",
            "/receipts/a/b",
            "/receipts/a//",
            "/receipts/a/",
        ]) {
            let is_unmatched = Route::of(path).label() == "unmatched";
            let found = app.get(path).await.status != 404;
            assert_eq!(found, !is_unmatched, "{path}");
        }
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
        assert_eq!(METHODS[method_index(&Method::from_bytes(b"BREW").unwrap())], "other");
        assert_eq!(METHODS[method_index(&Method::DELETE)], "DELETE");
    }
}
