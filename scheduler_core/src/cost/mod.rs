//! The one cost that every part asks: money in micro-CNY per hour, one term a file.

mod carbon;
mod egress;
mod energy;
mod fragmentation;
mod latency;
mod migration;
pub mod rates;
mod rent;

use crate::fragmentation::Mix;
use crate::model::{Candidate, Run};
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;

use rates::Rates;

/// What one task on this node costs in an hour under full load: the mean over its run.
pub fn of(candidate: &Candidate<'_>, policy: &border::Policy) -> api::CostBreakdown {
    at(candidate, policy, &Rates::over(&candidate.site.site, candidate.demand.run))
}

/// The same at these rates of the site, for who has worked them out already.
pub fn at(candidate: &Candidate<'_>, policy: &border::Policy, rates: &Rates) -> api::CostBreakdown {
    let rent = rent::microcny_per_hour(candidate, rates);
    let it_power_mw = energy::it_power_mw(candidate);
    let facility_power_mw = energy::facility_power_mw(candidate, it_power_mw);
    let energy = energy::microcny_per_hour(rates, facility_power_mw);
    let carbon = carbon::microcny_per_hour(rates, facility_power_mw, policy);
    let latency = latency::microcny_per_hour(candidate);
    let egress = egress::microcny_per_hour(candidate);
    api::CostBreakdown {
        rent_microcny_per_hour: rent,
        energy_microcny_per_hour: energy,
        carbon_microcny_per_hour: carbon,
        latency_microcny_per_hour: latency,
        egress_microcny_per_hour: egress,
        total_microcny_per_hour: [rent, energy, carbon, latency, egress].into_iter().fold(0, u64::saturating_add),
        it_power_mw,
        facility_power_mw,
        ..Default::default()
    }
}

/// What one move counts as in each hour of the policy's horizon.
pub fn migration_microcny_per_hour(policy: &border::Policy) -> i64 {
    i64::try_from(migration::microcny_per_hour(policy)).unwrap_or(i64::MAX)
}

/// The cost of a task that is to move here from another node.
pub fn of_move(candidate: &Candidate<'_>, policy: &border::Policy) -> api::CostBreakdown {
    let cost = of(candidate, policy);
    let migration = migration::microcny_per_hour(policy);
    let total = cost.total_microcny_per_hour.saturating_add(migration);
    api::CostBreakdown { migration_microcny_per_hour: migration, total_microcny_per_hour: total, ..cost }
}

/// The cost with what the task strands on its node as that is now; the only term that bookings change.
pub(crate) fn with_fragmentation(
    cost: api::CostBreakdown,
    candidate: &Candidate<'_>,
    policy: &border::Policy,
    mix: &Mix,
) -> api::CostBreakdown {
    let stranded = fragmentation::microcny_per_hour(candidate, policy, mix);
    let total = cost.total_microcny_per_hour.saturating_add(stranded);
    api::CostBreakdown { fragmentation_microcny_per_hour: stranded, total_microcny_per_hour: total, ..cost }
}

/// What the operator charges for the resources.
pub fn rent_microcny_per_hour(candidate: &Candidate<'_>) -> u64 {
    rent::microcny_per_hour(candidate, &Rates::over(&candidate.site.site, candidate.demand.run))
}

/// The same at the prices that the site posts, whatever the hour makes of them.
pub fn posted_rent_microcny_per_hour(candidate: &Candidate<'_>) -> u64 {
    rent::microcny_per_hour(candidate, &Rates::over(&candidate.site.site, Run::default()))
}

/// a x b / divisor without overflow on the way; saturates.
fn scaled(a: u64, b: u64, divisor: u64) -> u64 {
    match a.checked_mul(b) {
        Some(product) => product / divisor,
        None => u64::try_from(u128::from(a) * u128::from(b) / u128::from(divisor)).unwrap_or(u64::MAX),
    }
}
