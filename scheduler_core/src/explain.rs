//! The reason of a decision: how each site fared, and what each filter refused.

use std::cmp::Reverse;

use crate::cluster::{At, Cluster};
use crate::error::CoreError;
use crate::filter::{rejection, stage, STAGES};
use crate::model::{models, Candidate, Task};
use crate::place;
use crate::score::Scorer;
use crate::trial::Trial;
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;
use crate::words::plural;

/// Explains every group of one job against the state: where its tasks would go, or why not.
pub fn explain(cluster: &Cluster, request: &border::ExplainRequest) -> Result<border::ExplainResponse, CoreError> {
    let job = request.job.clone().unwrap_or_default();
    let job = border::PendingJob { explain: true, ..job };
    let policy = request.policy.clone();
    let now_unix_s = request.now_unix_s;
    let asked = border::PlaceRequest { jobs: vec![job], policy, now_unix_s, ..Default::default() };
    let plan = place::place(cluster, &asked)?;
    Ok(border::ExplainResponse { explanations: plan.explanations.into_iter().filter_map(|e| e.explanation).collect() })
}

/// How every site looked to one task at one moment.
pub(crate) struct Survey {
    nodes: usize,
    /// Nodes refused by each filter, in the order of the stages.
    refused: [usize; STAGES.len()],
    /// Each site that has nodes, with the stage that its best node reached.
    sites: Vec<(usize, api::SiteVerdict)>,
}

/// Asks every node once.
pub(crate) fn survey(trial: &Trial<'_>, task: &Task, scorer: &Scorer) -> Survey {
    let mut survey = Survey { nodes: 0, refused: [0; STAGES.len()], sites: Vec::new() };
    for (s, site) in trial.cluster.sites.iter().enumerate() {
        let at = |node: usize| At { site: s as u32, node: node as u32 };
        let mut best = None;
        let mut feasible = 0;
        for node in 0..site.nodes.len() {
            let offers = models(trial.node(at(node)), &task.demand).map(|model| {
                let c = trial.candidate_of(at(node), task, model);
                (Reverse(stage(&c)), scorer.cost(&c).total_microcny_per_hour, node, model)
            });
            let Some(offer) = offers.min() else { continue };
            match survey.refused.get_mut(offer.0 .0) {
                Some(count) => *count += 1,
                None => feasible += 1,
            }
            best = best.filter(|least| *least <= offer).or(Some(offer));
        }
        let Some((Reverse(stage), _, node, model)) = best else { continue };
        let c = trial.candidate_of(at(node), task, model);
        survey.nodes += site.nodes.len();
        survey.sites.push((stage, verdict(&c, stage, scorer, site.nodes.len(), feasible)));
    }
    survey
}

/// A site by its best node: the cheapest that admits the task, or the one that came furthest.
fn verdict(best: &Candidate<'_>, stage: usize, scorer: &Scorer, nodes: usize, feasible: usize) -> api::SiteVerdict {
    api::SiteVerdict {
        site_id: best.site.site.id.clone(),
        node_count: nodes as u32,
        feasible_node_count: feasible as u32,
        node_id: best.node.node.id.clone(),
        latency: best.latency(),
        pue_average_permille: best.site.site.pue.as_ref().map_or(0, |p| p.average_permille),
        cost: Some(scorer.cost(best)),
        rejection: STAGES.get(stage).map(|filter| rejection(*filter, best)),
        chosen_task_count: 0,
    }
}

impl Survey {
    /// In the user's words; `gang_missing` counts the tasks without a place that made the whole
    /// gang fall.
    pub fn explanation(
        self,
        task_group: &str,
        task_count: usize,
        placed: &[&border::Placement],
        gang_missing: usize,
    ) -> api::Explanation {
        let filters = STAGES.iter().zip(self.refused).filter(|(_, count)| *count > 0);
        let mut rejections: Vec<_> =
            filters.map(|(f, count)| api::FilterCount { filter: f.kind().into(), node_count: count as u32 }).collect();
        let feasible = self.nodes - self.refused.iter().sum::<usize>();
        if gang_missing > 0 && feasible > 0 {
            rejections.push(api::FilterCount { filter: api::Filter::Gang.into(), node_count: feasible as u32 });
        }
        let mut sites = self.sites;
        for (stage, site) in &mut sites {
            site.chosen_task_count = placed.iter().filter(|p| p.site_id == site.site_id).count() as u32;
            if gang_missing > 0 && *stage == STAGES.len() {
                site.rejection = Some(gang_rejection(gang_missing));
            }
        }
        sites.sort_by_key(|(stage, v)| {
            let money = v.cost.map_or(0, |c| c.total_microcny_per_hour);
            (v.chosen_task_count == 0, Reverse(*stage), money, v.site_id.clone())
        });
        let sites: Vec<_> = sites.into_iter().map(|(_, v)| v).collect();
        api::Explanation {
            task_group: task_group.into(),
            task_count: task_count as u32,
            placed_task_count: placed.len() as u32,
            nodes_considered: self.nodes as u32,
            rejections,
            summary: summary(task_count, placed.len(), self.nodes, &sites),
            sites,
            ..Default::default()
        }
    }
}

fn gang_rejection(missing: usize) -> api::Rejection {
    let verb = if missing == 1 { "finds" } else { "find" };
    let reason = format!("gang: {} of the job {verb} no node, so none starts", plural(missing, "task"));
    api::Rejection { filter: api::Filter::Gang.into(), reason, curable_by_preemption: true }
}

fn summary(task_count: usize, placed: usize, nodes: usize, sites: &[api::SiteVerdict]) -> String {
    let outcome = format!("{placed} of {} placed", plural(task_count, "task"));
    if placed == task_count {
        let chosen: Vec<_> = sites.iter().filter(|s| s.chosen_task_count > 0).map(|s| s.site_id.as_str()).collect();
        return if chosen.is_empty() { outcome } else { format!("{outcome}: {}", chosen.join(", ")) };
    }
    let nearest =
        sites.iter().find_map(|s| s.rejection.as_ref().map(|r| format!("; site {}: {}", s.site_id, r.reason)));
    format!("{outcome}, {} considered{}", plural(nodes, "node"), nearest.unwrap_or_default())
}
