//! Sending to a topic that librdkafka has been asked for once. rdkafka's `send` copies the topic's name and each
//! header's name, and has librdkafka look the topic up under its write lock, for every record.
#![expect(unsafe_code, reason = "rdkafka has no topic handles")]

use crate::{
    kafka::context::Context,
    produce::{Ack, Outgoing, Record, TopicName},
};
use rdkafka::{
    bindings::{self as sys, rd_kafka_vtype_t as Type, rd_kafka_vu_s__bindgen_ty_1 as Value},
    producer::{BaseProducer, Producer as _},
    types::RDKafkaErrorCode,
    util::IntoOpaque,
};
use std::{
    ffi::{CString, c_void},
    ptr::{self, NonNull},
    sync::Arc,
};

/// What librdkafka keeps with a record and gives back with its report.
pub struct InFlight {
    pub ack: Ack,
    /// Its place in the order of its [lane](crate::kafka::lane).
    pub place: u32,
    /// The record's, in milliseconds since the Unix epoch: librdkafka does not tell that of a record that failed.
    pub timestamp: i64,
    /// The sender of the record named the partition.
    pub is_partition_named: bool,
}

/// One topic of one producer.
pub struct NativeTopic {
    topic: NonNull<sys::rd_kafka_topic_t>,
    /// librdkafka's topics must not outlive its client.
    producer: Arc<BaseProducer<Context>>,
}

// SAFETY: librdkafka's objects may be used from any thread (its INTRODUCTION.md, "Threads and callbacks").
unsafe impl Send for NativeTopic {}
// SAFETY: as above.
unsafe impl Sync for NativeTopic {}

impl NativeTopic {
    /// None where librdkafka refuses the name. Waits for nothing.
    pub fn new(producer: Arc<BaseProducer<Context>>, name: &TopicName) -> Option<Self> {
        let text = CString::new(name.as_str()).ok()?;
        // SAFETY: the client and the name are alive; librdkafka copies the name. The default settings are asked for.
        let topic = unsafe {
            sys::rd_kafka_topic_new(producer.client().native_ptr(), text.as_ptr(), ptr::null_mut())
        };
        NonNull::new(topic).map(|topic| Self { topic, producer })
    }

    /// Hands the record to librdkafka, which copies it, without waiting. It comes back here where librdkafka does not
    /// take it.
    pub fn send(&self, outgoing: Outgoing, place: u32) -> Result<(), (RDKafkaErrorCode, Outgoing)> {
        let partition = outgoing.partition();
        outgoing.send(|record, ack| {
            let (timestamp, is_partition_named) = (record.timestamp, record.partition.is_some());
            let in_flight = InFlight { ack, place, timestamp, is_partition_named };
            self.produce(record, partition, in_flight).map_err(|(code, in_flight)| (code, in_flight.ack))
        })
    }

    fn produce(
        &self,
        record: &Record,
        partition: i32,
        in_flight: InFlight,
    ) -> Result<(), (RDKafkaErrorCode, InFlight)> {
        let headers = Headers::of(record);
        let (value, key) = (bytes(record.value.as_deref()), bytes(record.key.as_deref()));
        let opaque = Box::new(in_flight).into_ptr();
        let fields = [
            field(Type::RD_KAFKA_VTYPE_RKT, Value { rkt: self.topic.as_ptr() }),
            field(Type::RD_KAFKA_VTYPE_PARTITION, Value { i32_: partition }),
            field(Type::RD_KAFKA_VTYPE_MSGFLAGS, Value { i: sys::RD_KAFKA_MSG_F_COPY }),
            field(Type::RD_KAFKA_VTYPE_VALUE, value),
            field(Type::RD_KAFKA_VTYPE_KEY, key),
            field(Type::RD_KAFKA_VTYPE_TIMESTAMP, Value { i64_: record.timestamp }),
            field(Type::RD_KAFKA_VTYPE_OPAQUE, Value { ptr: opaque }),
            field(Type::RD_KAFKA_VTYPE_HEADERS, Value { headers: headers.0 }),
        ];
        // SAFETY: every pointer is alive during the call; the value and the key are only read, although their type
        // says otherwise, because of MSG_F_COPY. On success the headers belong to librdkafka.
        let error = unsafe {
            sys::rd_kafka_produceva(self.producer.client().native_ptr(), fields.as_ptr(), fields.len())
        };
        if error.is_null() {
            std::mem::forget(headers);
            return Ok(());
        }
        // SAFETY: the error is owned here and destroyed once, after its only use. A record that is not taken has
        // no delivery report, so the opaque is still ours.
        let (code, in_flight) = unsafe {
            let code = sys::rd_kafka_error_code(error);
            sys::rd_kafka_error_destroy(error);
            (code.into(), Box::<InFlight>::from_ptr(opaque))
        };
        Err((code, *in_flight))
    }
}

impl Drop for NativeTopic {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once, and before its client, which `producer` keeps alive.
        unsafe { sys::rd_kafka_topic_destroy(self.topic.as_ptr()) }
    }
}

/// A record's headers; null where it has none.
struct Headers(*mut sys::rd_kafka_headers_t);

impl Headers {
    /// What the automatic headers are at most.
    const AUTOMATIC: usize = 6;

    fn of(record: &Record) -> Self {
        let mut headers = Self(ptr::null_mut());
        record
            .for_each_header(|name, value| headers.add(record.headers.len() + Self::AUTOMATIC, name, value));
        headers
    }

    fn add(&mut self, expected: usize, name: &str, value: Option<&[u8]>) {
        let (value, length) = value.map_or((ptr::null(), 0), |value| (value.as_ptr().cast(), value.len()));
        // SAFETY: librdkafka copies the name and the value, whose lengths are given and, as those of a slice, fit
        // `isize`. It fails only where the list is read-only, which that of a consumed message is.
        unsafe {
            if self.0.is_null() {
                self.0 = sys::rd_kafka_headers_new(expected);
            }
            sys::rd_kafka_header_add(
                self.0,
                name.as_ptr().cast(),
                name.len().cast_signed(),
                value,
                length.cast_signed(),
            );
        }
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: owned; where librdkafka has taken them, they were forgotten here.
            unsafe { sys::rd_kafka_headers_destroy(self.0) }
        }
    }
}

fn field(vtype: Type, u: Value) -> sys::rd_kafka_vu_t {
    sys::rd_kafka_vu_t { vtype, u }
}

/// Null is Kafka's null, which is another thing than no bytes.
fn bytes(bytes: Option<&[u8]>) -> Value {
    let (start, size) = bytes.map_or((ptr::null(), 0), |bytes| (bytes.as_ptr(), bytes.len()));
    let ptr = start.cast::<c_void>().cast_mut();
    Value { mem: sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr, size } }
}
