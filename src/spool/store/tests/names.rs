//! What the instance was called: each record keeps the name that it was taken under.

use super::{super::names, *};

fn name(text: impl AsRef<str>) -> InstanceId {
    InstanceId::parse(text.as_ref()).unwrap()
}

fn start(directory: &Path, instance: &str) -> Store {
    Store::open(directory, &name(instance), SystemTime::now()).unwrap()
}

/// Stores a record under the first sequence of this start; its id.
fn store_one(store: &Store) -> String {
    let first = store.first_sequence();
    store.commit(&insert(first.0, 1)).unwrap();
    store.instances().receipt(first).to_string()
}

/// The ids of the records that wait, as they are sent.
fn waiting(store: &Store) -> Vec<String> {
    let chunks = store.chunks_from(Sequence(0), usize::MAX).unwrap().into_iter();
    let records = chunks
        .flat_map(|(first, value)| Chunk::parse(first, value).unwrap().records(store.instances()).unwrap());
    records.map(|(_, record)| record.receipt.unwrap().id.to_string()).collect()
}

/// The rows of the table, changed before by hand.
fn rows(directory: &Path, change: impl FnOnce(&redb::WriteTransaction)) -> Vec<(u64, String)> {
    let database = Database::create(directory.join(open::FILE)).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    let table = transaction.open_table(names::NAMES).unwrap();
    let rows = redb::ReadableTable::iter(&table).unwrap().map(|row| row.unwrap());
    let rows = rows.map(|(first, name)| (first.value(), name.value().to_owned())).collect();
    drop(table);
    transaction.commit().unwrap();
    rows
}

fn unchanged(directory: &Path) -> Vec<(u64, String)> {
    rows(directory, |_| {})
}

#[test]
fn names_that_alternate_keep_each_record_under_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let mut ids = Vec::new();
    for instance in ["a", "b", "a", "a"] {
        let store = start(directory.path(), instance);
        assert_eq!(store.instances().latest(), &name(instance));
        ids.push(store_one(&store));
        assert!(ids.last().unwrap().starts_with(&format!("{instance}-")), "{ids:?}");
        assert_eq!(waiting(&store), ids);
    }
    assert_eq!(unchanged(directory.path()).len(), 3, "the same name again takes no room");
}

#[test]
fn a_failed_record_keeps_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let store = start(directory.path(), "a");
    let sequence = store.first_sequence();
    store.commit(&Change { fail: vec![failure(sequence.0)], ..Change::default() }).unwrap();
    drop(store);
    let store = start(directory.path(), "b");
    let failed = store.failed(Sequence(0), 10).unwrap();
    let id = failed[0].record.receipt.clone().unwrap().id;
    assert_eq!((id.instance, id.sequence), (name("a"), sequence));
}

#[test]
fn the_records_of_a_store_without_names_are_those_of_the_first_service_that_opens_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = start(directory.path(), "before");
    let sequence = store.first_sequence();
    store_one(&store);
    drop(store);
    // as a version wrote it that did not know the table
    let database = Database::create(directory.path().join(open::FILE)).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.delete_table(names::NAMES).unwrap();
    transaction.commit().unwrap();
    drop(database);

    // a command is no service
    let store = Store::open_for_command(directory.path(), &name("visitor"), SystemTime::now()).unwrap();
    assert_eq!(store.instances().of(sequence), &name("visitor"));
    drop(store);
    let store = start(directory.path(), "a");
    assert_eq!(store.instances(), &Instances::only(name("a")));
    drop(store);
    assert_eq!(start(directory.path(), "b").instances().of(sequence), &name("a"));
}

#[test]
fn a_command_shows_the_names_and_leaves_none() {
    let directory = tempfile::tempdir().unwrap();
    let id = store_one(&start(directory.path(), "a"));
    let store = Store::open_for_command(directory.path(), &name("visitor"), SystemTime::now()).unwrap();
    assert_eq!((waiting(&store), store.instances()), (vec![id], &Instances::only(name("a"))));
    drop(store);
    assert_eq!(unchanged(directory.path()), [(0, "a".to_owned())]);
}

/// Fills the table, with a record, a failed one or a receipt of each name but of the one in the place `without`.
fn fill(directory: &Path, without: Option<u64>) {
    drop(start(directory, "name-0"));
    rows(directory, |transaction| {
        let mut table = transaction.open_table(names::NAMES).unwrap();
        for place in 1..names::MAX {
            table.insert(100 * place, &*format!("name-{place}")).unwrap();
        }
        for place in (0..names::MAX).filter(|place| Some(*place) != without) {
            let kind = [RECORDS, FAILED, RECEIPTS][place as usize % 3];
            let chunk = &insert(0, 1).insert[0].1;
            transaction.open_table(kind).unwrap().insert(100 * place + 99, &**chunk).unwrap();
        }
    });
}

#[test]
fn beyond_the_bound_the_oldest_name_is_forgotten_of_which_nothing_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let empty = names::MAX / 2;
    fill(directory.path(), Some(empty));
    let store = start(directory.path(), "new");
    assert_eq!(store.instances().latest(), &name("new"));
    for place in (0..names::MAX).filter(|place| *place != empty) {
        assert_eq!(store.instances().of(Sequence(100 * place + 99)), &name(format!("name-{place}")));
    }
    drop(store);
    assert_eq!(unchanged(directory.path()).len() as u64, names::MAX);
}

#[test]
fn where_no_name_can_be_forgotten_new_records_get_the_one_before() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), None);
    let before = format!("name-{}", names::MAX - 1);
    for _ in 0..2 {
        let store = start(directory.path(), "new");
        assert_eq!(store.instances().latest(), &name(&before));
        assert_eq!(store.instances().of(Sequence(99)), &name("name-0"));
    }
    assert_eq!(unchanged(directory.path()).len() as u64, names::MAX);
}

#[test]
fn a_name_that_is_none_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    drop(start(directory.path(), "a"));
    rows(directory.path(), |transaction| {
        transaction.open_table(names::NAMES).unwrap().insert(0, "a b").unwrap();
    });
    assert!(refused(directory.path()).contains("is damaged"), "{}", refused(directory.path()));
}
