//! The engine for Python: bytes of `mumian_core.v1` in, bytes out.

mod enter;
mod error;
mod limits;

use pyo3::prelude::*;

/// A plan is made of many small strings, and the system's allocator takes a third of the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What `mumian_core._native` exports.
#[pymodule]
mod _native {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
    use std::time::Instant;

    use pyo3::prelude::*;
    use scheduler_core::state::State;
    use scheduler_core::wire::mumian_core::v1 as border;
    use scheduler_core::{assess, explain, optimize, place, verify};

    use crate::enter::{enter, message, reply};
    use crate::limits::{threads, Limits};

    #[pymodule_export]
    use crate::error::CoreError;

    /// The live cluster.
    #[pyclass(frozen)]
    struct Engine {
        state: Mutex<State>,
    }

    impl Engine {
        fn locked(&self) -> MutexGuard<'_, State> {
            // A delta is checked before it changes anything, so a panic leaves a whole state.
            self.state.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    #[pymethods]
    impl Engine {
        #[new]
        fn new() -> Self {
            Self { state: Mutex::new(State::default()) }
        }

        /// Apply a Delta whole or not at all; the new generation.
        fn apply(&self, py: Python<'_>, delta: &[u8]) -> PyResult<u64> {
            enter(py, || self.locked().apply(message(delta)?))
        }

        /// The generation of the state.
        fn generation(&self, py: Python<'_>) -> PyResult<u64> {
            enter(py, || Ok(self.locked().generation()))
        }

        /// A frozen view.
        fn snapshot(&self, py: Python<'_>) -> PyResult<Snapshot> {
            enter(py, || Ok(Snapshot { state: self.locked().clone() }))
        }
    }

    /// A state that no delta changes.
    #[pyclass(frozen)]
    struct Snapshot {
        state: State,
    }

    #[pymethods]
    impl Snapshot {
        /// PlaceRequest to Plan; nothing is committed.
        fn place(&self, py: Python<'_>, request: &[u8]) -> PyResult<Vec<u8>> {
            enter(py, || place::place(&self.state.snapshot(), &message(request)?).map(reply))
        }

        /// VerifyRequest to VerifyResponse.
        fn verify(&self, py: Python<'_>, request: &[u8]) -> PyResult<Vec<u8>> {
            enter(py, || verify::verify_checked(&self.state.snapshot(), &message(request)?).map(reply))
        }

        /// ExplainRequest to ExplainResponse.
        fn explain(&self, py: Python<'_>, request: &[u8]) -> PyResult<Vec<u8>> {
            enter(py, || explain::explain(&self.state.snapshot(), &message(request)?).map(reply))
        }

        /// AssessRequest to AssessResponse: what runs, as it stands in this view.
        fn assess(&self, py: Python<'_>, request: &[u8]) -> PyResult<Vec<u8>> {
            enter(py, || assess::assess(&self.state, &message(request)?).map(reply))
        }

        /// OptimizeRequest to OptimizeResponse; nothing is committed.
        #[pyo3(signature = (request, cancel=None))]
        fn optimize(&self, py: Python<'_>, request: &[u8], cancel: Option<&CancelToken>) -> PyResult<Vec<u8>> {
            let cancelled = CancelToken::flag(cancel);
            enter(py, || {
                let started = Instant::now();
                let request: border::OptimizeRequest = message(request)?;
                let limits = request.stop.unwrap_or_default();
                let mut stop = Limits::new(started, &limits, cancelled);
                optimize::optimize(&self.state, &request, threads(&limits), &mut stop).map(reply)
            })
        }

        /// This view as it would be after a Delta. Neither it nor the engine changes.
        fn what_if(&self, py: Python<'_>, delta: &[u8]) -> PyResult<Snapshot> {
            enter(py, || {
                let mut state = self.state.fork();
                state.apply(message(delta)?)?;
                Ok(Snapshot { state })
            })
        }
    }

    /// Ends a run of the optimiser early, from any thread; it answers with what it has.
    #[pyclass(frozen)]
    struct CancelToken {
        cancelled: Arc<AtomicBool>,
    }

    impl CancelToken {
        fn flag(token: Option<&Self>) -> Arc<AtomicBool> {
            token.map(|token| token.cancelled.clone()).unwrap_or_default()
        }
    }

    #[pymethods]
    impl CancelToken {
        #[new]
        fn new() -> Self {
            Self { cancelled: Arc::default() }
        }

        /// Ask the run to end; it does before its next round.
        fn cancel(&self) {
            self.cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// AssignmentRequest to AssignmentResponse, by the optimiser that places jobs.
    #[pyfunction]
    #[pyo3(signature = (request, cancel=None))]
    fn solve_assignment(py: Python<'_>, request: &[u8], cancel: Option<&CancelToken>) -> PyResult<Vec<u8>> {
        let cancelled = CancelToken::flag(cancel);
        enter(py, || {
            let started = Instant::now();
            let request: border::AssignmentRequest = message(request)?;
            let limits = request.stop.unwrap_or_default();
            let mut stop = Limits::new(started, &limits, cancelled);
            optimize::solve_table(&request, threads(&limits), &mut stop).map(reply)
        })
    }
}
