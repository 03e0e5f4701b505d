//! The first two golden scenarios, and what must hold of every plan.

use proptest::prelude::*;
use scheduler_core::state::{Cluster, State};
use scheduler_core::wire::mumian::api::v1 as api;
use scheduler_core::wire::mumian_core::v1 as border;
use scheduler_core::{place, verify};

const READY: i32 = api::Health::Ready as i32;

struct SiteFacts {
    id: &'static str,
    rtt_us: u64,
    compute_by_arch: &'static str,
    gpu_count: u32,
    cpu_milli: u64,
}

fn cluster(sites: &[SiteFacts]) -> Cluster {
    let mut delta = border::Delta { reset: true, ..Default::default() };
    for facts in sites {
        delta.sites.push(api::Site { id: facts.id.into(), health: READY, ..Default::default() });
        delta.nodes.push(api::Node {
            id: format!("{}/n1", facts.id),
            site_id: facts.id.into(),
            arch: facts.compute_by_arch.into(),
            health: READY,
            cpu_milli: facts.cpu_milli,
            memory_mib: 4096,
            accelerators: vec![api::Accelerator {
                kind: "gpu".into(),
                model: "H100".into(),
                count: facts.gpu_count,
                active_power_mw: 700_000,
            }],
            ..Default::default()
        });
        delta.links.push(api::Link {
            from_id: "tianhe".into(),
            to_site_id: facts.id.into(),
            rtt_p99_us: facts.rtt_us,
            ..Default::default()
        });
    }
    let mut state = State::default();
    state.apply(delta).expect("the delta speaks of its own sites only");
    state.snapshot()
}

fn job(kind: api::JobKind, group: api::TaskGroup) -> border::PendingJob {
    let spec = api::JobSpec { kind: kind.into(), task_groups: vec![group], ..Default::default() };
    border::PendingJob { job_id: "job".into(), spec: Some(spec), pending: vec![], explain: true }
}

fn request(job: &border::PendingJob) -> border::PlaceRequest {
    border::PlaceRequest { evaluation_id: "e".into(), jobs: vec![job.clone()], policy: None }
}

fn cpu(cpu_milli: u64) -> Option<api::Resources> {
    Some(api::Resources { cpu_milli, memory_mib: 1, accelerators: None })
}

#[test]
fn cloud_vr_fits_only_the_site_whose_network_and_compute_fit_together() {
    // RFC 10054's use case: (compute, network) ms of (4, 9), (10, 4), (5, 5), 9.4 ms at the client.
    let facts = |id, rtt_us, arch| SiteFacts { id, rtt_us, compute_by_arch: arch, gpu_count: 0, cpu_milli: 1000 };
    let cluster = cluster(&[facts("s1", 9_000, "a"), facts("s2", 4_000, "b"), facts("s3", 5_000, "c")]);
    let by_arch_us = [("a", 4_000), ("b", 10_000), ("c", 5_000)].map(|(arch, us)| (arch.to_string(), us));
    let vr = job(
        api::JobKind::Service,
        api::TaskGroup {
            name: "renderer".into(),
            count: 1,
            resources: cpu(1000),
            latency_slo: Some(api::LatencySlo { zone_ids: vec!["tianhe".into()], budget_us: 20_000, client_us: 9_400 }),
            compute_time: Some(api::ComputeTime { by_arch_us: by_arch_us.into(), ..Default::default() }),
            ..Default::default()
        },
    );
    let plan = place::place(&cluster, &request(&vr)).expect("the request is complete");
    assert_eq!(plan.placements[0].site_id, "s3");
    let sites = &plan.explanations[0].explanation.as_ref().expect("asked for").sites;
    let reasons: Vec<_> = sites.iter().filter_map(|s| s.rejection.as_ref()).map(|r| r.reason.as_str()).collect();
    assert_eq!(reasons, ["22.4 ms > 20 ms, 2.4 over: network", "23.4 ms > 20 ms, 3.4 over: compute"]);
}

#[test]
fn the_closest_site_has_no_gpu_so_the_next_one_is_chosen() {
    let facts = |id, rtt_us, gpu_count| SiteFacts { id, rtt_us, compute_by_arch: "a", gpu_count, cpu_milli: 1000 };
    let cluster = cluster(&[facts("near", 1_000, 0), facts("next", 3_000, 1)]);
    let accelerators = Some(api::AcceleratorRequest { milli: 500, models: vec!["H100".into()] });
    let group = api::TaskGroup {
        name: "main".into(),
        count: 1,
        resources: Some(api::Resources { cpu_milli: 1, memory_mib: 1, accelerators }),
        ..Default::default()
    };
    let nearest = border::Policy { objective: border::Objective::Nearest.into(), ..Default::default() };
    let asked = border::PlaceRequest { policy: Some(nearest), ..request(&job(api::JobKind::Batch, group)) };
    let plan = place::place(&cluster, &asked).expect("the request is complete");
    assert_eq!(plan.placements[0].site_id, "next");
    assert_eq!(plan.placements[0].devices, [api::DeviceShare { device_index: 0, milli: 500 }]);
    let refused = plan.explanations[0].explanation.as_ref().expect("asked for").sites[1].clone();
    assert_eq!(refused.rejection.expect("near is refused").reason, "no H100 on this node");
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
        const IDS: [&str; 4] = ["a", "b", "c", "d"];
        let facts: Vec<_> = capacities.iter().zip(IDS).map(|(&cpu_milli, id)| SiteFacts {
            id, rtt_us: 0, compute_by_arch: "a", gpu_count: 0, cpu_milli,
        }).collect();
        let cluster = cluster(&facts);
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
