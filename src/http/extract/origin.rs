//! Keeps web pages of other sites from writing: a browser names the page's origin, and it must be our own.

use crate::http::ApiError;
use http::{HeaderMap, header};

/// Passes requests without an `Origin` (no browser sent them) and those whose origin is the request's own `Host`.
pub fn check(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    match (origin.to_str(), host) {
        (Ok(origin), Some(host)) if is_own(origin, host) => Ok(()),
        _ => Err(ApiError::ForeignOrigin),
    }
}

/// The service may be behind a proxy that ends TLS, so both schemes are taken; each implies its own port.
fn is_own(origin: &str, host: &str) -> bool {
    let without_port = |text: &'_ str, port| text.strip_suffix(port).unwrap_or(text).to_ascii_lowercase();
    let is_host = |authority, port| without_port(authority, port) == without_port(host, port);
    match origin.split_once("://") {
        Some(("http", authority)) => is_host(authority, ":80"),
        Some(("https", authority)) => is_host(authority, ":443"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_own_origin_passes() {
        assert!(is_own("http://localhost:4000", "localhost:4000"));
        assert!(is_own("http://Inlet.example", "inlet.example"));
        assert!(is_own("http://inlet.example", "inlet.example:80"));
        assert!(is_own("https://inlet.example", "inlet.example"));
    }

    #[test]
    fn every_other_origin_does_not() {
        for origin in ["null", "", "http://evil.example", "http://localhost:3000", "ftp://localhost:4000"] {
            assert!(!is_own(origin, "localhost:4000"), "{origin}");
        }
    }

    #[test]
    fn a_request_without_an_origin_passes() {
        assert!(check(&HeaderMap::new()).is_ok());
    }
}
