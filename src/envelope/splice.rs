//! The record's value: the sender's JSON byte for byte, with metadata spliced in.

use super::{Error, Kind, members};
use bytes::{BufMut, Bytes, BytesMut};

/// A member to add. `json` is the JSON text of its value.
pub struct Addition<'a> {
    pub name: &'static str,
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

/// Bytes by which a member that is repeated may lengthen any object; a longer one may double.
const REPEATS_MAY_ADD: usize = 256;

/// The sender's object with the additions, the new members last and in order. `object` must be a JSON object.
/// The result is cut off the front of `buffer`, so that the values of one batch share an allocation. Refuses an
/// object that would grow out of proportion, because it repeats a member whose replacement is long.
pub fn into_object(object: &str, additions: &[Addition<'_>], buffer: &mut BytesMut) -> Result<Bytes, Error> {
    // the places of values to replace: start, end, index of the addition
    let mut replaced: Vec<(usize, usize, usize)> = Vec::new();
    let mut present = [false; MAX_ADDITIONS];
    if additions.iter().any(|addition| members::may_have(object, addition.name)) {
        members::for_each(object, |name, value| {
            if let Some(index) = additions.iter().position(|addition| addition.name == name) {
                present[index] = true;
                if additions[index].existing == Existing::Replace {
                    let start = value.get().as_ptr() as usize - object.as_ptr() as usize;
                    replaced.push((start, start + value.get().len(), index));
                }
            }
        });
    }
    let repeats: usize = replaced.iter().skip(1).map(|&(_, _, index)| additions[index].json.len()).sum();
    if repeats > object.len() + REPEATS_MAY_ADD {
        let name = replaced.first().map_or("", |&(_, _, index)| additions[index].name);
        let detail = format!("the object has the member `{name}` {} times; send it once", replaced.len());
        return Err(Error::new(Kind::InvalidBody, detail));
    }
    let added: usize = additions.iter().map(|addition| addition.name.len() + addition.json.len() + 4).sum();
    buffer.reserve(object.len() + added + repeats);
    let end = object.rfind('}').unwrap_or(object.len());
    let mut from = 0;
    for (start, stop, index) in replaced {
        buffer.put_slice(&object.as_bytes()[from..start]);
        buffer.put_slice(additions[index].json.as_bytes());
        from = stop;
    }
    buffer.put_slice(&object.as_bytes()[from..end]);
    let mut comma = object[..end].trim_ascii() != "{";
    for (index, addition) in additions.iter().enumerate() {
        if !present[index] {
            put_member(buffer, comma, addition);
            comma = true;
        }
    }
    buffer.put_slice(&object.as_bytes()[end..]);
    Ok(buffer.split().freeze())
}

/// More than any record form adds.
const MAX_ADDITIONS: usize = 4;

/// What is no object, as the member `value` of one: `{"value":x,"project":p}`.
pub fn into_wrapper(value: &str, project: &str, buffer: &mut BytesMut) -> Bytes {
    buffer.reserve(value.len() + project.len() + 24);
    for part in [r#"{"value":"#, value, r#","project":"#, project, "}"] {
        buffer.put_slice(part.as_bytes());
    }
    buffer.split().freeze()
}

fn put_member(buffer: &mut BytesMut, comma: bool, addition: &Addition<'_>) {
    for part in [if comma { ",\"" } else { "\"" }, addition.name, "\":", addition.json] {
        buffer.put_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn project(object: &str) -> String {
        let additions = [Addition { name: "project", json: "\"p\"", existing: Existing::Replace }];
        String::from_utf8(into_object(object, &additions, &mut BytesMut::new()).unwrap().to_vec()).unwrap()
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
            Addition { name: "timestamp", json: "\"t\"", existing: Existing::Keep },
            Addition { name: "source", json: "\"s\"", existing: Existing::Keep },
        ];
        let out = into_object(r#"{"timestamp":null}"#, &additions, &mut BytesMut::new());
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
                let additions = [Addition { name: "project", json: &project_json, existing: Existing::Replace }];
                (into_object(&text, &additions, buffer).unwrap(), members.clone())
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
