//! The live cluster, changed by deltas. It is copy-on-write: a snapshot costs one reference, a
//! delta costs what it changes.

use std::collections::HashSet;
use std::sync::Arc;

use crate::allocation::{Allocation, ById, Place};
pub use crate::cluster::Cluster;
use crate::cluster::{At, Holding, NodeState, SiteState};
use crate::error::CoreError;
use crate::validate;
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;

/// Where a reset may go on from at most, so that counting on never overflows.
const GENERATION_MAX: u64 = u64::MAX / 2;

/// The live state: a cluster and where each node is. A fork of it costs nothing until one
/// of the two is changed.
#[derive(Debug, Clone, Default)]
pub struct State {
    cluster: Cluster,
    places: ById<Arc<Place>>,
}

/// A running allocation as it was booked.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    pub at: At,
    pub held: &'a Holding,
    pub zone_traffic: &'a [api::ZoneTraffic],
}

impl State {
    /// A frozen view that later deltas do not change.
    pub fn snapshot(&self) -> Cluster {
        self.cluster.clone()
    }

    /// The number of deltas applied so far.
    pub fn generation(&self) -> u64 {
        self.cluster.generation
    }

    /// A state of its own that starts as this one is: what changes there does not change here.
    pub fn fork(&self) -> Self {
        Self { cluster: self.cluster.apart(), places: self.places.clone() }
    }

    /// Where an allocation is, and what it takes there.
    pub fn allocation(&self, allocation_id: &str) -> Option<Standing<'_>> {
        let Allocation { place, held, zone_traffic, .. } = self.cluster.allocations.get(allocation_id)?.as_ref();
        Some(Standing { at: self.cluster.find_place(place)?, held, zone_traffic })
    }

    /// Whether an allocation was booked as a task of that job and group.
    pub fn is_task_of(&self, allocation_id: &str, job_id: &str, task_group: &str) -> bool {
        let allocation = self.cluster.allocations.get(allocation_id);
        allocation.is_some_and(|a| a.job_id.as_deref() == Some(job_id) && a.task_group == task_group)
    }

    /// Applies a delta whole or not at all and returns the new generation.
    pub fn apply(&mut self, delta: border::Delta) -> Result<u64, CoreError> {
        let current = self.cluster.generation;
        if !delta.reset && delta.base_generation != current {
            return Err(CoreError::ResyncNeeded { base: delta.base_generation, current });
        }
        validate::delta(&delta)?;
        self.check(&delta)?;
        let after = if delta.reset { current.max(delta.base_generation.min(GENERATION_MAX)) } else { current };
        let next = after + 1;
        if delta.reset {
            *self = Self::default();
            self.cluster.structure = next;
        }
        self.cluster.generation = next;
        // A snapshot shares the sites until they change.
        let unseen = (Arc::strong_count(&self.cluster.sites) == 1).then_some(current);
        self.change(delta);
        self.cluster.memo.after_delta(&self.cluster, unseen);
        Ok(self.cluster.generation)
    }

    /// Refuses a delta that speaks of what is not there, before anything has changed.
    fn check(&self, delta: &border::Delta) -> Result<(), CoreError> {
        let removed_sites: HashSet<&String> = delta.removed_site_ids.iter().collect();
        let removed_nodes: HashSet<&String> = delta.removed_node_ids.iter().collect();
        let new_sites: HashSet<&String> = delta.sites.iter().map(|s| &s.id).collect();
        let new_nodes: HashSet<&String> = delta.nodes.iter().map(|n| &n.id).collect();
        let site_is_known = |id: &String| {
            let stays = !delta.reset && !removed_sites.contains(id) && self.cluster.find(id).is_ok();
            new_sites.contains(id) || stays
        };
        let node_is_known = |id: &String| {
            let stays = |place: &Arc<Place>| {
                !delta.reset && !removed_nodes.contains(id) && !removed_sites.contains(&place.site_id)
            };
            new_nodes.contains(id) || self.places.get(id.as_str()).is_some_and(stays)
        };
        for node in &delta.nodes {
            if !site_is_known(&node.site_id) {
                let by = format!("node {}", node.id);
                return Err(CoreError::UnknownSite { site_id: node.site_id.clone(), by });
            }
        }
        for link in &delta.links {
            if !site_is_known(&link.to_site_id) {
                let by = format!("the link from {}", link.from_id);
                return Err(CoreError::UnknownSite { site_id: link.to_site_id.clone(), by });
            }
        }
        for used in &delta.allocations {
            if !node_is_known(&used.node_id) {
                let by = format!("allocation {}", used.allocation_id);
                return Err(CoreError::UnknownNode { node_id: used.node_id.clone(), by });
            }
        }
        Ok(())
    }

    /// Applies a checked delta: removals first, so that an id may be replaced.
    fn change(&mut self, delta: border::Delta) {
        for id in &delta.removed_allocation_ids {
            self.remove_allocation(id);
        }
        for id in &delta.removed_node_ids {
            self.remove_node(id);
        }
        for id in &delta.removed_site_ids {
            self.remove_site(id);
        }
        for site in delta.sites {
            self.put_site(site);
        }
        for node in delta.nodes {
            self.put_node(node);
        }
        for link in delta.links {
            let generation = self.cluster.generation;
            if let Some(site) = self.site_mut(&link.to_site_id) {
                site.facts_changed_at = generation;
                Arc::make_mut(&mut site.links).insert(link.from_id.clone(), link);
            }
        }
        for used in delta.allocations {
            self.put_allocation(used);
        }
    }

    fn site_mut(&mut self, site_id: &str) -> Option<&mut SiteState> {
        let position = self.cluster.find(site_id).ok()?;
        Some(self.site_at_mut(position))
    }

    /// The site for writing, copied first when a snapshot still holds it.
    fn site_at_mut(&mut self, position: usize) -> &mut SiteState {
        let site = Arc::make_mut(&mut Arc::make_mut(&mut self.cluster.sites)[position]);
        site.changed_at = self.cluster.generation;
        self.cluster.recent.note(position, self.cluster.generation);
        site
    }

    /// Adds an allocation to its node and what it takes to the sums of node and site, or takes it from there.
    fn change_held(&mut self, allocation: &Arc<Allocation>, is_added: bool) {
        let generation = self.cluster.generation;
        let Some(at) = self.cluster.find_place(&allocation.place) else { return };
        let site = self.site_at_mut(at.site as usize);
        site.recent.note(at.node as usize, generation);
        let node = Arc::make_mut(&mut site.nodes[at.node as usize]);
        node.changed_at = generation;
        site.it_power_uw -= node.it_power_uw();
        if is_added {
            node.hold(&allocation.held);
            node.allocations.insert(allocation.clone());
        } else {
            node.release(&allocation.held);
            node.allocations.remove(&allocation.id);
        }
        site.it_power_uw += node.it_power_uw();
        for traffic in &allocation.zone_traffic {
            let used_kbps = Arc::make_mut(&mut site.used_kbps);
            let before = used_kbps.remove(&traffic.zone_id).unwrap_or(0);
            let after = if is_added { before + traffic.bandwidth_kbps } else { before - traffic.bandwidth_kbps };
            if after > 0 {
                used_kbps.insert(traffic.zone_id.clone(), after);
            }
        }
    }

    fn put_site(&mut self, site: api::Site) {
        let generation = self.cluster.generation;
        if let Err(position) = self.cluster.find(&site.id) {
            let new = SiteState {
                site: Arc::new(api::Site { id: site.id.clone(), ..Default::default() }),
                ..Default::default()
            };
            Arc::make_mut(&mut self.cluster.sites).insert(position, Arc::new(new));
            self.cluster.structure = generation;
        }
        let is_capped = site.power_cap_mw > 0;
        let Some(state) = self.site_mut(&site.id) else { return };
        state.facts_changed_at = generation;
        let old = std::mem::replace(&mut state.site, Arc::new(site));
        self.cluster.capped_sites += usize::from(is_capped);
        self.cluster.capped_sites -= usize::from(old.power_cap_mw > 0);
    }

    fn remove_site(&mut self, site_id: &str) {
        let Ok(position) = self.cluster.find(site_id) else { return };
        let nodes: Vec<String> = self.cluster.sites[position].nodes.iter().map(|n| n.node.id.clone()).collect();
        for node_id in nodes {
            self.remove_node(&node_id);
        }
        let removed = Arc::make_mut(&mut self.cluster.sites).remove(position);
        self.cluster.capped_sites -= usize::from(removed.site.power_cap_mw > 0);
        self.cluster.structure = self.cluster.generation;
    }

    /// Adds a node, or replaces its facts and keeps its allocations.
    fn put_node(&mut self, node: api::Node) {
        if self.places.get(node.id.as_str()).is_some_and(|place| place.site_id != node.site_id) {
            self.remove_node(&node.id);
        }
        let generation = self.cluster.generation;
        let Ok(site_position) = self.cluster.find(&node.site_id) else { return };
        let site = self.site_at_mut(site_position);
        let mut state = NodeState::new(node, generation);
        let new = state.node.clone();
        let (position, old) = match site.find(&new.id) {
            Ok(position) => {
                site.recent.note(position, generation);
                let old = &mut site.nodes[position];
                state.take_over(&old.allocations);
                site.it_power_uw += state.it_power_uw();
                let old = std::mem::replace(old, Arc::new(state));
                site.it_power_uw -= old.it_power_uw();
                (position, Some(Arc::clone(&old.node)))
            }
            Err(position) => {
                site.nodes.insert(position, Arc::new(state));
                (position, None)
            }
        };
        if old.as_ref().is_none_or(|old| old.accelerators != new.accelerators) {
            self.cluster.structure = generation;
            self.cluster.count_devices(old.as_deref(), Some(&new));
        }
        let was_at = At { site: site_position as u32, node: position as u32 };
        if self.places.get(new.id.as_str()).is_none_or(|place| place.was_at != was_at) {
            let place = Place { site_id: new.site_id.clone(), node_id: new.id.clone(), was_at };
            self.places.insert(new.id.as_str().into(), Arc::new(place));
        }
    }

    fn remove_node(&mut self, node_id: &str) {
        let Some(place) = self.places.get(node_id).cloned() else { return };
        let Some(at) = self.cluster.find_place(&place) else { return };
        for allocation in self.cluster.node(at).allocations.clone().iter() {
            self.remove_allocation(&allocation.id);
        }
        self.places.remove(node_id);
        let old = self.site_at_mut(at.site as usize).nodes.remove(at.node as usize);
        self.cluster.count_devices(Some(&old.node), None);
        self.cluster.structure = self.cluster.generation;
    }

    fn put_allocation(&mut self, used: border::UsedResources) {
        self.remove_allocation(&used.allocation_id);
        let Some(place) = self.places.get(used.node_id.as_str()).cloned() else { return };
        let resources = used.resources.unwrap_or_default();
        let (cpu_milli, memory_mib) = (resources.cpu_milli, resources.memory_mib);
        let allocation = Arc::new(Allocation {
            id: used.allocation_id.into(),
            place,
            priority: used.priority,
            job_id: (!used.job_id.is_empty()).then(|| used.job_id.into()),
            task_group: used.task_group,
            is_of_gang: used.gang,
            held: Holding { cpu_milli, memory_mib, devices: used.devices },
            zone_traffic: used.zone_traffic,
        });
        self.change_held(&allocation, true);
        if let Some(job_id) = &allocation.job_id {
            self.cluster.jobs.entry(job_id.clone()).or_default().insert(allocation.clone());
        }
        self.cluster.allocations.insert(allocation.id.clone(), allocation);
    }

    fn remove_allocation(&mut self, allocation_id: &str) {
        let Some(allocation) = self.cluster.allocations.remove(allocation_id) else { return };
        if let Some(job_id) = &allocation.job_id {
            let jobs = &mut self.cluster.jobs;
            let is_last = jobs.get_mut(job_id).is_some_and(|tasks| {
                tasks.remove(allocation_id);
                tasks.is_empty()
            });
            if is_last {
                jobs.remove(job_id);
            }
        }
        self.change_held(&allocation, false);
    }
}
