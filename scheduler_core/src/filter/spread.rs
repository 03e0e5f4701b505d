//! At most so many tasks of a group in one node, switch, rack, site or operator.

use super::{unknown, Filter};
use crate::model::Candidate;
use crate::occupancy::Context;
use crate::topology;
use crate::wire::mumian::api::v1 as api;
use crate::words::plural;

pub struct Spread;

impl Filter for Spread {
    fn kind(&self) -> api::Filter {
        api::Filter::Spread
    }

    fn admits(&self, c: &Candidate<'_>) -> bool {
        c.context.is_none_or(|context| full(c, &context).is_none())
    }

    fn refuses_site(&self, c: &Candidate<'_>) -> bool {
        let refused = c.context.and_then(|context| full(c, &context));
        refused.is_some_and(|(spread, _)| topology::holds_sites(spread.topology()))
    }

    fn reason(&self, c: &Candidate<'_>) -> String {
        let Some(context) = c.context else { return String::new() };
        let Some((spread, count)) = full(c, &context) else { return String::new() };
        if !topology::is_known(&c.node.node, spread.topology()) {
            return format!("spread: {}", unknown(spread.topology()));
        }
        let most = plural(spread.max_tasks as usize, "task");
        let domain = topology::named(context.cluster, c.at, spread.topology());
        format!("spread: {domain} already holds {count} of at most {most}")
    }
}

/// The first limit that is reached, or may be, with the count of tasks there.
fn full<'a>(c: &Candidate<'_>, context: &Context<'a>) -> Option<(&'a api::Spread, u32)> {
    let tasks = context.tasks(&context.coupling.task_group);
    let count = |spread: &api::Spread| tasks.map_or(0, |t| t.count(context.cluster, c.at, spread.topology()));
    let mut counted = context.coupling.spreads.iter().map(|spread| (spread, count(spread)));
    counted.find(|(spread, count)| *count >= spread.max_tasks || !topology::is_known(&c.node.node, spread.topology()))
}
