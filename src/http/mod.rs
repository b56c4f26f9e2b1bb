//! HTTP: what is served where. Handlers extract, call one function and shape the answer; what a body means is
//! decided in [`crate::envelope`], what becomes of records in [`crate::produce`].

// reached by the micro-benchmarks and the guard of allocations
pub mod answer;
mod connection;
mod error;
mod extract;
mod middleware;
pub mod openapi;
mod problem;
mod refusal;
mod routes;
mod server;
mod state;
#[cfg(test)]
mod testing;
mod topic_faults;

pub use answer::{BatchAnswer, Failed, Sent};
pub use error::ApiError;
pub use problem::Problem;
pub use server::{KEEP_ALIVE, Server};
pub use state::{AppState, Parts};

use axum::{
    Router,
    routing::{MethodRouter, get, post},
};
use routes::{batch, docs, fixed, health, index, metrics, produce, ready, unmatched};

/// Every route. Methods and paths that are not here answer 405 and 404 in the same shape as all errors.
pub fn router(state: AppState) -> Router {
    let routes = Router::new()
        .route("/", get(index::show))
        .route("/docs", get(docs::page))
        .route("/docs/", get(docs::page_below))
        .route("/docs/{*file}", get(docs::asset));
    let routes = with_trailing_slash(routes, "/health", get(health::service));
    let routes = with_trailing_slash(routes, "/health/kafka", get(health::kafka));
    let routes = with_trailing_slash(routes, "/ready", get(ready::show));
    let routes = with_trailing_slash(routes, "/openapi.json", get(docs::openapi));
    let routes = with_trailing_slash(routes, "/logs", post(fixed::logs));
    let routes = with_trailing_slash(routes, "/metrics", get(metrics::show).post(fixed::metrics));
    let routes = with_trailing_slash(routes, "/events", post(fixed::events));
    let routes = with_trailing_slash(routes, "/produce", post(produce::one));
    let routes = with_trailing_slash(routes, "/produce/batch", post(batch::many));
    let routes = routes.fallback(unmatched::path).method_not_allowed_fallback(unmatched::method);
    middleware::wrap(routes, state.clone()).with_state(state)
}

/// Clients differ in whether they end a path with a slash; one is accepted.
fn with_trailing_slash(
    router: Router<AppState>,
    path: &'static str,
    methods: MethodRouter<AppState>,
) -> Router<AppState> {
    router.route(path, methods.clone()).route(&format!("{path}/"), methods)
}
