//! librdkafka alone: one send a record for a while, then waits for every acknowledgement.
//!
//! `raw --bootstrap HOST:PORT --topic TOPIC --topics 1 --value FILE --mode base|record --outstanding 0 --seconds S`
//!
//! `base` sends bare values. `record` sends what kafka-inlet writes by default: three headers and a timestamp, with
//! an idempotent producer. `--outstanding N` keeps at most N records unacknowledged, as N connections that send
//! one record a request do; 0 sends as fast as librdkafka takes.
//!
//! It writes `ready` when it is connected and starts at a line on its standard input; it writes its counts as JSON
//! and ends when its standard input does, so that the one who runs it can read its CPU time in between.

use kafka_inlet_bench::{Arguments, Outcome, topic_names};
use rdkafka::{
    ClientConfig, ClientContext,
    config::FromClientConfigAndContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};
use serde_json::json;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// How long the last acknowledgements may take.
const FLUSH_LIMIT: Duration = Duration::from_secs(60);

/// Sends between two looks at the clock, where nothing else bounds their rate.
const SENDS_A_LOOK: u64 = 64;

#[derive(Clone)]
struct Deliveries {
    counts: Arc<Counts>,
    /// Woken by each delivery if it waits for them.
    sender: Option<Thread>,
}

#[derive(Default)]
struct Counts {
    reported: AtomicU64,
    failed: AtomicU64,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.counts.reported.fetch_add(1, Ordering::Release);
        if let Some(sender) = &self.sender {
            sender.unpark();
        }
    }
}

struct Load {
    producer: ThreadedProducer<Deliveries>,
    counts: Arc<Counts>,
    topics: Vec<String>,
    value: Vec<u8>,
    /// With the headers, the timestamp and the idempotence of kafka-inlet.
    full_record: bool,
    /// 0: no limit.
    outstanding: u64,
}

fn main() -> Outcome {
    let arguments = Arguments::read()?;
    let seconds: f64 = arguments.required("seconds")?;
    let load = Load::new(&arguments)?;
    for topic in &load.topics {
        load.producer.client().fetch_metadata(Some(topic), Duration::from_secs(10))?;
    }
    println!("ready");
    io::stdin().read_line(&mut String::new())?;

    let start = Instant::now();
    let sent = load.send_until(start + Duration::from_secs_f64(seconds))?;
    load.producer.flush(FLUSH_LIMIT)?;
    while load.reported() < sent && start.elapsed() < Duration::from_secs_f64(seconds) + FLUSH_LIMIT {
        thread::sleep(Duration::from_millis(1));
    }
    let acknowledged = load.reported() - load.counts.failed.load(Ordering::Relaxed);
    let elapsed = start.elapsed().as_secs_f64();
    println!("{}", json!({"sent": sent, "acknowledged": acknowledged, "seconds": elapsed}));
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}

impl Load {
    fn new(arguments: &Arguments) -> Result<Self, Box<dyn std::error::Error>> {
        let mode: String = arguments.required("mode")?;
        let full_record = match mode.as_str() {
            "base" => false,
            "record" => true,
            _ => return Err(format!("--mode {mode}: must be base or record").into()),
        };
        let outstanding = arguments.optional("outstanding", 0)?;
        let counts = Arc::new(Counts::default());
        let sender = (outstanding > 0).then(thread::current);
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", arguments.required::<String>("bootstrap")?)
            .set("acks", "all")
            .set("enable.idempotence", full_record.to_string())
            .set("linger.ms", "1")
            .set("queue.buffering.max.messages", "500000")
            .set("queue.buffering.max.kbytes", "262144");
        let deliveries = Deliveries { counts: counts.clone(), sender };
        Ok(Self {
            producer: ThreadedProducer::from_config_and_context(&config, deliveries)?,
            counts,
            topics: topic_names(&arguments.required::<String>("topic")?, arguments.optional("topics", 1)?),
            value: std::fs::read(arguments.required::<String>("value")?)?,
            full_record,
            outstanding,
        })
    }

    /// The number of records that librdkafka took.
    fn send_until(&self, end: Instant) -> Result<u64, KafkaError> {
        let mut sent = 0;
        for topic in self.topics.iter().cycle() {
            if (self.outstanding > 0 || sent % SENDS_A_LOOK == 0) && Instant::now() >= end {
                break;
            }
            while self.outstanding > 0 && sent - self.reported() >= self.outstanding {
                thread::park_timeout(Duration::from_millis(100));
                if Instant::now() >= end {
                    return Ok(sent);
                }
            }
            self.send(topic)?;
            sent += 1;
        }
        Ok(sent)
    }

    fn send(&self, topic: &str) -> Result<(), KafkaError> {
        let mut record = BaseRecord::<(), [u8]>::to(topic).payload(&self.value);
        if self.full_record {
            record = record.timestamp(1_795_228_481_123).headers(headers());
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    record = refused;
                    thread::sleep(Duration::from_millis(2));
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    fn reported(&self) -> u64 {
        self.counts.reported.load(Ordering::Acquire)
    }
}

/// As long as those of kafka-inlet, and made anew for each record as it must.
fn headers() -> OwnedHeaders {
    OwnedHeaders::new_with_capacity(3)
        .insert(Header { key: "content-type", value: Some("application/json") })
        .insert(Header { key: "trace-id", value: Some("0af7651916cd43dd8448eb211c80319c") })
        .insert(Header { key: "timestamp", value: Some("1795228481123") })
}
