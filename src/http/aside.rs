//! Work that takes long, beside the threads that serve requests: large bodies are unpacked and parsed here.

use super::ApiError;
use std::{sync::Arc, thread, time::Duration};
use tokio::{sync::Semaphore, task, time::timeout};

/// Bytes from which on a body is parsed aside. A smaller one takes less than a millisecond, or a few where it was made to
/// be costly.
pub const LARGE: usize = 256 << 10;
/// How long work waits for its turn. That is bounded, so that a queue of costly bodies is refused before it is
/// answered late.
const PATIENCE: Duration = Duration::from_secs(2);

/// The turns: few, so that cores are left to small requests, and the runtime's threads for blocking work to others.
pub struct Aside {
    turns: Arc<Semaphore>,
}

impl Default for Aside {
    /// A turn for every two cores.
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self { turns: Arc::new(Semaphore::new((cores / 2).max(1))) }
    }
}

impl Aside {
    /// Does the work on another thread when its turn comes. Where the caller goes away meanwhile, the turn lasts until
    /// the work is done. A panic is an error.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let Ok(Ok(turn)) = timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await else {
            return Err(ApiError::TooManyLargeBodies);
        };
        let done = task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.map_err(|error| ApiError::Internal(format!("a large body: {error}")))
    }

    /// All turns that are free: until they are dropped, work waits.
    #[cfg(test)]
    pub fn take_turns(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.turns.try_acquire_many(u32::try_from(self.turns.available_permits()).unwrap()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::sync::mpsc;

    fn one_turn() -> Aside {
        Aside { turns: Arc::new(Semaphore::new(1)) }
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_gives_its_turn_back() {
        let aside = one_turn();
        let error = aside.run(|| panic!("as a test")).await.unwrap_err();
        assert_eq!((error.tag(), error.status().as_u16()), ("internal", 500));
        assert_eq!(aside.run(|| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_turn_lasts_until_the_work_is_done_also_where_nobody_waits_for_it() {
        let aside = one_turn();
        let (go, gone) = mpsc::channel::<()>();
        assert!(aside.run(move || gone.recv()).now_or_never().is_none());
        assert_eq!(aside.turns.available_permits(), 0);
        go.send(()).unwrap();
        assert_eq!(aside.run(|| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn work_whose_turn_does_not_come_is_overloaded() {
        let aside = one_turn();
        let _turn = aside.turns.acquire().await.unwrap();
        let error = aside.run(|| 7).await.unwrap_err();
        assert_eq!((error.tag(), error.status().as_u16()), ("overloaded", 503));
    }
}
