use crate::produce::TopicName;

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
