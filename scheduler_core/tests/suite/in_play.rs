//! Which tasks the optimiser has in play, and that those which it has not are told, pinned or left alone as well.

use crate::common::READY;
use scheduler_core::optimize::optimize;
use scheduler_core::optimize::stop::Rounds;
use scheduler_core::place::place;
use scheduler_core::state::State;
use scheduler_core::wire::mumian::api::v1 as api;
use scheduler_core::wire::mumian_core::v1 as border;

fn site(id: &str, core: u64) -> api::Site {
    let prices = Some(api::Prices { cpu_core_hour_microcny: core, ..Default::default() });
    api::Site { id: id.into(), health: READY, prices, ..Default::default() }
}

fn node(site_id: &str, cores: u64) -> api::Node {
    let (id, site_id) = (format!("{site_id}/n"), site_id.into());
    api::Node { id, site_id, health: READY, cpu_milli: cores * 1000, ..Default::default() }
}

fn state(sites: Vec<api::Site>, nodes: Vec<api::Node>) -> State {
    let mut state = State::default();
    state.apply(border::Delta { sites, nodes, ..Default::default() }).expect("a fleet that is complete");
    state
}

/// Tasks of one core each.
fn group(name: &str, count: u32) -> api::TaskGroup {
    let resources = Some(api::Resources { cpu_milli: 1000, ..Default::default() });
    api::TaskGroup { name: name.into(), count, resources, ..Default::default() }
}

fn one_a_node(group: api::TaskGroup) -> api::TaskGroup {
    let spread = api::Spread { topology: api::Topology::Node.into(), max_tasks: 1 };
    api::TaskGroup { spreads: vec![spread], ..group }
}

fn job(kind: api::JobKind, priority: u32, task_groups: Vec<api::TaskGroup>) -> border::PendingJob {
    let spec = api::JobSpec { kind: kind.into(), priority, task_groups, ..Default::default() };
    border::PendingJob { job_id: format!("j{priority}"), spec: Some(spec), ..Default::default() }
}

fn answer(state: &State, request: &border::OptimizeRequest) -> border::OptimizeResponse {
    optimize(state, request, 1, &mut Rounds(8)).expect("the request is in range")
}

/// Books one task of a job on a node, on these devices.
fn run(
    state: &mut State,
    job: &border::PendingJob,
    index: u32,
    node_id: &str,
    device: Option<u32>,
) -> border::RunningTask {
    let group = &job.spec.as_ref().expect("made with one").task_groups[0];
    let (allocation_id, task_group) = (format!("{}.{index}", job.job_id), group.name.clone());
    let share = |device_index| api::DeviceShare { device_index, milli: 1000 };
    let used = border::UsedResources {
        allocation_id: allocation_id.clone(),
        node_id: node_id.into(),
        resources: group.resources.clone(),
        devices: device.into_iter().map(share).collect(),
        job_id: job.job_id.clone(),
        task_group: task_group.clone(),
        task_index: index,
        ..Default::default()
    };
    let delta = border::Delta { base_generation: state.generation(), allocations: vec![used], ..Default::default() };
    state.apply(delta).expect("the node is there");
    border::RunningTask { allocation_id, job_id: job.job_id.clone(), task_group, task_index: index }
}

/// They were moved whatever the budget was, since they could not stay.
#[test]
fn the_churn_budget_holds_for_tasks_that_may_not_stay_and_the_most_important_go_first() {
    let draining = api::Site { health: api::Health::Draining.into(), ..site("a", 1) };
    let mut state = state(vec![draining, site("b", 5)], vec![node("a", 4), node("b", 4)]);
    let jobs: Vec<_> = [1, 7, 3].map(|priority| job(api::JobKind::Service, priority, vec![group("g", 1)])).into();
    let running: Vec<_> = jobs.iter().map(|job| run(&mut state, job, 0, "a/n", None)).collect();
    for (moves_max, moved) in [(Some(0), vec![]), (Some(1), vec!["j7.0"]), (Some(2), vec!["j3.0", "j7.0"])] {
        let request =
            border::OptimizeRequest { jobs: jobs.clone(), running: running.clone(), moves_max, ..Default::default() };
        let found = answer(&state, &request);
        let mut ids: Vec<_> = found.moves.iter().map(|m| m.allocation_id.as_str()).collect();
        ids.sort_unstable();
        assert_eq!(ids, moved);
        assert_eq!(found.found.expect("always there").moved_task_count as usize, moved.len());
    }
}

/// What is coupled was placed by the flat figures.
#[test]
fn coupled_tasks_are_placed_by_the_prices_of_the_hour_too() {
    let at_hour = |rent_permille, site| {
        let hours = vec![api::HourForecast { rent_permille, ..Default::default() }];
        let forecast = Some(api::Forecast { first_hour_unix_s: 3600, hours });
        api::Site { forecast, ..site }
    };
    let sites = vec![at_hour(9000, site("a", 100)), at_hour(1000, site("b", 200))];
    let state = state(sites, vec![node("a", 4), node("b", 4)]);
    for group in [group("g", 1), one_a_node(group("g", 1))] {
        let jobs = vec![job(api::JobKind::Service, 0, vec![group])];
        let online = border::PlaceRequest { jobs: jobs.clone(), now_unix_s: 3600, ..Default::default() };
        let request = border::OptimizeRequest { jobs, now_unix_s: 3600, ..Default::default() };
        let plan = answer(&state, &request).plan.expect("always there");
        assert_eq!(plan.placements, place(&state.snapshot(), &online).expect("in range").placements);
        assert_eq!(plan.placements[0].site_id, "b");
    }
}

#[test]
fn tasks_that_had_better_wait_for_another_hour_wait_here_too() {
    let hour = |rent_permille| api::HourForecast { rent_permille, ..Default::default() };
    let forecast = Some(api::Forecast { first_hour_unix_s: 3600, hours: vec![hour(1000), hour(100)] });
    let state = state(vec![api::Site { forecast, ..site("a", 1_000_000) }], vec![node("a", 4)]);
    let mut waits = job(api::JobKind::Batch, 0, vec![group("g", 2)]);
    waits.spec.as_mut().expect("made with one").deferral =
        Some(api::Deferral { finish_within_s: 7200, run_time_s: 3600 });
    let jobs = vec![waits, job(api::JobKind::Service, 1, vec![group("g", 1)])];
    let request = border::OptimizeRequest { jobs: jobs.clone(), now_unix_s: 3600, ..Default::default() };
    let plan = answer(&state, &request).plan.expect("always there");
    let placing = border::PlaceRequest { jobs, now_unix_s: 3600, ..Default::default() };
    assert_eq!(plan.deferred, place(&state.snapshot(), &placing).expect("in range").deferred);
    assert_eq!((plan.deferred.len(), plan.placements.len(), plan.unplaced.len()), (2, 1, 0));
}

#[test]
fn coupled_tasks_that_find_no_place_are_told() {
    let state = state(vec![site("a", 1), site("b", 1)], vec![node("a", 4), node("b", 4)]);
    let jobs = vec![job(api::JobKind::Service, 0, vec![one_a_node(group("g", 5))])];
    let plan = answer(&state, &border::OptimizeRequest { jobs, ..Default::default() }).plan.expect("always there");
    assert_eq!((plan.placements.len(), plan.unplaced.len()), (2, 3));
}

/// Of a gang with a group that is coupled and one that is not, the second was placed without the first.
#[test]
fn a_gang_of_which_some_groups_are_coupled_is_placed_whole_or_not_at_all() {
    let state = state(vec![site("a", 1)], vec![node("a", 4)]);
    for (coupled, placed) in [(2, 0), (1, 3)] {
        let groups = vec![one_a_node(group("coupled", coupled)), group("free", 2)];
        let jobs = vec![job(api::JobKind::Gang, 0, groups)];
        let plan = answer(&state, &border::OptimizeRequest { jobs, ..Default::default() }).plan.expect("always there");
        assert_eq!((plan.placements.len(), plan.unplaced.len() as u32), (placed, 2 + coupled - placed as u32));
    }
}

/// A seat names the first 64 devices of a node. Tasks on others were left out, or moved for nothing.
#[test]
fn tasks_on_devices_that_no_seat_can_name_stay_where_they_are() {
    let accelerators = vec![api::Accelerator { model: "H100".into(), count: 100, ..Default::default() }];
    let mut state = state(vec![site("a", 1)], vec![api::Node { accelerators, ..node("a", 200) }]);
    let accelerators = Some(api::AcceleratorRequest { milli: 1000, models: vec![] });
    let resources = Some(api::Resources { cpu_milli: 1000, accelerators, ..Default::default() });
    let on_devices = job(api::JobKind::Batch, 0, vec![api::TaskGroup { resources, ..group("g", 90) }]);
    let request = border::OptimizeRequest { jobs: vec![on_devices.clone()], ..Default::default() };
    assert_eq!(answer(&state, &request).plan.expect("always there").placements.len(), 90);
    let running = (0..90).map(|i| run(&mut state, &on_devices, i, "a/n", Some(i + 10))).collect();
    let found = answer(&state, &border::OptimizeRequest { running, ..request });
    assert!(found.moves.is_empty());
    assert_eq!(found.found, found.start);
}
