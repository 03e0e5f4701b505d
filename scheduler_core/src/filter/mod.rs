//! The hard constraints, one a file. `admits` is asked in the hot path and builds nothing;
//! `reason` is asked only to explain.

mod accelerator_model;
mod accelerators;
mod arch;
mod cpu;
mod health;
mod jurisdiction;
mod labels;
mod latency_slo;
mod memory;
mod operator;
mod pue_ceiling;

use crate::model::Candidate;
use crate::wire::mumian::api::v1 as api;

/// One hard constraint.
pub trait Filter: Sync {
    /// Its name in the tenant API.
    fn kind(&self) -> api::Filter;
    /// Whether the node may take one task.
    fn admits(&self, candidate: &Candidate<'_>) -> bool;
    /// Why not, in the user's units.
    fn reason(&self, candidate: &Candidate<'_>) -> String;
    /// Whether evicting other work could cure it.
    fn curable_by_preemption(&self) -> bool {
        false
    }
}

/// All filters in the order in which they are asked.
pub const STAGES: [&dyn Filter; 11] = [
    &health::Health,                      // a site that is gone makes every other question idle
    &operator::Operator,                  // who may hold the work at all: one comparison a site
    &jurisdiction::Jurisdiction,          // where the data may be: likewise
    &pue_ceiling::PueCeiling,             // the last of the questions about the site alone
    &arch::Arch,                          // what the machine is never changes
    &labels::Labels,                      // nor, hardly, how it is labelled
    &accelerator_model::AcceleratorModel, // the model decides the compute time, asked next
    &latency_slo::LatencySlo,             // needs site and node; before capacity, since no eviction cures it
    &cpu::Cpu,                            // capacity last: it is the only thing that time cures
    &memory::Memory,
    &accelerators::Accelerators, // the dearest test: it walks the devices
];

/// How many of the stages ask about what no booking changes; capacity comes after them.
pub const FIXED_STAGES: usize = 8;

/// The position of the first filter that refuses the candidate; all of them when it is admitted.
pub fn stage(candidate: &Candidate<'_>) -> usize {
    STAGES.iter().position(|filter| !filter.admits(candidate)).unwrap_or(STAGES.len())
}

/// Whether no filter about fixed facts refuses the candidate.
pub fn admits_fixed(candidate: &Candidate<'_>) -> bool {
    STAGES[..FIXED_STAGES].iter().all(|filter| filter.admits(candidate))
}

/// Whether there is room for the candidate now.
pub fn admits_now(candidate: &Candidate<'_>) -> bool {
    STAGES[FIXED_STAGES..].iter().all(|filter| filter.admits(candidate))
}

/// A refusal in the user's words.
pub fn rejection(filter: &dyn Filter, candidate: &Candidate<'_>) -> api::Rejection {
    api::Rejection {
        filter: filter.kind().into(),
        reason: filter.reason(candidate),
        curable_by_preemption: filter.curable_by_preemption(),
    }
}
