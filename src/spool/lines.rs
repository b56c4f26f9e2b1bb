//! Who must wait for whom: records with the same topic and key stand in one line.
//!
//! While records of a line are in the spool, later ones must go through it as well. What is remembered of a line is
//! how many of its records are in the spool, in one of 1,048,576 counters (4 MiB); lines that share a counter wait for
//! each other, which costs time and never order: with 10,000 keys stuck, that is one line in a hundred. Records without
//! a key have no line.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        Arc,
        atomic::{
            AtomicU32, AtomicUsize,
            Ordering::{AcqRel, Acquire},
        },
    },
};

const LINES: usize = 1 << 20;

/// The counter of a topic and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Line(u32);

/// How many records of each line are in the spool.
pub struct Lines {
    hasher: RandomState,
    waiting: Box<[AtomicU32]>,
    /// Raised before a counter is and lowered after it, so that it is zero only while all are.
    all: AtomicUsize,
}

impl Default for Lines {
    fn default() -> Self {
        let waiting = (0..LINES).map(|_| AtomicU32::new(0)).collect();
        Self { hasher: RandomState::new(), waiting, all: AtomicUsize::new(0) }
    }
}

impl Lines {
    /// The line of a record; None where it has no key.
    pub fn of(&self, topic: &str, key: Option<&[u8]>) -> Option<Line> {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(topic.as_bytes());
        // no topic has this in its name, so that no two pairs are the same bytes
        hasher.write_u8(0);
        hasher.write(key?);
        Some(Line(hasher.finish() as u32 % LINES as u32))
    }

    /// Whether no line has anybody in it: then none has to be looked up.
    pub fn are_empty(&self) -> bool {
        self.all.load(Acquire) == 0
    }

    /// Takes a place in the line if others wait there.
    pub fn join_others(&self, line: Line) -> bool {
        self.all.fetch_add(1, AcqRel);
        let one_more = |waiting: u32| (waiting > 0).then_some(waiting + 1);
        let joins = self.counter(line).fetch_update(AcqRel, Acquire, one_more).is_ok();
        if !joins {
            self.all.fetch_sub(1, AcqRel);
        }
        joins
    }

    /// Takes a place in the line.
    pub fn join(&self, line: Line) {
        self.all.fetch_add(1, AcqRel);
        self.counter(line).fetch_add(1, AcqRel);
    }

    /// Gives a place back.
    pub fn leave(&self, line: Line) {
        let one_less = |waiting: u32| waiting.checked_sub(1);
        let left = self.counter(line).fetch_update(AcqRel, Acquire, one_less);
        debug_assert!(left.is_ok(), "a place is given back that nobody had");
        if left.is_ok() {
            self.all.fetch_sub(1, AcqRel);
        }
    }

    fn counter(&self, line: Line) -> &AtomicU32 {
        &self.waiting[line.0 as usize]
    }
}

/// Places in lines, which are given back when this is dropped, unless their records [stay](Places::stay) in the spool.
pub struct Places {
    lines: Arc<Lines>,
    taken: Vec<Line>,
}

impl Places {
    /// None yet.
    pub fn new(lines: Arc<Lines>) -> Self {
        Self { lines, taken: Vec::new() }
    }

    /// Answers for a place that was taken.
    pub fn add(&mut self, line: Line) {
        self.taken.push(line);
    }

    /// The records are stored, and whoever sends them gives the places back.
    pub fn stay(mut self) {
        self.taken.clear();
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        self.taken.iter().for_each(|&line| self.lines.leave(line));
    }
}

/// A set of lines.
pub struct LineSet(Box<[u64]>);

impl Default for LineSet {
    fn default() -> Self {
        Self(vec![0; LINES / 64].into())
    }
}

impl LineSet {
    pub fn insert(&mut self, line: Line) {
        self.0[line.0 as usize / 64] |= 1 << (line.0 % 64);
    }

    pub fn contains(&self, line: Line) -> bool {
        self.0[line.0 as usize / 64] & (1 << (line.0 % 64)) != 0
    }

    pub fn clear(&mut self) {
        self.0.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_topic_and_a_key() {
        let lines = Lines::default();
        assert_eq!(lines.of("t", Some(b"k")), lines.of("t", Some(b"k")));
        // one in a million may be alike
        let others = [lines.of("u", Some(b"k")), lines.of("t", Some(b"l")), lines.of("tk", Some(b""))];
        assert!(others.iter().filter(|&&other| other == lines.of("t", Some(b"k"))).count() < 2);
        assert_eq!(lines.of("t", None), None);
    }

    #[test]
    fn others_are_joined_only_while_they_wait() {
        let lines = Lines::default();
        let line = lines.of("t", Some(b"k")).unwrap();
        assert!(!lines.join_others(line));
        lines.join(line);
        assert!(lines.join_others(line));
        lines.leave(line);
        assert!(!lines.are_empty());
        lines.leave(line);
        assert!(!lines.join_others(line));
        assert!(lines.are_empty());
    }

    #[test]
    fn places_are_given_back_unless_their_records_stay() {
        let lines = Arc::new(Lines::default());
        let line = lines.of("t", Some(b"k")).unwrap();
        for stays in [false, true] {
            let mut places = Places::new(Arc::clone(&lines));
            lines.join(line);
            places.add(line);
            if stays {
                places.stay();
            } else {
                drop(places);
            }
            assert_eq!(lines.join_others(line), stays);
        }
    }

    #[test]
    fn a_set_has_what_was_put_into_it() {
        let mut set = LineSet::default();
        for line in [0, 63, 64, LINES as u32 - 1] {
            assert!(!set.contains(Line(line)));
            set.insert(Line(line));
            assert!(set.contains(Line(line)));
        }
        assert!(!set.contains(Line(1)));
        set.clear();
        assert!(!set.contains(Line(63)));
    }
}
