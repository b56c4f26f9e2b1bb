//! The record's value: the sender's JSON byte for byte, with metadata spliced in.

use super::{
    Error, Kind,
    members::{self, Name},
};
use bytes::{BufMut, Bytes, BytesMut};
use std::mem;

/// A member to add. `json` is the JSON text of its value.
pub struct Addition<'a> {
    pub name: &'static Name,
    pub json: &'a str,
    pub existing: Existing,
}

/// What happens where the sender's object has a member of the same unescaped name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Its value is replaced in place, every time it occurs.
    Replace,
    /// It stays and nothing is added.
    Keep,
}

/// More than any record form adds.
const MAX_ADDITIONS: usize = 4;

/// Bytes by which a member that is repeated may lengthen any object; a longer one may double.
const REPEATS_MAY_ADD: usize = 256;

/// The sender's object with the additions, the new members last and in order. `object` must be a JSON object
/// without white space around it; `escapes`: it may hold a backslash. The result is cut off the front of
/// `buffer`, so that the values of one batch share an allocation. Refuses an object that would grow out of
/// proportion, because it repeats a member whose replacement is long.
pub fn into_object(
    object: &str,
    additions: &[Addition<'_>],
    escapes: bool,
    buffer: &mut BytesMut,
) -> Result<Bytes, Error> {
    let found = Found::look(object, additions, escapes);
    found.check_repeats(object, additions)?;
    let head = object.strip_suffix('}').unwrap_or(object);
    let new = || additions.iter().zip(found.present).filter(|(_, present)| !present).map(|(new, _)| new);
    let mut comma = !head.bytes().skip(1).all(|byte| byte.is_ascii_whitespace());

    let added = new().map(|new| 1 + new.name.written().len() + new.json.len()).sum::<usize>();
    let replaced = found.replaced.iter().map(|place| additions[place.addition].json.len()).sum::<usize>();
    let gone = found.replaced.iter().map(|place| place.end - place.start).sum::<usize>();
    let first_needs_none = usize::from(!comma && added > 0);
    buffer.reserve(object.len() + added + replaced - gone - first_needs_none);

    let mut from = 0;
    for place in &found.replaced {
        buffer.put_slice(&head.as_bytes()[from..place.start]);
        buffer.put_slice(additions[place.addition].json.as_bytes());
        from = place.end;
    }
    buffer.put_slice(&head.as_bytes()[from..]);
    for new in new() {
        if comma {
            buffer.put_u8(b',');
        }
        buffer.put_slice(new.name.written().as_bytes());
        buffer.put_slice(new.json.as_bytes());
        comma = true;
    }
    buffer.put_u8(b'}');
    Ok(cut(buffer))
}

/// What is no object, as the member `value` of one: `{"value":x,"project":p}`.
pub fn into_wrapper(value: &str, project: &str, buffer: &mut BytesMut) -> Bytes {
    let parts = [r#"{"value":"#, value, r#","project":"#, project, "}"];
    buffer.reserve(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        buffer.put_slice(part.as_bytes());
    }
    cut(buffer)
}

/// What has been written.
fn cut(buffer: &mut BytesMut) -> Bytes {
    // exactly full: to share it with nothing would only cost an allocation
    let written = if buffer.len() == buffer.capacity() { mem::take(buffer) } else { buffer.split() };
    written.freeze()
}

/// Which of the additions the sender's object already has.
#[derive(Default)]
struct Found {
    /// One for each addition.
    present: [bool; MAX_ADDITIONS],
    /// The values to replace, in order.
    replaced: Vec<Place>,
}

/// Where in the object a value is, and which addition replaces it.
struct Place {
    start: usize,
    end: usize,
    addition: usize,
}

impl Found {
    fn look(object: &str, additions: &[Addition<'_>], escapes: bool) -> Self {
        let mut found = Self::default();
        if !additions.iter().any(|addition| addition.name.may_be_in(object, escapes)) {
            return found;
        }
        members::for_each(object, |name, value| {
            let Some(addition) = additions.iter().position(|addition| addition.name.as_str() == name) else {
                return;
            };
            found.present[addition] = true;
            if additions[addition].existing == Existing::Replace {
                let start = value.get().as_ptr() as usize - object.as_ptr() as usize;
                found.replaced.push(Place { start, end: start + value.get().len(), addition });
            }
        });
        found
    }

    fn check_repeats(&self, object: &str, additions: &[Addition<'_>]) -> Result<(), Error> {
        let repeats: usize =
            self.replaced.iter().skip(1).map(|place| additions[place.addition].json.len()).sum();
        match self.replaced.first() {
            Some(first) if repeats > object.len() + REPEATS_MAY_ADD => {
                let name = additions[first.addition].name.as_str();
                let times = self.replaced.len();
                let detail = format!("the object has the member `{name}` {times} times; send it once");
                Err(Error::new(Kind::InvalidBody, detail))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::members::{PROJECT, SOURCE, TIMESTAMP};
    use proptest::prelude::*;

    fn project(object: &str) -> String {
        let additions = [Addition { name: &PROJECT, json: "\"p\"", existing: Existing::Replace }];
        String::from_utf8(into_object(object, &additions, true, &mut BytesMut::new()).unwrap().to_vec())
            .unwrap()
    }

    #[test]
    fn a_new_member_is_appended_last_and_the_rest_is_kept_to_the_byte() {
        assert_eq!(
            project(r#"{"a":1.0, "b" : 12345678901234567890123}"#),
            r#"{"a":1.0, "b" : 12345678901234567890123,"project":"p"}"#
        );
        assert_eq!(project("{\"a\":1 }"), "{\"a\":1 ,\"project\":\"p\"}");
    }

    #[test]
    fn an_empty_object_gets_no_comma() {
        assert_eq!(project("{}"), r#"{"project":"p"}"#);
        assert_eq!(project("{ \n}"), "{ \n\"project\":\"p\"}");
        assert_eq!(project("{\"a\":{}}"), r#"{"a":{},"project":"p"}"#);
    }

    #[test]
    fn an_existing_member_is_replaced_in_place_every_time() {
        assert_eq!(project(r#"{"project":"old","a":1}"#), r#"{"project":"p","a":1}"#);
        assert_eq!(
            project(r#"{"project":{"x":[1]},"a":1,"project":2}"#),
            r#"{"project":"p","a":1,"project":"p"}"#
        );
    }

    #[test]
    fn an_escaped_name_is_the_same_name() {
        assert_eq!(project(r#"{"pro\u006aect" : 1}"#), r#"{"pro\u006aect" : "p"}"#);
    }

    #[test]
    fn a_nested_member_of_the_same_name_is_left_alone() {
        assert_eq!(project(r#"{"a":{"project":1}}"#), r#"{"a":{"project":1},"project":"p"}"#);
    }

    #[test]
    fn what_the_sender_set_is_kept_where_that_is_asked() {
        let additions = [
            Addition { name: &TIMESTAMP, json: "\"t\"", existing: Existing::Keep },
            Addition { name: &SOURCE, json: "\"s\"", existing: Existing::Keep },
        ];
        let out = into_object(r#"{"timestamp":null}"#, &additions, true, &mut BytesMut::new());
        assert_eq!(out.unwrap(), r#"{"timestamp":null,"source":"s"}"#);
    }

    #[test]
    fn what_is_no_object_is_wrapped() {
        assert_eq!(
            into_wrapper("[1, 2]", "\"p\"", &mut BytesMut::new()),
            r#"{"value":[1, 2],"project":"p"}"#
        );
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_filter("finite", |x| x.is_finite()).prop_map(Into::into),
            ".*".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::hash_map("project|source|.{0,8}", inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_lands_parses_to_the_same_members(value in json(), project in "\\PC{1,12}", pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            // what the sender's text says, which need not be what was printed: floats are parsed approximately
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            let project_json = serde_json::to_string(&project).unwrap();
            let buffer = &mut BytesMut::new();
            let (landed, mut expected) = if let serde_json::Value::Object(members) = &value {
                let additions = [Addition { name: &PROJECT, json: &project_json, existing: Existing::Replace }];
                (into_object(&text, &additions, true, buffer).unwrap(), members.clone())
            } else {
                let wrapped = [("value".to_owned(), value.clone())];
                (into_wrapper(&text, &project_json, buffer), wrapped.into_iter().collect())
            };
            expected.insert("project".into(), project.into());
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&landed).unwrap(), serde_json::Value::Object(expected));
            // the sender's bytes are there, whole, unless a member was replaced in them
            if value.get("project").is_none() {
                let kept = text.strip_suffix('}').filter(|_| value.is_object()).unwrap_or(&text);
                prop_assert!(std::str::from_utf8(&landed).unwrap().contains(kept));
            }
        }
    }
}
