//! `Content-Encoding`: gzip and deflate, unpacked within the same limit as a plain body.

use crate::{
    http::ApiError,
    produce::{self, Budget, Permit},
};
use bytes::Bytes;
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, header};
use std::{io::Read, sync::Arc};

/// Bytes that are unpacked before other requests get a turn on this thread.
const STEP: u64 = 64 << 10;

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Gzip,
    /// The zlib format (RFC 9110, section 8.4.1.2).
    Deflate,
}

/// None where the body is plain.
pub fn of(headers: &HeaderMap) -> Result<Option<Encoding>, ApiError> {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(None) };
    let coding = coding.to_str().unwrap_or("?").trim().to_ascii_lowercase();
    match &*coding {
        _ if codings.next().is_some() => Err(unsupported()),
        "" | "identity" => Ok(None),
        "gzip" | "x-gzip" => Ok(Some(Encoding::Gzip)),
        "deflate" => Ok(Some(Encoding::Deflate)),
        _ => Err(unsupported()),
    }
}

/// The unpacked body, reserved in the budget as it grows; `limit` is in bytes. What is not read whole is an error: the
/// rest may hold records.
pub async fn decode(
    encoding: Encoding,
    packed: &[u8],
    limit: usize,
    budget: &Arc<Budget>,
) -> Result<(Bytes, Permit), ApiError> {
    match encoding {
        // it takes what follows a member for the next one
        Encoding::Gzip => unpack(MultiGzDecoder::new(packed), limit, budget).await,
        Encoding::Deflate => {
            let mut decoder = ZlibDecoder::new(packed);
            let unpacked = unpack(&mut decoder, limit, budget).await?;
            match decoder.into_inner().len() {
                0 => Ok(unpacked),
                rest => Err(unreadable(format!("{rest} bytes follow the end of the zlib stream"))),
            }
        }
    }
}

async fn unpack(
    mut decoder: impl Read,
    limit: usize,
    budget: &Arc<Budget>,
) -> Result<(Bytes, Permit), ApiError> {
    let mut permit = budget.permit();
    let mut body = Vec::new();
    loop {
        let step = decoder.by_ref().take(STEP).read_to_end(&mut body);
        let step = step.map_err(|error| unreadable(format!("it cannot be unpacked ({error})")))?;
        if step == 0 {
            return Ok((body.into(), permit));
        }
        if body.len() > limit {
            return Err(ApiError::BodyTooLarge { limit });
        }
        if !permit.grow(step) {
            return Err(produce::Error::Overloaded { used: budget.used(), limit: budget.limit() }.into());
        }
        tokio::task::yield_now().await;
    }
}

fn unreadable(fault: String) -> ApiError {
    ApiError::UnreadableBody(format!(
        "{fault}; send one whole zlib stream as deflate, or whole members as gzip, and nothing after the end"
    ))
}

fn unsupported() -> ApiError {
    ApiError::UnsupportedMediaType("the Content-Encoding may be gzip, deflate or identity, once")
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{
        Compression,
        write::{GzEncoder, ZlibEncoder},
    };
    use http::HeaderValue;
    use std::io::Write;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(plain: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    async fn decoded(encoding: Encoding, packed: &[u8]) -> Result<(Bytes, Permit), &'static str> {
        decode(encoding, packed, 1 << 20, &Budget::new(1 << 20)).await.map_err(|error| error.tag())
    }

    #[tokio::test]
    async fn gzip_and_deflate_are_unpacked_and_reserved() {
        let plain = vec![b'x'; 200_000];
        let (bytes, permit) = decoded(Encoding::Gzip, &gzip(&plain)).await.unwrap();
        assert_eq!((bytes.len(), permit.bytes()), (plain.len(), plain.len()));
        assert_eq!(decoded(Encoding::Deflate, &zlib(&plain)).await.unwrap().0, plain);
    }

    #[tokio::test]
    async fn a_bomb_is_too_large() {
        let bomb = gzip(&vec![0; (1 << 20) + 1]);
        assert!(bomb.len() < 10_000);
        assert_eq!(decoded(Encoding::Gzip, &bomb).await.unwrap_err(), "body_too_large");
    }

    #[tokio::test]
    async fn gzip_members_that_follow_one_another_are_one_body() {
        let members = [gzip(b"{\"a\""), gzip(b""), gzip(b":1}")].concat();
        assert_eq!(decoded(Encoding::Gzip, &members).await.unwrap().0, &b"{\"a\":1}"[..]);
    }

    #[tokio::test]
    async fn a_truncated_or_foreign_body_is_invalid() {
        for (encoding, packed) in [(Encoding::Gzip, gzip(b"{}")), (Encoding::Deflate, zlib(b"{}"))] {
            for length in 1..packed.len() {
                let cut = decoded(encoding, &packed[..length]).await;
                assert_eq!(cut.unwrap_err(), "invalid_body", "{encoding:?}, {length} bytes");
            }
            assert_eq!(decoded(encoding, b"{}").await.unwrap_err(), "invalid_body", "{encoding:?}");
        }
    }

    #[tokio::test]
    async fn bytes_after_the_end_are_invalid() {
        for rest in [&b"\0"[..], &[0; 512], b"\n", b"{}", b"\x1f", &gzip(b"{}")[..9], &zlib(b"{}")] {
            let packed = [gzip(b"{}"), rest.to_vec()].concat();
            assert_eq!(decoded(Encoding::Gzip, &packed).await.unwrap_err(), "invalid_body", "{rest:?}");
            let packed = [zlib(b"{}"), rest.to_vec()].concat();
            assert_eq!(decoded(Encoding::Deflate, &packed).await.unwrap_err(), "invalid_body", "{rest:?}");
        }
    }

    #[test]
    fn other_codings_are_unsupported() {
        let of = |value: &'static str| {
            of(&HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(value))]))
        };
        assert_eq!(of("GZIP").unwrap(), Some(Encoding::Gzip));
        assert_eq!(of("identity").unwrap(), None);
        for coding in ["br", "zstd", "gzip, gzip", "gzip, identity"] {
            assert_eq!(of(coding).unwrap_err().tag(), "unsupported_media_type", "{coding}");
        }
    }
}
