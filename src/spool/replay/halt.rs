//! Standing still while an operator takes waiting records out of the store.

use super::Replay;
use crate::{
    produce::{Sequence, TopicName},
    spool::{Resolved, lines::Line},
};
use std::collections::HashSet;
use tokio::sync::oneshot;

/// What was taken out meanwhile, and is committed.
pub struct Dropped {
    pub topic: TopicName,
    /// What became of each record.
    pub resolved: Resolved,
    pub records: Vec<(Sequence, Option<Line>)>,
}

/// Says when it is over; with nothing where nothing was taken out.
#[derive(Default)]
pub struct Halt(Option<oneshot::Receiver<Dropped>>);

impl Halt {
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Resolves at its end; never while there is none.
    pub async fn over(&mut self) -> Option<Dropped> {
        match &mut self.0 {
            Some(over) => over.await.ok(),
            None => std::future::pending().await,
        }
    }
}

impl Replay {
    /// Reads and sends nothing until it is over. The answer is the chunks that are open, which stay the replay's.
    pub(super) fn halt(
        &mut self,
        halted: oneshot::Sender<HashSet<Sequence>>,
        resumed: oneshot::Receiver<Dropped>,
    ) {
        self.halt = Halt(Some(resumed));
        // one that is gone has dropped its other end too
        let _ = halted.send(self.window.keys().into_iter().chain(self.held.keys().copied()).collect());
    }

    pub(super) fn resume(&mut self, dropped: Option<Dropped>) {
        self.halt = Halt::default();
        if let Some(Dropped { topic, resolved, records }) = dropped {
            for (sequence, line) in &records {
                self.alone.remove(sequence);
                self.tell_waiters(*sequence, &resolved);
                line.inspect(|line| self.parts.lines.leave(*line));
            }
            if !records.is_empty() {
                self.troubles.succeeds(&topic);
            }
        }
        // chunks that are read already are not what the store has
        self.begin_again(Sequence::default());
    }
}
