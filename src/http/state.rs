//! What the handlers share.

use super::topic_faults::TopicFaults;
use crate::{
    config, envelope,
    http::{
        ApiError,
        aside::{self, Aside},
        extract::{RequestContext, Underway},
        unread::Answers,
    },
    lifecycle::readiness::Readiness,
    produce::{self, Arrival, AutomaticHeaders, Budget, InstanceId, Pipeline},
    telemetry::metrics::Metrics,
};
use bytes::Bytes;
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
    underway: Arc<Underway>,
    aside: Aside,
    answers: Arc<Answers>,
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
        let budget = parts.pipeline.budget();
        let underway = Arc::new(Underway::new(Arc::clone(budget), parts.limits.max_body_bytes));
        let (aside, answers) = (Aside::default(), Answers::new(budget.limit(), Arc::clone(&parts.metrics)));
        Self(Arc::new(Inner { parts, topic_faults: TopicFaults::default(), underway, aside, answers }))
    }

    /// The bytes that may be in flight.
    pub fn budget(&self) -> &Arc<Budget> {
        self.pipeline.budget()
    }

    /// The bodies that are still coming.
    pub fn underway(&self) -> &Arc<Underway> {
        &self.0.underway
    }

    /// Where large bodies are read.
    pub fn aside(&self) -> &Aside {
        &self.0.aside
    }

    /// The answers that wait for their readers.
    pub fn answers(&self) -> &Arc<Answers> {
        &self.0.answers
    }

    /// Bytes of the largest body that can be taken: one above the whole budget could never be admitted.
    pub fn body_limit(&self) -> usize {
        let most = self.limits.max_body_bytes;
        most.min(self.budget().limit_for(most))
    }

    /// Parses a body, a large one aside. Of its memory remains what the records borrow.
    pub async fn parse<T, E>(
        &self,
        body: Bytes,
        request: &RequestContext,
        arrival: Arrival,
        parse: impl FnOnce(&Bytes, &envelope::Context<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, ApiError>
    where
        T: Send + 'static,
        E: Into<ApiError> + Send + 'static,
    {
        let automatic = Arc::new(request.automatic_headers(self.records.headers));
        if body.len() < aside::LARGE {
            return parse(&body, &self.envelope_context(automatic, arrival)).map_err(Into::into);
        }
        let state = self.clone();
        let parsed = self.aside().run(move || parse(&body, &state.envelope_context(automatic, arrival)));
        parsed.await?.map_err(Into::into)
    }

    /// What the records of a request share.
    fn envelope_context(&self, automatic: Arc<AutomaticHeaders>, arrival: Arrival) -> envelope::Context<'_> {
        envelope::Context {
            now_ms: arrival.millis,
            automatic,
            source: self.records.enrich_messages.then_some(&*self.client_id),
            max_records: self.limits.max_batch_records,
        }
    }

    /// Says in the log what the operator must put right about a topic: see [`TopicFaults`].
    pub fn log_topic_fault(&self, error: &produce::Error) {
        self.0.topic_faults.log(error);
    }
}
