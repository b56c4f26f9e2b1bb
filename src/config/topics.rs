//! The group of the fixed routes' topics.

use super::{Faults, variables::Group};
use crate::produce::TopicName;
use serde::Deserialize;

/// The topics of the fixed routes.
#[derive(Debug, Clone)]
pub struct Topics {
    pub logs: TopicName,
    pub metrics: TopicName,
    pub events: TopicName,
}

impl Topics {
    /// Each configured topic once, in the order of their routes.
    pub fn distinct(&self) -> Vec<TopicName> {
        let mut topics = vec![self.logs.clone()];
        for topic in [&self.metrics, &self.events] {
            if !topics.contains(topic) {
                topics.push(topic.clone());
            }
        }
        topics
    }
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            logs: TopicName::from_static("rtmh.logs"),
            metrics: TopicName::from_static("rtmh.metrics"),
            events: TopicName::from_static("rtmh.events"),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct TopicsVariables {
    log_topic: Option<String>,
    metrics_topic: Option<String>,
    events_topic: Option<String>,
}

impl Group for TopicsVariables {
    const PREFIX: &str = "";
}

impl TopicsVariables {
    pub(super) fn parse(&self, faults: &mut Faults) -> Topics {
        let default = Topics::default();
        let mut topic = |variable, given: &Option<String>, default| {
            let parse = |text: &str| TopicName::parse(text).map_err(|error| error.to_string());
            faults.read(variable, given.as_deref(), parse).unwrap_or(default)
        };
        Topics {
            logs: topic("LOG_TOPIC", &self.log_topic, default.logs),
            metrics: topic("METRICS_TOPIC", &self.metrics_topic, default.metrics),
            events: topic("EVENTS_TOPIC", &self.events_topic, default.events),
        }
    }
}
