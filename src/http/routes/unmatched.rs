//! Paths and methods that are not served.

use crate::http::{ApiError, extract::refuse};
use axum::{extract::Request, response::Response};

pub async fn path(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    refuse(ApiError::NotFound, &parts.headers, body).await
}

/// axum adds the `Allow` header.
pub async fn method(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    refuse(ApiError::MethodNotAllowed, &parts.headers, body).await
}
