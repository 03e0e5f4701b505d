//! Network RTT p99 + compute + client time within the budget, for the share of users that a hard
//! SLO is about. A soft one refuses nothing: see the cost term of the same name.

use super::Filter;
use crate::model::Candidate;
use crate::wire::mumian::api::v1 as api;
use crate::words::ms;

pub struct LatencySlo;

impl Filter for LatencySlo {
    fn kind(&self) -> api::Filter {
        api::Filter::LatencySlo
    }

    fn admits(&self, c: &Candidate<'_>) -> bool {
        let Some(slo) = c.demand.latency_slo.as_ref().filter(|slo| slo.soft_microcny_per_ms_hour == 0) else {
            return true;
        };
        c.reaches().last().is_none_or(|worst| worst.link_known && worst.total_us <= slo.budget_us)
    }

    fn reason(&self, c: &Candidate<'_>) -> String {
        let Some(l) = c.latency() else { return String::new() };
        if !l.link_known && l.rtt_p99_us > 0 {
            let (rtt, error) = (ms(l.rtt_p99_us), ms(l.rtt_error_us));
            return format!(
                "the link from zone {} is not measured: {rtt} ms is an estimate, {error} of it error",
                l.zone_id
            );
        }
        if !l.link_known {
            return format!("nobody has measured the link from zone {}", l.zone_id);
        }
        // The larger part is named: the client's time is the same everywhere.
        let part = if l.compute_us > l.rtt_p99_us { "compute" } else { "network" };
        let over = l.total_us.saturating_sub(l.budget_us);
        let estimate = match l.rtt_error_us {
            0 => String::new(),
            error => format!(", of which {} are the error of an estimate", ms(error)),
        };
        format!("{} ms > {} ms, {} over: {part}{estimate}", ms(l.total_us), ms(l.budget_us), ms(over))
    }
}
