//! All tests of the core in one binary, so that the core is optimised and linked for them once.

mod assess;
mod border_bytes;
mod capacity;
mod common;
mod cost;
mod coupling;
mod exhaustive;
mod filter;
mod golden;
mod in_play;
mod index;
mod optimize;
mod panic;
mod preemption;
mod state;
mod validation;
mod verifier;
