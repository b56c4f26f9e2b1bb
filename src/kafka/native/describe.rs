//! `DescribeTopics` with authorised operations (KIP-430), which rdkafka does not wrap.
#![expect(unsafe_code, reason = "librdkafka's C functions; rdkafka has no wrapper for DescribeTopics")]

use crate::produce::{TopicId, TopicName};
use rdkafka::{
    ClientContext,
    bindings::{self, rd_kafka_AclOperation_t, rd_kafka_TopicDescription_t, rd_kafka_admin_op_t},
    client::Client,
    error::RDKafkaErrorCode,
};
use std::{
    ffi::{CStr, CString, c_char, c_int},
    ptr::{self, NonNull},
    slice,
    time::Duration,
};

/// What the broker says of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    pub name: String,
    /// An error says why the broker does not describe it: unknown, or not authorised to know.
    pub described: Result<Described, RDKafkaErrorCode>,
}

/// A topic that the broker describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    pub partitions: usize,
    /// The fewest replicas of a partition, in sync or not.
    pub replicas: usize,
    /// None where the broker has no ids.
    pub id: Option<TopicId>,
    /// Partitions that cannot be written to now, by number.
    pub leaderless: Vec<i32>,
    /// Kafka's names of what this client may do with the topic; None where the broker does not tell.
    pub operations: Option<Vec<String>>,
}

/// Why there is no answer for any topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DescribeError {
    #[error("{0}")]
    Kafka(RDKafkaErrorCode),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("librdkafka could not make the request")]
    Request,
}

/// A native object that is destroyed with the value.
struct Native<T> {
    object: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Native<T> {
    /// # Safety
    /// `object` is null or owned by the caller, and `destroy` is its destructor.
    unsafe fn new(object: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Result<Self, DescribeError> {
        NonNull::new(object).map(|object| Self { object, destroy }).ok_or(DescribeError::Request)
    }

    fn ptr(&self) -> *mut T {
        self.object.as_ptr()
    }
}

impl<T> Drop for Native<T> {
    fn drop(&mut self) {
        // SAFETY: by the contract of `new` the object is owned and this is its destructor; it is called once.
        unsafe { (self.destroy)(self.ptr()) }
    }
}

/// Asks the broker with the id `broker` for the topics, in their order, and for what this client may do with
/// them. Each is named once. Creates none. Blocks for at most `timeout` and a second.
///
/// The broker is named because librdkafka would otherwise ask the controller, which this request does not
/// need and the mock cluster does not have.
pub fn describe_topics<C: ClientContext>(
    client: &Client<C>,
    broker: i32,
    topics: &[TopicName],
    timeout: Duration,
) -> Result<Vec<TopicDescription>, DescribeError> {
    // topic names hold no zero byte, by Kafka's own rule
    let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(topic.as_str()).ok()).collect();
    let mut names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let timeout_ms = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    let rk = client.native_ptr();

    // SAFETY: the array and the texts live until the end of this function; librdkafka copies them.
    let collection = unsafe {
        Native::new(
            bindings::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
            bindings::rd_kafka_TopicCollection_destroy,
        )?
    };
    let options = options(client, broker, timeout_ms)?;
    // SAFETY: `client` keeps `rk` alive for longer than the queue, which is owned here.
    let queue = unsafe { Native::new(bindings::rd_kafka_queue_new(rk), bindings::rd_kafka_queue_destroy)? };
    // SAFETY: every argument is alive; librdkafka copies what it keeps.
    unsafe { bindings::rd_kafka_DescribeTopics(rk, collection.ptr(), options.ptr(), queue.ptr()) };
    // The request's own time-out comes first; the second more is for its event.
    // SAFETY: the queue is alive; the event, or null, belongs to the caller.
    let event = unsafe {
        Native::new(
            bindings::rd_kafka_queue_poll(queue.ptr(), timeout_ms.saturating_add(1000)),
            bindings::rd_kafka_event_destroy,
        )
    }
    .map_err(|_| DescribeError::Timeout(timeout))?;

    // SAFETY: the event is alive.
    let code: RDKafkaErrorCode = unsafe { bindings::rd_kafka_event_error(event.ptr()) }.into();
    if code != RDKafkaErrorCode::NoError {
        return Err(DescribeError::Kafka(code));
    }
    let mut count = 0;
    // SAFETY: the result is the event itself, or null where it is of another type; it lives as long.
    let descriptions = unsafe {
        let result = bindings::rd_kafka_event_DescribeTopics_result(event.ptr());
        if result.is_null() {
            return Err(DescribeError::Request);
        }
        array(bindings::rd_kafka_DescribeTopics_result_topics(result, &mut count), count)
    };
    // a topic that the broker left out has none
    let descriptions = descriptions.iter().filter(|description| !description.is_null());
    // SAFETY: the descriptions belong to the event, which is alive until all of them are copied.
    Ok(descriptions.map(|&description| unsafe { copy(description) }).collect())
}

fn options<C: ClientContext>(
    client: &Client<C>,
    broker: i32,
    timeout_ms: c_int,
) -> Result<Native<bindings::rd_kafka_AdminOptions_t>, DescribeError> {
    let operation = rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    // SAFETY: the client is alive; the options belong to the caller. An empty error text is allowed. An error
    // object belongs to the caller and may be null, which its destructor is not called with.
    unsafe {
        let options = Native::new(
            bindings::rd_kafka_AdminOptions_new(client.native_ptr(), operation),
            bindings::rd_kafka_AdminOptions_destroy,
        )?;
        let timed = bindings::rd_kafka_AdminOptions_set_request_timeout(
            options.ptr(),
            timeout_ms,
            ptr::null_mut(),
            0,
        );
        let addressed = bindings::rd_kafka_AdminOptions_set_broker(options.ptr(), broker, ptr::null_mut(), 0);
        let error = bindings::rd_kafka_AdminOptions_set_include_authorized_operations(options.ptr(), 1);
        let refused = !error.is_null();
        if refused {
            bindings::rd_kafka_error_destroy(error);
        }
        let set = [timed, addressed].map(RDKafkaErrorCode::from) == [RDKafkaErrorCode::NoError; 2];
        if refused || !set {
            return Err(DescribeError::Request);
        }
        Ok(options)
    }
}

/// # Safety
/// `description` is alive during the call.
unsafe fn copy(description: *const rd_kafka_TopicDescription_t) -> TopicDescription {
    // SAFETY: the name is a C string that lives as long as the description; so does the error, which may be
    // null: its code is then that of no error.
    let (name, code) = unsafe {
        let name = CStr::from_ptr(bindings::rd_kafka_TopicDescription_name(description));
        let error = bindings::rd_kafka_TopicDescription_error(description);
        (name.to_string_lossy().into_owned(), RDKafkaErrorCode::from(bindings::rd_kafka_error_code(error)))
    };
    if code != RDKafkaErrorCode::NoError {
        return TopicDescription { name, described: Err(code) };
    }
    let mut count = 0;
    // SAFETY: the partitions and their leaders live as long as the description; a leader may be null.
    let partitions: Vec<(i32, bool, usize)> = unsafe {
        array(bindings::rd_kafka_TopicDescription_partitions(description, &mut count), count)
            .iter()
            .map(|&partition| {
                let leader = bindings::rd_kafka_TopicPartitionInfo_leader(partition);
                let led = !leader.is_null() && bindings::rd_kafka_Node_id(leader) >= 0;
                let mut replicas = 0;
                bindings::rd_kafka_TopicPartitionInfo_replicas(partition, &mut replicas);
                (bindings::rd_kafka_TopicPartitionInfo_partition(partition), led, replicas)
            })
            .collect()
    };
    let leaderless = partitions.iter().filter(|(_, led, _)| !led).map(|(number, ..)| *number).collect();
    let replicas = partitions.iter().map(|(.., replicas)| *replicas).min().unwrap_or(0);
    // SAFETY: the description is alive.
    let (operations, id) = unsafe { (operations(description), id(description)) };
    let described = Described { partitions: partitions.len(), replicas, id, leaderless, operations };
    TopicDescription { name, described: Ok(described) }
}

/// # Safety
/// `description` is alive during the call.
unsafe fn id(description: *const rd_kafka_TopicDescription_t) -> Option<TopicId> {
    // SAFETY: the id lives as long as the description.
    let (most, least) = unsafe {
        let id = bindings::rd_kafka_TopicDescription_topic_id(description);
        if id.is_null() {
            return None;
        }
        (
            bindings::rd_kafka_Uuid_most_significant_bits(id),
            bindings::rd_kafka_Uuid_least_significant_bits(id),
        )
    };
    // zero is the broker's silence
    (most != 0 || least != 0)
        .then(|| TopicId(u128::from(most.cast_unsigned()) << 64 | u128::from(least.cast_unsigned())))
}

/// # Safety
/// `description` is alive during the call.
unsafe fn operations(description: *const rd_kafka_TopicDescription_t) -> Option<Vec<String>> {
    let mut count = 0;
    // SAFETY: the operations live as long as the description; librdkafka drops numbers beyond its own enum's
    // before they get here; each name is a static C string.
    unsafe {
        let operations = bindings::rd_kafka_TopicDescription_authorized_operations(description, &mut count);
        // null is the broker's silence; an empty list is a broker that tells of no right
        if operations.is_null() {
            return None;
        }
        let names = array::<rd_kafka_AclOperation_t>(operations, count).iter().map(|&operation| {
            CStr::from_ptr(bindings::rd_kafka_AclOperation_name(operation)).to_string_lossy().into_owned()
        });
        Some(names.collect())
    }
}

/// A C array as a slice; null is empty.
///
/// # Safety
/// Where it is not null, `first` points to `count` elements that are alive for `'a`.
unsafe fn array<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if first.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(first, count) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::embedded::EmbeddedCluster;
    use rdkafka::{
        ClientConfig,
        mocking::MockCluster,
        producer::{BaseProducer, Producer},
    };

    fn names(names: &[&str]) -> Vec<TopicName> {
        names.iter().map(|name| TopicName::parse(name).unwrap()).collect()
    }

    fn describe(bootstrap_servers: &str, topics: &[&str]) -> Result<Vec<TopicDescription>, DescribeError> {
        let client: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", bootstrap_servers).create().unwrap();
        describe_topics(client.client(), 1, &names(topics), Duration::from_secs(2))
    }

    #[test]
    fn topics_are_described_in_the_order_asked_for() {
        let cluster = EmbeddedCluster::start(&names(&["a", "b"]), 3).unwrap();
        let answer = describe(cluster.bootstrap_servers(), &["b", "a"]).unwrap();
        assert_eq!(answer.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        let described = answer[0].described.as_ref().unwrap();
        assert_eq!((described.partitions, described.replicas, described.leaderless.len()), (3, 1, 0));
    }

    #[test]
    fn the_replicas_of_a_topic_are_told() {
        let cluster = MockCluster::new(3).unwrap();
        cluster.create_topic("a", 2, 3).unwrap();
        let answer = describe(&cluster.bootstrap_servers(), &["a"]).unwrap();
        assert_eq!(answer[0].described.as_ref().unwrap().replicas, 3);
    }

    #[test]
    fn a_topic_that_does_not_exist_is_said_not_to_and_is_not_made() {
        let cluster = EmbeddedCluster::start(&[], 1).unwrap();
        for _ in 0..2 {
            let answer = describe(cluster.bootstrap_servers(), &["absent"]).unwrap();
            assert_eq!(answer[0].described, Err(RDKafkaErrorCode::UnknownTopicOrPartition));
        }
    }

    #[test]
    fn a_broker_that_does_not_tell_of_rights_is_silent() {
        let cluster = EmbeddedCluster::start(&names(&["a"]), 1).unwrap();
        let answer = describe(cluster.bootstrap_servers(), &["a"]).unwrap();
        assert_eq!(answer[0].described.as_ref().unwrap().operations, None);
    }

    #[test]
    fn without_a_broker_there_is_no_answer() {
        // nobody is given so low a port by chance
        assert!(describe("127.0.0.1:1", &["a"]).is_err());
    }
}
