//! What runs is assessed as the placer saw it, until the fleet changes.

use crate::common;
use proptest::prelude::*;
use scheduler_core::assess::assess;
use scheduler_core::cost;
use scheduler_core::filter::{rejection, STAGES};
use scheduler_core::model::{models, Task};
use scheduler_core::place::place;
use scheduler_core::state::State;
use scheduler_core::trial::Trial;
use scheduler_core::wire::mumian::api::v1 as api;
use scheduler_core::wire::mumian_core::v1 as border;

/// The fleet with the placed tasks booked, and what is asked about them.
fn booked(fleet: &border::Delta, request: &border::PlaceRequest) -> (State, border::Plan, border::AssessRequest) {
    let mut state = State::default();
    state.apply(fleet.clone()).expect("the fleet speaks of its own sites only");
    let plan = place(&state.snapshot(), request).expect("the request is in range");
    let (jobs, policy) = (request.jobs.clone(), request.policy.clone());
    let mut asked = border::AssessRequest { jobs, policy, ..Default::default() };
    let mut allocations = Vec::new();
    for p in plan.placements.clone() {
        let job = request.jobs.iter().find(|j| j.job_id == p.job_id).and_then(|j| j.spec.as_ref()).expect("sent");
        let group = job.task_groups.iter().find(|g| g.name == p.task_group).expect("of this job");
        let allocation_id = format!("{}.{}.{}", p.job_id, p.task_group, p.task_index);
        let (job_id, task_group, task_index) = (p.job_id, p.task_group, p.task_index);
        asked.running.push(border::RunningTask {
            allocation_id: allocation_id.clone(),
            job_id: job_id.clone(),
            task_group: task_group.clone(),
            task_index,
        });
        let (resources, zone_traffic) = (group.resources.clone(), group.zone_traffic.clone());
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
    (state, plan, asked)
}

/// What is said of a task that comes anew to where it runs, once it has ended there.
fn newcomer(state: &State, running: &border::RunningTask, asked: &border::AssessRequest) -> border::Assessment {
    let Some(standing) = state.allocation(&running.allocation_id) else {
        return border::Assessment { gone: true, ..Default::default() };
    };
    let mut rest = state.fork();
    let (base_generation, removed_allocation_ids) = (rest.generation(), vec![running.allocation_id.clone()]);
    rest.apply(border::Delta { base_generation, removed_allocation_ids, ..Default::default() }).expect("it is there");
    let cluster = rest.snapshot();
    let job = asked.jobs.iter().find(|j| j.job_id == running.job_id).and_then(|j| j.spec.as_ref()).expect("sent");
    let group = job.task_groups.iter().find(|g| g.name == running.task_group).expect("of this job");
    let mut task = Task::of(&running.job_id, job, group);
    task.demand = task.demand.starting(asked.now_unix_s);
    let mut trial = Trial::new(&cluster);
    trial.enter(&running.job_id, job);
    let devices = &cluster.node(standing.at).devices;
    let held = standing.held.devices.first().and_then(|share| devices.get(share.device_index as usize));
    let offered = || models(cluster.node(standing.at), &task.demand).next().flatten();
    let candidate = trial.candidate_of(standing.at, &task, held.map(|device| device.model).or_else(offered));
    border::Assessment {
        gone: false,
        cost: Some(cost::of(&candidate, &asked.policy.clone().unwrap_or_default())),
        latency: candidate.latency(),
        broken: STAGES.iter().find(|filter| !filter.admits(&candidate)).map(|filter| rejection(*filter, &candidate)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Also tasks that are coupled: each is asked about beside the others, not beside itself.
    #[test]
    fn what_was_just_placed_stands_as_it_was_placed(
        fleet in common::fleet(3, 3),
        request in common::request(3, 3, 4),
    ) {
        let request = border::PlaceRequest { now_unix_s: 0, ..request };
        let policy = border::Policy {
            fragmentation_microcny_per_device_hour: 0,
            ..request.policy.clone().unwrap_or_default()
        };
        let request = border::PlaceRequest { policy: Some(policy), ..request };
        let (state, plan, asked) = booked(&fleet, &request);
        let answer = assess(&state, &asked).expect("all is known");
        prop_assert_eq!(answer.assessments.len(), plan.placements.len());
        for (assessment, placement) in answer.assessments.iter().zip(&plan.placements) {
            prop_assert_eq!(&assessment.broken, &None, "{:?}", placement);
            prop_assert_eq!(&assessment.cost, &placement.cost);
            prop_assert_eq!(&assessment.latency, &placement.latency);
        }
    }

    /// Against the dumb way: a state of its own for each, in which the task has really ended. Since they were placed,
    /// sites, nodes and links have become others, and what some jobs ask for too.
    #[test]
    fn each_stands_as_in_a_state_without_it(
        fleet in common::fleet(3, 3),
        later in common::fleet(3, 3),
        request in common::request(3, 3, 4),
        asks_more in any::<bool>(),
    ) {
        let (mut state, _, mut asked) = booked(&fleet, &request);
        let base_generation = state.generation();
        state.apply(border::Delta { reset: false, base_generation, ..later }).expect("it is whole");
        for group in asked.jobs.iter_mut().flat_map(|job| job.spec.as_mut()).flat_map(|spec| &mut spec.task_groups) {
            group.resources.iter_mut().for_each(|asked| asked.cpu_milli += if asks_more { 250 } else { 0 });
            group.zone_traffic.iter_mut().for_each(|asked| asked.bandwidth_kbps *= if asks_more { 2 } else { 1 });
        }
        let together = assess(&state, &asked).expect("all is known").assessments;
        let alone: Vec<_> = asked.running.iter().map(|running| newcomer(&state, running, &asked)).collect();
        prop_assert_eq!(&together, &alone);
        let promises = border::AssessRequest { promises_only: true, ..asked };
        let told = |a: &border::Assessment| border::Assessment { cost: None, latency: None, ..a.clone() };
        let expected: Vec<_> = alone.iter().map(told).collect();
        prop_assert_eq!(assess(&state, &promises).expect("all is known").assessments, expected);
    }

    /// A drained site keeps what runs there, and says of each task that it could not come anew.
    #[test]
    fn what_runs_on_a_draining_site_is_told(fleet in common::fleet(2, 3), request in common::request(2, 3, 4)) {
        let (mut state, _, asked) = booked(&fleet, &request);
        let sites = fleet.sites.iter().map(|s| api::Site { health: api::Health::Draining.into(), ..s.clone() });
        let delta = border::Delta {
            base_generation: state.generation(),
            sites: sites.collect(),
            ..Default::default()
        };
        state.apply(delta).expect("they are known");
        for assessment in assess(&state, &asked).expect("all is known").assessments {
            let filter = assessment.broken.map(|b| b.filter);
            prop_assert_eq!(filter, Some(api::Filter::Health.into()));
        }
    }
}

#[test]
fn an_allocation_that_is_not_there_is_gone_and_one_of_no_job_is_refused() {
    let group = api::TaskGroup { name: "main".into(), count: 1, ..Default::default() };
    let spec = api::JobSpec { task_groups: vec![group], ..Default::default() };
    let jobs = vec![border::PendingJob { job_id: "j".into(), spec: Some(spec), ..Default::default() }];
    let task = |job: &str, group: &str| border::RunningTask {
        allocation_id: "a".into(),
        job_id: job.into(),
        task_group: group.into(),
        task_index: 0,
    };
    let asked = |running| border::AssessRequest { jobs: jobs.clone(), running: vec![running], ..Default::default() };
    let gone = border::Assessment { gone: true, ..Default::default() };
    assert_eq!(assess(&State::default(), &asked(task("j", "main"))).map(|a| a.assessments), Ok(vec![gone]));
    let refusal = |running| assess(&State::default(), &asked(running)).expect_err("it is refused").to_string();
    assert_eq!(refusal(task("k", "main")), "running[0].job_id (k) is not among the jobs; send the job as well");
    assert_eq!(refusal(task("j", "side")), "running[0].task_group (side) is no group of job j");
}
