//! The topics of the fixed routes: looked for, made where that is asked for, and named where they do not exist. On a
//! thread of its own, because making topics waits for the controller, and the link's probes must not.

use super::{
    admin::{Admin, Created},
    cluster::Cluster,
    metadata::Topics,
};
use crate::{
    config::Config,
    lifecycle::{readiness::Readiness, supervisor::Alarm},
    produce::{Error, TopicName},
};
use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::runtime::Handle;

/// How long topics that were just made may be unknown to some brokers.
const SETTLE: Duration = Duration::from_secs(2);

/// What the thread works on.
pub struct ConfiguredTopics {
    pub names: Vec<TopicName>,
    pub topics: Arc<Topics>,
    pub cluster: Arc<Cluster>,
    pub readiness: Arc<Readiness>,
    /// Makes the topics where one is missing.
    pub create: Option<CreateTopics>,
}

/// Blocks until the topics are there or cannot be made; says why in the log. True where one should be there now.
pub type CreateTopics = Box<dyn FnMut() -> bool + Send>;

/// Asks the thread to look for the topics. It ends when this is dropped.
pub struct Looks(SyncSender<Sender<()>>);

impl Looks {
    /// Does not wait, neither for this look nor for one that is under way, which this one follows. What is returned
    /// ends when this look has ended, or at once where another one waits already.
    pub fn ask(&self) -> Receiver<()> {
        let (looking, end) = channel();
        // full: one is waiting, which will do
        let _ = self.0.try_send(looking);
        end
    }
}

impl ConfiguredTopics {
    pub fn start(mut self, alarm: &Alarm) -> io::Result<Looks> {
        let (looks, asked) = sync_channel(1);
        let watch = alarm.watch("the kafka-configured-topics thread");
        thread::Builder::new().name("kafka-configured-topics".into()).spawn(move || {
            let mut told = Vec::new();
            for looking in asked {
                self.look(&mut told);
                drop(looking);
            }
            watch.finished();
        })?;
        Ok(Looks(looks))
    }

    /// Learns the topics before traffic needs them, makes them where that is asked for, and names those that do not
    /// exist: in the log where they are others than it was `told`.
    fn look(&mut self, told: &mut Vec<TopicName>) {
        let Some(mut missing) = self.missing() else { return };
        // before they are made, which may take long
        self.readiness.set_missing_topics(missing.clone());
        if !missing.is_empty()
            && let Some(create) = &mut self.create
            && create()
        {
            let give_up = Instant::now() + SETTLE;
            // the broker that is asked may hear of the new topics later than the one that made them
            while !missing.is_empty() && Instant::now() < give_up {
                thread::sleep(SETTLE / 10);
                let Some(still_missing) = self.missing() else { return };
                missing = still_missing;
            }
            self.readiness.set_missing_topics(missing.clone());
        }
        if missing != *told {
            if !missing.is_empty() {
                tracing::error!(
                    ?missing,
                    "configured topics do not exist; create them or set KAFKA_CREATE_TOPICS=true"
                );
            }
            *told = missing;
        }
    }

    /// None where Kafka does not answer.
    fn missing(&self) -> Option<Vec<TopicName>> {
        let mut missing = Vec::new();
        for (name, answer) in self.names.iter().zip(self.topics.refresh(&self.names, &self.cluster)) {
            match answer {
                Err(Error::UnknownTopic(_)) => missing.push(name.clone()),
                Err(Error::BrokerUnavailable { .. }) => return None,
                Ok(_) | Err(_) => {}
            }
        }
        Some(missing)
    }
}

/// Makes the configured topics on the runtime that it is called on, and says in the log what came of it.
pub fn create_topics(config: &Config, admin: Arc<Admin>) -> CreateTopics {
    let names = config.topics.distinct();
    let (partitions, replication_factor, min_insync_replicas) = (
        config.kafka.topic_partitions,
        config.kafka.topic_replication_factor,
        config.kafka.topic_min_insync_replicas,
    );
    let runtime = Handle::current();
    let mut last_fault = None;
    Box::new(move || {
        let created = admin.create_topics(&names, partitions, replication_factor, min_insync_replicas);
        let created = runtime.block_on(created);
        let (mut there, mut faults) = (false, Vec::new());
        match created {
            Ok(created) => {
                for (topic, created) in created {
                    match created {
                        Ok(Created::New) => {
                            there = true;
                            tracing::info!(%topic, partitions, replication_factor, "topic created");
                        }
                        Ok(Created::Existed) => {
                            there = true;
                            tracing::debug!(%topic, "topic exists already");
                        }
                        Err(reason) => faults.push(format!("{topic}: {reason}")),
                    }
                }
            }
            Err(error) => faults.push(error.to_string()),
        }
        let fault = (!faults.is_empty()).then(|| faults.join("; "));
        // tried again for as long as topics are missing, told of once
        if fault.is_some() && fault != last_fault {
            tracing::error!(reason = fault, "configured topics cannot be created");
        }
        last_fault = fault;
        there
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::TryRecvError::{Disconnected, Empty};

    #[test]
    fn asking_for_a_look_does_not_wait_and_one_at_most_follows_the_one_under_way() {
        let (looks, asked) = sync_channel(1);
        let looks = Looks(looks);
        let first = looks.ask();
        let under_way = asked.recv().unwrap();
        let second = looks.ask();
        assert_eq!(looks.ask().try_recv(), Err(Disconnected), "the second will do");
        assert_eq!(first.try_recv(), Err(Empty));
        drop(under_way);
        assert_eq!((first.try_recv(), second.try_recv()), (Err(Disconnected), Err(Empty)));
        drop(asked.recv().unwrap());
        assert_eq!((second.try_recv(), asked.try_recv().is_err()), (Err(Disconnected), true));
    }
}
