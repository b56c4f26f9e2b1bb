//! The paths that are served, which are also the `route` labels of the metrics.

use crate::produce::ReceiptId;

pub const INDEX: &str = "/";
pub const DOCS: &str = "/docs";
pub const DOCS_FILE: &str = "/docs/{*file}";
pub const HEALTH: &str = "/health";
pub const HEALTH_KAFKA: &str = "/health/kafka";
pub const READY: &str = "/ready";
pub const OPENAPI: &str = "/openapi.json";
pub const LOGS: &str = "/logs";
pub const METRICS: &str = "/metrics";
pub const EVENTS: &str = "/events";
pub const PRODUCE: &str = "/produce";
pub const PRODUCE_BATCH: &str = "/produce/batch";
const RECEIPTS: &str = "/receipts/";
pub const RECEIPT: &str = "/receipts/{id}";
/// The label of paths that nothing is served at.
const UNMATCHED: &str = "unmatched";

/// Those that are asked for most come first.
const LABELS: [&str; Route::COUNT] = [
    LOGS,
    EVENTS,
    METRICS,
    PRODUCE,
    PRODUCE_BATCH,
    RECEIPT,
    READY,
    HEALTH,
    HEALTH_KAFKA,
    INDEX,
    OPENAPI,
    DOCS,
    DOCS_FILE,
    UNMATCHED,
];

/// What takes a path, whether or not the method is one that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route(usize);

impl Route {
    pub const COUNT: usize = 14;

    /// The same answer as the router's, known without asking it. One trailing slash is accepted.
    pub fn of(path: &str) -> Self {
        let without_slash = path.strip_suffix('/').filter(|path| path.len() > 1).unwrap_or(path);
        let exact = LABELS.iter().position(|&label| label == without_slash);
        let label = match exact {
            Some(index) => return Self(index),
            None if path.strip_prefix(DOCS).is_some_and(|rest| rest.starts_with('/')) => DOCS_FILE,
            None if without_slash.strip_prefix(RECEIPTS).is_some_and(|id| !id.contains('/')) => RECEIPT,
            None => UNMATCHED,
        };
        Self(LABELS.iter().position(|&other| other == label).unwrap_or_default())
    }

    pub fn label(self) -> &'static str {
        LABELS[self.0]
    }

    /// Asks how the service is; answered also where all connections are in use.
    pub fn is_probe(self) -> bool {
        matches!(self.label(), HEALTH | HEALTH_KAFKA | READY)
    }

    /// Below [`Route::COUNT`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// Where a stored record can be asked for.
pub fn receipt(id: &ReceiptId) -> String {
    format!("{RECEIPTS}{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_known_by_its_path_with_and_without_a_slash() {
        for path in LABELS.into_iter().filter(|path| *path != UNMATCHED && *path != DOCS_FILE) {
            assert_eq!(Route::of(path).label(), path);
            assert_eq!(Route::of(&format!("{}/", path.trim_end_matches('/'))).label(), path);
        }
    }

    #[test]
    fn the_files_of_the_documentation_are_one_route() {
        assert_eq!(Route::of("/docs/index.css").label(), DOCS_FILE);
        assert_eq!(Route::of("/docs/a/b/").label(), DOCS_FILE);
    }

    #[test]
    fn all_receipts_are_one_route() {
        for path in ["/receipts/a-1", "/receipts/a-1/", "/receipts/%2F", "/receipts//"] {
            assert_eq!(Route::of(path).label(), RECEIPT, "{path}");
        }
        for path in ["/receipts", "/receipts/", "/receipts/a/b", "/receipts/a//"] {
            assert_eq!(Route::of(path).label(), UNMATCHED, "{path}");
        }
    }

    #[test]
    fn all_else_is_unmatched() {
        for path in ["", "//", "/logs//", "/Logs", "/docsx", "/produce/batch/1", "*"] {
            assert_eq!(Route::of(path).label(), UNMATCHED, "{path}");
        }
    }
}
