/// What the service adds to records.
#[derive(Debug, Clone)]
pub struct Records {
    /// `timestamp`, `source` and `server_time` in the `message` form.
    pub enrich_messages: bool,
    pub headers: RecordHeaders,
}

/// Which headers every record gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeaders {
    pub content_type: bool,
    pub trace_id: bool,
    pub timestamp: bool,
    pub traceparent: bool,
}

impl Default for Records {
    fn default() -> Self {
        Self { enrich_messages: true, headers: RecordHeaders::ALL }
    }
}

impl RecordHeaders {
    pub const ALL: Self = Self { content_type: true, trace_id: true, timestamp: true, traceparent: true };
    pub const NONE: Self =
        Self { content_type: false, trace_id: false, timestamp: false, traceparent: false };
}
