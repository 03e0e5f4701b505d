//! Checks a plan against a state by asking the filters alone: it knows nothing of the search,
//! so a fault there cannot hide here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::allocation::Allocation;
use crate::cluster::{At, Cluster};
use crate::error::CoreError;
use crate::filter::{rejection, stage, STAGES};
use crate::model::{models, Candidate, Task, WHOLE_DEVICE_MILLI};
use crate::trial::Trial;
use crate::validate;
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;
use crate::words::plural;

/// Why tasks are refused before anything else is asked: whole gangs, and single tasks.
#[derive(Default)]
struct Refused {
    gangs: BTreeMap<String, String>,
    tasks: BTreeMap<(String, String, u32), api::Rejection>,
}

/// One verdict for each placement, in the plan's order. Placements are checked one after the
/// other, each against the state with the accepted ones before it. Each task may be placed
/// once; a gang falls as a whole, also when the plan leaves one of its pending tasks out.
///
/// A placement is checked without the allocations that are evicted for it. Those must be there
/// and of lower priority, a gang must be evicted as a whole, and nothing may be evicted that
/// would have room beside the plan. Evictions for a task that is refused are void.
pub fn verify(cluster: &Cluster, request: &border::VerifyRequest) -> border::VerifyResponse {
    let plan = request.plan.clone().unwrap_or_default();
    let jobs: BTreeMap<&str, &border::PendingJob> = request.jobs.iter().map(|j| (j.job_id.as_str(), j)).collect();
    let mut refused = Refused { gangs: incomplete_gangs(&plan, &request.jobs), ..Default::default() };
    // A gang that falls frees what its first tasks had taken, so the rest is looked at again.
    loop {
        let (verdicts, fallen) = pass(cluster, &plan, &jobs, &refused);
        if fallen.gangs.is_empty() && fallen.tasks.is_empty() {
            return border::VerifyResponse { generation: cluster.generation, verdicts };
        }
        refused.gangs.extend(fallen.gangs);
        refused.tasks.extend(fallen.tasks);
    }
}

/// The same for a request from outside.
///
/// # Errors
/// `InvalidField` for jobs that `place` refuses too: their numbers would keep the checks busy for ever.
pub fn verify_checked(cluster: &Cluster, request: &border::VerifyRequest) -> Result<border::VerifyResponse, CoreError> {
    validate::jobs(&request.jobs)?;
    Ok(verify(cluster, request))
}

/// The task that a placement is about.
type Named<'a> = (&'a str, &'a str, u32);

fn named(p: &border::Placement) -> Named<'_> {
    (&p.job_id, &p.task_group, p.task_index)
}

/// The gangs with some, but not all, of their pending tasks in the plan, and why each falls.
fn incomplete_gangs(plan: &border::Plan, jobs: &[border::PendingJob]) -> BTreeMap<String, String> {
    let placed: BTreeSet<Named<'_>> = plan.placements.iter().map(named).collect();
    let mut incomplete = BTreeMap::new();
    for job in jobs {
        let Some(spec) = job.spec.as_ref().filter(|s| s.kind() == api::JobKind::Gang) else { continue };
        let is_missing = |group: &str, index: u32| !placed.contains(&(job.job_id.as_str(), group, index));
        let all = spec.task_groups.iter().flat_map(|g| (0..g.count).map(move |i| (g.name.as_str(), i)));
        let named = job.pending.iter().flat_map(|p| p.task_indexes.iter().map(move |i| (p.task_group.as_str(), *i)));
        let missing = if job.pending.is_empty() {
            all.filter(|(group, index)| is_missing(group, *index)).count()
        } else {
            named.filter(|(group, index)| is_missing(group, *index)).count()
        };
        if missing > 0 {
            let verb = if missing == 1 { "is" } else { "are" };
            let reason = format!("{} of the gang {verb} not in the plan; place all or none", plural(missing, "task"));
            incomplete.insert(job.job_id.clone(), reason);
        }
    }
    incomplete
}

fn pass(
    cluster: &Cluster,
    plan: &border::Plan,
    jobs: &BTreeMap<&str, &border::PendingJob>,
    refused: &Refused,
) -> (Vec<border::PlacementVerdict>, Refused) {
    let mut trial = Trial::new(cluster);
    for (job_id, job) in jobs {
        job.spec.iter().for_each(|spec| trial.enter(job_id, spec));
    }
    let mut fallen = Refused::default();
    let mut seen = BTreeSet::new();
    let mut evictions = Evictions::of(plan);
    for placement in &plan.placements {
        let by = named(placement);
        if refused.gangs.contains_key(by.0) || refused.tasks.contains_key(&owned(by)) {
            continue;
        }
        let priority = jobs.get(by.0).and_then(|job| job.spec.as_ref()).map_or(0, |spec| spec.priority);
        if let Err(rejection) = evictions.evict(&mut trial, by, priority) {
            fallen.tasks.insert(owned(by), rejection);
        }
    }
    let mut verdicts = Vec::with_capacity(plan.placements.len());
    for placement in &plan.placements {
        let spec = jobs.get(placement.job_id.as_str()).and_then(|job| job.spec.as_ref());
        let rejection = if let Some(reason) = refused.gangs.get(&placement.job_id) {
            Some(refusal(api::Filter::Gang, reason))
        } else if let Some(rejection) = refused.tasks.get(&owned(named(placement))) {
            Some(rejection.clone())
        } else if seen.insert(named(placement)) {
            take(&mut trial, placement, spec).err()
        } else {
            Some(refusal(api::Filter::Unspecified, "this task is placed twice in the plan; place it once"))
        };
        // What falls for a task that is refused does not fall: all is looked at again without it.
        if let Some(rejection) = rejection.as_ref().filter(|_| evictions.are_made_for(named(placement))) {
            fallen.tasks.insert(owned(named(placement)), rejection.clone());
        }
        let is_gang = spec.is_some_and(|s| s.kind() == api::JobKind::Gang);
        if rejection.is_some() && is_gang && !refused.gangs.contains_key(&placement.job_id) {
            fallen.gangs.insert(placement.job_id.clone(), "another task of the gang does not fit".into());
        }
        verdicts.push(border::PlacementVerdict { accepted: rejection.is_none(), rejection });
    }
    // Who has just fallen leaves room that the next pass gives to others.
    if fallen.gangs.is_empty() && fallen.tasks.is_empty() {
        for (by, victim_id) in evictions.needless(&mut trial) {
            let reason = format!("allocation {victim_id} would have room beside the plan; do not evict it for nothing");
            fallen.tasks.insert(by, refusal(api::Filter::Unspecified, &reason));
        }
    }
    (verdicts, fallen)
}

fn owned((job_id, task_group, index): Named<'_>) -> (String, String, u32) {
    (job_id.into(), task_group.into(), index)
}

/// All that falls together for one task.
struct Fall<'a> {
    by: Named<'a>,
    allocations: Vec<(At, Arc<Allocation>)>,
}

/// The evictions of a plan, and which of them have been made.
struct Evictions<'a> {
    by_task: BTreeMap<Named<'a>, Vec<&'a str>>,
    made: Vec<Fall<'a>>,
}

impl<'a> Evictions<'a> {
    fn of(plan: &'a border::Plan) -> Self {
        let mut by_task: BTreeMap<Named<'a>, Vec<&'a str>> = BTreeMap::new();
        for eviction in &plan.evictions {
            let by = (eviction.by_job_id.as_str(), eviction.by_task_group.as_str(), eviction.by_task_index);
            by_task.entry(by).or_default().push(&eviction.allocation_id);
        }
        Self { by_task, made: Vec::new() }
    }

    /// Makes the evictions for one task of this priority; refused where one is not lawful.
    fn evict(&mut self, trial: &mut Trial<'_>, by: Named<'a>, priority: u32) -> Result<(), api::Rejection> {
        let ids: BTreeSet<&str> = self.by_task.get(&by).into_iter().flatten().copied().collect();
        let wrong = |reason: String| Err(refusal(api::Filter::Unspecified, &reason));
        let mut left = ids.clone();
        while let Some(id) = left.pop_first() {
            let Some(allocation) = trial.cluster.allocations.get(id).cloned() else {
                return wrong(format!("allocation {id}, which it evicts, is gone"));
            };
            let fallen = trial.cluster.fall_with(&allocation);
            for (_, allocation) in &fallen {
                let id = allocation.id.as_ref();
                if allocation.priority >= priority {
                    return wrong(format!("allocation {id} is not of lower priority ({})", allocation.priority));
                }
                if !ids.contains(id) {
                    return wrong(format!("allocation {id} is of a gang that is evicted in part; evict all of it"));
                }
                if self.made.iter().flat_map(|fall| &fall.allocations).any(|(_, other)| other.id == allocation.id) {
                    return wrong(format!("allocation {id} is evicted twice; evict it once"));
                }
            }
            for (at, allocation) in &fallen {
                left.remove(allocation.id.as_ref());
                trial.evict(*at, &allocation.held);
            }
            self.made.push(Fall { by, allocations: fallen });
        }
        Ok(())
    }

    fn are_made_for(&self, by: Named<'a>) -> bool {
        self.made.iter().any(|fall| fall.by == by)
    }

    /// Each eviction that makes room for nothing, by its task and one allocation of it.
    fn needless(self, trial: &mut Trial<'_>) -> Vec<((String, String, u32), String)> {
        let needless = self.made.into_iter().filter_map(|Fall { by, allocations }| {
            let first = allocations.first()?.1.id.to_string();
            trial.reprieve(&allocations).then(|| (owned(by), first))
        });
        needless.collect()
    }
}

fn take(
    trial: &mut Trial<'_>,
    placement: &border::Placement,
    spec: Option<&api::JobSpec>,
) -> Result<(), api::Rejection> {
    let group = spec.and_then(|s| s.task_groups.iter().find(|g| g.name == placement.task_group));
    let (Some(job), Some(group)) = (spec, group) else {
        return Err(refusal(api::Filter::Unspecified, "the job or task group of this placement was not sent"));
    };
    if placement.task_index >= group.count {
        let reason =
            format!("task_index ({}) is not below the count ({}) of the group", placement.task_index, group.count);
        return Err(refusal(api::Filter::Unspecified, &reason));
    }
    let Some(at) = trial.cluster.at(&placement.site_id, &placement.node_id) else {
        return Err(refusal(api::Filter::Health, &format!("node {} is gone", placement.node_id)));
    };
    let task = Task::of(&placement.job_id, job, group);
    // The devices given say which model serves the task; cost and latency are that model's.
    let given = placement.devices.first().and_then(|s| trial.node(at).devices.get(s.device_index as usize));
    let node = trial.node(at);
    let given_or_first = models(node, &task.demand).find(|m| m.is_some() && *m == given.map(|d| d.model));
    let model = given_or_first.or_else(|| models(node, &task.demand).next()).flatten();
    let candidate = trial.candidate_of(at, &task, model);
    if let Some(filter) = STAGES.get(stage(&candidate)) {
        return Err(rejection(*filter, &candidate));
    }
    devices_are_right(&candidate, &placement.devices)?;
    trial.book(at, &task, model, &placement.devices);
    Ok(())
}

/// The very devices of the placement: as many as asked, distinct, of one model that the task
/// takes, and with room.
fn devices_are_right(c: &Candidate<'_>, shares: &[api::DeviceShare]) -> Result<(), api::Rejection> {
    let wrong = |reason: &str| Err(refusal(api::Filter::Accelerators, reason));
    let asked = c.demand.accelerator_milli();
    if asked == 0 {
        return if shares.is_empty() { Ok(()) } else { wrong("devices are given to a task that asks for none") };
    }
    let distinct: BTreeSet<_> = shares.iter().map(|s| s.device_index).collect();
    let (count, each) = (asked.div_ceil(WHOLE_DEVICE_MILLI), asked.min(WHOLE_DEVICE_MILLI));
    let add_up = shares.len() as u64 == count && shares.iter().all(|s| u64::from(s.milli) == each);
    if distinct.len() != shares.len() || !add_up {
        return wrong("the devices do not add up to what the task asks for");
    }
    for share in shares {
        match c.node.devices.get(share.device_index as usize) {
            Some(d) if Some(d.model) == c.model && d.free_milli() >= each => {}
            _ => return wrong("a device of the plan is not there, of another model or full"),
        }
    }
    Ok(())
}

fn refusal(filter: api::Filter, reason: &str) -> api::Rejection {
    api::Rejection { filter: filter.into(), reason: reason.into(), curable_by_preemption: false }
}
