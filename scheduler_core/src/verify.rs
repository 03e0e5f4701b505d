//! Checks a plan against a state by asking the filters alone: it knows nothing of the search,
//! so a fault there cannot hide here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::filter::{first_refusal, rejection};
use crate::model::{accepts_model, Candidate, WHOLE_DEVICE_MILLI};
use crate::state::{Cluster, NodeState};
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;

/// One verdict for each placement, in the plan's order. Placements are checked one after the
/// other, each against the state with the accepted ones before it; a gang falls as a whole.
pub fn verify(cluster: &Cluster, request: &border::VerifyRequest) -> border::VerifyResponse {
    let plan = request.plan.clone().unwrap_or_default();
    let jobs: BTreeMap<&str, &api::JobSpec> =
        request.jobs.iter().filter_map(|j| j.spec.as_ref().map(|spec| (j.job_id.as_str(), spec))).collect();
    let mut refused_gangs = BTreeSet::new();
    // A gang that falls frees what its first tasks had taken, so the rest is looked at again.
    loop {
        let (verdicts, fallen) = pass(cluster, &plan, &jobs, &refused_gangs);
        if fallen.is_empty() {
            return border::VerifyResponse { generation: cluster.generation, verdicts };
        }
        refused_gangs.extend(fallen);
    }
}

fn pass(
    cluster: &Cluster,
    plan: &border::Plan,
    jobs: &BTreeMap<&str, &api::JobSpec>,
    refused_gangs: &BTreeSet<String>,
) -> (Vec<border::PlacementVerdict>, BTreeSet<String>) {
    let mut trial = cluster.clone();
    let mut fallen = BTreeSet::new();
    let mut verdicts = Vec::with_capacity(plan.placements.len());
    for (index, placement) in plan.placements.iter().enumerate() {
        let spec = jobs.get(placement.job_id.as_str()).copied();
        let rejection = if refused_gangs.contains(&placement.job_id) {
            Some(refusal(api::Filter::Gang, "another task of the gang does not fit"))
        } else {
            take(&mut trial, placement, spec, index).err()
        };
        let is_gang = spec.is_some_and(|s| s.kind() == api::JobKind::Gang);
        if rejection.is_some() && is_gang && !refused_gangs.contains(&placement.job_id) {
            fallen.insert(placement.job_id.clone());
        }
        verdicts.push(border::PlacementVerdict { accepted: rejection.is_none(), rejection });
    }
    (verdicts, fallen)
}

fn take(
    trial: &mut Cluster,
    placement: &border::Placement,
    spec: Option<&api::JobSpec>,
    index: usize,
) -> Result<(), api::Rejection> {
    let group = spec.and_then(|s| s.task_groups.iter().find(|g| g.name == placement.task_group));
    let (Some(job), Some(group)) = (spec, group) else {
        return Err(refusal(api::Filter::Unspecified, "the job or task group of this placement was not sent"));
    };
    let gone = || refusal(api::Filter::Health, &format!("node {} is gone", placement.node_id));
    let site = trial.sites.get_mut(&placement.site_id).ok_or_else(gone)?;
    let node = site.nodes.get(&placement.node_id).ok_or_else(gone)?;
    let candidate = Candidate { site, node, job, group };
    if let Some(filter) = first_refusal(&candidate) {
        return Err(rejection(filter, &candidate));
    }
    devices_are_right(node, group, &placement.devices)?;
    let used = border::UsedResources {
        allocation_id: format!("verify:{index}"),
        node_id: placement.node_id.clone(),
        resources: group.resources.clone(),
        devices: placement.devices.clone(),
    };
    if let Some(node) = Arc::make_mut(site).nodes.get_mut(&placement.node_id) {
        node.add(used);
    }
    Ok(())
}

/// The very devices of the placement: as many as asked, distinct, of a model that the task
/// takes, and with room.
fn devices_are_right(
    node: &NodeState,
    group: &api::TaskGroup,
    shares: &[api::DeviceShare],
) -> Result<(), api::Rejection> {
    let wrong = |reason: &str| Err(refusal(api::Filter::Accelerators, reason));
    let request = group.resources.as_ref().and_then(|r| r.accelerators.as_ref()).filter(|a| a.milli > 0);
    let Some(request) = request else {
        return if shares.is_empty() { Ok(()) } else { wrong("devices are given to a task that asks for none") };
    };
    let distinct: BTreeSet<_> = shares.iter().map(|s| s.device_index).collect();
    let total: u64 = shares.iter().map(|s| u64::from(s.milli)).sum();
    let each_is_right =
        request.milli < WHOLE_DEVICE_MILLI || shares.iter().all(|s| u64::from(s.milli) == WHOLE_DEVICE_MILLI);
    if distinct.len() != shares.len()
        || total != request.milli
        || !each_is_right
        || (request.milli < WHOLE_DEVICE_MILLI && shares.len() != 1)
    {
        return wrong("the devices do not add up to what the task asks for");
    }
    for share in shares {
        match node.devices.get(share.device_index as usize) {
            Some(d) if accepts_model(request, &d.model) && d.free_milli() >= u64::from(share.milli) => {}
            _ => return wrong("a device of the plan is not there, of another model or full"),
        }
    }
    Ok(())
}

fn refusal(filter: api::Filter, reason: &str) -> api::Rejection {
    api::Rejection { filter: filter.into(), reason: reason.into(), curable_by_preemption: false }
}
