//! What runs, as it stands: what each allocation costs here and now, and which promise a change
//! of the fleet has broken.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cluster::At;
use crate::cost;
use crate::coupling::Coupling;
use crate::error::CoreError;
use crate::filter::{rejection, stage, STAGES};
use crate::model::{models, Task};
use crate::occupancy::Load;
use crate::state::{Standing, State};
use crate::trial::Trial;
use crate::validate;
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;

/// Assesses each running task of the request as if it came anew to the very place that it has.
///
/// # Errors
/// `InvalidField` for a time or jobs that `place` refuses too, and for running tasks of no job of the request.
pub fn assess(state: &State, request: &border::AssessRequest) -> Result<border::AssessResponse, CoreError> {
    validate::policy(request.policy.as_ref())?;
    validate::now(request.now_unix_s)?;
    validate::jobs(&request.jobs)?;
    let jobs: HashMap<&str, &border::PendingJob> = request.jobs.iter().map(|j| (j.job_id.as_str(), j)).collect();
    let policy = request.policy.clone().unwrap_or_default();
    let cluster = state.snapshot();
    let mut trial = Trial::new(&cluster);
    let mut assessments = Vec::with_capacity(request.running.len());
    for (i, running) in request.running.iter().enumerate() {
        let (job, group) = job_of(&jobs, i, running)?;
        let assessment = match state.allocation(&running.allocation_id) {
            None => border::Assessment { gone: true, ..Default::default() },
            Some(standing) => {
                let Task { demand, coupling } = Task::of(&running.job_id, job, group);
                let task = Task { demand: demand.starting(request.now_unix_s), coupling };
                trial.enter(&running.job_id, job);
                let all_there = trial.mark();
                let model = vacate(&mut trial, state, &standing, running, &task);
                let priced_by = (!request.promises_only).then_some(&policy);
                let assessment = assessment(&trial, standing.at, &task, model, priced_by);
                trial.undo_one(all_there);
                assessment
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

/// Takes the task away, so that it does not stand in its own way, and says which model of device it has.
fn vacate(
    trial: &mut Trial<'_>,
    state: &State,
    standing: &Standing<'_>,
    running: &border::RunningTask,
    task: &Task,
) -> Option<usize> {
    let Standing { at, held, zone_traffic } = *standing;
    let node = trial.node(at);
    let model = held.model_on(node);
    let it_power_uw = node.it_power_of_uw(held);
    let compute_us = trial.candidate(at, &task.demand, model).compute_us();
    // What was booked is freed, which is not what the job asks for where its spec has changed since.
    let coupling = task.coupling.as_deref().map(|now| {
        let is_counted = state.is_task_of(&running.allocation_id, &running.job_id, &running.task_group);
        let booked = if is_counted { now.clone() } else { Coupling::default() };
        Arc::new(Coupling { zone_traffic: zone_traffic.to_vec(), ..booked })
    });
    trial.vacate(at, held, Load::of_running(coupling, compute_us, it_power_uw));
    model
}

fn assessment(
    trial: &Trial<'_>,
    at: At,
    task: &Task,
    held: Option<usize>,
    priced_by: Option<&border::Policy>,
) -> border::Assessment {
    // A node that has lost its devices is asked about the first model that it could offer instead.
    let model = held.or_else(|| models(trial.node(at), &task.demand).next().flatten());
    let candidate = trial.candidate_of(at, task, model);
    border::Assessment {
        gone: false,
        cost: priced_by.map(|policy| cost::of(&candidate, policy)),
        latency: priced_by.and_then(|_| candidate.latency()),
        broken: STAGES.get(stage(&candidate)).map(|filter| rejection(*filter, &candidate)),
    }
}
