//! What makes one admitted candidate better than another: the objective of the policy.

use std::sync::Arc;

use crate::cluster::Cluster;
use crate::cost::{self, rates::Rates};
use crate::fragmentation::Mix;
use crate::model::{Candidate, WHOLE_DEVICE_MILLI};
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;

/// Smaller is better; ties go to the first site, node and model.
pub type Score = (u64, u64);

/// Worse than any real score: no second part of one reaches the maximum together with the first.
pub const NO_SCORE: Score = (u64::MAX, u64::MAX);

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

    /// Whether each decision draws anew, so that no score can be kept.
    pub fn is_random(&self) -> bool {
        self.policy.objective() == border::Objective::Random
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
        match self.policy.objective() {
            border::Objective::Pack => (self.mix.increase(c).0, fixed.min(u64::MAX - 1)),
            border::Objective::Random => (draw, 0),
            _ if self.is_by_cost() => (fixed.saturating_add(self.stranded_cost(c)), left_over(c)),
            _ => (fixed, left_over(c)),
        }
    }

    fn stranded_cost(&self, c: &Candidate<'_>) -> u64 {
        let stranded = cost::with_fragmentation(Default::default(), c, &self.policy, &self.mix);
        stranded.fragmentation_microcny_per_hour
    }

    /// The devices that the task would get under this objective.
    pub fn devices(&self, c: &Candidate<'_>) -> Vec<api::DeviceShare> {
        let shared = match self.policy.objective() {
            border::Objective::Pack => self.mix.increase(c).1,
            _ if self.is_by_cost() && self.policy.fragmentation_microcny_per_device_hour > 0 => self.mix.increase(c).1,
            _ => None,
        };
        c.devices(shared)
    }
}

/// What the task would leave unused on the node: best fit. Accelerators weigh before cores,
/// because what is left of a device is harder to sell.
fn left_over(c: &Candidate<'_>) -> u64 {
    const CORES: u64 = 1 << 24;
    let asked = c.demand.accelerator_milli();
    // A device that is in use already is better filled than a whole one opened.
    let is_share = asked > 0 && asked < WHOLE_DEVICE_MILLI;
    let opens_device = is_share && c.fullest_device().is_some_and(|(_, device)| device.used_milli == 0);
    let devices_free: u64 = c.node.devices.iter().map(|d| d.free_milli()).sum();
    let devices_left = devices_free.saturating_sub(asked) + u64::from(opens_device) * 1_000_000;
    let cpu_left = c.node.free_cpu_milli().saturating_sub(c.demand.cpu_milli);
    devices_left * CORES + cpu_left.min(CORES - 1)
}
