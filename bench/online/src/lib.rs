//! The online placer's benchmark: a generated city, its jobs, the coordinator in small, and the
//! scans that the placer is compared with.

pub mod baselines;
pub mod fleet;
pub mod jobs;
pub mod live;
pub mod paths;

/// The same as in the bindings, which are what runs in production.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
