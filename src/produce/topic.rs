//! Topic names and what is known about a topic.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{Arc, LazyLock},
    time::Instant,
};

/// The longest legal topic name, in bytes (`org.apache.kafka.common.internals.Topic`).
pub const MAX_NAME_LENGTH: usize = 249;

/// A legal, not internal topic name. Cloning shares the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

/// Why a text is not a topic name that may be written to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopicName {
    #[error("a topic name has 1 to {MAX_NAME_LENGTH} characters, this one has {0}")]
    Length(usize),
    #[error("a topic name may hold only the characters a-z, A-Z, 0-9, '.', '_' and '-'")]
    Character,
    #[error("'.' and '..' are not topic names")]
    Dots,
    #[error("topics that begin with '__' are Kafka's own and cannot be written to")]
    Internal,
}

impl TopicName {
    /// Applies Kafka's rule (`org.apache.kafka.common.internals.Topic#validate`) and refuses internal topics.
    pub fn parse(name: &str) -> Result<Self, InvalidTopicName> {
        if name.is_empty() || name.len() > MAX_NAME_LENGTH {
            return Err(InvalidTopicName::Length(name.chars().count()));
        }
        if name == "." || name == ".." {
            return Err(InvalidTopicName::Dots);
        }
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
            return Err(InvalidTopicName::Character);
        }
        if name.starts_with("__") {
            return Err(InvalidTopicName::Internal);
        }
        Ok(Self(name.into()))
    }

    /// For names that are written in the source; they are checked by a test.
    pub(crate) fn from_static(name: &'static str) -> Self {
        debug_assert!(Self::parse(name).is_ok(), "{name}");
        Self(name.into())
    }

    /// The name as Kafka has it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::borrow::Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A topic as the cluster described it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub name: TopicName,
    pub partitions: i32,
    /// Partitions that could not be written to then, by number.
    pub leaderless: Vec<i32>,
    /// Kafka's own name for it (KIP-516), which is another one once the topic was deleted and made again. None where the
    /// broker does not tell.
    pub id: Option<TopicId>,
    /// When the cluster said so.
    pub learned: Instant,
    /// None until the broker has told, and for ever where it may not tell.
    pub config: Option<TopicConfig>,
    /// Of its name, for tables of this process.
    pub hash: u64,
}

/// A topic's UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicId(pub u128);

impl Topic {
    /// A topic that was just learned of, of which no more is known than its partitions.
    pub fn new(name: TopicName, partitions: i32) -> Self {
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let hash = HASHER.hash_one(name.as_str());
        Self {
            name,
            partitions,
            leaderless: Vec::new(),
            id: None,
            learned: Instant::now(),
            config: None,
            hash,
        }
    }
}

/// The topic's settings that decide whether a record can be written at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// `max.message.bytes`: the largest record batch, in bytes.
    pub max_message_bytes: usize,
    /// `cleanup.policy` holds `compact`: a record needs a key.
    pub compacted: bool,
    /// `message.timestamp.before.max.ms` and `.after.max.ms`; only meaningful for `CreateTime` topics.
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
}

impl TopicConfig {
    /// Refuses a timestamp that the broker would refuse together with its whole batch; `timestamp` and `now` are
    /// milliseconds since the Unix epoch.
    pub(super) fn check_timestamp(
        &self,
        topic: &TopicName,
        timestamp: i64,
        now: i64,
    ) -> Result<(), super::Error> {
        let out_of_range =
            |bound: String| Err(super::Error::TimestampOutOfRange { topic: topic.clone(), timestamp, bound });
        if now.saturating_sub(timestamp) > self.timestamp_before_max_ms {
            return out_of_range(format!("at most {} ms in the past", self.timestamp_before_max_ms));
        }
        if timestamp.saturating_sub(now) > self.timestamp_after_max_ms {
            return out_of_range(format!("at most {} ms in the future", self.timestamp_after_max_ms));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafkas_own_rule_decides() {
        for good in ["a", "rtmh.logs", "A-b_c.9", "...", &"x".repeat(249), "_schemas"] {
            assert!(TopicName::parse(good).is_ok(), "{good}");
        }
        assert_eq!(TopicName::parse(""), Err(InvalidTopicName::Length(0)));
        assert_eq!(TopicName::parse(&"x".repeat(250)), Err(InvalidTopicName::Length(250)));
        assert_eq!(TopicName::parse("."), Err(InvalidTopicName::Dots));
        assert_eq!(TopicName::parse(".."), Err(InvalidTopicName::Dots));
        for bad in ["a b", "a/b", "ä", "a\0", "a:b"] {
            assert_eq!(TopicName::parse(bad), Err(InvalidTopicName::Character), "{bad:?}");
        }
    }

    #[test]
    fn internal_topics_are_refused() {
        assert_eq!(TopicName::parse("__consumer_offsets"), Err(InvalidTopicName::Internal));
    }
}
