//! librdkafka's mock cluster, for faults that a real broker does not produce on demand.

use rdkafka::{
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use std::{
    sync::mpsc::{self, Sender},
    thread,
    time::Duration,
};

type Cluster = MockCluster<'static, DefaultProducerContext>;
type Command = Box<dyn FnOnce(&Cluster) + Send>;

/// A mock cluster on a thread of its own, which ends with it: the cluster must not change threads.
pub struct Mock {
    bootstrap: String,
    commands: Sender<Command>,
}

impl Mock {
    pub fn start(brokers: i32) -> Self {
        let (commands, received) = mpsc::channel::<Command>();
        let (started, bootstrap) = mpsc::channel();
        thread::spawn(move || {
            let cluster = MockCluster::new(brokers).unwrap();
            started.send(cluster.bootstrap_servers()).unwrap();
            for command in received {
                command(&cluster);
            }
        });
        Self { bootstrap: bootstrap.recv().unwrap(), commands }
    }

    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    pub fn create_topic(&self, topic: &str, partitions: i32) {
        let topic = topic.to_owned();
        self.run(move |cluster| cluster.create_topic(&topic, partitions, 1).unwrap());
    }

    /// The next requests of this kind are answered with these errors, one each.
    pub fn request_errors(&self, kind: RDKafkaApiKey, errors: &[RDKafkaRespErr]) {
        let errors = errors.to_vec();
        self.run(move |cluster| cluster.request_errors(kind, &errors));
    }

    pub fn produce_errors(&self, errors: &[RDKafkaRespErr]) {
        self.request_errors(RDKafkaApiKey::Produce, errors);
    }

    pub fn broker_down(&self, broker: i32) {
        self.run(move |cluster| cluster.broker_down(broker).unwrap());
    }

    pub fn broker_up(&self, broker: i32) {
        self.run(move |cluster| cluster.broker_up(broker).unwrap());
    }

    /// Delays every answer of the broker.
    pub fn round_trip_time(&self, broker: i32, delay: Duration) {
        self.run(move |cluster| cluster.broker_round_trip_time(broker, delay).unwrap());
    }

    /// The topic's metadata carry this error from now on.
    pub fn topic_error(&self, topic: &str, error: RDKafkaRespErr) {
        let topic = topic.to_owned();
        self.run(move |cluster| cluster.topic_error(&topic, error).unwrap());
    }

    fn run(&self, command: impl FnOnce(&Cluster) + Send + 'static) {
        let (done, finished) = mpsc::channel();
        self.commands
            .send(Box::new(move |cluster| {
                command(cluster);
                done.send(()).unwrap();
            }))
            .unwrap();
        finished.recv().unwrap();
    }
}
