//! A refused delta changes nothing, and as many tasks of one size are placed as there is room for.

use proptest::prelude::*;
use scheduler_core::state::{Cluster, State};
use scheduler_core::wire::mumian::api::v1 as api;
use scheduler_core::wire::mumian_core::v1 as border;
use scheduler_core::{place, verify};

const READY: i32 = api::Health::Ready as i32;

/// One node a site with so many cores, in milli.
fn cluster(capacities: &[u64]) -> Cluster {
    let mut delta = border::Delta { reset: true, ..Default::default() };
    for (i, &cpu_milli) in capacities.iter().enumerate() {
        let id = format!("s{i}");
        delta.nodes.push(api::Node {
            id: format!("{id}/n1"),
            site_id: id.clone(),
            health: READY,
            cpu_milli,
            memory_mib: 4096,
            ..Default::default()
        });
        delta.sites.push(api::Site { id, health: READY, ..Default::default() });
    }
    let mut state = State::default();
    state.apply(delta).expect("the delta speaks of its own sites only");
    state.snapshot()
}

fn job(kind: api::JobKind, group: api::TaskGroup) -> border::PendingJob {
    let spec = api::JobSpec { kind: kind.into(), task_groups: vec![group], ..Default::default() };
    border::PendingJob { job_id: "job".into(), spec: Some(spec), pending: vec![], explain: true, ..Default::default() }
}

fn request(job: &border::PendingJob) -> border::PlaceRequest {
    border::PlaceRequest { evaluation_id: "e".into(), jobs: vec![job.clone()], ..Default::default() }
}

fn cpu(cpu_milli: u64) -> Option<api::Resources> {
    Some(api::Resources { cpu_milli, memory_mib: 1, accelerators: None })
}

#[test]
fn a_delta_about_an_unknown_site_changes_nothing() {
    let mut state = State::default();
    let node = api::Node { id: "x/n".into(), site_id: "x".into(), ..Default::default() };
    let site = api::Site { id: "y".into(), ..Default::default() };
    let delta = border::Delta { sites: vec![site], nodes: vec![node], ..Default::default() };
    assert_eq!(state.apply(delta).expect_err("site x is not known").code(), "UNKNOWN_SITE");
    assert_eq!(state.snapshot(), Cluster::default());
}

proptest! {
    #[test]
    fn every_plan_passes_the_verifier_and_the_number_placed_is_the_most_possible(
        capacities in prop::collection::vec(0_u64..5_000, 1..5),
        count in 0_u32..12,
        cpu_milli in 1_u64..2_000,
        gang in any::<bool>(),
    ) {
        let cluster = cluster(&capacities);
        let kind = if gang { api::JobKind::Gang } else { api::JobKind::Batch };
        let group = api::TaskGroup { name: "main".into(), count, resources: cpu(cpu_milli), ..Default::default() };
        let job = job(kind, group);
        let plan = place::place(&cluster, &request(&job)).expect("the request is complete");
        let room: u64 = capacities.iter().map(|c| c / cpu_milli).sum();
        let fits = room.min(u64::from(count)) as u32;
        let expected = if gang && fits < count { 0 } else { fits };
        prop_assert_eq!(plan.placements.len() as u32, expected);
        prop_assert_eq!(plan.unplaced.len() as u32, count - expected);
        let again = place::place(&cluster, &request(&job)).expect("the request is complete");
        prop_assert_eq!(&plan, &again);
        let verdicts = verify::verify(&cluster, &border::VerifyRequest { plan: Some(plan), jobs: vec![job] }).verdicts;
        prop_assert!(verdicts.iter().all(|v| v.accepted));
    }
}
