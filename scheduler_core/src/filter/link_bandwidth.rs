//! What tasks reserve of the link between a zone and a site stays within its bandwidth.

use super::Filter;
use crate::model::Candidate;
use crate::occupancy::Context;
use crate::wire::mumian::api::v1 as api;
use crate::words::mbps;

pub struct LinkBandwidth;

impl Filter for LinkBandwidth {
    fn kind(&self) -> api::Filter {
        api::Filter::LinkBandwidth
    }

    fn admits(&self, c: &Candidate<'_>) -> bool {
        c.context.is_none_or(|context| full(c, &context).is_none())
    }

    fn refuses_site(&self, _candidate: &Candidate<'_>) -> bool {
        true
    }

    fn reason(&self, c: &Candidate<'_>) -> String {
        let Some((traffic, used, limit)) = c.context.and_then(|context| full(c, &context)) else {
            return String::new();
        };
        let (used, limit, asked) = (mbps(used), mbps(limit), mbps(traffic.bandwidth_kbps));
        format!("link bandwidth: {used} of {limit} Mbit/s from zone {} used, {asked} Mbit/s asked", traffic.zone_id)
    }
}

/// The first link without room for the task, with what is used of it and its limit in kbit/s.
fn full<'a>(c: &Candidate<'_>, context: &Context<'a>) -> Option<(&'a api::ZoneTraffic, u64, u64)> {
    let mut limited = context.coupling.zone_traffic.iter().filter_map(|traffic| {
        let limit = c.site.links.get(&traffic.zone_id).map_or(0, |link| link.bandwidth_kbps);
        (limit > 0).then(|| (traffic, context.used_kbps(c.at.site, &traffic.zone_id), limit))
    });
    limited.find(|(traffic, used, limit)| used.saturating_add(traffic.bandwidth_kbps) > *limit)
}
