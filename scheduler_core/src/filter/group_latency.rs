//! RTT p99 between sites + compute time within the budget, between two groups of a job.

use super::Filter;
use crate::model::Candidate;
use crate::occupancy::Context;
use crate::wire::mumian::api::v1 as api;
use crate::words::ms;

pub struct GroupLatency;

impl Filter for GroupLatency {
    fn kind(&self) -> api::Filter {
        api::Filter::GroupLatency
    }

    fn admits(&self, c: &Candidate<'_>) -> bool {
        c.context.is_none_or(|context| pairs(c, context).all(|pair| pair.holds()))
    }

    fn refuses_site(&self, c: &Candidate<'_>) -> bool {
        let is_far = |pair: Pair<'_>| pair.rtt_p99_us.is_none_or(|rtt| rtt > pair.budget_us);
        c.context.is_some_and(|context| pairs(c, context).any(is_far))
    }

    fn reason(&self, c: &Candidate<'_>) -> String {
        let Some(context) = c.context else { return String::new() };
        let broken = pairs(c, context).filter(|pair| !pair.holds());
        let Some(pair) = broken.max_by_key(|pair| (pair.total_us().is_none(), pair.over_us())) else {
            return String::new();
        };
        let (group, site_id) = (pair.task_group, &context.cluster.sites[pair.site as usize].site.id);
        let Some(total_us) = pair.total_us() else {
            return format!("group latency: nobody has measured the link to {group} at {site_id}");
        };
        let part = if pair.compute_us > pair.rtt_p99_us.unwrap_or(0) { "compute" } else { "network" };
        let (total, budget, over) = (ms(total_us), ms(pair.budget_us), ms(pair.over_us()));
        format!("group latency: {group} at {site_id} {total} ms > {budget} ms, {over} over: {part}")
    }
}

/// A promise between the candidate and one site that has tasks of the other group.
struct Pair<'a> {
    task_group: &'a str,
    site: u32,
    /// Unset when nobody has measured it.
    rtt_p99_us: Option<u64>,
    compute_us: u64,
    budget_us: u64,
}

impl Pair<'_> {
    fn total_us(&self) -> Option<u64> {
        self.rtt_p99_us.map(|rtt| rtt.saturating_add(self.compute_us))
    }

    fn over_us(&self) -> u64 {
        self.total_us().unwrap_or(u64::MAX).saturating_sub(self.budget_us)
    }

    fn holds(&self) -> bool {
        self.total_us().is_some_and(|total_us| total_us <= self.budget_us)
    }
}

fn pairs<'a>(c: &Candidate<'a>, context: Context<'a>) -> impl Iterator<Item = Pair<'a>> {
    let (at, own_compute_us) = (c.at, c.compute_us());
    context.coupling.latencies.iter().flat_map(move |latency| {
        let sites = context.tasks(&latency.task_group).into_iter().flat_map(|tasks| tasks.sites());
        sites.map(move |(site, its_compute_us)| Pair {
            task_group: &latency.task_group,
            site,
            rtt_p99_us: context.cluster.rtt_p99_us(at.site, site, latency.measured_only),
            compute_us: if latency.is_own_promise { own_compute_us } else { its_compute_us },
            budget_us: latency.budget_us,
        })
    })
}
