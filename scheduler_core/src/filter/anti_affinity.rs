//! No task of a group in a domain that has tasks of another group, whichever of them asks for it.

use super::{unknown, Filter};
use crate::model::Candidate;
use crate::occupancy::Context;
use crate::topology;
use crate::wire::mumian::api::v1 as api;
use crate::words::plural;

pub struct AntiAffinity;

impl Filter for AntiAffinity {
    fn kind(&self) -> api::Filter {
        api::Filter::AntiAffinity
    }

    fn admits(&self, c: &Candidate<'_>) -> bool {
        c.context.is_none_or(|context| taken(c, &context).is_none())
    }

    fn refuses_site(&self, c: &Candidate<'_>) -> bool {
        let refused = c.context.and_then(|context| taken(c, &context));
        refused.is_some_and(|(apart, _)| topology::holds_sites(apart.topology()))
    }

    fn reason(&self, c: &Candidate<'_>) -> String {
        let Some(context) = c.context else { return String::new() };
        let Some((apart, count)) = taken(c, &context) else { return String::new() };
        if !topology::is_known(&c.node.node, apart.topology()) {
            return format!("apart: {}", unknown(apart.topology()));
        }
        let domain = topology::named(context.cluster, c.at, apart.topology());
        format!("apart: {domain} already holds {} of group {}", plural(count as usize, "task"), apart.task_group)
    }
}

/// The first other group that has, or may have, tasks in a domain where it must not, with their count.
fn taken<'a>(c: &Candidate<'_>, context: &Context<'a>) -> Option<(&'a api::AntiAffinity, u32)> {
    let count = |apart: &api::AntiAffinity| {
        context.tasks(&apart.task_group).map_or(0, |t| t.count(context.cluster, c.at, apart.topology()))
    };
    let mut counted = context.coupling.apart_from.iter().map(|apart| (apart, count(apart)));
    counted.find(|(apart, count)| *count > 0 || !topology::is_known(&c.node.node, apart.topology()))
}
