//! The `headers` of an envelope.

use super::{Error, Kind, fields::text};
use crate::produce::Header;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// Headers that one record may have: each costs many times its bytes in memory.
const MAX_A_RECORD: usize = 1000;
/// Headers that the records of one body may have together.
pub const MAX_A_BODY: usize = 100_000;

/// Bytes of a name that an error quotes at most.
const MAX_SHOWN: usize = 100;

/// The headers of one record, in the sender's order. `headers` must be a part of the body.
pub fn parse(headers: &RawValue, body: &Bytes) -> Result<Vec<Header>, Error> {
    const EXPECTED: &str = "`headers` must be an object of strings or {\"base64\":\"…\"}";
    if !headers.get().starts_with('{') {
        return Err(Error::new(Kind::InvalidHeader, EXPECTED));
    }
    let mut deserializer = serde_json::Deserializer::from_str(headers.get());
    deserializer.deserialize_map(Headers { body }).map_err(|error| {
        let reason = error.to_string();
        // the place within the member would mislead
        let reason = reason.split(" at line ").next().unwrap_or_default();
        Error::new(Kind::InvalidHeader, format!("{EXPECTED}: {reason}"))
    })
}

/// Reads an object of header values; a repeated name makes a repeated header.
struct Headers<'a> {
    body: &'a Bytes,
}

impl<'de> Visitor<'de> for Headers<'_> {
    type Value = Vec<Header>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Header>, A::Error> {
        let mut headers = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = value(&name, map.next_value()?, self.body)?;
            // librdkafka takes a name as a C string
            if name.is_empty() || name.contains('\0') {
                return Err(de::Error::custom("a header needs a name, without NUL characters"));
            }
            if headers.len() == MAX_A_RECORD {
                return Err(de::Error::custom(format_args!("a record may have {MAX_A_RECORD} headers")));
            }
            headers.push(Header { name, value });
        }
        Ok(headers)
    }
}

/// The bytes of one header: a slice of the body where the text has no escapes.
fn value<E: de::Error>(name: &str, value: &RawValue, body: &Bytes) -> Result<Option<Bytes>, E> {
    match text(value) {
        Some(Cow::Borrowed(text)) => return Ok(Some(body.slice_ref(text.as_bytes()))),
        Some(Cow::Owned(text)) => return Ok(Some(text.into())),
        None if value.get() == "null" => return Ok(None),
        None => {}
    }
    let binary = Some(value.get()).filter(|json| json.starts_with('{'));
    let Some(Ok(Binary { base64 })) = binary.map(serde_json::from_str) else {
        return Err(E::custom(format_args!("the value of '{}' is neither", shown(name))));
    };
    let bytes = BASE64_STANDARD.decode(base64.as_bytes());
    let bytes = bytes
        .map_err(|error| E::custom(format_args!("the base64 of '{}' is faulty ({error})", shown(name))))?;
    Ok(Some(bytes.into()))
}

/// As much of a name as an error may quote.
fn shown(name: &str) -> &str {
    &name[..name.floor_char_boundary(MAX_SHOWN)]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Binary<'a> {
    #[serde(borrow)]
    base64: Cow<'a, str>,
}
