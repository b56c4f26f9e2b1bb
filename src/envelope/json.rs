//! Checks on JSON text that a parser which only finds slices does not make.

use super::{Error, Kind};
use memchr::memchr;

/// Levels of nesting that a value may have. Parsers of consumers give up at some depth (Jackson at 1,000,
/// Python at about as many), and a record that no consumer can read is of no use.
pub const MAX_DEPTH: usize = 512;

/// The body as JSON text: UTF-8, without a byte order mark, with no escape that stands for half a character.
pub fn text(body: &[u8]) -> Result<&str, Error> {
    let text = std::str::from_utf8(body).map_err(|error| {
        Error::new(Kind::InvalidJson, format!("the body is not UTF-8 from byte {} on", error.valid_up_to()))
    })?;
    if has_lone_surrogate(text.as_bytes()) {
        return Err(Error::new(
            Kind::InvalidJson,
            "the body has a \\u escape of a lone surrogate, which stands for no character",
        ));
    }
    // RFC 8259 lets a parser ignore the mark
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Whether the text is nested deeper than that many levels. `text` must be well-formed JSON.
pub fn is_deeper(text: &str, levels: usize) -> bool {
    let text = text.as_bytes();
    // each level has two brackets; and with fewer openings than levels, one fast scan is enough
    if text.len() <= 2 * levels || openings(text) <= levels {
        return false;
    }
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => at = end_of_string(text, at),
            b'[' | b'{' => {
                depth += 1;
                if depth > levels {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    false
}

/// How often `[` and `{` occur, in strings too.
fn openings(text: &[u8]) -> usize {
    // the two differ in one bit, and a sum that fits a byte is what compilers make vector instructions of
    let in_chunk =
        |chunk: &[u8]| chunk.iter().fold(0_u8, |sum, byte| sum + u8::from(byte | (b'[' ^ b'{') == b'{'));
    text.chunks(usize::from(u8::MAX)).map(|chunk| usize::from(in_chunk(chunk))).sum()
}

/// The fault of a body that is nested deeper than [`MAX_DEPTH`].
pub fn too_deep() -> Error {
    Error::new(Kind::InvalidBody, format!("the body is nested deeper than {MAX_DEPTH} levels"))
}

/// The index of the quotation mark that ends the string which begins at `at`.
fn end_of_string(text: &[u8], mut at: usize) -> usize {
    at += 1;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => break,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

fn has_lone_surrogate(text: &[u8]) -> bool {
    let mut at = 0;
    while let Some(next) = memchr(b'\\', &text[at..]) {
        at += next;
        at += match escaped_unit(&text[at..]) {
            Some(0xD800..=0xDBFF) => match escaped_unit(&text[at + 6..]) {
                Some(0xDC00..=0xDFFF) => 12,
                _ => return true,
            },
            Some(0xDC00..=0xDFFF) => return true,
            Some(_) => 6,
            None => 2,
        };
        if at >= text.len() {
            break;
        }
    }
    false
}

/// The UTF-16 code unit of a `\uXXXX` escape at the start of `text`.
fn escaped_unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0_u16, |unit, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        Some((unit << 4) | digit as u16)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_surrogates_are_refused_and_pairs_are_not() {
        for lone in [r#""\ud800""#, r#""\uDC00""#, r#""\ud800\u0041""#, r#""\ud83d\\ude00""#, r#""\ud800"#] {
            assert_eq!(text(lone.as_bytes()).unwrap_err().kind, Kind::InvalidJson, "{lone}");
        }
        for fine in [r#""\ud83d\ude00""#, r#""\\ud800""#, r#""\u00e9""#, r#""\\\\""#, "\"\\", "\"\\u12"] {
            assert!(text(fine.as_bytes()).is_ok(), "{fine}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_ignored() {
        assert_eq!(text("\u{feff}{}".as_bytes()), Ok("{}"));
    }

    #[test]
    fn invalid_utf_8_is_refused_with_its_place() {
        assert!(text(b"{\"a\":\"\xff\"}").unwrap_err().detail.contains("byte 6"));
    }

    #[test]
    fn openings_are_the_two_brackets_that_open() {
        let every_byte: Vec<u8> = (0..=255).collect();
        assert_eq!(openings(&every_byte), 2);
        assert_eq!(openings(&[b'{'; 1000]), 1000);
    }

    #[test]
    fn depth_counts_nesting_and_not_brackets() {
        let nested = |levels| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        let is_deeper = |text: &str| is_deeper(text, MAX_DEPTH);
        assert!(!is_deeper(&nested(MAX_DEPTH)));
        assert!(is_deeper(&nested(MAX_DEPTH + 1)));
        assert!(is_deeper(&nested(MAX_DEPTH + 1).replace('1', "")));
        assert!(is_deeper(&nested(200_000)));
        assert!(!is_deeper(&format!("[{}]", "[],".repeat(5000) + "1")));
        assert!(!is_deeper(&format!("[\"{}\"]", "[\\\"".repeat(5000))));
    }
}
