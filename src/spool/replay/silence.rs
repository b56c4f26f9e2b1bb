//! One line of log a second, with the number of those that it stands for.

use std::time::{Duration, Instant};

const SILENCE: Duration = Duration::from_secs(1);

/// For one kind of line.
#[derive(Default)]
pub struct Silence {
    last: Option<Instant>,
    kept: usize,
}

impl Silence {
    /// Whether a line may be written now, and then how many were left out since the last one.
    pub fn breaks(&mut self, now: Instant) -> Option<usize> {
        if self.last.is_some_and(|last| now < last + SILENCE) {
            self.kept += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stands_for_those_of_the_second_before() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        assert_eq!(silence.breaks(start), Some(0));
        for _ in 0..10_000 {
            assert_eq!(silence.breaks(start), None);
        }
        assert_eq!(silence.breaks(start + SILENCE), Some(10_000));
        assert_eq!(silence.breaks(start + 2 * SILENCE), Some(0));
    }
}
