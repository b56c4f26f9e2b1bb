//! How often the hot path asks for memory: a regression guard that a busy machine cannot disturb.

#![expect(unsafe_code, reason = "a global allocator is unsafe by nature")]
#![expect(clippy::unwrap_used, reason = "a test fails by a panic, its helpers too")]
#![expect(clippy::print_stdout, reason = "the counts are what whoever changes a bound looks for")]

use axum::{body::Body, extract::Request};
use bytes::Bytes;
use http_body_util::BodyExt;
use kafka_inlet::{
    config::Config,
    envelope::{BatchFormat, Context, Target, parse_batch, parse_record},
    http::{AppState, Parts, Service, answer},
    kafka::{EmbeddedCluster, KafkaProducer},
    lifecycle::{readiness::Readiness, supervisor::Supervisor},
    produce::{Accepted, Budget, Pipeline, Receipt, Settings, TopicName},
    telemetry::metrics::Metrics,
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    hint::black_box,
    sync::Arc,
    time::Duration,
};

/// What may be allocated; a new allocation is a block asked for or grown. Measured, and a little more: at most
/// one, or 15 % of the last two, which other libraries' versions move. Who makes the hot path leaner lowers
/// the number to what the failing or printed count says (`cargo test --test allocations -- --nocapture`); who
/// raises one says why in the commit.
const MAX_VALUE: usize = 3;
const MAX_MESSAGE: usize = 6;
/// Key, timestamp and two headers.
const MAX_FULL: usize = 7;
/// For all the 1,000 records of one topic.
const MAX_ARRAY: usize = 13;
const MAX_NDJSON: usize = 13;
const MAX_ANSWER: usize = 6;
const MAX_BATCH_ANSWER: usize = 6;
const MAX_REQUEST: usize = 28;

const MESSAGE: &str = r#"{"level":"info","service":"checkout","msg":"order 20481 was paid","took_ms":41}"#;
const RECORDS: usize = 1000;

struct Counting;

thread_local! {
    /// Of this thread: the test harness and librdkafka have threads of their own.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    // no destructor runs for a Cell, so the thread's last allocations find it too
    ALLOCATIONS.with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is passed on as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(block, layout, size) }
    }
}

/// The allocations of one call, after a first one that fills what is made once a process.
fn allocations<T>(name: &str, max: usize, mut call: impl FnMut() -> T) {
    drop(call());
    let before = ALLOCATIONS.get();
    let result = black_box(call());
    let count = ALLOCATIONS.get() - before;
    drop(result);
    judge(name, max, count);
}

#[track_caller]
fn judge(name: &str, max: usize, count: usize) {
    println!("{name}: {count} allocations, {max} are allowed");
    assert!(count <= max, "{name}: {count} allocations, {max} are allowed");
}

fn context() -> Context<'static> {
    let automatic = Arc::default();
    Context { now_ms: 1_795_228_481_123, automatic, source: Some("kafka-inlet"), max_records: RECORDS }
}

fn value_form() -> String {
    format!(r#"{{"topic":"orders","project":"shop","value":{MESSAGE}}}"#)
}

fn receipt() -> Accepted {
    let topic = TopicName::parse("orders").unwrap();
    Accepted::Written(Receipt { topic, partition: 3, offset: Some(123_456), timestamp: 1_795_228_481_123 })
}

#[test]
fn an_envelope_needs_few_allocations() {
    let message = format!(r#"{{"topic":"orders","message":{MESSAGE}}}"#);
    let rest = r#""topic":"orders","project":"shop","key":"customer-7731","timestamp":1795228481123"#;
    let full = format!(r#"{{{rest},"headers":{{"tenant-id":"acme","source":"web"}},"value":{MESSAGE}}}"#);
    for (name, max, body) in [
        ("an envelope with `value`", MAX_VALUE, value_form()),
        ("an envelope with `message`", MAX_MESSAGE, message),
        ("an envelope with every member", MAX_FULL, full),
    ] {
        let (text, context) = (body.into_bytes(), context());
        // as it comes from a connection; its first slice makes it shared
        let mut bodies = [Bytes::from(text.clone()), Bytes::from(text.clone())].into_iter();
        allocations(name, max, || parse_record(&bodies.next().unwrap(), Target::Named, &context).unwrap());
    }
}

#[test]
fn a_batch_needs_few_allocations() {
    let (context, envelopes) = (context(), vec![value_form(); RECORDS]);
    let array = Bytes::from(format!("[{}]", envelopes.join(",")));
    let lines = Bytes::from(envelopes.join("\n"));
    for (name, max, body, format) in [
        ("an array of 1,000", MAX_ARRAY, array, BatchFormat::Array),
        ("1,000 lines", MAX_NDJSON, lines, BatchFormat::Ndjson),
    ] {
        allocations(name, max, || parse_batch(&body, format, &context).unwrap());
    }
}

#[test]
fn an_answer_needs_few_allocations() {
    let receipt = receipt();
    allocations("an answer to one record", MAX_ANSWER, || answer::one(&receipt));
    let verdicts: Vec<_> = (0..RECORDS).map(|_| Ok(receipt.clone())).collect();
    allocations("an answer to 1,000 records", MAX_BATCH_ANSWER, || answer::many(&verdicts));
}

/// The service in this process, on librdkafka's mock cluster, which must outlive it.
fn service(config: &mut Config, supervisor: &mut Supervisor) -> (EmbeddedCluster, AppState) {
    let topics = [TopicName::parse("orders").unwrap()];
    let cluster = EmbeddedCluster::start(&topics, 1).unwrap();
    config.kafka.brokers = vec![cluster.bootstrap_servers().to_owned()];
    let (limits, timeout) = (&config.limits, config.kafka.delivery_timeout);
    let (budget, readiness) = (Budget::new(limits.max_in_flight_bytes), Readiness::new());
    let metrics = Metrics::new(10, timeout, limits.max_in_flight_bytes, "test").unwrap();
    let metrics = Arc::new(metrics);
    let producer =
        KafkaProducer::start(config, readiness.clone(), metrics.clone(), Arc::default(), supervisor).unwrap();
    let settings = Settings { delivery_timeout: timeout, max_record_bytes: limits.max_record_bytes };
    let state = AppState::new(Parts {
        pipeline: Pipeline::new(producer, budget, metrics.clone(), settings),
        metrics,
        readiness,
        http: config.http.clone(),
        limits: config.limits.clone(),
        records: config.records.clone(),
        topics: config.topics.clone(),
        instance: config.instance_id.clone(),
        client_id: config.kafka.client_id.clone(),
        brokers: config.kafka.brokers.clone(),
        embedded: true,
    });
    (cluster, state)
}

/// From the parsed HTTP head to the answer's last byte; connections are hyper's.
#[tokio::test]
async fn a_request_needs_few_allocations() {
    let (mut config, mut supervisor) = (Config::default(), Supervisor::new());
    let (_cluster, state) = service(&mut config, &mut supervisor);
    let service = Service::new(state);
    let body = Bytes::from(value_form());
    let mut counts = Vec::new();
    let started = std::time::Instant::now();
    while counts.len() < 50 {
        assert!(started.elapsed() < Duration::from_secs(20), "the service does not get ready");
        let request =
            Request::post("/produce").header("host", "a").header("content-type", "application/json");
        let request = request.body(Body::from(body.clone())).unwrap();
        let before = ALLOCATIONS.get();
        let answer = service.answer(request).await;
        let status = answer.status();
        answer.into_body().collect().await.unwrap();
        let count = ALLOCATIONS.get() - before;
        match status.as_u16() {
            202 => counts.push(count),
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    // the least: tasks of the service run on this thread as well, now and then
    judge("a request for one record", MAX_REQUEST, counts.into_iter().min().unwrap());
}
