//! Where records go that can never be written to their own topic.

use super::{InvalidTopicName, TopicName};

/// Stands for the record's own topic in a pattern.
const PLACEHOLDER: &str = "{topic}";

/// The topic of dead letters (`DEAD_LETTER_TOPIC`): the same for all, or made from each record's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterTopic(Pattern);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Fixed(TopicName),
    /// What comes before and after the record's own topic; not both are empty.
    Around(String, String),
}

/// Why a text names no topic of dead letters. Each message is a clause that says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDeadLetterTopic {
    #[error("it must be a topic name, or a pattern with {{topic}} once, {{topic}}.dlq for example: {0}")]
    Name(#[from] InvalidTopicName),
    #[error("it must hold {{topic}} once at most, {{topic}}.dlq for example")]
    Repeated,
    #[error("it must name another topic than the record's own, {{topic}}.dlq for example")]
    Own,
}

impl DeadLetterTopic {
    /// A topic name, or one with `{topic}` in it once.
    pub fn parse(text: &str) -> Result<Self, InvalidDeadLetterTopic> {
        let Some((before, after)) = text.split_once(PLACEHOLDER) else {
            return Ok(Self(Pattern::Fixed(TopicName::parse(text)?)));
        };
        if after.contains(PLACEHOLDER) {
            return Err(InvalidDeadLetterTopic::Repeated);
        }
        if before.is_empty() && after.is_empty() {
            return Err(InvalidDeadLetterTopic::Own);
        }
        // the shortest name there is: what is wrong now would be wrong with every topic
        TopicName::parse(&format!("{before}t{after}"))?;
        Ok(Self(Pattern::Around(before.into(), after.into())))
    }

    /// Where the dead letters of `topic` go. An error where the pattern makes its name too long, or internal.
    pub fn of(&self, topic: &TopicName) -> Result<TopicName, InvalidTopicName> {
        match &self.0 {
            Pattern::Fixed(name) => Ok(name.clone()),
            Pattern::Around(before, after) => TopicName::parse(&format!("{before}{topic}{after}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pattern: &str, topic: &str) -> Result<String, InvalidTopicName> {
        let topic = TopicName::parse(topic).unwrap();
        DeadLetterTopic::parse(pattern).unwrap().of(&topic).map(|name| name.as_str().to_owned())
    }

    #[test]
    fn a_name_without_a_pattern_is_the_topic_of_all() {
        assert_eq!(of("dead-letters", "orders").as_deref(), Ok("dead-letters"));
    }

    #[test]
    fn a_pattern_is_filled_with_the_records_own_topic() {
        assert_eq!(of("{topic}.dlq", "orders").as_deref(), Ok("orders.dlq"));
        assert_eq!(of("dlq.{topic}.v1", "a-b").as_deref(), Ok("dlq.a-b.v1"));
    }

    #[test]
    fn a_topic_that_makes_an_illegal_name_is_told() {
        assert_eq!(of("{topic}.dlq", &"x".repeat(246)), Err(InvalidTopicName::Length(250)));
        assert_eq!(of("_{topic}", "_schemas"), Err(InvalidTopicName::Internal));
    }

    #[test]
    fn a_pattern_that_can_make_no_legal_name_is_refused() {
        use InvalidDeadLetterTopic as Invalid;
        for (pattern, invalid) in [
            ("a b", Invalid::Name(InvalidTopicName::Character)),
            ("{topic} dlq", Invalid::Name(InvalidTopicName::Character)),
            ("{topic}.{project}", Invalid::Name(InvalidTopicName::Character)),
            ("{Topic}.dlq", Invalid::Name(InvalidTopicName::Character)),
            ("__{topic}", Invalid::Name(InvalidTopicName::Internal)),
            (&format!("{{topic}}{}", "x".repeat(249)), Invalid::Name(InvalidTopicName::Length(250))),
            ("", Invalid::Name(InvalidTopicName::Length(0))),
            ("{topic}.{topic}", Invalid::Repeated),
            ("{topic}", Invalid::Own),
        ] {
            assert_eq!(DeadLetterTopic::parse(pattern), Err(invalid), "{pattern}");
        }
    }
}
