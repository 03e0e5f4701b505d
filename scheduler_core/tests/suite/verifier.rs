//! The verifier refuses what no placer should have made.

use scheduler_core::state::{Cluster, State};
use scheduler_core::wire::mumian::api::v1 as api;
use scheduler_core::wire::mumian_core::v1 as border;
use scheduler_core::{place, verify};

const READY: i32 = api::Health::Ready as i32;

/// One node with a slow card (device 0) and a fast one (device 1).
fn cluster() -> Cluster {
    let site = api::Site { id: "s".into(), health: READY, ..Default::default() };
    let card = |model: &str| api::Accelerator { model: model.into(), count: 1, ..Default::default() };
    let node = api::Node {
        id: "s/n".into(),
        site_id: "s".into(),
        health: READY,
        cpu_milli: 4000,
        accelerators: vec![card("slow"), card("fast")],
        ..Default::default()
    };
    let link = api::Link { from_id: "z".into(), to_site_id: "s".into(), rtt_p99_us: 1000, ..Default::default() };
    let delta =
        border::Delta { reset: true, sites: vec![site], nodes: vec![node], links: vec![link], ..Default::default() };
    let mut state = State::default();
    state.apply(delta).expect("the delta speaks of its own site only");
    state.snapshot()
}

fn job(kind: api::JobKind, count: u32, accelerator_milli: u64) -> border::PendingJob {
    let accelerators = Some(api::AcceleratorRequest { milli: accelerator_milli, models: vec![] });
    let group = api::TaskGroup {
        name: "main".into(),
        count,
        resources: Some(api::Resources { cpu_milli: 1000, memory_mib: 0, accelerators }),
        latency_slo: Some(api::LatencySlo { zone_ids: vec!["z".into()], budget_us: 10_000, ..Default::default() }),
        compute_time: Some(api::ComputeTime {
            by_accelerator_model_us: [("slow".to_string(), 60_000_000), ("fast".to_string(), 500)].into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let spec = api::JobSpec { kind: kind.into(), task_groups: vec![group], ..Default::default() };
    border::PendingJob { job_id: "job".into(), spec: Some(spec), pending: vec![], explain: false, ..Default::default() }
}

fn plan(job: &border::PendingJob) -> border::Plan {
    let jobs = vec![job.clone()];
    let request = border::PlaceRequest { evaluation_id: "e".into(), jobs, ..Default::default() };
    place::place(&cluster(), &request).expect("the request is in range")
}

/// The reason of each refusal; empty where the placement is accepted.
fn reasons(plan: border::Plan, job: border::PendingJob) -> Vec<String> {
    let request = border::VerifyRequest { plan: Some(plan), jobs: vec![job] };
    let verdicts = verify::verify(&cluster(), &request).verdicts;
    verdicts.into_iter().map(|v| v.rejection.map_or(String::new(), |r| r.reason)).collect()
}

#[test]
fn the_devices_given_are_of_the_model_that_keeps_the_promise() {
    let job = job(api::JobKind::Batch, 1, 400);
    let good = plan(&job);
    assert_eq!(good.placements[0].devices, [api::DeviceShare { device_index: 1, milli: 400 }]);
    assert_eq!(good.placements[0].latency.as_ref().expect("it has an SLO").total_us, 1500);
    assert_eq!(reasons(good, job), [""]);
}

#[test]
fn a_device_of_a_model_too_slow_for_the_promise_is_refused() {
    let job = job(api::JobKind::Batch, 1, 400);
    let mut bad = plan(&job);
    bad.placements[0].devices[0].device_index = 0;
    assert_eq!(reasons(bad, job), ["60001 ms > 10 ms, 59991 over: compute"]);
}

#[test]
fn devices_of_two_models_for_one_task_are_refused() {
    let job = job(api::JobKind::Batch, 1, 2000);
    let mut bad = plan(&job);
    assert!(bad.placements.is_empty(), "no model has two devices");
    let devices = [1, 0].map(|device_index| api::DeviceShare { device_index, milli: 1000 });
    bad.placements.push(border::Placement {
        job_id: "job".into(),
        task_group: "main".into(),
        site_id: "s".into(),
        node_id: "s/n".into(),
        devices: devices.into(),
        ..Default::default()
    });
    assert_eq!(reasons(bad, job), ["accelerators: 2 fast asked, 1 of 1 wholly free"]);
}

#[test]
fn a_task_placed_twice_or_beyond_the_count_is_refused() {
    let job = job(api::JobKind::Batch, 2, 400);
    let mut twice = plan(&job);
    twice.placements[1].task_index = 0;
    assert_eq!(reasons(twice, job.clone()), ["", "this task is placed twice in the plan; place it once"]);
    let mut beyond = plan(&job);
    beyond.placements[1].task_index = 2;
    assert_eq!(reasons(beyond, job), ["", "task_index (2) is not below the count (2) of the group"]);
}

#[test]
fn a_gang_with_a_task_left_out_is_refused_whole() {
    let gang = job(api::JobKind::Gang, 2, 400);
    let mut partial = plan(&gang);
    assert_eq!(reasons(partial.clone(), gang.clone()), ["", ""]);
    partial.placements.pop();
    assert_eq!(reasons(partial, gang), ["1 task of the gang is not in the plan; place all or none"]);
}

#[test]
fn a_gang_may_fill_up_to_the_tasks_that_still_wait() {
    let mut gang = job(api::JobKind::Gang, 3, 400);
    gang.pending = vec![border::PendingTasks { task_group: "main".into(), task_indexes: vec![2] }];
    assert_eq!(reasons(plan(&gang), gang), [""]);
}

/// Two sites of one operator, 4 ms apart, with one node each and a narrow link from zone z.
fn two_sites(power_cap_mw: u64) -> Cluster {
    let mut delta = border::Delta { reset: true, ..Default::default() };
    for id in ["a", "b"] {
        let operator_id = "op".to_string();
        delta.sites.push(api::Site { id: id.into(), operator_id, health: READY, power_cap_mw, ..Default::default() });
        delta.nodes.push(api::Node {
            id: format!("{id}/n"),
            site_id: id.into(),
            health: READY,
            cpu_milli: 9000,
            core_active_power_mw: 5000,
            ..Default::default()
        });
    }
    let link = |from: &str, to: &str, rtt_p99_us, bandwidth_kbps| api::Link {
        from_id: from.into(),
        to_site_id: to.into(),
        rtt_p99_us,
        bandwidth_kbps,
        ..Default::default()
    };
    delta.links = vec![link("a", "b", 4000, 0), link("z", "a", 1000, 10_000)];
    let mut state = State::default();
    state.apply(delta).expect("the delta speaks of its own sites only");
    state.snapshot()
}

/// Whether each of two tasks is accepted, the first of group one at a, the second of group two,
/// or of the same, where it is said; in this order and in the other.
fn verdicts(cluster: &Cluster, one: api::TaskGroup, two: Option<api::TaskGroup>, node_id: &str) -> [Vec<String>; 2] {
    let resources = Some(api::Resources { cpu_milli: 1000, ..Default::default() });
    let group = |g: api::TaskGroup, name: &str| api::TaskGroup {
        name: name.into(),
        count: 2,
        resources: resources.clone(),
        ..g
    };
    let name = if two.is_some() { "two" } else { "one" };
    let task_groups = std::iter::once(group(one, "one")).chain(two.map(|g| group(g, "two"))).collect();
    let spec = api::JobSpec { task_groups, ..Default::default() };
    let job = border::PendingJob { job_id: "job".into(), spec: Some(spec), ..Default::default() };
    let placement = |task_group: &str, task_index, node_id: &str| border::Placement {
        job_id: "job".into(),
        task_group: task_group.into(),
        task_index,
        site_id: node_id.split('/').next().expect("a site").into(),
        node_id: node_id.into(),
        ..Default::default()
    };
    let placements = [placement("one", 0, "a/n"), placement(name, 1, node_id)];
    let orders = [placements.to_vec(), placements.into_iter().rev().collect()];
    orders.map(|placements| {
        let plan = border::Plan { placements, ..Default::default() };
        let request = border::VerifyRequest { plan: Some(plan), jobs: vec![job.clone()] };
        let verdicts = verify::verify(cluster, &request).verdicts;
        verdicts.into_iter().map(|v| v.rejection.map_or(String::new(), |r| r.reason)).collect()
    })
}

/// The second of two placements is refused in either order, for these reasons.
fn assert_refused(verdicts: [Vec<String>; 2], reasons: [&str; 2]) {
    let [first, second] = reasons;
    assert_eq!(verdicts, [vec![String::new(), first.into()], vec![String::new(), second.into()]]);
}

const ACCEPTED: [[&str; 2]; 2] = [["", ""], ["", ""]];

#[test]
fn a_task_too_many_in_a_domain_is_refused() {
    let most_one = |topology: api::Topology| api::TaskGroup {
        spreads: vec![api::Spread { topology: topology.into(), max_tasks: 1 }],
        ..Default::default()
    };
    let cluster = two_sites(0);
    assert_eq!(verdicts(&cluster, most_one(api::Topology::Site), None, "b/n"), ACCEPTED);
    let said = "spread: node a/n already holds 1 of at most 1 task";
    assert_refused(verdicts(&cluster, most_one(api::Topology::Node), None, "a/n"), [said, said]);
    let said = "spread: operator op already holds 1 of at most 1 task";
    assert_refused(verdicts(&cluster, most_one(api::Topology::Operator), None, "b/n"), [said, said]);
}

#[test]
fn a_task_beside_one_that_it_must_not_meet_is_refused_whichever_is_first() {
    let apart = |topology: api::Topology| api::TaskGroup {
        apart_from: vec![api::AntiAffinity { topology: topology.into(), task_group: "two".into() }],
        ..Default::default()
    };
    let (cluster, two) = (two_sites(0), Some(api::TaskGroup::default()));
    assert_eq!(verdicts(&cluster, apart(api::Topology::Site), two.clone(), "b/n"), ACCEPTED);
    let said = ["one", "two"].map(|group| format!("apart: operator op already holds 1 task of group {group}"));
    let refused = verdicts(&cluster, apart(api::Topology::Operator), two, "b/n");
    assert_refused(refused, [&said[0], &said[1]]);
}

#[test]
fn a_task_outside_the_domain_that_its_group_shares_is_refused() {
    let together = |topology: api::Topology| api::TaskGroup { together: topology.into(), ..Default::default() };
    let cluster = two_sites(0);
    assert_eq!(verdicts(&cluster, together(api::Topology::Operator), None, "b/n"), ACCEPTED);
    assert_eq!(verdicts(&cluster, together(api::Topology::Site), None, "a/n"), ACCEPTED);
    let said = ["a", "b"].map(|site| format!("together: the other tasks are on site {site}"));
    assert_refused(verdicts(&cluster, together(api::Topology::Site), None, "b/n"), [&said[0], &said[1]]);
    let said = "together: nobody says to which switch this node belongs";
    assert_eq!(verdicts(&cluster, together(api::Topology::Switch), None, "a/n"), [[said, said], [said, said]]);
}

#[test]
fn a_task_too_far_from_another_group_is_refused_whichever_is_first() {
    let near = |budget_us, default_us| api::TaskGroup {
        group_latencies: vec![api::GroupLatency { task_group: "two".into(), budget_us }],
        compute_time: Some(api::ComputeTime { default_us, ..Default::default() }),
        ..Default::default()
    };
    // The other group's compute time does not count.
    let two = near(0, 60_000);
    let two = Some(api::TaskGroup { group_latencies: vec![], ..two });
    let cluster = two_sites(0);
    assert_eq!(verdicts(&cluster, near(5000, 1000), two.clone(), "b/n"), ACCEPTED);
    assert_eq!(verdicts(&cluster, near(1000, 1000), two.clone(), "a/n"), ACCEPTED);
    let said = ["one at a", "two at b"].map(|who| format!("group latency: {who} 5.5 ms > 5 ms, 0.5 over: network"));
    assert_refused(verdicts(&cluster, near(5000, 1500), two, "b/n"), [&said[0], &said[1]]);
}

#[test]
fn traffic_beyond_a_link_is_refused() {
    let asking = |bandwidth_kbps| api::TaskGroup {
        zone_traffic: vec![api::ZoneTraffic { zone_id: "z".into(), bandwidth_kbps }],
        ..Default::default()
    };
    let cluster = two_sites(0);
    assert_eq!(verdicts(&cluster, asking(5000), None, "a/n"), ACCEPTED);
    assert_eq!(verdicts(&cluster, asking(6000), None, "b/n"), ACCEPTED);
    let said = "link bandwidth: 6 of 10 Mbit/s from zone z used, 6 Mbit/s asked";
    assert_refused(verdicts(&cluster, asking(6000), None, "a/n"), [said, said]);
}

#[test]
fn power_beyond_a_sites_cap_is_refused() {
    let plain = api::TaskGroup::default;
    assert_eq!(verdicts(&two_sites(10_000), plain(), None, "a/n"), ACCEPTED);
    assert_eq!(verdicts(&two_sites(9_999), plain(), None, "b/n"), ACCEPTED);
    let said = "power cap: 5 W held + 5 W asked > 9.999 W at the meter";
    assert_refused(verdicts(&two_sites(9_999), plain(), None, "a/n"), [said, said]);
}
