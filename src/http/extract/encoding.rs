//! `Content-Encoding`: gzip and deflate, unpacked within the same limit as a plain body.

use super::Underway;
use crate::{
    http::{ApiError, aside::Aside},
    produce::{self, Permit},
};
use bytes::Bytes;
use flate2::bufread::{GzDecoder, ZlibDecoder};
use http::{HeaderMap, header};
use std::{
    cell::Cell,
    io::{self, BufRead, Read},
    sync::Arc,
};

/// Bytes, packed or unpacked, from which on a body is unpacked aside.
const LARGE: usize = 64 << 10;
/// Bytes that are unpacked before the limits are looked at.
const STEP: usize = 16 << 10;
/// Members of one gzip body. Each takes time, also where it holds nothing.
const MAX_MEMBERS: usize = 1000;

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
    packed: &Bytes,
    limit: usize,
    underway: &Arc<Underway>,
    aside: &Aside,
) -> Result<(Bytes, Permit), ApiError> {
    if packed.len() < LARGE {
        // a small one that turns out to be large begins anew
        match unpack(encoding, packed, limit.min(LARGE), underway) {
            Err(ApiError::BodyTooLarge { limit: tried }) if tried < limit => {}
            unpacked => return unpacked,
        }
    }
    let (packed, underway) = (packed.clone(), Arc::clone(underway));
    aside.run(move || unpack(encoding, &packed, limit, &underway)).await?
}

fn unpack(
    encoding: Encoding,
    packed: &[u8],
    limit: usize,
    underway: &Underway,
) -> Result<(Bytes, Permit), ApiError> {
    let packed = Packed { rest: Cell::new(packed), taken: Cell::new(0), may_take: Cell::new(2 * STEP) };
    let mut unpacked = Unpacked { bytes: Vec::new(), permit: underway.permit(), limit, underway };
    match encoding {
        Encoding::Gzip => {
            let mut members = 0;
            while members == 0 || !packed.rest.get().is_empty() {
                members += 1;
                if members > MAX_MEMBERS {
                    return Err(unreadable(format!("it has more than {MAX_MEMBERS} members")));
                }
                unpacked.read(GzDecoder::new(&packed), &packed)?;
            }
        }
        Encoding::Deflate => {
            unpacked.read(ZlibDecoder::new(&packed), &packed)?;
            let rest = packed.rest.get().len();
            if rest > 0 {
                return Err(unreadable(format!("{rest} bytes follow the end of the zlib stream")));
            }
        }
    }
    Ok((unpacked.bytes.into(), unpacked.permit))
}

struct Unpacked<'a> {
    bytes: Vec<u8>,
    permit: Permit,
    limit: usize,
    underway: &'a Underway,
}

impl Unpacked<'_> {
    /// All that the decoder gives of `packed`.
    fn read(&mut self, mut decoder: impl Read, packed: &Packed<'_>) -> Result<(), ApiError> {
        loop {
            packed.may_take.set(2 * (self.bytes.len() + STEP));
            self.make_room();
            let step = decoder.by_ref().take(STEP as u64).read_to_end(&mut self.bytes);
            let step = step.map_err(|error| unreadable(format!("it cannot be unpacked ({error})")))?;
            if step == 0 {
                return Ok(());
            }
            if self.bytes.len() > self.limit {
                return Err(ApiError::BodyTooLarge { limit: self.limit });
            }
            if !self.underway.grow(&mut self.permit, step) {
                let budget = self.underway.budget();
                let (used, limit) = (budget.used(), budget.limit());
                return Err(produce::Error::Overloaded { used, limit }.into());
            }
        }
    }

    /// For one step more, and for no more than can be asked for: by itself the buffer would come to be twice the limit.
    fn make_room(&mut self) {
        let length = self.bytes.len();
        if self.bytes.capacity() - length <= STEP {
            self.bytes.reserve_exact(length.min(self.limit - length) + STEP + 1);
        }
    }
}

/// What is still to be unpacked. It is given only while something comes of it: deflate has blocks, and gzip members,
/// that take time and hold nothing.
struct Packed<'a> {
    rest: Cell<&'a [u8]>,
    taken: Cell<usize>,
    may_take: Cell<usize>,
}

impl BufRead for &Packed<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let rest = self.rest.get();
        let may_take = self.may_take.get().saturating_sub(self.taken.get());
        if may_take == 0 && !rest.is_empty() {
            return Err(io::Error::other("it is twice as large as what it holds; send that plain"));
        }
        Ok(&rest[..may_take.min(rest.len())])
    }

    fn consume(&mut self, amount: usize) {
        self.rest.set(self.rest.get().get(amount..).unwrap_or_default());
        self.taken.set(self.taken.get() + amount);
    }
}

impl Read for &Packed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
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
    use crate::produce::Budget;
    use bytes::BytesMut;
    use flate2::{
        Compression,
        write::{GzEncoder, ZlibEncoder},
    };
    use http::HeaderValue;
    use proptest::prelude::*;
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

    fn underway(budget: &Arc<Budget>) -> Arc<Underway> {
        Arc::new(Underway::new(Arc::clone(budget), 1 << 20))
    }

    async fn decoded(encoding: Encoding, packed: &[u8]) -> Result<(Bytes, Permit), &'static str> {
        let (packed, underway) = (Bytes::copy_from_slice(packed), underway(&Budget::new(2 << 20)));
        decode(encoding, &packed, 1 << 20, &underway, &Aside::default()).await.map_err(|error| error.tag())
    }

    #[tokio::test]
    async fn gzip_and_deflate_are_unpacked_and_reserved() {
        let plain = vec![b'x'; 200_000];
        let (bytes, permit) = decoded(Encoding::Gzip, &gzip(&plain)).await.unwrap();
        assert_eq!((bytes.len(), permit.bytes()), (plain.len(), plain.len()));
        assert_eq!(decoded(Encoding::Deflate, &zlib(&plain)).await.unwrap().0, plain);
    }

    #[tokio::test]
    async fn slow_bodies_give_way_to_what_is_unpacked_as_to_what_comes_plain() {
        let budget = Budget::new(1 << 20);
        let underway = underway(&budget);
        let mut slow = budget.permit();
        assert!(slow.grow(500_000));
        let slow = underway.enter(slow, 500_001).await.unwrap();
        let mut rest = budget.permit();
        assert!(rest.grow((1 << 20) / 8 * 7 - 500_000));
        let packed = Bytes::from(gzip(&vec![b'x'; 200_000]));
        let unpacked = async || {
            let unpacked = decode(Encoding::Gzip, &packed, 1 << 20, &underway, &Aside::default()).await;
            unpacked.map(|(bytes, _)| bytes.len()).map_err(|error| error.tag())
        };
        assert_eq!(unpacked().await, Err("overloaded"), "it is not slow yet");
        tokio::time::sleep(super::super::PATIENCE).await;
        assert_eq!(unpacked().await, Ok(200_000));
        assert!(slow.leave().is_err());
    }

    #[test]
    fn the_buffer_never_exceeds_the_limit_by_more_than_a_step() {
        let (limit, budget) = (200_000, Budget::new(1 << 20));
        for length in [0, 1, STEP, limit - STEP, limit - 1, limit] {
            let (unpacked, _) =
                unpack(Encoding::Gzip, &gzip(&vec![b'x'; length]), limit, &underway(&budget)).unwrap();
            assert_eq!(unpacked.len(), length);
            let capacity = BytesMut::from(unpacked).capacity();
            assert!(capacity <= (limit + STEP + 1).min(2 * (length + STEP) + 1), "{length} in {capacity}");
        }
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

    #[tokio::test]
    async fn a_thousand_members_are_unpacked_and_more_are_invalid() {
        let members = |count: usize| gzip(b"").repeat(count);
        assert!(decoded(Encoding::Gzip, &members(MAX_MEMBERS)).await.unwrap().0.is_empty());
        assert_eq!(decoded(Encoding::Gzip, &members(MAX_MEMBERS + 1)).await.unwrap_err(), "invalid_body");
    }

    /// Deflate's empty blocks: with fixed codes, eight of them in ten bytes; and stored.
    const EMPTY_BLOCKS: [&[u8]; 2] = [&[2, 8, 32, 128, 0, 2, 8, 32, 128, 0], &[0, 0, 0, 0xff, 0xff]];

    #[tokio::test]
    async fn blocks_that_hold_nothing_are_not_unpacked_to_the_end() {
        for empty in EMPTY_BLOCKS {
            // the header of zlib, blocks without end, and no checksum: which fault is found shows how far it was read
            let packed = [&[0x78, 1][..], &empty.repeat(100_000)].concat();
            let error =
                unpack(Encoding::Deflate, &packed, 1 << 20, &underway(&Budget::new(1 << 20))).unwrap_err();
            assert!(error.to_string().contains("twice as large as what it holds"), "{error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Of sizes about the one from which on a body is unpacked aside, and what is packed badly or cut.
        #[test]
        fn aside_comes_the_same_as_on_the_spot(
            length in LARGE - 2..LARGE + 2,
            random in any::<bool>(),
            limit in LARGE - 2..LARGE + 2,
            cut in 0..3_usize,
            encoding in prop_oneof![Just(Encoding::Gzip), Just(Encoding::Deflate)],
        ) {
            let mut plain = vec![b' '; length];
            if random {
                fastrand::Rng::with_seed(1).fill(&mut plain);
            }
            let packed = if encoding == Encoding::Gzip { gzip(&plain) } else { zlib(&plain) };
            let packed = Bytes::from(packed);
            let packed = packed.slice(..packed.len() - cut);
            let text = |result: Result<(Bytes, Permit), ApiError>| match result {
                Ok((bytes, permit)) => Ok((bytes, permit.bytes())),
                Err(error) => Err(error.to_string()),
            };
            let budget = Budget::new(1 << 20);
            let underway = underway(&budget);
            let on_the_spot = text(unpack(encoding, &packed, limit, &underway));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let decoded = runtime.block_on(decode(encoding, &packed, limit, &underway, &Aside::default()));
            prop_assert_eq!(text(decoded), on_the_spot);
            prop_assert_eq!(budget.used(), 0);
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
