//! The hard constraints, one a file. `admits` is asked in the hot path and builds nothing;
//! `reason` is asked only to explain.

mod accelerator_model;
mod accelerators;
mod anti_affinity;
mod arch;
mod container_engine;
mod cpu;
mod group_latency;
mod health;
mod jurisdiction;
mod labels;
mod latency_slo;
mod link_bandwidth;
mod memory;
mod operator;
mod power_cap;
mod pue_ceiling;
mod rent_ceiling;
mod spread;
mod together;

use crate::model::Candidate;
use crate::topology;
use crate::wire::mumian::api::v1 as api;

/// One hard constraint.
pub trait Filter: Sync {
    /// Its name in the tenant API.
    fn kind(&self) -> api::Filter;
    /// Whether the node may take one task.
    fn admits(&self, candidate: &Candidate<'_>) -> bool;
    /// Why not, in the user's units.
    fn reason(&self, candidate: &Candidate<'_>) -> String;
    /// Whether it refuses every node of the site that it refuses one of; false where that is
    /// not known.
    fn refuses_site(&self, _candidate: &Candidate<'_>) -> bool {
        false
    }
    /// Whether evicting other work could cure it.
    fn curable_by_preemption(&self) -> bool {
        false
    }
}

/// All filters in the order in which they are asked.
pub const STAGES: [&dyn Filter; 19] = [
    &health::Health,                      // a site that is gone makes every other question idle
    &operator::Operator,                  // who may hold the work at all: one comparison a site
    &jurisdiction::Jurisdiction,          // where the data may be: likewise
    &pue_ceiling::PueCeiling,             // the last of the questions about the site alone
    &arch::Arch,                          // what the machine is never changes
    &container_engine::ContainerEngine,   // nor, hardly, what is installed on it
    &labels::Labels,                      // nor, hardly, how it is labelled
    &accelerator_model::AcceleratorModel, // the model decides the rent and the compute time, asked next
    &rent_ceiling::RentCeiling,           // a few products; prices change seldom, and no eviction cures them
    &latency_slo::LatencySlo,             // needs site and node; before capacity, since no eviction cures it
    &cpu::Cpu,                            // capacity after the facts: time cures it
    &memory::Memory,
    &accelerators::Accelerators, // the dearest of them: it walks the devices
    &spread::Spread,             // last what couples tasks: it changes while the node is not touched
    &together::Together,
    &anti_affinity::AntiAffinity,
    &group_latency::GroupLatency,
    &link_bandwidth::LinkBandwidth,
    &power_cap::PowerCap,
];

/// Stages below this ask about what no booking changes; the next about the node's capacity.
pub const FIXED_STAGES: usize = 10;
/// Stages from this on ask about what else is placed, and need a context.
const COUPLING_STAGES: usize = 13;

/// The position of the first filter that refuses the candidate; all of them when it is admitted.
pub fn stage(candidate: &Candidate<'_>) -> usize {
    STAGES.iter().position(|filter| !filter.admits(candidate)).unwrap_or(STAGES.len())
}

/// Whether no filter about fixed facts refuses the candidate.
pub fn admits_fixed(candidate: &Candidate<'_>) -> bool {
    STAGES[..FIXED_STAGES].iter().all(|filter| filter.admits(candidate))
}

/// Whether there is room for the candidate on its node now.
pub fn admits_now(candidate: &Candidate<'_>) -> bool {
    STAGES[FIXED_STAGES..COUPLING_STAGES].iter().all(|filter| filter.admits(candidate))
}

/// What coupling constraints say of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    Admitted,
    Refused,
    /// So is every other node of the site.
    SiteRefused,
}

/// Whether some coupling constraint refuses the candidate, beside all else that is placed now.
pub fn beside(candidate: &Candidate<'_>) -> Beside {
    match STAGES[COUPLING_STAGES..].iter().find(|filter| !filter.admits(candidate)) {
        None => Beside::Admitted,
        Some(filter) if filter.refuses_site(candidate) => Beside::SiteRefused,
        Some(_) => Beside::Refused,
    }
}

/// The refusal of a node that does not say in which domain it is.
fn unknown(topology: api::Topology) -> String {
    format!("nobody says to which {} this node belongs", topology::word(topology))
}

/// A refusal in the user's words.
pub fn rejection(filter: &dyn Filter, candidate: &Candidate<'_>) -> api::Rejection {
    api::Rejection {
        filter: filter.kind().into(),
        reason: filter.reason(candidate),
        curable_by_preemption: filter.curable_by_preemption(),
    }
}
