//! Typed values out of text. Each error is a clause that says what is allowed.

use crate::produce::{duration_text, parse_duration};
use std::{fmt::Display, ops::RangeInclusive, str::FromStr, time::Duration};

/// A whole number within the range.
pub(super) fn whole<N>(range: RangeInclusive<N>) -> impl FnOnce(&str) -> Result<N, String>
where
    N: FromStr + PartialOrd + Display,
{
    move |text| match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("it must be a whole number from {} to {}", range.start(), range.end())),
    }
}

/// Milliseconds, as a whole number without a suffix.
pub(super) fn milliseconds(range: RangeInclusive<u64>) -> impl FnOnce(&str) -> Result<Duration, String> {
    move |text| match text.parse() {
        Ok(number) if range.contains(&number) => Ok(Duration::from_millis(number)),
        _ => Err(format!(
            "it must be a whole number of milliseconds from {} to {}, without a suffix",
            range.start(),
            range.end()
        )),
    }
}

/// Milliseconds with an optional fraction; for spans in which a thousandth of a second is long.
pub(super) fn fractional_milliseconds(
    range: RangeInclusive<f64>,
) -> impl FnOnce(&str) -> Result<f64, String> {
    move |text| match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!(
            "it must be a number of milliseconds from {} to {}, 0.5 for example",
            range.start(),
            range.end()
        )),
    }
}

/// A whole number with a unit: `10s`, `24h`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl FnOnce(&str) -> Result<Duration, String> {
    move |text| match parse_duration(text) {
        Ok(duration) if range.contains(&duration) => Ok(duration),
        Ok(_) => Err(format!(
            "it must be from {} to {}",
            duration_text(*range.start()),
            duration_text(*range.end())
        )),
        Err(allowed) => Err(allowed.to_string()),
    }
}

/// Bytes: a whole number, plain or with a suffix of 1000s (`kB`, `MB`, `GB`) or 1024s (`KiB`, `MiB`, `GiB`).
pub(super) fn bytes<N>(range: RangeInclusive<N>) -> impl FnOnce(&str) -> Result<N, String>
where
    N: TryFrom<u64> + PartialOrd + Display,
{
    move |text| match parse_bytes(text).and_then(|size| N::try_from(size).ok()) {
        Some(size) if range.contains(&size) => Ok(size),
        _ => Err(format!(
            "it must be a number of bytes from {} to {}, plain or with one of kB, MB, GB, KiB, MiB, GiB",
            range.start(),
            range.end()
        )),
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let factor: u64 = match suffix.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("it must be true or false (also 1/0, yes/no, on/off)".into()),
    }
}

/// One of the named choices, in any letter case.
pub(super) fn one_of<T: Copy>(choices: &[(&str, T)]) -> impl FnOnce(&str) -> Result<T, String> {
    move |text| match choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        Some((_, choice)) => Ok(*choice),
        None => {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            Err(format!("it must be one of {}", names.join(", ")))
        }
    }
}

/// The members of a comma-separated list, trimmed; empty ones do not count.
pub(super) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_plain_or_have_a_suffix() {
        for (text, size) in [
            ("8388608", 8 << 20),
            ("8MiB", 8 << 20),
            ("8 MiB", 8 << 20),
            ("8mib", 8 << 20),
            ("1MB", 1_000_000),
            ("2kB", 2_000),
            ("1GiB", 1 << 30),
            ("5B", 5),
        ] {
            assert_eq!(bytes(0..=usize::MAX)(text), Ok(size), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5MiB", "8M", "1 000", "99999999999999999999", "99999999999GiB"] {
            assert!(bytes(0..=usize::MAX)(text).is_err(), "{text:?}");
        }
        assert!(bytes(1..=10_u64)("0").is_err());
        assert!(bytes(0..=u16::MAX)("64KiB").is_err());
    }

    #[test]
    fn milliseconds_take_no_suffix_and_keep_their_range() {
        assert_eq!(milliseconds(0..=100)("100"), Ok(Duration::from_millis(100)));
        for text in ["101", "-1", "1s", "1.5", ""] {
            assert!(milliseconds(0..=100)(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn durations_have_a_unit_and_keep_their_range() {
        let range = || Duration::from_secs(1)..=Duration::from_secs(86_400);
        assert_eq!(duration(range())("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(duration(range())("25h"), Err("it must be from 1s to 1d".into()));
        assert!(duration(range())("10").is_err_and(|allowed| allowed.contains("ms, s, m, h or d")));
    }

    #[test]
    fn fractions_of_a_millisecond_must_be_numbers_within_the_range() {
        assert_eq!(fractional_milliseconds(0.0..=10.0)("0.5"), Ok(0.5));
        for text in ["NaN", "inf", "-0.1", "11", "x"] {
            assert!(fractional_milliseconds(0.0..=10.0)(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn booleans_have_four_spellings_each_in_any_case() {
        for text in ["true", "TRUE", "1", "yes", "On"] {
            assert_eq!(boolean(text), Ok(true), "{text}");
        }
        for text in ["false", "False", "0", "no", "OFF"] {
            assert_eq!(boolean(text), Ok(false), "{text}");
        }
        assert!(boolean("maybe").is_err());
    }

    #[test]
    fn an_unknown_choice_is_told_the_known_ones() {
        let choices = [("java", 1), ("tenant", 2)];
        assert_eq!(one_of(&choices)("Tenant"), Ok(2));
        assert_eq!(one_of(&choices)("murmur2"), Err("it must be one of java, tenant".into()));
    }
}
