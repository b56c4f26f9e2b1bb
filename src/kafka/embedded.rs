//! `--embedded`: librdkafka's mock cluster in this process, for a laptop with nothing installed.

use crate::produce::TopicName;
use rdkafka::mocking::MockCluster;
use std::{
    sync::mpsc::{self, Receiver, Sender},
    thread::{self, JoinHandle},
};

/// A Kafka cluster of one broker on a free port of 127.0.0.1. It ends with this value, and with it every
/// record.
///
/// librdkafka (`rdkafka_mock.c`) keeps at most 5 MiB and 100,000 record batches of each partition in memory
/// and drops the oldest first; a single larger batch is kept alone. Topics that a client asks for are made
/// with 4 partitions. No CreateTopics, no DescribeConfigs, no SASL.
pub struct EmbeddedCluster {
    bootstrap_servers: String,
    /// Dropped first: that is the thread's signal to end. None only while the cluster is being dropped.
    alive: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Why there is no embedded cluster.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedClusterError {
    #[error("the thread of the embedded Kafka cluster could not be started: {0}")]
    Thread(#[from] std::io::Error),
    #[error("the embedded Kafka cluster could not listen on 127.0.0.1: {0}")]
    Cluster(String),
    #[error("the embedded Kafka cluster could not make topic '{topic}': {reason}")]
    Topic { topic: TopicName, reason: String },
}

type Started = Result<String, EmbeddedClusterError>;

impl EmbeddedCluster {
    /// Returns once the broker listens and the topics exist, each with `partitions` partitions.
    pub fn start(topics: &[TopicName], partitions: i32) -> Result<Self, EmbeddedClusterError> {
        let (report, started) = mpsc::channel();
        let (alive, until_dropped) = mpsc::channel();
        let topics = topics.to_vec();
        // MockCluster is not Send: the thread that makes it keeps it
        let thread = thread::Builder::new()
            .name("embedded-kafka".into())
            .spawn(move || keep_cluster(&topics, partitions, &report, &until_dropped))?;
        let bootstrap_servers = started
            .recv()
            .unwrap_or_else(|_| Err(EmbeddedClusterError::Cluster("its thread ended early".into())))?;
        Ok(Self { bootstrap_servers, alive: Some(alive), thread: Some(thread) })
    }

    /// `host:port`, for this process and for any other client on the machine.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }
}

impl Drop for EmbeddedCluster {
    fn drop(&mut self) {
        drop(self.alive.take());
        if let Some(thread) = self.thread.take() {
            // a panic in it ended the cluster as well
            let _ = thread.join();
        }
    }
}

/// Runs on the cluster's own thread. `start` waits for the report, so it always has a receiver.
fn keep_cluster(
    topics: &[TopicName],
    partitions: i32,
    report: &Sender<Started>,
    until_dropped: &Receiver<()>,
) {
    let cluster = match MockCluster::new(1) {
        Ok(cluster) => cluster,
        Err(error) => {
            let _ = report.send(Err(EmbeddedClusterError::Cluster(error.to_string())));
            return;
        }
    };
    for topic in topics {
        if let Err(error) = cluster.create_topic(topic.as_str(), partitions, 1) {
            let reason = error.to_string();
            let _ = report.send(Err(EmbeddedClusterError::Topic { topic: topic.clone(), reason }));
            return;
        }
    }
    let _ = report.send(Ok(cluster.bootstrap_servers()));
    // nothing is ever sent: this returns when the handle is dropped
    let _ = until_dropped.recv();
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::{
        ClientConfig,
        producer::{BaseProducer, Producer},
    };
    use std::{net::TcpStream, time::Duration};

    #[test]
    fn the_cluster_has_the_topics_it_was_started_with() {
        let topic = TopicName::parse("rtmh.logs").unwrap();
        let cluster = EmbeddedCluster::start(&[topic], 3).unwrap();
        let client: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
        let metadata = client.client().fetch_metadata(None, Duration::from_secs(5)).unwrap();
        assert_eq!(metadata.topics().len(), 1);
        assert_eq!(metadata.topics()[0].name(), "rtmh.logs");
        assert_eq!(metadata.topics()[0].partitions().len(), 3);
    }

    #[test]
    fn the_broker_is_gone_once_the_cluster_is_dropped() {
        let cluster = EmbeddedCluster::start(&[], 1).unwrap();
        let address = cluster.bootstrap_servers().to_owned();
        assert!(TcpStream::connect(&address).is_ok());
        drop(cluster);
        assert!(TcpStream::connect(&address).is_err());
    }
}
