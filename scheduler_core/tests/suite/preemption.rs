//! Preemption evicts the least that makes room, and never for nothing: against every set of
//! allocations on every node, on small cases.

use crate::common;
use proptest::prelude::*;
use proptest::sample::select;
use scheduler_core::place::{place, place_by_scan};
use scheduler_core::state::{Cluster, State};
use scheduler_core::verify::verify;
use scheduler_core::wire::mumian::api::v1 as api;
use scheduler_core::wire::mumian_core::v1 as border;

const NODES: usize = 3;
const CPU_MILLI: u64 = 4000;

fn nodes() -> Vec<api::Node> {
    let cards = api::Accelerator { model: "H100".into(), count: 2, ..Default::default() };
    let node = |id| api::Node {
        id: format!("s/n{id}"),
        site_id: "s".into(),
        health: common::READY,
        cpu_milli: CPU_MILLI,
        memory_mib: 4096,
        accelerators: vec![cards.clone()],
        ..Default::default()
    };
    (0..NODES).map(node).collect()
}

fn asking(cpu_milli: u64, accelerator_milli: u64) -> Option<api::Resources> {
    let accelerators =
        (accelerator_milli > 0).then(|| api::AcceleratorRequest { milli: accelerator_milli, ..Default::default() });
    Some(api::Resources { cpu_milli, memory_mib: 1, accelerators })
}

/// Allocations that fit their nodes; those of one gang may be on several.
fn allocations() -> impl Strategy<Value = Vec<border::UsedResources>> {
    let one =
        (0..NODES, 0_u64..4, select(vec![0_u32, 0, 400, 1000]), 0_u32..2, 0_u32..4, select(vec!["", "", "a", "b"]));
    prop::collection::vec(one, 0..9).prop_map(|all| {
        let mut cpu_left = [CPU_MILLI; NODES];
        let mut milli_left = [[1000_u32; 2]; NODES];
        let mut allocations = Vec::new();
        for (id, (node, cpu, milli, device, priority, gang)) in all.into_iter().enumerate() {
            let (cpu_left, milli_left) = (&mut cpu_left[node], &mut milli_left[node][device as usize]);
            if cpu * 1000 > *cpu_left || milli > *milli_left {
                continue;
            }
            (*cpu_left, *milli_left) = (*cpu_left - cpu * 1000, *milli_left - milli);
            let share = api::DeviceShare { device_index: device, milli };
            allocations.push(border::UsedResources {
                allocation_id: format!("u{id}"),
                node_id: format!("s/n{node}"),
                resources: asking(cpu * 1000, 0),
                devices: if milli > 0 { vec![share] } else { vec![] },
                job_id: if gang.is_empty() { format!("v{id}") } else { gang.into() },
                gang: !gang.is_empty(),
                // A gang has one priority.
                priority: if gang.is_empty() { priority } else { u32::from(gang == "b") },
                ..Default::default()
            });
        }
        allocations
    })
}

fn job(kind: api::JobKind, priority: u32, groups: Vec<api::TaskGroup>) -> border::PendingJob {
    let spec = api::JobSpec { kind: kind.into(), priority, task_groups: groups, ..Default::default() };
    border::PendingJob { job_id: "j".into(), spec: Some(spec), explain: true, ..Default::default() }
}

fn group(name: &str, count: u32, cpu_milli: u64, accelerator_milli: u64) -> api::TaskGroup {
    let resources = asking(cpu_milli, accelerator_milli);
    api::TaskGroup { name: name.into(), count, resources, ..Default::default() }
}

fn cluster(allocations: &[border::UsedResources]) -> Cluster {
    let site = api::Site { id: "s".into(), health: common::READY, ..Default::default() };
    let allocations = allocations.to_vec();
    let delta = border::Delta { reset: true, sites: vec![site], nodes: nodes(), allocations, ..Default::default() };
    let mut state = State::default();
    state.apply(delta).expect("the delta speaks of its own nodes only");
    state.snapshot()
}

fn asked(jobs: &[border::PendingJob]) -> border::PlaceRequest {
    let policy = border::Policy { preempt: true, ..Default::default() };
    border::PlaceRequest { evaluation_id: "e".into(), jobs: jobs.to_vec(), policy: Some(policy), ..Default::default() }
}

fn holds(cluster: &Cluster, job: &border::PendingJob, plan: &border::Plan) -> bool {
    let request = border::VerifyRequest { plan: Some(plan.clone()), jobs: vec![job.clone()] };
    verify(cluster, &request).verdicts.iter().all(|v| v.accepted)
}

/// The highest priority that falls, and how many allocations.
fn toll(allocations: &[border::UsedResources], evictions: &[border::Eviction]) -> (u32, usize) {
    let priority = |e: &border::Eviction| {
        allocations.iter().find(|a| a.allocation_id == e.allocation_id).expect("it is there").priority
    };
    (evictions.iter().map(priority).max().unwrap_or(0), evictions.len())
}

/// The least toll of all ways to place the one task of the job that the verifier takes.
fn least(
    cluster: &Cluster,
    allocations: &[border::UsedResources],
    job: &border::PendingJob,
    milli: u32,
) -> Option<(u32, usize)> {
    let mut least = None;
    for subset in 0..1_u32 << allocations.len() {
        let fallen = allocations.iter().enumerate().filter(|(i, _)| subset >> i & 1 == 1).map(|(_, a)| a);
        let evictions: Vec<_> = fallen
            .map(|a| border::Eviction {
                allocation_id: a.allocation_id.clone(),
                by_job_id: "j".into(),
                by_task_group: "main".into(),
                by_task_index: 0,
            })
            .collect();
        let toll = toll(allocations, &evictions);
        if least.is_some_and(|least| least <= toll) {
            continue;
        }
        for node in nodes() {
            for device_index in 0..if milli > 0 { 2 } else { 1 } {
                let devices = if milli > 0 { vec![api::DeviceShare { device_index, milli }] } else { vec![] };
                let placement = border::Placement {
                    job_id: "j".into(),
                    task_group: "main".into(),
                    site_id: "s".into(),
                    node_id: node.id.clone(),
                    devices,
                    ..Default::default()
                };
                let plan =
                    border::Plan { placements: vec![placement], evictions: evictions.clone(), ..Default::default() };
                if holds(cluster, job, &plan) {
                    least = Some(toll);
                }
            }
        }
    }
    least
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn one_task_evicts_the_lowest_priority_and_of_that_the_fewest(
        allocations in allocations(),
        cpu in 1_u64..5,
        milli in select(vec![0_u64, 0, 500, 1000]),
    ) {
        let cluster = cluster(&allocations);
        let job = job(api::JobKind::Batch, 2, vec![group("main", 1, cpu * 1000, milli)]);
        let plan = place(&cluster, &asked(std::slice::from_ref(&job))).expect("the request is in range");
        let found = (!plan.placements.is_empty()).then(|| toll(&allocations, &plan.evictions));
        prop_assert_eq!(found, least(&cluster, &allocations, &job, milli as u32));
    }

    #[test]
    fn whatever_is_evicted_is_lawful_and_a_gang_that_does_not_fit_evicts_nothing(
        allocations in allocations(),
        gang in any::<bool>(),
        groups in prop::collection::vec((1_u32..4, 1_u64..4, select(vec![0_u64, 500, 1000])), 1..3),
        other in (1_u32..3, 1_u64..4),
    ) {
        let cluster = cluster(&allocations);
        let kind = if gang { api::JobKind::Gang } else { api::JobKind::Batch };
        let groups = groups.into_iter().enumerate();
        let groups = groups.map(|(i, (count, cpu, milli))| group(&format!("g{i}"), count, cpu * 1000, milli));
        let first = job(kind, 3, groups.collect());
        let second = border::PendingJob {
            job_id: "k".into(),
            ..job(api::JobKind::Batch, 2, vec![group("main", other.0, other.1 * 1000, 0)])
        };
        let jobs = [first.clone(), second];
        let plan = place(&cluster, &asked(&jobs)).expect("the request is in range");
        prop_assert_eq!(&plan, &place_by_scan(&cluster, &asked(&jobs)).expect("the request is in range"));
        let sent = border::VerifyRequest { plan: Some(plan.clone()), jobs: jobs.to_vec() };
        for verdict in verify(&cluster, &sent).verdicts {
            prop_assert!(verdict.accepted, "{:?}", verdict.rejection);
        }
        let by = |e: &border::Eviction| plan.placements.iter().any(|p| {
            (&p.job_id, &p.task_group, p.task_index) == (&e.by_job_id, &e.by_task_group, e.by_task_index)
        });
        prop_assert!(plan.evictions.iter().all(by), "a victim falls for a task that is placed");
        if gang && plan.unplaced.iter().any(|u| u.job_id == "j") {
            prop_assert!(plan.evictions.iter().all(|e| e.by_job_id != "j"));
        }
    }
}

/// One node that four allocations fill, and a task of two cores.
fn full() -> (Cluster, border::PendingJob, border::Plan) {
    let used = |id: usize, priority, gang| border::UsedResources {
        allocation_id: format!("u{id}"),
        node_id: format!("s/n{}", id / 2),
        resources: asking(2000, 0),
        job_id: if gang { "g".into() } else { format!("v{id}") },
        gang,
        priority,
        ..Default::default()
    };
    let allocations: Vec<_> = [(0, 5, false), (1, 1, false), (2, 9, false), (3, 9, false), (4, 1, true), (5, 1, true)]
        .map(|(i, p, g)| used(i, p, g))
        .into();
    let cluster = cluster(&allocations);
    let job = job(api::JobKind::Batch, 7, vec![group("main", 1, 2000, 0)]);
    let plan = place(&cluster, &asked(std::slice::from_ref(&job))).expect("the request is in range");
    (cluster, job, plan)
}

/// Why the verifier refuses the plan with these evictions instead; empty where it takes it.
fn reason(node_id: &str, ids: &[&str]) -> String {
    let (cluster, job, mut plan) = full();
    let eviction = plan.evictions[0].clone();
    plan.evictions =
        ids.iter().map(|id| border::Eviction { allocation_id: (*id).into(), ..eviction.clone() }).collect();
    plan.placements[0].node_id = node_id.into();
    let verdicts = verify(&cluster, &border::VerifyRequest { plan: Some(plan), jobs: vec![job] }).verdicts;
    verdicts[0].rejection.as_ref().map_or(String::new(), |r| r.reason.clone())
}

#[test]
fn the_verifier_takes_only_lawful_evictions() {
    let (_, _, plan) = full();
    let evicted: Vec<_> = plan.evictions.iter().map(|e| e.allocation_id.as_str()).collect();
    assert_eq!((plan.placements[0].node_id.as_str(), &evicted[..]), ("s/n0", &["u1"][..]));
    assert_eq!(reason("s/n0", &["u1"]), "");
    assert_eq!(reason("s/n0", &["u0"]), "");
    assert_eq!(reason("s/n0", &[]), "0 CPU free < 2 CPU asked");
    assert_eq!(reason("s/n0", &["u7"]), "allocation u7, which it evicts, is gone");
    assert_eq!(reason("s/n1", &["u2"]), "allocation u2 is not of lower priority (9)");
    assert_eq!(
        reason("s/n0", &["u0", "u1"]),
        "allocation u0 would have room beside the plan; do not evict it for nothing"
    );
    assert_eq!(reason("s/n2", &["u4"]), "allocation u5 is of a gang that is evicted in part; evict all of it");
    assert_eq!(reason("s/n2", &["u4", "u5"]), "");
}
