//! `?wait=10s`: how long an answer may be held back until there is something to say.

use crate::{http::ApiError, produce::parse_duration};
use std::time::Duration;

/// Proxies and clients tend to give up on an answer that takes longer.
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// The query's `wait`; None where it has none. Other members are ignored.
pub fn wait_of(query: Option<&str>) -> Result<Option<Duration>, ApiError> {
    let members = query.unwrap_or_default().split('&');
    let mut waits = members.filter_map(|member| {
        let (name, value) = member.split_once('=').unwrap_or((member, ""));
        (name == "wait").then_some(value)
    });
    let Some(wait) = waits.next() else { return Ok(None) };
    let wait = parse_duration(wait).ok().filter(|wait| *wait <= MAX_WAIT && waits.next().is_none());
    wait.map(Some).ok_or(ApiError::InvalidWait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_need_not_have_a_wait() {
        for query in [None, Some(""), Some("a=b&&c"), Some("waits=1s"), Some("Wait=1s")] {
            assert_eq!(wait_of(query).unwrap(), None, "{query:?}");
        }
    }

    #[test]
    fn a_wait_has_a_unit_and_is_found_among_others() {
        for (query, milliseconds) in
            [("wait=10s", 10_000), ("a=b&wait=500ms&c", 500), ("wait=1m", 60_000), ("wait=0s", 0)]
        {
            assert_eq!(wait_of(Some(query)).unwrap(), Some(Duration::from_millis(milliseconds)), "{query}");
        }
    }

    #[test]
    fn all_else_is_refused_by_name() {
        for query in
            ["wait", "wait=", "wait=10", "wait=soon", "wait=-1s", "wait=61s", "wait=2m", "wait=1s&wait=1s"]
        {
            let error = wait_of(Some(query)).expect_err(query);
            assert_eq!((error.tag(), error.status().as_u16()), ("invalid_wait", 400), "{query}");
            assert!(error.problem().detail.contains("`wait`"), "{error}");
            assert!(error.problem().detail.contains("1m"), "{error}");
        }
    }
}
