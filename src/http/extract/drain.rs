//! Refusing a request whose body has not been read.

use crate::http::ApiError;
use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt;
use std::time::Duration;
use tokio::time::timeout;

/// Bytes of an unwanted body that are read, so that a client that sends first and reads then meets no reset.
const MAX_DRAINED: usize = 64 << 10;
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// The answer to a request that is refused before its body was read to the end. Small bodies are read and thrown
/// away; after larger ones the connection is closed.
pub async fn refuse(error: ApiError, headers: &HeaderMap, body: Body) -> Response {
    // who expects "100 Continue" has not sent the body, and asking for it would make hyper send for it
    let drained = !headers.contains_key(header::EXPECT) && drain(body).await;
    let response = error.into_response();
    if drained { response } else { closing(response) }
}

/// Marks the answer as the last of its connection.
pub fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// True where the body ended.
async fn drain(mut body: Body) -> bool {
    let drained = async {
        let mut seen = 0;
        while seen <= MAX_DRAINED {
            match body.frame().await {
                Some(Ok(frame)) => seen += frame.data_ref().map_or(0, bytes::Bytes::len),
                Some(Err(_)) => return false,
                None => return true,
            }
        }
        false
    };
    timeout(DRAIN_TIME, drained).await.unwrap_or(false)
}
