//! Free accelerators: a share fits on one device, whole devices are wholly free.

use super::Filter;
use crate::cluster::Device;
use crate::model::Candidate;
use crate::wire::mumian::api::v1 as api;
use crate::words::plural;

pub struct Accelerators;

impl Filter for Accelerators {
    fn kind(&self) -> api::Filter {
        api::Filter::Accelerators
    }

    fn admits(&self, c: &Candidate<'_>) -> bool {
        c.devices_fit()
    }

    fn reason(&self, c: &Candidate<'_>) -> String {
        let of_model = || c.node.devices.iter().filter(|d| Some(d.model) == c.model);
        let free: u64 = of_model().map(Device::free_milli).sum();
        let model = c.accelerator().map_or("accelerator", |a| a.model.as_str());
        let asked = c.demand.accelerator_milli();
        format!(
            "accelerators: {free} m free over {} of model {model}, {asked} m asked",
            plural(of_model().count(), "device")
        )
    }

    fn curable_by_preemption(&self) -> bool {
        true
    }
}
