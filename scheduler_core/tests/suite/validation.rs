//! Amounts out of range are refused at the border with the field at fault, and change nothing.

use scheduler_core::assess::assess;
use scheduler_core::error::CoreError;
use scheduler_core::optimize::stop::Rounds;
use scheduler_core::optimize::{optimize, solve_table};
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
        allocation_id: "a".into(),
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
    let used = border::UsedResources { allocation_id: "a".into(), zone_traffic: traffic, ..Default::default() };
    let delta = border::Delta { allocations: vec![used], ..Default::default() };
    assert_eq!(field_of(state.apply(delta)), "allocations[0].zone_traffic[0].bandwidth_kbps");
}

/// Without a limit 100,000 tasks of a job with an id of 10 MB make a plan of a terabyte.
#[test]
fn an_empty_or_endless_name_is_refused_wherever_it_stands() {
    let site = |id: String| border::Delta { sites: vec![api::Site { id, ..Default::default() }], ..Default::default() };
    let node = |id: String| border::Delta { nodes: vec![api::Node { id, ..Default::default() }], ..Default::default() };
    let link = |from_id: String| {
        let link = api::Link { from_id, ..Default::default() };
        border::Delta { links: vec![link], ..Default::default() }
    };
    let allocation = |allocation_id: String| {
        let used = border::UsedResources { allocation_id, ..Default::default() };
        border::Delta { allocations: vec![used], ..Default::default() }
    };
    for name in ["", &"x".repeat(513)] {
        let field = |delta| field_of(State::default().apply(delta));
        assert_eq!(field(site(name.into())), "sites[0].id");
        assert_eq!(field(node(name.into())), "nodes[0].id");
        assert_eq!(field(link(name.into())), "links[0].from_id");
        assert_eq!(field(allocation(name.into())), "allocations[0].allocation_id");
        let mut asked = request(asking(1, 0), &[]);
        asked.jobs[0].job_id = name.into();
        assert_eq!(field_of(place::place(&Cluster::default(), &asked)), "jobs[0].job_id");
        let group = api::TaskGroup { name: name.into(), ..asking(1, 0) };
        assert_eq!(field_of(place(group, &[])), "jobs[0].spec.task_groups[0].name");
    }
    let longest = "x".repeat(512);
    assert!(State::default().apply(site(longest)).is_ok());
}

/// Each entry is compared with all others: 200,000 of them once took a minute.
#[test]
fn endless_lists_are_refused() {
    let groups = (0..1025).map(|i| api::TaskGroup { name: format!("g{i}"), ..Default::default() }).collect();
    let mut asked = request(asking(1, 0), &[]);
    asked.jobs[0].spec = Some(api::JobSpec { task_groups: groups, ..Default::default() });
    assert_eq!(field_of(place::place(&Cluster::default(), &asked)), "jobs[0].spec.task_groups, counted,");
    let accelerators = vec![api::Accelerator::default(); 1025];
    let node = api::Node { id: "s/n".into(), accelerators, ..Default::default() };
    let delta = border::Delta { nodes: vec![node], ..Default::default() };
    assert_eq!(field_of(State::default().apply(delta)), "nodes[0].accelerators, counted,");
    let zone_traffic = (0..1025).map(|i| api::ZoneTraffic { zone_id: format!("z{i}"), bandwidth_kbps: 1 }).collect();
    let group = api::TaskGroup { zone_traffic, ..asking(1, 0) };
    assert_eq!(field_of(place(group, &[])), "jobs[0].spec.task_groups[0].zone_traffic, counted,");
}

/// Counted twice, its users would count twice in the share of users that the SLO is about.
#[test]
fn a_zone_that_an_slo_names_twice_is_refused() {
    let slo = api::LatencySlo { zone_ids: vec!["z".into(), "y".into(), "z".into()], ..Default::default() };
    let group = api::TaskGroup { latency_slo: Some(slo), ..asking(1, 0) };
    assert_eq!(field_of(place(group, &[])), "jobs[0].spec.task_groups[0].latency_slo.zone_ids[2]");
}

#[test]
fn a_rent_ceiling_beyond_any_quantity_is_refused() {
    let mut asked = request(asking(1, 0), &[]);
    asked.jobs[0].spec.as_mut().expect("made with one").rent_max_microcny_per_hour = (1 << 40) + 1;
    assert_eq!(field_of(place::place(&Cluster::default(), &asked)), "jobs[0].spec.rent_max_microcny_per_hour");
}

#[test]
fn a_kind_or_an_objective_that_nobody_knows_is_refused() {
    let mut asked = request(asking(1, 0), &[]);
    asked.jobs[0].spec.as_mut().expect("made with one").kind = 77;
    assert_eq!(field_of(place::place(&Cluster::default(), &asked)), "jobs[0].spec.kind");
    let policy = Some(border::Policy { objective: 77, ..Default::default() });
    let asked = border::PlaceRequest { policy, ..Default::default() };
    assert_eq!(field_of(place::place(&Cluster::default(), &asked)), "policy.objective");
}

/// Each relaxation that is tried is a copy of the spec: one of 10 MB took 3 GB to explain.
#[test]
fn a_job_is_explained_only_when_its_spec_has_a_reasonable_size() {
    let mut asked = request(asking(1, 0), &[]);
    asked.jobs[0].spec.as_mut().expect("made with one").operators_denied = vec!["x".repeat(1 << 18)];
    assert!(place::place(&Cluster::default(), &asked).is_ok());
    asked.jobs[0].explain = true;
    assert_eq!(field_of(place::place(&Cluster::default(), &asked)), "jobs[0].spec");
}

#[test]
fn a_time_out_of_range_is_refused_by_whatever_asks_for_one() {
    for now_unix_s in [-1, i64::MIN, i64::MAX] {
        let placing = border::PlaceRequest { now_unix_s, ..Default::default() };
        assert_eq!(field_of(place::place(&Cluster::default(), &placing)), "now_unix_s");
        let optimizing = border::OptimizeRequest { now_unix_s, ..Default::default() };
        assert_eq!(field_of(optimize(&State::default(), &optimizing, 1, &mut Rounds(1))), "now_unix_s");
        let assessing = border::AssessRequest { now_unix_s, ..Default::default() };
        assert_eq!(field_of(assess(&State::default(), &assessing)), "now_unix_s");
    }
}

/// A table without agents has no entries, however many tasks it says that it has: it took 240 GB.
#[test]
fn a_table_of_billions_of_tasks_without_agents_is_refused() {
    let table = |agents, tasks| border::AssignmentRequest { agents, tasks, ..Default::default() };
    assert_eq!(field_of(solve_table(&table(0, u32::MAX), 1, &mut Rounds(1))), "tasks");
    assert_eq!(field_of(solve_table(&table(u32::MAX, 0), 1, &mut Rounds(1))), "agents");
}
