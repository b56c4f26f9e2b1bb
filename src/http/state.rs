//! What the handlers share.

use super::topic_faults::TopicFaults;
use crate::{
    config,
    http::extract::{RequestContext, Underway},
    lifecycle::readiness::Readiness,
    produce::{self, Arrival, Budget, InstanceId, Pipeline},
    telemetry::metrics::Metrics,
};
use std::{ops::Deref, sync::Arc};

/// What the composition root hands over.
pub struct Parts {
    pub pipeline: Pipeline,
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
    pub http: config::Http,
    pub limits: config::Limits,
    pub records: config::Records,
    pub topics: config::Topics,
    /// Names this service among others, in receipts.
    pub instance: InstanceId,
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
    topic_faults: TopicFaults,
    underway: Underway,
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
        let underway = Underway::new(parts.pipeline.budget().limit());
        Self(Arc::new(Inner { parts, topic_faults: TopicFaults::default(), underway }))
    }

    /// The bytes that may be in flight.
    pub fn budget(&self) -> &Arc<Budget> {
        self.pipeline.budget()
    }

    /// The bodies that are still coming.
    pub fn underway(&self) -> &Underway {
        &self.0.underway
    }

    /// Bytes of the largest body that can be taken: one above the whole budget could never be admitted.
    pub fn body_limit(&self) -> usize {
        self.limits.max_body_bytes.min(self.budget().limit())
    }

    /// What the records of a request share.
    pub fn envelope_context(
        &self,
        request: &RequestContext,
        arrival: Arrival,
    ) -> crate::envelope::Context<'_> {
        crate::envelope::Context {
            now_ms: arrival.millis,
            automatic: Arc::new(request.automatic_headers(self.records.headers)),
            source: self.records.enrich_messages.then_some(&*self.client_id),
            max_records: self.limits.max_batch_records,
        }
    }

    /// Says in the log what the operator must put right about a topic: see [`TopicFaults`].
    pub fn log_topic_fault(&self, error: &produce::Error) {
        self.0.topic_faults.log(error);
    }
}
