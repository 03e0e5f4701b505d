//! Rust errors as one Python exception.

use pyo3::exceptions::PyException;
use pyo3::PyErr;

pyo3::create_exception!(mumian_core, CoreError, PyException, "Refused by the engine; args are (code, message).");

/// Code and message of the error.
pub fn to_python(error: &scheduler_core::error::CoreError) -> PyErr {
    CoreError::new_err((error.code(), error.to_string()))
}

/// A defect of the engine; what was asked has not happened.
pub fn panicked() -> PyErr {
    CoreError::new_err(("PANIC", "the engine panicked; its state is unchanged, its log names the place"))
}
