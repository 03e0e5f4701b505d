//! The smallest single change of a job that would place more of it. Every change that is told
//! was tried: the changed job was placed.

mod coupling;

use std::collections::BTreeSet;

use crate::cluster::NodeState;
use crate::cost;
use crate::filter::{FIXED_STAGES, STAGES};
use crate::model::{models, Candidate, Demand, WHOLE_DEVICE_MILLI};
use crate::trial::Trial;
use crate::wire::mumian::api::v1 as api;
use crate::words::{self, ms, thousandths};

/// How much a change of words weighs beside one of a figure: as much as asking for nothing, or
/// for twice as much.
const WORD: u64 = 1000;

/// One change, and the same in words.
struct Change {
    /// Change of the figure, in permille of what was asked.
    size: u64,
    spec: api::JobSpec,
    told: api::Relaxation,
}

/// The changes of one field, smallest first. Where one helps, larger ones help too.
type Changes = Vec<Change>;

/// Looks at every node once, then tries changes of one field after the other. `helped` places a
/// changed job and says to which site the task would go that found no node before.
pub fn smallest(
    trial: &mut Trial<'_>,
    spec: &api::JobSpec,
    group: usize,
    mut helped: impl FnMut(&mut Trial<'_>, &api::JobSpec) -> Option<String>,
) -> Option<api::Relaxation> {
    let mut best: Option<(u64, api::Relaxation)> = None;
    for changes in fields(trial, spec, group) {
        // Of one field, the first change that helps is found by halving.
        let (mut low, mut high) = (0, changes.len());
        let size_max = best.as_ref().map_or(u64::MAX, |(size, _)| *size);
        while low < high {
            let middle = if is_ordered(&changes) { (low + high) / 2 } else { low };
            let change = &changes[middle];
            if change.size >= size_max {
                high = middle;
            } else if let Some(site_id) = helped(trial, &change.spec) {
                best = Some((change.size, api::Relaxation { site_id, ..change.told.clone() }));
                high = middle;
            } else {
                low = middle + 1;
            }
        }
    }
    best.map(|(_, relaxation)| relaxation)
}

/// Words are not ordered: each is tried until one helps.
fn is_ordered(changes: &Changes) -> bool {
    changes.iter().all(|change| change.size != WORD)
}

/// For each field of the job that keeps some node out, the values that would let one in.
fn fields(trial: &Trial<'_>, spec: &api::JobSpec, group: usize) -> Vec<Changes> {
    let demand = Demand::of(spec, &spec.task_groups[group]);
    let others = neighbours(spec, group);
    let mut wanted = Wanted::default();
    for at in trial.cluster.nodes() {
        let node = trial.node(at);
        let accepted = models(node, &demand).collect::<Vec<_>>();
        let refused = node.models().map(Some).filter(|m| demand.accelerators.is_some() && !accepted.contains(m));
        for model in accepted.iter().copied().chain(refused) {
            let is_accepted = accepted.contains(&model);
            let c = trial.candidate(at, &demand, model);
            let refused = STAGES[..FIXED_STAGES].iter().filter(|filter| !filter.admits(&c));
            let mut kinds: Vec<_> = refused.map(|filter| filter.kind()).collect();
            if !is_accepted {
                kinds.push(api::Filter::AcceleratorModel);
            }
            match kinds[..] {
                [] => wanted.room(&c, &others),
                [kind] => wanted.facts(kind, &c),
                _ => {} // no single change lets this node in
            }
        }
    }
    let mut changes = wanted.changes(spec, group, &demand);
    changes.extend(coupling::changes(trial, spec, group));
    changes
}

/// What other tasks of the job may take beside one of this group: nothing, a task of one other
/// group, or one of each.
fn neighbours(spec: &api::JobSpec, group: usize) -> Vec<api::Resources> {
    let others = spec.task_groups.iter().enumerate().filter(|(i, _)| *i != group);
    let mut others: Vec<_> = others.filter_map(|(_, other)| other.resources.clone()).collect();
    let sum = |amount: fn(&api::Resources) -> u64| others.iter().map(amount).sum();
    let all = api::Resources { cpu_milli: sum(|r| r.cpu_milli), memory_mib: sum(|r| r.memory_mib), accelerators: None };
    others.extend([api::Resources::default(), all]);
    others
}

/// The values that single nodes want of each field.
#[derive(Default)]
struct Wanted {
    budget_us: BTreeSet<u64>,
    pue_permille: BTreeSet<u64>,
    rent_microcny: BTreeSet<u64>,
    cpu_milli: BTreeSet<u64>,
    memory_mib: BTreeSet<u64>,
    accelerator_milli: BTreeSet<u64>,
    models: BTreeSet<String>,
    archs: BTreeSet<String>,
    labels: BTreeSet<String>,
    operators: BTreeSet<String>,
    jurisdictions: BTreeSet<String>,
    /// A node is kept out because only measured links count.
    estimates: bool,
}

/// The most tasks of one node that a smaller task is cut out for.
const SHARES_MAX: u64 = 64;
/// The most values of one field that are tried, nearest first.
const VALUES_MAX: usize = 256;

impl Wanted {
    /// A node that facts let in: the sizes of which so and so many fit there, alone or beside
    /// other groups of the job.
    fn room(&mut self, c: &Candidate<'_>, others: &[api::Resources]) {
        for other in others {
            let cpu_left = c.node.free_cpu_milli().saturating_sub(other.cpu_milli);
            let memory_left = c.node.free_memory_mib().saturating_sub(other.memory_mib);
            self.cpu_milli.extend(parts(cpu_left, c.demand.cpu_milli));
            self.memory_mib.extend(parts(memory_left, c.demand.memory_mib));
        }
        let asked = c.demand.accelerator_milli();
        self.accelerator_milli.extend((1..asked.div_ceil(WHOLE_DEVICE_MILLI)).map(|count| count * WHOLE_DEVICE_MILLI));
        for free in free_of_model(c.node, c.model) {
            self.accelerator_milli.extend(parts(free, asked.min(WHOLE_DEVICE_MILLI)));
        }
    }

    /// A node that one filter about facts keeps out: what that filter wants.
    fn facts(&mut self, kind: api::Filter, c: &Candidate<'_>) {
        let site = &c.site.site;
        match kind {
            api::Filter::Operator => {
                // Who is denied and not allowed either takes two changes.
                let Demand { operators_allowed, operators_denied, .. } = c.demand;
                let is_allowed = operators_allowed.is_empty() || operators_allowed.contains(&site.operator_id);
                if is_allowed || !operators_denied.contains(&site.operator_id) {
                    self.operators.extend(said(&site.operator_id));
                }
            }
            api::Filter::Jurisdiction => self.jurisdictions.extend(said(&site.jurisdiction)),
            api::Filter::PueCeiling => {
                self.pue_permille.extend(site.pue.as_ref().map(|p| u64::from(p.average_permille)).filter(|p| *p > 0));
            }
            api::Filter::RentCeiling => {
                self.rent_microcny.insert(cost::posted_rent_microcny_per_hour(c));
            }
            api::Filter::Arch => self.archs.extend(said(&c.node.node.arch)),
            api::Filter::Labels => {
                let is_wrong = |(key, value): &(&String, &String)| c.node.node.labels.get(*key) != Some(*value);
                let mut wrong = c.demand.labels.iter().filter(is_wrong);
                if let (Some((key, _)), None) = (wrong.next(), wrong.next()) {
                    self.labels.insert(key.clone());
                }
            }
            api::Filter::AcceleratorModel => self.models.extend(c.accelerator().map(|a| a.model.clone())),
            api::Filter::LatencySlo => {
                let latency = c.latency();
                self.estimates |= latency.as_ref().is_some_and(|l| !l.link_known && l.rtt_p99_us > 0);
                self.budget_us.extend(latency.filter(|l| l.link_known).map(|l| l.total_us));
            }
            _ => {} // no job can change a node's health
        }
    }

    fn changes(self, spec: &api::JobSpec, group: usize, demand: &Demand) -> Vec<Changes> {
        use api::Filter as F;
        let figure = |filter, field, from, to, show, set: &dyn Fn(&mut api::JobSpec)| {
            figure(filter, field, (from, to), show, spec, set)
        };
        let of_group = |field: &str| format!("task_groups[{group}].{field}");
        let resources = |s: &mut api::JobSpec, set: &dyn Fn(&mut api::Resources)| {
            if let Some(resources) = &mut s.task_groups[group].resources {
                set(resources);
            }
        };
        let accelerators = |s: &mut api::JobSpec, set: &dyn Fn(&mut api::AcceleratorRequest)| {
            resources(s, &|r| r.accelerators.iter_mut().for_each(set));
        };
        let budget = demand.latency_slo.as_ref().map_or(0, |slo| slo.budget_us);
        let budgets = self.budget_us.into_iter().take(VALUES_MAX).map(|to| {
            figure(F::LatencySlo, of_group("latency_slo.budget_us"), budget, to, |us| format!("{} ms", ms(us)), &|s| {
                s.task_groups[group].latency_slo.iter_mut().for_each(|slo| slo.budget_us = to);
            })
        });
        let pue = u64::from(demand.pue_max_permille);
        let pues = self.pue_permille.into_iter().take(VALUES_MAX).map(|to| {
            let field = "pue_max_permille".to_string();
            figure(F::PueCeiling, field, pue, to, thousandths, &|s| s.pue_max_permille = to as u32)
        });
        let rent = demand.rent_max_microcny_per_hour;
        let rents = self.rent_microcny.into_iter().take(VALUES_MAX).map(|to| {
            let field = "rent_max_microcny_per_hour".to_string();
            figure(F::RentCeiling, field, rent, to, words::rent, &|s| s.rent_max_microcny_per_hour = to)
        });
        let cores = self.cpu_milli.into_iter().rev().take(VALUES_MAX).map(|to| {
            let set = |s: &mut api::JobSpec| resources(s, &|r| r.cpu_milli = to);
            figure(F::Cpu, of_group("resources.cpu_milli"), demand.cpu_milli, to, words::cpu, &set)
        });
        let memory = self.memory_mib.into_iter().rev().take(VALUES_MAX).map(|to| {
            let set = |s: &mut api::JobSpec| resources(s, &|r| r.memory_mib = to);
            figure(F::Memory, of_group("resources.memory_mib"), demand.memory_mib, to, words::memory, &set)
        });
        let devices = self.accelerator_milli.into_iter().rev().take(VALUES_MAX).map(|to| {
            let set = |s: &mut api::JobSpec| accelerators(s, &|a| a.milli = to);
            let from = demand.accelerator_milli();
            figure(F::Accelerators, of_group("resources.accelerators.milli"), from, to, words::any_devices, &set)
        });
        let word = |filter, field: String, from: &[String], to: String, set: &dyn Fn(&mut api::JobSpec)| {
            change(filter, field, (from.join(" or "), to), spec, set)
        };
        let asked_models = demand.accelerators.as_ref().map_or(&[][..], |a| &a.models);
        let models = self.models.into_iter().map(|to| {
            let set = |s: &mut api::JobSpec| accelerators(s, &|a| a.models.push(to.clone()));
            word(F::AcceleratorModel, of_group("resources.accelerators.models"), asked_models, to.clone(), &set)
        });
        let archs = self.archs.into_iter().map(|to| {
            let set = |s: &mut api::JobSpec| s.task_groups[group].archs.push(to.clone());
            word(F::Arch, of_group("archs"), &demand.archs, to.clone(), &set)
        });
        let labels = self.labels.into_iter().map(|key| {
            let set = |s: &mut api::JobSpec| {
                s.task_groups[group].labels.remove(&key);
            };
            let from = demand.labels.get(&key).cloned().unwrap_or_default();
            word(F::Labels, of_group(&format!("labels[{key}]")), &[from], String::new(), &set)
        });
        let operators = self.operators.into_iter().map(|to| {
            if !demand.operators_denied.contains(&to) {
                let set = |s: &mut api::JobSpec| s.operators_allowed.push(to.clone());
                return word(F::Operator, "operators_allowed".into(), &demand.operators_allowed, to.clone(), &set);
            }
            let set = |s: &mut api::JobSpec| s.operators_denied.retain(|denied| *denied != to);
            let left = demand.operators_denied.iter().filter(|o| **o != to).cloned().collect::<Vec<_>>().join(" or ");
            word(F::Operator, "operators_denied".into(), &demand.operators_denied, left, &set)
        });
        let jurisdictions = self.jurisdictions.into_iter().map(|to| {
            let set = |s: &mut api::JobSpec| s.jurisdictions.push(to.clone());
            word(F::Jurisdiction, "jurisdictions".into(), &demand.jurisdictions, to.clone(), &set)
        });
        let estimates = self.estimates.then(|| {
            let field = of_group("latency_slo.measured_only");
            word(F::LatencySlo, field, &["true".into()], "false".into(), &|s| {
                s.task_groups[group].latency_slo.iter_mut().for_each(|slo| slo.measured_only = false);
            })
        });
        vec![
            budgets.collect(),
            cores.collect(),
            memory.collect(),
            devices.collect(),
            pues.collect(),
            rents.collect(),
            operators.collect(),
            jurisdictions.collect(),
            archs.collect(),
            labels.collect(),
            models.collect(),
            estimates.into_iter().collect(),
        ]
    }
}

/// A word that a job can name; nobody can ask for what a site or a node does not say of itself.
fn said(word: &str) -> Option<String> {
    (!word.is_empty()).then(|| word.into())
}

/// What is free, shared out among one, two and so on, where that is less than what is asked.
fn parts(free: u64, asked: u64) -> impl Iterator<Item = u64> {
    (1..=SHARES_MAX).map(move |n| free / n).filter(move |part| (1..asked).contains(part))
}

/// A change of a figure; no figure weighs as much as a word.
fn figure(
    filter: api::Filter,
    field: String,
    (from, to): (u64, u64),
    show: fn(u64) -> String,
    spec: &api::JobSpec,
    set: &dyn Fn(&mut api::JobSpec),
) -> Change {
    Change {
        size: (from.abs_diff(to).saturating_mul(1000) / from.max(1)).min(WORD - 1),
        ..change(filter, field, (show(from), show(to)), spec, set)
    }
}

/// A change of words.
fn change(
    filter: api::Filter,
    field: String,
    (from, to): (String, String),
    spec: &api::JobSpec,
    set: &dyn Fn(&mut api::JobSpec),
) -> Change {
    let mut spec = spec.clone();
    set(&mut spec);
    let told = api::Relaxation { filter: filter.into(), field, from, to, site_id: String::new() };
    Change { size: WORD, spec, told }
}

/// What is free of each device of the model, in milli; each amount once.
fn free_of_model(node: &NodeState, model: Option<usize>) -> BTreeSet<u64> {
    node.devices.iter().filter(|d| Some(d.model) == model).map(|d| d.free_milli()).collect()
}
