//! First fit and best fit as plain scans, as good as they get without an index: the nodes lie
//! in one array, and which of them the fixed filters admit is asked once for each demand. The
//! filters are the core's own. Neither knows prices or gangs, and neither writes a plan.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use scheduler_core::cluster::{At, Holding, NodeState};
use scheduler_core::cost;
use scheduler_core::filter;
use scheduler_core::model::{models, Candidate, Demand};
use scheduler_core::state::Cluster;
use scheduler_core::wire::mumian_core::v1 as border;
use serde::Serialize;

/// How a scan chooses among the nodes with room.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The first in order of id.
    FirstFit,
    /// The one with the least left over: devices, then cores.
    BestFit,
}

/// What a scan did before its time was over.
#[derive(Serialize)]
pub struct Outcome {
    pub asked: u64,
    pub placed: u64,
    pub seconds: f64,
    /// Rent, energy and carbon of what was placed.
    pub microcny_per_hour: u64,
}

/// The nodes in one array, with what has been placed on them.
struct Scan<'a> {
    cluster: &'a Cluster,
    places: Vec<At>,
    nodes: Vec<NodeState>,
}

/// Places the tasks in the order that the placer takes them in, until all are asked or the time is over.
pub fn run(cluster: &Cluster, request: &border::PlaceRequest, rule: Rule, limit: Duration) -> Outcome {
    let demands = demands(request);
    let places: Vec<At> = cluster.nodes().collect();
    let nodes = places.iter().map(|at| cluster.node(*at).clone()).collect();
    let mut scan = Scan { cluster, places, nodes };
    let mut admitted: HashMap<&Demand, Vec<(usize, Option<usize>)>> = HashMap::new();
    let mut chosen: Vec<(&Demand, usize, Option<usize>)> = Vec::new();
    let mut asked = 0;
    let start = Instant::now();
    'all: for (demand, count) in &demands {
        let among = admitted.entry(demand).or_insert_with(|| scan.admitted(demand));
        for _ in 0..*count {
            if start.elapsed() > limit {
                break 'all;
            }
            asked += 1;
            if let Some((n, model)) = scan.find(demand, among, rule) {
                scan.take(demand, n, model);
                chosen.push((demand, n, model));
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let policy = request.policy.clone().unwrap_or_default();
    let cost = chosen
        .iter()
        .map(|(demand, n, model)| cost::of(&scan.candidate(*n, demand, *model), &policy).total_microcny_per_hour);
    Outcome { asked, placed: chosen.len() as u64, seconds, microcny_per_hour: cost.sum() }
}

/// What each group asks for, and how often.
fn demands(request: &border::PlaceRequest) -> Vec<(Demand, u32)> {
    let mut specs: Vec<_> = request.jobs.iter().filter_map(|job| job.spec.as_ref()).collect();
    specs.sort_by_key(|spec| std::cmp::Reverse(spec.priority));
    let groups = specs.into_iter().flat_map(|spec| spec.task_groups.iter().map(move |group| (spec, group)));
    groups.map(|(spec, group)| (Demand::of(spec, group), group.count)).collect()
}

impl Scan<'_> {
    fn candidate<'s>(&'s self, n: usize, demand: &'s Demand, model: Option<usize>) -> Candidate<'s> {
        let at = self.places[n];
        Candidate { at, site: self.cluster.site(at), node: &self.nodes[n], demand, model, context: None }
    }

    /// The nodes and models that no fixed filter refuses.
    fn admitted(&self, demand: &Demand) -> Vec<(usize, Option<usize>)> {
        let all = self.nodes.iter().enumerate().flat_map(|(n, node)| models(node, demand).map(move |m| (n, m)));
        all.filter(|(n, model)| filter::admits_fixed(&self.candidate(*n, demand, *model))).collect()
    }

    fn find(&self, demand: &Demand, among: &[(usize, Option<usize>)], rule: Rule) -> Option<(usize, Option<usize>)> {
        let has_room = |(n, model): &(usize, _)| filter::admits_now(&self.candidate(*n, demand, *model));
        let mut roomy = among.iter().copied().filter(has_room);
        match rule {
            Rule::FirstFit => roomy.next(),
            Rule::BestFit => roomy.min_by_key(|(n, _)| left_over(&self.nodes[*n])),
        }
    }

    fn take(&mut self, demand: &Demand, n: usize, model: Option<usize>) {
        let devices = self.candidate(n, demand, model).devices(None);
        self.nodes[n].hold(&Holding { cpu_milli: demand.cpu_milli, memory_mib: demand.memory_mib, devices });
    }
}

fn left_over(node: &NodeState) -> (u64, u64) {
    (node.devices.iter().map(|d| d.free_milli()).sum(), node.free_cpu_milli())
}
