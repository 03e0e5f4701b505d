//! Nodes of one class differ in nothing but identity and load: of one site, with equal facts. What
//! the filters about facts say and what a task costs is one answer for all of them.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::cluster::NodeState;
use crate::wire::mumian::api::v1 as api;

/// Numbers the classes that were seen, from 0 on.
#[derive(Default)]
pub struct Classes(HashMap<Class, u32>);

impl Classes {
    /// The number of the node's class.
    pub fn number(&mut self, site: u32, node: &NodeState) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(Class { site, node: node.node.clone() }).or_insert(next)
    }
}

struct Class {
    site: u32,
    node: Arc<api::Node>,
}

impl Class {
    /// Names every field of the message, so that a new one cannot be forgotten here.
    fn facts(&self) -> impl Hash + Eq + '_ {
        let api::Node {
            arch,
            health,
            labels,
            accelerators,
            core_active_power_mw,
            container_engine,
            id: _,
            site_id: _,
            cpu_milli: _, // what is free of them is the load
            memory_mib: _,
            cpu_milli_allocated: _, // what the coordinator counts for itself
            memory_mib_allocated: _,
            devices_allocated: _,
            cpu_used_permille: _,
            memory_mib_used: _,
            disk_mib: _, // what is told to people
            disk_mib_used: _,
            network_kbps: _,
            network_kbps_used: _,
            cpu_milli_withheld: _, // cpu_milli and memory_mib are without it
            memory_mib_withheld: _,
            devices_withheld: _, // what is free of the devices is the load
            energy: _,
            switch_id: _, // asked of the node itself, beside what else is placed
            rack_id: _,
        } = &*self.node;
        (self.site, arch, health, labels, accelerators, core_active_power_mw, container_engine)
    }
}

impl PartialEq for Class {
    fn eq(&self, other: &Self) -> bool {
        self.facts() == other.facts()
    }
}

impl Eq for Class {}

impl Hash for Class {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.facts().hash(state);
    }
}
