//! A gang, or another job of coupled tasks, that greed could not place: tries other nodes and devices for its tasks, largest
//! first, by depth-first search. It gives up after a bounded number of looks at nodes, so a
//! small gang is placed whenever it can be, and a large one costs no more than the bound.

use std::cmp::Reverse;
use std::collections::BTreeSet;

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
        looks_left: LOOKS_MAX.min(*looks_left),
    };
    let before = search.looks_left;
    let found = search.seat(0);
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
    looks_left: usize,
}

impl Gang<'_, '_> {
    /// Seats the tasks from this one on; false leaves the trial as it was.
    fn seat(&mut self, position: usize) -> bool {
        let Some(&(group, task_index)) = self.tasks.get(position) else { return true };
        for (found, devices) in self.options(position) {
            let mark = self.trial.mark();
            self.trial.book(found.at, &self.groups[group].task, found.model, &devices);
            self.seats.push(Seat { group, task_index, found, devices });
            if self.seat(position + 1) {
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

    /// Every node, model and device for one task, best first. Tasks of one group are alike, so
    /// each looks only from the node of the one before it on.
    fn options(&mut self, position: usize) -> Vec<(Found, Vec<api::DeviceShare>)> {
        let group = self.tasks[position].0;
        let task = &self.groups[group].task;
        let demand = &task.demand;
        let alike = self.seats.last().filter(|seat| seat.group == group);
        let first = alike.map_or(At { site: 0, node: 0 }, |seat| seat.found.at);
        let mut options = Vec::new();
        let together = task.coupling.as_ref().and_then(|coupling| coupling.together.as_ref());
        let domain = together.and_then(|asked| Some((asked.anchor?, asked.topology)));
        let cluster = self.trial.cluster;
        let is_in = |at: &At| domain.is_none_or(|(of, t)| topology::shares(cluster, *at, of, t) == Some(true));
        for at in cluster.nodes().filter(|at| *at >= first && is_in(at)) {
            for model in models(self.trial.node(at), demand) {
                self.looks_left = self.looks_left.saturating_sub(1);
                let c = self.trial.candidate_of(at, task, model);
                if !(filter::admits_fixed(&c) && filter::admits_now(&c) && filter::beside(&c) == Beside::Admitted) {
                    continue;
                }
                let score = self.scorer.score(&c, self.scorer.fixed(&c), 0);
                let is_share = (1..WHOLE_DEVICE_MILLI).contains(&demand.accelerator_milli());
                let mut fullness = BTreeSet::new();
                let devices = c.share_devices().filter(|(_, d)| is_share && fullness.insert(d.free_milli()));
                let mut devices: Vec<_> = devices.map(|(index, d)| (d.free_milli(), Some(index))).collect();
                devices.sort_unstable();
                if !is_share {
                    devices.push((0, None));
                }
                let choices = devices.into_iter().map(|(_, index)| c.devices(index));
                options.extend(choices.enumerate().map(|(i, d)| ((score, i), Found { at, model }, d)));
            }
        }
        options.sort_by_key(|(score, found, _)| (*score, found.at, found.model));
        options.into_iter().map(|(_, found, devices)| (found, devices)).collect()
    }
}
