//! What hyper refuses by itself, before there is a request: its answer has no body, so another goes in its place.

use super::ApiError;
use bytes::Bytes;
use http::StatusCode;

/// The answer to send for this one of hyper's own (proto/h1/role.rs, `on_error`); none where it is something else.
pub fn in_place_of(answer: &[u8]) -> Option<Bytes> {
    let status = answer.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5))?;
    match StatusCode::from_bytes(status).ok()? {
        StatusCode::BAD_REQUEST => Some(written(&ApiError::MalformedHead)),
        StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            Some(written(&ApiError::HeadTooLarge))
        }
        _ => None,
    }
}

/// The whole answer as it goes over the wire, the last of its connection.
fn written(error: &ApiError) -> Bytes {
    let (status, body) = (error.status(), error.problem().to_json());
    let mut answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        super::problem::CONTENT_TYPE,
        body.len()
    )
    .into_bytes();
    answer.extend(body);
    answer.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_hypers_becomes_a_problem() {
        for (bare, status_line, error) in [
            ("HTTP/1.1 400 Bad Request\r\n", "HTTP/1.1 400 Bad Request\r\n", "bad_request"),
            ("HTTP/1.0 400 Bad Request\r\n", "HTTP/1.1 400 Bad Request\r\n", "bad_request"),
            ("HTTP/1.1 414 ", "HTTP/1.1 431 Request Header Fields Too Large\r\n", "head_too_large"),
            ("HTTP/1.1 431 ", "HTTP/1.1 431 Request Header Fields Too Large\r\n", "head_too_large"),
        ] {
            let answer = in_place_of(bare.as_bytes()).unwrap();
            let answer = std::str::from_utf8(&answer).unwrap();
            assert!(answer.starts_with(status_line), "{answer}");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{answer}");
            assert!(body.contains(&format!(r#""error":"{error}""#)), "{answer}");
        }
    }

    #[test]
    fn anything_else_is_left_alone() {
        for bytes in ["", "HTTP/1.1", "HTTP/1.1 202 Accepted\r\n", "400"] {
            assert_eq!(in_place_of(bytes.as_bytes()), None, "{bytes}");
        }
    }
}
