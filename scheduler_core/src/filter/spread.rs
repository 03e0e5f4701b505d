//! At most so many tasks of a group in one node, site or operator.

use super::{domain, Filter};
use crate::model::Candidate;
use crate::occupancy::Context;
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
        refused.is_some_and(|(spread, _)| spread.topology() != api::Topology::Node)
    }

    fn reason(&self, c: &Candidate<'_>) -> String {
        let Some((spread, count)) = c.context.and_then(|context| full(c, &context)) else { return String::new() };
        let most = plural(spread.max_tasks as usize, "task");
        format!("spread: {} already holds {count} of at most {most}", domain(c, spread.topology()))
    }
}

/// The first limit that is reached, with the count of tasks there.
fn full<'a>(c: &Candidate<'_>, context: &Context<'a>) -> Option<(&'a api::Spread, u32)> {
    let tasks = context.tasks(&context.coupling.task_group);
    let count = |spread: &api::Spread| tasks.map_or(0, |t| t.count(context.cluster, c.at, spread.topology()));
    let mut counted = context.coupling.spreads.iter().map(|spread| (spread, count(spread)));
    counted.find(|(spread, count)| *count >= spread.max_tasks)
}
