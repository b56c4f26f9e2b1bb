//! Which content types are read as JSON, which as NDJSON.

use crate::http::ApiError;
use http::{HeaderMap, header};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    Json,
    Ndjson,
}

/// The media type of the body. No content type at all is read as JSON.
pub fn of(headers: &HeaderMap) -> Result<MediaType, ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(MediaType::Json) };
    // what curl, most clients of the API and the benchmark send: no need to take it apart
    if value == "application/json" {
        return Ok(MediaType::Json);
    }
    let Ok(value) = value.to_str() else { return Err(unsupported()) };
    let mut parts = value.split(';');
    let media_type = parse(parts.next().unwrap_or_default().trim()).ok_or_else(unsupported)?;
    if parts.any(is_foreign_charset) {
        return Err(ApiError::UnsupportedMediaType(
            "the body must be UTF-8; send charset=utf-8 or no charset",
        ));
    }
    Ok(media_type)
}

fn parse(essence: &str) -> Option<MediaType> {
    let essence = essence.to_ascii_lowercase();
    match &*essence {
        // what clients send that were never told what they send, `curl -d` among them
        "" | "text/plain" | "application/x-www-form-urlencoded" | "application/octet-stream" => {
            Some(MediaType::Json)
        }
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Some(MediaType::Ndjson),
        _ => {
            let (_, subtype) = essence.split_once('/')?;
            (subtype == "json" || subtype.ends_with("+json")).then_some(MediaType::Json)
        }
    }
}

fn is_foreign_charset(parameter: &str) -> bool {
    match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            let charset = value.trim().trim_matches('"');
            !["utf-8", "utf8"].iter().any(|utf8| charset.eq_ignore_ascii_case(utf8))
        }
        _ => false,
    }
}

fn unsupported() -> ApiError {
    ApiError::UnsupportedMediaType(
        "send application/json; /produce/batch also takes application/x-ndjson and application/jsonl",
    )
}

/// For the routes that take one record.
pub fn json_only(media_type: MediaType) -> Result<(), ApiError> {
    if media_type == MediaType::Json { Ok(()) } else { Err(unsupported()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn media_type(value: &str) -> Option<MediaType> {
        let value = HeaderValue::from_str(value).unwrap();
        of(&HeaderMap::from_iter([(header::CONTENT_TYPE, value)])).ok()
    }

    #[test]
    fn json_has_many_names() {
        assert_eq!(of(&HeaderMap::new()).unwrap(), MediaType::Json);
        for name in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/json;charset=\"utf-8\"",
            "application/json; charset=utf8",
            "text/json",
            "application/vnd.kafka.json.v2+json",
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/octet-stream",
        ] {
            assert_eq!(media_type(name), Some(MediaType::Json), "{name}");
        }
    }

    #[test]
    fn ndjson_has_three() {
        assert_eq!(media_type("application/x-ndjson"), Some(MediaType::Ndjson));
        assert_eq!(media_type("application/ndjson"), Some(MediaType::Ndjson));
        assert_eq!(media_type("application/jsonl; charset=utf-8"), Some(MediaType::Ndjson));
    }

    #[test]
    fn all_else_is_unsupported() {
        for name in ["application/xml", "json", "text/html", "multipart/form-data", "application/avro"] {
            assert_eq!(media_type(name), None, "{name}");
        }
    }

    #[test]
    fn another_charset_is_unsupported() {
        assert_eq!(media_type("application/json; charset=iso-8859-1"), None);
        assert_eq!(media_type("text/plain; format=flowed; charset=utf-16"), None);
    }
}
