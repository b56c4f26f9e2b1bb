//! What is said on the socket: one line of JSON asks, lines of JSON answer, and the last one says that it is the last.

use crate::{
    produce::{ReceiptId, TopicName, batch_size},
    spool::{FailedRecord, Instances},
};
use serde::{Deserialize, Serialize};

/// The longest line that asks, in bytes.
pub(super) const LONGEST_REQUEST: u64 = 64 << 10;
/// So many receipts are asked for at once: their ids fit the line.
const RECEIPTS: usize = 256;
/// Characters of a key that are shown.
const KEY: usize = 64;

/// What the operator wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Say which records failed, the oldest first, at most `limit`.
    List { limit: Option<u64> },
    /// Send them again.
    Retry(Which),
    /// Forget them; their receipts go on saying that they failed.
    Drop(Which),
    /// Forget what waits for this topic; its receipts say that it was dropped.
    DropWaiting(#[serde(with = "topic")] TopicName),
}

/// Which failed records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    All,
    These(#[serde(with = "texts")] Vec<ReceiptId>),
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Failed(Entry),
    Retried(Entry),
    Dropped(Entry),
    /// Nothing was done for this receipt.
    Refused {
        receipt: String,
        why: String,
    },
    /// The last line where something went wrong. What was answered before is done.
    Error(String),
    /// The last line where all went well: how many failed records there are now, and how many wait to be sent.
    End {
        failed: u64,
        waiting: u64,
    },
}

/// What an operator is told of a failed record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub receipt: String,
    /// Milliseconds since the Unix epoch.
    pub failed_at: i64,
    pub topic: String,
    /// Printable, and cut off where it is long.
    pub key: Option<String>,
    /// Bytes, as Kafka counts them against `max.message.bytes`.
    pub size: usize,
    /// The error's tag, as clients see it.
    pub error: String,
    pub reason: String,
}

impl Request {
    /// The same in parts, each of which fits a line.
    pub(super) fn parts(self) -> Vec<Self> {
        let parts = |ids: &[ReceiptId]| -> Vec<Which> {
            ids.chunks(RECEIPTS).map(|part| Which::These(part.to_vec())).collect()
        };
        match &self {
            Self::Retry(Which::These(ids)) => parts(ids).into_iter().map(Self::Retry).collect(),
            Self::Drop(Which::These(ids)) => parts(ids).into_iter().map(Self::Drop).collect(),
            Self::List { .. } | Self::Retry(Which::All) | Self::Drop(Which::All) | Self::DropWaiting(_) => {
                vec![self]
            }
        }
    }
}

impl Entry {
    pub(super) fn of(failed: &FailedRecord, instances: &Instances) -> Self {
        let FailedRecord { sequence, record, error, reason, failed_at } = failed;
        Self {
            receipt: instances.receipt(*sequence).to_string(),
            failed_at: *failed_at,
            topic: record.topic.to_string(),
            key: record.key.as_deref().map(printable),
            size: batch_size(record),
            error: error.clone(),
            reason: reason.clone(),
        }
    }
}

/// A key on one line, in ASCII where it is no text.
fn printable(key: &[u8]) -> String {
    let escaped = match std::str::from_utf8(key) {
        Ok(text) => text.escape_debug().take(KEY + 1).collect::<String>(),
        Err(_) => key.escape_ascii().take(KEY + 1).map(char::from).collect(),
    };
    match escaped.char_indices().nth(KEY) {
        Some((end, _)) => format!("{}…", &escaped[..end]),
        None => escaped,
    }
}

/// Receipts as the texts that clients know.
mod texts {
    use crate::produce::ReceiptId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(ids: &[ReceiptId], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(ids.iter().map(ToString::to_string))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ReceiptId>, D::Error> {
        let parse = |text: &String| {
            ReceiptId::parse(text).ok_or_else(|| D::Error::custom(format!("{text:?} is no receipt id")))
        };
        Vec::<String>::deserialize(deserializer)?.iter().map(parse).collect()
    }
}

/// A topic by its name.
mod topic {
    use crate::produce::TopicName;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(topic: &TopicName, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(topic.as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TopicName, D::Error> {
        TopicName::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::produce::{InstanceId, Sequence};

    fn ids(count: u64) -> Vec<ReceiptId> {
        let instance = InstanceId::parse(&"i".repeat(InstanceId::MAX_LENGTH)).unwrap();
        (0..count)
            .map(|n| ReceiptId { instance: instance.clone(), sequence: Sequence(u64::MAX - n) })
            .collect()
    }

    #[test]
    fn what_is_asked_is_read_as_it_is_written() {
        for request in [
            Request::List { limit: None },
            Request::List { limit: Some(3) },
            Request::Retry(Which::All),
            Request::Drop(Which::These(ids(2))),
            Request::DropWaiting(TopicName::parse("t").unwrap()),
        ] {
            let line = serde_json::to_string(&request).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
        }
    }

    #[test]
    fn a_line_that_asks_for_something_else_is_an_error() {
        for line in [
            "",
            "{}",
            r#""all""#,
            r#"{"purge":"all"}"#,
            r#"{"drop":{"these":["a-ff"]}}"#,
            r#"{"drop":"some"}"#,
            r#"{"drop_waiting":"a b"}"#,
        ] {
            assert!(serde_json::from_str::<Request>(line).is_err(), "{line}");
        }
    }

    #[test]
    fn many_receipts_are_asked_for_in_parts_that_fit() {
        let all = ids(600);
        let parts = Request::Drop(Which::These(all.clone())).parts();
        for part in &parts {
            assert!((serde_json::to_string(part).unwrap().len() as u64) < LONGEST_REQUEST);
        }
        let all: Vec<_> = all.chunks(RECEIPTS).map(|ids| Request::Drop(Which::These(ids.to_vec()))).collect();
        assert_eq!((parts.len(), parts), (3, all));
        assert_eq!(Request::Retry(Which::All).parts(), [Request::Retry(Which::All)]);
    }

    #[test]
    fn a_key_is_one_printable_line() {
        assert_eq!(printable(b"order-42"), "order-42");
        assert_eq!(printable("sch\u{f6}n\n".as_bytes()), "sch\u{f6}n\\n");
        assert_eq!(printable(&[0xff, b'a']), "\\xffa");
        assert_eq!(printable(&[b'x'; 100]), format!("{}…", "x".repeat(KEY)));
        assert_eq!(printable(&[b'x'; KEY]), "x".repeat(KEY));
    }
}
