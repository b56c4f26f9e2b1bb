mod names;
mod receipts;

use super::{
    super::{codec::Encoded, results::Resolved},
    *,
};
use crate::{
    produce::{InstanceId, Receipt, Record, TopicName, fake::record},
    spool::{Chunk, Resolution, codec},
};
use redb::{StorageBackend, backends::FileBackend};
use std::{fs, io, sync::Arc};

/// A file of this name in the directory makes each write fail as on a full disk.
const FULL: &str = "full";

/// While a file of this name is there the file is being opened.
const SLOW: &str = "slow";

/// As the service opens the file, but for a directory that had the file [`FULL`] once.
pub(super) fn create(builder: &redb::Builder, path: &Path) -> Result<Database, redb::DatabaseError> {
    let file = path.join(open::FILE);
    if !path.join("fails").exists() {
        return builder.create(file);
    }
    while path.join(SLOW).exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let opened = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(file)?;
    builder.create_with_backend(FailingDisk(FileBackend::new(opened)?, path.join(FULL)))
}

#[derive(Debug)]
struct FailingDisk(FileBackend, PathBuf);

impl FailingDisk {
    fn room(&self) -> io::Result<()> {
        if self.1.exists() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for FailingDisk {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room()?;
        self.0.set_len(len)
    }
    /// As where the data reached the disk but its confirmation did not.
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()?;
        self.room()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.1.with_extension("hard").exists() {
            self.room()?;
        }
        self.0.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
    fn try_lock_range(
        &self,
        start: std::ops::Bound<u64>,
        end: std::ops::Bound<u64>,
    ) -> Result<bool, redb::BackendError> {
        self.0.try_lock_range(start, end)
    }
}

fn open_at(directory: &Path) -> Store {
    Store::open(directory, &instance(), SystemTime::now()).unwrap()
}

fn refused(directory: &Path) -> String {
    Store::open(directory, &instance(), SystemTime::now()).unwrap_err().to_string()
}

fn numbered(records: std::ops::Range<u32>) -> Vec<Record> {
    let key = |n: u32| Some(bytes::Bytes::from(n.to_string()));
    records.map(|n| Record { key: key(n), ..record("t") }).collect()
}

/// A chunk of so many records under this sequence.
fn insert(first: u64, count: u32) -> Change {
    let encoded: Encoded = numbered(0..count).iter().collect();
    let bytes: Vec<u8> = encoded.records().flatten().copied().collect();
    let chunk = codec::chunk(1_795_228_481_000, count, &bytes);
    Change { insert: vec![(Sequence(first), chunk)], ..Change::default() }
}

fn written(offset: i64) -> Resolved {
    let topic = TopicName::parse("t").unwrap();
    Resolved::Written(Receipt { topic, partition: 3, offset: Some(offset), timestamp: 7 })
}

fn resolution(first: u64, indices: &[u32], resolved_at: i64) -> Resolution {
    let results = indices.iter().map(|&index| (index, written(i64::from(index)))).collect();
    Resolution { first: Sequence(first), results, resolved_at }
}

fn instance() -> InstanceId {
    InstanceId::parse("inlet-0").unwrap()
}

fn failure(sequence: u64) -> Failure {
    let (error, reason) = ("record_rejected".to_owned(), "no".to_owned());
    Failure { sequence: Sequence(sequence), record: record("t"), error, reason, failed_at: 5 }
}

#[test]
fn what_was_committed_is_there_when_it_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path());
    store.commit(&insert(100, 3)).unwrap();
    store.commit(&insert(200, 2)).unwrap();
    let change = Change {
        remove: vec![Sequence(200)],
        resolved: vec![resolution(200, &[0], 9)],
        fail: vec![failure(201)],
        ..Change::default()
    };
    store.commit(&change).unwrap();
    let before = (store.records(), store.failed_records(), store.bytes(), store.receipt_bytes());
    let (first, oldest) = (store.first_sequence(), store.oldest_stored_at());
    drop(store);
    let store = open_at(directory.path());
    assert_eq!((store.records(), store.failed_records(), store.bytes(), store.receipt_bytes()), before);
    assert_eq!((before.0, before.1), (3, 1));
    assert_eq!(store.oldest_stored_at(), oldest);
    assert!(store.first_sequence().0 >= first.0 + START);
    assert_eq!(store.find(Sequence(102)), Ok(Found::Pending));
    assert_eq!(store.find(Sequence(103)), Ok(Found::Unknown));
    assert_eq!(store.find(Sequence(99)), Ok(Found::Unknown));
    assert_eq!(store.find(Sequence(200)), Ok(Found::Resolved(written(0))));
    assert!(matches!(store.find(Sequence(201)), Ok(Found::Failed { .. })));
    assert_eq!(store.chunks_from(Sequence(0), 1).unwrap()[0].0, Sequence(100));
    assert_eq!(store.oldest_stored_at(), Some(1_795_228_481_000));
    let failed = store.failed(Sequence(0), 10).unwrap();
    assert_eq!((failed.len(), failed[0].sequence, failed[0].reason.as_str()), (1, Sequence(201), "no"));
}

#[test]
fn sequences_begin_above_all_of_an_earlier_start_even_where_the_clock_was_set_back() {
    let directory = tempfile::tempdir().unwrap();
    let first = open_at(directory.path()).first_sequence();
    let second = Store::open(directory.path(), &instance(), SystemTime::UNIX_EPOCH).unwrap().first_sequence();
    assert_eq!(second.0, first.0 + START);
}

#[test]
fn chunks_come_in_order_and_in_parts() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path());
    for first in [30, 10, 20] {
        store.commit(&insert(first, 2)).unwrap();
    }
    let firsts = |cursor, bytes| -> Vec<u64> {
        store.chunks_from(Sequence(cursor), bytes).unwrap().iter().map(|(first, _)| first.0).collect()
    };
    assert_eq!(firsts(0, usize::MAX), [10, 20, 30]);
    assert_eq!(firsts(11, usize::MAX), [20, 30]);
    assert_eq!(firsts(0, 1), [10]);
    assert_eq!(store.chunk(Sequence(21)).unwrap().map(|(first, _)| first), Some(Sequence(20)));
    assert_eq!(store.chunk(Sequence(22)).unwrap(), None);
}

#[test]
fn a_chunk_that_is_rewritten_has_what_is_left_and_the_results_so_far() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path());
    store.commit(&insert(10, 4)).unwrap();
    let (first, value) = store.chunk(Sequence(10)).unwrap().unwrap();
    let left = Chunk::parse(first, value).unwrap().keeping(|index| index == 2).unwrap().unwrap();
    let change = Change {
        replace: vec![(first, left)],
        resolved: vec![resolution(10, &[0, 3], 1)],
        ..Change::default()
    };
    store.commit(&change).unwrap();
    assert_eq!(store.records(), 1);
    assert_eq!(store.find(Sequence(12)), Ok(Found::Pending));
    assert_eq!(store.find(Sequence(11)), Ok(Found::Unknown));
    let change =
        Change { remove: vec![first], resolved: vec![resolution(10, &[1, 2], 2)], ..Change::default() };
    store.commit(&change).unwrap();
    for index in 0..4 {
        assert_eq!(store.find(Sequence(10 + index)), Ok(Found::Resolved(written(index as i64))));
    }
    assert_eq!((store.records(), store.bytes(), store.oldest_stored_at()), (0, 0, None));
}

#[test]
fn a_failed_record_waits_again_or_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path());
    store.commit(&Change { fail: vec![failure(1), failure(2)], ..Change::default() }).unwrap();
    let again = Change { unfail: vec![Sequence(1), Sequence(2)], ..insert(1, 1) };
    store.commit(&again).unwrap();
    assert_eq!((store.records(), store.failed_records()), (1, 0));
    assert_eq!(store.find(Sequence(1)), Ok(Found::Pending));
    assert_eq!(store.find(Sequence(2)), Ok(Found::Unknown));
}

#[test]
fn a_retried_record_hides_neither_its_neighbours_nor_that_it_waits() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path());
    store.commit(&insert(1, 3)).unwrap();
    let (_, value) = store.chunk(Sequence(1)).unwrap().unwrap();
    let left = Chunk::parse(Sequence(1), value).unwrap().keeping(|index| index == 2).unwrap().unwrap();
    let resolved = vec![resolution(1, &[0, 1], 10)];
    store.commit(&Change { replace: vec![(Sequence(1), left)], resolved, ..Change::default() }).unwrap();
    store.commit(&insert(2, 1)).unwrap();
    assert!(matches!(store.find(Sequence(1)), Ok(Found::Resolved(_))));
    assert_eq!(store.find(Sequence(2)), Ok(Found::Pending));
    assert_eq!(store.find(Sequence(3)), Ok(Found::Pending));
    let resolved = vec![resolution(2, &[0], 20)];
    store.commit(&Change { remove: vec![Sequence(2)], resolved, ..Change::default() }).unwrap();
    assert!(matches!(store.find(Sequence(2)), Ok(Found::Resolved(_))));
    assert_eq!(store.find(Sequence(3)), Ok(Found::Pending));
}

#[test]
fn a_missing_directory_a_file_and_a_second_process_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    assert!(refused(&directory.path().join("none")).contains("does not exist; create it"));
    fs::write(directory.path().join("file"), "").unwrap();
    assert!(refused(&directory.path().join("file")).contains("is not a directory"));
    let _store = open_at(directory.path());
    let locked = refused(directory.path());
    assert!(locked.contains("SPOOL_DIR=") && locked.contains("locked by another"), "{locked}");
}

#[cfg(unix)]
#[test]
fn a_directory_that_cannot_be_written_is_refused_by_name() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o500)).unwrap();
    // the super-user may write anyway
    if fs::write(directory.path().join("probe"), "").is_err() {
        assert!(refused(directory.path()).contains("can't be written"));
    }
}

#[test]
fn a_newer_format_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    drop(open_at(directory.path()));
    let database = Database::create(directory.path().join(open::FILE)).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert(FORMAT_KEY, FORMAT + 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    for _ in 0..2 {
        assert!(refused(directory.path()).contains("written by another version"));
    }
}

/// The file as a kill leaves it: copied while it is open.
fn killed() -> (tempfile::TempDir, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path());
    for first in 0..50 {
        store.commit(&insert(1000 + 100 * first, 100)).unwrap();
    }
    let file = fs::read(directory.path().join(open::FILE)).unwrap();
    drop(store);
    (directory, file)
}

#[test]
fn what_was_confirmed_survives_a_kill() {
    let (directory, file) = killed();
    fs::write(directory.path().join(open::FILE), file).unwrap();
    let store = open_at(directory.path());
    assert_eq!(store.records(), 5000);
    assert_eq!(store.find(Sequence(5999)), Ok(Found::Pending));
    store.commit(&insert(10_000, 1)).unwrap();
}

#[test]
fn a_damaged_file_is_refused_with_a_text_or_has_all_but_the_damaged_commit() {
    let (directory, file) = killed();
    let end = file.len();
    let mut variants = vec![Vec::from(&file[..end / 2]), Vec::from(&file[..end - 1]), vec![b'x'; 5000]];
    variants.push([&file[..], &[0xa5; 5000]].concat());
    variants.push(Vec::from(&file[..100]));
    for at in (0..end).step_by(end / 60) {
        let mut flipped = file.clone();
        flipped[at] ^= 0x10;
        variants.push(flipped);
    }
    let mut opened = 0;
    for variant in variants {
        fs::write(directory.path().join(open::FILE), variant).unwrap();
        match Store::open(directory.path(), &instance(), SystemTime::now()) {
            Ok(store) => {
                opened += 1;
                // damage to the last commit looks like one that a power cut has torn: it is cut off as a whole
                assert!(store.records() >= 4900, "{} of 5000 records", store.records());
            }
            Err(error) => assert!(error.to_string().contains("SPOOL_DIR="), "{error}"),
        }
    }
    assert!(opened > 0);
}

/// A store on a disk that can be made full.
fn failing(hard: bool) -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("fails"), "").unwrap();
    if hard {
        fs::write(directory.path().join("full.hard"), "").unwrap();
    }
    let store = open_at(directory.path());
    store.commit(&insert(100, 10)).unwrap();
    (directory, store)
}

#[test]
fn a_full_disk_refuses_what_is_new_and_loses_nothing() {
    for hard in [true, false] {
        let (directory, store) = failing(hard);
        fs::write(directory.path().join(FULL), "").unwrap();
        for _ in 0..3 {
            assert!(store.commit(&insert(200, 10)).is_err());
        }
        fs::remove_file(directory.path().join(FULL)).unwrap();
        store.commit(&insert(300, 5)).unwrap();
        assert_eq!(store.records(), 15);
        assert_eq!(store.find(Sequence(105)), Ok(Found::Pending));
        assert_eq!(store.find(Sequence(205)), Ok(Found::Unknown), "hard {hard}");
        drop(store);
        let store = open_at(directory.path());
        assert_eq!((store.records(), store.find(Sequence(205))), (15, Ok(Found::Unknown)));
    }
}

#[test]
fn nobody_waits_while_the_file_is_opened_anew() {
    let (directory, store) = failing(true);
    let store = Arc::new(store);
    fs::write(directory.path().join(FULL), "").unwrap();
    fs::write(directory.path().join(SLOW), "").unwrap();
    let writing = Arc::clone(&store);
    let writing = std::thread::spawn(move || writing.commit(&insert(200, 10)));
    let (sender, looked) = std::sync::mpsc::channel();
    let looking = Arc::clone(&store);
    std::thread::spawn(move || {
        while looking.is_open() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        sender.send(looking.find(Sequence(105)))
    });
    let found = looked.recv_timeout(std::time::Duration::from_secs(20));
    fs::remove_file(directory.path().join(FULL)).unwrap();
    fs::remove_file(directory.path().join(SLOW)).unwrap();
    assert!(writing.join().unwrap().is_err());
    assert!(found.expect("an answer while it is opened").is_err());
    assert_eq!(store.find(Sequence(105)), Ok(Found::Pending));
}

#[test]
fn the_first_write_after_the_disk_failed_says_that_it_is_full() {
    let (directory, store) = failing(true);
    fs::write(directory.path().join(FULL), "").unwrap();
    assert_eq!(store.commit(&insert(200, 10)), Err(CommitError::Full(Shortage::Disk)));
}

#[test]
fn a_large_file_is_made_smaller_when_it_is_empty() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path());
    let value = bytes::Bytes::from(vec![b'x'; 1 << 20]);
    let large: Encoded = [&Record { value: Some(value), ..record("t") }].into_iter().collect();
    let bytes: Vec<u8> = large.records().flatten().copied().collect();
    let chunks: Vec<_> = (0..80).map(|n| (Sequence(n), codec::chunk(0, 1, &bytes))).collect();
    let remove = chunks.iter().map(|(first, _)| *first).collect();
    store.commit(&Change { insert: chunks, ..Change::default() }).unwrap();
    store.commit(&Change { remove, ..Change::default() }).unwrap();
    assert!(store.file_bytes() > 80 << 20);
    store.shrink();
    assert!(store.file_bytes() < 8 << 20, "{}", store.file_bytes());
    assert_eq!(store.bytes(), 0);
}
