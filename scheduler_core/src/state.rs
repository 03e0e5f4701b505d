//! The cluster as the engine knows it, copy-on-write per site: a snapshot costs one reference
//! a site, a refresh what it changes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::error::CoreError;
use crate::model::{accepts_model, WHOLE_DEVICE_MILLI};
use crate::validate;
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;

/// One accelerator device and what is promised of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub model: String,
    pub active_power_mw: u64,
    pub used_milli: u64,
}

impl Device {
    /// Never below zero: a fact may overcommit a device.
    pub fn free_milli(&self) -> u64 {
        WHOLE_DEVICE_MILLI.saturating_sub(self.used_milli)
    }
}

/// A node with what its allocations hold.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeState {
    pub node: api::Node,
    pub devices: Vec<Device>,
    pub used_cpu_milli: u64,
    pub used_memory_mib: u64,
    pub allocations: BTreeMap<String, border::UsedResources>,
}

impl NodeState {
    fn new(node: api::Node) -> Self {
        let devices = node
            .accelerators
            .iter()
            .flat_map(|a| {
                let device = Device { model: a.model.clone(), active_power_mw: a.active_power_mw, used_milli: 0 };
                std::iter::repeat_n(device, a.count as usize)
            })
            .collect();
        Self { node, devices, used_cpu_milli: 0, used_memory_mib: 0, allocations: BTreeMap::new() }
    }

    /// What is left, never below zero.
    pub fn free_cpu_milli(&self) -> u64 {
        self.node.cpu_milli.saturating_sub(self.used_cpu_milli)
    }

    /// What is left, never below zero.
    pub fn free_memory_mib(&self) -> u64 {
        self.node.memory_mib.saturating_sub(self.used_memory_mib)
    }

    /// The devices that a request would get: for a share the fullest device that still has
    /// room, for whole devices the first free ones. None when they are not there.
    pub fn devices_for(&self, request: &api::AcceleratorRequest) -> Option<Vec<api::DeviceShare>> {
        let fitting = |need: u64| {
            self.devices
                .iter()
                .enumerate()
                .filter(move |(_, d)| d.free_milli() >= need && accepts_model(request, &d.model))
        };
        let share = |(index, _): (usize, &Device), milli: u64| api::DeviceShare {
            device_index: index as u32,
            milli: milli as u32,
        };
        if request.milli < WHOLE_DEVICE_MILLI {
            let best = fitting(request.milli).min_by_key(|(index, d)| (d.free_milli(), *index))?;
            return Some(vec![share(best, request.milli)]);
        }
        let count = (request.milli / WHOLE_DEVICE_MILLI) as usize;
        let whole: Vec<_> = fitting(WHOLE_DEVICE_MILLI).take(count).map(|d| share(d, WHOLE_DEVICE_MILLI)).collect();
        (whole.len() == count).then_some(whole)
    }

    /// Books an allocation; one with the same id is replaced.
    pub fn add(&mut self, used: border::UsedResources) {
        self.remove(&used.allocation_id);
        let resources = used.resources.clone().unwrap_or_default();
        self.used_cpu_milli += resources.cpu_milli;
        self.used_memory_mib += resources.memory_mib;
        for share in &used.devices {
            if let Some(device) = self.devices.get_mut(share.device_index as usize) {
                device.used_milli += u64::from(share.milli);
            }
        }
        self.allocations.insert(used.allocation_id.clone(), used);
    }

    /// Frees an allocation; an unknown id changes nothing.
    pub fn remove(&mut self, allocation_id: &str) {
        let Some(used) = self.allocations.remove(allocation_id) else { return };
        let resources = used.resources.unwrap_or_default();
        self.used_cpu_milli -= resources.cpu_milli;
        self.used_memory_mib -= resources.memory_mib;
        for share in &used.devices {
            if let Some(device) = self.devices.get_mut(share.device_index as usize) {
                device.used_milli -= u64::from(share.milli);
            }
        }
    }
}

/// A site with its nodes and the links that lead to it, by where they come from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SiteState {
    pub site: api::Site,
    pub nodes: BTreeMap<String, NodeState>,
    pub links: BTreeMap<String, api::Link>,
}

/// All sites at one generation. Cloning it is the snapshot.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cluster {
    pub generation: u64,
    pub sites: BTreeMap<String, Arc<SiteState>>,
}

impl Cluster {
    /// The site for writing, copied first when a snapshot still holds it.
    pub fn site_mut(&mut self, site_id: &str, by: &str) -> Result<&mut SiteState, CoreError> {
        let site = self.sites.get_mut(site_id);
        site.map(Arc::make_mut).ok_or_else(|| CoreError::UnknownSite { site_id: site_id.into(), by: by.into() })
    }
}

/// The live state: a cluster and where each allocation is.
#[derive(Debug, Default)]
pub struct State {
    cluster: Cluster,
    node_of_allocation: HashMap<String, String>,
    site_of_node: HashMap<String, String>,
}

impl State {
    /// A frozen view that later deltas do not change.
    pub fn snapshot(&self) -> Cluster {
        self.cluster.clone()
    }

    /// Applies a delta whole or not at all and returns the new generation.
    pub fn apply(&mut self, delta: border::Delta) -> Result<u64, CoreError> {
        let current = self.cluster.generation;
        if !delta.reset && delta.base_generation != current {
            return Err(CoreError::ResyncNeeded { base: delta.base_generation, current });
        }
        validate::delta(&delta)?;
        self.check(&delta)?;
        if delta.reset {
            *self = Self::default();
        }
        self.change(delta);
        self.cluster.generation = current + 1;
        Ok(self.cluster.generation)
    }

    /// Refuses a delta that speaks of what is not there, before anything has changed.
    fn check(&self, delta: &border::Delta) -> Result<(), CoreError> {
        let kept = |known: bool, removed: &[String], id: &String| known && !delta.reset && !removed.contains(id);
        let site_is_known = |id: &String| {
            delta.sites.iter().any(|s| s.id == *id)
                || kept(self.cluster.sites.contains_key(id), &delta.removed_site_ids, id)
        };
        let mut new_nodes = HashSet::new();
        for node in &delta.nodes {
            if !site_is_known(&node.site_id) {
                let by = format!("node {}", node.id);
                return Err(CoreError::UnknownSite { site_id: node.site_id.clone(), by });
            }
            new_nodes.insert(node.id.as_str());
        }
        for link in &delta.links {
            if !site_is_known(&link.to_site_id) {
                let by = format!("the link from {}", link.from_id);
                return Err(CoreError::UnknownSite { site_id: link.to_site_id.clone(), by });
            }
        }
        for used in &delta.allocations {
            let stays = self.site_of_node.get(&used.node_id).is_some_and(|site_id| {
                kept(true, &delta.removed_node_ids, &used.node_id) && !delta.removed_site_ids.contains(site_id)
            });
            if !new_nodes.contains(used.node_id.as_str()) && !stays {
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
            let nodes: Vec<_> =
                self.cluster.sites.get(id).map(|s| s.nodes.keys().cloned().collect()).unwrap_or_default();
            for node_id in nodes {
                self.remove_node(&node_id);
            }
            self.cluster.sites.remove(id);
        }
        for site in delta.sites {
            let state = self.cluster.sites.entry(site.id.clone()).or_default();
            Arc::make_mut(state).site = site;
        }
        for node in delta.nodes {
            self.put_node(node);
        }
        for link in delta.links {
            if let Some(site) = self.cluster.sites.get_mut(&link.to_site_id) {
                Arc::make_mut(site).links.insert(link.from_id.clone(), link);
            }
        }
        for used in delta.allocations {
            self.remove_allocation(&used.allocation_id);
            self.node_of_allocation.insert(used.allocation_id.clone(), used.node_id.clone());
            if let Some(node) = self.node_mut(&used.node_id) {
                node.add(used);
            }
        }
    }

    fn node_mut(&mut self, node_id: &str) -> Option<&mut NodeState> {
        let site = self.cluster.sites.get_mut(self.site_of_node.get(node_id)?)?;
        Arc::make_mut(site).nodes.get_mut(node_id)
    }

    /// Adds a node, or replaces its facts and keeps its allocations.
    fn put_node(&mut self, node: api::Node) {
        let moved = self.site_of_node.get(&node.id).is_some_and(|site_id| *site_id != node.site_id);
        if moved {
            self.remove_node(&node.id);
        }
        let mut state = NodeState::new(node);
        if let Some(old) = self.node_mut(&state.node.id) {
            for used in std::mem::take(&mut old.allocations).into_values() {
                state.add(used);
            }
        }
        self.site_of_node.insert(state.node.id.clone(), state.node.site_id.clone());
        if let Some(site) = self.cluster.sites.get_mut(&state.node.site_id) {
            Arc::make_mut(site).nodes.insert(state.node.id.clone(), state);
        }
    }

    fn remove_node(&mut self, node_id: &str) {
        let Some(site_id) = self.site_of_node.remove(node_id) else { return };
        let Some(site) = self.cluster.sites.get_mut(&site_id) else { return };
        if let Some(node) = Arc::make_mut(site).nodes.remove(node_id) {
            for allocation_id in node.allocations.keys() {
                self.node_of_allocation.remove(allocation_id);
            }
        }
    }

    fn remove_allocation(&mut self, allocation_id: &str) {
        if let Some(node_id) = self.node_of_allocation.remove(allocation_id) {
            if let Some(node) = self.node_mut(&node_id) {
                node.remove(allocation_id);
            }
        }
    }
}
