//! What the service itself does for a record, part by part: `cargo bench --bench hot_path [-- name]`.
//! Kafka, sockets and tokio are not in it; `bench/` measures the whole.

#![expect(clippy::unwrap_used, reason = "a faulty benchmark may fail by a panic")]

use bytes::Bytes;
use divan::{Bencher, black_box, counter::ItemsCount};
use kafka_inlet::{
    envelope::{BatchFormat, Context, Target, parse_batch, parse_record},
    http::answer,
    kafka::partitioner,
    produce::{Accepted, AutomaticHeaders, Header, Receipt, Record, TopicName},
};
use std::sync::Arc;

const RECORDS: usize = 1000;
const PARTITIONS: i32 = 12;

/// The message of `bench/harness/records.py`.
const MESSAGE: &str = concat!(
    r#"{"level":"info","service":"checkout","ts":"2026-11-21T09:30:00.123Z","#,
    r#""trace_id":"0af7651916cd43dd8448eb211c80319c","msg":"order 20481 of customer 7731 was paid","took_ms":41}"#
);

fn main() {
    divan::main();
}

fn context(source: Option<&'static str>) -> Context<'static> {
    let now_ms = 1_795_228_481_123;
    Context { now_ms, automatic: Arc::new(AutomaticHeaders::default()), source, max_records: RECORDS }
}

fn value_form(value: &str) -> String {
    format!(r#"{{"topic":"bench.orders","project":"shop","value":{value}}}"#)
}

fn message_form() -> String {
    format!(r#"{{"topic":"bench.orders","message":{MESSAGE}}}"#)
}

/// With every member that is read.
fn full_form() -> String {
    let rest = r#""topic":"bench.orders","project":"shop","key":"customer-7731","timestamp":1795228481123"#;
    format!(r#"{{{rest},"headers":{{"tenant-id":"acme","source":"web"}},"value":{MESSAGE}}}"#)
}

fn object_of_10_kb() -> String {
    let items: Vec<_> = (100_000..100_190)
        .map(|id| format!(r#"{{"id":{id},"text":"a part of a longer document"}}"#))
        .collect();
    format!(r#"{{"items":[{}]}}"#, items.join(","))
}

fn receipt() -> Accepted {
    let topic = TopicName::parse("bench.orders").unwrap();
    Accepted::Written(Receipt { topic, partition: 3, offset: Some(123_456), timestamp: 1_795_228_481_123 })
}

fn one(bencher: Bencher, body: String, source: Option<&'static str>) {
    let (body, context) = (Bytes::from(body), context(source));
    bencher.bench_local(|| parse_record(black_box(&body), Target::Named, &context).unwrap());
}

fn many(bencher: Bencher, envelope: &str, format: BatchFormat) {
    let envelopes = vec![envelope; RECORDS];
    let body = match format {
        BatchFormat::Array => format!("[{}]", envelopes.join(",")),
        BatchFormat::Ndjson => envelopes.join("\n"),
    };
    let (body, context) = (Bytes::from(body), context(Some("kafka-inlet")));
    bencher
        .counter(ItemsCount::new(RECORDS))
        .bench_local(|| parse_batch(black_box(&body), format, &context).unwrap());
}

#[divan::bench]
fn record_with_value(bencher: Bencher) {
    one(bencher, value_form(MESSAGE), None);
}

#[divan::bench]
fn record_with_value_of_10_kb(bencher: Bencher) {
    one(bencher, value_form(&object_of_10_kb()), None);
}

#[divan::bench]
fn record_with_every_member(bencher: Bencher) {
    one(bencher, full_form(), None);
}

/// Nothing is spliced: the difference to the next is what splicing costs.
#[divan::bench]
fn record_with_message_as_it_is(bencher: Bencher) {
    one(bencher, message_form(), None);
}

#[divan::bench]
fn record_with_message_enriched(bencher: Bencher) {
    one(bencher, message_form(), Some("kafka-inlet"));
}

#[divan::bench]
fn array_with_values(bencher: Bencher) {
    many(bencher, &value_form(MESSAGE), BatchFormat::Array);
}

#[divan::bench]
fn array_with_messages_enriched(bencher: Bencher) {
    many(bencher, &message_form(), BatchFormat::Array);
}

#[divan::bench]
fn array_with_every_member(bencher: Bencher) {
    many(bencher, &full_form(), BatchFormat::Array);
}

#[divan::bench]
fn ndjson_with_values(bencher: Bencher) {
    many(bencher, &value_form(MESSAGE), BatchFormat::Ndjson);
}

#[divan::bench]
fn tenants_partition(bencher: Bencher) {
    let body = Bytes::from(value_form(MESSAGE));
    let record = parse_record(&body, Target::Named, &context(None)).unwrap();
    let tenant = Header { name: "tenant-id".into(), value: Some(Bytes::from_static(b"acme")) };
    let record = Record { headers: vec![tenant], ..record };
    bencher.bench_local(|| partitioner::tenant(black_box(&record), PARTITIONS));
}

#[divan::bench]
fn answer_to_one(bencher: Bencher) {
    let receipt = receipt();
    bencher.bench_local(|| answer::one(black_box(&receipt)));
}

#[divan::bench]
fn answer_to_many(bencher: Bencher) {
    let verdicts: Vec<_> = (0..RECORDS).map(|_| Ok(receipt())).collect();
    bencher.counter(ItemsCount::new(RECORDS)).bench_local(|| answer::many(black_box(&verdicts)));
}
