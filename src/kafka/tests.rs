//! The adapter as a whole, against librdkafka's mock cluster in the same process.
#![expect(unsafe_code, reason = "rd_kafka_test_fatal_error has no wrapper")]

use super::{EmbeddedCluster, KafkaProducer};
use crate::{
    config::Config,
    lifecycle::{readiness::Readiness, supervisor::Supervisor},
    produce::{AutomaticHeaders, Budget, Pipeline, Producer as _, Record, Settings, TopicName, Verdict},
    telemetry::metrics::Metrics,
};
use rdkafka::{bindings as sys, producer::Producer as _};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

struct Service {
    _cluster: EmbeddedCluster,
    _supervisor: Supervisor,
    readiness: Arc<Readiness>,
    producer: Arc<KafkaProducer>,
    pipeline: Pipeline,
}

fn start() -> Service {
    let mut config = Config::default();
    let cluster = EmbeddedCluster::start(&config.topics.distinct(), 1).unwrap();
    config.kafka.brokers = vec![cluster.bootstrap_servers().to_owned()];
    let mut supervisor = Supervisor::new();
    let (readiness, metrics) = (Readiness::new(), Arc::new(Metrics::for_tests()));
    let producer =
        KafkaProducer::start(&config, readiness.clone(), metrics.clone(), &mut supervisor).unwrap();
    let settings = Settings { delivery_timeout: config.kafka.delivery_timeout, max_record_bytes: 1 << 20 };
    let pipeline = Pipeline::new(producer.clone(), Budget::new(1 << 20), metrics, settings);
    Service { _cluster: cluster, _supervisor: supervisor, readiness, producer, pipeline }
}

impl Service {
    /// Waits for readiness to become so, and returns the reason that it was last not.
    async fn becomes_ready(&self, ready: bool) -> Option<Arc<str>> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.readiness.fault().is_none() != ready {
            assert!(Instant::now() < deadline, "ready is not {ready}: {:?}", self.readiness.fault());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.readiness.fault()
    }

    async fn send(&self) -> Verdict {
        let record = Record {
            topic: TopicName::parse("rtmh.logs").unwrap(),
            partition: None,
            key: None,
            value: Some("{}".into()),
            headers: Vec::new(),
            automatic: Arc::new(AutomaticHeaders::default()),
            timestamp: 1_795_228_481_123,
        };
        let mut verdicts = self.pipeline.submit(&[record], self.pipeline.deadline()).await.unwrap();
        verdicts.remove(0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_fatal_error_takes_the_link_down_and_a_new_producer_brings_it_back() {
    let service = start();
    service.becomes_ready(true).await;
    assert_eq!(service.send().await.unwrap().offset, Some(0));

    {
        let producer = service.producer.cluster.shared();
        let code = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        // SAFETY: the client lives as long as the guard, and the text is a C string.
        unsafe {
            sys::rd_kafka_test_fatal_error(producer.client().native_ptr(), code, c"as a test".as_ptr())
        };
    }
    let reason = service.becomes_ready(false).await.unwrap();
    assert!(reason.contains("as a test"), "{reason}");
    service.becomes_ready(true).await;
    assert_eq!(service.send().await.unwrap().offset, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_topic_that_is_not_there_is_told_from_one_that_cannot_be_asked_for() {
    let service = start();
    service.becomes_ready(true).await;
    let present = TopicName::parse("rtmh.logs").unwrap();
    assert_eq!(service.producer.known_topic(&present).unwrap().unwrap().partitions, 1);
    let absent = TopicName::parse("nowhere").unwrap();
    let answer = service.producer.look_up_topic(&absent).await;
    assert_eq!(answer.unwrap_err().tag(), "unknown_topic");
    assert!(service.producer.known_topic(&absent).unwrap().is_err());
}
