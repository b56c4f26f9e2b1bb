//! `Prefer`: what a client would like and does not insist on (RFC 7240).

use crate::{http::ApiError, produce::Accepted};
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

const MALFORMED: ApiError = ApiError::InvalidPrefer("is malformed");
const VALUE: ApiError = ApiError::InvalidPrefer("gives respond-async a value, and it takes none");
const WAIT: ApiError = ApiError::InvalidPrefer("has a wait that is not a whole number of seconds");

/// The preferences that this service knows; nothing is preferred by default.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Prefer {
    /// An answer now and the outcome later (RFC 7240, section 4.1).
    pub respond_async: bool,
    /// How long the client would wait for the outcome (RFC 7240, section 4.3).
    pub wait: Option<Duration>,
}

impl Prefer {
    /// The preferences of a request, out of all its `Prefer` headers. Of one that is stated twice the first counts;
    /// unknown ones and all parameters are ignored once they are well-formed (RFC 7240, section 2).
    pub fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut wait = None;
        let mut respond_async = false;
        for value in headers.get_all(PREFER) {
            let mut rest = Rest(value.as_bytes());
            while let Some(Preference { name, value }) = rest.preference()? {
                if name.eq_ignore_ascii_case(b"respond-async") && !respond_async {
                    if !value.is_empty() {
                        return Err(VALUE);
                    }
                    respond_async = true;
                } else if name.eq_ignore_ascii_case(b"wait") && wait.is_none() {
                    wait = Some(seconds(value).ok_or(WAIT)?);
                }
            }
        }
        Ok(Self { respond_async, wait })
    }

    /// How long the client wants to wait for Kafka before its records are stored; None: as long as the service does.
    pub fn patience(self) -> Option<Duration> {
        self.wait.or(self.respond_async.then_some(Duration::ZERO))
    }

    /// Says that the answer came early as the client preferred it (RFC 7240, section 3), where a record was stored.
    pub fn say_applied<'a>(
        self,
        mut response: Response,
        accepted: impl IntoIterator<Item = &'a Accepted>,
    ) -> Response {
        if self.respond_async && accepted.into_iter().any(Accepted::is_stored) {
            response.headers_mut().insert(PREFERENCE_APPLIED, HeaderValue::from_static("respond-async"));
        }
        response
    }
}

/// Longer than a `u32` of seconds is for ever, and so is what does not fit (RFC 9111, section 1.2.2).
fn seconds(digits: &[u8]) -> Option<Duration> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits
        .iter()
        .fold(0_u32, |value, digit| value.saturating_mul(10).saturating_add(u32::from(digit - b'0')));
    Some(Duration::from_secs(value.into()))
}

/// One preference or parameter: its name, and its value as it stands between the quotes. No value at all is the same as
/// an empty one (RFC 7240, section 2).
struct Preference<'a> {
    name: &'a [u8],
    value: &'a [u8],
}

/// What is left of a header's value.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// The next member of the list without its parameters; None at the end.
    fn preference(&mut self) -> Result<Option<Preference<'a>>, ApiError> {
        // empty members of a list do not count (RFC 9110, section 5.6.1)
        while self.take(b',') {}
        if self.0.is_empty() {
            return Ok(None);
        }
        let preference = self.name_and_value()?;
        while self.take(b';') {
            if !matches!(self.0.first(), None | Some(b',' | b';')) {
                self.name_and_value()?;
            }
        }
        if self.0.is_empty() || self.take(b',') { Ok(Some(preference)) } else { Err(MALFORMED) }
    }

    /// `token [ "=" ( token / quoted-string ) ]`
    fn name_and_value(&mut self) -> Result<Preference<'a>, ApiError> {
        let name = self.token().ok_or(MALFORMED)?;
        if !self.take(b'=') {
            return Ok(Preference { name, value: b"" });
        }
        let value = if self.0.first() == Some(&b'"') { self.quoted() } else { self.token() };
        Ok(Preference { name, value: value.ok_or(MALFORMED)? })
    }

    fn token(&mut self) -> Option<&'a [u8]> {
        let length = self.0.iter().take_while(|byte| is_token(**byte)).count();
        let (token, rest) = self.0.split_at(length);
        self.0 = rest;
        self.skip_blanks();
        (!token.is_empty()).then_some(token)
    }

    /// A quoted string without its quotes; escapes are left as they are.
    fn quoted(&mut self) -> Option<&'a [u8]> {
        let text = self.0.strip_prefix(b"\"")?;
        let mut escaped = false;
        let end = text.iter().position(|&byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        self.0 = &text[end + 1..];
        self.skip_blanks();
        Some(&text[..end])
    }

    /// Takes the byte and the blanks around it, where it comes next.
    fn take(&mut self, byte: u8) -> bool {
        self.skip_blanks();
        let Some(rest) = self.0.strip_prefix(&[byte]) else { return false };
        self.0 = rest;
        self.skip_blanks();
        true
    }

    fn skip_blanks(&mut self) {
        let blanks = self.0.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        self.0 = &self.0[blanks..];
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn of(values: &[&str]) -> Result<Prefer, ApiError> {
        let header = |value: &&str| (PREFER, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        Prefer::of(&values.iter().map(header).collect())
    }

    fn prefer(respond_async: bool, wait: Option<u64>) -> Prefer {
        Prefer { respond_async, wait: wait.map(Duration::from_secs) }
    }

    #[test]
    fn nothing_is_preferred_by_default() {
        assert_eq!(of(&[]).unwrap(), Prefer::default());
        for value in ["", " , ,"] {
            assert_eq!(of(&[value]).unwrap(), Prefer::default(), "{value:?}");
        }
    }

    #[test]
    fn both_preferences_are_read_in_any_case_and_with_blanks() {
        for value in [
            "respond-async, wait=10",
            "wait=10,respond-async",
            "Respond-Async , Wait = \"10\"",
            ",respond-async=\"\",, wait=010,",
            "respond-async; a; b=c ; d=\"e, f; wait=3\";, wait=10 ;",
        ] {
            assert_eq!(of(&[value]).unwrap(), prefer(true, Some(10)), "{value}");
        }
        assert_eq!(of(&["respond-async"]).unwrap(), prefer(true, None));
        assert_eq!(of(&["wait=0"]).unwrap(), prefer(false, Some(0)));
    }

    #[test]
    fn several_headers_are_one_list() {
        assert_eq!(of(&["respond-async", "wait=5"]).unwrap(), prefer(true, Some(5)));
    }

    #[test]
    fn the_first_of_a_preference_that_is_repeated_counts() {
        assert_eq!(of(&["wait=1, wait=2", "WAIT=soon"]).unwrap(), prefer(false, Some(1)));
        assert_eq!(of(&["respond-async, respond-async=no"]).unwrap(), prefer(true, None));
    }

    #[test]
    fn who_prefers_an_answer_now_has_no_patience_but_what_wait_allows() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(prefer(false, None).patience(), None);
        assert_eq!(prefer(true, None).patience(), seconds(0));
        assert_eq!(prefer(true, Some(5)).patience(), seconds(5));
        assert_eq!(prefer(false, Some(0)).patience(), seconds(0));
    }

    #[test]
    fn other_preferences_are_ignored() {
        for value in [
            "return=minimal",
            "handling=lenient; strict",
            r#"priority="5, \"respond-async\", wait=1""#,
            "respond-asynchronously",
            "x=\"\u{e4}\"",
        ] {
            assert_eq!(of(&[value]).unwrap(), Prefer::default(), "{value}");
        }
    }

    #[test]
    fn a_wait_beyond_all_measure_is_for_ever() {
        let forever = Some(u64::from(u32::MAX));
        assert_eq!(of(&["wait=99999999999999999999999"]).unwrap(), prefer(false, forever));
    }

    #[test]
    fn what_is_malformed_is_refused_by_name() {
        for value in [
            "respond-async wait=10",
            "=10",
            "wait=10; =a",
            "wait=\"10",
            r#"a="b\""#,
            "a=",
            "a=b c",
            "(respond-async)",
            "respond-async, \u{e4}",
            "respond-async=yes",
            "wait",
            "wait=",
            "wait=\"\"",
            "wait=ten",
            "wait=-1",
            "wait=1.5",
            "wait=10s",
        ] {
            let error = of(&[value]).expect_err(value);
            assert_eq!((error.tag(), error.status().as_u16()), ("invalid_prefer", 400), "{value}");
            assert!(error.problem().detail.starts_with("the Prefer header "), "{error}");
        }
    }
}
