//! When to stop is a value that the caller brings: the core owns no clock.

use std::sync::{Mutex, OnceLock, PoisonError};

/// How far a run has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    pub round: u64,
    pub objective_microcny: i128,
    pub bound_microcny: i128,
    pub unplaced: u32,
    /// By the stop's clock; 0 where it has none.
    pub elapsed_ms: u64,
    /// Rounds since the objective last became less.
    pub rounds_without_gain: u64,
}

/// Why a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Time,
    Rounds,
    Gap,
    Optimal,
    Cancelled,
    NoImprovement,
}

/// Asked between rounds, and often while start, prices and construction prepare them (round 0) and within
/// rounds: there only `Time` and `Cancelled` count.
pub trait Stop: Send {
    fn reached(&mut self, progress: &Progress) -> Option<Reason>;

    /// Time since the run began, where the caller has a clock.
    fn elapsed_ms(&self) -> u64 {
        0
    }

    /// After the end there is so much left to do: a limit on time has to be that much earlier.
    fn reserve(&mut self, _ms: u64) {}
}

/// Why the preparation may not go on. What else ends a run is asked of its rounds only.
pub(super) fn over(progress: Progress, stop: &mut dyn Stop) -> Option<Reason> {
    let reason = stop.reached(&Progress { elapsed_ms: stop.elapsed_ms(), ..progress });
    reason.filter(|reason| matches!(reason, Reason::Time | Reason::Cancelled))
}

pub(super) fn has_time(progress: Progress, stop: &mut dyn Stop) -> bool {
    over(progress, stop).is_none()
}

impl<F: FnMut(&Progress) -> Option<Reason> + Send> Stop for F {
    fn reached(&mut self, progress: &Progress) -> Option<Reason> {
        self(progress)
    }
}

/// What the threads of a round ask. A round that is over before its end counts for nothing.
pub(super) struct Watch<'s> {
    stop: Mutex<&'s mut dyn Stop>,
    progress: Progress,
    reason: OnceLock<Reason>,
}

impl<'s> Watch<'s> {
    pub fn new(progress: Progress, stop: &'s mut dyn Stop) -> Self {
        Self { stop: Mutex::new(stop), progress, reason: OnceLock::new() }
    }

    /// Whether the round may go on. Once it may not, the stop is not asked again.
    pub fn goes_on(&self) -> bool {
        if self.reason.get().is_some() {
            return false;
        }
        let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = over(self.progress, *stop);
        reason.is_none_or(|reason| {
            self.reason.get_or_init(|| reason);
            false
        })
    }

    /// Why the round was over before its end.
    pub fn reason(&self) -> Option<Reason> {
        self.reason.get().copied()
    }
}

/// After so many rounds: the same on every machine.
pub struct Rounds(pub u64);

impl Stop for Rounds {
    fn reached(&mut self, progress: &Progress) -> Option<Reason> {
        (progress.round >= self.0).then_some(Reason::Rounds)
    }
}
