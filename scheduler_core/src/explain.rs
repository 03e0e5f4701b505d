//! The reason of a decision: how each site fared, and what each filter refused.

use std::collections::BTreeMap;

use crate::error::CoreError;
use crate::filter::{first_refusal, rejection, STAGES};
use crate::model::Candidate;
use crate::place::{candidates, Pending};
use crate::state::Cluster;
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;
use crate::{cost, place};

/// Explains every group of one job against the state: where its tasks would go, or why not.
pub fn explain(cluster: &Cluster, request: &border::ExplainRequest) -> Result<border::ExplainResponse, CoreError> {
    let job = request.job.clone().unwrap_or_default();
    let job = border::PendingJob { explain: true, ..job };
    let asked = border::PlaceRequest { evaluation_id: String::new(), jobs: vec![job], policy: request.policy };
    let plan = place::place(cluster, &asked)?;
    Ok(border::ExplainResponse { explanations: plan.explanations.into_iter().filter_map(|e| e.explanation).collect() })
}

/// Why the tasks of one group went where they did, on the state as it was before them.
pub(crate) fn group(
    before: &Cluster,
    job: &api::JobSpec,
    pending: &Pending<'_>,
    placed: &[border::Placement],
    policy: &border::Policy,
) -> api::Explanation {
    let mut counts = [0_u32; STAGES.len()];
    let mut nodes_considered = 0;
    let mut by_site: BTreeMap<&str, Vec<(usize, Candidate<'_>)>> = BTreeMap::new();
    for candidate in candidates(before, job, pending.group) {
        nodes_considered += 1;
        let stage = first_refusal(&candidate)
            .map_or(STAGES.len(), |refused| STAGES.iter().position(|f| f.kind() == refused.kind()).unwrap_or_default());
        if let Some(count) = counts.get_mut(stage) {
            *count += 1;
        }
        by_site.entry(&candidate.site.site.id).or_default().push((stage, candidate));
    }
    let mine: Vec<_> = placed.iter().filter(|p| p.task_group == pending.group.name).collect();
    let mut verdicts: Vec<(usize, api::SiteVerdict)> = by_site
        .into_values()
        .filter_map(|nodes| {
            let chosen = mine.iter().filter(|p| nodes.iter().any(|(_, c)| c.node.node.id == p.node_id)).count();
            verdict(&nodes, policy, chosen as u32)
        })
        .collect();
    verdicts.sort_by_key(|(stage, v)| {
        let money = v.cost.map_or(0, |c| c.total_microcny_per_hour);
        (v.chosen_task_count == 0, std::cmp::Reverse(*stage), money, v.site_id.clone())
    });
    let filters = STAGES.iter().zip(counts).filter(|(_, count)| *count > 0);
    let sites: Vec<_> = verdicts.into_iter().map(|(_, v)| v).collect();
    let task_count = pending.task_indexes.len() as u32;
    api::Explanation {
        task_group: pending.group.name.clone(),
        task_count,
        placed_task_count: mine.len() as u32,
        nodes_considered,
        rejections: filters.map(|(f, node_count)| api::FilterCount { filter: f.kind().into(), node_count }).collect(),
        summary: summary(task_count, mine.len() as u32, nodes_considered, &sites),
        sites,
        relaxation: None,
        generation: before.generation,
    }
}

/// A site's best node: the cheapest that admits the task, or the one that came furthest.
fn verdict(
    nodes: &[(usize, Candidate<'_>)],
    policy: &border::Policy,
    chosen_task_count: u32,
) -> Option<(usize, api::SiteVerdict)> {
    let (stage, best) = nodes.iter().min_by_key(|(stage, c)| {
        (std::cmp::Reverse(*stage), cost::of(c, policy).total_microcny_per_hour, &c.node.node.id)
    })?;
    let verdict = api::SiteVerdict {
        site_id: best.site.site.id.clone(),
        node_count: nodes.len() as u32,
        feasible_node_count: nodes.iter().filter(|(stage, _)| *stage == STAGES.len()).count() as u32,
        node_id: best.node.node.id.clone(),
        latency: best.latency(),
        pue_average_permille: best.site.site.pue.as_ref().map_or(0, |p| p.average_permille),
        cost: Some(cost::of(best, policy)),
        rejection: STAGES.get(*stage).map(|filter| rejection(*filter, best)),
        chosen_task_count,
    };
    Some((*stage, verdict))
}

fn summary(task_count: u32, placed: u32, nodes: u32, sites: &[api::SiteVerdict]) -> String {
    if placed == task_count {
        let chosen: Vec<_> = sites.iter().filter(|s| s.chosen_task_count > 0).map(|s| s.site_id.as_str()).collect();
        return format!("{placed} of {task_count} tasks placed: {}", chosen.join(", "));
    }
    let nearest =
        sites.iter().find_map(|s| s.rejection.as_ref().map(|r| format!("; site {}: {}", s.site_id, r.reason)));
    format!("{placed} of {task_count} tasks placed, {nodes} nodes considered{}", nearest.unwrap_or_default())
}
