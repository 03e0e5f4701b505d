//! A cluster with bookings on top, which can be taken back. The cluster itself is not touched,
//! and only the nodes that were booked are copied.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use crate::allocation::Allocation;
use crate::cluster::{At, Cluster, Holding, NodeState};
use crate::coupling::{Coupling, UNCOUPLED};
use crate::model::{Candidate, Demand, Task};
use crate::occupancy::{Context, Load, Occupancy};
use crate::wire::mumian::api::v1 as api;

/// The cluster as it would be after the bookings so far.
pub struct Trial<'a> {
    pub cluster: &'a Cluster,
    booked: HashMap<At, NodeState, BuildHasherDefault<PositionHasher>>,
    bookings: Vec<Booking>,
    occupancy: Occupancy,
}

/// What one task took, or gave back.
pub struct Booking {
    pub at: At,
    held: Holding,
    /// Unset where no coupling constraint counts it.
    load: Option<Box<Load>>,
    /// It is what a running allocation gave back, and not what a task took.
    is_freed: bool,
}

impl<'a> Trial<'a> {
    pub fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, booked: HashMap::default(), bookings: Vec::new(), occupancy: Occupancy::default() }
    }

    pub fn node(&self, at: At) -> &NodeState {
        self.booked.get(&at).unwrap_or_else(|| self.cluster.node(at))
    }

    /// A candidate by itself: coupling constraints admit it.
    pub fn candidate<'t>(&'t self, at: At, demand: &'t Demand, model: Option<usize>) -> Candidate<'t> {
        Candidate { at, site: self.cluster.site(at), node: self.node(at), demand, model, context: None }
    }

    /// A candidate that coupling constraints are asked about as well.
    pub fn candidate_of<'t>(&'t self, at: At, task: &'t Task, model: Option<usize>) -> Candidate<'t> {
        let context = self.context(task.coupling.as_deref().unwrap_or(&UNCOUPLED));
        Candidate { context: Some(context), ..self.candidate(at, &task.demand, model) }
    }

    /// What coupling constraints are asked about, as it is now.
    pub fn context<'t>(&'t self, coupling: &'t Coupling) -> Context<'t> {
        Context { cluster: self.cluster, occupancy: &self.occupancy, coupling }
    }

    /// Whether a coupling constraint could refuse some candidate of the task.
    pub fn is_coupled(&self, task: &Task) -> bool {
        task.coupling.is_some() || self.cluster.capped_sites > 0
    }

    /// Counts the running tasks of a job. To be called before its tasks are placed or booked.
    pub fn enter(&mut self, job_id: &str, job: &api::JobSpec) {
        self.occupancy.enter(self.cluster, job_id, job);
    }

    /// Books one task with the model and the very devices that it gets.
    pub fn book(&mut self, at: At, task: &Task, model: Option<usize>, devices: &[api::DeviceShare]) {
        let demand = &task.demand;
        let load = || Box::new(Load::of(task.coupling.as_ref(), &self.candidate(at, demand, model)));
        let load = self.is_coupled(task).then(load);
        let held = Holding { cpu_milli: demand.cpu_milli, memory_mib: demand.memory_mib, devices: devices.to_vec() };
        self.hold(Booking { at, held, load, is_freed: false });
    }

    /// Frees all that a running task takes, as if it were not there. Its job has been entered.
    pub fn vacate(&mut self, at: At, held: &Holding, load: Load) {
        self.hold(Booking { at, held: held.clone(), load: Some(Box::new(load)), is_freed: true });
    }

    /// Frees what a running allocation holds on its node. What coupling constraints count stays
    /// counted, until it has really ended.
    pub fn evict(&mut self, at: At, held: &Holding) {
        self.hold(Booking { at, held: held.clone(), load: None, is_freed: true });
    }

    /// Gives evicted allocations back what they held, if there is room for all of them beside
    /// what took their place. Says whether there was.
    pub fn reprieve(&mut self, allocations: &[(At, Arc<Allocation>)]) -> bool {
        let mark = self.mark();
        for (at, allocation) in allocations {
            if !self.node(*at).has_room_for(&allocation.held) {
                while self.undo_one(mark).is_some() {}
                return false;
            }
            self.hold(Booking { at: *at, held: allocation.held.clone(), load: None, is_freed: false });
        }
        true
    }

    fn hold(&mut self, booking: Booking) {
        self.change(&booking, booking.is_freed);
        self.bookings.push(booking);
    }

    fn release(&mut self, booking: &Booking) {
        self.change(booking, !booking.is_freed);
    }

    /// Takes what a booking is about from its node and all that counts it, or gives it there.
    fn change(&mut self, booking: &Booking, is_freed: bool) {
        let Booking { at, held, load, .. } = booking;
        let node = self.booked.entry(*at).or_insert_with(|| self.cluster.node(*at).clone());
        if is_freed {
            node.release(held);
            load.iter().for_each(|load| self.occupancy.remove(*at, load));
        } else {
            node.hold(held);
            load.iter().for_each(|load| self.occupancy.add(*at, load));
        }
    }

    /// Takes back all bookings and says on which nodes they were.
    pub fn clear(&mut self) -> Vec<At> {
        let booked = std::mem::take(&mut self.booked);
        self.bookings.clear();
        self.occupancy = Occupancy::default();
        booked.into_keys().collect()
    }

    /// How many bookings there are: a point to go back to.
    pub fn mark(&self) -> usize {
        self.bookings.len()
    }

    /// Takes back all bookings after the mark, to be put back later.
    pub fn lift(&mut self, mark: usize) -> Vec<Booking> {
        let lifted = self.bookings.split_off(mark);
        lifted.iter().rev().for_each(|booking| self.release(booking));
        lifted
    }

    /// Books again what was lifted.
    pub fn put_back(&mut self, lifted: Vec<Booking>) {
        lifted.into_iter().for_each(|booking| self.hold(booking));
    }

    /// Takes back the newest booking after the mark and says on which node it was.
    pub fn undo_one(&mut self, mark: usize) -> Option<At> {
        if self.bookings.len() <= mark {
            return None;
        }
        let booking = self.bookings.pop()?;
        self.release(&booking);
        Some(booking.at)
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
