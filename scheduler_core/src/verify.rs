//! Checks a plan against a state by asking the filters alone: it knows nothing of the search,
//! so a fault there cannot hide here.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::Cluster;
use crate::filter::{rejection, stage, STAGES};
use crate::model::{models, Candidate, Task, WHOLE_DEVICE_MILLI};
use crate::trial::Trial;
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;
use crate::words::plural;

/// One verdict for each placement, in the plan's order. Placements are checked one after the
/// other, each against the state with the accepted ones before it. Each task may be placed
/// once; a gang falls as a whole, also when the plan leaves one of its pending tasks out.
pub fn verify(cluster: &Cluster, request: &border::VerifyRequest) -> border::VerifyResponse {
    let plan = request.plan.clone().unwrap_or_default();
    let jobs: BTreeMap<&str, &border::PendingJob> = request.jobs.iter().map(|j| (j.job_id.as_str(), j)).collect();
    let mut refused_gangs = incomplete_gangs(&plan, &request.jobs);
    // A gang that falls frees what its first tasks had taken, so the rest is looked at again.
    loop {
        let (verdicts, fallen) = pass(cluster, &plan, &jobs, &refused_gangs);
        if fallen.is_empty() {
            return border::VerifyResponse { generation: cluster.generation, verdicts };
        }
        refused_gangs.extend(fallen);
    }
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
    refused_gangs: &BTreeMap<String, String>,
) -> (Vec<border::PlacementVerdict>, BTreeMap<String, String>) {
    let mut trial = Trial::new(cluster);
    for (job_id, job) in jobs {
        job.spec.iter().for_each(|spec| trial.enter(job_id, spec));
    }
    let mut fallen = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut verdicts = Vec::with_capacity(plan.placements.len());
    for placement in &plan.placements {
        let spec = jobs.get(placement.job_id.as_str()).and_then(|job| job.spec.as_ref());
        let rejection = if let Some(reason) = refused_gangs.get(&placement.job_id) {
            Some(refusal(api::Filter::Gang, reason))
        } else if seen.insert(named(placement)) {
            take(&mut trial, placement, spec).err()
        } else {
            Some(refusal(api::Filter::Unspecified, "this task is placed twice in the plan; place it once"))
        };
        let is_gang = spec.is_some_and(|s| s.kind() == api::JobKind::Gang);
        if rejection.is_some() && is_gang && !refused_gangs.contains_key(&placement.job_id) {
            fallen.insert(placement.job_id.clone(), "another task of the gang does not fit".into());
        }
        verdicts.push(border::PlacementVerdict { accepted: rejection.is_none(), rejection });
    }
    (verdicts, fallen)
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
