//! A `SPOOL_DIR` that cannot be used keeps the service from starting, with words that name it and say what to do.

use crate::support::{
    app::{Run, Service, run},
    disk::{self, TestDisk},
    eventually,
};
use std::{fs, path::Path, time::Duration};

/// `EX_USAGE` of `sysexits.h`.
const FAULTY: i32 = 64;

/// A start that is expected to fail; HOST and PORT are never reached.
async fn refused(directory: &str) -> Run {
    run(&[], &[("DELIVERY", "durable"), ("SPOOL_DIR", directory)]).await
}

#[track_caller]
fn says(run: &Run, code: i32, words: &[&str]) {
    assert_eq!(run.status.code(), Some(code), "{}", run.output);
    for word in words {
        assert!(run.output.contains(word), "{word}: {}", run.output);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn durable_delivery_without_a_directory_is_a_fault() {
    says(&refused("").await, FAULTY, &["SPOOL_DIR", "name a directory"]);
}

#[tokio::test]
async fn a_directory_that_is_missing_or_none_is_a_fault() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none");
    says(
        &refused(text(&missing)).await,
        FAULTY,
        &["SPOOL_DIR=", text(&missing), "does not exist; create it"],
    );
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    says(&refused(text(&file)).await, FAULTY, &["SPOOL_DIR=", text(&file), "is not a directory"]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_directory_that_cannot_be_written_is_a_fault() {
    let Some(disk) = TestDisk::mount("1m") else { return };
    disk.make_read_only();
    says(
        &refused(text(disk.path())).await,
        FAULTY,
        &[
            "SPOOL_DIR=",
            text(disk.path()),
            "can't be written",
            "Read-only file system",
            "give this user the right",
        ],
    );
}

#[tokio::test]
async fn a_directory_that_another_instance_uses_is_refused_until_that_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let variables = [("DELIVERY", "durable"), ("SPOOL_DIR", text(directory.path()))];
    let first = Service::spawn(&variables).await;
    let second = refused(text(directory.path())).await;
    says(&second, 1, &["SPOOL_DIR=", text(directory.path()), "locked by another", "directory of its own"]);
    first.kill();
    Service::spawn(&variables).await;
}

#[tokio::test]
async fn a_spool_of_a_newer_version_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("spool.redb");
    let database = redb::Database::create(&file).unwrap();
    let transaction = database.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    transaction.open_table(meta).unwrap().insert("format", 1000).unwrap();
    transaction.commit().unwrap();
    drop(database);
    for _ in 0..2 {
        says(
            &refused(text(directory.path())).await,
            FAULTY,
            &["SPOOL_DIR=", text(directory.path()), "another version", "1000"],
        );
    }
}

#[tokio::test]
async fn a_file_that_is_no_spool_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("spool.redb"), [b'x'; 5000]).unwrap();
    says(&refused(text(directory.path())).await, 1, &["SPOOL_DIR=", text(directory.path()), "move it away"]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_directory_in_memory_is_warned_of() {
    let Some(directory) = disk::in_memory() else { return };
    let service = Service::spawn(&[("DELIVERY", "durable"), ("SPOOL_DIR", text(directory.path()))]).await;
    eventually("a warning", Duration::from_secs(5), async || {
        let logs = service.logs();
        let is_warned = |line: &str| {
            line.contains("WARN") && line.contains("SPOOL_DIR") && line.contains("it is on a tmpfs")
        };
        logs.lines().any(is_warned).then_some(())
    })
    .await;
}
