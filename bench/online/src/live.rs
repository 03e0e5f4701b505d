//! The coordinator in small: what it places, it commits.

use scheduler_core::state::{Cluster, State};
use scheduler_core::wire::mumian::api::v1 as api;
use scheduler_core::wire::mumian_core::v1 as border;

/// A state with that fleet.
pub fn state(fleet: &border::Delta) -> State {
    let mut state = State::default();
    state.apply(fleet.clone()).expect("the generated fleet is in range");
    state
}

/// The delta that commits a plan of the request, one allocation a task.
pub fn commit(request: &border::PlaceRequest, plan: &border::Plan) -> border::Delta {
    let resources: std::collections::HashMap<(&str, &str), &Option<api::Resources>> = request
        .jobs
        .iter()
        .flat_map(|job| job.spec.iter().flat_map(|spec| &spec.task_groups).map(|g| (job.job_id.as_str(), g)))
        .map(|(job_id, group)| ((job_id, group.name.as_str()), &group.resources))
        .collect();
    let allocations = plan.placements.iter().map(|p| border::UsedResources {
        allocation_id: format!("{}/{}/{}", p.job_id, p.task_group, p.task_index),
        node_id: p.node_id.clone(),
        resources: resources[&(p.job_id.as_str(), p.task_group.as_str())].clone(),
        devices: p.devices.clone(),
        job_id: p.job_id.clone(),
        task_group: p.task_group.clone(),
        task_index: p.task_index,
        ..Default::default()
    });
    border::Delta { base_generation: plan.base_generation, allocations: allocations.collect(), ..Default::default() }
}

/// Ends the benchmark unless the verifier accepts every placement.
pub fn assert_accepted(cluster: &Cluster, request: &border::PlaceRequest, plan: &border::Plan) {
    let request = border::VerifyRequest { plan: Some(plan.clone()), jobs: request.jobs.clone() };
    let verdicts = scheduler_core::verify::verify(cluster, &request).verdicts;
    let refused = verdicts.iter().find_map(|v| v.rejection.as_ref());
    assert!(refused.is_none(), "the verifier refuses a placement: {refused:?}");
    assert!(!verdicts.is_empty(), "the plan places nothing");
}
