//! The text of a moment.

/// Bytes of `2026-11-21T02:34:41.123Z`.
pub const RFC3339_LENGTH: usize = 24;

/// Milliseconds since the Unix epoch as RFC 3339 in UTC with milliseconds, written to `buffer`. None outside
/// the years 0 to 9999, for which RFC 3339 has no form. By hand, as one is written for every record.
pub fn write_rfc3339(millis: i64, buffer: &mut [u8; RFC3339_LENGTH]) -> Option<&str> {
    let time = jiff::Timestamp::from_millisecond(millis).ok()?;
    let time = jiff::tz::Offset::UTC.to_datetime(time);
    *buffer = *b"0000-00-00T00:00:00.000Z";
    for (place, number) in [
        (0..4, time.year()),
        (5..7, i16::from(time.month())),
        (8..10, i16::from(time.day())),
        (11..13, i16::from(time.hour())),
        (14..16, i16::from(time.minute())),
        (17..19, i16::from(time.second())),
        (20..23, time.millisecond()),
    ] {
        let mut rest = u16::try_from(number).ok()?;
        for digit in buffer[place].iter_mut().rev() {
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
    }
    str::from_utf8(buffer).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(millis: i64) -> Option<String> {
        write_rfc3339(millis, &mut [0; RFC3339_LENGTH]).map(str::to_owned)
    }

    #[test]
    fn it_is_rfc_3339_with_milliseconds() {
        assert_eq!(written(1_795_228_481_123).unwrap(), "2026-11-21T02:34:41.123Z");
        assert_eq!(written(0).unwrap(), "1970-01-01T00:00:00.000Z");
        assert_eq!(written(-1).unwrap(), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn a_year_that_has_no_four_digits_has_no_text() {
        assert_eq!(written(jiff::Timestamp::MIN.as_millisecond()), None);
        assert_eq!(written(i64::MAX), None);
    }

    proptest! {
        #[test]
        fn it_is_what_jiff_writes(millis in -62_167_219_200_000..=jiff::Timestamp::MAX.as_millisecond()) {
            let expected = format!("{:.3}", jiff::Timestamp::from_millisecond(millis).unwrap());
            prop_assert_eq!(written(millis), Some(expected));
        }
    }
}
