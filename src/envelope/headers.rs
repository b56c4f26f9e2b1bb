//! The `headers` of an envelope.

use super::{Error, Kind};
use crate::produce::Header;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::fmt;

/// Headers that one record may have: each costs many times its bytes in memory.
const MAX_A_RECORD: usize = 1000;
/// Headers that the records of one body may have together.
pub const MAX_A_BODY: usize = 100_000;

/// The headers of one record, in the sender's order.
pub fn parse(headers: &RawValue) -> Result<Vec<Header>, Error> {
    const EXPECTED: &str = "`headers` must be an object of strings or {\"base64\":\"…\"}";
    if !headers.get().starts_with('{') {
        return Err(Error::new(Kind::InvalidHeader, EXPECTED));
    }
    serde_json::from_str::<Headers>(headers.get()).map(|headers| headers.0).map_err(|error| {
        let reason = error.to_string();
        // the place within the member would mislead
        let reason = reason.split(" at line ").next().unwrap_or_default();
        Error::new(Kind::InvalidHeader, format!("{EXPECTED}: {reason}"))
    })
}

/// An object of header values; a repeated name makes a repeated header.
struct Headers(Vec<Header>);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeadersVisitor)
    }
}

struct HeadersVisitor;

impl<'de> Visitor<'de> for HeadersVisitor {
    type Value = Headers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
        let mut headers = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let value: HeaderValue = map
                .next_value()
                .map_err(|_| serde::de::Error::custom(format_args!("the value of '{name}' is neither")))?;
            let value = match value {
                HeaderValue::Text(text) => Some(Bytes::from(text)),
                HeaderValue::Null(()) => None,
                HeaderValue::Binary { base64 } => {
                    let bytes = BASE64_STANDARD.decode(base64);
                    let bytes = bytes.map_err(|error| {
                        serde::de::Error::custom(format_args!("the base64 of '{name}' is faulty ({error})"))
                    })?;
                    Some(bytes.into())
                }
            };
            // librdkafka takes a name as a C string
            if name.is_empty() || name.contains('\0') {
                return Err(serde::de::Error::custom("a header needs a name, without NUL characters"));
            }
            if headers.len() == MAX_A_RECORD {
                return Err(serde::de::Error::custom(format_args!(
                    "a record may have {MAX_A_RECORD} headers"
                )));
            }
            headers.push(Header { name, value });
        }
        Ok(Headers(headers))
    }
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum HeaderValue {
    Text(String),
    Binary { base64: String },
    Null(()),
}
