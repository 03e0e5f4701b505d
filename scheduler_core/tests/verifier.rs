//! The verifier refuses what no placer should have made.

use scheduler_core::state::{Cluster, State};
use scheduler_core::wire::mumian::api::v1 as api;
use scheduler_core::wire::mumian_core::v1 as border;
use scheduler_core::{place, verify};

const READY: i32 = api::Health::Ready as i32;

/// One node with a slow card (device 0) and a fast one (device 1).
fn cluster() -> Cluster {
    let site = api::Site { id: "s".into(), health: READY, ..Default::default() };
    let card = |model: &str| api::Accelerator { model: model.into(), count: 1, ..Default::default() };
    let node = api::Node {
        id: "s/n".into(),
        site_id: "s".into(),
        health: READY,
        cpu_milli: 4000,
        accelerators: vec![card("slow"), card("fast")],
        ..Default::default()
    };
    let link = api::Link { from_id: "z".into(), to_site_id: "s".into(), rtt_p99_us: 1000, ..Default::default() };
    let delta =
        border::Delta { reset: true, sites: vec![site], nodes: vec![node], links: vec![link], ..Default::default() };
    let mut state = State::default();
    state.apply(delta).expect("the delta speaks of its own site only");
    state.snapshot()
}

fn job(kind: api::JobKind, count: u32, accelerator_milli: u64) -> border::PendingJob {
    let accelerators = Some(api::AcceleratorRequest { milli: accelerator_milli, models: vec![] });
    let group = api::TaskGroup {
        name: "main".into(),
        count,
        resources: Some(api::Resources { cpu_milli: 1000, memory_mib: 0, accelerators }),
        latency_slo: Some(api::LatencySlo { zone_ids: vec!["z".into()], budget_us: 10_000, client_us: 0 }),
        compute_time: Some(api::ComputeTime {
            by_accelerator_model_us: [("slow".to_string(), 60_000_000), ("fast".to_string(), 500)].into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let spec = api::JobSpec { kind: kind.into(), task_groups: vec![group], ..Default::default() };
    border::PendingJob { job_id: "job".into(), spec: Some(spec), pending: vec![], explain: false }
}

fn plan(job: &border::PendingJob) -> border::Plan {
    let jobs = vec![job.clone()];
    let request = border::PlaceRequest { evaluation_id: "e".into(), jobs, policy: None };
    place::place(&cluster(), &request).expect("the request is in range")
}

/// The reason of each refusal; empty where the placement is accepted.
fn reasons(plan: border::Plan, job: border::PendingJob) -> Vec<String> {
    let request = border::VerifyRequest { plan: Some(plan), jobs: vec![job] };
    let verdicts = verify::verify(&cluster(), &request).verdicts;
    verdicts.into_iter().map(|v| v.rejection.map_or(String::new(), |r| r.reason)).collect()
}

#[test]
fn the_devices_given_are_of_the_model_that_keeps_the_promise() {
    let job = job(api::JobKind::Batch, 1, 400);
    let good = plan(&job);
    assert_eq!(good.placements[0].devices, [api::DeviceShare { device_index: 1, milli: 400 }]);
    assert_eq!(good.placements[0].latency.as_ref().expect("it has an SLO").total_us, 1500);
    assert_eq!(reasons(good, job), [""]);
}

#[test]
fn a_device_of_a_model_too_slow_for_the_promise_is_refused() {
    let job = job(api::JobKind::Batch, 1, 400);
    let mut bad = plan(&job);
    bad.placements[0].devices[0].device_index = 0;
    assert_eq!(reasons(bad, job), ["60001 ms > 10 ms, 59991 over: compute"]);
}

#[test]
fn devices_of_two_models_for_one_task_are_refused() {
    let job = job(api::JobKind::Batch, 1, 2000);
    let mut bad = plan(&job);
    assert!(bad.placements.is_empty(), "no model has two devices");
    let devices = [1, 0].map(|device_index| api::DeviceShare { device_index, milli: 1000 });
    bad.placements.push(border::Placement {
        job_id: "job".into(),
        task_group: "main".into(),
        site_id: "s".into(),
        node_id: "s/n".into(),
        devices: devices.into(),
        ..Default::default()
    });
    assert_eq!(reasons(bad, job), ["accelerators: 1000 m free over 1 device of model fast, 2000 m asked"]);
}

#[test]
fn a_task_placed_twice_or_beyond_the_count_is_refused() {
    let job = job(api::JobKind::Batch, 2, 400);
    let mut twice = plan(&job);
    twice.placements[1].task_index = 0;
    assert_eq!(reasons(twice, job.clone()), ["", "this task is placed twice in the plan; place it once"]);
    let mut beyond = plan(&job);
    beyond.placements[1].task_index = 2;
    assert_eq!(reasons(beyond, job), ["", "task_index (2) is not below the count (2) of the group"]);
}

#[test]
fn a_gang_with_a_task_left_out_is_refused_whole() {
    let gang = job(api::JobKind::Gang, 2, 400);
    let mut partial = plan(&gang);
    assert_eq!(reasons(partial.clone(), gang.clone()), ["", ""]);
    partial.placements.pop();
    assert_eq!(reasons(partial, gang), ["1 task of the gang is not in the plan; place all or none"]);
}

#[test]
fn a_gang_may_fill_up_to_the_tasks_that_still_wait() {
    let mut gang = job(api::JobKind::Gang, 3, 400);
    gang.pending = vec![border::PendingTasks { task_group: "main".into(), task_indexes: vec![2] }];
    assert_eq!(reasons(plan(&gang), gang), [""]);
}
