//! The platform's price on the CO2 of that energy.

use super::{scaled, Rates};
use crate::wire::mumian_core::v1 as border;

/// mW x mg/kWh x micro-CNY/kg, for an hour.
pub fn microcny_per_hour(rates: &Rates, facility_power_mw: u64, policy: &border::Policy) -> u64 {
    let milligram_per_hour = scaled(facility_power_mw, rates.carbon_mg_per_kwh, 1_000_000);
    scaled(milligram_per_hour, policy.carbon_kg_microcny, 1_000_000)
}
