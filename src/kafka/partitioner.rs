//! `PARTITIONER=tenant`: records of one tenant land in one partition. rdkafka's partitioner callback sees no
//! headers, so the partition is computed here and sent explicitly.

use crate::produce::Record;
use md5::{Digest, Md5};

const TENANT_HEADER: &str = "tenant-id";

/// The partition of the record's tenant, else of its key; None leaves the choice to librdkafka.
pub fn tenant(record: &Record, partitions: i32) -> Option<i32> {
    let tenant = record
        .headers
        .iter()
        .find(|header| header.name == TENANT_HEADER)
        .and_then(|header| header.value.as_ref())
        .or(record.key.as_ref())?;
    hash(tenant, partitions)
}

/// The first four bytes of the MD5 digest, big-endian, modulo the partition count.
fn hash(tenant: &[u8], partitions: i32) -> Option<i32> {
    let digest = Md5::digest(tenant);
    let first = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    let partitions = u32::try_from(partitions).ok().filter(|&count| count > 0)?;
    i32::try_from(first % partitions).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_four_bytes_of_the_digest_decide() {
        // digests by md5sum: 53bce4f1… and bdb99798…
        assert_eq!(hash(b"acme", 12), Some((0x53bc_e4f1_u32 % 12) as i32));
        assert_eq!(hash(b"tenant-7", 12), Some(8));
    }

    #[test]
    fn a_topic_without_partitions_has_no_answer() {
        assert_eq!(hash(b"acme", 0), None);
    }
}
