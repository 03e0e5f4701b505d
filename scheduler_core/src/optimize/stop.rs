//! When to stop is a value that the caller brings: the core owns no clock.

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

/// Asked between rounds, and often while start, prices and construction prepare them (round 0): there
/// only `Time` and `Cancelled` count.
pub trait Stop {
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

impl<F: FnMut(&Progress) -> Option<Reason>> Stop for F {
    fn reached(&mut self, progress: &Progress) -> Option<Reason> {
        self(progress)
    }
}

/// After so many rounds: the same on every machine.
pub struct Rounds(pub u64);

impl Stop for Rounds {
    fn reached(&mut self, progress: &Progress) -> Option<Reason> {
        (progress.round >= self.0).then_some(Reason::Rounds)
    }
}
