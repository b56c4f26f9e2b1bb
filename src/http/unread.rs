//! The answers that wait for their readers. They have as many bytes as the requests have in flight; where room is short,
//! the connections of those are cut off that take little. What is in Kafka or stored stays there: only its answer is gone.

use super::{
    ApiError,
    extract::{PATIENCE, paid_until},
};
use crate::telemetry::{metrics::Metrics, silence::Silence};
use axum::response::Response;
use hyper::body::Body;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

/// Bytes from which on an answer has to find room before it is made. The buffer of a connection holds about as many.
pub const LARGE: usize = 64 << 10;
/// Where answers that are read have all the room, one more looks for room again after this time, and so often.
const ROOM_PAUSE: Duration = Duration::from_millis(50);
const ROOM_TRIES: usize = 40;

/// All answers that wait, and all that are to be made.
pub struct Answers {
    limit: usize,
    waiting: Mutex<Waiting>,
    silence: Mutex<Silence>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    /// Of large answers, and of what waits in the buffers of connections.
    bytes: usize,
    readers: HashMap<u64, Taking>,
}

/// A client that has not taken all of its answer.
struct Taking {
    /// In the buffer of its connection.
    bytes: usize,
    /// Until when the bytes that it took are enough; never in the future.
    paid_until: Instant,
    /// Of the connection.
    task: Waker,
}

impl Answers {
    /// Of `limit` bytes together.
    pub fn new(limit: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        let silence = Mutex::new(Silence::of(Duration::from_secs(10)));
        Arc::new(Self { limit, waiting: Mutex::default(), silence, metrics })
    }

    /// Room for an answer of about `bytes`, if need be since slow readers were cut off; waits for it for a moment. A small
    /// one needs none, and one above half of the limit has room as if it were half.
    pub async fn reserve(self: &Arc<Self>, bytes: usize) -> Result<Option<Room>, ApiError> {
        if bytes < LARGE {
            return Ok(None);
        }
        for _ in 0..ROOM_TRIES {
            loop {
                if let Some(room) = self.try_reserve(bytes) {
                    return Ok(Some(room));
                }
                if !self.cut_slowest(Instant::now()) {
                    break;
                }
                // its own task gives back what it had
                yield_now().await;
            }
            sleep(ROOM_PAUSE).await;
        }
        Err(ApiError::TooManyAnswers)
    }

    /// As [`Answers::reserve`], without waiting.
    pub fn try_reserve(self: &Arc<Self>, bytes: usize) -> Option<Room> {
        let bytes = bytes.min(self.limit / 2);
        let mut waiting = self.lock();
        let fits = waiting.bytes + bytes <= self.limit;
        fits.then(|| {
            waiting.bytes += bytes;
            Room { answers: Arc::clone(self), bytes }
        })
    }

    /// A client whose connection has more to write than it takes.
    pub fn reader(self: &Arc<Self>, task: &Waker) -> Reader {
        let mut waiting = self.lock();
        let id = waiting.next;
        waiting.next += 1;
        waiting.readers.insert(id, Taking { bytes: 0, paid_until: Instant::now(), task: task.clone() });
        Reader { answers: Arc::clone(self), id }
    }

    /// Where connections that end are counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Counts a client that took nothing for the longest time that it may.
    pub fn timed_out(&self) {
        self.metrics.connection_closed("write_timeout");
    }

    /// Cuts off the reader that is furthest behind; false where none is slow.
    fn cut_slowest(&self, now: Instant) -> bool {
        let cut = self.lock().remove_slowest(now);
        let Some(cut) = cut else { return false };
        cut.task.wake();
        self.metrics.connection_closed("unread");
        let mut silence = self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(more) = silence.breaks(now.into_std()) {
            tracing::warn!(
                limit_bytes = self.limit,
                more,
                "clients do not read their answers: their connections are cut off; raise MAX_IN_FLIGHT_BYTES, or have them read"
            );
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn remove_slowest(&mut self, now: Instant) -> Option<Taking> {
        let (&id, slowest) = self.readers.iter().min_by_key(|(_, reader)| reader.paid_until)?;
        let is_slow = now.saturating_duration_since(slowest.paid_until) >= PATIENCE;
        if is_slow { self.remove(id) } else { None }
    }

    fn remove(&mut self, id: u64) -> Option<Taking> {
        let reader = self.readers.remove(&id)?;
        self.bytes -= reader.bytes;
        Some(reader)
    }
}

/// The room of one large answer; given back with its drop.
pub struct Room {
    answers: Arc<Answers>,
    bytes: usize,
}

impl Room {
    /// Lets it go with the answer that it is for, and be of its size.
    pub fn goes_with(mut self, answer: &mut Response) {
        self.resize(usize::try_from(answer.body().size_hint().lower()).unwrap_or(usize::MAX));
        answer.extensions_mut().insert(Arc::new(self));
    }

    /// For an answer of about `bytes`; there is always room for the difference.
    pub fn resize(&mut self, bytes: usize) {
        let mut waiting = self.answers.lock();
        waiting.bytes = waiting.bytes - self.bytes + bytes;
        self.bytes = bytes;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.answers.lock().bytes -= self.bytes;
    }
}

/// One client that has not taken all of its answer; it leaves with this.
pub struct Reader {
    answers: Arc<Answers>,
    id: u64,
}

impl Reader {
    /// It took `taken` bytes more, and `waits` are in the buffer of its connection. False where it was cut off.
    pub fn is_served(&self, taken: usize, waits: usize, task: &Waker) -> bool {
        self.is_served_at(taken, waits, task, Instant::now())
    }

    fn is_served_at(&self, taken: usize, waits: usize, task: &Waker, now: Instant) -> bool {
        let is_full = {
            let mut waiting = self.answers.lock();
            let Waiting { bytes, readers, .. } = &mut *waiting;
            let Some(reader) = readers.get_mut(&self.id) else { return false };
            reader.paid_until = paid_until(reader.paid_until, taken, now);
            reader.task.clone_from(task);
            *bytes = *bytes - reader.bytes + waits;
            reader.bytes = waits;
            *bytes > self.answers.limit
        };
        // one for one: buffers are of about the same size
        if is_full {
            self.answers.cut_slowest(now);
        }
        true
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.answers.lock().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(limit: usize) -> Arc<Answers> {
        Answers::new(limit, Arc::new(Metrics::for_tests()))
    }

    fn bytes(answers: &Answers) -> usize {
        answers.lock().bytes
    }

    const TASK: &Waker = Waker::noop();

    #[test]
    fn answers_have_room_up_to_the_limit_and_give_it_back() {
        let answers = answers(100);
        let mut one = answers.try_reserve(40).unwrap();
        let two = answers.try_reserve(60).unwrap();
        assert_eq!(bytes(&answers), 90, "one above half of the limit counts as half");
        assert!(answers.try_reserve(11).is_none());
        one.resize(20);
        assert_eq!(bytes(&answers), 70);
        drop((one, two));
        assert_eq!(bytes(&answers), 0);
    }

    #[test]
    fn what_waits_in_the_buffer_of_a_connection_counts_until_it_is_taken() {
        let answers = answers(100);
        let reader = answers.reader(TASK);
        assert!(reader.is_served(0, 60, TASK));
        assert!(answers.try_reserve(41).is_none());
        assert!(reader.is_served(50, 10, TASK));
        assert!(answers.try_reserve(41).is_some());
        drop(reader);
        assert_eq!(bytes(&answers), 0);
    }

    #[test]
    fn the_reader_that_is_furthest_behind_is_cut_off_and_its_room_is_free_at_once() {
        let answers = answers(100);
        let (start, later) = (Instant::now(), Instant::now() + PATIENCE / 2);
        let (stalled, slow, good) = (answers.reader(TASK), answers.reader(TASK), answers.reader(TASK));
        for reader in [&stalled, &slow, &good] {
            assert!(reader.is_served_at(0, 30, TASK, start));
        }
        assert!(slow.is_served_at(16 << 10, 30, TASK, later));
        assert!(good.is_served_at(1 << 20, 30, TASK, later));
        assert!(!answers.cut_slowest(later), "none is behind by so much yet");
        assert!(answers.cut_slowest(start + PATIENCE));
        assert_eq!(bytes(&answers), 60);
        assert!(!stalled.is_served(1 << 20, 30, TASK) && slow.is_served_at(0, 30, TASK, later));
        assert!(!answers.cut_slowest(start + PATIENCE), "the others took enough");
    }

    #[test]
    fn where_buffers_are_too_many_the_slowest_is_cut_off_for_each_new_one() {
        let answers = answers(100);
        let start = Instant::now();
        let (old, new) = (answers.reader(TASK), answers.reader(TASK));
        assert!(old.is_served_at(0, 60, TASK, start));
        assert!(new.is_served_at(1 << 20, 60, TASK, start + PATIENCE));
        assert!(!old.is_served(0, 60, TASK) && new.is_served_at(0, 60, TASK, start + PATIENCE));
        let text = String::from_utf8(answers.metrics.render(Default::default()).unwrap()).unwrap();
        assert!(text.contains(r#"http_connections_closed_total{reason="unread"} 1"#), "{text}");
    }

    #[tokio::test]
    async fn an_answer_waits_for_room_until_others_are_read_or_cut_off() {
        let answers = answers(4 * LARGE);
        let reads = answers.try_reserve(2 * LARGE).unwrap();
        let stalled = answers.reader(TASK);
        assert!(stalled.is_served(0, 2 * LARGE, TASK));
        assert!(answers.reserve(LARGE).await.unwrap().is_some(), "the stalled one made room");
        assert!(!stalled.is_served(0, 0, TASK));
        let all = (answers.try_reserve(2 * LARGE).unwrap(), reads);
        assert!(answers.reserve(LARGE).await.is_err(), "nobody is slow");
        assert!(answers.reserve(LARGE - 1).await.unwrap().is_none(), "a small one needs no room");
        drop(all);
        assert!(answers.reserve(LARGE).await.unwrap().is_some());
    }
}
