use super::*;
use crate::produce::{InstanceId, fake::record};
use proptest::prelude::*;

fn instances() -> Instances {
    Instances::only(InstanceId::parse("inlet-0").unwrap())
}

fn chunk_of(records: &[Record]) -> Chunk {
    let encoded: Encoded = records.iter().collect();
    Chunk::parse(Sequence(100), Bytes::from(chunk(5, encoded.count(), &encoded.bytes))).unwrap()
}

/// All that is written of a record to Kafka, but for its receipt.
fn sent(record: &Record) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut headers = Vec::new();
    record.for_each_header_but_receipt(|name, value| {
        headers.push((name.to_owned(), value.map(<[u8]>::to_vec)));
    });
    let Record { topic, partition, key, value, timestamp, .. } = record.clone();
    (topic, partition, key, value, timestamp, headers)
}

fn header(name: &str, value: Option<&'static [u8]>) -> Header {
    Header { name: name.into(), value: value.map(Bytes::from_static) }
}

#[test]
fn a_record_is_sent_again_as_it_was_first_with_its_receipt() {
    let id = instances().receipt(Sequence(100));
    let headers = vec![header("a", None), header("a", Some(b"1")), header("receipt", Some(b"the sender's"))];
    let automatic = AutomaticHeaders {
        content_type: Some("application/json"),
        timestamp: true,
        ..AutomaticHeaders::default()
    };
    let receipt = Some(RecordReceipt { id: id.clone(), replayed: false });
    let original =
        Record { headers, automatic: Arc::new(automatic), partition: Some(3), receipt, ..record("t") };
    let records = chunk_of(std::slice::from_ref(&original)).records(&instances()).unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].0, Sequence(100));
    assert_eq!(sent(&records[0].1), sent(&original));
    assert_eq!(records[0].1.receipt, Some(RecordReceipt { id, replayed: true }));
}

#[test]
fn a_chunk_keeps_the_sequences_of_what_is_left() {
    let records: Vec<_> = (0..5).map(|n| Record { key: Some(Bytes::from(vec![n])), ..record("t") }).collect();
    let left = chunk_of(&records).keeping(|index| index % 2 == 1).unwrap().unwrap();
    let left = Chunk::parse(Sequence(100), left.into()).unwrap();
    let mut keys = Vec::new();
    left.for_each_key(|sequence, topic, key| {
        keys.push((sequence.0, topic.to_owned(), key.unwrap().to_vec()));
    })
    .unwrap();
    assert_eq!(keys, [(101, "t".into(), vec![1]), (103, "t".into(), vec![3])]);
    assert_eq!((left.count(), left.head.span(), left.head.stored_at()), (2, 5, 5));
    let contains = [100, 101, 103, 104, 105].map(|sequence| left.contains(Sequence(sequence)));
    assert_eq!(contains, [false, true, true, false, false]);
    assert_eq!(left.keeping(|_| false), Ok(None));
    let again = Chunk::parse(Sequence(100), left.keeping(|index| index == 3).unwrap().unwrap().into());
    assert_eq!(again.unwrap().records(&instances()).unwrap()[0].0, Sequence(103));
}

#[test]
fn a_newer_format_is_told() {
    let encoded: Encoded = [&record("t")].into_iter().collect();
    let mut value = chunk(5, 1, &encoded.bytes);
    value[0] = FORMAT + 1;
    assert!(Chunk::parse(Sequence(1), value.into()).unwrap_err().to_string().contains("format 2"));
}

fn bytes() -> impl Strategy<Value = Option<Bytes>> {
    prop::option::of(prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from))
}

fn any_record() -> impl Strategy<Value = Record> {
    let headers = prop::collection::vec(("[a-c]{0,2}", bytes()), 0..4);
    ("[a-z]{1,3}", any::<Option<i32>>(), bytes(), bytes(), headers, any::<i64>()).prop_map(
        |(topic, partition, key, value, headers, timestamp)| Record {
            topic: TopicName::parse(&topic).unwrap(),
            partition,
            key,
            value,
            headers: headers.into_iter().map(|(name, value)| Header { name, value }).collect(),
            timestamp,
            ..record("t")
        },
    )
}

proptest! {
    #[test]
    fn records_come_back_as_they_were(records in prop::collection::vec(any_record(), 1..8)) {
        let back = chunk_of(&records).records(&instances()).unwrap();
        prop_assert_eq!(back.len(), records.len());
        for (place, (sequence, record)) in back.iter().enumerate() {
            prop_assert_eq!(sequence.0, 100 + place as u64);
            prop_assert_eq!(sent(record), sent(&records[place]));
        }
    }

    #[test]
    fn other_bytes_are_an_error_or_records(
        records in prop::collection::vec(any_record(), 1..4),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let encoded: Encoded = records.iter().collect();
        let mut value = chunk(5, encoded.count(), &encoded.bytes);
        let place = at.index(value.len());
        value[place] = byte;
        value.truncate(cut.index(value.len()) + 1);
        if let Ok(chunk) = Chunk::parse(Sequence(u64::MAX - 1), value.into()) {
            let _ = chunk.records(&instances());
            let _ = chunk.for_each_key(|_, _, _| {});
            let _ = chunk.keeping(|_| true);
        }
    }
}
