//! The online placer: pending tasks onto the nodes that score best, each task seeing those
//! before it. Nothing is committed: the caller gets a plan.

use std::sync::Arc;

use crate::error::CoreError;
use crate::filter::first_refusal;
use crate::model::Candidate;
use crate::state::{Cluster, SiteState};
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;
use crate::{cost, explain, validate};

/// Smaller is better; ties go to the first site and node by id.
type Score = (u64, u64, u64);

/// The tasks of one group that are to be placed.
pub(crate) struct Pending<'a> {
    pub group: &'a api::TaskGroup,
    pub task_indexes: Vec<u32>,
}

/// Places all jobs of the request, by priority and then in the order given. A gang is placed
/// greedily, group by group, and taken back whole when one task finds no node.
pub fn place(cluster: &Cluster, request: &border::PlaceRequest) -> Result<border::Plan, CoreError> {
    validate::request(request)?;
    let policy = request.policy.unwrap_or_default();
    let mut order: Vec<&border::PendingJob> = request.jobs.iter().collect();
    order.sort_by_key(|job| std::cmp::Reverse(job.spec.as_ref().map_or(0, |spec| spec.priority)));
    let mut plan = border::Plan {
        evaluation_id: request.evaluation_id.clone(),
        base_generation: cluster.generation,
        ..Default::default()
    };
    let seed = seed(&request.evaluation_id, cluster.generation);
    let mut trial = cluster.clone();
    for job in order {
        let spec = spec_of(job)?;
        let before = trial.clone();
        let first = plan.placements.len();
        let first_unplaced = plan.unplaced.len();
        let groups = pending_groups(job, spec)?;
        for pending in &groups {
            for &task_index in &pending.task_indexes {
                let Some(found) = best(&trial, spec, pending.group, &policy, seed ^ u64::from(task_index)) else {
                    plan.unplaced.push(border::UnplacedTask {
                        job_id: job.job_id.clone(),
                        task_group: pending.group.name.clone(),
                        task_index,
                    });
                    continue;
                };
                let placement = placement(&found, job, task_index, &policy);
                book(&mut trial, &placement, pending.group)?;
                plan.placements.push(placement);
            }
        }
        if spec.kind() == api::JobKind::Gang && plan.unplaced.len() > first_unplaced {
            for taken_back in plan.placements.drain(first..) {
                plan.unplaced.push(border::UnplacedTask {
                    job_id: taken_back.job_id,
                    task_group: taken_back.task_group,
                    task_index: taken_back.task_index,
                });
            }
            trial = before.clone();
        }
        if job.explain {
            for pending in &groups {
                let placed = &plan.placements[first..];
                let explanation = explain::group(&before, spec, pending, placed, &policy);
                plan.explanations
                    .push(border::JobExplanation { job_id: job.job_id.clone(), explanation: Some(explanation) });
            }
        }
    }
    Ok(plan)
}

pub(crate) fn spec_of(job: &border::PendingJob) -> Result<&api::JobSpec, CoreError> {
    job.spec.as_ref().ok_or_else(|| CoreError::InvalidField {
        field: "jobs.spec".into(),
        detail: format!("of job {} is missing; send its normalised spec", job.job_id),
    })
}

/// What is to be placed of a job; no list means all tasks of all groups.
pub(crate) fn pending_groups<'a>(
    job: &border::PendingJob,
    spec: &'a api::JobSpec,
) -> Result<Vec<Pending<'a>>, CoreError> {
    if job.pending.is_empty() {
        let all = spec.task_groups.iter().map(|group| Pending { group, task_indexes: (0..group.count).collect() });
        return Ok(all.collect());
    }
    let named = job.pending.iter().map(|pending| {
        let group = spec.task_groups.iter().find(|g| g.name == pending.task_group);
        let group = group.ok_or_else(|| CoreError::InvalidField {
            field: "jobs.pending.task_group".into(),
            detail: format!("({}) is no group of job {}", pending.task_group, job.job_id),
        })?;
        Ok(Pending { group, task_indexes: pending.task_indexes.clone() })
    });
    named.collect()
}

/// The feasible node with the best score.
fn best<'a>(
    cluster: &'a Cluster,
    job: &'a api::JobSpec,
    group: &'a api::TaskGroup,
    policy: &border::Policy,
    seed: u64,
) -> Option<Candidate<'a>> {
    let mut best: Option<(Score, Candidate<'a>)> = None;
    let mut ordinal = 0;
    for candidate in candidates(cluster, job, group) {
        ordinal += 1;
        if first_refusal(&candidate).is_some() {
            continue;
        }
        let score = score(&candidate, policy, mixed(seed, ordinal));
        if best.as_ref().is_none_or(|(least, _)| score < *least) {
            best = Some((score, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Every node of the cluster, in order of site id and node id.
pub(crate) fn candidates<'a>(
    cluster: &'a Cluster,
    job: &'a api::JobSpec,
    group: &'a api::TaskGroup,
) -> impl Iterator<Item = Candidate<'a>> {
    cluster.sites.values().flat_map(move |site: &'a Arc<SiteState>| {
        site.nodes.values().map(move |node| Candidate { site, node, job, group })
    })
}

fn score(c: &Candidate<'_>, policy: &border::Policy, random: u64) -> Score {
    let left = left_over(c);
    match policy.objective() {
        border::Objective::Unspecified | border::Objective::Cost => {
            (cost::of(c, policy).total_microcny_per_hour, left, 0)
        }
        border::Objective::Nearest => (c.latency().map_or(0, |l| l.total_us), left, 0),
        border::Objective::CheapestRent => (cost::rent_microcny_per_hour(c), left, 0),
        border::Objective::Random => (random, 0, 0),
        border::Objective::Pack => (left, cost::of(c, policy).total_microcny_per_hour, 0),
    }
}

/// What the task would leave unused on the node: best fit. Accelerators weigh before cores,
/// because what is left of a device is harder to sell.
fn left_over(c: &Candidate<'_>) -> u64 {
    let devices_free: u64 = c.node.devices.iter().map(|d| d.free_milli()).sum();
    let asked = c.accelerators().map_or(0, |a| a.milli);
    // A device that is in use already is better filled than a whole one opened.
    let opens_device = c.accelerators().and_then(|a| c.node.devices_for(a)).is_some_and(|shares| {
        asked < crate::model::WHOLE_DEVICE_MILLI
            && shares.iter().any(|s| c.node.devices[s.device_index as usize].used_milli == 0)
    });
    let devices_left = devices_free.saturating_sub(asked) + u64::from(opens_device) * 1_000_000;
    let cpu_left = c.node.free_cpu_milli().saturating_sub(c.cpu_milli());
    devices_left.saturating_mul(1 << 24).saturating_add(cpu_left.min((1 << 24) - 1))
}

fn placement(
    c: &Candidate<'_>,
    job: &border::PendingJob,
    task_index: u32,
    policy: &border::Policy,
) -> border::Placement {
    border::Placement {
        job_id: job.job_id.clone(),
        task_group: c.group.name.clone(),
        task_index,
        site_id: c.site.site.id.clone(),
        node_id: c.node.node.id.clone(),
        devices: c.accelerators().and_then(|request| c.node.devices_for(request)).unwrap_or_default(),
        cost: Some(cost::of(c, policy)),
        latency: c.latency(),
    }
}

/// Books a placement in a trial state, under a name that no committed allocation has.
pub(crate) fn book(
    trial: &mut Cluster,
    placement: &border::Placement,
    group: &api::TaskGroup,
) -> Result<(), CoreError> {
    let by = format!("a placement of job {}", placement.job_id);
    let site = trial.site_mut(&placement.site_id, &by)?;
    let node = site.nodes.get_mut(&placement.node_id);
    let node = node.ok_or_else(|| CoreError::UnknownNode { node_id: placement.node_id.clone(), by })?;
    node.add(border::UsedResources {
        allocation_id: format!("plan:{}/{}/{}", placement.job_id, placement.task_group, placement.task_index),
        node_id: placement.node_id.clone(),
        resources: group.resources.clone(),
        devices: placement.devices.clone(),
    });
    Ok(())
}

/// FNV-1a of the evaluation, mixed with the generation: the same decision draws the same numbers.
fn seed(evaluation_id: &str, generation: u64) -> u64 {
    let hash =
        evaluation_id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    mixed(hash, generation)
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn mixed(seed: u64, value: u64) -> u64 {
    let mut z = seed.wrapping_add(value.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
