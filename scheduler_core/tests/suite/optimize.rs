//! The global optimiser: never worse than its start, never refused by the verifier, never below
//! its bound, the same on any number of threads, and on tables as good as trying everything.

use crate::common;
use proptest::prelude::*;
use scheduler_core::optimize::stop::{Progress, Reason, Rounds};
use scheduler_core::optimize::{optimize, solve_table};
use scheduler_core::place::place;
use scheduler_core::state::State;
use scheduler_core::verify::verify;
use scheduler_core::wire::mumian::api::v1 as api;
use scheduler_core::wire::mumian_core::v1 as border;

fn state(fleet: &border::Delta) -> State {
    let mut state = State::default();
    state.apply(fleet.clone()).expect("the fleet speaks of its own sites only");
    state
}

fn request(placing: &border::PlaceRequest) -> border::OptimizeRequest {
    border::OptimizeRequest {
        evaluation_id: placing.evaluation_id.clone(),
        jobs: placing.jobs.clone(),
        policy: placing.policy.clone(),
        ..Default::default()
    }
}

fn answer(state: &State, request: &border::OptimizeRequest, rounds: u64, threads: usize) -> border::OptimizeResponse {
    optimize(state, request, threads, &mut Rounds(rounds)).expect("the request is in range")
}

/// Whether the verifier accepts the whole plan once the allocations that move are gone.
fn holds(state: &State, answer: &border::OptimizeResponse, jobs: &[border::PendingJob]) -> bool {
    let plan = answer.plan.clone().expect("always there");
    let mut left = state.fork();
    let removed_allocation_ids = answer.moves.iter().map(|m| m.allocation_id.clone()).collect();
    let base_generation = left.generation();
    left.apply(border::Delta { base_generation, removed_allocation_ids, ..Default::default() })
        .expect("they are known");
    let mut jobs = jobs.to_vec();
    for job in &mut jobs {
        let mine = plan.placements.iter().filter(|p| p.job_id == job.job_id);
        let named =
            mine.map(|p| border::PendingTasks { task_group: p.task_group.clone(), task_indexes: vec![p.task_index] });
        job.pending = named.collect();
    }
    jobs.retain(|job| !job.pending.is_empty());
    let sent = border::VerifyRequest { plan: Some(plan), jobs };
    verify(&left.snapshot(), &sent).verdicts.iter().all(|v| v.accepted)
}

/// The plan as allocations of a state.
fn commit(state: &mut State, request: &border::PlaceRequest) -> Vec<border::RunningTask> {
    let plan = place(&state.snapshot(), request).expect("the request is in range");
    let mut running = Vec::new();
    let mut allocations = Vec::new();
    for p in plan.placements {
        let job = request.jobs.iter().find(|j| j.job_id == p.job_id).and_then(|j| j.spec.as_ref()).expect("sent");
        let group = job.task_groups.iter().find(|g| g.name == p.task_group).expect("of this job");
        let allocation_id = format!("{}.{}.{}", p.job_id, p.task_group, p.task_index);
        allocations.push(border::UsedResources {
            allocation_id: allocation_id.clone(),
            node_id: p.node_id,
            resources: group.resources.clone(),
            devices: p.devices,
            job_id: p.job_id.clone(),
            task_group: p.task_group.clone(),
            task_index: p.task_index,
            zone_traffic: group.zone_traffic.clone(),
            ..Default::default()
        });
        let (job_id, task_group, task_index) = (p.job_id, p.task_group, p.task_index);
        running.push(border::RunningTask { allocation_id, job_id, task_group, task_index });
    }
    let base_generation = state.generation();
    state.apply(border::Delta { base_generation, allocations, ..Default::default() }).expect("just placed");
    running
}

/// Gangs whole or not at all, in the plan as in the request.
fn gangs_are_whole(plan: &border::Plan, jobs: &[border::PendingJob]) -> bool {
    jobs.iter().filter(|j| j.spec.as_ref().is_some_and(|s| s.kind() == api::JobKind::Gang)).all(|job| {
        let placed = plan.placements.iter().any(|p| p.job_id == job.job_id);
        let left = plan.unplaced.iter().any(|u| u.job_id == job.job_id);
        !(placed && left)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn pending_jobs_are_placed_no_worse_than_online_and_no_better_than_the_bound(
        fleet in common::fleet(3, 4),
        placing in common::request(5, 2, 4),
    ) {
        let state = state(&fleet);
        let request = request(&placing);
        let found = answer(&state, &request, 12, 1);
        let (start, end) = (found.start.unwrap(), found.found.unwrap());
        prop_assert!(end.objective_microcny_per_hour <= start.objective_microcny_per_hour);
        prop_assert!(found.bound_microcny_per_hour <= end.objective_microcny_per_hour);
        let plan = found.plan.as_ref().unwrap();
        prop_assert!(gangs_are_whole(plan, &request.jobs));
        prop_assert!(holds(&state, &found, &request.jobs));
        prop_assert_eq!(&found, &answer(&state, &request, 12, 3));
    }

    #[test]
    fn running_tasks_move_only_where_it_pays_and_are_never_lost(
        fleet in common::fleet(3, 4),
        first in common::request(4, 2, 3),
        prices in prop::collection::vec(0_u64..9, 3),
        moves_max in prop::option::of(0_u32..3),
    ) {
        let mut state = state(&fleet);
        let running = commit(&mut state, &first);
        // The world changes: rents are others now.
        let mut sites = fleet.sites.clone();
        for (site, core) in sites.iter_mut().zip(&prices) {
            site.prices.get_or_insert_default().cpu_core_hour_microcny = core * 1000;
        }
        let base_generation = state.generation();
        state.apply(border::Delta { base_generation, sites, ..Default::default() }).unwrap();
        let request = border::OptimizeRequest { running, moves_max, ..request(&first) };
        let found = answer(&state, &request, 12, 2);
        let (start, end) = (found.start.unwrap(), found.found.unwrap());
        prop_assert!(end.objective_microcny_per_hour <= start.objective_microcny_per_hour);
        prop_assert!(found.bound_microcny_per_hour <= end.objective_microcny_per_hour);
        prop_assert!(moves_max.is_none_or(|most| found.moves.len() as u32 <= most));
        prop_assert!(holds(&state, &found, &request.jobs));
        let plan = found.plan.as_ref().unwrap();
        for task in &request.running {
            let is_it = |u: &&border::UnplacedTask| {
                u.job_id == task.job_id && u.task_group == task.task_group && u.task_index == task.task_index
            };
            prop_assert!(!plan.unplaced.iter().any(|u| is_it(&u)), "what runs is not pending");
        }
        // Where nothing moves, nothing is gained.
        if found.moves.is_empty() && plan.placements.is_empty() {
            prop_assert_eq!(start.objective_microcny_per_hour, end.objective_microcny_per_hour);
        }
    }

    #[test]
    fn time_may_end_in_any_phase_and_what_there_is_then_holds(
        fleet in common::fleet(3, 4),
        placing in common::request(5, 2, 4),
        // The first few are asked by the online placer and while the problem is made.
        asks in prop_oneof![0_u32..10, 0_u32..500],
    ) {
        let state = state(&fleet);
        let request = request(&placing);
        let (mut left, mut asked_after) = (asks, 0);
        let mut stop = |_: &Progress| {
            asked_after += u32::from(left == 0);
            left = left.saturating_sub(1);
            (asked_after > 0).then_some(Reason::Time)
        };
        let found = optimize(&state, &request, 2, &mut stop).unwrap();
        let (start, end) = (found.start.unwrap(), found.found.unwrap());
        prop_assert!(end.objective_microcny_per_hour <= start.objective_microcny_per_hour);
        prop_assert!(found.bound_microcny_per_hour <= end.objective_microcny_per_hour);
        prop_assert!(gangs_are_whole(found.plan.as_ref().unwrap(), &request.jobs));
        prop_assert!(holds(&state, &found, &request.jobs));
        // Each phase that is left asks once, and goes.
        prop_assert!(asked_after <= 7, "asked {} times after the end", asked_after);
        let told = |account: border::Account| account.placed_task_count + account.unplaced_task_count;
        let whole = answer(&state, &request, 0, 1).found.unwrap();
        prop_assert_eq!(told(end), told(whole), "every task is told of");
        if asks == 0 {
            prop_assert_eq!(start, end, "without time it is the start");
            prop_assert_eq!(end.placed_task_count, 0, "and that has had no time either");
        }
    }

    #[test]
    fn fragmentation_is_priced_as_the_online_placer_prices_it(
        fleet in common::fleet(3, 4),
        placing in common::request(5, 2, 4),
        price in 1_u64..50_000_000,
    ) {
        let state = state(&fleet);
        let policy = border::Policy {
            fragmentation_microcny_per_device_hour: price,
            ..placing.policy.clone().unwrap_or_default()
        };
        let mut placing = border::PlaceRequest { policy: Some(policy), now_unix_s: 0, ..placing };
        // What is coupled is no part of the account, and the plan of the optimiser is in the order of the request.
        for spec in placing.jobs.iter_mut().filter_map(|job| job.spec.as_mut()) {
            spec.priority = 0;
            spec.task_groups.iter_mut().for_each(|group| {
                let uncoupled = (group.clone(), api::TaskGroup::default());
                *group = common::with_coupling(uncoupled);
            });
        }
        let costs = |plan: &border::Plan| -> i64 {
            plan.placements.iter().filter_map(|p| p.cost).map(|c| c.total_microcny_per_hour as i64).sum()
        };
        let online = place(&state.snapshot(), &placing).unwrap();
        let found = answer(&state, &request(&placing), 12, 1);
        let (start, end) = (found.start.unwrap(), found.found.unwrap());
        prop_assert_eq!(start.cost_microcny_per_hour, costs(&online));
        prop_assert_eq!(end.cost_microcny_per_hour, costs(found.plan.as_ref().unwrap()));
        prop_assert!(end.objective_microcny_per_hour <= start.objective_microcny_per_hour);
        prop_assert!(found.bound_microcny_per_hour <= end.objective_microcny_per_hour);
    }

    #[test]
    fn small_tables_are_solved_as_by_trying_everything(
        (agents, tasks, cost, weight, capacity) in (1_usize..4, 0_usize..7).prop_flat_map(|(agents, tasks)| (
            Just(agents),
            Just(tasks),
            prop::collection::vec(0_i64..20, agents * tasks),
            prop::collection::vec(0_i64..9, agents * tasks),
            prop::collection::vec(0_i64..25, agents),
        )),
        seed in any::<u64>(),
    ) {
        let request = border::AssignmentRequest {
            agents: agents as u32,
            tasks: tasks as u32,
            cost: cost.clone(),
            weight: weight.clone(),
            capacity: capacity.clone(),
            seed,
            ..Default::default()
        };
        let found = solve_table(&request, 1, &mut Rounds(60)).unwrap();
        let mut best = (tasks, i64::MAX);
        let mut free = capacity;
        everything(tasks, agents, &cost, &weight, &mut free, 0, (0, 0), &mut best);
        prop_assert_eq!((found.unplaced_task_count as usize, found.cost), best);
        let unplaced = 16 * (1 + cost.iter().copied().max().unwrap_or(0));
        prop_assert!(found.bound <= best.1 + unplaced * best.0 as i64);
    }
}

/// The fewest tasks left out, and the least cost with so many: by trying every assignment.
#[allow(clippy::too_many_arguments)]
fn everything(
    tasks: usize,
    agents: usize,
    cost: &[i64],
    weight: &[i64],
    free: &mut [i64],
    task: usize,
    so_far: (usize, i64),
    best: &mut (usize, i64),
) {
    if task == tasks {
        *best = so_far.min(*best);
        return;
    }
    for agent in 0..agents {
        let at = agent * tasks + task;
        if weight[at] <= free[agent] {
            free[agent] -= weight[at];
            everything(tasks, agents, cost, weight, free, task + 1, (so_far.0, so_far.1 + cost[at]), best);
            free[agent] += weight[at];
        }
    }
    everything(tasks, agents, cost, weight, free, task + 1, (so_far.0 + 1, so_far.1), best);
}

#[test]
fn a_table_of_the_wrong_size_or_with_a_number_out_of_range_is_refused_with_its_field() {
    let good = border::AssignmentRequest {
        agents: 2,
        tasks: 1,
        cost: vec![1, 2],
        weight: vec![1, 1],
        capacity: vec![1, 1],
        ..Default::default()
    };
    let refusal =
        |request: border::AssignmentRequest| solve_table(&request, 1, &mut Rounds(1)).unwrap_err().to_string();
    let short = border::AssignmentRequest { cost: vec![1], ..good.clone() };
    assert_eq!(refusal(short), "cost has 1 entries; 2 agents and 1 tasks need 2");
    let negative = border::AssignmentRequest { weight: vec![1, -3], ..good.clone() };
    assert_eq!(refusal(negative), "weight[1] (-3) must be from 0 to 1099511627776");
    let large = border::AssignmentRequest { agents: u32::MAX, tasks: u32::MAX, ..good };
    assert!(refusal(large).starts_with("tasks (4294967295) x agents (4294967295) must be at most"));
}

#[test]
fn a_running_task_that_the_state_does_not_know_is_refused_with_its_field() {
    let state = State::default();
    let task = border::RunningTask { allocation_id: "a".into(), job_id: "j".into(), ..Default::default() };
    let request = border::OptimizeRequest { running: vec![task], ..Default::default() };
    let error = optimize(&state, &request, 1, &mut Rounds(1)).unwrap_err();
    assert_eq!(error.code(), "INVALID_FIELD");
    assert_eq!(error.to_string(), "running[0].allocation_id (a) is not in the state; send what the state holds");
}

/// What runs on it may stay, so the bound allows for it; it proved more than that once.
#[test]
fn a_node_that_holds_more_than_it_has_does_not_make_the_bound_too_high() {
    let site = api::Site {
        id: "s".into(),
        health: common::READY,
        prices: Some(api::Prices { cpu_core_hour_microcny: 1000, ..Default::default() }),
        ..Default::default()
    };
    let node = |cpu_milli| api::Node {
        id: "s/n".into(),
        site_id: "s".into(),
        health: common::READY,
        cpu_milli,
        ..Default::default()
    };
    let fleet = border::Delta { sites: vec![site], nodes: vec![node(2000)], ..Default::default() };
    let mut state = state(&fleet);
    let resources = Some(api::Resources { cpu_milli: 1000, ..Default::default() });
    let group = api::TaskGroup { name: "main".into(), count: 2, resources, ..Default::default() };
    let spec = api::JobSpec { task_groups: vec![group], ..Default::default() };
    let jobs = vec![border::PendingJob { job_id: "j".into(), spec: Some(spec), ..Default::default() }];
    let placing = border::PlaceRequest { jobs, ..Default::default() };
    let running = commit(&mut state, &placing);
    let base_generation = state.generation();
    let shrunk = border::Delta { base_generation, nodes: vec![node(1000)], ..Default::default() };
    state.apply(shrunk).expect("the node is known");
    let answer = answer(&state, &border::OptimizeRequest { running, ..request(&placing) }, 5, 1);
    let found = answer.found.expect("always there");
    assert_eq!((found.placed_task_count, found.cost_microcny_per_hour), (2, 2000));
    assert_eq!(answer.bound_microcny_per_hour, 2000);
}

/// A table of random numbers: costs from 1 to 100, weights from 6 to 14, and capacities in a range.
fn drawn_table(agents: u32, tasks: u32, capacity: std::ops::Range<u64>, seed: u64) -> border::AssignmentRequest {
    let mut drawn = seed + 1;
    let mut table = |range: std::ops::Range<u64>, count: u32| -> Vec<i64> {
        let mut next = || {
            // Knuth's linear congruential generator, MMIX.
            drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (range.start + (drawn >> 33) % (range.end - range.start)) as i64
        };
        (0..count).map(|_| next()).collect()
    };
    let (cost, weight) = (table(1..100, agents * tasks), table(6..15, agents * tasks));
    let capacity = table(capacity, agents);
    border::AssignmentRequest { agents, tasks, cost, weight, capacity, seed, ..Default::default() }
}

/// A limit on time ends dives and other steps in their midst. What comes out is what the whole rounds
/// before have found, so it replays.
#[test]
fn a_round_that_is_over_before_its_end_counts_for_nothing() {
    let request = drawn_table(10, 100, 66..72, 1);
    let (mut asked, mut asked_before_round) = (0, Vec::new());
    let mut count = |progress: &Progress| {
        if asked_before_round.len() as u64 <= progress.round {
            asked_before_round.push(asked);
        }
        asked += 1;
        (progress.round == 6).then_some(Reason::Rounds)
    };
    solve_table(&request, 1, &mut count).unwrap();
    for (round, ends) in asked_before_round.windows(2).enumerate().skip(1) {
        let (mut left, mut asked_after) = ((ends[0] + ends[1]) / 2, 0);
        let mut stop = |_: &Progress| {
            asked_after += u32::from(left == 0);
            left = i32::max(left - 1, 0);
            (asked_after > 0).then_some(Reason::Time)
        };
        let found = solve_table(&request, 2, &mut stop).unwrap();
        assert!(asked_after <= 3, "asked {asked_after} times after the end");
        assert_eq!(found.rounds, round as u64, "not ended in the midst of the next");
        let again = solve_table(&request, 1, &mut Rounds(found.rounds)).unwrap();
        assert_eq!((found.cost, found.agent, found.bound), (again.cost, again.agent, again.bound), "round {round}");
    }
}

#[test]
fn one_job_of_many_tasks_is_left_in_its_midst_when_the_time_is_over() {
    let site = api::Site { id: "s".into(), health: common::READY, ..Default::default() };
    let node = api::Node {
        id: "s/n".into(),
        site_id: "s".into(),
        health: common::READY,
        cpu_milli: 1_000_000,
        ..Default::default()
    };
    let state = state(&border::Delta { sites: vec![site], nodes: vec![node], ..Default::default() });
    let resources = Some(api::Resources { cpu_milli: 1, ..Default::default() });
    let group = api::TaskGroup { name: "main".into(), count: 100_000, resources, ..Default::default() };
    for (kind, placed) in [(api::JobKind::Batch, 1..5_000), (api::JobKind::Gang, 0..1)] {
        let spec = api::JobSpec { kind: kind.into(), task_groups: vec![group.clone()], ..Default::default() };
        let jobs = vec![border::PendingJob { job_id: "j".into(), spec: Some(spec), ..Default::default() }];
        let mut asks_left = 4;
        let mut stop = |_: &Progress| {
            asks_left = i32::max(asks_left - 1, 0);
            (asks_left == 0).then_some(Reason::Time)
        };
        let found = optimize(&state, &border::OptimizeRequest { jobs, ..Default::default() }, 1, &mut stop).unwrap();
        let account = found.found.unwrap();
        assert!(placed.contains(&account.placed_task_count), "{kind:?}: {account:?}");
        assert_eq!(account.placed_task_count + account.unplaced_task_count, 100_000);
    }
}

#[test]
fn the_answer_is_the_best_that_the_progress_told_of() {
    for seed in 0..4_u64 {
        // Many nodes and few tasks without room, so that several steps of a round want the same one.
        let request = drawn_table(128, 390, 15..26, seed);
        let unplaced = 16 * (1 + request.cost.iter().max().unwrap());
        let found = solve_table(&request, 1, &mut Rounds(40)).unwrap();
        assert!(found.unplaced_task_count > 0, "seed {seed}: too easy to be of use");
        let told = found.progress.last().unwrap().objective_microcny_per_hour;
        assert_eq!(found.cost + unplaced * i64::from(found.unplaced_task_count), told, "seed {seed}");
    }
}
