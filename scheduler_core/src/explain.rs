//! The reason of a decision: how each site fared, and what each filter refused.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::cluster::{At, Cluster};
use crate::error::CoreError;
use crate::filter::{rejection, stage, STAGES};
use crate::model::{models, Candidate, Task};
use crate::place;
use crate::score::Scorer;
use crate::topology;
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

/// Why tasks are left out that would each find a node.
pub(crate) enum Shortfall {
    None,
    /// So many of a gang find no node, so none starts.
    Gang(usize),
    /// No domain has room for so many; the best one of each site that has any.
    Together {
        asked: usize,
        topology: api::Topology,
        rooms: BTreeMap<String, Room>,
    },
}

/// The best domain of a site, and how many of the tasks it has room for.
pub(crate) struct Room {
    pub name: String,
    pub tasks: u64,
}

impl Shortfall {
    /// Of a site with nodes that would do for one task.
    fn rejection(&self, site_id: &str) -> Option<api::Rejection> {
        let (filter, reason) = match self {
            Self::None => return None,
            Self::Gang(missing) => {
                let verb = if *missing == 1 { "finds" } else { "find" };
                let tasks = plural(*missing, "task");
                (api::Filter::Gang, format!("gang: {tasks} of the job {verb} no node, so none starts"))
            }
            Self::Together { asked, topology, rooms } => {
                let (tasks, word) = (plural(*asked, "task"), topology::word(*topology));
                let best = match rooms.get(site_id) {
                    Some(room) => format!("the best, {}, has room for {}", room.name, room.tasks),
                    None => format!("no {word} here has room for any"),
                };
                (api::Filter::Together, format!("together: {tasks} asked on one {word}; {best}"))
            }
        };
        Some(api::Rejection { filter: filter.into(), reason, curable_by_preemption: true })
    }

    fn filter(&self) -> Option<api::Filter> {
        match self {
            Self::None => None,
            Self::Gang(_) => Some(api::Filter::Gang),
            Self::Together { .. } => Some(api::Filter::Together),
        }
    }

    /// How many tasks find room together at a site.
    fn room(&self, site_id: &str) -> u64 {
        match self {
            Self::Together { rooms, .. } => rooms.get(site_id).map_or(0, |room| room.tasks),
            _ => 0,
        }
    }
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
    /// In the user's words.
    pub fn explanation(
        self,
        task_group: &str,
        task_count: usize,
        placed: &[&border::Placement],
        shortfall: &Shortfall,
    ) -> api::Explanation {
        let filters = STAGES.iter().zip(self.refused).filter(|(_, count)| *count > 0);
        let mut rejections: Vec<_> =
            filters.map(|(f, count)| api::FilterCount { filter: f.kind().into(), node_count: count as u32 }).collect();
        let feasible = self.nodes - self.refused.iter().sum::<usize>();
        if let Some(filter) = shortfall.filter().filter(|_| feasible > 0) {
            let count = rejections.iter_mut().find(|count| count.filter() == filter);
            let node_count = feasible as u32;
            match count {
                Some(count) => count.node_count += node_count,
                None => rejections.push(api::FilterCount { filter: filter.into(), node_count }),
            }
        }
        let mut sites = self.sites;
        for (stage, site) in &mut sites {
            site.chosen_task_count = placed.iter().filter(|p| p.site_id == site.site_id).count() as u32;
            if *stage == STAGES.len() {
                site.rejection = shortfall.rejection(&site.site_id);
            }
        }
        sites.sort_by_key(|(stage, v)| {
            let money = v.cost.map_or(0, |c| c.total_microcny_per_hour);
            let room = Reverse(shortfall.room(&v.site_id));
            (v.chosen_task_count == 0, Reverse(*stage), room, money, v.site_id.clone())
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
