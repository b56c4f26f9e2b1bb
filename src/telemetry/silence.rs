//! Repeated lines of log are left out for a while; the next one says how many.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Kinds of lines that are told apart at most.
const MAX_KINDS: usize = 100;

/// For one kind of line.
pub struct Silence {
    length: Duration,
    last: Option<Instant>,
    kept: usize,
}

impl Default for Silence {
    /// One line a second.
    fn default() -> Self {
        Self::of(Duration::from_secs(1))
    }
}

impl Silence {
    /// One line in each `length`.
    pub fn of(length: Duration) -> Self {
        Self { length, last: None, kept: 0 }
    }

    /// Whether a line may be written now, and then how many were left out since the last one.
    pub fn breaks(&mut self, now: Instant) -> Option<usize> {
        if !self.is_over(now) {
            self.kept += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.kept))
    }

    fn is_over(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now >= last + self.length)
    }
}

/// A silence for each kind of line; the kinds for which there is no room share one.
pub struct Silences {
    length: Duration,
    kinds: HashMap<String, Silence>,
    others: Silence,
}

impl Silences {
    /// One line of each kind in each `length`.
    pub fn of(length: Duration) -> Self {
        Self { length, kinds: HashMap::new(), others: Silence::of(length) }
    }

    /// As [`Silence::breaks`], for a line of this kind.
    pub fn breaks(&mut self, kind: String, now: Instant) -> Option<usize> {
        if let Some(silence) = self.kinds.get_mut(&kind) {
            return silence.breaks(now);
        }
        if self.kinds.len() >= MAX_KINDS {
            self.kinds.retain(|_, silence| !silence.is_over(now));
        }
        if self.kinds.len() >= MAX_KINDS {
            return self.others.breaks(now);
        }
        self.kinds.entry(kind).or_insert_with(|| Silence::of(self.length)).breaks(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_line_stands_for_those_of_the_second_before() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        assert_eq!(silence.breaks(start), Some(0));
        for _ in 0..10_000 {
            assert_eq!(silence.breaks(start), None);
        }
        assert_eq!(silence.breaks(start + SECOND), Some(10_000));
        assert_eq!(silence.breaks(start + 2 * SECOND), Some(0));
    }

    #[test]
    fn each_kind_of_line_is_silent_for_itself() {
        let (mut silences, start) = (Silences::of(10 * SECOND), Instant::now());
        assert_eq!(silences.breaks("a".into(), start), Some(0));
        assert_eq!(silences.breaks("b".into(), start + SECOND), Some(0));
        assert_eq!(silences.breaks("a".into(), start + 9 * SECOND), None);
        assert_eq!(silences.breaks("a".into(), start + 10 * SECOND), Some(1));
        assert_eq!(silences.breaks("b".into(), start + 10 * SECOND), None);
    }

    #[test]
    fn however_many_kinds_there_are_few_are_remembered_and_the_others_share_a_silence() {
        let (mut silences, start) = (Silences::of(SECOND), Instant::now());
        let written = (0..10_000).filter(|kind| silences.breaks(format!("{kind}"), start).is_some()).count();
        assert_eq!((written, silences.kinds.len()), (MAX_KINDS + 1, MAX_KINDS));
        assert_eq!(silences.breaks("new".into(), start + SECOND), Some(0), "old kinds have made room");
        assert_eq!(silences.kinds.len(), 1);
    }
}
