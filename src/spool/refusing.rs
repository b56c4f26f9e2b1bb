//! Says in the log that records are refused, why, and what to do: once when it begins, and once when it is over.

use std::sync::atomic::{
    AtomicU8,
    Ordering::{AcqRel, Relaxed},
};

/// So many looks without a refusal, and it is over: else each request that fits would end it, and the next begin it.
const QUIET: u32 = 10;
const ALL: [Why; 3] = [Why::MaxBytes, Why::MaxAge, Why::Disk];

/// Why records are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    MaxBytes,
    MaxAge,
    Disk,
}

/// The refusals since the last look.
#[derive(Debug, Default)]
pub struct Refusals(AtomicU8);

/// What was said so far.
#[derive(Debug, Default)]
pub struct Refusing {
    causes: [Cause; ALL.len()],
}

#[derive(Debug, Default)]
struct Cause {
    is_said: bool,
    quiet_looks: u32,
}

/// What is to be said.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Begins(Why),
    Ends(Why),
}

impl Refusals {
    pub fn add(&self, why: Why) {
        self.0.fetch_or(why.bit(), Relaxed);
    }

    fn take(&self) -> u8 {
        self.0.swap(0, AcqRel)
    }
}

impl Refusing {
    /// To be called once a second. `is_so` tells whether new records would be refused now.
    pub fn look(&mut self, refusals: &Refusals, is_so: impl Fn(Why) -> bool) {
        for said in self.changes(refusals.take(), is_so) {
            match said {
                Said::Begins(why) => {
                    let (reason, advice) = (why.reason(), why.advice());
                    tracing::warn!(reason, advice, "new records are not stored in the spool");
                }
                Said::Ends(why) => {
                    let was = why.reason();
                    tracing::info!(was, "new records are no longer kept out of the spool for this reason");
                }
            }
        }
    }

    fn changes(&mut self, refusals: u8, is_so: impl Fn(Why) -> bool) -> Vec<Said> {
        let mut changes = Vec::new();
        for (why, cause) in ALL.into_iter().zip(&mut self.causes) {
            if refusals & why.bit() != 0 || is_so(why) {
                cause.quiet_looks = 0;
                if !cause.is_said {
                    cause.is_said = true;
                    changes.push(Said::Begins(why));
                }
            } else if cause.is_said {
                cause.quiet_looks += 1;
                if cause.quiet_looks >= QUIET {
                    cause.is_said = false;
                    changes.push(Said::Ends(why));
                }
            }
        }
        changes
    }
}

impl Why {
    fn bit(self) -> u8 {
        1 << self as u8
    }

    fn reason(self) -> &'static str {
        match self {
            Self::MaxBytes => "the spool holds as much as SPOOL_MAX_BYTES allows, or nearly",
            Self::MaxAge => "the oldest stored record waits for longer than SPOOL_MAX_AGE",
            Self::Disk => "the disk under SPOOL_DIR is full or fails",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::MaxBytes => {
                "see why Kafka does not take them (kafka-inlet check), look for failed ones (kafka-inlet spool list), \
                 or raise SPOOL_MAX_BYTES and restart"
            }
            Self::MaxAge => {
                "see why Kafka does not take it (kafka-inlet check); the log names topics that are missing or denied"
            }
            Self::Disk => "make room there or mend it; it is used again by itself",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: Why) -> bool {
        false
    }

    #[test]
    fn each_beginning_and_each_end_is_said_once() {
        let mut refusing = Refusing::default();
        let refusals = Refusals::default();
        assert_eq!(refusing.changes(refusals.take(), nothing), []);
        for round in 0..2 {
            refusals.add(Why::MaxBytes);
            refusals.add(Why::MaxBytes);
            assert_eq!(refusing.changes(refusals.take(), nothing), [Said::Begins(Why::MaxBytes)], "{round}");
            refusals.add(Why::MaxBytes);
            for _ in 0..QUIET {
                assert_eq!(refusing.changes(refusals.take(), nothing), []);
            }
            assert_eq!(refusing.changes(refusals.take(), nothing), [Said::Ends(Why::MaxBytes)], "{round}");
            assert_eq!(refusing.changes(refusals.take(), nothing), []);
        }
    }

    #[test]
    fn it_is_not_over_while_new_records_would_be_refused() {
        let mut refusing = Refusing::default();
        let is_old = |why| why == Why::MaxAge;
        assert_eq!(refusing.changes(0, is_old), [Said::Begins(Why::MaxAge)]);
        for _ in 0..3 * QUIET {
            assert_eq!(refusing.changes(0, is_old), []);
        }
    }

    #[test]
    fn reasons_come_and_go_by_themselves() {
        let mut refusing = Refusing::default();
        for why in ALL {
            assert_eq!(refusing.changes(why.bit(), nothing), [Said::Begins(why)]);
        }
        let quiet: Vec<_> = (0..2 * QUIET).flat_map(|_| refusing.changes(0, nothing)).collect();
        assert_eq!(quiet, ALL.map(Said::Ends));
    }
}
