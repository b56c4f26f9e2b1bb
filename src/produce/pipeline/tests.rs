//! What the pipeline promises, against a producer that is told what to do.

use super::*;
use crate::produce::{
    Outcome, TopicConfig, batch_size,
    fake::{FakeProducer, Step, record},
};
use bytes::Bytes;
use futures_util::FutureExt;

const TIMEOUT: Duration = Duration::from_secs(2);

fn pipeline(producer: &Arc<FakeProducer>, in_flight: usize) -> Pipeline {
    let settings = Settings { delivery_timeout: TIMEOUT, max_record_bytes: 200 };
    Pipeline::new(producer.clone(), Budget::new(in_flight), Arc::new(Metrics::for_tests()), settings)
}

async fn submit(pipeline: &Pipeline, records: &[Record]) -> Vec<Verdict> {
    pipeline.submit(records.to_vec(), Arrival::now()).await.unwrap()
}

fn compacted() -> TopicConfig {
    TopicConfig {
        max_message_bytes: 100,
        compacted: true,
        timestamp_before_max_ms: 1000,
        timestamp_after_max_ms: 1000,
    }
}

#[tokio::test]
async fn every_record_gets_its_receipt_in_input_order() {
    let producer = FakeProducer::with_topics(&["a", "b"]);
    let verdicts = submit(&pipeline(&producer, 10_000), &[record("a"), record("b"), record("a")]).await;
    let receipts: Vec<_> = verdicts.into_iter().map(|verdict| verdict.unwrap().written().unwrap()).collect();
    let placed: Vec<_> = receipts.iter().map(|receipt| (receipt.topic.as_str(), receipt.offset)).collect();
    assert_eq!(placed, [("a", Some(0)), ("b", Some(1)), ("a", Some(2))]);
}

#[tokio::test]
async fn one_records_failure_is_not_anothers() {
    let producer = FakeProducer::with_topics(&["a"]);
    let lost = Error::AcknowledgementLost { reason: "no".into() };
    producer.then(Step::Written).then(Step::Fails(lost));
    let verdicts =
        submit(&pipeline(&producer, 10_000), &[record("a"), record("a"), record("nowhere"), record("a")])
            .await;
    let tags: Vec<_> = verdicts.iter().map(|verdict| verdict.as_ref().err().map(Error::tag)).collect();
    assert_eq!(tags, [None, Some("delivery_timeout"), Some("unknown_topic"), None]);
}

#[tokio::test]
async fn a_record_without_a_report_at_the_deadline_is_unknown() {
    let producer = FakeProducer::with_topics(&["a"]);
    producer.then(Step::Held).then(Step::Written);
    let pipeline = pipeline(&producer, 10_000);
    let verdicts = submit(&pipeline, &[record("a"), record("a")]).await;
    assert_eq!(verdicts[0].as_ref().unwrap_err().outcome(), Outcome::Unknown);
    assert!(verdicts[1].is_ok());
    assert!(pipeline.budget().used() > 0, "the bytes stay reserved until the report");
    producer.release();
    assert_eq!(pipeline.budget().used(), 0);
}

#[tokio::test]
async fn nothing_is_sent_while_there_is_no_link() {
    let producer = FakeProducer::with_topics(&["a"]);
    *producer.unavailable.lock().unwrap() = Some(Error::NotReady { reason: "down".into() });
    let pipeline = pipeline(&producer, 10_000);
    let error = pipeline.submit(vec![record("a")], Arrival::now()).await.unwrap_err();
    assert_eq!((error.tag(), producer.sent().len()), ("not_ready", 0));
}

#[tokio::test]
async fn admission_is_for_all_records_or_for_none() {
    let producer = FakeProducer::with_topics(&["a"]);
    producer.then(Step::Held);
    let pipeline = pipeline(&producer, 1200);
    submit(&pipeline, &[record("a")]).await;
    let error = pipeline.submit(vec![record("a"), record("a")], Arrival::now()).await.unwrap_err();
    assert_eq!((error.tag(), producer.sent().len()), ("overloaded", 1));
    assert!(pipeline.submit(vec![record("a")], Arrival::now()).await.is_ok());
}

#[tokio::test]
async fn records_that_can_never_fit_are_not_told_to_come_back() {
    let producer = FakeProducer::with_topics(&["a"]);
    let pipeline = pipeline(&producer, 600);
    let error = pipeline.submit(vec![record("a"), record("a")], Arrival::now()).await.unwrap_err();
    assert_eq!((error.tag(), error.is_retriable()), ("body_too_large", false));
}

#[tokio::test]
async fn a_partition_that_the_topic_does_not_have_is_refused() {
    let producer = FakeProducer::with_topics(&["a"]);
    let verdicts = submit(
        &pipeline(&producer, 10_000),
        &[Record { partition: Some(2), ..record("a") }, Record { partition: Some(3), ..record("a") }],
    )
    .await;
    assert!(verdicts[0].is_ok());
    assert_eq!(verdicts[1].as_ref().unwrap_err().tag(), "invalid_partition");
}

#[tokio::test]
async fn the_services_own_limit_holds_to_the_byte_where_the_topics_is_not_known() {
    let producer = FakeProducer::with_topics(&["a"]);
    let fits = Record { value: Some(vec![b'x'; 200 - 61 - 9].into()), ..record("a") };
    let too_large = Record { value: Some(vec![b'x'; 200 - 61 - 8].into()), ..record("a") };
    assert_eq!((batch_size(&fits), batch_size(&too_large)), (200, 201));
    let verdicts = submit(&pipeline(&producer, 10_000), &[fits, too_large]).await;
    assert!(verdicts[0].is_ok());
    assert_eq!(verdicts[1].as_ref().unwrap_err().tag(), "record_too_large");
}

#[tokio::test]
async fn what_the_topics_configuration_forbids_is_refused_before_it_can_harm_a_neighbour() {
    let producer = FakeProducer::with_topics(&[]);
    producer.add_topic("c", Some(compacted()));
    let keyed = Record { key: Some(Bytes::from_static(b"k")), ..record("c") };
    let late = Record { timestamp: keyed.timestamp - 60_000, ..keyed.clone() };
    let early = Record { timestamp: keyed.timestamp + 60_000, ..keyed.clone() };
    let large = Record { value: Some(vec![b'x'; 100].into()), ..keyed.clone() };
    let verdicts = submit(&pipeline(&producer, 10_000), &[keyed, record("c"), late, early, large]).await;
    let tags: Vec<_> = verdicts.iter().map(|verdict| verdict.as_ref().err().map(Error::tag)).collect();
    let timestamp = Some("invalid_timestamp");
    assert_eq!(tags, [None, Some("invalid_key"), timestamp, timestamp, Some("record_too_large")]);
    assert_eq!(producer.sent().len(), 1);
}

#[tokio::test]
async fn a_record_that_failed_for_its_neighbours_is_sent_again_once_and_alone() {
    let rejected = Error::Rejected { reason: "invalid".into() };
    for shared_failure in [Error::NeighbourRejected, Error::BatchRefusedAsTooLarge, rejected] {
        let producer = FakeProducer::with_topics(&["a"]);
        producer.then(Step::Fails(shared_failure)).then(Step::Written).then(Step::Written);
        let verdicts = submit(&pipeline(&producer, 10_000), &[record("a"), record("a")]).await;
        assert!(verdicts.iter().all(Result::is_ok), "{verdicts:?}");
        let batching: Vec<_> = producer.sent().into_iter().map(|(_, batching)| batching).collect();
        assert_eq!(batching, [Batching::Shared, Batching::Shared, Batching::Alone]);
    }
}

#[tokio::test]
async fn a_record_that_fails_alone_too_has_its_answer() {
    let producer = FakeProducer::with_topics(&["a"]);
    producer
        .then(Step::Fails(Error::BatchRefusedAsTooLarge))
        .then(Step::Fails(Error::BatchRefusedAsTooLarge));
    let verdicts = submit(&pipeline(&producer, 10_000), &[record("a")]).await;
    assert_eq!(verdicts[0].as_ref().unwrap_err().tag(), "record_too_large");
    assert_eq!(producer.sent().len(), 2);
}

#[tokio::test]
async fn what_could_not_be_sent_in_time_is_not_unknown() {
    let producer = FakeProducer::with_topics(&["a"]);
    let pipeline = pipeline(&producer, 10_000);
    let long_ago = Arrival { at: Instant::now() - TIMEOUT, ..Arrival::now() };
    let error = pipeline.submit(vec![record("a")], long_ago).await.unwrap_err();
    assert_eq!((error.outcome(), producer.sent().len()), (Outcome::NotWritten, 0));
}

#[tokio::test]
async fn no_records_are_no_work() {
    let producer = FakeProducer::with_topics(&[]);
    *producer.unavailable.lock().unwrap() = Some(Error::NotReady { reason: "down".into() });
    assert!(submit(&pipeline(&producer, 10_000), &[]).await.is_empty());
}

#[tokio::test]
async fn a_large_batch_is_enqueued_in_steps_between_which_others_get_a_turn() {
    let producer = FakeProducer::with_topics(&["large", "small"]);
    let pipeline = pipeline(&producer, 10 << 20);
    let numbered = |number: usize| Record { value: Some(number.to_string().into()), ..record("large") };
    let large: Vec<_> = (0..2 * STEP + 1).map(numbered).collect();
    let small = [record("small")];
    let (of_large, of_small) = tokio::join!(submit(&pipeline, &large), submit(&pipeline, &small));
    assert!(of_large.into_iter().chain(of_small).all(|verdict| verdict.is_ok()));
    let sent: Vec<_> = producer.sent().into_iter().map(|(record, _)| record).collect();
    assert_eq!(sent.iter().position(|record| record.topic.as_str() == "small"), Some(STEP));
    let values = |records: &[Record]| -> Vec<_> {
        let of_large = records.iter().filter(|record| record.topic.as_str() == "large");
        of_large.map(|record| record.value.clone()).collect()
    };
    assert_eq!(values(&sent), values(&large), "in the order of the batch");
}

#[tokio::test]
async fn what_a_client_that_goes_away_leaves_unsent_gives_its_bytes_back() {
    let producer = FakeProducer::with_topics(&["a"]);
    let pipeline = pipeline(&producer, 10 << 20);
    let batch = vec![record("a"); 2 * STEP];
    assert!(pipeline.submit(batch, Arrival::now()).now_or_never().is_none());
    assert_eq!((producer.sent().len(), pipeline.budget().used()), (STEP, 0));
}
