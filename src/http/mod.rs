//! HTTP: what is served where. Handlers extract, call one function and shape the answer; what a body means is
//! decided in [`crate::envelope`], what becomes of records in [`crate::produce`].

// reached by the micro-benchmarks and the guard of allocations
pub mod answer;
mod aside;
mod connection;
mod error;
mod extract;
pub mod openapi;
mod problem;
mod refusal;
mod route;
mod routes;
mod server;
mod service;
mod slots;
mod state;
#[cfg(test)]
mod testing;
mod topic_faults;
mod unread;

pub use answer::{BatchAnswer, Failed, Sent, Stored};
pub use error::ApiError;
pub use extract::{MAX_WAIT, Prefer, wait_of};
pub use problem::Problem;
pub use server::{KEEP_ALIVE, Server};
pub use service::Service;
pub use slots::RESERVE as RESERVED_CONNECTIONS;
pub use state::{AppState, Parts};

use axum::{
    Router,
    routing::{MethodRouter, get, post},
};
use routes::{batch, docs, fixed, health, index, metrics, produce, ready, receipts, unmatched};

/// Every route. Methods and paths that are not here answer 405 and 404 in the same shape as all errors.
fn router(state: AppState) -> Router {
    let routes = Router::new()
        .route(route::INDEX, get(index::show))
        .route(route::DOCS, get(docs::page))
        .route("/docs/", get(docs::page_below))
        .route(route::DOCS_FILE, get(docs::asset));
    let routes = with_trailing_slash(routes, route::HEALTH, get(health::service));
    let routes = with_trailing_slash(routes, route::HEALTH_KAFKA, get(health::kafka));
    let routes = with_trailing_slash(routes, route::READY, get(ready::show));
    let routes = with_trailing_slash(routes, route::OPENAPI, get(docs::openapi));
    let routes = with_trailing_slash(routes, route::RECEIPT, get(receipts::show));
    let routes = with_trailing_slash(routes, route::LOGS, post(fixed::logs));
    let routes = with_trailing_slash(routes, route::METRICS, get(metrics::show).post(fixed::metrics));
    let routes = with_trailing_slash(routes, route::EVENTS, post(fixed::events));
    let routes = with_trailing_slash(routes, route::PRODUCE, post(produce::one));
    let routes = with_trailing_slash(routes, route::PRODUCE_BATCH, post(batch::many));
    routes.fallback(unmatched::path).method_not_allowed_fallback(unmatched::method).with_state(state)
}

/// Clients differ in whether they end a path with a slash; one is accepted.
fn with_trailing_slash(
    router: Router<AppState>,
    path: &'static str,
    methods: MethodRouter<AppState>,
) -> Router<AppState> {
    router.route(path, methods.clone()).route(&format!("{path}/"), methods)
}
