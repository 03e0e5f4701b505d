//! The engine for Python: bytes of `mumian_core.v1` in, bytes out.

mod enter;
mod error;

use pyo3::prelude::*;

/// What `mumian_core._native` exports.
#[pymodule]
mod _native {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use pyo3::prelude::*;
    use scheduler_core::state::{Cluster, State};
    use scheduler_core::{explain, place, verify};

    use crate::enter::{enter, message, reply};

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

        fn frozen(&self) -> Cluster {
            self.locked().snapshot()
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
            enter(py, || Ok(self.frozen().generation))
        }

        /// A frozen view.
        fn snapshot(&self, py: Python<'_>) -> PyResult<Snapshot> {
            enter(py, || Ok(Snapshot { cluster: self.frozen() }))
        }
    }

    /// A state that no delta changes.
    #[pyclass(frozen)]
    struct Snapshot {
        cluster: Cluster,
    }

    #[pymethods]
    impl Snapshot {
        /// PlaceRequest to Plan; nothing is committed.
        fn place(&self, py: Python<'_>, request: &[u8]) -> PyResult<Vec<u8>> {
            enter(py, || place::place(&self.cluster, &message(request)?).map(reply))
        }

        /// VerifyRequest to VerifyResponse.
        fn verify(&self, py: Python<'_>, request: &[u8]) -> PyResult<Vec<u8>> {
            enter(py, || Ok(reply(verify::verify(&self.cluster, &message(request)?))))
        }

        /// ExplainRequest to ExplainResponse.
        fn explain(&self, py: Python<'_>, request: &[u8]) -> PyResult<Vec<u8>> {
            enter(py, || explain::explain(&self.cluster, &message(request)?).map(reply))
        }
    }
}
