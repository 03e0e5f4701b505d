//! What the operator charges for the resources.

use super::{scaled, Rates};
use crate::model::Candidate;

/// Rent of one task: cores, memory and accelerators at the site's prices.
pub fn microcny_per_hour(c: &Candidate<'_>, rates: &Rates) -> u64 {
    let Some(prices) = &c.site.site.prices else { return 0 };
    let device_price = c.accelerator().and_then(|a| prices.accelerator_hour_microcny.get(&a.model)).copied();
    let accelerators = scaled(c.demand.accelerator_milli(), device_price.unwrap_or(0), 1000);
    let rent = scaled(c.demand.cpu_milli, prices.cpu_core_hour_microcny, 1000)
        .saturating_add(scaled(c.demand.memory_mib, prices.memory_gib_hour_microcny, 1024))
        .saturating_add(accelerators);
    scaled(rent, rates.rent_ppm, 1_000_000)
}
