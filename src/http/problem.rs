//! The body of every error: RFC 9457 problem details.

use serde::Serialize;
use utoipa::ToSchema;

pub const CONTENT_TYPE: &str = "application/problem+json";

/// An error (RFC 9457 problem details).
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "type": "urn:kafka-inlet:error:unknown_topic", "title": "Unknown topic", "status": 404,
    "detail": "topic 'orders' does not exist; create it, or check the spelling",
    "error": "unknown_topic", "outcome": "not_written", "retriable": false
}))]
pub struct Problem {
    /// `urn:kafka-inlet:error:` and the error's name.
    #[serde(rename = "type")]
    pub type_: String,
    /// The error's name in words.
    pub title: String,
    /// The status of the answer.
    pub status: u16,
    /// What is wrong and what to do.
    pub detail: String,
    /// The error's stable name.
    pub error: &'static str,
    /// `not_written`: nothing of the request is in Kafka. `unknown`: it may be, and a resend may duplicate it. Of a
    /// receipt: what became of its record is not known here.
    #[schema(pattern = "^(not_written|unknown)$")]
    pub outcome: &'static str,
    /// The same bytes may succeed later.
    pub retriable: bool,
    /// The first faulty elements of a batch, 100 at most; absent elsewhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false, max_items = 100)]
    pub errors: Vec<Fault>,
    /// How many elements of the batch are faulty; absent elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = usize, required = false)]
    pub errors_total: Option<usize>,
}

impl Problem {
    pub fn to_json(&self) -> Vec<u8> {
        // plain data: serialising it cannot fail
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// What is wrong with one element of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct Fault {
    /// Its position in the batch, from 0.
    pub index: usize,
    /// The error's stable name.
    pub error: &'static str,
    /// What is wrong and what to do.
    pub detail: String,
}

/// `urn:kafka-inlet:error:<name>`.
pub fn type_of(error: &str) -> String {
    format!("urn:kafka-inlet:error:{error}")
}

/// The name in words: `unknown_topic` is "Unknown topic".
pub fn title_of(error: &str) -> String {
    let mut title = error.replace('_', " ");
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    title
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_the_name_in_words() {
        assert_eq!(title_of("unknown_topic"), "Unknown topic");
    }
}
