//! Reading a body: refused early where it can be, reserved in the budget as it arrives, and in time.

use super::{
    drain::{closing, refuse},
    encoding::{self, Encoding},
    media_type::{self, MediaType},
    origin,
    prefer::Prefer,
    underway,
};
use crate::{
    envelope::BatchFormat,
    http::{ApiError, AppState},
    produce::{self, Permit},
};
use axum::{
    body::{Body, HttpBody},
    extract::{FromRequest, Request},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::HeaderMap;
use http_body_util::BodyExt;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// A body may be slow for this long, then it must have come at [`MIN_BYTES_PER_SECOND`] on average.
const GRACE: Duration = Duration::from_secs(5);
const MIN_BYTES_PER_SECOND: u64 = 1024;
/// A declared length is believed up to here before so much has come. What is given up then is as large as what the
/// allocator gives back at once (`src/allocator.rs`).
const MAX_FIRST_BUFFER: usize = 5 << 18;

/// A part of a body, an error, or its end.
type Frame = Option<Result<hyper::body::Frame<Bytes>, axum::Error>>;

/// A whole body, and its share of the budget: drop them together.
#[derive(Debug)]
pub struct ReadBody {
    pub bytes: Bytes,
    /// What the client would like of the answer.
    pub prefer: Prefer,
    /// Held for its drop.
    pub _permit: Permit,
}

/// The body of a request that carries one record: JSON.
#[derive(Debug)]
pub struct RecordBody(pub ReadBody);

/// The body of a request that carries a batch: JSON or NDJSON.
#[derive(Debug)]
pub struct BatchBody {
    pub format: BatchFormat,
    pub body: ReadBody,
}

impl FromRequest<AppState> for RecordBody {
    type Rejection = Response;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Response> {
        let (_, body) = read(request, state, media_type::json_only).await?;
        Ok(Self(body))
    }
}

impl FromRequest<AppState> for BatchBody {
    type Rejection = Response;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Response> {
        let (media_type, body) = read(request, state, |_| Ok(())).await?;
        let format = match media_type {
            MediaType::Json => BatchFormat::Array,
            MediaType::Ndjson => BatchFormat::Ndjson,
        };
        Ok(Self { format, body })
    }
}

/// Checks the head, reads the body, unpacks it.
async fn read(
    request: Request,
    state: &AppState,
    accept: fn(MediaType) -> Result<(), ApiError>,
) -> Result<(MediaType, ReadBody), Response> {
    let (parts, mut body) = request.into_parts();
    let checked = check(&parts.headers, &body, state).and_then(|checked| {
        accept(checked.media_type)?;
        Ok(checked)
    });
    let Checked { media_type, encoding, prefer } = match checked {
        Ok(checked) => checked,
        Err(error) => return Err(refuse(error, &parts.headers, body).await),
    };
    let (bytes, permit) = match collect(&mut body, state).await {
        Ok(collected) => collected,
        Err(Interrupted::Refused(error)) => return Err(refuse(error, &parts.headers, body).await),
        Err(Interrupted::Broken(error)) => return Err(closing(error.into_response())),
    };
    let Some(encoding) = encoding else {
        return Ok((media_type, ReadBody { bytes, prefer, _permit: permit }));
    };
    let limit = state.body_limit();
    let decoded = encoding::decode(encoding, &bytes, limit, state.underway(), state.aside()).await;
    let (bytes, permit) = decoded.map_err(IntoResponse::into_response)?;
    Ok((media_type, ReadBody { bytes, prefer, _permit: permit }))
}

/// What the head says of the body, and of the answer.
struct Checked {
    media_type: MediaType,
    encoding: Option<Encoding>,
    prefer: Prefer,
}

/// What the head of the request decides, before a byte of the body is read.
fn check(headers: &HeaderMap, body: &Body, state: &AppState) -> Result<Checked, ApiError> {
    origin::check(headers, state.http.host)?;
    let media_type = media_type::of(headers)?;
    let encoding = encoding::of(headers)?;
    let prefer = if state.pipeline.spool().is_some() { Prefer::of(headers)? } else { Prefer::default() };
    let declared = declared_length(body);
    let limit = state.body_limit();
    if declared > limit {
        return Err(ApiError::BodyTooLarge { limit });
    }
    if !state.underway().has_room_for(declared) {
        return Err(overloaded(state));
    }
    Ok(Checked { media_type, encoding, prefer })
}

/// The `Content-Length`; 0 where the body comes in chunks.
fn declared_length(body: &Body) -> usize {
    usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX)
}

/// Why a body was not read to its end.
enum Interrupted {
    /// The client may still be sending.
    Refused(ApiError),
    /// Nothing more can be expected of this connection.
    Broken(ApiError),
}

/// Collects the body in one piece, and its share of the budget; a body that comes in one piece is not copied.
async fn collect(body: &mut Body, state: &AppState) -> Result<(Bytes, Permit), Interrupted> {
    let limit = state.body_limit();
    let declared = declared_length(body);
    let mut room = Room::Own(state.budget().permit());
    let mut started = None;
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    let mut received = 0;
    while !body.is_end_stream() {
        // most bodies have come with their head: for those no clock is read and no timer set
        let frame = match body.frame().now_or_never() {
            Some(frame) => frame,
            None => {
                let started = *started.get_or_insert_with(Instant::now);
                let due = started + time_allowed(received, state.http.body_timeout);
                room = room.underway(declared, state).await?;
                room.next(body, due, state).await?
            }
        };
        let data = match frame {
            Some(Ok(frame)) => frame.into_data(),
            Some(Err(error)) => {
                return Err(Interrupted::Broken(ApiError::UnreadableBody(error.to_string())));
            }
            None => break,
        };
        let Ok(data) = data else { continue };
        received += data.len();
        if received > limit {
            return Err(Interrupted::Refused(ApiError::BodyTooLarge { limit }));
        }
        room.grow(data.len(), state).await?;
        if first.is_empty() {
            first = data;
            continue;
        }
        joined.reserve(buffer_of(declared, received).saturating_sub(joined.len()));
        if joined.is_empty() {
            joined.extend_from_slice(&first);
        }
        joined.extend_from_slice(&data);
    }
    let permit = match room {
        Room::Own(permit) => permit,
        Room::Underway(place) => place.leave().map_err(|refused| interrupted(refused, state))?,
    };
    Ok((if joined.is_empty() { first } else { joined.freeze() }, permit))
}

/// Bytes of the buffer for a body of which `received` have come. It is made anew once at most where the length was declared:
/// buffers that double leave behind as much memory as the body takes.
fn buffer_of(declared: usize, received: usize) -> usize {
    let believed = if received <= MAX_FIRST_BUFFER { declared.min(MAX_FIRST_BUFFER) } else { declared };
    believed.max(received)
}

/// Where the bytes of a body are reserved.
enum Room<'a> {
    /// Nothing had to be awaited yet.
    Own(Permit),
    /// Among the bodies that are still coming.
    Underway(underway::Body<'a>),
}

impl<'a> Room<'a> {
    /// For a body that has to be awaited.
    async fn underway(self, declared: usize, state: &'a AppState) -> Result<Self, Interrupted> {
        let Self::Own(permit) = self else { return Ok(self) };
        let entered = state.underway().enter(permit, declared).await;
        entered.map(Self::Underway).map_err(|refused| interrupted(refused, state))
    }

    /// The next frame, before `due` and unless others need the room.
    async fn next(&mut self, body: &mut Body, due: Instant, state: &AppState) -> Result<Frame, Interrupted> {
        let limit_s = state.http.body_timeout.as_secs();
        let Self::Underway(place) = self else { return Ok(body.frame().await) };
        let frame = timeout_at(due, body.frame());
        tokio::select! {
            biased;
            () = place.gave_way() => Err(Interrupted::Broken(ApiError::GaveWay)),
            frame = frame => frame.map_err(|_| Interrupted::Broken(ApiError::RequestTimeout { limit_s })),
        }
    }

    /// Reserves `more` bytes: for what is complete there is room, or there is none.
    async fn grow(&mut self, more: usize, state: &AppState) -> Result<(), Interrupted> {
        let grown = match self {
            Self::Own(permit) => {
                state.underway().grow(permit, more).then_some(()).ok_or(underway::Refused::Full)
            }
            Self::Underway(place) => place.grow(more).await,
        };
        grown.map_err(|refused| interrupted(refused, state))
    }
}

fn interrupted(refused: underway::Refused, state: &AppState) -> Interrupted {
    match refused {
        underway::Refused::Full => Interrupted::Refused(overloaded(state)),
        underway::Refused::GaveWay => Interrupted::Broken(ApiError::GaveWay),
    }
}

/// How long after its start the body may still be incomplete, given what has arrived.
fn time_allowed(received: usize, body_timeout: Duration) -> Duration {
    let received = u64::try_from(received).unwrap_or(u64::MAX);
    let earned = Duration::from_millis(received.saturating_mul(1000) / MIN_BYTES_PER_SECOND);
    GRACE.saturating_add(earned).min(body_timeout)
}

fn overloaded(state: &AppState) -> ApiError {
    produce::Error::Overloaded { used: state.budget().used(), limit: state.budget().limit() }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::App;
    use futures_util::{StreamExt, stream};

    fn chunked(chunks: &'static [&'static str]) -> Body {
        Body::from_stream(stream::iter(chunks).map(|chunk| Ok::<_, std::convert::Infallible>(*chunk)))
    }

    #[test]
    fn after_the_grace_a_body_must_come_at_a_kibibyte_a_second() {
        let timeout = Duration::from_secs(30);
        assert_eq!(time_allowed(0, timeout), Duration::from_secs(5));
        assert_eq!(time_allowed(2048, timeout), Duration::from_secs(7));
        assert_eq!(time_allowed(1 << 30, timeout), timeout);
        assert_eq!(time_allowed(0, Duration::from_secs(1)), Duration::from_secs(1));
    }

    #[test]
    fn a_large_length_is_believed_once_a_mebibyte_has_come() {
        let large = 8 * MAX_FIRST_BUFFER;
        assert_eq!(buffer_of(100, 10), 100);
        assert_eq!(buffer_of(large, 10), MAX_FIRST_BUFFER);
        assert_eq!(buffer_of(large, MAX_FIRST_BUFFER + 1), large);
        assert_eq!(buffer_of(0, large), large, "none was declared");
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_joined_and_reserved() {
        let app = App::new();
        let request = Request::new(chunked(&["{\"a\"", ":1", "}"]));
        let RecordBody(body) = RecordBody::from_request(request, &app.state).await.unwrap();
        assert_eq!(body.bytes, "{\"a\":1}");
        assert_eq!((body._permit.bytes(), app.state.budget().used()), (7, 7));
        drop(body);
        assert_eq!(app.state.budget().used(), 0);
    }

    #[tokio::test]
    async fn what_the_client_prefers_comes_with_the_body() {
        let app = App::durable();
        let mut request = Request::new(Body::from("{}"));
        request.headers_mut().insert("prefer", http::HeaderValue::from_static("respond-async, wait=10"));
        let RecordBody(body) = RecordBody::from_request(request, &app.state).await.unwrap();
        assert_eq!(body.prefer, Prefer { respond_async: true, wait: Some(Duration::from_secs(10)) });
    }

    #[tokio::test]
    async fn a_body_in_one_piece_is_not_copied() {
        let app = App::new();
        let sent = Bytes::from("{}".to_owned());
        let request = Request::new(Body::from(sent.clone()));
        let RecordBody(body) = RecordBody::from_request(request, &app.state).await.unwrap();
        assert_eq!(body.bytes.as_ptr(), sent.as_ptr());
    }
}
