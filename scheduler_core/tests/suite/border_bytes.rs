//! Bytes that cross the border: whatever they are, every entry point answers with a valid result or
//! a typed error, and an error changes nothing. The bytes are those of good messages, damaged.

use crate::common;
use crate::common::wire_damage::{damaged, wounds};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use scheduler_core::error::CoreError;
use scheduler_core::explain::explain;
use scheduler_core::optimize::stop::Rounds;
use scheduler_core::optimize::{optimize, solve_table};
use scheduler_core::place::place;
use scheduler_core::state::State;
use scheduler_core::verify::{verify, verify_checked};
use scheduler_core::wire::mumian::api::v1 as api;
use scheduler_core::wire::mumian_core::v1 as border;

/// What a run may take: a damaged count may still ask for a million tasks in earnest.
const TASKS_MAX: u64 = 500;
const ROUNDS: u64 = 2;

/// The message, as the border reads it; none where the bytes are none.
fn read<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    M::decode(bytes).ok()
}

fn task_count(jobs: &[border::PendingJob]) -> u64 {
    let groups = jobs.iter().filter_map(|job| job.spec.as_ref()).flat_map(|spec| &spec.task_groups);
    groups.map(|group| u64::from(group.count)).fold(0, u64::saturating_add)
}

fn is_told(error: &CoreError) -> bool {
    !error.code().is_empty() && error.to_string().len() > 10
}

/// Every placement is of a task that was asked about, and on a node that is there.
fn is_sound(state: &State, plan: &border::Plan, jobs: &[border::PendingJob]) -> bool {
    let cluster = state.snapshot();
    plan.placements.iter().all(|p| {
        let job = jobs.iter().find(|job| job.job_id == p.job_id).and_then(|job| job.spec.as_ref());
        let group = job.and_then(|spec| spec.task_groups.iter().find(|g| g.name == p.task_group));
        group.is_some_and(|g| p.task_index < g.count) && cluster.at(&p.site_id, &p.node_id).is_some()
    })
}

fn ask_all(state: &State, request: &border::PlaceRequest) {
    let snapshot = state.snapshot();
    match place(&snapshot, request) {
        Ok(plan) => {
            assert!(is_sound(state, &plan, &request.jobs));
            let plan = Some(plan);
            let verdicts = verify(&snapshot, &border::VerifyRequest { plan: plan.clone(), jobs: request.jobs.clone() });
            assert_eq!(verdicts.verdicts.len(), plan.map_or(0, |p| p.placements.len()));
        }
        Err(error) => assert!(is_told(&error)),
    }
    for job in &request.jobs {
        let (job, policy, now_unix_s) = (Some(job.clone()), request.policy.clone(), request.now_unix_s);
        if let Err(error) = explain(&snapshot, &border::ExplainRequest { job, policy, now_unix_s }) {
            assert!(is_told(&error));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_global_rejects: 100_000, ..ProptestConfig::default() })]

    /// A fleet that has been damaged is refused, and nothing has changed, or it is a fleet that jobs can be asked
    /// about. What-if refuses and accepts the same.
    #[test]
    fn a_damaged_delta_is_refused_or_applied_whole(
        fleet in common::fleet(3, 3),
        more in common::fleet(3, 3),
        wounds in wounds(1..4),
        request in common::request(2, 2, 3),
    ) {
        let mut state = State::default();
        state.apply(fleet).expect("the fleet speaks of its own sites only");
        let base = border::Delta { reset: false, base_generation: state.generation(), ..more };
        let Some(delta) = read::<border::Delta>(&damaged(base.encode_to_vec(), &wounds)) else { return Ok(()) };
        let before = state.snapshot();
        let mut other = state.fork();
        match state.apply(delta.clone()) {
            Ok(generation) => {
                prop_assert_eq!(generation, before.generation + 1);
                prop_assert_eq!(other.apply(delta), Ok(generation));
                ask_all(&state, &request);
            }
            Err(error) => {
                prop_assert!(is_told(&error));
                prop_assert_eq!(state.generation(), before.generation);
                prop_assert!(state.snapshot() == before);
                prop_assert_eq!(other.apply(delta), Err(error));
            }
        }
    }

    #[test]
    fn a_damaged_request_is_refused_or_answered(
        fleet in common::fleet(3, 3),
        request in common::request(2, 2, 3),
        wounds in wounds(1..5),
    ) {
        let mut state = State::default();
        state.apply(fleet).expect("the fleet speaks of its own sites only");
        let bytes = damaged(request.encode_to_vec(), &wounds);
        let Some(request) = read::<border::PlaceRequest>(&bytes) else { return Ok(()) };
        prop_assume!(task_count(&request.jobs) <= TASKS_MAX);
        ask_all(&state, &request);
    }

    /// The verifier believes nothing of a plan.
    #[test]
    fn a_damaged_plan_gets_one_verdict_for_each_placement(
        fleet in common::fleet(3, 3),
        request in common::request(2, 2, 3),
        wounds in wounds(1..5),
    ) {
        let mut state = State::default();
        state.apply(fleet).expect("the fleet speaks of its own sites only");
        let plan = place(&state.snapshot(), &request).expect("the request is in range");
        let good = border::VerifyRequest { plan: Some(plan), jobs: request.jobs };
        let Some(bad) = read::<border::VerifyRequest>(&damaged(good.encode_to_vec(), &wounds)) else { return Ok(()) };
        match verify_checked(&state.snapshot(), &bad) {
            Ok(answer) => {
                let verdicts = answer.verdicts;
                prop_assert_eq!(verdicts.len(), bad.plan.map_or(0, |plan| plan.placements.len()));
                prop_assert!(verdicts.iter().all(|v| v.accepted != v.rejection.is_some()));
            }
            Err(error) => prop_assert!(is_told(&error)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_global_rejects: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_request_to_optimize_is_refused_or_answered(
        fleet in common::fleet(2, 3),
        request in common::request(2, 2, 3),
        moves_max in prop::option::of(0_u32..3),
        wounds in wounds(0..5),
    ) {
        let mut state = State::default();
        state.apply(fleet).expect("the fleet speaks of its own sites only");
        let running = book_first(&mut state, &request);
        let good = border::OptimizeRequest {
            evaluation_id: request.evaluation_id,
            jobs: request.jobs,
            policy: request.policy,
            running,
            moves_max,
            stop: Some(border::Stop { rounds_max: ROUNDS, ..Default::default() }),
            now_unix_s: request.now_unix_s,
        };
        let bytes = damaged(good.encode_to_vec(), &wounds);
        let Some(asked) = read::<border::OptimizeRequest>(&bytes) else { return Ok(()) };
        prop_assume!(task_count(&asked.jobs) <= TASKS_MAX);
        let before = state.snapshot();
        match optimize(&state, &asked, 1, &mut Rounds(ROUNDS)) {
            Ok(answer) => {
                let (start, found) = (answer.start.expect("always there"), answer.found.expect("always there"));
                prop_assert!(found.objective_microcny_per_hour <= start.objective_microcny_per_hour);
                prop_assert!(answer.bound_microcny_per_hour <= found.objective_microcny_per_hour);
                prop_assert!(is_sound(&state, &answer.plan.expect("always there"), &asked.jobs));
            }
            Err(error) => prop_assert!(is_told(&error)),
        }
        prop_assert!(state.snapshot() == before);
        let assessed = border::AssessRequest {
            jobs: asked.jobs,
            running: asked.running,
            policy: asked.policy,
            now_unix_s: asked.now_unix_s,
            promises_only: false,
        };
        match scheduler_core::assess::assess(&state, &assessed) {
            Ok(answer) => prop_assert_eq!(answer.assessments.len(), assessed.running.len()),
            Err(error) => prop_assert!(is_told(&error)),
        }
    }

    #[test]
    fn a_damaged_table_is_refused_or_solved(
        agents in 1_usize..4,
        tasks in 1_usize..5,
        numbers in vec(0_i64..100, 28),
        wounds in wounds(0..4),
    ) {
        let entries = agents * tasks;
        let good = border::AssignmentRequest {
            agents: agents as u32,
            tasks: tasks as u32,
            cost: numbers[..entries].to_vec(),
            weight: numbers[12..12 + entries].to_vec(),
            capacity: numbers[24..24 + agents].to_vec(),
            ..Default::default()
        };
        let bytes = damaged(good.encode_to_vec(), &wounds);
        let Some(asked) = read::<border::AssignmentRequest>(&bytes) else { return Ok(()) };
        match solve_table(&asked, 1, &mut Rounds(ROUNDS)) {
            Ok(answer) => {
                prop_assert_eq!(answer.agent.len(), asked.tasks as usize);
                prop_assert!(answer.agent.iter().all(|a| (-1..i64::from(asked.agents)).contains(&i64::from(*a))));
            }
            Err(error) => prop_assert!(is_told(&error)),
        }
    }

    /// No message at all: random bytes.
    #[test]
    fn random_bytes_are_no_more_dangerous_than_damaged_ones(bytes in vec(any::<u8>(), 0..60)) {
        if let Some(delta) = read::<border::Delta>(&bytes) {
            prop_assert!(State::default().apply(delta).map_or_else(|e| is_told(&e), |generation| generation == 1));
        }
        if let Some(request) = read::<border::PlaceRequest>(&bytes) {
            prop_assume!(task_count(&request.jobs) <= TASKS_MAX);
            ask_all(&State::default(), &request);
        }
    }
}

/// Books where the placer puts the first tasks, and says which they are.
fn book_first(state: &mut State, request: &border::PlaceRequest) -> Vec<border::RunningTask> {
    let plan = place(&state.snapshot(), request).expect("the request is in range");
    let mut running = Vec::new();
    let mut allocations = Vec::new();
    for p in plan.placements.into_iter().take(2) {
        let job = request.jobs.iter().find(|j| j.job_id == p.job_id).and_then(|j| j.spec.as_ref()).expect("sent");
        let group = job.task_groups.iter().find(|g| g.name == p.task_group).expect("of this job");
        let allocation_id = format!("{}.{}.{}", p.job_id, p.task_group, p.task_index);
        let (resources, zone_traffic) = (group.resources.clone(), group.zone_traffic.clone());
        let (job_id, task_group, task_index) = (p.job_id, p.task_group, p.task_index);
        running.push(border::RunningTask {
            allocation_id: allocation_id.clone(),
            job_id: job_id.clone(),
            task_group: task_group.clone(),
            task_index,
        });
        let (node_id, devices) = (p.node_id, p.devices);
        allocations.push(border::UsedResources {
            allocation_id,
            node_id,
            resources,
            devices,
            job_id,
            task_group,
            task_index,
            zone_traffic,
            ..Default::default()
        });
    }
    let base_generation = state.generation();
    state.apply(border::Delta { base_generation, allocations, ..Default::default() }).expect("just placed");
    running
}

fn job_of(groups: Vec<api::TaskGroup>) -> border::PendingJob {
    let spec = api::JobSpec { task_groups: groups, ..Default::default() };
    border::PendingJob { job_id: "j".into(), spec: Some(spec), explain: true, ..Default::default() }
}

fn refusal(jobs: Vec<border::PendingJob>) -> String {
    let request = border::PlaceRequest { jobs, ..Default::default() };
    place(&State::default().snapshot(), &request).expect_err("it is refused").to_string()
}

#[test]
fn a_million_task_job_is_refused_with_its_number() {
    let group = api::TaskGroup { name: "main".into(), count: 1_000_000, ..Default::default() };
    assert_eq!(
        refusal(vec![job_of(vec![group])]),
        "jobs[0].spec.task_groups[0].count (1000000) must be at most 100000"
    );
    let many = |i: usize| api::TaskGroup { name: format!("g{i}"), count: 100_000, ..Default::default() };
    assert_eq!(
        refusal(vec![job_of((0..41).map(many).collect())]),
        "jobs[0].pending bring the request to 4100000 tasks; send at most 4000000 at once"
    );
}

#[test]
fn groups_that_are_empty_or_ask_for_one_another_in_a_circle_are_placed_or_wait() {
    let near = |name: &str, other: &str| api::TaskGroup {
        name: name.into(),
        count: 1,
        group_latencies: vec![api::GroupLatency { task_group: other.into(), budget_us: 1000 }],
        apart_from: vec![api::AntiAffinity { topology: api::Topology::Node.into(), task_group: other.into() }],
        ..Default::default()
    };
    let empty = api::TaskGroup { name: "none".into(), ..Default::default() };
    let circle = job_of(vec![near("a", "b"), near("b", "c"), near("c", "a"), empty.clone()]);
    let site = api::Site { id: "s".into(), health: common::READY, ..Default::default() };
    let node = |n: usize| api::Node {
        id: format!("s/n{n}"),
        site_id: "s".into(),
        health: common::READY,
        ..Default::default()
    };
    for nodes in 0..4 {
        let mut state = State::default();
        let fleet =
            border::Delta { sites: vec![site.clone()], nodes: (0..nodes).map(node).collect(), ..Default::default() };
        state.apply(fleet).expect("all is known");
        let jobs = vec![circle.clone(), border::PendingJob { job_id: "k".into(), ..job_of(vec![empty.clone()]) }];
        let plan = place(&state.snapshot(), &border::PlaceRequest { jobs, ..Default::default() }).expect("in range");
        assert_eq!((plan.placements.len(), plan.unplaced.len()), (nodes, 3 - nodes), "each needs a node of its own");
    }
    let no_group = border::PendingJob { job_id: "j".into(), ..job_of(vec![]) };
    let plan =
        place(&State::default().snapshot(), &border::PlaceRequest { jobs: vec![no_group], ..Default::default() });
    assert_eq!(plan.expect("in range").placements, []);
}

#[test]
fn a_delta_out_of_order_is_refused_until_it_starts_anew() {
    let mut state = State::default();
    state.apply(border::Delta::default()).expect("it is the first");
    for base_generation in [0, 2, u64::MAX] {
        let delta = border::Delta { base_generation, ..Default::default() };
        assert_eq!(state.apply(delta), Err(CoreError::ResyncNeeded { base: base_generation, current: 1 }));
    }
    let anew = |base_generation| border::Delta { base_generation, reset: true, ..Default::default() };
    assert_eq!(state.apply(anew(9)), Ok(10), "it goes on from the later of the two");
    assert_eq!(state.apply(anew(3)), Ok(11));
    let far = state.apply(anew(u64::MAX)).expect("it is taken for less");
    assert_eq!(state.apply(border::Delta { base_generation: far, ..Default::default() }), Ok(far + 1));
}
