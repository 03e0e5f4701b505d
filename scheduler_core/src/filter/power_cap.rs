//! The modelled facility power of all that a site holds stays below its cap.

use super::Filter;
use crate::model::Candidate;
use crate::occupancy::Context;
use crate::wire::mumian::api::v1 as api;
use crate::words::kw;

pub struct PowerCap;

impl Filter for PowerCap {
    fn kind(&self) -> api::Filter {
        api::Filter::PowerCap
    }

    fn admits(&self, c: &Candidate<'_>) -> bool {
        let cap_mw = c.site.site.power_cap_mw;
        cap_mw == 0 || c.context.is_none_or(|context| at_meter_uw(c, &context, true) <= u128::from(cap_mw) * 1000)
    }

    fn reason(&self, c: &Candidate<'_>) -> String {
        let Some(context) = c.context else { return String::new() };
        let (before, after) = (at_meter_uw(c, &context, false), at_meter_uw(c, &context, true));
        let cap = kw(u128::from(c.site.site.power_cap_mw) * 1000);
        format!("power cap: {} kW + {} kW > {cap} kW at the meter", kw(before), kw(after - before))
    }

    fn curable_by_preemption(&self) -> bool {
        true
    }
}

/// Facility power of the site without or with the task, in microwatt.
fn at_meter_uw(c: &Candidate<'_>, context: &Context<'_>, with_task: bool) -> u128 {
    let it_uw = context.it_power_uw(c.at.site) + if with_task { c.it_power_uw() } else { 0 };
    it_uw.saturating_mul(u128::from(c.site.marginal_permille())) / 1000
}
