//! What the head of every request must be, beyond what hyper asks for.

use crate::http::ApiError;
use http::{HeaderMap, Request, Version, header};

/// One `Host`, which HTTP/1.0 may leave out (RFC 9112, section 3.2), and a body that comes as it is or in chunks: hyper takes
/// other transfer codings too, and leaves them as they are (RFC 9112, section 6.1).
pub fn check<B>(request: &Request<B>) -> Result<(), ApiError> {
    let headers = request.headers();
    let mut hosts = headers.get_all(header::HOST).iter();
    let is_sound = match (hosts.next(), hosts.next()) {
        (Some(host), None) => is_host(host.as_bytes()),
        (None, _) => request.version() < Version::HTTP_11,
        _ => false,
    };
    if !is_sound {
        return Err(ApiError::InvalidHost);
    }
    if is_encoded(headers) { Err(ApiError::TransferEncoding) } else { Ok(()) }
}

/// `uri-host [ ":" port ]`, or nothing (RFC 9110, section 7.2).
fn is_host(host: &[u8]) -> bool {
    let in_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte);
    let in_address = |byte: &u8| byte.is_ascii_hexdigit() || b":.v%".contains(byte) || in_name(byte);
    let (name_is_sound, port) = match host.strip_prefix(b"[") {
        Some(rest) => match rest.iter().position(|&byte| byte == b']') {
            Some(end) => (rest[..end].iter().all(in_address), &rest[end + 1..]),
            None => return false,
        },
        None => {
            let end = host.iter().position(|&byte| byte == b':').unwrap_or(host.len());
            (host[..end].iter().all(in_name), &host[end..])
        }
    };
    let is_port = |port: &[u8]| port.iter().all(u8::is_ascii_digit);
    name_is_sound && (port.is_empty() || port.strip_prefix(b":").is_some_and(is_port))
}

fn is_encoded(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(version: Version, headers: &[(&str, &str)]) -> Result<(), ApiError> {
        let mut request = Request::builder().version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap())
    }

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for host in
            ["a", "localhost:4000", "10.0.0.1", "[::1]:4000", "[fe80::1%25eth0]", "inlet.example.org:80", ""]
        {
            assert!(with(Version::HTTP_11, &[("host", host)]).is_ok(), "{host}");
        }
        for host in ["a b", "user@a", "a/b", "a:b", "a:1:2", "[::1", "[::1]4000", "a?b", "a#b", "<a>"] {
            assert!(with(Version::HTTP_11, &[("host", host)]).is_err(), "{host}");
        }
    }

    #[test]
    fn there_is_one_host_and_only_http_1_0_may_leave_it_out() {
        assert!(with(Version::HTTP_11, &[]).is_err());
        assert!(with(Version::HTTP_10, &[]).is_ok());
        assert!(with(Version::HTTP_11, &[("host", "a"), ("host", "a")]).is_err());
    }

    #[test]
    fn a_body_may_come_in_chunks_and_in_no_other_coding() {
        let with_coding = |coding| with(Version::HTTP_11, &[("host", "a"), ("transfer-encoding", coding)]);
        assert!(with_coding("Chunked").is_ok());
        for coding in ["gzip, chunked", "gzip", "chunked, chunked", ""] {
            assert!(matches!(with_coding(coding), Err(ApiError::TransferEncoding)), "{coding}");
        }
    }
}
