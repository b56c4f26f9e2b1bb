//! The top-level members of a JSON object, by unescaped name.

use serde::{
    Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// Calls `visit` with the name and the value of every top-level member, in order. The value borrows from
/// `object`, so its place in it is known. Text that is no object has no members.
pub fn for_each<'a>(object: &'a str, visit: impl FnMut(&str, &'a RawValue)) {
    let mut deserializer = serde_json::Deserializer::from_str(object);
    // an error cannot come: the text has been parsed before as part of the body
    let _ = deserializer.deserialize_map(Members(visit));
}

/// Whether `object` could have a member of that name; false is certain. Much cheaper than looking.
pub fn may_have(object: &str, name: &str) -> bool {
    let object = object.as_bytes();
    // a name may be written with escapes
    memchr::memmem::find(object, name.as_bytes()).is_some() || memchr::memchr(b'\\', object).is_some()
}

struct Members<F>(F);

impl<'de, F: FnMut(&str, &'de RawValue)> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            (self.0)(&name, map.next_value()?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_unescaped_and_only_at_the_top() {
        let mut seen = Vec::new();
        for_each(r#"{"a":{"b":1},"\u0063":2,"a":3}"#, |name, value| {
            seen.push((name.to_owned(), value.get().to_owned()));
        });
        let seen: Vec<_> = seen.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(seen, [("a", r#"{"b":1}"#), ("c", "2"), ("a", "3")]);
    }

    #[test]
    fn a_name_that_is_nowhere_in_the_text_is_certainly_no_member() {
        assert!(!may_have(r#"{"a":1}"#, "project"));
        assert!(may_have(r#"{"a":"project"}"#, "project"));
        assert!(may_have(r#"{"pro\u006aect":1}"#, "project"));
    }
}
