//! What is decided about a record before anything is queued.

use super::{
    Error, Record, Topic,
    admission::{HEADER_OVERHEAD, RECORD_OVERHEAD},
    record::{RECEIPT, RECEIPT_REPLAYED},
    size::{BATCH_OVERHEAD, batch_size},
};

/// Bytes that the header `receipt-replayed: true` adds to a record at most: a record that is taken once must still
/// fit when it is sent from the spool.
const REPLAYED_BYTES: usize = 24;

/// What records are held to.
#[derive(Debug, Clone, Copy)]
pub struct RecordLimits {
    /// Where the topic's own limit is not known; see [`batch_size`].
    pub max_record_bytes: usize,
    /// Milliseconds since the Unix epoch.
    pub now_ms: i64,
}

/// The bytes to reserve for the record, which the topic can take.
pub fn check_record(record: &Record, topic: &Topic, limits: RecordLimits) -> Result<usize, Error> {
    if let Some(partition) = record.partition
        && partition >= topic.partitions
    {
        return Err(Error::InvalidPartition {
            topic: topic.name.clone(),
            partition,
            count: topic.partitions,
        });
    }
    let config = topic.config.as_ref();
    let limit = config.map_or(limits.max_record_bytes, |config| config.max_message_bytes);
    let cost = check_size(record, limit)?;
    if let Some(config) = config {
        if config.compacted && record.key.is_none() {
            return Err(Error::KeyRequired(topic.name.clone()));
        }
        config.check_timestamp(&topic.name, record.timestamp, limits.now_ms)?;
    }
    Ok(cost)
}

/// The bytes to reserve for a record that is no larger than the limit.
pub fn check_size(record: &Record, limit: usize) -> Result<usize, Error> {
    let mut size = batch_size(record);
    if let Some(receipt) = &record.receipt {
        if let Some(name) = [RECEIPT, RECEIPT_REPLAYED]
            .into_iter()
            .find(|name| !receipt.replayed && record.headers.iter().any(|header| header.name == *name))
        {
            return Err(Error::ReservedHeader(name));
        }
        size += if receipt.replayed { 0 } else { REPLAYED_BYTES };
    }
    if size > limit {
        return Err(Error::RecordTooLarge { topic: record.topic.clone(), size, limit });
    }
    Ok(size - BATCH_OVERHEAD + RECORD_OVERHEAD + record.headers.len() * HEADER_OVERHEAD)
}
