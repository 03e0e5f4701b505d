//! Tasks that must share a domain, such as a switch: which one is chosen before the first of them is placed,
//! by what is free in each, so that a large group does not begin where it cannot end.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Horizon, Outcome, Pending, Placer, Start};
use crate::cluster::{At, NodeState};
use crate::explain::{Room, Shortfall};
use crate::filter;
use crate::model::{models, Demand, WHOLE_DEVICE_MILLI};
use crate::score::Scorer;
use crate::topology;
use crate::trial::Trial;
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;

/// Most choices of domains that are tried for one job.
const TRIES_MAX: usize = 64;

/// Groups whose tasks must share one domain, none of which is chosen yet.
pub(super) struct Set {
    topology: api::Topology,
    /// Positions among the pending groups.
    members: Vec<usize>,
}

/// A domain that could hold some tasks of a set.
struct Domain {
    /// One of its nodes.
    anchor: At,
    /// For each member: what a task costs on some node, and how many have room there, or would have if
    /// nothing ran.
    free: Vec<Vec<(u64, u64)>>,
    empty: Vec<u64>,
}

/// What a domain is good for; less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Tasks of the set that find room.
    seated: Reverse<u64>,
    /// Of those, under the objective.
    cost: u128,
    /// Room beyond: a larger set may need it.
    spare: u64,
}

/// The sets of the pending groups whose domain nothing decides yet.
pub(super) fn sets(trial: &Trial<'_>, groups: &[Pending<'_>]) -> Vec<Set> {
    let mut sets: Vec<(&[String], Set)> = Vec::new();
    for (position, pending) in groups.iter().enumerate().filter(|(_, pending)| !pending.task_indexes.is_empty()) {
        let Some(coupling) = &pending.task.coupling else { continue };
        let Some(asked) = &coupling.together else { continue };
        let context = trial.context(coupling);
        let is_chosen = |group: &String| context.tasks(group).is_some_and(|tasks| tasks.nodes().next().is_some());
        if asked.task_groups.iter().any(is_chosen) {
            continue;
        }
        match sets.iter_mut().find(|(of, _)| *of == asked.task_groups) {
            Some((_, set)) => set.members.push(position),
            None => sets.push((&asked.task_groups, Set { topology: asked.topology, members: vec![position] })),
        }
    }
    sets.into_iter().map(|(_, set)| set).collect()
}

impl Placer<'_, '_> {
    /// Places the groups with the sets in one domain each: where all of them fit, in the cheapest that works,
    /// without evictions if possible. Where none does, a gang is left out, and of other jobs as many tasks are
    /// placed as fit into one domain.
    pub(super) fn together(
        &mut self,
        job: &border::PendingJob,
        groups: &mut [Pending<'_>],
        sets: &[Set],
        start: &Start,
        waits: Option<&Horizon>,
    ) -> Outcome {
        let before: Vec<_> = groups.iter().map(|pending| self.survey(job, pending)).collect();
        let mut domains: Vec<_> = sets.iter().map(|set| domains(&self.trial, groups, set, self.scorer)).collect();
        for (set, domains) in sets.iter().zip(&mut domains) {
            domains.sort_by_key(|domain| (domain.rank(set, groups), domain.anchor));
        }
        let may_preempt = self.may_preempt;
        for by_eviction in [false, true] {
            if by_eviction && !may_preempt {
                break;
            }
            let fits = |set: &Set, domain: &&Domain| {
                if by_eviction {
                    domain.could_hold_all(set, groups)
                } else {
                    domain.holds_all(set, groups)
                }
            };
            let open: Vec<Vec<At>> = (sets.iter().zip(&domains))
                .map(|(set, all)| all.iter().filter(|domain| fits(set, domain)).map(|domain| domain.anchor).collect())
                .collect();
            self.may_preempt = by_eviction;
            for choice in choices(&open) {
                if !self.goes_on {
                    break;
                }
                anchor(groups, sets, &choice);
                self.groups(job, groups, start, waits);
                if self.plan.unplaced.len() == start.unplaced {
                    self.may_preempt = may_preempt;
                    return Outcome { surveys: before, shortfall: Shortfall::None };
                }
                self.back_to(start);
            }
        }
        self.may_preempt = may_preempt;
        if job.spec.as_ref().is_some_and(|spec| spec.kind() == api::JobKind::Gang) {
            self.leave_all(job, groups);
            let shortfall = self.shortfall(groups, sets, &domains, self.plan.unplaced.len() - start.unplaced);
            return Outcome { surveys: before, shortfall };
        }
        let most = self.most(job, groups, sets, &domains, start, waits);
        anchor(groups, sets, &most);
        self.groups(job, groups, start, waits)
    }

    /// The domains that leave the fewest tasks out; empty when none takes any.
    fn most(
        &mut self,
        job: &border::PendingJob,
        groups: &mut [Pending<'_>],
        sets: &[Set],
        domains: &[Vec<Domain>],
        start: &Start,
        waits: Option<&Horizon>,
    ) -> Vec<At> {
        let seated = |set: &Set, domain: &Domain| domain.rank(set, groups).seated.0;
        let ranked: Vec<Vec<(At, u64)>> = (sets.iter().zip(domains))
            .map(|(set, all)| all.iter().map(|domain| (domain.anchor, seated(set, domain))).collect())
            .collect();
        let asked: u64 = sets.iter().flat_map(|set| &set.members).map(|&member| count(groups, member)).sum();
        let mut best: (u64, Vec<At>) = (u64::MAX, Vec::new());
        for choice in choices(&ranked) {
            if !self.goes_on {
                break;
            }
            let least_left = asked - choice.iter().map(|(_, seated)| seated).sum::<u64>();
            if best.0 <= least_left {
                continue;
            }
            let places: Vec<At> = choice.into_iter().map(|(at, _)| at).collect();
            anchor(groups, sets, &places);
            self.groups(job, groups, start, waits);
            let left = (self.plan.unplaced.len() - start.unplaced) as u64;
            self.back_to(start);
            if left < best.0 {
                best = (left, places);
            }
        }
        best.1
    }

    /// What is told of a gang without a domain: how far the best of each site goes, of the first set that finds none.
    fn shortfall(&self, groups: &[Pending<'_>], sets: &[Set], domains: &[Vec<Domain>], missing: usize) -> Shortfall {
        let is_short = |(set, domains): &(&Set, &Vec<Domain>)| !domains.iter().any(|d| d.holds_all(set, groups));
        let Some((set, domains)) = sets.iter().zip(domains).find(is_short) else { return Shortfall::Gang(missing) };
        let cluster = self.trial.cluster;
        let mut rooms: BTreeMap<String, Room> = BTreeMap::new();
        for domain in domains {
            let site_id = cluster.site(domain.anchor).site.id.clone();
            let name = topology::named(cluster, domain.anchor, set.topology);
            // They come best first.
            rooms.entry(site_id).or_insert_with(|| Room { name, tasks: domain.rank(set, groups).seated.0 });
        }
        let asked = set.members.iter().map(|&member| groups[member].task_indexes.len()).sum();
        Shortfall::Together { asked, topology: set.topology, rooms }
    }
}

impl Domain {
    fn rank(&self, set: &Set, groups: &[Pending<'_>]) -> Rank {
        let mut rank = Rank { seated: Reverse(0), cost: 0, spare: 0 };
        for (offers, &member) in self.free.iter().zip(&set.members) {
            let mut left = groups[member].task_indexes.len() as u64;
            let mut offers = offers.clone();
            offers.sort_unstable();
            for (cost, seats) in offers {
                let taken = seats.min(left);
                left -= taken;
                rank.seated.0 += taken;
                rank.cost += u128::from(cost) * u128::from(taken);
                rank.spare += seats - taken;
            }
        }
        rank
    }

    fn holds_all(&self, set: &Set, groups: &[Pending<'_>]) -> bool {
        let mut each = self.free.iter().zip(&set.members);
        each.all(|(offers, &member)| offers.iter().map(|(_, seats)| seats).sum::<u64>() >= count(groups, member))
    }

    fn could_hold_all(&self, set: &Set, groups: &[Pending<'_>]) -> bool {
        self.empty.iter().zip(&set.members).all(|(seats, &member)| *seats >= count(groups, member))
    }
}

fn count(groups: &[Pending<'_>], member: usize) -> u64 {
    groups[member].task_indexes.len() as u64
}

/// The domains that facts let the set into. What couples tasks otherwise is not asked.
fn domains(trial: &Trial<'_>, groups: &[Pending<'_>], set: &Set, scorer: &Scorer) -> Vec<Domain> {
    let members = set.members.len();
    let mut domains: BTreeMap<(Option<u32>, &str), Domain> = BTreeMap::new();
    let cluster = trial.cluster;
    for at in cluster.nodes() {
        let (site, node) = (cluster.site(at), cluster.node(at));
        let Some(key) = topology::key(site, node, at.site, set.topology) else { continue };
        let emptied = emptied(node);
        for (m, &member) in set.members.iter().enumerate() {
            let (demand, most) = (&groups[member].task.demand, count(groups, member));
            for model in models(trial.node(at), demand) {
                let c = trial.candidate(at, demand, model);
                if !filter::admits_fixed(&c) {
                    continue;
                }
                let new = || Domain { anchor: at, free: vec![Vec::new(); members], empty: vec![0; members] };
                let domain = domains.entry(key).or_insert_with(new);
                domain.free[m].push((scorer.fixed(&c), seats(c.node, model, demand, most)));
                domain.empty[m] += seats(&emptied, model, demand, most);
            }
        }
    }
    domains.into_values().collect()
}

/// A node on which nothing runs.
fn emptied(node: &NodeState) -> NodeState {
    let mut node = node.clone();
    (node.used_cpu_milli, node.used_memory_mib) = (0, 0);
    node.devices.iter_mut().for_each(|device| device.used_milli = 0);
    node
}

/// How many tasks the node has room for on its devices of one model, `most` at the most.
fn seats(node: &NodeState, model: Option<usize>, demand: &Demand, most: u64) -> u64 {
    let part = |free: u64, each: u64| free.checked_div(each).unwrap_or(most);
    let of_model = || node.devices.iter().filter(|device| Some(device.model) == model);
    let milli = demand.accelerator_milli();
    let by_devices = match milli {
        0 => most,
        1..WHOLE_DEVICE_MILLI => of_model().map(|device| device.free_milli() / milli).sum(),
        _ => {
            let whole = of_model().filter(|device| device.free_milli() == WHOLE_DEVICE_MILLI).count() as u64;
            whole / (milli / WHOLE_DEVICE_MILLI)
        }
    };
    let by_cpu = part(node.free_cpu_milli(), demand.cpu_milli);
    by_devices.min(by_cpu).min(part(node.free_memory_mib(), demand.memory_mib)).min(most)
}

/// A domain for each set, best first: all first choices, then each second one of the last set, and so on.
fn choices<T: Copy>(open: &[Vec<T>]) -> impl Iterator<Item = Vec<T>> + '_ {
    let count = open.iter().map(Vec::len).fold(1, usize::saturating_mul);
    (0..count.min(TRIES_MAX)).map(|number| {
        let mut rest = number;
        let mut choice = Vec::with_capacity(open.len());
        for of_set in open.iter().rev() {
            choice.push(of_set[rest % of_set.len()]);
            rest /= of_set.len();
        }
        choice.reverse();
        choice
    })
}

/// Lets each set into its domain only.
fn anchor(groups: &mut [Pending<'_>], sets: &[Set], choice: &[At]) {
    for (set, at) in sets.iter().zip(choice) {
        for &member in &set.members {
            let coupling = groups[member].task.coupling.as_mut().map(Arc::make_mut);
            coupling.and_then(|c| c.together.as_mut()).into_iter().for_each(|asked| asked.anchor = Some(*at));
        }
    }
}
