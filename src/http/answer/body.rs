//! The bytes of an answer on their way to the connection.

use crate::http::{connection::Phase, unread::Room};
use axum::BoxError;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tower_http::body::UnsyncBoxBody;

/// Bytes of one frame at most. hyper copies each into the buffer of its connection, and the buffer keeps its size.
const FRAME: usize = 32 << 10;

/// The body of an answer, in frames. What a large one has reserved it keeps to its last byte.
pub struct AnswerBody {
    body: UnsyncBoxBody<Bytes, BoxError>,
    /// Of a frame that was too large.
    rest: Bytes,
    _room: Option<Arc<Room>>,
    /// Of the connection.
    phase: Option<Arc<Phase>>,
}

impl AnswerBody {
    pub fn new(body: UnsyncBoxBody<Bytes, BoxError>, room: Option<Arc<Room>>) -> Self {
        Self { body, rest: Bytes::new(), _room: room, phase: None }
    }

    /// Tells the connection once its last byte is in the connection's buffer.
    pub fn tell(&mut self, phase: Arc<Phase>) {
        self.phase = Some(phase);
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        if let Some(phase) = &self.phase {
            phase.answered();
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut data = std::mem::take(&mut self.rest);
        if data.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(next) => data = next,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        self.rest = data.split_off(data.len().min(FRAME));
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(inner.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_large_answer_comes_in_frames_and_says_how_long_it_is() {
        let sent: Bytes = (0..3 * FRAME + 1).map(|at| at as u8).collect();
        let mut body =
            AnswerBody::new(UnsyncBoxBody::new(body::Body::from(sent.clone()).map_err(Into::into)), None);
        let mut received = Vec::new();
        while !body.is_end_stream() {
            assert_eq!(body.size_hint().exact(), Some((sent.len() - received.len()) as u64));
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(frame.len() <= FRAME);
            received.extend_from_slice(&frame);
        }
        assert_eq!(received, sent);
        assert!(body.frame().await.is_none());
    }
}
