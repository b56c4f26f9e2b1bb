//! What is known of topics, learned on first use. Look-ups block, so they have threads of their own; each name is asked
//! for once however many requests wait for it, and many names in one question.

use super::{
    look_ups::LookUps,
    sync::{read, write},
    topic_config::ToRead,
};
use crate::{
    lifecycle::supervisor::Alarm,
    produce::{Error, Topic, TopicConfig, TopicId, TopicName, Turn},
};
use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::{sync::Notify, time::timeout};

/// How long a topic that was not found stays known as absent.
const ABSENT_FOR: Duration = Duration::from_secs(2);
/// Absent names that are remembered at most, and how often the old ones are looked for where there are so many.
const MAX_ABSENT: usize = 10_000;
const SWEEP_EVERY: Duration = Duration::from_millis(250);
/// How often a topic in use is asked about again.
const REFRESH_EVERY: Duration = Duration::from_secs(30);
/// How often the settings of a topic are read because they turned out to be others.
const DOUBT_EVERY: Duration = Duration::from_secs(1);
/// How long a new topic waits for its settings.
const SETTLE: Duration = Duration::from_millis(500);
/// Names in one question: what librdkafka does with the answer grows with the square of it.
const AT_ONCE: usize = 500;
/// Names that may wait for their look-up, in each of the two turns.
const MAX_WAITING: usize = 10_000;
/// How long a thread waits for a name before it looks whether there is anything else to do.
const IDLE: Duration = Duration::from_millis(250);
/// Questions a second at most that make a broker make the topic, of which one waits for a place in the next second.
const MAKES_PER_SECOND: u32 = 20;
/// Names that may wait for such a question; the last of them waits two seconds.
const MAX_TO_MAKE: usize = 40;

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

/// Asks the cluster for topics. Blocks for its own time-outs at most.
pub trait AskCluster: Send + Sync + 'static {
    /// Of several topics, each named once. The answers are in the order of the names.
    fn ask(&self, names: &[TopicName]) -> Vec<Result<Asked, Error>>;

    /// Of one topic, in such a way that a broker that may make topics makes it.
    fn ask_or_make(&self, name: &TopicName) -> Result<Asked, Error>;
}

/// The cache of topics and the queues of look-ups.
pub struct Topics {
    present: RwLock<HashMap<TopicName, Present>>,
    absent: RwLock<AbsentTopics>,
    look_ups: LookUps,
    to_make: LookUps,
    /// Told of every topic that the cluster has confirmed, so that its settings are read.
    to_read: ToRead,
}

struct Present {
    topic: Arc<Topic>,
    asked: Instant,
    used: AtomicBool,
    /// Until its settings were asked for, with or without an answer: tells those who wait for that.
    unsettled: Option<Arc<Notify>>,
    /// When its settings turned out to be others than they were last.
    doubted: Option<Instant>,
}

struct AbsentTopics {
    topics: HashMap<TopicName, Absent>,
    swept: Instant,
}

struct Absent {
    since: Instant,
    error: Error,
}

impl Topics {
    /// Nothing is known, and nothing is asked before [`Topics::start`].
    pub fn new(to_read: ToRead) -> Arc<Self> {
        Arc::new(Self {
            present: RwLock::default(),
            absent: RwLock::new(AbsentTopics { topics: HashMap::new(), swept: Instant::now() }),
            look_ups: LookUps::new(MAX_WAITING),
            to_make: LookUps::new(MAX_TO_MAKE),
            to_read,
        })
    }

    /// Starts the threads of the look-ups; they end when the last handle is dropped. To be called once.
    pub fn start(self: &Arc<Self>, cluster: impl AskCluster + Clone, alarm: &Alarm) -> io::Result<()> {
        let makes = cluster.clone();
        let mut looked = Instant::now();
        self.spawn(("kafka-topics", "the kafka-topics thread"), alarm, move |topics| {
            let names = topics.look_ups.take(AT_ONCE, IDLE);
            topics.ask_and_tell(&names, &cluster);
            // also between look-ups: a flood of unknown names must not age the known ones
            if looked.elapsed() >= IDLE {
                looked = Instant::now();
                topics.refresh_used(&cluster);
            }
        })?;
        let mut pace = Pace::new();
        self.spawn(("kafka-topic-make", "the kafka-topic-make thread"), alarm, move |topics| {
            for name in topics.to_make.take(1, IDLE) {
                pace.wait();
                topics.to_make.tell(&name, &topics.learn(&name, makes.ask_or_make(&name)));
            }
        })
    }

    /// Has a thread take `step` after step.
    fn spawn(
        self: &Arc<Self>,
        (name, work): (&str, &'static str),
        alarm: &Alarm,
        mut step: impl FnMut(&Self) + Send + 'static,
    ) -> io::Result<()> {
        let (weak, watch) = (Arc::downgrade(self), alarm.watch(work));
        thread::Builder::new().name(name.into()).spawn(move || {
            while let Some(topics) = weak.upgrade() {
                step(&topics);
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
        let absent = absent.topics.get(name).filter(|absent| absent.since.elapsed() < ABSENT_FOR)?;
        Some(Err(absent.error.clone()))
    }

    /// Asks the cluster, together with whoever asks for the same topic now. A topic that is new waits for its settings, for
    /// a moment: what its batches may hold is among them.
    pub async fn look_up(&self, name: &TopicName, turn: Turn) -> Answer {
        let answer = self.look_ups.answer(name, turn).await?;
        let unsettled = read(&self.present).get(name).and_then(|present| present.unsettled.clone());
        if let Some(unsettled) = unsettled {
            let settled = unsettled.notified();
            // it may have been settled before the line above
            if read(&self.present).get(name).is_some_and(|present| present.unsettled.is_some()) {
                let _ = timeout(SETTLE, settled).await;
            }
        }
        Ok(read(&self.present).get(name).map_or(answer, |present| Arc::clone(&present.topic)))
    }

    /// As [`Topics::look_up`], where a broker is to make the topic if it does not exist.
    pub async fn look_up_or_make(&self, name: &TopicName) -> Answer {
        self.to_make.answer(name, Turn::First).await
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

    /// Has the topic's settings read now, since a record was refused that they let through.
    pub fn doubt_settings(&self, name: &TopicName) {
        let (now, mut present) = (Instant::now(), write(&self.present));
        let Some(present) = present.get_mut(name) else { return };
        if present.doubted.is_none_or(|at| now.saturating_duration_since(at) >= DOUBT_EVERY) {
            present.doubted = Some(now);
            self.to_read.soon(name);
        }
    }

    /// Sets what DescribeConfigs told about a topic; None where it told nothing, which changes nothing.
    pub fn set_config(&self, name: &TopicName, config: Option<TopicConfig>) {
        let mut present = write(&self.present);
        let Some(present) = present.get_mut(name) else { return };
        if let Some(unsettled) = present.unsettled.take() {
            unsettled.notify_waiters();
        }
        if config.is_some() && present.topic.config != config {
            present.topic = Arc::new(Topic { config, ..Topic::clone(&present.topic) });
        }
    }

    /// Asks at once, on the caller's thread, and keeps the answers, which are in the order of the names. Blocks.
    pub fn refresh(&self, names: &[TopicName], cluster: &impl AskCluster) -> Vec<Answer> {
        let answers = cluster.ask(names).into_iter().zip(names);
        answers.map(|(answer, name)| self.learn(name, answer)).collect()
    }

    fn ask_and_tell(&self, names: &[TopicName], cluster: &impl AskCluster) {
        if names.is_empty() {
            return;
        }
        for (name, answer) in names.iter().zip(self.refresh(names, cluster)) {
            self.look_ups.tell(name, &answer);
        }
    }

    /// Keeps what the cluster said. What it could not say changes nothing.
    fn learn(&self, name: &TopicName, answer: Result<Asked, Error>) -> Answer {
        match answer {
            Ok(Asked { partitions, leaderless, id }) => {
                let mut present = write(&self.present);
                let known = present.get(name);
                let unsettled = known.map_or_else(|| Some(Arc::default()), |known| known.unsettled.clone());
                let config = known.and_then(|known| known.topic.config.clone());
                let doubted = known.and_then(|known| known.doubted);
                let topic =
                    Arc::new(Topic { leaderless, id, config, ..Topic::new(name.clone(), partitions) });
                if unsettled.is_some() {
                    self.to_read.soon(name);
                } else {
                    self.to_read.in_turn(name);
                }
                let (asked, used) = (topic.learned, false.into());
                let entry = Present { asked, topic: Arc::clone(&topic), used, unsettled, doubted };
                present.insert(name.clone(), entry);
                drop(present);
                write(&self.absent).topics.remove(name);
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
        let (now, mut absent) = (Instant::now(), write(&self.absent));
        if absent.topics.len() >= MAX_ABSENT && now.saturating_duration_since(absent.swept) >= SWEEP_EVERY {
            absent.swept = now;
            absent.topics.retain(|_, absent| now.saturating_duration_since(absent.since) < ABSENT_FOR);
        }
        if absent.topics.len() < MAX_ABSENT {
            absent.topics.insert(name.clone(), Absent { since: now, error });
        }
    }

    /// Asks again about the used topics that were asked about longest ago, as far as their time has come.
    fn refresh_used(&self, cluster: &impl AskCluster) {
        let mut due: Vec<_> = read(&self.present)
            .iter()
            .filter(|(_, present)| present.used.load(Relaxed) && present.asked.elapsed() >= REFRESH_EVERY)
            .map(|(name, present)| (present.asked, name.clone()))
            .collect();
        due.sort_unstable_by_key(|(asked, _)| *asked);
        let names: Vec<_> = due.into_iter().take(AT_ONCE).map(|(_, name)| name).collect();
        if names.is_empty() {
            return;
        }
        for (name, answer) in names.iter().zip(self.refresh(&names, cluster)) {
            if answer.is_err()
                && let Some(present) = write(&self.present).get_mut(name)
            {
                present.asked = Instant::now();
            }
        }
    }
}

/// Holds the questions that make topics to [`MAKES_PER_SECOND`].
struct Pace {
    second: Instant,
    used: u32,
}

impl Pace {
    fn new() -> Self {
        Self { second: Instant::now(), used: 0 }
    }

    fn wait(&mut self) {
        if self.used >= MAKES_PER_SECOND {
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
    use crate::{kafka::topic_config, lifecycle::supervisor::Supervisor};
    use futures_util::future::join_all;
    use std::sync::{Mutex, atomic::AtomicU32};

    /// Answers what it is told to, after a moment, and counts.
    struct Script {
        answer: Mutex<Result<Asked, Error>>,
        /// How many names each question had.
        asked: Mutex<Vec<usize>>,
        made: AtomicU32,
    }

    impl Script {
        fn questions(&self) -> usize {
            self.asked.lock().unwrap().len()
        }
    }

    impl AskCluster for Arc<Script> {
        fn ask(&self, names: &[TopicName]) -> Vec<Result<Asked, Error>> {
            self.asked.lock().unwrap().push(names.len());
            thread::sleep(Duration::from_millis(20));
            vec![self.answer.lock().unwrap().clone(); names.len()]
        }

        fn ask_or_make(&self, _: &TopicName) -> Result<Asked, Error> {
            self.made.fetch_add(1, Relaxed);
            has(1)
        }
    }

    fn down() -> Error {
        Error::BrokerUnavailable { reason: "down".into() }
    }

    fn has(partitions: i32) -> Result<Asked, Error> {
        Ok(Asked { partitions, ..Asked::default() })
    }

    fn topics(answer: Result<Asked, Error>) -> (Arc<Topics>, Arc<Script>, Supervisor) {
        let supervisor = Supervisor::new();
        let script =
            Arc::new(Script { answer: Mutex::new(answer), asked: Mutex::default(), made: AtomicU32::new(0) });
        let topics = Topics::new(topic_config::queues().0);
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
        let (a, b, c) = tokio::join!(
            topics.look_up(&t, Turn::First),
            topics.look_up(&t, Turn::First),
            topics.look_up(&t, Turn::First)
        );
        assert_eq!([a, b, c].map(|answer| answer.unwrap().partitions), [3; 3]);
        assert_eq!(script.questions(), 1);
        assert_eq!(topics.known(&t).unwrap().unwrap().partitions, 3);
    }

    #[tokio::test]
    async fn a_missing_topic_is_known_as_absent_for_a_while_and_found_once_it_is_made() {
        let t = name("t");
        let (topics, script, _supervisor) = topics(Err(Error::UnknownTopic(t.clone())));
        assert!(topics.look_up(&t, Turn::First).await.is_err());
        assert_eq!(topics.known(&t), Some(Err(Error::UnknownTopic(t.clone()))));
        tokio::time::sleep(ABSENT_FOR + Duration::from_millis(10)).await;
        assert_eq!(topics.known(&t), None);
        *script.answer.lock().unwrap() = has(1);
        assert_eq!(topics.look_up(&t, Turn::First).await.unwrap().partitions, 1);
    }

    #[tokio::test]
    async fn an_unanswered_look_up_says_nothing_about_the_topic() {
        let (topics, script, _supervisor) = topics(has(2));
        let t = name("t");
        topics.look_up(&t, Turn::First).await.unwrap();
        *script.answer.lock().unwrap() = Err(down());
        assert_eq!(topics.look_up(&t, Turn::First).await, Err(down()));
        assert_eq!(topics.known(&t).unwrap().unwrap().partitions, 2);
    }

    #[tokio::test]
    async fn however_many_names_wait_each_question_takes_as_many_as_it_may() {
        let (topics, script, _supervisor) = topics(has(1));
        let names: Vec<_> = (0..2 * AT_ONCE + 10).map(|n| name(&format!("t{n}"))).collect();
        let answers = join_all(names.iter().map(|name| topics.look_up(name, Turn::First))).await;
        assert!(answers.iter().all(Result::is_ok));
        assert!(script.questions() < 20, "{:?}", script.asked.lock().unwrap());
        assert!(names.iter().all(|name| topics.known(name).unwrap().is_ok()));
    }

    #[tokio::test]
    async fn used_topics_are_asked_about_again_many_at_once() {
        let (topics, script, _supervisor) = topics(has(1));
        let names: Vec<_> = (0..AT_ONCE).map(|n| name(&format!("t{n}"))).collect();
        join_all(names.iter().map(|name| topics.look_up(name, Turn::First))).await;
        let long_ago = Instant::now().checked_sub(REFRESH_EVERY).unwrap();
        let before = script.questions();
        for (number, present) in write(&topics.present).values_mut().enumerate() {
            present.asked = long_ago;
            present.used = (number > 0).into();
        }
        let is_asked = || script.questions() > before;
        while !is_asked() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(script.asked.lock().unwrap()[before..], [AT_ONCE - 1], "an unused one is not");
    }

    #[tokio::test]
    async fn only_who_wants_a_topic_made_has_it_made() {
        let t = name("t");
        let (topics, script, _supervisor) = topics(Err(Error::UnknownTopic(t.clone())));
        assert_eq!(topics.look_up(&t, Turn::First).await, Err(Error::UnknownTopic(t.clone())));
        assert_eq!(script.made.load(Relaxed), 0);
        assert_eq!(topics.look_up_or_make(&t).await.unwrap().partitions, 1);
        assert_eq!(topics.known(&t).unwrap().unwrap().partitions, 1);
        assert_eq!(script.made.load(Relaxed), 1);
    }

    #[test]
    fn however_many_names_are_absent_few_are_remembered() {
        let topics = Topics::new(topic_config::queues().0);
        for number in 0..MAX_ABSENT + 10 {
            let name = name(&format!("t{number}"));
            let _ = topics.learn(&name, Err(Error::UnknownTopic(name.clone())));
        }
        assert_eq!(read(&topics.absent).topics.len(), MAX_ABSENT);
    }

    #[tokio::test]
    async fn the_configuration_outlives_a_refresh() {
        let (topics, _script, _supervisor) = topics(has(2));
        let t = name("t");
        topics.look_up(&t, Turn::First).await.unwrap();
        let config = TopicConfig {
            max_message_bytes: 10,
            compacted: true,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: i64::MAX,
        };
        topics.set_config(&t, Some(config.clone()));
        topics.look_up(&t, Turn::First).await.unwrap();
        assert_eq!(topics.known(&t).unwrap().unwrap().config.as_ref(), Some(&config));
    }
}
