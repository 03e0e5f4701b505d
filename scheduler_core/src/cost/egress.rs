//! What the operator charges for what leaves its site: all that a task keeps reserved towards
//! zones, as if it always used it.

use super::scaled;
use crate::model::Candidate;

/// One kbit/s for an hour, in bytes.
const BYTES_PER_KBPS_HOUR: u64 = 1000 / 8 * 3600;
const GIB: u64 = 1 << 30;

/// Cost of that traffic for an hour.
pub fn microcny_per_hour(c: &Candidate<'_>) -> u64 {
    let price = c.site.site.prices.as_ref().map_or(0, |p| p.egress_gib_microcny);
    scaled(c.demand.egress_kbps.saturating_mul(BYTES_PER_KBPS_HOUR), price, GIB)
}
