//! Evicts allocations of strictly lower priority for a task that facts admit somewhere, but that
//! finds no room. Chosen is what evicts the least: first the lowest highest priority of all that
//! falls, then the fewest allocations, then the least accelerators, cores and memory, and then
//! the better score. A gang falls as a whole, and all of it counts. What coupling constraints
//! refuse, no eviction cures.

use std::cmp::Reverse;
use std::sync::Arc;

use super::{Found, Horizon, Pending, Placer, Start};
use crate::allocation::Allocation;
use crate::cluster::{At, Holding, NodeState};
use crate::explain::Survey;
use crate::filter::{self, Beside};
use crate::model::{models, Candidate};
use crate::score::Score;
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;
use crate::words::plural;

/// Up to so many victims of one node, every subset is tried; of more, those are spared one after
/// the other that can be, the most important first.
const EXACT_MAX: usize = 8;

/// How much falls: smaller is better.
type Toll = (u32, usize, (u64, u64, u64));

/// What falls together: one allocation or a gang.
pub struct Victim {
    priority: u32,
    allocations: Vec<(At, Arc<Allocation>)>,
}

impl Victim {
    fn size(&self) -> (u64, u64, u64) {
        let devices = |held: &Holding| held.devices.iter().map(|share| u64::from(share.milli)).sum::<u64>();
        self.allocations.iter().fold((0, 0, 0), |(milli, cpu, memory), (_, a)| {
            (milli + devices(&a.held), cpu + a.held.cpu_milli, memory + a.held.memory_mib)
        })
    }

    /// Takes what it holds off the node.
    fn leave(&self, at: At, node: &mut NodeState) {
        let here = self.allocations.iter().filter(|(place, _)| *place == at);
        here.for_each(|(_, allocation)| node.release(&allocation.held));
    }

    /// Gives it back.
    fn stay(&self, at: At, node: &mut NodeState) {
        let here = self.allocations.iter().filter(|(place, _)| *place == at);
        here.for_each(|(_, allocation)| node.hold(&allocation.held));
    }
}

fn toll<'a>(victims: impl Iterator<Item = &'a Victim>) -> Toll {
    victims.fold((0, 0, (0, 0, 0)), |(priority, count, (milli, cpu, memory)), victim| {
        let (m, c, mib) = victim.size();
        (priority.max(victim.priority), count + victim.allocations.len(), (milli + m, cpu + c, memory + mib))
    })
}

/// A victim with the task that it makes room for.
pub struct Evicted {
    victim: Victim,
    job_id: String,
    task_group: String,
    task_index: u32,
}

impl Evicted {
    /// Of all allocations that fall with it.
    pub(super) fn ids(&self) -> impl Iterator<Item = Arc<str>> + '_ {
        self.victim.allocations.iter().map(|(_, allocation)| allocation.id.clone())
    }
}

impl Placer<'_, '_> {
    /// Makes room for one task by evictions and says where; nothing has changed when there is none.
    pub(super) fn preempt(
        &mut self,
        job: &border::PendingJob,
        pending: &Pending<'_>,
        task_index: u32,
    ) -> Option<Found> {
        let priority = job.spec.as_ref().filter(|_| self.may_preempt)?.priority;
        self.preempt_looks_left = self.preempt_looks_left.checked_sub(self.trial.cluster.nodes().count())?;
        let mut best: Option<(Toll, Score, Found, Vec<Victim>)> = None;
        for at in self.trial.cluster.nodes() {
            let victims = self.victims_on(at, priority);
            for model in models(self.trial.node(at), &pending.task.demand) {
                let c = self.trial.candidate_of(at, &pending.task, model);
                if victims.is_empty() || !filter::admits_fixed(&c) || filter::beside(&c) != Beside::Admitted {
                    continue;
                }
                let most = best.as_ref().map(|(toll, ..)| *toll);
                let Some(chosen) = least(&c, at, &victims, most) else { continue };
                let mut node = c.node.clone();
                chosen.iter().for_each(|&i| victims[i].leave(at, &mut node));
                let c = Candidate { node: &node, ..c };
                let score = self.scorer.score(&c, self.scorer.fixed(&c), 0);
                let toll = toll(chosen.iter().map(|&i| &victims[i]));
                if best.as_ref().is_none_or(|(t, s, ..)| (toll, score) < (*t, *s)) {
                    let chosen =
                        chosen.iter().map(|&i| Victim { allocations: victims[i].allocations.clone(), ..victims[i] });
                    best = Some((toll, score, Found { at, model }, chosen.collect()));
                }
            }
        }
        let (_, _, found, victims) = best?;
        for victim in victims {
            self.evict(Evicted {
                victim,
                job_id: job.job_id.clone(),
                task_group: pending.group.name.clone(),
                task_index,
            });
        }
        Some(found)
    }

    /// Places, with evictions, a job whose tasks found no room together. When not all of a gang
    /// fits even so, nothing has changed.
    pub(super) fn by_eviction(
        &mut self,
        job: &border::PendingJob,
        groups: &[Pending<'_>],
        start: &Start,
        horizon: Option<&Horizon>,
    ) -> Option<Vec<Option<Survey>>> {
        if !self.may_preempt {
            return None;
        }
        let is_gang = job.spec.as_ref().is_some_and(|spec| spec.kind() == api::JobKind::Gang);
        let mut surveys = Vec::new();
        for pending in groups {
            surveys.push(self.group(job, pending, horizon, true));
            if is_gang && self.plan.unplaced.len() > start.unplaced {
                self.back_to(start);
                return None;
            }
        }
        Some(surveys)
    }

    /// All that may fall for a task of this priority, of what the node still holds.
    fn victims_on(&self, at: At, priority: u32) -> Vec<Victim> {
        let mut victims: Vec<Victim> = Vec::new();
        for allocation in self.trial.cluster.node(at).allocations.iter() {
            let is_known = victims.iter().flat_map(|v| &v.allocations).any(|(_, a)| a.id == allocation.id);
            if allocation.priority < priority && !is_known && !self.evicted_ids.contains(&allocation.id) {
                let allocations = self.trial.cluster.fall_with(allocation);
                let highest = allocations.iter().map(|(_, a)| a.priority).max().unwrap_or(allocation.priority);
                victims.push(Victim { priority: highest, allocations });
            }
        }
        victims.retain(|victim| victim.priority < priority);
        victims
    }

    fn evict(&mut self, evicted: Evicted) {
        for (at, allocation) in &evicted.victim.allocations {
            self.trial.evict(*at, &allocation.held);
            self.search.touched(&self.trial, *at);
            self.evicted_ids.insert(allocation.id.clone());
        }
        self.evicted.push(evicted);
    }

    /// Forgets evictions that the trial has taken back already.
    pub(super) fn forget_evictions(&mut self, count: usize) {
        for evicted in self.evicted.drain(count..) {
            evicted.ids().for_each(|id| {
                self.evicted_ids.remove(&id);
            });
        }
    }

    /// Spares what need not fall after all, the most important first, and tells the rest in the plan.
    pub(super) fn settle_evictions(&mut self) {
        let mut evicted = std::mem::take(&mut self.evicted);
        evicted.sort_by_key(|e| Reverse(toll(std::iter::once(&e.victim)))); // stable: oldest first
        evicted.retain(|e| {
            let is_needed = !self.trial.reprieve(&e.victim.allocations);
            if !is_needed {
                e.victim.allocations.iter().for_each(|(at, _)| self.search.touched(&self.trial, *at));
            }
            is_needed
        });
        for Evicted { victim, job_id, task_group, task_index } in evicted {
            self.plan.evictions.extend(victim.allocations.into_iter().map(|(_, allocation)| border::Eviction {
                allocation_id: allocation.id.to_string(),
                by_job_id: job_id.clone(),
                by_task_group: task_group.clone(),
                by_task_index: task_index,
            }));
        }
        self.plan.evictions.sort_by(|a, b| a.allocation_id.cmp(&b.allocation_id));
        for told in &mut self.plan.explanations {
            let Some(explanation) = &mut told.explanation else { continue };
            let by = |e: &&border::Eviction| e.by_job_id == told.job_id && e.by_task_group == explanation.task_group;
            let count = self.plan.evictions.iter().filter(by).count();
            if count > 0 {
                explanation.evicted_allocation_count = count as u32;
                let told = plural(count, "allocation");
                explanation.summary += &format!(", in place of {told} of lower priority");
            }
        }
    }
}

/// The victims, by position, that had best fall for the candidate; none when it does not fit even
/// without all of them, or only for more than `most`.
fn least(c: &Candidate<'_>, at: At, victims: &[Victim], most: Option<Toll>) -> Option<Vec<usize>> {
    let fits = |fallen: &[usize]| {
        let mut node = c.node.clone();
        fallen.iter().for_each(|&i| victims[i].leave(at, &mut node));
        filter::admits_now(&Candidate { node: &node, ..*c })
    };
    let mut priorities: Vec<u32> = victims.iter().map(|v| v.priority).collect();
    priorities.sort_unstable();
    priorities.dedup();
    let up_to = |priority: u32| (0..victims.len()).filter(|&i| victims[i].priority <= priority).collect::<Vec<_>>();
    let enough = priorities.partition_point(|&priority| !fits(&up_to(priority)));
    let priority = *priorities.get(enough)?;
    if most.is_some_and(|(highest, ..)| highest < priority) {
        return None;
    }
    // Dearest first, so that they are spared first.
    let mut all = up_to(priority);
    all.sort_by_key(|&i| Reverse(toll(std::iter::once(&victims[i]))));
    let mut node = c.node.clone();
    all.iter().for_each(|&i| victims[i].leave(at, &mut node));
    let mut fallen = Vec::new();
    for &i in &all {
        victims[i].stay(at, &mut node);
        if !filter::admits_now(&Candidate { node: &node, ..*c }) {
            victims[i].leave(at, &mut node);
            fallen.push(i);
        }
    }
    let toll_of = |fallen: &[usize]| toll(fallen.iter().map(|&i| &victims[i]));
    if all.len() <= EXACT_MAX {
        let (_, most, _) = toll_of(&fallen);
        for subset in (1_usize..1 << all.len()).filter(|subset| subset.count_ones() as usize <= most) {
            let chosen: Vec<usize> = (0..all.len()).filter(|bit| subset >> bit & 1 == 1).map(|bit| all[bit]).collect();
            if toll_of(&chosen) < toll_of(&fallen) && fits(&chosen) {
                fallen = chosen;
            }
        }
    }
    Some(fallen)
}
