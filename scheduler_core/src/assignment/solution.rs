//! Who is where, what that leaves free and what it costs; changed one task at a time.

use super::devices::choose;
use super::problem::{range, Amounts, Problem, DIMS, NONE, REFUSED, WHOLE};

/// Where one task is; the node is NONE when it is nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    pub node: u32,
    pub column: u32,
    /// The devices it holds, by their position in the node: one of which a share, or whole ones.
    pub devices: u64,
}

pub const NOWHERE: Seat = Seat { node: NONE, column: NONE, devices: 0 };

/// A solution, never beyond any capacity.
#[derive(Debug, Clone)]
pub struct Solution<'p> {
    pub problem: &'p Problem,
    seats: Vec<Seat>,
    free: Vec<Amounts>,
    device_free_milli: Vec<u16>,
    of_node: Vec<Vec<u32>>,
    nowhere: Vec<u32>,
    /// Position of each task in its node's list, or among those that are nowhere.
    slots: Vec<u32>,
    total_microcny: i128,
    moved: u32,
}

impl<'p> Solution<'p> {
    /// Every task nowhere.
    pub fn new(problem: &'p Problem) -> Self {
        let count = problem.tasks.len();
        Self {
            problem,
            seats: vec![NOWHERE; count],
            free: problem.nodes.iter().map(|n| n.free).collect(),
            device_free_milli: problem.devices.iter().map(|d| d.free_milli).collect(),
            of_node: vec![Vec::new(); problem.nodes.len()],
            nowhere: (0..count as u32).collect(),
            slots: (0..count as u32).collect(),
            total_microcny: problem.tasks.iter().map(|t| i128::from(t.unplaced_microcny)).sum(),
            moved: problem.tasks.iter().filter(|t| t.home != NONE).count() as u32,
        }
    }

    pub fn seat(&self, task: u32) -> Seat {
        self.seats[task as usize]
    }

    pub fn is_placed(&self, task: u32) -> bool {
        self.seats[task as usize].node != NONE
    }

    pub fn free(&self, node: u32) -> &Amounts {
        &self.free[node as usize]
    }

    /// Model and free milli of each device of a node.
    pub fn devices(&self, node: u32) -> impl Iterator<Item = (u32, u16)> + Clone + '_ {
        let positions = range(&self.problem.nodes[node as usize].devices);
        positions.map(|d| (self.problem.devices[d].model, self.device_free_milli[d]))
    }

    /// The tasks on a node, in no particular order.
    pub fn tasks_on(&self, node: u32) -> &[u32] {
        &self.of_node[node as usize]
    }

    /// Cost of all that is placed and of all that is not.
    pub fn total_microcny(&self) -> i128 {
        self.total_microcny
    }

    /// How many running tasks are not where they run now.
    pub fn moved(&self) -> u32 {
        self.moved
    }

    /// The tasks that are nowhere, in no particular order.
    pub fn nowhere(&self) -> &[u32] {
        &self.nowhere
    }

    /// What the task costs there.
    #[inline]
    pub fn cost_at(&self, task: u32, node: u32, column: u32) -> i64 {
        let facts = &self.problem.tasks[task as usize];
        let cost = self.problem.cost(facts.kind, column);
        if cost == REFUSED || facts.home == NONE || facts.home == node {
            return cost;
        }
        cost + facts.move_microcny
    }

    /// What the task costs where it is.
    #[inline]
    pub fn cost_now(&self, task: u32) -> i64 {
        let seat = self.seats[task as usize];
        match seat.node {
            NONE => self.problem.tasks[task as usize].unplaced_microcny,
            node => self.cost_at(task, node, seat.column),
        }
    }

    /// Whether a task of the kind fits beside what is on the node now. The pair must be allowed.
    #[inline]
    pub fn fits(&self, kind: u32, node: u32, column: u32) -> bool {
        let weight = self.problem.weight(kind, column);
        let free = &self.free[node as usize];
        (0..DIMS).all(|d| weight[d] <= free[d]) && self.devices_for(kind, node, column, None).is_some()
    }

    fn devices_for(&self, kind: u32, node: u32, column: u32, held: Option<u64>) -> Option<u64> {
        let milli = self.problem.kinds[kind as usize].device_milli;
        choose(self.devices(node), self.problem.columns[column as usize].model, milli, held)
    }

    /// Puts a task that is nowhere onto a node; false, and nothing changed, when it does not fit.
    pub fn put(&mut self, task: u32, node: u32, column: u32) -> bool {
        let facts = &self.problem.tasks[task as usize];
        let weight = self.problem.weight(facts.kind, column);
        let held = (facts.home == node).then_some(facts.home_devices);
        let fits = self.problem.cost(facts.kind, column) != REFUSED
            && (0..DIMS).all(|d| weight[d] <= self.free[node as usize][d]);
        let devices = if fits { self.devices_for(facts.kind, node, column, held) } else { None };
        if let Some(devices) = devices {
            self.put_back(task, Seat { node, column, devices });
        }
        devices.is_some()
    }

    /// Puts a task that was lifted onto the very seat that it had, which must still be free.
    pub fn put_back(&mut self, task: u32, seat: Seat) {
        debug_assert!(!self.is_placed(task));
        if seat.node == NONE {
            return;
        }
        self.total_microcny += i128::from(self.cost_at(task, seat.node, seat.column))
            - i128::from(self.problem.tasks[task as usize].unplaced_microcny);
        self.take(task, seat, -1);
        unlist(&mut self.nowhere, &mut self.slots, task);
        list(&mut self.of_node[seat.node as usize], &mut self.slots, task);
        self.seats[task as usize] = seat;
        if self.problem.tasks[task as usize].home == seat.node {
            self.moved -= 1;
        }
    }

    /// Takes a task from its node and says where it was.
    pub fn lift(&mut self, task: u32) -> Seat {
        let seat = std::mem::replace(&mut self.seats[task as usize], NOWHERE);
        if seat.node == NONE {
            return seat;
        }
        self.total_microcny += i128::from(self.problem.tasks[task as usize].unplaced_microcny)
            - i128::from(self.cost_at(task, seat.node, seat.column));
        self.take(task, seat, 1);
        unlist(&mut self.of_node[seat.node as usize], &mut self.slots, task);
        list(&mut self.nowhere, &mut self.slots, task);
        if self.problem.tasks[task as usize].home == seat.node {
            self.moved += 1;
        }
        seat
    }

    fn take(&mut self, task: u32, seat: Seat, sign: i64) {
        let kind = self.problem.tasks[task as usize].kind;
        let weight = self.problem.weight(kind, seat.column);
        let free = &mut self.free[seat.node as usize];
        (0..DIMS).for_each(|d| free[d] += sign * weight[d]);
        let first = self.problem.nodes[seat.node as usize].devices.start as usize;
        let each = self.problem.kinds[kind as usize].device_milli.min(WHOLE);
        let mut left = seat.devices;
        while left != 0 {
            let milli = &mut self.device_free_milli[first + left.trailing_zeros() as usize];
            *milli = (i64::from(*milli) + sign * each) as u16;
            left &= left - 1;
        }
    }
}

fn list(tasks: &mut Vec<u32>, slots: &mut [u32], task: u32) {
    slots[task as usize] = tasks.len() as u32;
    tasks.push(task);
}

fn unlist(tasks: &mut Vec<u32>, slots: &mut [u32], task: u32) {
    let slot = slots[task as usize];
    tasks.swap_remove(slot as usize);
    if let Some(&last) = tasks.get(slot as usize) {
        slots[last as usize] = slot;
    }
}
