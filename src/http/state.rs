//! What the handlers share.

use crate::{
    config,
    http::extract::RequestContext,
    lifecycle::readiness::Readiness,
    produce::{Budget, Pipeline, TopicName},
    telemetry::metrics::Metrics,
};
use std::{
    collections::HashMap,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How often a configured topic that does not exist is said in the log.
const MISSING_TOPIC_INTERVAL: Duration = Duration::from_secs(60);

/// What the composition root hands over.
pub struct Parts {
    pub pipeline: Pipeline,
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
    pub http: config::Http,
    pub limits: config::Limits,
    pub records: config::Records,
    pub topics: config::Topics,
    /// Kafka's `client.id`, also the `source` of enriched messages.
    pub client_id: String,
    /// The bootstrap addresses, as they are configured.
    pub brokers: Vec<String>,
    /// Kafka runs in this process and keeps nothing.
    pub embedded: bool,
}

/// Shared by all requests. Cloning is cheap.
#[derive(Clone)]
pub struct AppState(Arc<Inner>);

struct Inner {
    parts: Parts,
    missing_topics_said: Mutex<HashMap<TopicName, Instant>>,
}

impl Deref for AppState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0.parts
    }
}

impl AppState {
    /// Takes what the composition root has built.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner { parts, missing_topics_said: Mutex::new(HashMap::new()) }))
    }

    /// The bytes that may be in flight.
    pub fn budget(&self) -> &Arc<Budget> {
        self.pipeline.budget()
    }

    /// Bytes of the largest body that can be taken: one above the whole budget could never be admitted.
    pub fn body_limit(&self) -> usize {
        self.limits.max_body_bytes.min(self.budget().limit())
    }

    /// What the records of a request share.
    pub fn envelope_context(&self, request: &RequestContext) -> crate::envelope::Context<'_> {
        crate::envelope::Context {
            now_ms: jiff::Timestamp::now().as_millisecond(),
            automatic: Arc::new(request.automatic_headers(self.records.headers)),
            source: self.records.enrich_messages.then_some(&*self.client_id),
            max_records: self.limits.max_batch_records,
        }
    }

    /// Says in the log that a configured topic does not exist: once a minute, because every request to its
    /// route finds it out again.
    pub fn log_missing_topic(&self, topic: &TopicName) {
        let now = Instant::now();
        let mut said = self.0.missing_topics_said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.get(topic).is_some_and(|&last| now.duration_since(last) < MISSING_TOPIC_INTERVAL) {
            return;
        }
        said.insert(topic.clone(), now);
        tracing::error!(%topic, "a configured topic does not exist; create it or set KAFKA_CREATE_TOPICS=true");
    }
}
