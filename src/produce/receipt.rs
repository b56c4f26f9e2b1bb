//! What became of a record that was accepted, and the name under which it can be asked for.

use super::TopicName;
use std::{fmt, sync::Arc};

/// The record is in Kafka, acknowledged by all in-sync replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub topic: TopicName,
    pub partition: i32,
    /// None where Kafka confirmed the record but a retried acknowledgement lost its offset.
    pub offset: Option<i64>,
    /// Milliseconds since the Unix epoch: the record's timestamp in Kafka.
    pub timestamp: i64,
}

/// The name of one instance of the service (`INSTANCE_ID`): 1 to 128 of the characters `a-z A-Z 0-9 . _ -`. Cloning
/// shares the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceId(Arc<str>);

/// A record of one instance, in the order in which the instance met its records. Unique across restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

/// Names one record for good: the instance that took it and its sequence there. As text
/// `<instance>-<16 hex digits>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptId {
    pub instance: InstanceId,
    pub sequence: Sequence,
}

/// A text that is no [`InstanceId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an instance is named by 1 to {} of the characters a-z, A-Z, 0-9, '.', '_' and '-'",
    InstanceId::MAX_LENGTH
)]
pub struct InvalidInstanceId;

impl InstanceId {
    pub const MAX_LENGTH: usize = 128;

    /// Takes the text as it is.
    pub fn parse(text: &str) -> Result<Self, InvalidInstanceId> {
        let fits = (1..=Self::MAX_LENGTH).contains(&text.len());
        (fits && text.chars().all(Self::is_allowed)).then(|| Self(text.into())).ok_or(InvalidInstanceId)
    }

    /// A host's name, cut to the length that is allowed, with `-` for each character that is not. `localhost` where
    /// the host has no name.
    pub fn of_host(name: &str) -> Self {
        if name.is_empty() {
            return Self("localhost".into());
        }
        let allowed = |character| if Self::is_allowed(character) { character } else { '-' };
        Self(name.chars().take(Self::MAX_LENGTH).map(allowed).collect::<String>().into())
    }

    fn is_allowed(character: char) -> bool {
        character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-')
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ReceiptId {
    const DIGITS: usize = 16;
    /// The longest text of one, in bytes.
    pub const MAX_LENGTH: usize = InstanceId::MAX_LENGTH + 1 + Self::DIGITS;

    /// The text, without an allocation.
    pub fn write<'a>(&self, buffer: &'a mut [u8; Self::MAX_LENGTH]) -> &'a str {
        let instance = self.instance.as_str();
        let length = instance.len() + 1 + Self::DIGITS;
        buffer[..instance.len()].copy_from_slice(instance.as_bytes());
        buffer[instance.len()] = b'-';
        for (place, digit) in buffer[instance.len() + 1..length].iter_mut().rev().enumerate() {
            *digit = b"0123456789abcdef"[(self.sequence.0 >> (4 * place)) as usize & 0xf];
        }
        // all of it is ASCII
        std::str::from_utf8(&buffer[..length]).unwrap_or_default()
    }

    /// None where the text is not the name of a record.
    pub fn parse(text: &str) -> Option<Self> {
        let (instance, digits) = text.rsplit_once('-')?;
        let is_hex = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        if digits.len() != Self::DIGITS || !is_hex {
            return None;
        }
        let sequence = Sequence(u64::from_str_radix(digits, 16).ok()?);
        Some(Self { instance: InstanceId::parse(instance).ok()?, sequence })
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ReceiptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.write(&mut [0; Self::MAX_LENGTH]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_id_is_read_as_it_is_written() {
        for instance in ["a", "inlet-0", "host.example", &"x".repeat(128)] {
            let instance = InstanceId::parse(instance).unwrap();
            let id = ReceiptId { instance, sequence: Sequence(0x18a3_f2b1_c4d5_e6f7) };
            assert_eq!(ReceiptId::parse(&id.to_string()), Some(id));
        }
        let id = ReceiptId { instance: InstanceId::parse("a").unwrap(), sequence: Sequence(255) };
        assert_eq!(id.to_string(), "a-00000000000000ff");
    }

    #[test]
    fn another_text_is_no_receipt_id() {
        for text in ["", "a", "-00000000000000ff", "a-00000000000000FF", "a-ff", "a b-00000000000000ff", "a-"]
        {
            assert_eq!(ReceiptId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_instance_needs_a_name_that_fits_a_url_and_a_header() {
        for text in ["", "a b", "a/b", "ä", &"x".repeat(129)] {
            assert_eq!(InstanceId::parse(text), Err(InvalidInstanceId), "{text}");
        }
    }

    #[test]
    fn every_host_name_makes_a_name_of_an_instance() {
        for (host, instance) in [
            ("inlet-7d9f-x2", "inlet-7d9f-x2"),
            ("a b/\u{e4}", "a-b--"),
            ("", "localhost"),
            (&"x".repeat(200), &"x".repeat(128)),
        ] {
            assert_eq!(InstanceId::of_host(host).as_str(), instance);
            assert_eq!(InstanceId::parse(instance), Ok(InstanceId::of_host(host)));
        }
    }
}
