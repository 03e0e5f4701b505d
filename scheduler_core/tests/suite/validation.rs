//! Amounts out of range are refused at the border with the field at fault, and change nothing.

use scheduler_core::error::CoreError;
use scheduler_core::place;
use scheduler_core::state::{Cluster, State};
use scheduler_core::wire::mumian::api::v1 as api;
use scheduler_core::wire::mumian_core::v1 as border;

fn field_of<T: std::fmt::Debug>(outcome: Result<T, CoreError>) -> String {
    match outcome.expect_err("it is out of range") {
        CoreError::InvalidField { field, .. } => field,
        other => panic!("{other} is not INVALID_FIELD"),
    }
}

fn request(group: api::TaskGroup, task_indexes: &[u32]) -> border::PlaceRequest {
    let name = group.name.clone();
    let spec = api::JobSpec { task_groups: vec![group], ..Default::default() };
    let pending = if task_indexes.is_empty() {
        vec![]
    } else {
        vec![border::PendingTasks { task_group: name, task_indexes: task_indexes.into() }]
    };
    let job =
        border::PendingJob { job_id: "job".into(), spec: Some(spec), pending, explain: false, ..Default::default() };
    border::PlaceRequest { evaluation_id: "e".into(), jobs: vec![job], ..Default::default() }
}

fn asking(cpu_milli: u64, accelerator_milli: u64) -> api::TaskGroup {
    let accelerators = Some(api::AcceleratorRequest { milli: accelerator_milli, models: vec![] });
    let resources = Some(api::Resources { cpu_milli, memory_mib: 0, accelerators });
    api::TaskGroup { name: "main".into(), count: 2, resources, ..Default::default() }
}

fn place(group: api::TaskGroup, task_indexes: &[u32]) -> Result<border::Plan, CoreError> {
    place::place(&Cluster::default(), &request(group, task_indexes))
}

#[test]
fn devices_between_two_whole_numbers_are_refused_with_the_field_and_the_two_neighbours() {
    let error = place(asking(0, 1500), &[]).expect_err("1500 is neither a share nor whole devices");
    assert_eq!(
        error.to_string(),
        "jobs[0].spec.task_groups[0].resources.accelerators.milli (1500) must be below 1000, a share of one device, \
         or a multiple of 1000, whole devices; use 1000 or 2000"
    );
    for milli in [1, 999, 1000, 3000] {
        assert!(place(asking(0, milli), &[]).is_ok());
    }
}

#[test]
fn amounts_that_could_wrap_a_sum_are_refused() {
    let path = "jobs[0].spec.task_groups[0]";
    assert_eq!(field_of(place(asking(u64::MAX, 0), &[])), format!("{path}.resources.cpu_milli"));
    let many = api::TaskGroup { count: u32::MAX, ..asking(1, 0) };
    assert_eq!(field_of(place(many, &[])), format!("{path}.count"));
}

#[test]
fn a_task_named_twice_or_beyond_the_count_is_refused() {
    assert_eq!(field_of(place(asking(1, 0), &[1, 1])), "jobs[0].pending[0].task_indexes[1]");
    assert_eq!(field_of(place(asking(1, 0), &[2])), "jobs[0].pending[0].task_indexes[0]");
}

#[test]
fn a_node_of_billions_of_devices_is_refused_and_the_state_stays() {
    let accelerator = |count| api::Accelerator { model: "H100".into(), count, ..Default::default() };
    let node = |accelerators| api::Node { id: "s/n".into(), site_id: "s".into(), accelerators, ..Default::default() };
    let site = api::Site { id: "s".into(), ..Default::default() };
    let mut state = State::default();
    let delta = border::Delta {
        sites: vec![site],
        nodes: vec![node(vec![accelerator(1000), accelerator(u32::MAX)])],
        ..Default::default()
    };
    assert_eq!(field_of(state.apply(delta)), "nodes[0].accelerators[1].count");
    assert_eq!(state.snapshot(), Cluster::default());
}

#[test]
fn an_allocation_of_more_than_a_device_or_of_endless_cores_is_refused() {
    let mut state = State::default();
    let mut used = border::UsedResources {
        resources: Some(api::Resources { cpu_milli: u64::MAX, ..Default::default() }),
        ..Default::default()
    };
    let delta = |used: &border::UsedResources| border::Delta { allocations: vec![used.clone()], ..Default::default() };
    assert_eq!(field_of(state.apply(delta(&used))), "allocations[0].resources.cpu_milli");
    used.resources = None;
    used.devices = vec![api::DeviceShare { device_index: 0, milli: 1001 }];
    assert_eq!(field_of(state.apply(delta(&used))), "allocations[0].devices[0].milli");
}

#[test]
fn a_job_or_a_group_named_twice_is_refused() {
    let mut twice = request(asking(1, 0), &[]);
    twice.jobs.push(twice.jobs[0].clone());
    assert_eq!(field_of(place::place(&Cluster::default(), &twice)), "jobs[1].job_id");
    twice.jobs.pop();
    let groups = &mut twice.jobs[0].spec.as_mut().expect("set above").task_groups;
    groups.push(groups[0].clone());
    assert_eq!(field_of(place::place(&Cluster::default(), &twice)), "jobs[0].spec.task_groups[1].name");
}

#[test]
fn times_and_forecasts_out_of_range_are_refused() {
    let mut asked = request(asking(1, 0), &[]);
    asked.now_unix_s = -1;
    assert_eq!(field_of(place::place(&Cluster::default(), &asked)), "now_unix_s");
    asked.now_unix_s = i64::MAX;
    assert_eq!(field_of(place::place(&Cluster::default(), &asked)), "now_unix_s");
    asked.now_unix_s = 0;
    let deferral = api::Deferral { finish_within_s: u64::MAX, run_time_s: 0 };
    asked.jobs[0].spec.as_mut().expect("set above").deferral = Some(deferral);
    assert_eq!(field_of(place::place(&Cluster::default(), &asked)), "jobs[0].spec.deferral.finish_within_s");
    let mut state = State::default();
    let mut delta = |first_hour_unix_s, hours| {
        let hours = vec![api::HourForecast::default(); hours];
        let forecast = Some(api::Forecast { first_hour_unix_s, hours });
        let site = api::Site { id: "s".into(), forecast, ..Default::default() };
        state.apply(border::Delta { reset: true, sites: vec![site], ..Default::default() })
    };
    assert_eq!(field_of(delta(3601, 1)), "sites[0].forecast.first_hour_unix_s");
    assert_eq!(field_of(delta(3600, 8785)), "sites[0].forecast.hours, counted,");
    assert!(delta(3600, 8784).is_ok());
}

#[test]
fn a_share_of_more_than_all_users_or_of_none_is_refused() {
    let slo = |users_permille, users: u32| api::LatencySlo {
        zone_ids: vec!["z".into()],
        users_permille,
        users: [("z".to_string(), users)].into(),
        ..Default::default()
    };
    let group = |slo| api::TaskGroup { latency_slo: Some(slo), ..asking(1, 0) };
    let path = "jobs[0].spec.task_groups[0].latency_slo";
    assert_eq!(field_of(place(group(slo(1001, 1)), &[])), format!("{path}.users_permille"));
    assert_eq!(field_of(place(group(slo(900, 0)), &[])), format!("{path}.users"));
}

#[test]
fn an_endless_or_divided_typical_task_is_refused() {
    let mut asked = request(asking(1, 0), &[]);
    let typical = |milli, weight| border::Policy {
        typical_tasks: vec![border::TypicalTask { resources: asking(1, milli).resources, weight }; 300],
        ..Default::default()
    };
    asked.policy = Some(typical(1500, 1));
    let field = "policy.typical_tasks[0].resources.accelerators.milli";
    assert_eq!(field_of(place::place(&Cluster::default(), &asked)), field);
    asked.policy = Some(typical(500, u32::MAX));
    assert_eq!(field_of(place::place(&Cluster::default(), &asked)), "policy.typical_tasks[256].weight, added up,");
}

#[test]
fn a_constraint_that_names_no_group_counts_nothing_or_is_there_twice_is_refused() {
    let refused = |set: &dyn Fn(&mut api::TaskGroup)| {
        let mut group = asking(1, 0);
        set(&mut group);
        field_of(place(group, &[])).replace("jobs[0].spec.task_groups[0].", "")
    };
    let site = api::Topology::Site as i32;
    let spread = |topology, max_tasks| api::Spread { topology, max_tasks };
    assert_eq!(refused(&|g| g.spreads = vec![spread(0, 1)]), "spreads[0].topology");
    assert_eq!(refused(&|g| g.spreads = vec![spread(site, 0)]), "spreads[0].max_tasks");
    assert_eq!(refused(&|g| g.spreads = vec![spread(site, 1), spread(site, 2)]), "spreads[1].topology");
    let apart = |topology, name: &str| vec![api::AntiAffinity { topology, task_group: name.into() }];
    assert_eq!(refused(&|g| g.apart_from = apart(9, "main")), "apart_from[0].topology");
    assert_eq!(refused(&|g| g.apart_from = apart(site, "other")), "apart_from[0].task_group");
    assert_eq!(refused(&|g| g.apart_from = apart(site, "main")), "apart_from[0].task_group");
    assert_eq!(refused(&|g| g.together = 9), "together");
    let near = |name: &str, budget_us| vec![api::GroupLatency { task_group: name.into(), budget_us }];
    assert_eq!(refused(&|g| g.group_latencies = near("other", 1)), "group_latencies[0].task_group");
    assert_eq!(refused(&|g| g.group_latencies = near("main", 0)), "group_latencies[0].budget_us");
    let traffic = |bandwidth_kbps| api::ZoneTraffic { zone_id: "z".into(), bandwidth_kbps };
    assert_eq!(refused(&|g| g.zone_traffic = vec![traffic(0)]), "zone_traffic[0].bandwidth_kbps");
    assert_eq!(refused(&|g| g.zone_traffic = vec![traffic(u64::MAX)]), "zone_traffic[0].bandwidth_kbps");
    assert_eq!(refused(&|g| g.zone_traffic = vec![traffic(1), traffic(1)]), "zone_traffic[1].zone_id");
}

#[test]
fn power_and_traffic_that_could_wrap_a_sum_are_refused() {
    let mut state = State::default();
    let node = |core_active_power_mw, active_power_mw| {
        let accelerators = vec![api::Accelerator { active_power_mw, ..Default::default() }];
        let node = api::Node { id: "s/n".into(), core_active_power_mw, accelerators, ..Default::default() };
        border::Delta { nodes: vec![node], ..Default::default() }
    };
    assert_eq!(field_of(state.apply(node(u64::MAX, 0))), "nodes[0].core_active_power_mw");
    assert_eq!(field_of(state.apply(node(0, u64::MAX))), "nodes[0].accelerators[0].active_power_mw");
    let traffic = vec![api::ZoneTraffic { zone_id: "z".into(), bandwidth_kbps: u64::MAX }];
    let used = border::UsedResources { zone_traffic: traffic, ..Default::default() };
    let delta = border::Delta { allocations: vec![used], ..Default::default() };
    assert_eq!(field_of(state.apply(delta)), "allocations[0].zone_traffic[0].bandwidth_kbps");
}
