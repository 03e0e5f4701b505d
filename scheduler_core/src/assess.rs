//! What runs, as it stands: what each allocation costs here and now, and which promise a change
//! of the fleet has broken.

use std::collections::HashMap;

use crate::cluster::At;
use crate::cost;
use crate::error::CoreError;
use crate::filter::{rejection, stage, STAGES};
use crate::model::{models, Task};
use crate::state::State;
use crate::trial::Trial;
use crate::validate;
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;

/// Assesses each running task of the request as if it came anew to the very place that it has.
///
/// # Errors
/// `InvalidField` for jobs that `place` refuses too, and for running tasks of no job of the request.
pub fn assess(state: &State, request: &border::AssessRequest) -> Result<border::AssessResponse, CoreError> {
    validate::policy(request.policy.as_ref())?;
    validate::jobs(&request.jobs)?;
    let jobs: HashMap<&str, &border::PendingJob> = request.jobs.iter().map(|j| (j.job_id.as_str(), j)).collect();
    let policy = request.policy.clone().unwrap_or_default();
    let mut assessments = Vec::with_capacity(request.running.len());
    for (i, running) in request.running.iter().enumerate() {
        let (job, group) = job_of(&jobs, i, running)?;
        let assessment = match state.allocation(&running.allocation_id) {
            None => border::Assessment { gone: true, ..Default::default() },
            Some((at, devices)) => {
                let Task { demand, coupling } = Task::of(&running.job_id, job, group);
                let task = Task { demand: demand.starting(request.now_unix_s), coupling };
                assessment(&without(state, &running.allocation_id)?, &running.job_id, job, &task, at, devices, &policy)
            }
        };
        assessments.push(assessment);
    }
    Ok(border::AssessResponse { assessments })
}

/// The job and the group of one running task.
fn job_of<'a>(
    jobs: &HashMap<&str, &'a border::PendingJob>,
    i: usize,
    running: &border::RunningTask,
) -> Result<(&'a api::JobSpec, &'a api::TaskGroup), CoreError> {
    let refuse =
        |field: &str, detail: String| Err(CoreError::InvalidField { field: format!("running[{i}].{field}"), detail });
    let Some(spec) = jobs.get(running.job_id.as_str()).and_then(|job| job.spec.as_ref()) else {
        return refuse("job_id", format!("({}) is not among the jobs; send the job as well", running.job_id));
    };
    match spec.task_groups.iter().find(|g| g.name == running.task_group) {
        Some(group) => Ok((spec, group)),
        None => refuse("task_group", format!("({}) is no group of job {}", running.task_group, running.job_id)),
    }
}

/// The state as if this allocation were not there: it does not stand in its own way.
fn without(state: &State, allocation_id: &str) -> Result<State, CoreError> {
    let mut rest = state.fork();
    rest.apply(border::Delta {
        base_generation: state.generation(),
        removed_allocation_ids: vec![allocation_id.to_string()],
        ..Default::default()
    })?;
    Ok(rest)
}

fn assessment(
    rest: &State,
    job_id: &str,
    job: &api::JobSpec,
    task: &Task,
    at: At,
    devices: &[api::DeviceShare],
    policy: &border::Policy,
) -> border::Assessment {
    let cluster = rest.snapshot();
    let mut trial = Trial::new(&cluster);
    trial.enter(job_id, job);
    let held = devices.first().and_then(|share| cluster.node(at).devices.get(share.device_index as usize));
    // A node that has lost its devices is asked about the first model that it could offer instead.
    let model = held.map(|device| device.model).or_else(|| models(cluster.node(at), &task.demand).next().flatten());
    let candidate = trial.candidate_of(at, task, model);
    border::Assessment {
        gone: false,
        cost: Some(cost::of(&candidate, policy)),
        latency: candidate.latency(),
        broken: STAGES.get(stage(&candidate)).map(|filter| rejection(*filter, &candidate)),
    }
}
