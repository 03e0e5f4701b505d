//! The platform's price on the CO2 of that energy.

use super::scaled;
use crate::model::Candidate;
use crate::wire::mumian_core::v1 as border;

/// mW x g/kWh x micro-CNY/kg, for an hour.
pub fn microcny_per_hour(c: &Candidate<'_>, facility_power_mw: u64, policy: &border::Policy) -> u64 {
    let milligram_per_hour = scaled(facility_power_mw, u64::from(c.site.site.carbon_g_per_kwh), 1000);
    scaled(milligram_per_hour, policy.carbon_kg_microcny, 1_000_000)
}
