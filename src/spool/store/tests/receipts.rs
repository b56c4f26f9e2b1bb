//! Which receipts stay, and where they are found.

use super::*;

/// Keeps what was resolved at this time or later.
fn since(resolved_at: i64) -> Change {
    let receipts = Receipts { max_bytes: u64::MAX, resolved_before: Some(resolved_at) };
    Change { receipts, ..Change::default() }
}

fn is_known(store: &Store, sequence: u64) -> bool {
    matches!(store.find(Sequence(sequence)), Ok(Found::Resolved(_)))
}

#[test]
fn the_receipts_of_a_chunk_are_found_however_many_of_its_records_were_retried_one_by_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path());
    let all: Vec<u32> = (0..300).collect();
    store.commit(&insert(1000, 300)).unwrap();
    let resolved = vec![resolution(1000, &all, 10)];
    store.commit(&Change { remove: vec![Sequence(1000)], resolved, ..Change::default() }).unwrap();
    let retried = 50..250;
    for index in retried.clone() {
        store.commit(&insert(1000 + index, 1)).unwrap();
    }
    for sequence in 1000..1300 {
        let found = store.find(Sequence(sequence)).unwrap();
        let is_pending = retried.contains(&(sequence - 1000));
        assert_eq!(found == Found::Pending, is_pending, "{sequence}: {found:?}");
        assert_ne!(found, Found::Unknown, "{sequence}");
    }
    let (alone, together) = (50..150, 150..250);
    let again = |index: u64| Resolution {
        first: Sequence(1000 + index),
        results: vec![(0, written(9999))],
        resolved_at: 20,
    };
    for index in alone {
        let remove = vec![Sequence(1000 + index)];
        store.commit(&Change { remove, resolved: vec![again(index)], ..Change::default() }).unwrap();
    }
    let remove = together.clone().map(|index| Sequence(1000 + index)).collect();
    let resolved = together.map(again).collect();
    store.commit(&Change { remove, resolved, ..Change::default() }).unwrap();
    for index in 0..300 {
        let offset = if retried.contains(&index) { 9999 } else { index as i64 };
        assert_eq!(store.find(Sequence(1000 + index)), Ok(Found::Resolved(written(offset))), "{index}");
    }
    drop(store);
    let store = open_at(directory.path());
    assert_eq!(store.find(Sequence(1299)), Ok(Found::Resolved(written(299))));
}

#[test]
fn old_receipts_are_forgotten_and_records_that_wait_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path());
    store.commit(&insert(1, 2)).unwrap();
    let resolved = vec![resolution(1, &[0], 10), resolution(3, &[0], 10), resolution(5, &[0], 30)];
    let (_, value) = store.chunk(Sequence(1)).unwrap().unwrap();
    let left = Chunk::parse(Sequence(1), value).unwrap().keeping(|index| index == 1).unwrap().unwrap();
    let replace = vec![(Sequence(1), left)];
    store.commit(&Change { resolved, replace, ..Change::default() }).unwrap();
    assert_eq!(store.oldest_resolved_at(), Some(10));
    store.commit(&since(20)).unwrap();
    assert_eq!(store.oldest_resolved_at(), Some(30));
    assert_eq!(store.find(Sequence(1)), Ok(Found::Unknown));
    assert_eq!(store.find(Sequence(2)), Ok(Found::Pending));
    assert!(!is_known(&store, 3) && is_known(&store, 5));
    // the rest of the chunk is resolved as if nothing had been forgotten
    let change = Change { remove: vec![Sequence(1)], resolved: vec![resolution(1, &[1], 40)], ..since(40) };
    store.commit(&change).unwrap();
    assert!(is_known(&store, 2) && !is_known(&store, 5));
    drop(store);
    assert_eq!(open_at(directory.path()).oldest_resolved_at(), Some(40));
}

#[test]
fn a_record_that_was_stuck_is_remembered_from_when_it_was_resolved() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path());
    let early = (100..200).map(|first| resolution(first, &[0], 10)).collect();
    store.commit(&Change { resolved: early, ..Change::default() }).unwrap();
    // stored before all of them, resolved after them, one of its two records earlier
    for (index, resolved_at) in [(0, 5), (1, 1000)] {
        store
            .commit(&Change { resolved: vec![resolution(7, &[index], resolved_at)], ..Change::default() })
            .unwrap();
    }
    let half = store.receipt_bytes() / 2;
    let receipts = Receipts { max_bytes: half, resolved_before: None };
    store
        .commit(&Change { resolved: vec![resolution(300, &[0], 1001)], receipts, ..Change::default() })
        .unwrap();
    assert!(store.receipt_bytes() <= half);
    assert!(is_known(&store, 7) && is_known(&store, 8) && is_known(&store, 300));
    assert!(!is_known(&store, 100));
}

#[test]
fn young_receipts_in_front_keep_no_old_ones() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path());
    // more than one transaction forgets, behind many that are young
    let young = (0..100).map(|first| resolution(first, &[0], 1000));
    let resolved = young.chain((100..6000).map(|first| resolution(first, &[0], 10))).collect();
    store.commit(&Change { resolved, ..Change::default() }).unwrap();
    for _ in 0..2 {
        assert_eq!(store.oldest_resolved_at(), Some(10));
        store.commit(&since(20)).unwrap();
    }
    assert_eq!(store.oldest_resolved_at(), Some(1000));
    assert!(is_known(&store, 99) && !is_known(&store, 100) && !is_known(&store, 5999));
    let bytes = store.receipt_bytes();
    drop(store);
    assert_eq!(open_at(directory.path()).receipt_bytes(), bytes);
}

#[test]
fn the_limit_holds_also_where_very_many_rows_have_to_go_for_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path());
    let small = (0..9000).map(|first| resolution(first, &[0], 10)).collect();
    store.commit(&Change { resolved: small, ..Change::default() }).unwrap();
    let max_bytes = store.receipt_bytes();
    let receipts = Receipts { max_bytes, resolved_before: None };
    let large = resolution(10_000, &(0..40_000).collect::<Vec<_>>(), 20);
    store.commit(&Change { resolved: vec![large], receipts, ..Change::default() }).unwrap();
    assert!(store.receipt_bytes() <= max_bytes);
    assert!(!is_known(&store, 4096) && is_known(&store, 8999) && is_known(&store, 49_999));
}

#[test]
fn receipts_stay_below_their_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path());
    let receipts = Receipts { max_bytes: 2000, resolved_before: None };
    for first in 0..100 {
        let resolved = vec![resolution(10 * first, &[0, 1, 2], first as i64)];
        store.commit(&Change { resolved, receipts, ..Change::default() }).unwrap();
        assert!(store.receipt_bytes() <= 2000);
    }
    assert_eq!(store.find(Sequence(0)), Ok(Found::Unknown));
    assert!(matches!(store.find(Sequence(991)), Ok(Found::Resolved(_))));
}
