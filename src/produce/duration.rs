//! Spans of time as people write them: `10s`, `24h`.

use std::time::Duration;

/// The units and their milliseconds, largest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// A text that is no span of time. The message is a clause that says what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it must be a whole number with a unit, ms, s, m, h or d: 10s or 24h for example")]
pub struct InvalidDuration;

/// A whole number directly followed by its unit. A bare number is refused: nobody could tell seconds from
/// milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidDuration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, milliseconds) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or(InvalidDuration)?;
    let number: u64 = number.parse().map_err(|_| InvalidDuration)?;
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or(InvalidDuration)
}

/// The text in the largest unit that leaves a whole number; what is below a millisecond is cut off.
pub fn duration_text(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let whole = |(_, unit): &(&str, u64)| milliseconds >= *unit && milliseconds.is_multiple_of(*unit);
    let (name, unit) = UNITS.into_iter().find(whole).unwrap_or(("s", 1000));
    format!("{}{name}", milliseconds / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_is_read_and_written_back() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("1ms", 1),
            ("1500ms", 1500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("25h", 90_000_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
            assert_eq!(duration_text(Duration::from_millis(milliseconds)), text);
        }
        assert_eq!(duration_text(Duration::from_secs(24 * 3600)), "1d", "the largest unit is taken");
        assert_eq!(duration_text(Duration::from_secs(90)), "90s");
    }

    #[test]
    fn a_number_without_a_unit_is_refused() {
        assert_eq!(parse_duration("10"), Err(InvalidDuration));
    }

    #[test]
    fn all_else_is_no_span_of_time() {
        for text in [
            "",
            "s",
            "-1s",
            "+1s",
            "1.5s",
            "1 s",
            "10S",
            "1w",
            "1h30m",
            "99999999999999999999s",
            "99999999999999d",
        ] {
            assert_eq!(parse_duration(text), Err(InvalidDuration), "{text:?}");
        }
    }
}
