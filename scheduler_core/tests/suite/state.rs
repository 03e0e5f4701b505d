//! A state that many deltas have made is the same as one made at once of what is left.

use crate::common;
use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use scheduler_core::allocation::Allocation;
use scheduler_core::cluster::{NodeState, SiteState};
use scheduler_core::place::place;
use scheduler_core::state::{Cluster, State};
use scheduler_core::wire::mumian::api::v1 as api;
use scheduler_core::wire::mumian_core::v1 as border;

/// What is there, by id.
#[derive(Default)]
struct Facts {
    sites: BTreeMap<String, api::Site>,
    nodes: BTreeMap<String, api::Node>,
    links: BTreeMap<(String, String), api::Link>,
    allocations: BTreeMap<String, border::UsedResources>,
}

impl Facts {
    fn take(&mut self, delta: border::Delta) {
        for id in delta.removed_allocation_ids {
            self.allocations.remove(&id);
        }
        self.nodes
            .retain(|id, node| !delta.removed_node_ids.contains(id) && !delta.removed_site_ids.contains(&node.site_id));
        self.allocations.retain(|_, used| self.nodes.contains_key(&used.node_id));
        self.sites.retain(|id, _| !delta.removed_site_ids.contains(id));
        self.links.retain(|(_, to), _| self.sites.contains_key(to));
        self.sites.extend(delta.sites.into_iter().map(|site| (site.id.clone(), site)));
        self.nodes.extend(delta.nodes.into_iter().map(|node| (node.id.clone(), node)));
        let ends = |link: &api::Link| (link.from_id.clone(), link.to_site_id.clone());
        self.links.extend(delta.links.into_iter().map(|link| (ends(&link), link)));
        self.allocations.extend(delta.allocations.into_iter().map(|used| (used.allocation_id.clone(), used)));
    }

    fn all(&self) -> border::Delta {
        border::Delta {
            reset: true,
            sites: self.sites.values().cloned().collect(),
            nodes: self.nodes.values().cloned().collect(),
            links: self.links.values().cloned().collect(),
            allocations: self.allocations.values().cloned().collect(),
            ..Default::default()
        }
    }
}

fn used() -> impl Strategy<Value = border::UsedResources> {
    let devices = prop::option::of((0_u32..4, 1_u32..1000));
    let task = (select(vec!["", "j0", "j1"]), select(vec!["g0", "g1"]), common::coupled(0, 1));
    ((0_u32..8, 0..3, 0..4), common::resources(), devices, task).prop_map(
        |((id, site, node), resources, devices, (job_id, task_group, coupled))| border::UsedResources {
            allocation_id: format!("a{id}"),
            node_id: format!("s{site}/n{node}"),
            resources: Some(resources),
            devices: devices
                .into_iter()
                .map(|(device_index, milli)| api::DeviceShare { device_index, milli })
                .collect(),
            job_id: job_id.into(),
            task_group: task_group.into(),
            task_index: id,
            zone_traffic: coupled.zone_traffic,
            ..Default::default()
        },
    )
}

fn delta() -> impl Strategy<Value = border::Delta> {
    let node = (0_usize..3, 0_usize..4).prop_flat_map(|(s, n)| common::node(s, n));
    let none = border::Delta::default;
    prop_oneof![
        6 => used().prop_map(move |used| border::Delta { allocations: vec![used], ..none() }),
        2 => (0..8).prop_map(move |id| border::Delta { removed_allocation_ids: vec![format!("a{id}")], ..none() }),
        2 => node.prop_map(move |node| border::Delta { nodes: vec![node], ..none() }),
        1 => (0..3, 0..4).prop_map(move |(s, n)| border::Delta {
            removed_node_ids: vec![format!("s{s}/n{n}")],
            ..none()
        }),
        1 => (0_usize..3).prop_flat_map(common::site).prop_map(move |site| border::Delta { sites: vec![site], ..none() }),
        1 => (0..3).prop_map(move |s| border::Delta { removed_site_ids: vec![format!("s{s}")], ..none() }),
        1 => (0_usize..3).prop_flat_map(common::link).prop_map(move |link| border::Delta { links: vec![link], ..none() }),
    ]
}

/// All of a cluster that does not say when it came to be.
fn shown(cluster: &Cluster) -> String {
    let node = |n: &NodeState| format!("{:?} {:?} {} {}", n.node, n.devices, n.used_cpu_milli, n.used_memory_mib);
    let site = |s: &SiteState| format!("{:?} {:?} {:?} {}", s.site, s.links, s.used_kbps, s.it_power_uw);
    let nodes: Vec<_> = cluster.nodes().map(|at| (site(cluster.site(at)), node(cluster.node(at)))).collect();
    let allocation = |a: &Arc<Allocation>| format!("{} {} {:?} {:?}", a.id, a.place.node_id, a.held, a.zone_traffic);
    let ids = |n: &NodeState| n.allocations.iter().map(allocation).collect::<Vec<_>>();
    let held: Vec<_> = cluster.nodes().map(|at| ids(cluster.node(at))).collect();
    let jobs = ["j0", "j1"].map(|job_id| cluster.tasks_of(job_id).map(allocation).collect::<Vec<_>>());
    format!("{nodes:#?}\n{held:#?}\n{jobs:#?}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_state_made_by_deltas_is_the_state_made_at_once(
        fleet in common::fleet(3, 4),
        deltas in prop::collection::vec(delta(), 0..24),
        mut request in common::request(2, 2, 3),
    ) {
        request.policy = None; // RANDOM draws by the generation
        let (mut state, mut facts) = (State::default(), Facts::default());
        for delta in std::iter::once(fleet).chain(deltas) {
            let delta = border::Delta { base_generation: state.snapshot().generation, ..delta };
            if state.apply(delta.clone()).is_ok() {
                facts.take(delta);
            }
        }
        let mut at_once = State::default();
        at_once.apply(facts.all()).expect("it speaks of what is there");
        prop_assert_eq!(shown(&state.snapshot()), shown(&at_once.snapshot()));
        let plan = |state: &State| {
            let plan = place(&state.snapshot(), &request).expect("the request is in range");
            (plan.placements, plan.unplaced)
        };
        prop_assert_eq!(plan(&state), plan(&at_once));
    }
}
