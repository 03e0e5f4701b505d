//! The index finds what the plain scan finds, byte for byte, whatever happened before.

use crate::common;
use proptest::prelude::*;
use scheduler_core::place::{place, place_by_scan};
use scheduler_core::state::{Cluster, State};
use scheduler_core::wire::mumian::api::v1 as api;
use scheduler_core::wire::mumian_core::v1 as border;

/// What may happen between two requests.
#[derive(Debug, Clone)]
enum Step {
    /// Commit the newest plan, all of it or every second placement.
    Commit(bool),
    /// Free the oldest allocations.
    Free(usize),
    Node(Box<api::Node>),
    RemoveNode(usize, usize),
    Link(api::Link),
    Site(Box<api::Site>),
    RemoveSite(usize),
    /// Take a snapshot and hold it.
    Hold,
    /// Let go of a snapshot.
    LetGo(usize),
    /// Ask again on a snapshot that is held.
    Rewind(usize),
    /// One of a few requests, so that the same demands are asked again.
    Place(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let node = (0_usize..3, 0_usize..5).prop_flat_map(|(s, n)| common::node(s, n));
    prop_oneof![
        4 => any::<bool>().prop_map(Step::Commit),
        1 => (1_usize..9).prop_map(Step::Free),
        1 => node.prop_map(|node| Step::Node(Box::new(node))),
        1 => (0_usize..3, 0_usize..5).prop_map(|(s, n)| Step::RemoveNode(s, n)),
        1 => (0_usize..3).prop_flat_map(common::link).prop_map(Step::Link),
        1 => (0_usize..3).prop_flat_map(common::site).prop_map(|site| Step::Site(Box::new(site))),
        1 => (0_usize..3).prop_map(Step::RemoveSite),
        1 => Just(Step::Hold),
        1 => (0_usize..3).prop_map(Step::LetGo),
        1 => (0_usize..3).prop_map(Step::Rewind),
        6 => (0_usize..3).prop_map(Step::Place),
    ]
}

/// Those that change loads alone.
fn load_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => any::<bool>().prop_map(Step::Commit),
        3 => (1_usize..4).prop_map(Step::Free),
        1 => Just(Step::Hold),
        1 => (0_usize..3).prop_map(Step::LetGo),
        1 => (0_usize..3).prop_map(Step::Rewind),
        5 => (0_usize..3).prop_map(Step::Place),
    ]
}

/// A state with the jobs and the plan of the newest request.
#[derive(Default)]
struct World {
    state: State,
    held: Vec<State>,
    committed: Vec<String>,
    requests: Vec<border::PlaceRequest>,
    request: border::PlaceRequest,
    plan: border::Plan,
}

impl World {
    /// All steps on a fleet that the first request was placed on.
    fn pass(fleet: border::Delta, requests: Vec<border::PlaceRequest>, steps: Vec<Step>) {
        let mut world = Self { requests, ..Self::default() };
        world.apply(fleet);
        world.take(Step::Place(0));
        steps.into_iter().for_each(|step| world.take(step));
    }

    /// Applies a delta on top of the state; one that speaks of what is not there is passed over.
    fn apply(&mut self, delta: border::Delta) {
        let base_generation = self.state.generation();
        let _ = self.state.apply(border::Delta { base_generation, ..delta });
    }

    fn commit(&mut self, all: bool) {
        let mut allocations = Vec::new();
        for (i, p) in std::mem::take(&mut self.plan.placements).into_iter().enumerate() {
            let job = self.request.jobs.iter().find(|j| j.job_id == p.job_id).expect("of this request");
            let groups = &job.spec.as_ref().expect("sent").task_groups;
            let group = groups.iter().find(|g| g.name == p.task_group).expect("of this job");
            let allocation_id = format!("{}:{i}", self.state.snapshot().generation);
            if all || i % 2 == 0 {
                self.committed.push(allocation_id.clone());
                allocations.push(border::UsedResources {
                    allocation_id,
                    node_id: p.node_id,
                    resources: group.resources.clone(),
                    devices: p.devices,
                    job_id: p.job_id,
                    zone_traffic: group.zone_traffic.clone(),
                    task_group: p.task_group,
                    task_index: p.task_index,
                    ..Default::default()
                });
            }
        }
        self.apply(border::Delta { allocations, ..Default::default() });
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Commit(all) => self.commit(all),
            Step::Free(count) => {
                let count = count.min(self.committed.len());
                let removed_allocation_ids = self.committed.drain(..count).collect();
                self.apply(border::Delta { removed_allocation_ids, ..Default::default() });
            }
            Step::Node(node) => self.apply(border::Delta { nodes: vec![*node], ..Default::default() }),
            Step::RemoveNode(s, n) => {
                self.apply(border::Delta { removed_node_ids: vec![format!("s{s}/n{n}")], ..Default::default() });
            }
            Step::Link(link) => self.apply(border::Delta { links: vec![link], ..Default::default() }),
            Step::Site(site) => self.apply(border::Delta { sites: vec![*site], ..Default::default() }),
            Step::RemoveSite(s) => {
                self.apply(border::Delta { removed_site_ids: vec![format!("s{s}")], ..Default::default() });
            }
            Step::Hold => self.held.push(self.state.clone()),
            Step::LetGo(number) if number < self.held.len() => drop(self.held.remove(number)),
            Step::Rewind(number) if number < self.held.len() => self.compare(&self.held[number].clone()),
            Step::LetGo(_) | Step::Rewind(_) => {}
            Step::Place(number) => {
                self.request = self.requests[number].clone();
                self.compare(&self.state.clone());
            }
        }
    }

    fn compare(&mut self, state: &State) {
        let place = |cluster: &Cluster| place(cluster, &self.request).expect("the request is in range");
        let plan = place(&state.snapshot());
        assert_eq!(plan, place(&state.fork().snapshot()), "a warm index answers as a cold one");
        let plain = place_by_scan(&state.snapshot(), &self.request).expect("the request is in range");
        assert_eq!(plan, plain);
        self.plan = plan;
    }
}

/// Two kinds of machine at one site, more of each than the index looks at together.
fn alike_nodes() -> impl Strategy<Value = border::Delta> {
    let kinds = (common::node(0, 0), common::node(0, 1));
    (common::site(0), kinds, common::link(0)).prop_map(|(site, kinds, link)| {
        let kinds = [kinds.0, kinds.1];
        let node = |n: usize| api::Node { id: format!("s0/n{n}"), ..kinds[n % 2].clone() };
        let nodes = (0..150).map(node).collect();
        border::Delta { reset: true, sites: vec![site], nodes, links: vec![link], ..Default::default() }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_index_finds_what_the_scan_finds_among_many_alike(
        fleet in alike_nodes(),
        mut request in common::request(4, 2, 4),
        steps in prop::collection::vec(step(), 0..16),
    ) {
        request.jobs.iter_mut().for_each(|job| job.explain = false); // it is slow, and the other test has it
        World::pass(fleet, vec![request; 3], steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_index_finds_what_the_scan_finds_after_any_history(
        fleet in common::fleet(3, 5),
        mut requests in prop::collection::vec(common::request(6, 2, 4), 3),
        steps in prop::collection::vec(step(), 0..32),
    ) {
        requests[1].policy = requests[0].policy.clone(); // the index starts anew with every other policy
        World::pass(fleet, requests, steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Deltas let one demand after the other catch up: of so few, each is asked soon after it has.
    #[test]
    fn the_index_finds_what_the_scan_finds_of_demands_that_deltas_let_catch_up(
        fleet in common::fleet(1, 3),
        mut requests in prop::collection::vec(common::request(1, 1, 3), 3),
        steps in prop::collection::vec(load_step(), 0..48),
    ) {
        let policy = border::Policy::default(); // by cost: others keep no log of what was freed
        requests.iter_mut().for_each(|request| request.policy = Some(policy.clone()));
        World::pass(fleet, requests, steps);
    }
}
