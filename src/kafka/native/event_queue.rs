//! The events of a producer, of which delivery reports are nearly all. rdkafka's `poll` counts references to the
//! event for every report, and spins through the last millisecond of its time.
#![expect(unsafe_code, reason = "rdkafka polls only in its own way")]

use super::{report::DeliveryReport, topic::InFlight};
use crate::kafka::context::Context;
use rdkafka::{
    ClientContext, bindings as sys,
    config::RDKafkaLogLevel,
    error::KafkaError,
    producer::{BaseProducer, Producer as _},
    types::RDKafkaErrorCode,
    util::IntoOpaque as _,
};
use std::{
    borrow::Cow,
    ffi::{CStr, c_int, c_void},
    iter,
    ptr::{self, NonNull},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// Where librdkafka puts a producer's events.
pub struct EventQueue {
    queue: NonNull<sys::rd_kafka_queue_t>,
    arrived: Arc<Notify>,
    /// The queue must not outlive its client.
    producer: Arc<BaseProducer<Context>>,
}

// SAFETY: librdkafka's queues may be used from any thread (its INTRODUCTION.md, "Threads and callbacks").
unsafe impl Send for EventQueue {}
// SAFETY: as above.
unsafe impl Sync for EventQueue {}

impl EventQueue {
    /// None only where librdkafka is out of memory.
    pub fn of(producer: Arc<BaseProducer<Context>>) -> Option<Self> {
        // SAFETY: the client is alive; the reference to the queue is owned here.
        let queue = unsafe { sys::rd_kafka_queue_get_main(producer.client().native_ptr()) };
        let queue = NonNull::new(queue)?;
        let arrived = Arc::new(Notify::new());
        // SAFETY: the callback's argument lives until `drop` has taken the callback back.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(
                queue.as_ptr(),
                Some(event_arrived),
                Arc::as_ptr(&arrived).cast_mut().cast(),
            );
        }
        Some(Self { queue, arrived, producer })
    }

    /// Has librdkafka send without waiting for company until all that it has is delivered, for `timeout` at most.
    /// Blocks. rdkafka's own `flush` serves events meanwhile, which here is the runtime's work.
    pub fn flush(&self, timeout: Duration) {
        let timeout_ms = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the client is alive. Its answer, whether all is delivered, does not matter.
        unsafe { sys::rd_kafka_flush(self.producer.client().native_ptr(), timeout_ms) };
    }

    /// Told of the arrival of events, and of the end of the queue.
    pub fn arrived(&self) -> Arc<Notify> {
        Arc::clone(&self.arrived)
    }

    /// Hands what the next event holds to the context; false where there is none. Waits for nothing.
    pub fn serve_one(&self) -> bool {
        // SAFETY: the queue is alive; the event, or null, is owned here.
        let event = unsafe { sys::rd_kafka_queue_poll(self.queue.as_ptr(), 0) };
        let Some(event) = NonNull::new(event).map(Event) else { return false };
        let context = self.producer.context();
        match event.kind() {
            sys::RD_KAFKA_EVENT_DR => context.delivered(event.reports(), None, Instant::now()),
            sys::RD_KAFKA_EVENT_STATS => context.stats_raw(event.statistics()),
            sys::RD_KAFKA_EVENT_ERROR => {
                let (code, reason) = event.error();
                context.error(KafkaError::Global(code), &reason);
            }
            sys::RD_KAFKA_EVENT_LOG => {
                if let Some((level, facility, text)) = event.log() {
                    context.log(level, &facility, &text);
                }
            }
            // rdkafka asks for the refresh of OAuth tokens too, which only an application can do
            _ => {}
        }
        true
    }
}

/// Called by librdkafka's threads under the queue's lock.
///
/// # Safety
/// `arrived` is what [`EventQueue::of`] gave.
unsafe extern "C" fn event_arrived(_: *mut sys::rd_kafka_t, arrived: *mut c_void) {
    // SAFETY: by the contract.
    unsafe { &*arrived.cast::<Notify>() }.notify_one();
}

impl Drop for EventQueue {
    fn drop(&mut self) {
        // SAFETY: owned, given back once and before its client, which `producer` keeps alive. The callback is taken
        // back under the queue's lock, which it runs under: it is not running after that.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
        // who waits for events learns that there will be none
        self.arrived.notify_one();
    }
}

/// An event, destroyed with the value.
struct Event(NonNull<sys::rd_kafka_event_t>);

impl Event {
    fn kind(&self) -> sys::rd_kafka_event_type_t {
        // SAFETY: the event is alive.
        unsafe { sys::rd_kafka_event_type(self.0.as_ptr()) }
    }

    /// The reports of a delivery event, each with what its record was sent with. They are of one topic, and where there
    /// was an answer, of one batch. To be taken once.
    fn reports(&self) -> impl Iterator<Item = (DeliveryReport<'_>, InFlight)> {
        // SAFETY: the event is alive, and with it its messages. Each message is given out once, and its opaque is
        // what `NativeTopic::produce` made of a `Box<InFlight>`: nothing else sends.
        iter::from_fn(|| unsafe {
            let message = sys::rd_kafka_event_message_next(self.0.as_ptr()).as_ref()?;
            Some((DeliveryReport::new(message), *Box::<InFlight>::from_ptr(message._private)))
        })
    }

    fn statistics(&self) -> &[u8] {
        // SAFETY: the text is the event's and ends with NUL.
        unsafe { CStr::from_ptr(sys::rd_kafka_event_stats(self.0.as_ptr())) }.to_bytes()
    }

    /// Level, facility and text; None where the event is no line of log.
    fn log(&self) -> Option<(RDKafkaLogLevel, Cow<'_, str>, Cow<'_, str>)> {
        let (mut facility, mut text, mut level) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the event is alive; where the answer is 0 the texts are the event's and end with NUL.
        let (facility, text) = unsafe {
            if sys::rd_kafka_event_log(self.0.as_ptr(), &mut facility, &mut text, &mut level) != 0 {
                return None;
            }
            (CStr::from_ptr(facility), CStr::from_ptr(text))
        };
        let level = match level {
            ..=0 => RDKafkaLogLevel::Emerg,
            1 => RDKafkaLogLevel::Alert,
            2 => RDKafkaLogLevel::Critical,
            3 => RDKafkaLogLevel::Error,
            4 => RDKafkaLogLevel::Warning,
            5 => RDKafkaLogLevel::Notice,
            6 => RDKafkaLogLevel::Info,
            7.. => RDKafkaLogLevel::Debug,
        };
        Some((level, facility.to_string_lossy(), text.to_string_lossy()))
    }

    fn error(&self) -> (RDKafkaErrorCode, String) {
        // SAFETY: the event is alive; its text ends with NUL and is copied.
        unsafe {
            let code = sys::rd_kafka_event_error(self.0.as_ptr()).into();
            let reason = CStr::from_ptr(sys::rd_kafka_event_error_string(self.0.as_ptr()));
            (code, reason.to_string_lossy().trim().to_owned())
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once.
        unsafe { sys::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}
