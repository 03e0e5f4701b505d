//! What the engine reasons about: one candidate node for one task, and the figures of both.

use crate::state::{NodeState, SiteState};
use crate::wire::mumian::api::v1 as api;

/// Whole devices are multiples of this many milli.
pub const WHOLE_DEVICE_MILLI: u64 = 1000;

/// One task group of one job, asked about one node of one site.
#[derive(Clone, Copy)]
pub struct Candidate<'a> {
    pub site: &'a SiteState,
    pub node: &'a NodeState,
    pub job: &'a api::JobSpec,
    pub group: &'a api::TaskGroup,
}

impl Candidate<'_> {
    /// Resources of one task; an absent message asks for nothing.
    pub fn cpu_milli(&self) -> u64 {
        self.group.resources.as_ref().map_or(0, |r| r.cpu_milli)
    }

    /// Memory of one task.
    pub fn memory_mib(&self) -> u64 {
        self.group.resources.as_ref().map_or(0, |r| r.memory_mib)
    }

    /// The accelerators of one task, when it asks for any.
    pub fn accelerators(&self) -> Option<&api::AcceleratorRequest> {
        self.group.resources.as_ref().and_then(|r| r.accelerators.as_ref()).filter(|a| a.milli > 0)
    }

    /// The model of the node's first device that the task accepts, when it asks for accelerators.
    pub fn accelerator_model(&self) -> Option<&str> {
        let request = self.accelerators()?;
        self.node.devices.iter().map(|d| d.model.as_str()).find(|model| accepts_model(request, model))
    }

    /// Compute time of one request here: accelerator model, then arch, then default.
    pub fn compute_us(&self) -> u64 {
        let Some(time) = &self.group.compute_time else { return 0 };
        let by_model = self.accelerator_model().and_then(|m| time.by_accelerator_model_us.get(m));
        *by_model.or_else(|| time.by_arch_us.get(&self.node.node.arch)).unwrap_or(&time.default_us)
    }

    /// The zone of the SLO with the longest total; an unmeasured link is worse than any other.
    /// None when the group has no SLO.
    pub fn latency(&self) -> Option<api::LatencyBreakdown> {
        let slo = self.group.latency_slo.as_ref()?;
        let compute_us = self.compute_us();
        slo.zone_ids
            .iter()
            .map(|zone_id| {
                let link = self.site.links.get(zone_id);
                let rtt_p99_us = link.map_or(0, |l| l.rtt_p99_us);
                api::LatencyBreakdown {
                    zone_id: zone_id.clone(),
                    rtt_p99_us,
                    compute_us,
                    client_us: slo.client_us,
                    total_us: rtt_p99_us.saturating_add(compute_us).saturating_add(slo.client_us),
                    budget_us: slo.budget_us,
                    link_known: link.is_some(),
                }
            })
            .max_by_key(|b| (!b.link_known, b.total_us))
    }
}

/// Whether the request takes this model; an empty list takes any.
pub fn accepts_model(request: &api::AcceleratorRequest, model: &str) -> bool {
    request.models.is_empty() || request.models.iter().any(|m| m == model)
}
