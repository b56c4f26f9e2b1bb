//! Many envelopes in one body.

use super::{BatchError, Context, Error, Faults, Target, fields::Fields, json, record::Reader};
use crate::produce::Record;
use bytes::{Bytes, BytesMut};
use serde::{
    Deserializer,
    de::{self, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use std::fmt;

/// How the envelopes of a batch are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchFormat {
    /// A JSON array of objects.
    Array,
    /// One JSON object a line (<https://github.com/ndjson/ndjson-spec>); blank lines are skipped.
    Ndjson,
}

/// Reads every envelope, or names the faults of the first faulty ones and counts them all.
pub fn parse_batch(
    body: &Bytes,
    format: BatchFormat,
    context: &Context<'_>,
) -> Result<Vec<Record>, BatchError> {
    let text = json::text(body).map_err(BatchError::Body)?;
    // a faulty batch is read again, from its start: that keeps the names of its faults out of the common case
    at_once(body, text, format, context).map_or_else(|| one_by_one(body, text, format, context), Ok)
}

/// The records of a batch without fault, in one pass. None says nothing of what is wrong.
fn at_once(body: &Bytes, text: &str, format: BatchFormat, context: &Context<'_>) -> Option<Vec<Record>> {
    let mut reader = reader(body, context);
    match format {
        BatchFormat::Array => {
            let mut deserializer = serde_json::Deserializer::from_str(text);
            let records = deserializer.deserialize_seq(Records { reader }).ok()?;
            deserializer.end().ok()?;
            Some(records)
        }
        BatchFormat::Ndjson => {
            let mut records = Vec::new();
            for line in lines(text) {
                if records.len() == context.max_records {
                    return None;
                }
                records.push(reader.record(line).ok()?);
            }
            Some(records)
        }
    }
}

/// The records of a batch, element for element, so that every fault is found.
fn one_by_one(
    body: &Bytes,
    text: &str,
    format: BatchFormat,
    context: &Context<'_>,
) -> Result<Vec<Record>, BatchError> {
    let elements = match format {
        BatchFormat::Array => array(text, context.max_records).map_err(BatchError::Body)?,
        BatchFormat::Ndjson => lines(text).take(context.max_records + 1).collect(),
    };
    if elements.len() > context.max_records {
        return Err(BatchError::TooManyRecords { limit: context.max_records });
    }
    let mut reader = reader(body, context);
    let mut records = Vec::with_capacity(elements.len());
    let mut faults = Faults::default();
    for (index, element) in elements.into_iter().enumerate() {
        match reader.record(element) {
            Ok(record) if faults.total == 0 => records.push(record),
            Ok(_) => {}
            Err(fault) => faults.add(index, fault),
        }
    }
    if faults.total == 0 { Ok(records) } else { Err(BatchError::Elements(faults)) }
}

/// With room for values as large as the body together: splicing rarely makes them larger than their envelopes.
fn reader<'a>(body: &'a Bytes, context: &'a Context<'a>) -> Reader<'a> {
    Reader::new(body, Target::Named, context, BytesMut::with_capacity(body.len()))
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    let ends = memchr::memchr_iter(b'\n', text.as_bytes()).chain([text.len()]);
    let lines = ends.scan(0, |start, end| Some(&text[std::mem::replace(start, end + 1)..end]));
    lines.map(|line| line.trim_matches([' ', '\t', '\r'])).filter(|line| !line.is_empty())
}

/// The elements of a JSON array, one more than `max` at most.
fn array(text: &str, max: usize) -> Result<Vec<&str>, Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let elements =
        deserializer.deserialize_seq(Elements { max }).map_err(|error| Error::from_json(&error, text))?;
    if elements.len() <= max {
        deserializer.end().map_err(|error| Error::from_json(&error, text))?;
    }
    Ok(elements)
}

/// Reads each element of an array into a record, up to the first fault.
struct Records<'a> {
    reader: Reader<'a>,
}

impl<'de> Visitor<'de> for Records<'_> {
    type Value = Vec<Record>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut records = Vec::new();
        while let Some(fields) = seq.next_element::<Fields<'de>>()? {
            if records.len() == self.reader.max_records() {
                return Err(de::Error::custom("too many records"));
            }
            records.push(self.reader.record_of(&fields).map_err(de::Error::custom)?);
        }
        Ok(records)
    }
}

struct Elements {
    max: usize,
}

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects; one object goes to /produce, newline-delimited ones need their content type")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element::<&'de RawValue>()? {
            if elements.len() > self.max {
                // only counted: how many there are beyond the limit does not matter
                continue;
            }
            elements.push(element.get());
        }
        Ok(elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Kind, tests::context};
    use proptest::prelude::*;

    fn parse(body: &str, format: BatchFormat) -> Result<Vec<Record>, BatchError> {
        parse_batch(&Bytes::copy_from_slice(body.as_bytes()), format, &context())
    }

    const ONE: &str = r#"{"topic":"a","value":1,"project":"p"}"#;

    #[test]
    fn an_array_and_lines_give_the_same_records() {
        let two = r#"{"topic":"b","message":{"x":1},"key":"k"}"#;
        let array = parse(&format!("[{ONE}, {two}]"), BatchFormat::Array).unwrap();
        let lines = parse(&format!("{ONE}\r\n\n {two}"), BatchFormat::Ndjson).unwrap();
        for records in [&array, &lines] {
            let topics: Vec<_> = records.iter().map(|record| record.topic.as_str()).collect();
            assert_eq!(topics, ["a", "b"]);
            assert_eq!(records[0].value.as_deref(), Some(&br#"{"value":1,"project":"p"}"#[..]));
            assert_eq!(records[1].key.as_deref(), Some(&b"k"[..]));
        }
    }

    #[test]
    fn nothing_is_a_batch_of_nothing() {
        assert!(parse("[]", BatchFormat::Array).unwrap().is_empty());
        assert!(parse("", BatchFormat::Ndjson).unwrap().is_empty());
        assert!(parse("\n \n", BatchFormat::Ndjson).unwrap().is_empty());
    }

    #[test]
    fn faulty_elements_are_named() {
        let body = format!("[{ONE}, 7, {ONE}, {{\"topic\":\"a\",\"value\":1}}]");
        let Err(BatchError::Elements(faults)) = parse(&body, BatchFormat::Array) else { panic!("no faults") };
        let named: Vec<_> = faults.named.into_iter().map(|(index, error)| (index, error.kind)).collect();
        assert_eq!(named, [(1, Kind::InvalidBody), (3, Kind::MissingProject)]);
        assert_eq!(faults.total, 2);
    }

    #[test]
    fn a_line_that_is_no_json_is_that_elements_fault() {
        let Err(BatchError::Elements(faults)) = parse(&format!("{ONE}\n{{"), BatchFormat::Ndjson) else {
            panic!("no faults")
        };
        assert_eq!((faults.named[0].0, faults.named[0].1.kind), (1, Kind::InvalidJson));
    }

    #[test]
    fn of_many_faulty_elements_the_first_hundred_are_named_and_all_are_counted() {
        let context = Context { max_records: 1000, ..context() };
        for (body, format) in [
            (format!("[{ONE}{}]", ",{}".repeat(999)), BatchFormat::Array),
            (format!("{ONE}\n{}", "{}\n".repeat(999)), BatchFormat::Ndjson),
        ] {
            let Err(BatchError::Elements(faults)) = parse_batch(&Bytes::from(body), format, &context) else {
                panic!("no faults")
            };
            assert_eq!((faults.named.len(), faults.total), (100, 999), "{format:?}");
            assert!(faults.named.iter().map(|(index, _)| *index).eq(1..=100), "{format:?}");
        }
    }

    #[test]
    fn what_is_no_array_is_a_fault_of_the_body() {
        for (body, kind) in
            [("{}", Kind::InvalidBody), ("[1", Kind::InvalidJson), ("[] []", Kind::InvalidJson)]
        {
            let Err(BatchError::Body(error)) = parse(body, BatchFormat::Array) else { panic!("{body}") };
            assert_eq!(error.kind, kind, "{body}");
        }
    }

    #[test]
    fn more_records_than_the_limit_are_refused() {
        let limit = context().max_records;
        let body = vec![ONE; limit + 1];
        let expected = Err(BatchError::TooManyRecords { limit });
        assert_eq!(parse(&format!("[{}]", body.join(",")), BatchFormat::Array).map(|r| r.len()), expected);
        assert_eq!(parse(&body.join("\n"), BatchFormat::Ndjson).map(|r| r.len()), expected);
        assert_eq!(parse(&body[1..].join("\n"), BatchFormat::Ndjson).map(|r| r.len()), Ok(limit));
    }

    /// Envelopes and other things that stand in a batch, good and bad.
    fn element() -> impl Strategy<Value = String> {
        let member = prop_oneof![
            4 => Just(r#""topic":"a""#),
            4 => Just(r#""project":"p""#),
            4 => Just(r#""value":{"project":1, "a":[1]}"#),
            2 => Just(r#""message": {"a" : 1}"#),
            1 => Just(r#""k\u0065y":"k\n""#),
            1 => Just(r#""key":"k""#),
            1 => Just(r#""headers":{"a":"b","c":{"base64":"/w=="},"d":null}"#),
            1 => Just(r#""headers":{"a":1}"#),
            1 => Just(r#""partition":-0"#),
            1 => Just(r#""timestamp":"2026-11-21T02:34:41.123Z""#),
            1 => Just(r#""tombstone":true"#),
            1 => Just(r#""other":01"#),
            1 => Just("7"),
        ];
        let members = prop::collection::vec(member, 0..7).prop_map(|all| format!("{{{}}}", all.join(",")));
        let good = r#"{"topic":"a","value":{"b":1},"project":"p"}"#.to_owned();
        let deep = |levels| {
            format!(r#"{{"topic":"a","message":{{}},"x":{}{}}}"#, "[".repeat(levels), "]".repeat(levels))
        };
        prop_oneof![
            8 => Just(good),
            4 => members,
            1 => (json::MAX_DEPTH - 2..json::MAX_DEPTH + 2).prop_map(deep),
            1 => "[\\[\\]{}:,\" 0-9a-z]{0,8}",
        ]
    }

    proptest! {
        #[test]
        fn one_pass_gives_what_reading_each_element_gives(
            elements in prop::collection::vec(element(), 0..7),
            cut in 0..400_usize,
            tail in prop_oneof![8 => Just(""), 1 => Just(" "), 1 => Just("]"), 1 => Just(",[]")],
        ) {
            let array = format!(" [{}]{tail}", elements.join(" ,\n"));
            let lines = format!("{}\n{tail}", elements.join(" \r\n\n"));
            let cut = |text: &str| text.get(..text.len().saturating_sub(cut)).unwrap_or_default().to_owned();
            for (body, format) in [
                (cut(&array), BatchFormat::Array), (cut(&lines), BatchFormat::Ndjson),
                (array, BatchFormat::Array), (lines, BatchFormat::Ndjson),
            ] {
                let bytes = Bytes::from(body);
                let text = std::str::from_utf8(&bytes).unwrap();
                let at_once = at_once(&bytes, text, format, &context());
                let one_by_one = one_by_one(&bytes, text, format, &context());
                prop_assert_eq!(format!("{:?}", at_once), format!("{:?}", one_by_one.ok()), "{}", text);
            }
        }
    }
}
