//! What makes one admitted candidate better than another: the objective of the policy.

use std::sync::Arc;

use crate::cluster::Cluster;
use crate::cost::{self, rates::Rates};
use crate::fragmentation::Mix;
use crate::model::Candidate;
use crate::room::Ask;
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;

/// Smaller is better; ties go to the first site, node and model.
pub type Score = (u64, u64);

/// Worse than any real score: no second part of one reaches the maximum together with the first.
pub const NO_SCORE: Score = (u64::MAX, u64::MAX);

/// What the first part of a score goes by, which says how candidates are best kept in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The facts of site and node: no booking changes it, and nodes of equal facts share it.
    Facts,
    /// What is on the node.
    Load,
    /// A draw, new for each decision.
    Draw,
}

/// The objective with all that it asks besides the candidate.
#[derive(Debug, Clone, PartialEq)]
pub struct Scorer {
    /// Without its typical tasks, which `mix` holds.
    pub policy: border::Policy,
    /// The workload that fragmentation is counted for; empty where nothing asks for it.
    mix: Arc<Mix>,
}

impl Scorer {
    pub fn new(cluster: &Cluster, request: &border::PlaceRequest) -> Self {
        let mut policy = request.policy.clone().unwrap_or_default();
        let typical = std::mem::take(&mut policy.typical_tasks);
        policy.preempt = false; // no score depends on it
        let mix = || Mix::of(&typical, &request.jobs, &cluster.device_counts);
        let mix = match policy.objective() {
            border::Objective::Pack => mix(),
            _ if policy.fragmentation_microcny_per_device_hour > 0 => mix(),
            _ => Mix::default(),
        };
        Self { policy, mix: Arc::new(mix) }
    }

    /// What the first part of the score goes by.
    pub fn basis(&self) -> Basis {
        match self.policy.objective() {
            border::Objective::Pack => Basis::Load,
            border::Objective::Random => Basis::Draw,
            _ if self.is_by_cost() && self.prices_fragmentation() => Basis::Load,
            _ => Basis::Facts,
        }
    }

    /// What one task costs on this node as it is now.
    pub fn cost(&self, c: &Candidate<'_>) -> api::CostBreakdown {
        cost::with_fragmentation(cost::of(c, &self.policy), c, &self.policy, &self.mix)
    }

    /// The same at these rates of its site.
    pub fn cost_at(&self, c: &Candidate<'_>, rates: &Rates) -> api::CostBreakdown {
        cost::with_fragmentation(cost::at(c, &self.policy, rates), c, &self.policy, &self.mix)
    }

    /// Whether money decides.
    pub fn is_by_cost(&self) -> bool {
        matches!(self.policy.objective(), border::Objective::Unspecified | border::Objective::Cost)
    }

    /// Whether the cost depends on what else is on the node.
    pub fn prices_fragmentation(&self) -> bool {
        self.policy.fragmentation_microcny_per_device_hour > 0
    }

    /// The part of the score that no booking changes.
    pub fn fixed(&self, c: &Candidate<'_>) -> u64 {
        match self.policy.objective() {
            border::Objective::Unspecified | border::Objective::Cost | border::Objective::Pack => {
                cost::of(c, &self.policy).total_microcny_per_hour
            }
            // A soft promise lets links in that nobody has measured: they come last.
            border::Objective::Nearest => {
                c.reaches().last().map_or(0, |worst| if worst.link_known { worst.total_us } else { u64::MAX })
            }
            border::Objective::CheapestRent => cost::rent_microcny_per_hour(c),
            border::Objective::Random => 0,
        }
    }

    /// The whole score as the node is now; `draw` is what RANDOM goes by.
    pub fn score(&self, c: &Candidate<'_>, fixed: u64, draw: u64) -> Score {
        let left_over = || c.room().left_over(&Ask::of(c.demand));
        match self.policy.objective() {
            border::Objective::Pack => (self.mix.increase(c).0, fixed.min(u64::MAX - 1)),
            border::Objective::Random => (draw, 0),
            _ if self.is_by_cost() => (fixed.saturating_add(self.stranded_cost(c)), left_over()),
            _ => (fixed, left_over()),
        }
    }

    /// What the task strands on the node as that is now.
    pub fn stranded_cost(&self, c: &Candidate<'_>) -> u64 {
        let stranded = cost::with_fragmentation(Default::default(), c, &self.policy, &self.mix);
        stranded.fragmentation_microcny_per_hour
    }

    /// The devices that the task would get under this objective.
    pub fn devices(&self, c: &Candidate<'_>) -> Vec<api::DeviceShare> {
        let shared = match self.policy.objective() {
            border::Objective::Pack => self.mix.increase(c).1,
            _ if self.is_by_cost() && self.prices_fragmentation() => self.mix.increase(c).1,
            _ => None,
        };
        c.devices(shared)
    }
}
