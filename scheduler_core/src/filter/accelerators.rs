//! Free accelerators: a share fits on one device, whole devices are wholly free.

use super::Filter;
use crate::model::Candidate;
use crate::wire::mumian::api::v1 as api;

pub struct Accelerators;

impl Filter for Accelerators {
    fn kind(&self) -> api::Filter {
        api::Filter::Accelerators
    }

    fn admits(&self, c: &Candidate<'_>) -> bool {
        c.accelerators().is_none_or(|request| c.node.devices_for(request).is_some())
    }

    fn reason(&self, c: &Candidate<'_>) -> String {
        let asked = c.accelerators().map_or(0, |a| a.milli);
        let free: u64 = c.node.devices.iter().map(|d| d.free_milli()).sum();
        format!("accelerators: {free} m free over {} devices, {asked} m asked", c.node.devices.len())
    }

    fn curable_by_preemption(&self) -> bool {
        true
    }
}
