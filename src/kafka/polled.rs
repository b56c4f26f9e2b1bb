//! One librdkafka producer and the thread that polls it.

use super::{client::error_text, context::Context};
use crate::lifecycle::supervisor::Alarm;
use rdkafka::{
    ClientConfig,
    error::KafkaResult,
    producer::{BaseProducer, Producer},
};
use std::{
    io,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

const POLL: Duration = Duration::from_millis(100);

/// A producer that is polled until it is dropped. Dropping it purges its queue and blocks for up to a second:
/// flush first, and drop it off the async threads.
pub struct PolledProducer {
    producer: Arc<BaseProducer<Context>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("librdkafka cannot make a producer: {}", error_text(.0))]
    Producer(#[from] rdkafka::error::KafkaError),
    #[error("no thread for polling the producer: {0}")]
    Thread(#[from] io::Error),
}

impl PolledProducer {
    /// Never waits for a broker.
    pub fn start(config: &ClientConfig, context: Context, alarm: &Alarm) -> Result<Self, StartError> {
        let producer: Arc<BaseProducer<Context>> = Arc::new(config.create_with_context(context)?);
        let stopping = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new().name("kafka-poll".into()).spawn({
            let (producer, stopping) = (Arc::clone(&producer), Arc::clone(&stopping));
            let watch = alarm.watch("the kafka-poll thread");
            move || {
                while !stopping.load(Relaxed) {
                    producer.poll(POLL);
                }
                watch.finished();
            }
        })?;
        Ok(Self { producer, stopping, thread: Some(thread) })
    }

    /// Waits until every record has its delivery report. Blocks.
    pub fn flush(&self, timeout: Duration) -> KafkaResult<()> {
        self.producer.flush(timeout)
    }
}

impl Deref for PolledProducer {
    type Target = BaseProducer<Context>;

    fn deref(&self) -> &Self::Target {
        &self.producer
    }
}

impl Drop for PolledProducer {
    fn drop(&mut self) {
        self.stopping.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // a panic in it has raised the alarm already
            let _ = thread.join();
        }
    }
}
