//! What became of the records of a chunk: one row, under the chunk's key.

use super::codec::{Corrupt, FORMAT, append, take, topic};
use crate::produce::{Receipt, Sequence, TopicName};
use serde::{Deserialize, Serialize};

/// The end of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    Written(Receipt),
    Failed {
        /// The error's tag, as clients see it.
        error: String,
        reason: String,
        /// Where the record lies now, if it does.
        dead_letter: Option<DeadLetter>,
    },
}

/// Topic, partition and offset of a record that was refused for ever.
pub type DeadLetter = (TopicName, i32, Option<i64>);

/// Records of one chunk that are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The chunk's key.
    pub first: Sequence,
    /// By index in the chunk.
    pub results: Vec<(u32, Resolved)>,
    /// Milliseconds since the Unix epoch.
    pub resolved_at: i64,
}

#[derive(Serialize, Deserialize)]
struct Head<'a> {
    format: u8,
    resolved_at: i64,
    /// Each topic of the row once.
    #[serde(borrow)]
    topics: Vec<&'a str>,
    results: u32,
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    index: u32,
    #[serde(borrow)]
    end: End<'a>,
}

#[derive(Serialize, Deserialize)]
enum End<'a> {
    /// The topic's place in the head, partition, offset, timestamp.
    Written(u32, i32, Option<i64>, i64),
    /// Error, reason; topic, partition and offset of the dead letter.
    Failed(&'a str, &'a str, Option<(u32, i32, Option<i64>)>),
}

impl Resolution {
    /// Its row.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut topics: Vec<&str> = Vec::new();
        for (_, resolved) in &self.results {
            if let Some(topic) = resolved.topic()
                && place(&topics, topic).is_none()
            {
                topics.push(topic.as_str());
            }
        }
        let at = |topic: &TopicName| place(&topics, topic).unwrap_or_default();
        let mut row = Vec::with_capacity(64 + 24 * self.results.len());
        let (resolved_at, results) = (self.resolved_at, self.results.len() as u32);
        append(&Head { format: FORMAT, resolved_at, topics: topics.clone(), results }, &mut row);
        for (index, resolved) in &self.results {
            let end = match resolved {
                Resolved::Written(receipt) => {
                    let Receipt { topic, partition, offset, timestamp } = receipt;
                    End::Written(at(topic), *partition, *offset, *timestamp)
                }
                Resolved::Failed { error, reason, dead_letter } => {
                    let dead_letter = dead_letter
                        .as_ref()
                        .map(|(topic, partition, offset)| (at(topic), *partition, *offset));
                    End::Failed(error, reason, dead_letter)
                }
            };
            append(&Line { index: *index, end }, &mut row);
        }
        row
    }

    /// Reads the row under `first`.
    pub(super) fn decode(first: Sequence, row: &[u8]) -> Result<Self, Corrupt> {
        let mut results = Vec::new();
        let resolved_at = scan(row, |topics, line| {
            results.push((line.index, resolved(topics, line.end)?));
            Ok(())
        })?;
        Ok(Self { first, results, resolved_at })
    }

    /// Takes what an earlier row of the same chunk says, but for what is said anew here.
    pub(super) fn merge(&mut self, earlier: Self) {
        // a stable sort: what is said anew comes first
        self.results.extend(earlier.results);
        self.results.sort_by_key(|&(index, _)| index);
        self.results.dedup_by_key(|&mut (index, _)| index);
    }
}

/// What a row says of one record.
pub(super) fn find(row: &[u8], index: u32) -> Result<Option<Resolved>, Corrupt> {
    let mut found = None;
    scan(row, |topics, line| {
        if line.index == index {
            found = Some(resolved(topics, line.end)?);
        }
        Ok(())
    })?;
    Ok(found)
}

fn scan<'a>(
    row: &'a [u8],
    mut visit: impl FnMut(&[&'a str], Line<'a>) -> Result<(), Corrupt>,
) -> Result<i64, Corrupt> {
    let (head, mut rest): (Head, _) = take(row)?;
    if head.format != FORMAT {
        return Err(Corrupt(format!("format {} of a receipt, this version writes {FORMAT}", head.format)));
    }
    for _ in 0..head.results {
        let (line, after): (Line, _) = take(rest)?;
        rest = after;
        visit(&head.topics, line)?;
    }
    Ok(head.resolved_at)
}

fn resolved(topics: &[&str], end: End) -> Result<Resolved, Corrupt> {
    let named = |place: u32| {
        let name = topics.get(place as usize).ok_or_else(|| Corrupt("a receipt names no topic".into()))?;
        topic(name)
    };
    Ok(match end {
        End::Written(place, partition, offset, timestamp) => {
            Resolved::Written(Receipt { topic: named(place)?, partition, offset, timestamp })
        }
        End::Failed(error, reason, dead_letter) => Resolved::Failed {
            error: error.to_owned(),
            reason: reason.to_owned(),
            dead_letter: match dead_letter {
                Some((place, partition, offset)) => Some((named(place)?, partition, offset)),
                None => None,
            },
        },
    })
}

impl Resolved {
    fn topic(&self) -> Option<&TopicName> {
        match self {
            Self::Written(receipt) => Some(&receipt.topic),
            Self::Failed { dead_letter, .. } => dead_letter.as_ref().map(|(topic, ..)| topic),
        }
    }
}

fn place(topics: &[&str], topic: &TopicName) -> Option<u32> {
    // most rows have one topic, and no chunk has more than its records
    topics.iter().rposition(|name| *name == topic.as_str()).map(|place| place as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> TopicName {
        TopicName::parse(name).unwrap()
    }

    fn written(topic: &str, offset: Option<i64>) -> Resolved {
        Resolved::Written(Receipt { topic: name(topic), partition: 2, offset, timestamp: 1_795_228_481_123 })
    }

    fn failed(dead_letter: Option<DeadLetter>) -> Resolved {
        Resolved::Failed { error: "record_too_large".into(), reason: "it is".into(), dead_letter }
    }

    fn resolution(results: Vec<(u32, Resolved)>) -> Resolution {
        Resolution { first: Sequence(9), results, resolved_at: 7 }
    }

    #[test]
    fn a_row_says_what_became_of_each_record() {
        let dead_letter = Some((name("a.dlq"), 1, Some(4)));
        let results = vec![
            (0, written("a", Some(5))),
            (2, written("b", None)),
            (3, failed(None)),
            (7, failed(dead_letter)),
        ];
        let whole = resolution(results.clone());
        let row = whole.encode();
        assert_eq!(Resolution::decode(Sequence(9), &row), Ok(whole));
        for (index, resolved) in results {
            assert_eq!(find(&row, index), Ok(Some(resolved)));
        }
        assert_eq!(find(&row, 1), Ok(None));
    }

    #[test]
    fn what_is_said_anew_holds() {
        let mut later = resolution(vec![(4, written("a", Some(1))), (1, written("a", Some(2)))]);
        later.merge(resolution(vec![(0, failed(None)), (4, failed(None))]));
        let expected = vec![(0, failed(None)), (1, written("a", Some(2))), (4, written("a", Some(1)))];
        assert_eq!(later.results, expected);
    }

    #[test]
    fn a_row_that_is_cut_off_is_an_error() {
        let row = resolution(vec![(0, written("a", Some(5))), (1, failed(None))]).encode();
        for end in 0..row.len() {
            assert!(Resolution::decode(Sequence(9), &row[..end]).is_err());
        }
    }
}
