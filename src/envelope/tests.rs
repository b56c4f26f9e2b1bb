//! What each part of an envelope does to the record.

use super::*;
use crate::produce::{Header, Record};
use bytes::Bytes;

pub(super) fn context() -> Context<'static> {
    Context {
        now_ms: 1_795_228_481_123,
        automatic: Arc::default(),
        source: Some("kafka-inlet"),
        max_records: 5,
    }
}

fn named(body: &str) -> Result<Record, Error> {
    parse_record(&Bytes::copy_from_slice(body.as_bytes()), Target::Named, &context())
}

/// A body for the topic `t` with these further members.
fn with(members: &str) -> Result<Record, Error> {
    named(&format!(r#"{{"topic":"t","value":{{}},"project":"p",{members}}}"#))
}

fn value(body: &str) -> String {
    String::from_utf8(named(body).unwrap().value.unwrap().to_vec()).unwrap()
}

fn kind(result: Result<Record, Error>) -> Kind {
    result.unwrap_err().kind
}

#[test]
fn an_object_gets_the_project_and_keeps_its_bytes() {
    let body = r#"{"topic":"t","value":{"n": 12345678901234567890, "f":1.0,"é":"\u00e9"},"project":"shöp"}"#;
    assert_eq!(value(body), r#"{"n": 12345678901234567890, "f":1.0,"é":"\u00e9","project":"shöp"}"#);
}

#[test]
fn a_project_that_is_repeated_cannot_multiply_the_body() {
    let repeated = vec![r#""project":0"#; 100_000].join(",");
    let body = format!(r#"{{"topic":"t","value":{{{repeated}}},"project":"{}"}}"#, "p".repeat(1 << 20));
    assert_eq!(kind(named(&body)), Kind::InvalidBody);
    let (few, short) = ([r#""project":0"#; 10].join(","), "p".repeat(36));
    let landed = value(&format!(r#"{{"topic":"t","value":{{{few}}},"project":"{short}"}}"#));
    assert_eq!(landed.matches(&short).count(), 10);
}

#[test]
fn any_other_value_is_wrapped() {
    for json in ["null", "1.50", "\"x\"", "[1, 2]", "true"] {
        let body = format!(r#"{{"topic":"t","value":{json},"project":"p"}}"#);
        assert_eq!(value(&body), format!(r#"{{"value":{json},"project":"p"}}"#));
    }
}

#[test]
fn a_message_gets_what_its_sender_has_not_set() {
    assert_eq!(
        value(r#"{"topic":"t","message":{"a":1,"source":"mine"}}"#),
        r#"{"a":1,"source":"mine","timestamp":"2026-11-21T02:34:41.123Z","server_time":1795228481.123}"#
    );
}

#[test]
fn a_message_with_a_project_gets_it_too() {
    let landed = value(r#"{"topic":"t","message":{"a":1},"project":"p"}"#);
    assert!(landed.starts_with(r#"{"a":1,"project":"p","timestamp":"#), "{landed}");
}

#[test]
fn without_enrichment_a_message_is_written_as_sent() {
    let body = Bytes::from_static(br#"{"topic":"t","message": {"a" : 1}}"#);
    let context = Context { source: None, ..context() };
    let record = parse_record(&body, Target::Named, &context).unwrap();
    assert_eq!(record.value.as_deref(), Some(&br#"{"a" : 1}"#[..]));
}

#[test]
fn a_tombstone_is_a_null_value_and_needs_a_key() {
    for body in [
        r#"{"topic":"t","key":"k","tombstone":true}"#,
        r#"{"topic":"t","key":"k","tombstone":true,"value":null}"#,
    ] {
        assert_eq!(named(body).unwrap().value, None, "{body}");
    }
    assert_eq!(kind(named(r#"{"topic":"t","tombstone":true}"#)), Kind::InvalidKey);
    assert_eq!(kind(named(r#"{"topic":"t","key":"k","tombstone":true,"value":1}"#)), Kind::InvalidBody);
    assert_eq!(kind(with(r#""tombstone":"yes""#)), Kind::InvalidBody);
    assert!(with(r#""tombstone":false"#).unwrap().value.is_some());
}

#[test]
fn a_value_is_required_and_only_one() {
    assert_eq!(kind(named(r#"{"topic":"t","project":"p"}"#)), Kind::MissingValue);
    assert_eq!(kind(named(r#"{"topic":"t","message":null}"#)), Kind::MissingValue);
    assert_eq!(kind(with(r#""message":{}"#)), Kind::InvalidBody);
    assert_eq!(kind(named(r#"{"topic":"t","message":[1]}"#)), Kind::InvalidBody);
}

#[test]
fn a_project_is_required_with_a_value_and_may_not_be_blank() {
    for project in ["null", "1", "\"\"", "\" \\t\"", "\"\u{a0}\u{feff}\"", "{}"] {
        let body = format!(r#"{{"topic":"t","value":1,"project":{project}}}"#);
        assert_eq!(kind(named(&body)), Kind::MissingProject, "{project}");
    }
    assert_eq!(kind(named(r#"{"topic":"t","value":1}"#)), Kind::MissingProject);
}

#[test]
fn a_topic_is_required_and_must_be_legal() {
    assert_eq!(kind(named(r#"{"value":1,"project":"p"}"#)), Kind::MissingTopic);
    for topic in ["1", "\"\"", "\"a b\"", "\"..\"", "\"__consumer_offsets\"", "[]", "true"] {
        let body = format!(r#"{{"topic":{topic},"value":1,"project":"p"}}"#);
        assert_eq!(kind(named(&body)), Kind::InvalidTopic, "{topic}");
    }
}

#[test]
fn a_fault_does_not_quote_what_the_sender_sent() {
    for body in [r#""s3cret""#, r#"["s3cret"]"#] {
        let error = named(body).unwrap_err();
        assert_eq!(error.kind, Kind::InvalidBody);
        assert!(error.detail.contains("an object") && !error.detail.contains("s3cret"), "{}", error.detail);
    }
}

#[test]
fn a_fixed_route_ignores_topic_and_partition() {
    let topic = TopicName::parse("rtmh.logs").unwrap();
    let body = Bytes::from_static(br#"{"value":1,"project":"p","topic":7,"partition":-9}"#);
    let record = parse_record(&body, Target::Fixed(&topic), &context()).unwrap();
    assert_eq!((record.topic, record.partition), (topic, None));
}

#[test]
fn a_key_is_a_string_and_empty_means_none() {
    assert_eq!(with(r#""key":"k\n1""#).unwrap().key.as_deref(), Some(&b"k\n1"[..]));
    assert_eq!(with(r#""key":"ü""#).unwrap().key.as_deref(), Some("ü".as_bytes()));
    assert_eq!(with(r#""key":"""#).unwrap().key, None);
    assert_eq!(with(r#""key":null"#).unwrap().key, None);
    for key in ["1", "true", "{}", "[]"] {
        assert_eq!(kind(with(&format!(r#""key":{key}"#))), Kind::InvalidKey, "{key}");
    }
}

#[test]
fn a_partition_is_a_whole_number_and_minus_one_means_any() {
    assert_eq!(with(r#""partition":3"#).unwrap().partition, Some(3));
    assert_eq!(with(r#""partition":-1"#).unwrap().partition, None);
    assert_eq!(with(r#""partition":null"#).unwrap().partition, None);
    for partition in ["-2", "1.0", "\"1\"", "2147483648", "1e3", "true"] {
        assert_eq!(kind(with(&format!(r#""partition":{partition}"#))), Kind::InvalidPartition, "{partition}");
    }
}

#[test]
fn headers_are_text_binary_or_null_and_keep_their_order() {
    let record = with(r#""headers":{"b":"x","a":{"base64":"/wA="},"b":"é","n":null}"#).unwrap();
    let header = |name: &str, value: Option<&'static [u8]>| Header {
        name: name.into(),
        value: value.map(Bytes::from_static),
    };
    let expected = [
        header("b", Some(b"x")),
        header("a", Some(b"\xff\0")),
        header("b", Some("é".as_bytes())),
        header("n", None),
    ];
    assert_eq!(record.headers, expected);
}

#[test]
fn faulty_headers_are_named() {
    for headers in [
        r#"{"h":1}"#,
        r#"{"h":{"base64":"?"}}"#,
        r#"{"h":{"base64":"","x":1}}"#,
        "[]",
        "\"x\"",
        r#"{"":"x"}"#,
        r#"{"a\u0000b":"x"}"#,
    ] {
        let error = with(&format!(r#""headers":{headers}"#)).unwrap_err();
        assert_eq!(error.kind, Kind::InvalidHeader, "{headers}");
    }
    assert!(with(r#""headers":{"tenant":7}"#).unwrap_err().detail.contains("'tenant'"));
}

#[test]
fn headers_are_bounded_by_record_and_by_body() {
    let headers = |count: usize| {
        let all: Vec<_> = (0..count).map(|n| format!(r#""h{n}":"x""#)).collect();
        format!(r#""headers":{{{}}}"#, all.join(","))
    };
    assert_eq!(with(&headers(1000)).unwrap().headers.len(), 1000);
    assert_eq!(kind(with(&headers(1001))), Kind::InvalidHeader);
    let line = format!(r#"{{"topic":"t","value":1,"project":"p",{}}}"#, headers(1000));
    let body = Bytes::from(vec![line; 101].join("\n"));
    let context = Context { max_records: 200, ..context() };
    let Err(BatchError::Elements(faults)) = parse_batch(&body, BatchFormat::Ndjson, &context) else {
        panic!("no fault")
    };
    assert_eq!((faults.total, faults.named[0].0, faults.named[0].1.kind), (1, 100, Kind::InvalidHeader));
}

#[test]
fn a_fault_quotes_no_more_of_a_name_than_a_line_holds() {
    for value in ["1", r#"{"base64":"?"}"#] {
        let error = with(&format!(r#""headers":{{"{}":{value}}}"#, "ä".repeat(100_000))).unwrap_err();
        assert!(
            error.kind == Kind::InvalidHeader && error.detail.len() < 300,
            "{} bytes",
            error.detail.len()
        );
    }
}

#[test]
fn a_timestamp_is_milliseconds_or_rfc_3339() {
    for timestamp in [
        "1795228481123",
        "\"2026-11-21T02:34:41.123Z\"",
        "\"2026-11-21 02:34:41.123\"",
        "\"2026-11-21T03:34:41.123+01:00\"",
        "\"2026-11-21T02:34:41.123\"",
    ] {
        assert_eq!(
            with(&format!(r#""timestamp":{timestamp}"#)).unwrap().timestamp,
            1_795_228_481_123,
            "{timestamp}"
        );
    }
    for timestamp in [
        "0",
        "-5",
        "1.5",
        "\"yesterday\"",
        "\"2026-11-21\"",
        "true",
        "1e300",
        "\"\"",
        "99999999999999999",
        "\"2026-11-21T09:00:00[America/New_York]\"",
        "\"2026-11-21T09:00:00-05:00[America/New_York]\"",
    ] {
        assert_eq!(kind(with(&format!(r#""timestamp":{timestamp}"#))), Kind::InvalidTimestamp, "{timestamp}");
    }
}

#[test]
fn seconds_are_not_taken_for_milliseconds() {
    for seconds in ["1", "1795253400", "99999999999"] {
        let Err(error) = with(&format!(r#""timestamp":{seconds}"#)) else { panic!("{seconds}") };
        assert_eq!(error.kind, Kind::InvalidTimestamp);
        assert!(error.to_string().contains("milliseconds since 1970, or"), "{error}");
    }
    let early = [("100000000000", 100_000_000_000), ("\"1970-01-01T00:00:01Z\"", 1000)];
    for (timestamp, millis) in early {
        assert_eq!(with(&format!(r#""timestamp":{timestamp}"#)).unwrap().timestamp, millis);
    }
}

#[test]
fn without_a_timestamp_the_record_has_the_time_of_its_arrival() {
    assert_eq!(with(r#""timestamp":null"#).unwrap().timestamp, context().now_ms);
}

#[test]
fn unknown_members_are_ignored_unless_they_are_nested_too_deep() {
    assert!(with(r#""whatever":{"topic":1}"#).is_ok());
    let deep = format!(r#""x":{}{}"#, "[".repeat(200_000), "]".repeat(200_000));
    assert_eq!(kind(with(&deep)), Kind::InvalidBody);
}
