//! What the tests stand on: real brokers, mock clusters, the service as a process, and clients of both.

pub mod app;
pub mod broker;
pub mod client;
pub mod consumer;
pub mod disk;
pub mod haproxy;
pub mod java;
pub mod load;
pub mod mock;
pub mod numbered;
pub mod outcomes;
pub mod port;
pub mod process;
pub mod protocol;
pub mod proxy;
pub mod silent;
pub mod spool;

use std::{
    io::Write,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// The shared broker; where Java or Maven is missing the test ends here, which is said on standard error.
/// With `CI=true` it fails instead.
#[macro_export]
macro_rules! kafka_or_skip {
    () => {
        match $crate::support::broker::shared() {
            Some(kafka) => kafka,
            None => return,
        }
    };
}

/// The shared broker and the shared service on it, else as [`kafka_or_skip`].
#[macro_export]
macro_rules! service_or_skip {
    () => {
        match $crate::support::app::shared().await {
            Some((kafka, service)) => (kafka, service),
            None => return,
        }
    };
}

/// False where something that a test needs is `missing`, which is said on standard error; with `CI=true` that is a
/// failure.
pub fn installed(missing: Option<String>) -> bool {
    let Some(missing) = missing else { return true };
    #[expect(clippy::disallowed_methods, reason = "not a setting of the service")]
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!ci, "{missing}");
    skipped(&missing);
    false
}

/// Says so past the capture of test output: a skipped test must not look like one that passed.
pub fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// A topic name that no other test uses.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed))
}

/// Limits are meant for a machine that does nothing else; on a busy one they are so many times as long. The benchmark
/// measures how fast things are, and no test does.
const BUSY: u32 = 4;

/// Fails where something took longer than the limit, with an allowance for a busy machine.
#[track_caller]
pub fn in_time(taken: Duration, limit: Duration) {
    assert!(taken < BUSY * limit, "it took {taken:?}, and {limit:?} are allowed");
}

/// Asks every 50 ms until the answer is there; after `limit`, with an allowance for a busy machine, the test fails,
/// naming what it waited for.
pub async fn eventually<T>(what: &str, limit: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < BUSY * limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
