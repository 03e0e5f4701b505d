//! What the task's power costs at the meter: IT power x marginal PUE x tariff.

use super::{scaled, Rates};
use crate::model::Candidate;

/// Power that the task adds at the IT side under full load.
pub fn it_power_mw(c: &Candidate<'_>) -> u64 {
    let cores = scaled(c.demand.cpu_milli, c.node.node.core_active_power_mw, 1000);
    let device_power_mw = c.accelerator().map_or(0, |a| a.active_power_mw);
    let devices = scaled(c.demand.accelerator_milli(), device_power_mw, 1000);
    cores.saturating_add(devices)
}

/// The same at the meter.
pub fn facility_power_mw(c: &Candidate<'_>, it_power_mw: u64) -> u64 {
    scaled(it_power_mw, u64::from(c.site.marginal_permille()), 1000)
}

/// Cost of that power for an hour.
pub fn microcny_per_hour(rates: &Rates, facility_power_mw: u64) -> u64 {
    scaled(facility_power_mw, rates.energy_kwh_microcny, 1_000_000)
}
