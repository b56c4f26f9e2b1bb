//! What is known of topics, learned one by one on first use. Look-ups block, so they have a thread of their
//! own; each name is asked for once however many requests wait for it.

use super::sync::{read, write};
use crate::{
    lifecycle::supervisor::Alarm,
    produce::{Error, Topic, TopicConfig, TopicId, TopicName},
};
use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// How long a topic that was not found stays known as absent.
const ABSENT_FOR: Duration = Duration::from_secs(2);
/// Absent names that are remembered at most.
const MAX_ABSENT: usize = 10_000;
/// How often a topic in use is asked about again.
const REFRESH_EVERY: Duration = Duration::from_secs(30);
/// Look-ups a second at most, of which one waits for a place in the next second.
const MAX_PER_SECOND: u32 = 20;
/// Names that may wait for their look-up; at 20 a second the last of them waits two seconds.
const MAX_WAITING: usize = 40;
/// How long the look-up thread waits for a name before it looks for a topic to refresh without one.
const IDLE: Duration = Duration::from_millis(250);

pub type Answer = Result<Arc<Topic>, Error>;

/// What the cluster says of a topic that may be written to.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub partitions: i32,
    /// Partitions that cannot be written to now.
    pub leaderless: Vec<i32>,
    /// None where the broker does not tell.
    pub id: Option<TopicId>,
}

/// Asks the cluster for one topic. Blocks for its own time-outs at most.
pub trait AskCluster: Send + Sync + 'static {
    fn ask(&self, name: &TopicName) -> Result<Asked, Error>;
}

/// The cache of topics and the queue of look-ups.
pub struct Topics {
    present: RwLock<HashMap<TopicName, Present>>,
    absent: RwLock<HashMap<TopicName, Absent>>,
    waiting: Mutex<HashMap<TopicName, Vec<oneshot::Sender<Answer>>>>,
    look_ups: SyncSender<TopicName>,
    queue: Mutex<Option<Receiver<TopicName>>>,
    /// Told of every topic that the cluster has confirmed, so that its configuration is read.
    confirmed: tokio::sync::mpsc::Sender<TopicName>,
}

struct Present {
    topic: Arc<Topic>,
    asked: Instant,
    used: AtomicBool,
}

struct Absent {
    since: Instant,
    error: Error,
}

impl Topics {
    /// Nothing is known, and nothing is asked before [`Topics::start`].
    pub fn new(confirmed: tokio::sync::mpsc::Sender<TopicName>) -> Arc<Self> {
        let (look_ups, queue) = sync_channel(MAX_WAITING);
        Arc::new(Self {
            present: RwLock::default(),
            absent: RwLock::default(),
            waiting: Mutex::default(),
            look_ups,
            queue: Mutex::new(Some(queue)),
            confirmed,
        })
    }

    /// Starts the look-up thread, once; it ends when the last handle is dropped.
    pub fn start(self: &Arc<Self>, cluster: impl AskCluster, alarm: &Alarm) -> io::Result<()> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(queue) = queue else { return Ok(()) };
        let (weak, watch) = (Arc::downgrade(self), alarm.watch("the kafka-topics thread"));
        thread::Builder::new().name("kafka-topics".into()).spawn(move || {
            let mut pace = Pace::new();
            loop {
                let next = queue.recv_timeout(IDLE);
                let Some(topics) = weak.upgrade() else { break };
                if let Ok(name) = next {
                    pace.wait();
                    topics.ask_and_tell(&name, &cluster);
                }
                // also between look-ups: a flood of unknown names must not age the known ones
                topics.refresh_one(&cluster, &mut pace);
            }
            watch.finished();
        })?;
        Ok(())
    }

    /// What is known without asking; see [`crate::produce::Producer::known_topic`].
    pub fn known(&self, name: &TopicName) -> Option<Answer> {
        if let Some(present) = read(&self.present).get(name) {
            if !present.used.load(Relaxed) {
                present.used.store(true, Relaxed);
            }
            return Some(Ok(Arc::clone(&present.topic)));
        }
        let absent = read(&self.absent);
        let absent = absent.get(name).filter(|absent| absent.since.elapsed() < ABSENT_FOR)?;
        Some(Err(absent.error.clone()))
    }

    /// Asks the cluster, together with whoever asks for the same topic now.
    pub async fn look_up(&self, name: &TopicName) -> Answer {
        let (answer, receiver) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(others) = waiting.get_mut(name) {
                others.push(answer);
            } else {
                match self.look_ups.try_send(name.clone()) {
                    Ok(()) => drop(waiting.insert(name.clone(), vec![answer])),
                    Err(TrySendError::Full(_)) => return Err(Error::TooManyLookUps(name.clone())),
                    Err(TrySendError::Disconnected(_)) => {
                        return Err(unanswered("the service is shutting down"));
                    }
                }
            }
        }
        receiver.await.unwrap_or_else(|_| Err(unanswered("the service is shutting down")))
    }

    /// Forgets the topic, because what is known of it turned out to be wrong.
    pub fn forget(&self, name: &TopicName) {
        write(&self.present).remove(name);
    }

    /// Takes note of why a record was refused: what says that the topic cannot be written to is remembered for seconds, so
    /// that others are answered without being sent.
    pub fn is_refused(&self, name: &TopicName, error: &Error) {
        if matches!(error, Error::Unauthorized(_)) {
            // an error says nothing that the caller does not know
            let _ = self.learn(name, Err(error.clone()));
        }
    }

    /// Sets what DescribeConfigs told about a topic.
    pub fn set_config(&self, name: &TopicName, config: TopicConfig) {
        if let Some(present) = write(&self.present).get_mut(name)
            && present.topic.config.as_ref() != Some(&config)
        {
            present.topic = Arc::new(Topic { config: Some(config), ..Topic::clone(&present.topic) });
        }
    }

    /// Asks at once, on the caller's thread, and keeps the answer. Blocks.
    pub fn refresh(&self, name: &TopicName, cluster: &impl AskCluster) -> Answer {
        self.learn(name, cluster.ask(name))
    }

    fn ask_and_tell(&self, name: &TopicName, cluster: &impl AskCluster) {
        if self.nobody_waits_for(name) {
            return;
        }
        let answer = self.refresh(name, cluster);
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        for receiver in waiting.into_iter().flatten() {
            // one that gave up does not listen
            let _ = receiver.send(answer.clone());
        }
    }

    /// After a time without answers, most of those that asked have given up.
    fn nobody_waits_for(&self, name: &TopicName) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let given_up =
            waiting.get(name).is_none_or(|receivers| receivers.iter().all(oneshot::Sender::is_closed));
        if given_up {
            waiting.remove(name);
        }
        given_up
    }

    /// Keeps what the cluster said. What it could not say changes nothing.
    fn learn(&self, name: &TopicName, answer: Result<Asked, Error>) -> Answer {
        match answer {
            Ok(Asked { partitions, leaderless, id }) => {
                let mut present = write(&self.present);
                let config = present.get(name).and_then(|known| known.topic.config.clone());
                let topic =
                    Arc::new(Topic { leaderless, id, config, ..Topic::new(name.clone(), partitions) });
                let entry = Present { asked: topic.learned, topic: Arc::clone(&topic), used: false.into() };
                present.insert(name.clone(), entry);
                drop(present);
                write(&self.absent).remove(name);
                // a full queue only delays the reading to the next refresh
                let _ = self.confirmed.try_send(name.clone());
                Ok(topic)
            }
            Err(error) => {
                if matches!(error, Error::UnknownTopic(_) | Error::Unauthorized(_)) {
                    write(&self.present).remove(name);
                    self.remember_absent(name, error.clone());
                }
                Err(error)
            }
        }
    }

    fn remember_absent(&self, name: &TopicName, error: Error) {
        let mut absent = write(&self.absent);
        if absent.len() >= MAX_ABSENT {
            absent.retain(|_, absent| absent.since.elapsed() < ABSENT_FOR);
        }
        if absent.len() < MAX_ABSENT {
            absent.insert(name.clone(), Absent { since: Instant::now(), error });
        }
    }

    /// Asks again about the used topic that was asked about longest ago, if its time has come.
    fn refresh_one(&self, cluster: &impl AskCluster, pace: &mut Pace) {
        let oldest = read(&self.present)
            .iter()
            .filter(|(_, present)| present.asked.elapsed() >= REFRESH_EVERY && present.used.load(Relaxed))
            .min_by_key(|(_, present)| present.asked)
            .map(|(name, _)| name.clone());
        if let Some(name) = oldest {
            pace.wait();
            if self.refresh(&name, cluster).is_err()
                && let Some(present) = write(&self.present).get_mut(&name)
            {
                present.asked = Instant::now();
            }
        }
    }
}

fn unanswered(reason: &str) -> Error {
    Error::BrokerUnavailable { reason: reason.into() }
}

/// Holds the look-ups to [`MAX_PER_SECOND`].
struct Pace {
    second: Instant,
    used: u32,
}

impl Pace {
    fn new() -> Self {
        Self { second: Instant::now(), used: 0 }
    }

    fn wait(&mut self) {
        if self.used >= MAX_PER_SECOND {
            thread::sleep(Duration::from_secs(1).saturating_sub(self.second.elapsed()));
        }
        if self.second.elapsed() >= Duration::from_secs(1) {
            *self = Self::new();
        }
        self.used += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::supervisor::Supervisor;
    use std::sync::atomic::AtomicU32;

    /// Answers what it is told to, after a moment, and counts.
    struct Script {
        answer: Mutex<Result<Asked, Error>>,
        asked: AtomicU32,
    }

    impl AskCluster for Arc<Script> {
        fn ask(&self, _: &TopicName) -> Result<Asked, Error> {
            self.asked.fetch_add(1, Relaxed);
            thread::sleep(Duration::from_millis(20));
            self.answer.lock().unwrap().clone()
        }
    }

    fn has(partitions: i32) -> Result<Asked, Error> {
        Ok(Asked { partitions, ..Asked::default() })
    }

    fn topics(answer: Result<Asked, Error>) -> (Arc<Topics>, Arc<Script>, Supervisor) {
        let supervisor = Supervisor::new();
        let script = Arc::new(Script { answer: Mutex::new(answer), asked: AtomicU32::new(0) });
        let (confirmed, _) = tokio::sync::mpsc::channel(8);
        let topics = Topics::new(confirmed);
        topics.start(Arc::clone(&script), &supervisor.alarm()).unwrap();
        (topics, script, supervisor)
    }

    fn name(text: &str) -> TopicName {
        TopicName::parse(text).unwrap()
    }

    #[tokio::test]
    async fn those_who_ask_together_share_one_look_up() {
        let (topics, script, _supervisor) = topics(has(3));
        let t = name("t");
        let (a, b, c) = tokio::join!(topics.look_up(&t), topics.look_up(&t), topics.look_up(&t));
        assert_eq!([a, b, c].map(|answer| answer.unwrap().partitions), [3; 3]);
        assert_eq!(script.asked.load(Relaxed), 1);
        assert_eq!(topics.known(&t).unwrap().unwrap().partitions, 3);
    }

    #[tokio::test]
    async fn a_missing_topic_is_known_as_absent_for_a_while_and_found_once_it_is_made() {
        let t = name("t");
        let (topics, script, _supervisor) = topics(Err(Error::UnknownTopic(t.clone())));
        assert!(topics.look_up(&t).await.is_err());
        assert_eq!(topics.known(&t), Some(Err(Error::UnknownTopic(t.clone()))));
        tokio::time::sleep(ABSENT_FOR + Duration::from_millis(10)).await;
        assert_eq!(topics.known(&t), None);
        *script.answer.lock().unwrap() = has(1);
        assert_eq!(topics.look_up(&t).await.unwrap().partitions, 1);
    }

    #[tokio::test]
    async fn an_unanswered_look_up_says_nothing_about_the_topic() {
        let (topics, script, _supervisor) = topics(has(2));
        let t = name("t");
        topics.look_up(&t).await.unwrap();
        *script.answer.lock().unwrap() = Err(unanswered("down"));
        assert_eq!(topics.look_up(&t).await, Err(unanswered("down")));
        assert_eq!(topics.known(&t).unwrap().unwrap().partitions, 2);
    }

    #[tokio::test]
    async fn a_flood_of_names_is_refused_rather_than_queued() {
        let (topics, _script, _supervisor) = topics(has(1));
        let names: Vec<_> = (0..200).map(|n| name(&format!("t{n}"))).collect();
        let refused = Mutex::new(0);
        let all = futures_util::future::join_all(names.iter().map(async |name| {
            if topics.look_up(name).await.is_err() {
                *refused.lock().unwrap() += 1;
            }
        }));
        let _ = tokio::time::timeout(Duration::from_millis(500), all).await;
        assert!(*refused.lock().unwrap() >= 200 - MAX_WAITING - MAX_PER_SECOND as usize - 1);
    }

    #[tokio::test]
    async fn the_configuration_outlives_a_refresh() {
        let (topics, _script, _supervisor) = topics(has(2));
        let t = name("t");
        topics.look_up(&t).await.unwrap();
        let config = TopicConfig {
            max_message_bytes: 10,
            compacted: true,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: i64::MAX,
        };
        topics.set_config(&t, config.clone());
        topics.look_up(&t).await.unwrap();
        assert_eq!(topics.known(&t).unwrap().unwrap().config.as_ref(), Some(&config));
    }
}
