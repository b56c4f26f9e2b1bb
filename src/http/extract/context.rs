//! Who asks, for logs and for the headers of records: the request's id and its trace.

use crate::{config::RecordHeaders, produce::AutomaticHeaders};
use axum::extract::FromRequestParts;
use http::{HeaderMap, HeaderName, HeaderValue, request};
use std::convert::Infallible;

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const MAX_REQUEST_ID_BYTES: usize = 128;
const TRACE_ID_BYTES: usize = 32;

/// One request's identity.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// The client's `x-request-id` where it is usable, else the trace id. Visible ASCII.
    pub request_id: HeaderValue,
    /// 32 lower-case hex digits.
    trace_id: String,
    /// As the request brought it, where it is valid.
    traceparent: Option<HeaderValue>,
}

impl RequestContext {
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let traceparent = headers.get(TRACEPARENT).filter(|value| trace_id_of(value.as_bytes()).is_some());
        let trace_id = traceparent
            .and_then(|value| trace_id_of(value.as_bytes()))
            .map_or_else(|| format!("{:032x}", fastrand::u128(1..)), str::to_owned);
        let request_id = headers.get(X_REQUEST_ID).filter(|id| is_request_id(id)).cloned();
        let request_id = request_id
            .or_else(|| HeaderValue::from_str(&trace_id).ok())
            .unwrap_or(HeaderValue::from_static("-"));
        Self { request_id, trace_id, traceparent: traceparent.cloned() }
    }

    /// The headers that every record of this request gets.
    pub fn automatic_headers(&self, names: RecordHeaders) -> AutomaticHeaders {
        let traceparent = || self.traceparent.as_ref().and_then(|value| value.to_str().ok());
        AutomaticHeaders {
            content_type: names.content_type.then_some("application/json"),
            trace_id: names.trace_id.then(|| self.trace_id.clone()),
            timestamp: names.timestamp,
            traceparent: names.traceparent.then(traceparent).flatten().map(str::to_owned),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Infallible;

    /// The middleware has put it there; a router without the middleware makes a new one.
    async fn from_request_parts(parts: &mut request::Parts, _: &S) -> Result<Self, Infallible> {
        let known = parts.extensions.remove::<Self>();
        Ok(known.unwrap_or_else(|| Self::from_headers(&parts.headers)))
    }
}

fn is_request_id(id: &HeaderValue) -> bool {
    (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// The trace id of a valid `traceparent` (W3C Trace Context, section 3.2): version, trace id, parent id and flags
/// in lower-case hex. Versions above 00 may append fields.
fn trace_id_of(traceparent: &[u8]) -> Option<&str> {
    let mut parts = std::str::from_utf8(traceparent).ok()?.split('-');
    let version = parts.next().filter(|part| is_hex(part, 2) && *part != "ff")?;
    let trace_id = parts.next().filter(|part| is_hex(part, TRACE_ID_BYTES) && !is_zero(part))?;
    parts.next().filter(|part| is_hex(part, 16) && !is_zero(part))?;
    parts.next().filter(|part| is_hex(part, 2))?;
    (version != "00" || parts.next().is_none()).then_some(trace_id)
}

fn is_hex(part: &str, length: usize) -> bool {
    part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_zero(part: &str) -> bool {
    part.bytes().all(|byte| byte == b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn context(name: &'static str, value: &str) -> RequestContext {
        RequestContext::from_headers(&HeaderMap::from_iter([(
            HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        )]))
    }

    #[test]
    fn the_trace_is_the_one_of_the_request() {
        let traceparent = format!("00-{TRACE_ID}-00f067aa0ba902b7-01");
        let headers = context("traceparent", &traceparent).automatic_headers(RecordHeaders::ALL);
        assert_eq!(headers.trace_id.as_deref(), Some(TRACE_ID));
        assert_eq!(headers.traceparent, Some(traceparent));
    }

    #[test]
    fn an_invalid_traceparent_is_ignored() {
        for invalid in [
            "".into(),
            TRACE_ID.into(),
            format!("ff-{TRACE_ID}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", TRACE_ID.to_uppercase()),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{TRACE_ID}-0000000000000000-01"),
            format!("00-{TRACE_ID}-00f067aa0ba902b7-01-more"),
        ] {
            let headers = context("traceparent", &invalid).automatic_headers(RecordHeaders::ALL);
            assert_eq!(headers.traceparent, None, "{invalid}");
            let trace_id = headers.trace_id.unwrap();
            assert!(trace_id != TRACE_ID && is_hex(&trace_id, 32), "{invalid}");
        }
    }

    #[test]
    fn a_later_version_may_append_fields() {
        let later = format!("01-{TRACE_ID}-00f067aa0ba902b7-01-more");
        assert_eq!(trace_id_of(later.as_bytes()), Some(TRACE_ID));
    }

    #[test]
    fn a_usable_request_id_is_kept_and_another_is_replaced() {
        assert_eq!(context("x-request-id", "abc-1").request_id, "abc-1");
        for unusable in ["", "two words", &"x".repeat(129)] {
            let context = context("x-request-id", unusable);
            assert_eq!(context.request_id, context.trace_id, "{unusable:?}");
        }
    }

    #[test]
    fn headers_that_are_turned_off_are_not_made() {
        let headers = context("x-request-id", "a").automatic_headers(RecordHeaders::NONE);
        assert_eq!(headers, AutomaticHeaders::default());
    }
}
