//! librdkafka's mock cluster, for faults that a real broker does not produce on demand.

use super::process;
use rdkafka::{
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use std::{
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
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

    /// The next `count` produce requests are answered with this error.
    pub fn repeated_produce_error(&self, error: RDKafkaRespErr, count: usize) {
        self.produce_errors(&vec![error; count]);
    }

    /// Requests of this kind are answered as they should be again.
    pub fn clear_request_errors(&self, kind: RDKafkaApiKey) {
        self.run(move |cluster| cluster.clear_request_errors(kind));
    }

    pub fn broker_down(&self, broker: i32) {
        broker_down(&self.commands, broker);
    }

    pub fn broker_up(&self, broker: i32) {
        self.run(move |cluster| cluster.broker_up(broker).unwrap());
    }

    /// Has this broker lead the partition.
    pub fn leader(&self, topic: &str, partition: i32, broker: i32) {
        let topic = topic.to_owned();
        self.run(move |cluster| cluster.partition_leader(&topic, partition, Some(broker)).unwrap());
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

    /// From now on the broker is down for `half` and up for `half`, in turn, beginning with down. Once what is
    /// returned is dropped, it is up and stays so.
    pub fn flap(&self, broker: i32, half: Duration) -> Flapping {
        let (stop, stopped) = mpsc::channel();
        let commands = self.commands.clone();
        let thread = thread::spawn(move || {
            let goes_on = || stopped.recv_timeout(half) == Err(RecvTimeoutError::Timeout);
            loop {
                broker_down(&commands, broker);
                let down = goes_on();
                run(&commands, move |cluster| cluster.broker_up(broker).unwrap());
                if !down || !goes_on() {
                    return;
                }
            }
        });
        Flapping { stop: Some(stop), thread: Some(thread) }
    }

    fn run(&self, command: impl FnOnce(&Cluster) + Send + 'static) {
        run(&self.commands, command);
    }
}

/// A broker that goes and comes, see [`Mock::flap`].
pub struct Flapping {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Flapping {
    fn drop(&mut self) {
        // the thread waits for the end of the channel
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || thread::panicking(), "the flapping ended early");
    }
}

/// The mock cluster closes its listener and binds another to the same port, or aborts the test process where the first
/// still listens.
fn broker_down(commands: &Sender<Command>, broker: i32) {
    process::without_forks(|| run(commands, move |cluster| cluster.broker_down(broker).unwrap()));
}

/// Has the cluster's thread do this, and waits until it is done.
fn run(commands: &Sender<Command>, command: impl FnOnce(&Cluster) + Send + 'static) {
    let (done, finished) = mpsc::channel();
    let command: Command = Box::new(move |cluster| {
        command(cluster);
        done.send(()).unwrap();
    });
    commands.send(command).unwrap();
    finished.recv().unwrap();
}
