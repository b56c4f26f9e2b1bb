//! Which instance a stored record names. The instance may have another name at each start, and a record keeps the one under
//! which it was taken.

use crate::produce::{InstanceId, ReceiptId, Sequence};

/// What the instance of one store was called, by sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instances {
    /// Earlier names, each for the sequences below this one and not below that of the name before; rising.
    earlier: Vec<(Sequence, InstanceId)>,
    latest: InstanceId,
}

impl Instances {
    /// One name for all records.
    pub fn only(name: InstanceId) -> Self {
        Self { earlier: Vec::new(), latest: name }
    }

    /// Goes on under another name, with the sequences from `first` on, which are above all so far.
    pub(super) fn rename(&mut self, first: Sequence, name: InstanceId) {
        let before = std::mem::replace(&mut self.latest, name);
        self.earlier.push((first, before));
    }

    /// The name that new records get.
    pub fn latest(&self) -> &InstanceId {
        &self.latest
    }

    /// The name under which the record was taken.
    pub fn of(&self, sequence: Sequence) -> &InstanceId {
        let place = self.earlier.partition_point(|(below, _)| *below <= sequence);
        self.earlier.get(place).map_or(&self.latest, |(_, name)| name)
    }

    /// The id of the record's receipt.
    pub fn receipt(&self, sequence: Sequence) -> ReceiptId {
        ReceiptId { instance: self.of(sequence).clone(), sequence }
    }

    /// Whether a record of this store may have that id: the instance had this name when the sequence was given.
    pub fn gave(&self, id: &ReceiptId) -> bool {
        *self.of(id.sequence) == id.instance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> InstanceId {
        InstanceId::parse(name).unwrap()
    }

    /// Two names that alternate: `a` below 100, `b` below 200, then `a` again.
    fn alternating() -> Instances {
        let mut instances = Instances::only(name("a"));
        instances.rename(Sequence(100), name("b"));
        instances.rename(Sequence(200), name("a"));
        instances
    }

    #[test]
    fn a_record_keeps_the_name_under_which_it_was_taken() {
        let instances = alternating();
        for (sequence, id) in [
            (0, "a-0000000000000000"),
            (99, "a-0000000000000063"),
            (100, "b-0000000000000064"),
            (199, "b-00000000000000c7"),
            (200, "a-00000000000000c8"),
            (u64::MAX, "a-ffffffffffffffff"),
        ] {
            assert_eq!(instances.receipt(Sequence(sequence)).to_string(), id);
        }
        assert_eq!(instances.latest(), &name("a"));
    }

    #[test]
    fn an_id_is_its_own_only_with_the_name_of_that_time() {
        let instances = alternating();
        let gave = |instance: &str, sequence| {
            instances.gave(&ReceiptId { instance: name(instance), sequence: Sequence(sequence) })
        };
        assert!(gave("a", 99) && gave("b", 100) && gave("a", 200));
        assert!(!gave("b", 99) && !gave("a", 100) && !gave("b", 200) && !gave("c", 100));
    }
}
