//! The answer where the time is over before there is a problem to search: what the online placer came to,
//! with nothing moved and nothing proved.

use std::collections::HashMap;

use super::in_play::{at_home, InPlay};
use super::instance::unplaced_microcny;
use super::jobs::{narrow, reason};
use super::stop::Reason;
use crate::cluster::Cluster;
use crate::cost;
use crate::wire::mumian_core::v1 as border;

/// The plan of the online placer as an answer. What is left out counts as if the dearest task that is
/// placed were the dearest pair.
pub fn unsearched(
    cluster: &Cluster,
    policy: &border::Policy,
    in_play: &[InPlay<'_>],
    online: border::Plan,
    why: Reason,
) -> border::OptimizeResponse {
    let costs: HashMap<_, u64> = online
        .placements
        .iter()
        .map(|p| ((p.job_id.as_str(), p.task_group.as_str(), p.task_index), total(p.cost.as_ref())))
        .collect();
    let cost_of = |task: &InPlay<'_>| match &task.home {
        Some(home) if task.stays => {
            Some(cost::of(&at_home(cluster, &task.demand, home), policy).total_microcny_per_hour)
        }
        Some(_) => None,
        None => costs.get(&(task.job.job_id.as_str(), task.group.name.as_str(), task.index)).copied(),
    };
    let cost_of_all: Vec<Option<u64>> = in_play.iter().map(cost_of).collect();
    let highest = cost_of_all.iter().flatten().max().map_or(1, |&cost| narrow(i128::from(cost)).saturating_add(1));
    let cost: i128 = cost_of_all.iter().flatten().map(|&cost| i128::from(cost)).sum();
    let left_out = in_play.iter().zip(&cost_of_all).filter(|(_, cost)| cost.is_none()).map(|(task, _)| task);
    let unplaced = left_out.clone().map(|task| i128::from(unplaced_microcny(task.spec, highest)));
    let account = border::Account {
        cost_microcny_per_hour: narrow(cost),
        placed_task_count: cost_of_all.iter().flatten().count() as u32,
        unplaced_task_count: left_out.count() as u32,
        moved_task_count: 0,
        objective_microcny_per_hour: narrow(cost + unplaced.sum::<i128>()),
    };
    border::OptimizeResponse {
        plan: Some(online),
        start: Some(account),
        found: Some(account),
        stop_reason: reason(why).into(),
        ..Default::default()
    }
}

fn total(cost: Option<&crate::wire::mumian::api::v1::CostBreakdown>) -> u64 {
    cost.map_or(0, |cost| cost.total_microcny_per_hour)
}
