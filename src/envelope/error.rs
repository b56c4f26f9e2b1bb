//! What can be wrong with a body, by name.

/// The stable name of a fault in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    InvalidJson,
    InvalidBody,
    MissingValue,
    MissingProject,
    MissingTopic,
    InvalidTopic,
    InvalidPartition,
    InvalidKey,
    InvalidHeader,
    InvalidTimestamp,
}

impl Kind {
    /// The name as clients and metrics see it.
    pub fn tag(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidBody => "invalid_body",
            Self::MissingValue => "missing_value",
            Self::MissingProject => "missing_project",
            Self::MissingTopic => "missing_topic",
            Self::InvalidTopic => "invalid_topic",
            Self::InvalidPartition => "invalid_partition",
            Self::InvalidKey => "invalid_key",
            Self::InvalidHeader => "invalid_header",
            Self::InvalidTimestamp => "invalid_timestamp",
        }
    }
}

/// A fault in one envelope. The detail says what is wrong and what to do, and never quotes the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Error {
    pub kind: Kind,
    pub detail: String,
}

impl Error {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    /// A syntax error is `invalid_json`; JSON of another shape than expected is `invalid_body`.
    pub(super) fn from_json(error: &serde_json::Error, json: &str) -> Self {
        let kind = if error.is_data() { Kind::InvalidBody } else { Kind::InvalidJson };
        if error.is_eof() && error.column() == 0 {
            return Self::new(kind, "the body is empty; send a JSON document");
        }
        let text = error.to_string();
        // serde quotes the whole string that stands where another type must
        match text.rsplit_once(", expected ") {
            Some((found, expected)) if found.starts_with("invalid type: ") => {
                Self::new(kind, format!("the body must be {expected}"))
            }
            _ if kind == Kind::InvalidJson => Self::new(kind, format!("{}{text}", beginning(json))),
            _ => Self::new(kind, text),
        }
    }
}

/// Faulty elements of one batch that are named.
const MAX_NAMED: usize = 100;

/// What is wrong with the elements of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// The index and the fault of the first faulty elements, 100 at most.
    pub named: Vec<(usize, Error)>,
    /// How many elements are faulty in all.
    pub total: usize,
}

impl Faults {
    pub(super) fn add(&mut self, index: usize, fault: Error) {
        self.total += 1;
        if self.named.len() < MAX_NAMED {
            self.named.push((index, fault));
        }
    }
}

/// What is no JSON from its start on is shown, since serde's words are no help there. Not more: the rest may be a secret.
fn beginning(json: &str) -> String {
    let json = json.trim_start();
    if json.starts_with(['{', '[', '"']) {
        return String::new();
    }
    let first: String = json.chars().take(10).collect();
    format!(
        r#"a JSON document is expected, as {{"project":"shop","value":1}}, and this begins with {first:?}: "#
    )
}

/// Why a batch is refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchError {
    /// The body as a whole is not a batch.
    Body(Error),
    Elements(Faults),
    TooManyRecords {
        limit: usize,
    },
}
