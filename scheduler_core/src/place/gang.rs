//! A gang, or another job of coupled tasks, that greed could not place: tries other nodes and devices for its tasks, largest
//! first, by depth-first search. It gives up after a bounded number of looks at nodes, so a
//! small gang is placed whenever it can be, and a large one costs no more than the bound.
//!
//! Three things keep a gang that is hard or impossible to place from costing the bound each time it is asked about. All
//! constraints are monotone (see `coupling`), so only nodes that are open to a group at the start are looked at again. Of
//! nodes that are alike one stands for all: where a task fails on it, it fails on the others. And a seat that leaves some
//! later group without any node is given up at once (forward checking; Haralick and Elliott 1980).

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashSet};

use super::classes::Classes;
use super::{Found, Pending};
use crate::cluster::At;
use crate::filter::{self, Beside};
use crate::model::{models, Demand, WHOLE_DEVICE_MILLI};
use crate::score::Scorer;
use crate::topology;
use crate::trial::Trial;
use crate::wire::mumian::api::v1 as api;

/// Most looks at one candidate for one job: some tens of milliseconds.
const LOOKS_MAX: usize = 200_000;
/// Most tasks, each of which is one step deeper.
const TASKS_MAX: usize = 64;

/// A task of the gang with where it goes.
pub struct Seat {
    pub group: usize,
    pub task_index: u32,
    pub found: Found,
    pub devices: Vec<api::DeviceShare>,
}

/// A place for every task, in order of group and index, or none. The trial is left as it was.
/// Tasks of one group are alike: unless something couples them, what greed cannot place of
/// them, no search can.
/// `looks_left` bounds the looks as well, and is less by as many as there were.
pub fn seats(
    trial: &mut Trial<'_>,
    groups: &[Pending<'_>],
    scorer: &Scorer,
    looks_left: &mut usize,
) -> Option<Vec<Seat>> {
    let count: usize = groups.iter().map(|g| g.task_indexes.len()).sum();
    let is_coupled = groups.iter().any(|g| trial.is_coupled(&g.task));
    if (groups.len() < 2 && !is_coupled) || count > TASKS_MAX {
        return None;
    }
    let mut order: Vec<usize> = (0..groups.len()).collect();
    let size = |d: &Demand| (d.accelerator_milli(), d.cpu_milli, d.memory_mib);
    order.sort_by_key(|&g| Reverse(size(&groups[g].task.demand)));
    let tasks = order.iter().flat_map(|&g| groups[g].task_indexes.iter().map(move |&index| (g, index)));
    let mark = trial.mark();
    let mut search = Gang {
        trial,
        groups,
        scorer,
        tasks: tasks.collect(),
        seats: Vec::new(),
        open: Vec::new(),
        last_open: vec![0; groups.len()],
        classes: Classes::default(),
        counted: counted(groups),
        looks_left: LOOKS_MAX.min(*looks_left),
    };
    let before = search.looks_left;
    search.open = (0..groups.len()).map(|group| search.open_to(group)).collect();
    let is_shut = |group: usize| search.open[group].is_empty() && !groups[group].task_indexes.is_empty();
    let found = !(0..groups.len()).any(is_shut) && search.seat(0);
    *looks_left -= before - search.looks_left;
    let mut seats = std::mem::take(&mut search.seats);
    seats.sort_by_key(|seat| (seat.group, seat.task_index));
    while trial.undo_one(mark).is_some() {}
    found.then_some(seats)
}

struct Gang<'s, 'a> {
    trial: &'s mut Trial<'a>,
    groups: &'s [Pending<'s>],
    scorer: &'s Scorer,
    tasks: Vec<(usize, u32)>,
    seats: Vec<Seat>,
    /// For each group, in order, where its tasks could go before any was seated.
    open: Vec<Vec<Found>>,
    /// For each group, which of these was last found to be open still.
    last_open: Vec<usize>,
    classes: Classes,
    /// The groups whose tasks some constraint of the job counts.
    counted: BTreeSet<String>,
    looks_left: usize,
}

/// What two seats of one task have in common when the nodes are alike in everything that a task of the job can meet.
#[derive(PartialEq, Eq, Hash)]
struct Alike {
    class: u32,
    switch_id: String,
    rack_id: String,
    free_cpu_milli: u64,
    free_memory_mib: u64,
    /// Of each device: its model, and what is free of it.
    devices: Vec<(usize, u64)>,
    /// On the node, of each group that is counted.
    tasks: Vec<u32>,
    model: Option<usize>,
    /// Which of the node's choices of a device.
    choice: usize,
}

struct Choice {
    found: Found,
    number: usize,
    devices: Vec<api::DeviceShare>,
}

/// Nodes that differ in the tasks of these groups are not alike.
fn counted(groups: &[Pending<'_>]) -> BTreeSet<String> {
    let couplings = groups.iter().filter_map(|pending| pending.task.coupling.as_ref());
    let others = couplings.flat_map(|coupling| {
        let together = coupling.together.iter().flat_map(|together| together.task_groups.iter().cloned());
        coupling.apart_from.iter().map(|apart| apart.task_group.clone()).chain(together)
    });
    groups.iter().map(|pending| pending.group.name.clone()).chain(others).collect()
}

impl Gang<'_, '_> {
    /// Seats the tasks from this one on; false leaves the trial as it was.
    fn seat(&mut self, position: usize) -> bool {
        let Some(&(group, task_index)) = self.tasks.get(position) else { return true };
        let mut tried = HashSet::new();
        for Choice { found, number, devices } in self.options(position) {
            if !tried.insert(self.alike(group, found, number)) {
                continue;
            }
            let mark = self.trial.mark();
            self.trial.book(found.at, &self.groups[group].task, found.model, &devices);
            self.seats.push(Seat { group, task_index, found, devices });
            if self.later_groups_are_open(position) && self.seat(position + 1) {
                return true;
            }
            self.seats.pop();
            self.trial.undo_one(mark);
            if self.looks_left == 0 {
                return false;
            }
        }
        false
    }

    /// Every node and model that admits a task of the group now.
    fn open_to(&mut self, group: usize) -> Vec<Found> {
        let groups = self.groups;
        let task = &groups[group].task;
        let together = task.coupling.as_ref().and_then(|coupling| coupling.together.as_ref());
        let domain = together.and_then(|asked| Some((asked.anchor?, asked.topology)));
        let cluster = self.trial.cluster;
        let is_in = |at: &At| domain.is_none_or(|(of, t)| topology::shares(cluster, *at, of, t) == Some(true));
        let mut open = Vec::new();
        for at in cluster.nodes().filter(is_in) {
            for model in models(self.trial.node(at), &task.demand) {
                self.looks_left = self.looks_left.saturating_sub(1);
                if self.admits(group, Found { at, model }) {
                    open.push(Found { at, model });
                }
            }
        }
        open
    }

    /// Whether every group with tasks after this one has a node left.
    fn later_groups_are_open(&mut self, position: usize) -> bool {
        let mut before = None;
        for next in position + 1..self.tasks.len() {
            let group = self.tasks[next].0; // tasks of one group follow one another
            if before.replace(group) != Some(group) && !self.is_open(group) {
                return false;
            }
        }
        true
    }

    fn is_open(&mut self, group: usize) -> bool {
        let open = std::mem::take(&mut self.open[group]);
        let last = self.last_open[group];
        let found = (last..open.len()).chain(0..last).find(|&number| {
            self.looks_left = self.looks_left.saturating_sub(1);
            self.admits(group, open[number])
        });
        self.last_open[group] = found.unwrap_or(last);
        self.open[group] = open;
        found.is_some()
    }

    fn admits(&self, group: usize, found: Found) -> bool {
        let c = self.trial.candidate_of(found.at, &self.groups[group].task, found.model);
        filter::admits_fixed(&c) && filter::admits_now(&c) && filter::beside(&c) == Beside::Admitted
    }

    fn alike(&mut self, group: usize, found: Found, choice: usize) -> Alike {
        let at = found.at;
        let cluster = self.trial.cluster;
        let node = self.trial.node(at);
        let coupling = self.groups[group].task.coupling.as_deref();
        let context = coupling.map(|coupling| self.trial.context(coupling));
        let here = |name: &String| {
            let tasks = context.and_then(|context| context.tasks(name));
            tasks.map_or(0, |tasks| tasks.count(cluster, at, api::Topology::Node))
        };
        Alike {
            class: self.classes.number(at.site, node),
            switch_id: node.node.switch_id.clone(),
            rack_id: node.node.rack_id.clone(),
            free_cpu_milli: node.free_cpu_milli(),
            free_memory_mib: node.free_memory_mib(),
            devices: node.devices.iter().map(|device| (device.model, device.free_milli())).collect(),
            tasks: self.counted.iter().map(here).collect(),
            model: found.model,
            choice,
        }
    }

    /// Every node, model and device for one task, best first. Tasks of one group are alike, so
    /// each looks only from the node of the one before it on.
    fn options(&mut self, position: usize) -> Vec<Choice> {
        let group = self.tasks[position].0;
        let groups = self.groups;
        let task = &groups[group].task;
        let demand = &task.demand;
        let before = self.seats.last().filter(|seat| seat.group == group);
        let first = before.map_or(At { site: 0, node: 0 }, |seat| seat.found.at);
        let open = std::mem::take(&mut self.open[group]);
        let mut options = Vec::new();
        for &found in open.iter().filter(|found| found.at >= first) {
            self.looks_left = self.looks_left.saturating_sub(1);
            if !self.admits(group, found) {
                continue;
            }
            let c = self.trial.candidate_of(found.at, task, found.model);
            let score = self.scorer.score(&c, self.scorer.fixed(&c), 0);
            let is_share = (1..WHOLE_DEVICE_MILLI).contains(&demand.accelerator_milli());
            let mut fullness = BTreeSet::new();
            let devices = c.share_devices().filter(|(_, d)| is_share && fullness.insert(d.free_milli()));
            let mut devices: Vec<_> = devices.map(|(index, d)| (d.free_milli(), Some(index))).collect();
            devices.sort_unstable();
            if !is_share {
                devices.push((0, None));
            }
            let choices = devices.into_iter().map(|(_, index)| c.devices(index)).enumerate();
            options.extend(choices.map(|(number, devices)| (score, Choice { found, number, devices })));
        }
        self.open[group] = open;
        options.sort_by_key(|(score, choice)| (*score, choice.number, choice.found.at, choice.found.model));
        options.into_iter().map(|(_, choice)| choice).collect()
    }
}
