//! Free accelerators: a share fits on one device, whole devices are wholly free.

use super::Filter;
use crate::cluster::Device;
use crate::model::{Candidate, WHOLE_DEVICE_MILLI};
use crate::wire::mumian::api::v1 as api;
use crate::words::{devices, percent};

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
        let model = c.accelerator().map_or("accelerator", |a| a.model.as_str());
        let (count, asked) = (of_model().count(), devices(c.demand.accelerator_milli(), model));
        if c.demand.accelerator_milli() < WHOLE_DEVICE_MILLI {
            let most = of_model().map(Device::free_milli).max().unwrap_or(0);
            return format!("accelerators: {asked} asked, at most {} free on any of {count}", percent(most));
        }
        let free = of_model().filter(|d| d.free_milli() == WHOLE_DEVICE_MILLI).count();
        format!("accelerators: {asked} asked, {free} of {count} wholly free")
    }

    fn curable_by_preemption(&self) -> bool {
        true
    }
}
