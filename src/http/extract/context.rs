//! Who asks, for logs and for the headers of records: the request's id and its trace.

use crate::{
    config::RecordHeaders,
    produce::{AutomaticHeaders, TraceId},
};
use axum::extract::FromRequestParts;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, request};
use std::convert::Infallible;

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const MAX_REQUEST_ID_BYTES: usize = 128;

/// One request's place in a trace.
#[derive(Debug, Clone)]
pub struct RequestContext {
    trace_id: TraceId,
    /// As the request brought it, where it is valid.
    traceparent: Option<HeaderValue>,
}

impl RequestContext {
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let sent = headers.get(TRACEPARENT).and_then(|value| Some((trace_id_of(value.as_bytes())?, value)));
        match sent {
            Some((trace_id, traceparent)) => Self { trace_id, traceparent: Some(traceparent.clone()) },
            None => Self { trace_id: TraceId::random(), traceparent: None },
        }
    }

    /// The client's `x-request-id` where it is usable, else the trace id. Visible ASCII.
    pub fn request_id(&self, headers: &HeaderMap) -> HeaderValue {
        if let Some(id) = headers.get(X_REQUEST_ID).filter(|id| is_request_id(id)) {
            return id.clone();
        }
        let own = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(self.trace_id.as_bytes()));
        own.unwrap_or(HeaderValue::from_static("-"))
    }

    /// The headers that every record of this request gets.
    pub fn automatic_headers(&self, names: RecordHeaders) -> AutomaticHeaders {
        let traceparent = || self.traceparent.as_ref().and_then(|value| value.to_str().ok());
        AutomaticHeaders {
            content_type: names.content_type.then_some("application/json"),
            trace_id: names.trace_id.then_some(self.trace_id),
            timestamp: names.timestamp,
            traceparent: names.traceparent.then(traceparent).flatten().map(str::to_owned),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Infallible;

    /// The service has put it there.
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
fn trace_id_of(traceparent: &[u8]) -> Option<TraceId> {
    let mut parts = std::str::from_utf8(traceparent).ok()?.split('-');
    let version = parts.next().filter(|part| is_hex(part, 2) && *part != "ff")?;
    let trace_id = parts.next().and_then(TraceId::parse)?;
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

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
    }

    fn context(name: &'static str, value: &str) -> RequestContext {
        RequestContext::from_headers(&headers(name, value))
    }

    #[test]
    fn the_trace_is_the_one_of_the_request() {
        let traceparent = format!("00-{TRACE_ID}-00f067aa0ba902b7-01");
        let headers = context("traceparent", &traceparent).automatic_headers(RecordHeaders::ALL);
        assert_eq!(headers.trace_id, TraceId::parse(TRACE_ID));
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
            assert_ne!(headers.trace_id, TraceId::parse(TRACE_ID), "{invalid}");
        }
    }

    #[test]
    fn a_later_version_may_append_fields() {
        let later = format!("01-{TRACE_ID}-00f067aa0ba902b7-01-more");
        assert_eq!(trace_id_of(later.as_bytes()), TraceId::parse(TRACE_ID));
    }

    #[test]
    fn a_usable_request_id_is_kept_and_another_is_replaced() {
        let id = |value: &str| context("x-request-id", value).request_id(&headers("x-request-id", value));
        assert_eq!(id("abc-1"), "abc-1");
        for unusable in ["", "two words", &"x".repeat(129)] {
            let id = id(unusable);
            assert!(TraceId::parse(id.to_str().unwrap()).is_some(), "{unusable:?}: {id:?}");
        }
    }

    #[test]
    fn headers_that_are_turned_off_are_not_made() {
        let headers = context("x-request-id", "a").automatic_headers(RecordHeaders::NONE);
        assert_eq!(headers, AutomaticHeaders::default());
    }
}
