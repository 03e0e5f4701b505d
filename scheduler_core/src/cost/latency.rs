//! What a soft latency promise costs for being broken: its price times the milliseconds over the
//! budget, averaged over all users. Users beyond the share of the SLO add nothing.

use crate::model::{users_total, Candidate};

/// What users behind a link that nobody has measured count as: a job may start before anything is
/// measured, but any site that is measured and not hopeless is better.
const UNMEASURED_OVER_US: u64 = 1_000_000;

/// Cost of the breach for an hour; 0 for a promise that is hard or kept.
pub fn microcny_per_hour(c: &Candidate<'_>) -> u64 {
    let Some(slo) = c.demand.latency_slo.as_ref().filter(|slo| slo.soft_microcny_per_ms_hour > 0) else { return 0 };
    let over_us = |total_us: u64, link_known: bool| match link_known {
        true => total_us.saturating_sub(slo.budget_us),
        false => UNMEASURED_OVER_US,
    };
    let reaches = c.reaches();
    let over = reaches.iter().map(|r| u128::from(r.users_milli) * u128::from(over_us(r.total_us, r.link_known)));
    let over: u128 = over.fold(0, u128::saturating_add);
    // In thousandths of users and of milliseconds.
    let all = u128::from(users_total(slo)) * 1000 * 1000;
    let cost = over.saturating_mul(u128::from(slo.soft_microcny_per_ms_hour)).checked_div(all);
    cost.map_or(0, |cost| u64::try_from(cost).unwrap_or(u64::MAX))
}
