//! The one door into Rust: releases the GIL, converts errors, catches panics.

use std::panic::{catch_unwind, AssertUnwindSafe};

use prost::Message;
use pyo3::prelude::*;
use scheduler_core::error::CoreError;

use crate::error;

/// Run `work` without the GIL.
pub fn enter<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T, CoreError> + Send) -> PyResult<T> {
    match py.detach(|| catch_unwind(AssertUnwindSafe(work))) {
        Ok(outcome) => outcome.map_err(|e| error::to_python(&e)),
        Err(_) => Err(error::panicked()),
    }
}

/// Bytes as a message.
pub fn message<M: Message + Default>(bytes: &[u8]) -> Result<M, CoreError> {
    M::decode(bytes).map_err(|e| CoreError::InvalidMessage { detail: e.to_string() })
}

/// A message as bytes.
#[allow(clippy::needless_pass_by_value)]
pub fn reply<M: Message>(message: M) -> Vec<u8> {
    message.encode_to_vec()
}
