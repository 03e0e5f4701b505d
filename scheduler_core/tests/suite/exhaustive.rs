//! The placer against one that tries everything, on small cases.

use crate::common;
use proptest::prelude::*;
use scheduler_core::coupling::Coupling;
use scheduler_core::place::place;
use scheduler_core::state::{Cluster, State};
use scheduler_core::verify::verify;
use scheduler_core::wire::mumian::api::v1 as api;
use scheduler_core::wire::mumian_core::v1 as border;

fn cluster(fleet: border::Delta) -> Cluster {
    let mut state = State::default();
    state.apply(fleet).expect("the fleet speaks of its own sites only");
    state.snapshot()
}

/// Every way to place one task anywhere, feasible or not: node by node, device by device.
fn everywhere(fleet: &border::Delta, job: &border::PendingJob, group: &str, index: u32) -> Vec<border::Placement> {
    let groups = &job.spec.as_ref().expect("made with one").task_groups;
    let group = groups.iter().find(|g| g.name == group).expect("of this job");
    let milli = group.resources.as_ref().and_then(|r| r.accelerators.as_ref()).map_or(0, |a| a.milli) as u32;
    let mut all = Vec::new();
    for node in &fleet.nodes {
        let count: u32 = node.accelerators.iter().map(|a| a.count).sum();
        let share = |device_index, milli| api::DeviceShare { device_index, milli };
        let devices: Vec<Vec<api::DeviceShare>> = match milli {
            0 => vec![vec![]],
            2000 => (0..count).flat_map(|i| (0..i).map(move |j| vec![share(j, 1000), share(i, 1000)])).collect(),
            milli => (0..count).map(|i| vec![share(i, milli)]).collect(),
        };
        all.extend(devices.into_iter().map(|devices| border::Placement {
            job_id: job.job_id.clone(),
            task_group: group.name.clone(),
            task_index: index,
            site_id: node.site_id.clone(),
            node_id: node.id.clone(),
            devices,
            ..Default::default()
        }));
    }
    all
}

/// Whether the verifier takes all of these placements. Gangs are sent as batch, so that parts of one count.
fn holds(cluster: &Cluster, jobs: &[border::PendingJob], placements: &[border::Placement]) -> bool {
    let mut jobs = jobs.to_vec();
    jobs.iter_mut().filter_map(|j| j.spec.as_mut()).for_each(|spec| spec.kind = api::JobKind::Batch.into());
    let plan = border::Plan { placements: placements.to_vec(), ..Default::default() };
    verify(cluster, &border::VerifyRequest { plan: Some(plan), jobs }).verdicts.iter().all(|v| v.accepted)
}

/// Whether some way to place all these tasks holds.
fn placeable(
    cluster: &Cluster,
    fleet: &border::Delta,
    job: &border::PendingJob,
    tasks: &[(String, u32)],
    done: &mut Vec<border::Placement>,
) -> bool {
    let Some((group, index)) = tasks.get(done.len()).cloned() else { return true };
    everywhere(fleet, job, &group, index).into_iter().any(|placement| {
        done.push(placement);
        let found = holds(cluster, std::slice::from_ref(job), done) && placeable(cluster, fleet, job, tasks, done);
        done.pop();
        found
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn the_verifier_takes_every_plan_and_no_node_is_overfull(
        fleet in common::fleet(3, 4),
        request in common::request(8, 3, 5),
    ) {
        let cluster = cluster(fleet.clone());
        let plan = place(&cluster, &request).expect("the request is in range");
        let sent = border::VerifyRequest { plan: Some(plan.clone()), jobs: request.jobs.clone() };
        prop_assert!(verify(&cluster, &sent).verdicts.iter().all(|v| v.accepted));
        for node in &fleet.nodes {
            let mut devices = vec![0; node.accelerators.iter().map(|a| a.count as usize).sum()];
            let (mut cpu_milli, mut memory_mib) = (0, 0);
            for p in plan.placements.iter().filter(|p| p.node_id == node.id) {
                let job = request.jobs.iter().find(|j| j.job_id == p.job_id).expect("of this request");
                let groups = &job.spec.as_ref().expect("made with one").task_groups;
                let group = groups.iter().find(|g| g.name == p.task_group).expect("of this job");
                let resources = group.resources.as_ref().expect("made with them");
                cpu_milli += resources.cpu_milli;
                memory_mib += resources.memory_mib;
                p.devices.iter().for_each(|s| devices[s.device_index as usize] += s.milli);
            }
            prop_assert!(cpu_milli <= node.cpu_milli && memory_mib <= node.memory_mib);
            prop_assert!(devices.iter().all(|milli| *milli <= 1000));
        }
        let tasks: u32 = request.jobs.iter().flat_map(|j| &j.spec.as_ref().expect("made").task_groups).map(|g| g.count).sum();
        let told = plan.placements.len() + plan.unplaced.len() + plan.deferred.len();
        prop_assert_eq!(told, tasks as usize, "each task is in the plan once");
    }

    #[test]
    fn no_task_is_left_that_would_still_fit_beside_the_plan(
        fleet in common::fleet(2, 3),
        mut request in common::request(4, 2, 3),
    ) {
        request.jobs.iter_mut().filter_map(|j| j.spec.as_mut()).for_each(|s| s.kind = api::JobKind::Batch.into());
        let cluster = cluster(fleet.clone());
        let plan = place(&cluster, &request).expect("the request is in range");
        for left in &plan.unplaced {
            let job = request.jobs.iter().find(|j| j.job_id == left.job_id).expect("of this request");
            for extra in everywhere(&fleet, job, &left.task_group, left.task_index) {
                let mut more = plan.placements.clone();
                more.push(extra);
                prop_assert!(!holds(&cluster, &request.jobs, &more));
            }
        }
    }

    #[test]
    fn one_task_goes_where_it_costs_least(
        fleet in common::fleet(3, 4),
        mut request in common::request(1, 1, 1),
    ) {
        let policy = border::Policy { carbon_kg_microcny: 90_000, ..Default::default() };
        request.policy = Some(policy);
        request.jobs[0].spec.as_mut().expect("made with one").deferral = None;
        let cluster = cluster(fleet.clone());
        let plan = place(&cluster, &request).expect("the request is in range");
        let job = &request.jobs[0];
        let mut costs = Vec::new();
        for option in everywhere(&fleet, job, "g0", 0) {
            if holds(&cluster, &request.jobs, std::slice::from_ref(&option)) {
                // The same task where only this node and model are left costs what it costs there.
                let mut alone = fleet.clone();
                alone.nodes.retain(|n| n.id == option.node_id);
                let mut asked = request.clone();
                let node = &alone.nodes[0];
                let models = node.accelerators.iter().flat_map(|a| (0..a.count).map(|_| a.model.clone()));
                let model = option.devices.first().and_then(|d| models.clone().nth(d.device_index as usize));
                let spec = asked.jobs[0].spec.as_mut().expect("made with one");
                let resources = spec.task_groups[0].resources.as_mut().expect("made with them");
                if let (Some(accelerators), Some(model)) = (&mut resources.accelerators, model) {
                    accelerators.models = vec![model];
                }
                let only = place(&self::cluster(alone), &asked).expect("the request is in range");
                costs.push(only.placements[0].cost.expect("always told").total_microcny_per_hour);
            }
        }
        let cost = plan.placements.first().map(|p| p.cost.expect("always told").total_microcny_per_hour);
        prop_assert_eq!(cost, costs.into_iter().min());
    }

    #[test]
    fn a_job_that_may_wait_starts_when_it_is_cheapest(
        fleet in common::fleet(3, 2),
        mut request in common::request(1, 1, 2),
        (finish, run) in (0_u64..400, 1_u64..150),
    ) {
        request.policy = Some(border::Policy { carbon_kg_microcny: 90_000, ..Default::default() });
        request.now_unix_s = common::NOW;
        let spec = request.jobs[0].spec.as_mut().expect("made with one");
        // A task, or a gang of two that nothing couples: what greed places best.
        let count = if spec.kind() == api::JobKind::Gang { 2 } else { 1 };
        let group = &spec.task_groups[0];
        let (resources, latency_slo, compute_time) = (group.resources.clone(), group.latency_slo.clone(), group.compute_time.clone());
        spec.task_groups[0] =
            api::TaskGroup { name: "g0".into(), count, resources, latency_slo, compute_time, ..Default::default() };
        spec.deferral = Some(api::Deferral { finish_within_s: finish * 60, run_time_s: run * 60 });
        let cluster = cluster(fleet);
        let plan = place(&cluster, &request).expect("the request is in range");
        let total = |plan: &border::Plan| plan.placements.iter().map(|p| p.cost.expect("told").total_microcny_per_hour).sum();
        // What it costs if it must start at this time.
        let cost_at = |start: i64| -> u64 {
            let mut asked = request.clone();
            asked.now_unix_s = start;
            let spec = asked.jobs[0].spec.as_mut().expect("made with one");
            spec.deferral.iter_mut().for_each(|d| d.finish_within_s = d.run_time_s);
            let plan = place(&cluster, &asked).expect("the request is in range");
            assert!(plan.deferred.is_empty());
            total(&plan)
        };
        let now = cost_at(common::NOW);
        let chosen = plan.deferred.first().map_or(now, |d| cost_at(d.start_unix_s));
        prop_assert!(chosen <= now);
        if let Some(first) = plan.deferred.first() {
            prop_assert!(plan.placements.is_empty() && plan.deferred.iter().all(|d| d.start_unix_s == first.start_unix_s));
            prop_assert!(first.start_unix_s + run as i64 * 60 <= common::NOW + finish as i64 * 60);
            let saves: u64 = plan.deferred.iter().map(|d| d.saves_microcny).sum();
            prop_assert_eq!(saves, (now - chosen) * run * 60 / 3600);
        }
        // Means are rounded down to whole micro-CNY, which is worth a few of them; and a wait has to save
        // one over the whole run, which is more by the hour when the run is short.
        let rounding = 8 + 60 / run;
        for minutes in (1..=finish.saturating_sub(run)).step_by(11).chain(finish.checked_sub(run)) {
            let other = cost_at(common::NOW + minutes as i64 * 60);
            prop_assert!(chosen <= other + rounding, "in {} min it costs {}, not {}", minutes, other, chosen);
        }
    }

    #[test]
    fn a_small_gang_is_placed_exactly_when_it_can_be(
        (fleet, job) in common::tight_gang(),
        objective in prop::sample::select(&common::OBJECTIVES[..]),
    ) {
        let groups = job.spec.clone().expect("made with one").task_groups;
        let tasks: Vec<_> = groups.iter().flat_map(|g| (0..g.count).map(|i| (g.name.clone(), i))).collect();
        let cluster = cluster(fleet.clone());
        let policy = border::Policy { objective: objective.into(), ..Default::default() };
        let request = border::PlaceRequest { evaluation_id: "e".into(), jobs: vec![job.clone()], policy: Some(policy), ..Default::default() };
        let plan = place(&cluster, &request).expect("the request is in range");
        let possible = placeable(&cluster, &fleet, &job, &tasks, &mut Vec::new());
        prop_assert_eq!(plan.placements.len(), if possible { tasks.len() } else { 0 });
    }

    #[test]
    fn a_small_job_of_coupled_tasks_is_placed_whole_exactly_when_it_can_be(
        (fleet, job) in common::coupled_job(),
        objective in prop::sample::select(&common::OBJECTIVES[..]),
    ) {
        let spec = job.spec.clone().expect("made with one");
        let groups = spec.task_groups.iter();
        let tasks: Vec<_> = groups.flat_map(|g| (0..g.count).map(|i| (g.name.clone(), i))).collect();
        let cluster = cluster(fleet.clone());
        let policy = border::Policy { objective: objective.into(), ..Default::default() };
        let request = border::PlaceRequest { evaluation_id: "e".into(), jobs: vec![job.clone()], policy: Some(policy), ..Default::default() };
        let plan = place(&cluster, &request).expect("the request is in range");
        prop_assert!(holds(&cluster, &request.jobs, &plan.placements));
        let is_coupled = spec.task_groups.iter().any(|g| Coupling::of("j", &spec, g).is_some());
        if placeable(&cluster, &fleet, &job, &tasks, &mut Vec::new()) {
            // What no rule of the job couples is placed as it comes, but for gangs.
            let whole = is_coupled || spec.kind() == api::JobKind::Gang;
            prop_assert!(!whole || plan.placements.len() == tasks.len());
        } else {
            prop_assert!(plan.placements.len() < tasks.len());
        }
    }
}
