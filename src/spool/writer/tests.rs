use super::*;
use crate::{
    lifecycle::supervisor::Supervisor,
    produce::{InstanceId, Receipt, Record, TopicName, fake::record},
    spool::{Chunk, Found, Resolved},
};
use bytes::Bytes;
use futures_util::future::join_all;
use std::time::SystemTime;

struct Running {
    writer: Writer,
    store: Arc<Store>,
    commits: Arc<Mutex<Vec<Committed>>>,
    directory: tempfile::TempDir,
    _supervisor: Supervisor,
}

fn started(max_bytes: u64) -> Running {
    started_with(Settings { max_bytes, receipt_max_bytes: u64::MAX, receipt_ttl: Duration::from_secs(3600) })
}

fn started_with(settings: Settings) -> Running {
    started_in(tempfile::tempdir().unwrap(), settings)
}

fn started_in(directory: tempfile::TempDir, settings: Settings) -> Running {
    let store =
        Arc::new(Store::open(directory.path(), &InstanceId::parse("a").unwrap(), SystemTime::now()).unwrap());
    let sequences = Arc::new(AtomicU64::new(store.first_sequence().0));
    let (commits, supervisor) = (Arc::new(Mutex::new(Vec::new())), Supervisor::new());
    let seen = Arc::clone(&commits);
    let on_commit = Box::new(move |commit| seen.lock().unwrap().push(commit));
    let writer =
        Writer::start(Arc::clone(&store), sequences, settings, on_commit, &supervisor.alarm()).unwrap();
    Running { writer, store, commits, directory, _supervisor: supervisor }
}

fn with_key(key: String) -> Record {
    Record { key: Some(Bytes::from(key)), ..record("t") }
}

fn no_places() -> Places {
    Places::new(Arc::default())
}

fn encoded(keys: impl IntoIterator<Item = String>) -> Encoded {
    keys.into_iter().map(with_key).collect::<Vec<_>>().iter().collect()
}

/// All that is stored, in order.
fn stored(store: &Store) -> Vec<(Sequence, String)> {
    let chunks = store.chunks_from(Sequence(0), usize::MAX).unwrap();
    let records = chunks
        .into_iter()
        .flat_map(|(first, value)| Chunk::parse(first, value).unwrap().records(store.instances()).unwrap());
    let key = |record: Record| String::from_utf8(record.key.unwrap().to_vec()).unwrap();
    records.map(|(sequence, record)| (sequence, key(record))).collect()
}

#[tokio::test]
async fn requests_that_come_together_share_commits_and_keep_their_own_order() {
    let running = started(u64::MAX);
    // the first commit ends when everything is asked for
    let held_up = running.commits.lock().unwrap();
    let requests: Vec<_> = (0..200)
        .map(|request| {
            running.writer.store(encoded((0..5).map(move |n| format!("{request}-{n}"))), no_places())
        })
        .collect();
    drop(held_up);
    let firsts: Vec<_> = join_all(requests).await.into_iter().map(Result::unwrap).collect();
    let all = stored(&running.store);
    assert_eq!(all.len(), 1000);
    for (request, first) in firsts.into_iter().enumerate() {
        for n in 0..5 {
            let expected = (Sequence(first.0 + n), format!("{request}-{n}"));
            assert!(all.contains(&expected), "{expected:?}");
        }
    }
    let commits = running.commits.lock().unwrap();
    assert!(commits.len() <= 3, "{} commits", commits.len());
    assert_eq!(commits.iter().map(|commit| commit.records).sum::<u64>(), 1000);
}

#[tokio::test]
async fn a_request_may_span_chunks_and_is_there_after_a_restart() {
    let Running { writer, store, directory, _supervisor, .. } = started(u64::MAX);
    let first = writer.store(encoded((0..20_000).map(|n| n.to_string())), no_places()).await.unwrap();
    writer.close();
    drop((writer, store));
    let store = Store::open(directory.path(), &InstanceId::parse("a").unwrap(), SystemTime::now()).unwrap();
    assert!(store.chunks_from(Sequence(0), usize::MAX).unwrap().len() > 2);
    let expected = (0..20_000).map(|n| (Sequence(first.0 + n), n.to_string())).collect::<Vec<_>>();
    assert_eq!(stored(&store), expected);
}

#[tokio::test]
async fn a_record_that_is_kept_has_its_own_sequence_and_leaves_with_its_receipt() {
    let running = started(u64::MAX);
    let sequence = Sequence(7);
    running.writer.keep(vec![(sequence, encoded(["a".into()]))]).await.unwrap();
    running.writer.stored().notified().await;
    assert_eq!(stored(&running.store), [(sequence, "a".into())]);
    let topic = TopicName::parse("t").unwrap();
    let written = Resolved::Written(Receipt { topic, partition: 0, offset: Some(1), timestamp: 2 });
    let resolved =
        vec![Resolution { first: sequence, results: vec![(0, written.clone())], resolved_at: now_ms() }];
    let finished = Finished { removed: vec![sequence], resolved, ..Finished::default() };
    running.writer.finish(finished).await.unwrap();
    assert_eq!(running.store.find(sequence), Ok(Found::Resolved(written)));
    assert_eq!((running.store.records(), running.writer.bytes()), (0, 0));
}

#[tokio::test]
async fn more_than_may_be_held_is_refused_and_what_leaves_makes_room() {
    let running = started(10_000);
    let mut chunks = Vec::new();
    let full = loop {
        let record = with_key("k".into());
        let large = Record { value: Some(Bytes::from(vec![b'x'; 1000])), ..record };
        match running.writer.store([&large].into_iter().collect(), no_places()).await {
            Ok(first) => chunks.push(first),
            Err(error) => break error,
        }
    };
    assert_eq!(full, CommitError::Full(Shortage::MaxBytes { max_bytes: 10_000 }));
    assert_eq!(chunks.len(), 9);
    let kept = running.writer.keep(vec![(Sequence(1), encoded(["k".repeat(2000)]))]).await;
    assert!(matches!(kept, Err(CommitError::Full(_))));
    let finished = Finished { removed: chunks, ..Finished::default() };
    running.writer.finish(finished).await.unwrap();
    running.writer.store(encoded(["k".into()]), no_places()).await.unwrap();
}

#[tokio::test]
async fn what_is_asked_for_after_the_end_is_refused() {
    let running = started(u64::MAX);
    running.writer.close();
    assert!(matches!(
        running.writer.store(encoded(["a".into()]), no_places()).await,
        Err(CommitError::Io(_))
    ));
    assert_eq!(running.writer.bytes(), 0);
}

#[tokio::test]
async fn a_record_that_is_finished_in_the_commit_that_keeps_it_does_not_stay() {
    let running = started(u64::MAX);
    let sequence = Sequence(7);
    // asked for in this order before either is committed, or one after the other: the end is the same
    for _ in 0..50 {
        let kept = running.writer.keep(vec![(sequence, encoded(["a".into()]))]);
        let rewritten = running.store.chunk(sequence).unwrap().map(|(first, value)| (first, value.to_vec()));
        let rewritten = Finished { rewritten: rewritten.into_iter().collect(), ..Finished::default() };
        let rewritten = running.writer.finish(rewritten);
        let finished = Finished { removed: vec![sequence], ..Finished::default() };
        let finished = running.writer.finish(finished);
        assert_eq!((kept.await, rewritten.await, finished.await), (Ok(()), Ok(()), Ok(())));
        assert_eq!(running.store.find(sequence), Ok(Found::Unknown));
    }
}

fn resolution(first: u64, resolved_at: i64) -> Resolution {
    let topic = TopicName::parse("t").unwrap();
    let written = Resolved::Written(Receipt { topic, partition: 0, offset: Some(1), timestamp: 2 });
    Resolution { first: Sequence(first), results: vec![(0, written)], resolved_at }
}

#[tokio::test]
async fn receipts_stay_within_their_bytes_and_the_oldest_resolved_go_first() {
    const MAX_BYTES: u64 = 5000;
    let receipt_ttl = Duration::from_secs(3600);
    let running = started_with(Settings { max_bytes: u64::MAX, receipt_max_bytes: MAX_BYTES, receipt_ttl });
    let now = now_ms();
    for place in 0..200 {
        // those that were stored last were resolved first
        let resolved = vec![resolution(200 - place, now + place as i64)];
        running.writer.finish(Finished { resolved, ..Finished::default() }).await.unwrap();
        assert!(running.store.receipt_bytes() <= MAX_BYTES);
    }
    assert_eq!(running.store.find(Sequence(200)), Ok(Found::Unknown));
    assert!(matches!(running.store.find(Sequence(1)), Ok(Found::Resolved(_))));
}

#[tokio::test]
async fn receipts_are_forgotten_after_their_time_also_where_nothing_is_written_any_more() {
    let receipt_ttl = Duration::from_secs(1);
    let running = started_with(Settings { max_bytes: u64::MAX, receipt_max_bytes: u64::MAX, receipt_ttl });
    let resolved = (0..5000).map(|first| resolution(first, now_ms() + 500)).collect();
    running.writer.finish(Finished { resolved, ..Finished::default() }).await.unwrap();
    assert!(matches!(running.store.find(Sequence(1)), Ok(Found::Resolved(_))));
    let start = Instant::now();
    while running.store.receipt_bytes() > 0 {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{} bytes are left",
            running.store.receipt_bytes()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_file_is_opened_anew_after_a_fault_of_the_disk_also_where_nothing_is_written() {
    // a disk that is full while there is this file
    let directory = tempfile::tempdir().unwrap();
    let full = directory.path().join("full");
    for name in ["fails", "full.hard"] {
        std::fs::write(directory.path().join(name), "").unwrap();
    }
    let settings = Settings { max_bytes: u64::MAX, receipt_max_bytes: u64::MAX, receipt_ttl: Duration::MAX };
    let running = started_in(directory, settings);
    let first = running.writer.store(encoded(["a".into()]), no_places()).await.unwrap();
    std::fs::write(&full, "").unwrap();
    assert!(running.writer.store(encoded(["b".into()]), no_places()).await.is_err());
    assert!(!running.store.is_open());
    std::fs::remove_file(full).unwrap();
    let start = Instant::now();
    while running.store.find(first) != Ok(Found::Pending) {
        assert!(start.elapsed() < Duration::from_secs(30), "it is not opened");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
