//! Network RTT p99 + compute + client time within the budget, from every zone of the SLO.

use super::Filter;
use crate::model::Candidate;
use crate::wire::mumian::api::v1 as api;

pub struct LatencySlo;

impl Filter for LatencySlo {
    fn kind(&self) -> api::Filter {
        api::Filter::LatencySlo
    }

    fn admits(&self, c: &Candidate<'_>) -> bool {
        c.latency().is_none_or(|l| l.link_known && l.total_us <= l.budget_us)
    }

    fn reason(&self, c: &Candidate<'_>) -> String {
        let Some(l) = c.latency() else { return String::new() };
        if !l.link_known {
            return format!("nobody has measured the link from zone {}", l.zone_id);
        }
        let part = if l.compute_us > l.rtt_p99_us { "compute" } else { "network" };
        let over = l.total_us.saturating_sub(l.budget_us);
        format!("{} ms > {} ms, {} over: {part}", ms(l.total_us), ms(l.budget_us), ms(over))
    }
}

/// Milliseconds with as many decimals as are needed, at most three. The part that is named
/// after them is the larger of network and compute: the client's time is the same everywhere.
pub(crate) fn ms(us: u64) -> String {
    let text = format!("{}.{:03}", us / 1000, us % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}
