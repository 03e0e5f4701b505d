//! When a run ends: the core owns no clock, so it is here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use scheduler_core::optimize::stop::{Progress, Reason, Stop};
use scheduler_core::wire::mumian_core::v1 as border;

/// The limits of a request, and its caller's wish to end early.
pub struct Limits {
    started: Instant,
    reserved: Duration,
    limits: border::Stop,
    cancelled: Arc<AtomicBool>,
}

impl Limits {
    /// The run began when its request came.
    pub fn new(started: Instant, limits: &border::Stop, cancelled: Arc<AtomicBool>) -> Self {
        Self { started, reserved: Duration::ZERO, limits: *limits, cancelled }
    }
}

impl Stop for Limits {
    fn reached(&mut self, progress: &Progress) -> Option<Reason> {
        let limits = &self.limits;
        if self.cancelled.load(Ordering::Relaxed) {
            return Some(Reason::Cancelled);
        }
        let limit = Duration::from_millis(limits.time_limit_ms);
        if limits.time_limit_ms > 0 && self.started.elapsed().saturating_add(self.reserved) >= limit {
            return Some(Reason::Time);
        }
        if limits.rounds_max > 0 && progress.round >= limits.rounds_max {
            return Some(Reason::Rounds);
        }
        let gap = progress.objective_microcny - progress.bound_microcny;
        let allowed = progress.bound_microcny.unsigned_abs() as i128 * i128::from(limits.gap_ppm) / 1_000_000;
        (limits.gap_ppm > 0 && gap <= allowed).then_some(Reason::Gap)
    }

    fn elapsed_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn reserve(&mut self, ms: u64) {
        self.reserved = Duration::from_millis(ms);
    }
}

/// Whatever a request says: no machine has a use for more.
const THREADS_MAX: u32 = 256;

/// The threads that a run may use.
pub fn threads(limits: &border::Stop) -> usize {
    match limits.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads.min(THREADS_MAX) as usize,
    }
}
