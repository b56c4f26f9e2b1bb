//! The members of one envelope, each as the slice of the body that holds it.

use super::{Error, Kind, json};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// The members that mean something; all others are ignored. None is absent, `null` is there.
#[derive(Debug, Default)]
pub struct Fields<'a> {
    pub headers: Option<&'a RawValue>,
    pub key: Option<&'a RawValue>,
    pub message: Option<&'a RawValue>,
    pub partition: Option<&'a RawValue>,
    pub project: Option<&'a RawValue>,
    pub timestamp: Option<&'a RawValue>,
    pub tombstone: Option<&'a RawValue>,
    pub topic: Option<&'a RawValue>,
    pub value: Option<&'a RawValue>,
    /// Some member, be it one that is ignored, makes the object nested too deep.
    pub too_deep: bool,
}

impl<'a> Fields<'a> {
    /// Reads one JSON document, which must be an object.
    pub fn parse(text: &'a str) -> Result<Self, Error> {
        serde_json::from_str(text).map_err(|error| Error::from_json(&error, text))
    }

    fn slot(&mut self, name: &str) -> Option<&mut Option<&'a RawValue>> {
        match name {
            "headers" => Some(&mut self.headers),
            "key" => Some(&mut self.key),
            "message" => Some(&mut self.message),
            "partition" => Some(&mut self.partition),
            "project" => Some(&mut self.project),
            "timestamp" => Some(&mut self.timestamp),
            "tombstone" => Some(&mut self.tombstone),
            "topic" => Some(&mut self.topic),
            "value" => Some(&mut self.value),
            _ => None,
        }
    }
}

/// True for an optional member that is absent: `null` counts as absent.
pub fn given(member: Option<&RawValue>) -> Option<&RawValue> {
    member.filter(|raw| raw.get() != "null")
}

/// A member that must be a string.
pub fn string<'a>(member: &'a RawValue, kind: Kind, name: &str) -> Result<Cow<'a, str>, Error> {
    text(member).ok_or_else(|| Error::new(kind, format!("`{name}` must be a string")))
}

/// The text of a JSON string; None for any other value.
pub fn text(json: &RawValue) -> Option<Cow<'_, str>> {
    let quoted = json.get().strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', quoted.as_bytes()).is_none() {
        // it was parsed as part of the body
        return Some(Cow::Borrowed(quoted));
    }
    serde_json::from_str::<Text<'_>>(json.get()).ok().map(|text| text.0)
}

/// The value of a JSON number that is a whole one and fits; None for any other value.
pub fn whole_number(json: &RawValue) -> Option<i64> {
    // JSON has no "+1", and takes "-0" for a fraction
    json.get().parse().ok().filter(|_| json.get() != "-0")
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // not derived: a derived struct would also take an array of its members
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `value` and `project`, or with `message`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        while let Some(Text(name)) = map.next_key()? {
            let raw: &'de RawValue = map.next_value()?;
            fields.too_deep |= json::is_deeper(raw.get(), json::MAX_DEPTH - 1);
            if let Some(slot) = fields.slot(&name)
                && slot.replace(raw).is_some()
            {
                return Err(de::Error::custom(format_args!("the member `{name}` is there twice")));
            }
        }
        Ok(fields)
    }
}

/// A string, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_slices_of_the_body() {
        let fields = Fields::parse(r#" {"value": {"a" : 1.0}, "other": [1], "key":null} "#).unwrap();
        assert_eq!(fields.value.unwrap().get(), r#"{"a" : 1.0}"#);
        assert_eq!(fields.key.unwrap().get(), "null");
        assert!(fields.topic.is_none());
    }

    #[test]
    fn a_repeated_member_is_an_invalid_body_however_it_is_written() {
        for twice in [r#"{"key":"a","key":"b"}"#, r#"{"key":"a","k\u0065y":"b"}"#] {
            let error = Fields::parse(twice).unwrap_err();
            assert_eq!(error.kind, Kind::InvalidBody);
            assert!(error.detail.contains("`key`"), "{}", error.detail);
        }
    }

    #[test]
    fn what_is_no_object_is_an_invalid_body() {
        for other in ["[]", "1", "\"x\"", "null", r#"[null,null,"k"]"#] {
            assert_eq!(Fields::parse(other).unwrap_err().kind, Kind::InvalidBody, "{other}");
        }
    }

    #[test]
    fn what_is_no_json_is_invalid_json() {
        for broken in
            ["", " ", "{", "{\"value\":NaN}", "{}{}", "{\"a\":1,}", "nul", "{\"value\":01}", "{'a':1}"]
        {
            assert_eq!(Fields::parse(broken).unwrap_err().kind, Kind::InvalidJson, "{broken}");
        }
    }
}
