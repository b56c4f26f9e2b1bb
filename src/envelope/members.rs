//! The top-level members of a JSON object, by unescaped name.

use memchr::memmem::Finder;
use serde::{
    Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt, sync::LazyLock};

/// Calls `visit` with the name and the value of every top-level member, in order. The value borrows from
/// `object`, so its place in it is known. Text that is no object has no members.
pub fn for_each<'a>(object: &'a str, visit: impl FnMut(&str, &'a RawValue)) {
    let mut deserializer = serde_json::Deserializer::from_str(object);
    // an error cannot come: the text has been parsed before as part of the body
    let _ = deserializer.deserialize_map(Members(visit));
}

/// The name of a member that is looked for in many objects.
pub struct Name {
    /// As it stands in front of a value: in quotation marks, with a colon.
    written: &'static str,
    finder: LazyLock<Finder<'static>>,
}

pub static PROJECT: Name =
    Name { written: r#""project":"#, finder: LazyLock::new(|| Finder::new("\"project\"")) };
pub static TIMESTAMP: Name =
    Name { written: r#""timestamp":"#, finder: LazyLock::new(|| Finder::new("\"timestamp\"")) };
pub static SOURCE: Name =
    Name { written: r#""source":"#, finder: LazyLock::new(|| Finder::new("\"source\"")) };
pub static SERVER_TIME: Name =
    Name { written: r#""server_time":"#, finder: LazyLock::new(|| Finder::new("\"server_time\"")) };

impl Name {
    /// As it stands in front of a value: in quotation marks, with a colon.
    pub fn written(&self) -> &'static str {
        self.written
    }

    pub fn as_str(&self) -> &'static str {
        self.written.trim_matches(['"', ':'])
    }

    /// Whether `object` could have a member of this name; false is certain. Much cheaper than looking.
    /// `escapes`: there may be a backslash in it, with which the name could be written otherwise.
    pub fn may_be_in(&self, object: &str, escapes: bool) -> bool {
        self.finder.find(object.as_bytes()).is_some()
            || (escapes && memchr::memchr(b'\\', object.as_bytes()).is_some())
    }
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
        assert!(!PROJECT.may_be_in(r#"{"a":1}"#, true));
        assert!(!PROJECT.may_be_in(r#"{"a":"a project"}"#, true));
        assert!(PROJECT.may_be_in(r#"{"a":"project"}"#, false));
        assert!(PROJECT.may_be_in(r#"{"pro\u006aect":1}"#, true));
    }

    #[test]
    fn a_name_has_its_text() {
        let names = [&PROJECT, &TIMESTAMP, &SOURCE, &SERVER_TIME].map(Name::as_str);
        assert_eq!(names, ["project", "timestamp", "source", "server_time"]);
    }
}
