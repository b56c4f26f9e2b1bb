//! An in-process service over a scripted producer, for the tests of this module.

use super::{AppState, Parts, Service};
use crate::{
    config,
    lifecycle::readiness::Readiness,
    produce::{
        Budget, InstanceId, Pipeline, Settings,
        fake::{FakeProducer, FakeSpool},
    },
    telemetry::metrics::Metrics,
};
use axum::{body::Body, extract::Request};
use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use std::{sync::Arc, time::Duration};

/// Bytes in flight.
const IN_FLIGHT: usize = 8 << 10;

/// The topics that exist.
const TOPICS: [&str; 4] = ["rtmh.logs", "rtmh.metrics", "rtmh.events", "orders"];

pub struct App {
    pub producer: Arc<FakeProducer>,
    /// Where records are stored in durable mode.
    pub spool: Arc<FakeSpool>,
    pub readiness: Arc<Readiness>,
    pub state: AppState,
    pub service: Service,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl App {
    /// Connected, with small limits: 1 KiB a body, 8 KiB in flight, 3 records a batch, 3 s to deliver.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// As a new one, but in durable mode; its name is `here`.
    pub fn durable() -> Self {
        let spool = Arc::new(FakeSpool::default());
        let deliver = |pipeline: Pipeline| pipeline.with_spool(spool.clone(), Budget::new(IN_FLIGHT));
        Self::build(spool.clone(), IN_FLIGHT, deliver, |_| {})
    }

    /// As a new one, but for bodies of 1 MiB with up to 10,000 records.
    pub fn large() -> Self {
        Self::build(
            Arc::default(),
            64 << 20,
            |pipeline| pipeline,
            |parts| {
                parts.limits.max_body_bytes = 1 << 20;
                parts.limits.max_batch_records = 10_000;
            },
        )
    }

    pub fn with(change: impl FnOnce(&mut Parts)) -> Self {
        Self::build(Arc::default(), IN_FLIGHT, |pipeline| pipeline, change)
    }

    fn build(
        spool: Arc<FakeSpool>,
        in_flight: usize,
        deliver: impl FnOnce(Pipeline) -> Pipeline,
        change: impl FnOnce(&mut Parts),
    ) -> Self {
        let producer = FakeProducer::with_topics(&TOPICS);
        let readiness = Readiness::new();
        readiness.link_up();
        let metrics = Arc::new(Metrics::for_tests());
        let settings = Settings { delivery_timeout: Duration::from_secs(3), max_record_bytes: 900 };
        let budget = Budget::new(in_flight);
        let mut parts = Parts {
            pipeline: deliver(Pipeline::new(producer.clone(), budget, metrics.clone(), settings)),
            metrics,
            readiness: readiness.clone(),
            http: config::Http::default(),
            limits: config::Limits { max_body_bytes: 1024, max_batch_records: 3, ..Default::default() },
            records: config::Records::default(),
            topics: config::Topics::default(),
            instance: InstanceId::parse("here").unwrap(),
            client_id: "inlet-test".into(),
            brokers: vec!["localhost:9092".into()],
            embedded: false,
        };
        change(&mut parts);
        let state = AppState::new(parts);
        Self { producer, spool, readiness, service: Service::new(state.clone()), state }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(request(Method::GET, path, &[], Body::empty())).await
    }

    pub async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.post_with(path, &[], body).await
    }

    pub async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        self.send(request(Method::POST, path, headers, body.into())).await
    }

    pub async fn send(&self, request: Request) -> Answer {
        let (parts, body) = self.service.answer(request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub fn records_sent(&self) -> usize {
        self.producer.sent().len()
    }
}

pub fn request(method: Method, path: &str, headers: &[(&str, &str)], body: Body) -> Request {
    let mut request = http::Request::builder().method(method).uri(path);
    if headers.iter().all(|(name, _)| *name != "host") {
        request = request.header("host", "localhost");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).unwrap()
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The status and the error's name of an answer that must be a problem.
    pub fn error(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text());
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        (self.status, problem["error"].as_str().unwrap().to_owned())
    }
}
