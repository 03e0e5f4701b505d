//! The one cost that every part asks: money in micro-CNY per hour, one term a file.

mod carbon;
mod energy;
mod rent;

use crate::model::Candidate;
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;

pub use rent::rent_microcny_per_hour;

/// What one task on this node costs in an hour under full load.
pub fn of(candidate: &Candidate<'_>, policy: &border::Policy) -> api::CostBreakdown {
    let rent = rent_microcny_per_hour(candidate);
    let it_power_mw = energy::it_power_mw(candidate);
    let facility_power_mw = energy::facility_power_mw(candidate, it_power_mw);
    let energy = energy::microcny_per_hour(candidate, facility_power_mw);
    let carbon = carbon::microcny_per_hour(candidate, facility_power_mw, policy);
    api::CostBreakdown {
        rent_microcny_per_hour: rent,
        energy_microcny_per_hour: energy,
        carbon_microcny_per_hour: carbon,
        total_microcny_per_hour: rent.saturating_add(energy).saturating_add(carbon),
        it_power_mw,
        facility_power_mw,
    }
}

/// a x b / divisor without overflow on the way; saturates.
fn scaled(a: u64, b: u64, divisor: u64) -> u64 {
    match a.checked_mul(b) {
        Some(product) => product / divisor,
        None => u64::try_from(u128::from(a) * u128::from(b) / u128::from(divisor)).unwrap_or(u64::MAX),
    }
}
