//! The problem that follows from a cluster and its jobs, and the way back from seats to placements.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;

use super::in_play::InPlay;
use super::search::Found;
use crate::assignment::problem::{
    range, Class, Column, Device, Kind, Node, Problem, Task, DIMS, FIRST_DEVICE_DIM, NONE, REFUSED,
};
use crate::assignment::solution::{Seat, Solution};
use crate::bound::shadow_prices;
use crate::cluster::{At, Cluster};
use crate::model::{models, Candidate, Demand, Task as ModelTask};
use crate::score::Scorer;
use crate::threads::shared;
use crate::trial::Trial;
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;
use crate::{cost, filter};

/// Devices of one node that a seat can name.
const NODE_DEVICES_MAX: usize = 64;
/// Kinds whose costs are worked out between two questions whether to go on.
const KINDS_PER_ASK: usize = 128;
/// Costs above count as this; a million of them still add up.
const COST_MAX: i64 = 1 << 42;
/// What leaving a task out counts as: so many times the highest cost of any pair, for each
/// step of priority.
const UNPLACED_COSTS: i64 = 16;

/// A problem with the names of its parts.
pub struct Instance<'a> {
    pub problem: Problem,
    pub tasks: Vec<InPlay<'a>>,
    nodes: Vec<At>,
    position: HashMap<At, u32>,
}

impl<'a> Instance<'a> {
    /// The cluster must be as if no task in play stood anywhere. The tasks back where `proceed` says no before
    /// it stands.
    pub fn new(
        cluster: &Cluster,
        policy: &border::Policy,
        tasks: Vec<InPlay<'a>>,
        move_microcny: i64,
        threads: usize,
        proceed: &mut dyn FnMut() -> bool,
    ) -> Result<Self, Vec<InPlay<'a>>> {
        let mut instance = Self { problem: Problem::default(), tasks, nodes: Vec::new(), position: HashMap::new() };
        instance.add_nodes(cluster);
        let demands = instance.add_kinds();
        if !instance.add_costs(cluster, policy, &demands, threads, proceed) {
            return Err(instance.tasks);
        }
        instance.add_tasks(move_microcny);
        instance.make_room_for_homes(cluster);
        Ok(instance)
    }

    fn add_nodes(&mut self, cluster: &Cluster) {
        let mut classes: HashMap<(u32, Vec<u8>), usize> = HashMap::new();
        let mut members: Vec<Vec<At>> = Vec::new();
        for at in cluster.nodes() {
            // All that filters and costs ask of a node but its room. Only coupled tasks, which are not in play,
            // ask for its switch and its rack.
            let facts = api::Node {
                id: String::new(),
                cpu_milli: 0,
                memory_mib: 0,
                switch_id: String::new(),
                rack_id: String::new(),
                ..(*cluster.node(at).node).clone()
            };
            let class = *classes.entry((at.site, facts.encode_to_vec())).or_insert_with(|| {
                members.push(Vec::new());
                members.len() - 1
            });
            members[class].push(at);
        }
        let problem = &mut self.problem;
        for (class, members) in (0..).zip(members) {
            let first = cluster.node(members[0]);
            let start = problem.columns.len() as u32;
            problem.columns.push(Column { class, model: NONE, device_dim: NONE });
            for (rank, model) in first.models().enumerate() {
                let dim = FIRST_DEVICE_DIM + rank;
                let device_dim = if dim < DIMS { dim as u32 } else { NONE };
                problem.columns.push(Column { class, model: model as u32, device_dim });
            }
            let nodes = self.nodes.len() as u32;
            let columns = start..problem.columns.len() as u32;
            problem.classes.push(Class { site: members[0].site, columns, nodes: nodes..nodes + members.len() as u32 });
            for at in members {
                let state = cluster.node(at);
                let devices = problem.devices.len() as u32;
                let mut free = [0; DIMS];
                free[0] = state.free_cpu_milli() as i64;
                free[1] = state.free_memory_mib() as i64;
                for device in state.devices.iter().take(NODE_DEVICES_MAX) {
                    let milli = device.free_milli();
                    problem.devices.push(Device { model: device.model as u32, free_milli: milli as u16 });
                    let rank = state.models().position(|m| m == device.model);
                    if let Some(amount) = rank.and_then(|rank| free.get_mut(FIRST_DEVICE_DIM + rank)) {
                        *amount += milli as i64;
                    }
                }
                problem.nodes.push(Node { class, free, devices: devices..problem.devices.len() as u32 });
                self.position.insert(at, self.nodes.len() as u32);
                self.nodes.push(at);
            }
        }
    }

    /// Gives each distinct demand a kind, and each task its kind.
    fn add_kinds(&mut self) -> Vec<Arc<Demand>> {
        let mut demands: Vec<Arc<Demand>> = Vec::new();
        let mut kinds: HashMap<Arc<Demand>, u32> = HashMap::new();
        let mut last: Option<(&Arc<Demand>, u32)> = None;
        for task in &self.tasks {
            let kind = match last {
                Some((demand, kind)) if Arc::ptr_eq(demand, &task.demand) => kind,
                _ => *kinds.entry(task.demand.clone()).or_insert_with(|| {
                    demands.push(task.demand.clone());
                    demands.len() as u32 - 1
                }),
            };
            last = Some((&task.demand, kind));
            self.problem.tasks.push(Task { kind, ..Task::default() });
        }
        self.problem.kinds.extend(demands.iter().map(|demand| {
            let mut amounts = [0; DIMS];
            amounts[0] = demand.cpu_milli as i64;
            amounts[1] = demand.memory_mib as i64;
            Kind { amounts, device_milli: demand.accelerator_milli() as i64 }
        }));
        demands
    }

    /// False when `proceed` ended it early.
    fn add_costs(
        &mut self,
        cluster: &Cluster,
        policy: &border::Policy,
        demands: &[Arc<Demand>],
        threads: usize,
        proceed: &mut dyn FnMut() -> bool,
    ) -> bool {
        let problem = &self.problem;
        let of_kind = |kind: usize| {
            let demand = &demands[kind];
            let mut costs = Vec::with_capacity(problem.columns.len());
            for class in &problem.classes {
                let at = self.nodes[class.nodes.start as usize];
                let node = cluster.node(at);
                for column in &problem.columns[range(&class.columns)] {
                    let model = (column.model != NONE).then_some(column.model as usize);
                    let is_asked = model.is_some() == demand.accelerators.is_some()
                        && models(node, demand).any(|open| open == model);
                    let candidate = candidate(cluster, at, demand, model);
                    if !is_asked || !filter::admits_fixed(&candidate) {
                        costs.push(REFUSED);
                        continue;
                    }
                    let microcny = cost::of(&candidate, policy).total_microcny_per_hour;
                    costs.push(i64::try_from(microcny).unwrap_or(COST_MAX).min(COST_MAX));
                }
            }
            costs
        };
        let mut cost = Vec::with_capacity(demands.len() * problem.columns.len());
        for first in (0..demands.len()).step_by(KINDS_PER_ASK) {
            if !proceed() {
                return false;
            }
            let count = KINDS_PER_ASK.min(demands.len() - first);
            shared(threads, count, |i| of_kind(first + i)).iter().for_each(|costs| cost.extend_from_slice(costs));
        }
        self.problem.cost = cost;
        true
    }

    fn add_tasks(&mut self, move_microcny: i64) {
        let problem = &mut self.problem;
        let highest = problem.cost.iter().copied().filter(|&cost| cost != REFUSED).max().unwrap_or(0) + 1;
        let mut gangs: HashMap<&str, u32> = HashMap::new();
        for (position, (task, facts)) in self.tasks.iter().zip(&mut problem.tasks).enumerate() {
            facts.unplaced_microcny = unplaced_microcny(task.spec, highest);
            if let Some(home) = task.home.as_ref().filter(|_| task.stays) {
                facts.home = self.position[&home.at];
                facts.home_devices = bits(&home.devices).unwrap_or(0);
                facts.move_microcny = move_microcny;
            }
            if task.home.is_none() && task.spec.kind() == api::JobKind::Gang {
                facts.gang = *gangs.entry(&task.job.job_id).or_insert_with(|| {
                    problem.gangs.push(Vec::new());
                    problem.gangs.len() as u32 - 1
                });
                problem.gangs[facts.gang as usize].push(position as u32);
            }
        }
    }

    /// A node that has shrunk may hold more than it has. To stay there is still a solution, so it
    /// must be one of the problem's too, or the bound would prove too much.
    fn make_room_for_homes(&mut self, cluster: &Cluster) {
        let mut held: HashMap<u32, [i64; DIMS]> = HashMap::new();
        for (t, task) in self.tasks.iter().enumerate() {
            let home = task.home.as_ref().filter(|_| task.stays);
            let Some(seat) = home.and_then(|home| self.seat(cluster, t, home.at, &home.devices)) else { continue };
            let kind = &self.problem.kinds[self.problem.tasks[t].kind as usize];
            let sums = held.entry(seat.node).or_default();
            sums.iter_mut().zip(kind.amounts).for_each(|(sum, amount)| *sum += amount);
            if let Some(sum) = sums.get_mut(self.problem.columns[seat.column as usize].device_dim as usize) {
                *sum += kind.device_milli;
            }
        }
        for (node, sums) in held {
            let free = &mut self.problem.nodes[node as usize].free;
            free.iter_mut().zip(sums).for_each(|(free, sum)| *free = sum.max(*free));
        }
    }

    /// The seat that these devices of this node are for a task; none when seats cannot name it.
    pub fn seat(&self, cluster: &Cluster, task: usize, at: At, devices: &[api::DeviceShare]) -> Option<Seat> {
        let node = *self.position.get(&at)?;
        let first = devices.first().map(|share| share.device_index as usize);
        let model = first.and_then(|i| cluster.node(at).devices.get(i)).map_or(NONE, |d| d.model as u32);
        let class = &self.problem.classes[self.problem.nodes[node as usize].class as usize];
        let column = class.columns.clone().find(|&c| self.problem.columns[c as usize].model == model)?;
        let kind = self.problem.tasks[task].kind;
        if self.problem.cost(kind, column) == REFUSED {
            return None;
        }
        Some(Seat { node, column, devices: bits(devices)? })
    }

    /// What the prices say of each site.
    pub fn prices(&self, cluster: &Cluster, found: &Found<'_>) -> Vec<border::ShadowPrice> {
        let node_of = |class: u32| cluster.node(self.nodes[self.problem.classes[class as usize].nodes.start as usize]);
        let name = |class: u32, model: u32| node_of(class).node.accelerators[model as usize].model.clone();
        let prices = shadow_prices(&self.problem, &found.bound.prices, name);
        let told = prices.into_iter().map(|price| border::ShadowPrice {
            site_id: cluster.sites[price.site as usize].site.id.clone(),
            resource: price.resource,
            microcny_per_hour: price.microcny,
        });
        told.collect()
    }

    /// The placement of a task in a seat.
    pub fn placement(&self, cluster: &Cluster, policy: &border::Policy, task: usize, seat: Seat) -> border::Placement {
        let at = self.nodes[seat.node as usize];
        let column = &self.problem.columns[seat.column as usize];
        let model = (column.model != NONE).then_some(column.model as usize);
        let in_play = &self.tasks[task];
        let candidate = candidate(cluster, at, &in_play.demand, model);
        let each = in_play.demand.accelerator_milli().min(crate::model::WHOLE_DEVICE_MILLI) as u32;
        let held = (0..NODE_DEVICES_MAX as u32).filter(|i| seat.devices >> i & 1 == 1);
        border::Placement {
            job_id: in_play.job.job_id.clone(),
            task_group: in_play.group.name.clone(),
            task_index: in_play.index,
            site_id: candidate.site.site.id.clone(),
            node_id: candidate.node.node.id.clone(),
            devices: held.map(|device_index| api::DeviceShare { device_index, milli: each }).collect(),
            cost: Some(if in_play.home.is_some() { cost::of_move } else { cost::of }(&candidate, policy)),
            latency: candidate.latency(),
        }
    }

    /// Adds to the placements of a solution, which come in the order of its tasks, what each strands on its node
    /// beside what stays and those before it: the online placer's price. The sum.
    pub fn strand(
        &self,
        cluster: &Cluster,
        scorer: &Scorer,
        solution: &Solution<'_>,
        placements: &mut [border::Placement],
    ) -> i128 {
        let mut trial = Trial::new(cluster);
        let task = |t: usize| ModelTask { demand: (*self.tasks[t].demand).clone(), coupling: None };
        let seated = (0..self.tasks.len()).filter(|&t| solution.is_placed(t as u32));
        let is_at_home = |t: &usize| self.problem.tasks[*t].home == solution.seat(*t as u32).node;
        for (t, home) in seated.clone().filter(is_at_home).filter_map(|t| Some((t, self.tasks[t].home.as_ref()?))) {
            trial.book(home.at, &task(t), None, &home.devices);
        }
        let mut sum = 0;
        for (t, placement) in seated.filter(|t| !is_at_home(t)).zip(placements) {
            let (task, seat) = (task(t), solution.seat(t as u32));
            let (at, model) = (self.nodes[seat.node as usize], self.problem.columns[seat.column as usize].model);
            let model = (model != NONE).then_some(model as usize);
            let stranded = scorer.stranded_cost(&trial.candidate(at, &task.demand, model));
            let cost = placement.cost.get_or_insert_default();
            cost.fragmentation_microcny_per_hour = stranded;
            cost.total_microcny_per_hour = cost.total_microcny_per_hour.saturating_add(stranded);
            sum += i128::from(stranded);
            trial.book(at, &task, model, &placement.devices);
        }
        sum
    }
}

/// What leaving a task of this job out counts as where no pair costs as much as `highest`.
pub fn unplaced_microcny(spec: &api::JobSpec, highest: i64) -> i64 {
    let steps = UNPLACED_COSTS * (1 + i64::from(spec.priority.min(1000)));
    highest.saturating_mul(steps).min(i64::MAX >> 8)
}

/// Devices as the bits of a seat; none when it cannot name one of them.
pub fn bits(devices: &[api::DeviceShare]) -> Option<u64> {
    devices.iter().try_fold(0, |held, share| Some(held | 1_u64.checked_shl(share.device_index)?))
}

pub fn candidate<'a>(cluster: &'a Cluster, at: At, demand: &'a Demand, model: Option<usize>) -> Candidate<'a> {
    Candidate { at, site: cluster.site(at), node: cluster.node(at), demand, model, context: None }
}
