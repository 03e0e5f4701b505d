//! All tasks of some groups of a job in one node, switch, rack, site or operator.

use super::{unknown, Filter};
use crate::cluster::At;
use crate::coupling;
use crate::model::Candidate;
use crate::topology;
use crate::wire::mumian::api::v1 as api;

pub struct Together;

impl Filter for Together {
    fn kind(&self) -> api::Filter {
        api::Filter::Together
    }

    fn admits(&self, c: &Candidate<'_>) -> bool {
        c.context.is_none_or(|context| match &context.coupling.together {
            Some(asked) => topology::is_known(&c.node.node, asked.topology) && elsewhere(c, asked).is_none(),
            None => true,
        })
    }

    fn refuses_site(&self, c: &Candidate<'_>) -> bool {
        let asked = c.context.and_then(|context| context.coupling.together.as_ref());
        let refused = asked.and_then(|asked| elsewhere(c, asked).map(|other| (asked.topology, other)));
        refused.is_some_and(|(topology, other)| topology::holds_sites(topology) || other.site != c.at.site)
    }

    fn reason(&self, c: &Candidate<'_>) -> String {
        let Some(context) = c.context else { return String::new() };
        let Some(asked) = &context.coupling.together else { return String::new() };
        if !topology::is_known(&c.node.node, asked.topology) {
            return format!("together: {}", unknown(asked.topology));
        }
        let Some(other) = elsewhere(c, asked) else { return String::new() };
        let place = topology::named(context.cluster, other, asked.topology);
        let site = &context.cluster.site(other).site.id;
        let is_told = matches!(asked.topology, api::Topology::Site | api::Topology::Node) || other.site == c.at.site;
        let site = if is_told { String::new() } else { format!(" of {site}") };
        format!("together: the other tasks are on {place}{site}")
    }
}

/// A node outside the candidate's domain that has tasks which must share it, or that was chosen for them.
fn elsewhere(c: &Candidate<'_>, asked: &coupling::Together) -> Option<At> {
    let context = c.context?;
    let groups = asked.task_groups.iter().filter_map(|group| context.tasks(group));
    let mut others = asked.anchor.into_iter().chain(groups.flat_map(|tasks| tasks.nodes()));
    others.find(|other| topology::shares(context.cluster, c.at, *other, asked.topology) != Some(true))
}
