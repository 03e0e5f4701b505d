//! One frozen view of the cluster: sites, their nodes and what is promised of them. All that a
//! delta does not change is shared between views.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::allocation::{Allocation, Allocations, ById, Place};
use crate::model::{counts, WHOLE_DEVICE_MILLI};
use crate::place::memo::Memo;
use crate::recent::Recent;
use crate::wire::mumian::api::v1 as api;

/// One accelerator device and what is promised of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Position in the node's accelerators of the first one of this device's model.
    pub model: usize,
    pub used_milli: u64,
    /// Not offered: the device is faulty, or others use it.
    pub withheld_milli: u64,
}

impl Device {
    /// In thousandths of the device; never below zero, though a fact may overcommit it.
    pub fn free_milli(&self) -> u64 {
        WHOLE_DEVICE_MILLI.saturating_sub(self.used_milli.saturating_add(self.withheld_milli))
    }
}

/// What one allocation or placement holds on its node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Holding {
    pub cpu_milli: u64,
    pub memory_mib: u64,
    pub devices: Vec<api::DeviceShare>,
}

impl Holding {
    /// The model of the devices that it holds on that node: all of one task are of one model.
    pub(crate) fn model_on(&self, node: &NodeState) -> Option<usize> {
        let first = self.devices.first()?;
        node.devices.get(first.device_index as usize).map(|device| device.model)
    }
}

/// A node with the sum of what is held on it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeState {
    pub node: Arc<api::Node>,
    pub devices: Vec<Device>,
    pub used_cpu_milli: u64,
    pub used_memory_mib: u64,
    /// What runs here, which is what the sums are made of.
    pub allocations: Allocations,
    /// Generations of the last change of anything, and of the last change of `node`.
    pub(crate) changed_at: u64,
    pub(crate) facts_changed_at: u64,
}

impl NodeState {
    pub(crate) fn new(node: api::Node, generation: u64) -> Self {
        let mut devices = Vec::new();
        for (i, accelerator) in node.accelerators.iter().enumerate() {
            let model = first_of_model(&node, i);
            devices.extend((0..accelerator.count).map(|_| Device { model, used_milli: 0, withheld_milli: 0 }));
        }
        for share in &node.devices_withheld {
            if let Some(device) = devices.get_mut(share.device_index as usize) {
                device.withheld_milli = u64::from(share.milli);
            }
        }
        Self {
            node: Arc::new(node),
            devices,
            used_cpu_milli: 0,
            used_memory_mib: 0,
            allocations: Allocations::default(),
            changed_at: generation,
            facts_changed_at: generation,
        }
    }

    /// Positions in the node's accelerators, one for each model that has devices.
    pub fn models(&self) -> impl Iterator<Item = usize> + '_ {
        let has_devices = |i: &usize| self.node.accelerators[*i].count > 0;
        (0..self.node.accelerators.len())
            .filter(has_devices)
            .filter(move |&i| !(0..i).any(|j| has_devices(&j) && self.same_model(i, j)))
            .map(|i| first_of_model(&self.node, i))
    }

    fn same_model(&self, i: usize, j: usize) -> bool {
        self.node.accelerators[i].model == self.node.accelerators[j].model
    }

    /// In thousandths of a core, never below zero.
    pub fn free_cpu_milli(&self) -> u64 {
        self.node.cpu_milli.saturating_sub(self.used_cpu_milli)
    }

    /// In MiB, never below zero.
    pub fn free_memory_mib(&self) -> u64 {
        self.node.memory_mib.saturating_sub(self.used_memory_mib)
    }

    /// Whether as much is free here of everything, device by device.
    pub(crate) fn has_room_of(&self, other: &Self) -> bool {
        self.free_cpu_milli() == other.free_cpu_milli()
            && self.free_memory_mib() == other.free_memory_mib()
            && self.devices == other.devices
    }

    /// IT power of all that is held here, under full load, in microwatt.
    pub(crate) fn it_power_uw(&self) -> u128 {
        let power_mw = |device: &Device| self.node.accelerators[device.model].active_power_mw;
        let devices = self.devices.iter().map(|d| u128::from(d.used_milli) * u128::from(power_mw(d)));
        u128::from(self.used_cpu_milli) * u128::from(self.node.core_active_power_mw) + devices.sum::<u128>()
    }

    /// IT power of what one allocation holds here, under full load, in microwatt.
    pub(crate) fn it_power_of_uw(&self, held: &Holding) -> u128 {
        let power_mw = |device: &Device| self.node.accelerators[device.model].active_power_mw;
        let devices = held.devices.iter().filter_map(|share| {
            let device = self.devices.get(share.device_index as usize)?;
            Some(u128::from(share.milli) * u128::from(power_mw(device)))
        });
        u128::from(held.cpu_milli) * u128::from(self.node.core_active_power_mw) + devices.sum::<u128>()
    }

    /// Whether what is free covers it, on the very devices that it names.
    pub(crate) fn has_room_for(&self, held: &Holding) -> bool {
        let free_milli = |share: &api::DeviceShare| {
            self.devices.get(share.device_index as usize).map_or(0, |device| device.free_milli())
        };
        held.cpu_milli <= self.free_cpu_milli()
            && held.memory_mib <= self.free_memory_mib()
            && held.devices.iter().all(|share| u64::from(share.milli) <= free_milli(share))
    }

    /// Adds what an allocation holds.
    pub fn hold(&mut self, held: &Holding) {
        self.used_cpu_milli += held.cpu_milli;
        self.used_memory_mib += held.memory_mib;
        for share in &held.devices {
            if let Some(device) = self.devices.get_mut(share.device_index as usize) {
                device.used_milli += u64::from(share.milli);
            }
        }
    }

    /// Holds what these allocations hold, which is nothing yet.
    pub(crate) fn take_over(&mut self, allocations: &Allocations) {
        self.allocations = allocations.clone();
        allocations.iter().for_each(|allocation| self.hold(&allocation.held));
    }

    pub(crate) fn release(&mut self, held: &Holding) {
        self.used_cpu_milli -= held.cpu_milli;
        self.used_memory_mib -= held.memory_mib;
        for share in &held.devices {
            if let Some(device) = self.devices.get_mut(share.device_index as usize) {
                device.used_milli -= u64::from(share.milli);
            }
        }
    }
}

fn first_of_model(node: &api::Node, i: usize) -> usize {
    let model = &node.accelerators[i].model;
    node.accelerators.iter().position(|a| a.model == *model).unwrap_or(i)
}

/// A site with its nodes in order of id, and the links that lead to it by where they come from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SiteState {
    pub site: Arc<api::Site>,
    pub nodes: Vec<Arc<NodeState>>,
    pub links: Arc<BTreeMap<String, api::Link>>,
    /// What is reserved of the links from zones, in kbit/s.
    pub used_kbps: Arc<BTreeMap<String, u64>>,
    /// IT power of all that is held on the nodes, under full load, in microwatt.
    pub it_power_uw: u128,
    /// Generations of the last change of anything here, and of the last change of `site` or `links`.
    pub(crate) changed_at: u64,
    pub(crate) facts_changed_at: u64,
    /// Of its nodes.
    pub(crate) recent: Recent,
}

impl SiteState {
    /// The nodes that may have changed after a generation, as long as none came or went since.
    pub(crate) fn changed_after(&self, generation: u64) -> Vec<u32> {
        let all = || (0..self.nodes.len() as u32).filter(|n| self.nodes[*n as usize].changed_at > generation).collect();
        self.recent.after(generation).unwrap_or_else(all)
    }

    /// Power at the meter for each 1000 of IT power. A site whose PUE is unknown counts as 1: the
    /// PUE filter is what keeps it out.
    pub fn marginal_permille(&self) -> u32 {
        self.site.pue.as_ref().map_or(1000, |pue| pue.marginal_permille.max(1000))
    }

    /// The node's position, or where it would be put.
    pub(crate) fn find(&self, node_id: &str) -> Result<usize, usize> {
        self.nodes.binary_search_by(|n| n.node.id.as_str().cmp(node_id))
    }
}

/// Where a node is in a cluster: positions in order of site id and node id, so that comparing
/// two of them compares the ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    pub site: u32,
    pub node: u32,
}

/// All sites at one generation, in order of id. Cloning it is the snapshot.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cluster {
    pub generation: u64,
    pub(crate) sites: Arc<Vec<Arc<SiteState>>>,
    /// Generation of the last change of which nodes, with which devices, there are.
    pub(crate) structure: u64,
    pub(crate) allocations: ById<Arc<Allocation>>,
    /// Those of each job that is known.
    pub(crate) jobs: ById<Allocations>,
    /// How many sites have a power cap.
    pub(crate) capped_sites: usize,
    /// Devices of each accelerator model, on all nodes.
    pub(crate) device_counts: Arc<BTreeMap<String, u64>>,
    /// Of its sites.
    pub(crate) recent: Recent,
    pub(crate) memo: Memo,
}

impl Cluster {
    /// The same with an index of its own, to be changed in other ways than this one will be.
    pub(crate) fn apart(&self) -> Self {
        Self { memo: Memo::default(), ..self.clone() }
    }

    /// Keeps the counts right when one node takes the place of another.
    pub(crate) fn count_devices(&mut self, old: Option<&api::Node>, new: Option<&api::Node>) {
        let counts = Arc::make_mut(&mut self.device_counts);
        for accelerator in new.into_iter().flat_map(|node| &node.accelerators) {
            *counts.entry(accelerator.model.clone()).or_default() += u64::from(accelerator.count);
        }
        for accelerator in old.into_iter().flat_map(|node| &node.accelerators) {
            if let Some(count) = counts.get_mut(&accelerator.model) {
                *count -= u64::from(accelerator.count);
            }
        }
        counts.retain(|_, count| *count > 0);
    }

    /// The sites that may have changed after a generation, as long as none came or went since.
    pub(crate) fn changed_after(&self, generation: u64) -> Vec<u32> {
        let all = || (0..self.sites.len() as u32).filter(|s| self.sites[*s as usize].changed_at > generation).collect();
        self.recent.after(generation).unwrap_or_else(all)
    }

    pub(crate) fn find(&self, site_id: &str) -> Result<usize, usize> {
        self.sites.binary_search_by(|s| s.site.id.as_str().cmp(site_id))
    }

    /// Where the node is, if it is there.
    pub fn at(&self, site_id: &str, node_id: &str) -> Option<At> {
        let site = self.find(site_id).ok()?;
        let node = self.sites[site].find(node_id).ok()?;
        Some(At { site: site as u32, node: node as u32 })
    }

    /// Where the node of that place is now, if it is there.
    pub(crate) fn find_place(&self, place: &Place) -> Option<At> {
        let At { site, node } = place.was_at;
        let is_there = |n: &Arc<NodeState>| n.node.id == place.node_id && n.node.site_id == place.site_id;
        let has_stayed = self.sites.get(site as usize).and_then(|s| s.nodes.get(node as usize)).is_some_and(is_there);
        if has_stayed {
            Some(place.was_at)
        } else {
            self.at(&place.site_id, &place.node_id)
        }
    }

    pub fn site(&self, at: At) -> &SiteState {
        &self.sites[at.site as usize]
    }

    pub fn node(&self, at: At) -> &NodeState {
        &self.sites[at.site as usize].nodes[at.node as usize]
    }

    /// What runs of a job, in order of id.
    pub fn tasks_of(&self, job_id: &str) -> impl Iterator<Item = &Arc<Allocation>> + '_ {
        self.jobs.get(job_id).into_iter().flat_map(Allocations::iter)
    }

    /// All that falls when an allocation is evicted: itself, or its whole gang.
    pub(crate) fn fall_with(&self, allocation: &Arc<Allocation>) -> Vec<(At, Arc<Allocation>)> {
        let all = match &allocation.job_id {
            Some(job_id) if allocation.is_of_gang => self.tasks_of(job_id).cloned().collect(),
            _ => vec![allocation.clone()],
        };
        all.into_iter().filter_map(|allocation| self.find_place(&allocation.place).map(|at| (at, allocation))).collect()
    }

    /// Round-trip time p99 between two sites: 0 within one, or else the worse of the directions
    /// that are known. With `measured_only` no estimate counts.
    pub fn rtt_p99_us(&self, a: u32, b: u32, measured_only: bool) -> Option<u64> {
        let (one, other) = (&self.sites[a as usize], &self.sites[b as usize]);
        let links = [one.links.get(&other.site.id), other.links.get(&one.site.id)];
        if a == b {
            Some(0)
        } else {
            let known = links.into_iter().flatten().filter(|link| counts(link, measured_only));
            known.map(|link| link.rtt_p99_us).max()
        }
    }

    /// Every node, in order of site id and node id.
    pub fn nodes(&self) -> impl Iterator<Item = At> + '_ {
        let places = |(s, site): (usize, &Arc<SiteState>)| {
            (0..site.nodes.len()).map(move |n| At { site: s as u32, node: n as u32 })
        };
        self.sites.iter().enumerate().flat_map(places)
    }
}
