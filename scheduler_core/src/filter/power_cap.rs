//! The modelled facility power of all that a site holds stays below its cap.

use super::Filter;
use crate::model::Candidate;
use crate::occupancy::Context;
use crate::wire::mumian::api::v1 as api;
use crate::words::power;

pub struct PowerCap;

impl Filter for PowerCap {
    fn kind(&self) -> api::Filter {
        api::Filter::PowerCap
    }

    fn admits(&self, c: &Candidate<'_>) -> bool {
        c.site.site.power_cap_mw == 0 || c.context.is_none_or(|context| fits(c, &context, c.it_power_uw()))
    }

    /// Where the task would take least, it takes too much.
    fn refuses_site(&self, c: &Candidate<'_>) -> bool {
        let nodes = || c.site.nodes.iter().map(|n| &n.node);
        let core_mw = nodes().map(|n| n.core_active_power_mw).min().unwrap_or(0);
        let device_mw = nodes().flat_map(|n| &n.accelerators).map(|a| a.active_power_mw).min().unwrap_or(0);
        let cores_uw = u128::from(c.demand.cpu_milli) * u128::from(core_mw);
        let least_uw = cores_uw + u128::from(c.demand.accelerator_milli()) * u128::from(device_mw);
        c.context.is_some_and(|context| !fits(c, &context, least_uw))
    }

    fn reason(&self, c: &Candidate<'_>) -> String {
        let Some(context) = c.context else { return String::new() };
        let (before, after) = (at_meter_nw(c, &context, 0), at_meter_nw(c, &context, c.it_power_uw()));
        let show = |nw: u128| power(nw / NW_PER_MW);
        let cap = power(c.site.site.power_cap_mw.into());
        format!("power cap: {} held + {} asked > {cap} at the meter", show(before), show(after - before))
    }
}

const NW_PER_MW: u128 = 1_000_000;

fn fits(c: &Candidate<'_>, context: &Context<'_>, task_uw: u128) -> bool {
    at_meter_nw(c, context, task_uw) <= u128::from(c.site.site.power_cap_mw) * NW_PER_MW
}

/// Facility power of the site with a task of so much IT power, in nanowatt.
fn at_meter_nw(c: &Candidate<'_>, context: &Context<'_>, task_uw: u128) -> u128 {
    let it_uw = context.it_power_uw(c.at.site) + task_uw;
    it_uw.saturating_mul(c.site.marginal_permille().into())
}
