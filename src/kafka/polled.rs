//! One librdkafka producer, whose events are read on the runtime.

use super::{
    client::ConfigError,
    context::Context,
    native::{event_queue::EventQueue, topic::NativeTopic},
};
use crate::{
    lifecycle::supervisor::{Alarm, Watch},
    produce::TopicName,
};
use rdkafka::{ClientConfig, producer::BaseProducer};
use std::{
    io,
    ops::Deref,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{runtime::Handle, sync::Notify, task::yield_now};

const READING: &str = "the reading of delivery reports";
/// Events that are read before other tasks get their turn; each may hold thousands of reports.
const EVENTS_A_TURN: usize = 16;

/// A producer whose events are read until it is dropped. Dropping it purges its queue and blocks for up to a second:
/// flush first, and drop it off the async threads.
pub struct PolledProducer {
    producer: Arc<BaseProducer<Context>>,
    events: Arc<EventQueue>,
}

/// Why there is no connection to Kafka to begin with.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Settings(#[from] ConfigError),
    #[error("no thread or memory for the connection to Kafka: {0}")]
    Thread(#[from] io::Error),
}

impl PolledProducer {
    /// Never waits for a broker.
    pub fn start(
        config: &ClientConfig,
        context: Context,
        alarm: &Alarm,
        runtime: &Handle,
    ) -> Result<Self, StartError> {
        let producer: BaseProducer<Context> =
            config.create_with_context(context).map_err(|error| ConfigError::of(&error))?;
        let producer = Arc::new(producer);
        let events = EventQueue::of(Arc::clone(&producer))
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let events = Arc::new(events);
        runtime.spawn(read_events(Arc::downgrade(&events), events.arrived(), alarm.watch(READING)));
        Ok(Self { events, producer })
    }

    /// What records are sent to the topic with; None where librdkafka refuses its name. Call it for topics that exist
    /// only: librdkafka keeps each for as long as the client lives.
    pub fn topic(&self, name: &TopicName) -> Option<NativeTopic> {
        NativeTopic::new(Arc::clone(&self.producer), name)
    }

    /// Has librdkafka send what it has, without its linger, and waits for the reports up to `timeout`. Blocks.
    pub fn flush(&self, timeout: Duration) {
        self.events.flush(timeout);
    }
}

/// On the runtime and not on a thread of its own, which would be woken for each batch of reports, to wake the runtime.
async fn read_events(events: Weak<EventQueue>, arrived: Arc<Notify>, watch: Watch) {
    while let Some(queue) = events.upgrade() {
        // with many workers there may always be one more, and the requests that were answered wait for their turn
        let more = (0..EVENTS_A_TURN).all(|_| queue.serve_one());
        // not held while waiting: the queue ends with its producer, and wakes this task then
        drop(queue);
        if more {
            yield_now().await;
        } else {
            arrived.notified().await;
        }
    }
    watch.finished();
}

impl Deref for PolledProducer {
    type Target = BaseProducer<Context>;

    fn deref(&self) -> &Self::Target {
        &self.producer
    }
}
