//! Keeps web pages of other sites from writing: a browser names the page's origin, and it must be our own.

use crate::http::ApiError;
use http::{HeaderMap, header, uri::Authority};
use std::net::IpAddr;

/// Passes requests without an `Origin` (no browser sent them) and those whose origin is the request's own `Host`.
///
/// A page can point its own name at this machine (DNS rebinding), and then its origin is the `Host`. Where the
/// service listens on loopback only, no such name is legitimate.
pub fn check(headers: &HeaderMap, listens_on: IpAddr) -> Result<(), ApiError> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    match (origin.to_str(), host) {
        (Ok(origin), Some(host)) if is_own(origin, host) => {
            if listens_on.is_loopback() && !cannot_be_rebound(host) {
                return Err(ApiError::ForeignOrigin(
                    "a service that listens on loopback only is addressed as localhost or by its IP address",
                ));
            }
            Ok(())
        }
        _ => Err(ApiError::ForeignOrigin("the Origin header must name this service's own Host")),
    }
}

/// `localhost` and addresses, which no foreign name server resolves.
fn cannot_be_rebound(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
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
    use http::HeaderValue;
    use std::net::Ipv4Addr;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const ANYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

    /// The headers that a browser sends for a page of this host.
    fn from_itself(host: &str) -> HeaderMap {
        HeaderMap::from_iter([
            (header::HOST, HeaderValue::from_str(host).unwrap()),
            (header::ORIGIN, HeaderValue::from_str(&format!("http://{host}")).unwrap()),
        ])
    }

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
        for listens_on in [LOOPBACK, ANYWHERE] {
            assert!(check(&HeaderMap::new(), listens_on).is_ok());
        }
    }

    #[test]
    fn a_name_that_may_be_rebound_is_no_own_origin_on_loopback() {
        for host in
            ["rebound.example:4000", "localhost.example", "127.0.0.1.example", "localhost@evil.example"]
        {
            assert!(check(&from_itself(host), LOOPBACK).is_err(), "{host}");
            assert!(check(&from_itself(host), ANYWHERE).is_ok(), "{host}");
        }
        for host in ["localhost:4000", "LOCALHOST", "127.0.0.1:4000", "[::1]:4000", "192.0.2.1"] {
            assert!(check(&from_itself(host), LOOPBACK).is_ok(), "{host}");
        }
    }
}
