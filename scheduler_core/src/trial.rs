//! A cluster with bookings on top, which can be taken back. The cluster itself is not touched,
//! and only the nodes that were booked are copied.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::cluster::{At, Cluster, Holding, NodeState};
use crate::model::{Candidate, Demand};
use crate::wire::mumian::api::v1 as api;

/// The cluster as it would be after the bookings so far.
pub struct Trial<'a> {
    pub cluster: &'a Cluster,
    booked: HashMap<At, NodeState, BuildHasherDefault<PositionHasher>>,
    bookings: Vec<(At, Holding)>,
}

impl<'a> Trial<'a> {
    pub fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, booked: HashMap::default(), bookings: Vec::new() }
    }

    pub fn node(&self, at: At) -> &NodeState {
        self.booked.get(&at).unwrap_or_else(|| self.cluster.node(at))
    }

    pub fn candidate<'t>(&'t self, at: At, demand: &'t Demand, model: Option<usize>) -> Candidate<'t> {
        Candidate { site: self.cluster.site(at), node: self.node(at), demand, model }
    }

    /// Books one task with the very devices that it gets.
    pub fn book(&mut self, at: At, demand: &Demand, devices: &[api::DeviceShare]) {
        let held = Holding { cpu_milli: demand.cpu_milli, memory_mib: demand.memory_mib, devices: devices.to_vec() };
        self.booked.entry(at).or_insert_with(|| self.cluster.node(at).clone()).hold(&held);
        self.bookings.push((at, held));
    }

    /// How many bookings there are: a point to go back to.
    pub fn mark(&self) -> usize {
        self.bookings.len()
    }

    /// Takes back all bookings after the mark, to be put back later.
    pub fn lift(&mut self, mark: usize) -> Vec<(At, Holding)> {
        let lifted = self.bookings.split_off(mark);
        for (at, held) in &lifted {
            if let Some(node) = self.booked.get_mut(at) {
                node.release(held);
            }
        }
        lifted
    }

    /// Books again what was lifted.
    pub fn put_back(&mut self, lifted: Vec<(At, Holding)>) {
        for (at, held) in &lifted {
            if let Some(node) = self.booked.get_mut(at) {
                node.hold(held);
            }
        }
        self.bookings.extend(lifted);
    }

    /// Takes back the newest booking after the mark and says on which node it was.
    pub fn undo_one(&mut self, mark: usize) -> Option<At> {
        if self.bookings.len() <= mark {
            return None;
        }
        let (at, held) = self.bookings.pop()?;
        if let Some(node) = self.booked.get_mut(&at) {
            node.release(&held);
        }
        Some(at)
    }
}

/// Positions are small and nobody chooses them, so one multiplication (by 2^64 over the golden
/// ratio) spreads them well enough; looking a node up is the innermost step of every decision.
#[derive(Default)]
struct PositionHasher(u64);

impl Hasher for PositionHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = (self.0.rotate_left(32) ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
