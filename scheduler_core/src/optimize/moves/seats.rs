//! All ways to seat a few tasks on a few nodes, searched depth first: the tasks that take most
//! first, each node in order of adjusted cost. A branch ends when its adjusted cost, with the least
//! of the tasks still to seat, already exceeds what the best found costs plus what the free
//! capacity is worth (Lagrange's bound of the rest). Free capacity that no task can take any more is lost.

use std::cmp::Reverse;

use crate::assignment::devices::choose;
use crate::assignment::problem::{range, Amounts, DIMS, NONE, REFUSED, WHOLE};
use crate::assignment::solution::Solution;
use crate::bound::PRICE_SHIFT;
use crate::optimize::guide::{parts, Guide, PART_BITS};

struct Node {
    id: u32,
    class: u32,
    price: Amounts,
    free: Amounts,
    /// The least that any of the tasks takes here; beyond any capacity when none can stand here.
    least: Amounts,
    /// Model and free milli of each device.
    devices: Vec<(u32, u16)>,
}

impl Node {
    /// Whether no task can be added.
    fn is_closed(&self, dims: usize) -> bool {
        self.free[..dims].iter().zip(&self.least).any(|(free, least)| free < least)
    }

    /// What the free capacity is worth, in parts.
    fn worth(&self, dims: usize) -> i64 {
        let worth = self.free[..dims].iter().zip(&self.price).map(|(free, price)| free.saturating_mul(*price));
        worth.fold(0_i64, i64::saturating_add) >> (PRICE_SHIFT - PART_BITS)
    }
}

#[derive(Clone, Copy)]
struct Choice {
    adjusted: i64,
    cost: i64,
    node: usize,
    column: u32,
    model: u32,
    weight: Amounts,
}

struct Task {
    id: u32,
    device_milli: i64,
    home: u32,
    home_devices: u64,
    options: Vec<Choice>,
}

pub struct Seats<'a, 'p> {
    guide: &'a Guide<'p>,
    /// Resources that the problem knows.
    dims: usize,
    nodes: Vec<Node>,
    tasks: Vec<Task>,
    /// The least adjusted cost of all tasks from each on.
    tails: Vec<i64>,
    /// What the free capacity is worth with all tasks lifted.
    worth: i64,
    /// Where the tasks are: no answer to the question where else.
    now: Vec<(u32, u32)>,
    chosen: Vec<(u32, u32)>,
    best: Option<(i64, Vec<(u32, u32)>)>,
    /// A branch must stay below this.
    limit: i64,
    below_microcny: i64,
    looks_left: usize,
}

/// Cost, and task, node and column of each.
pub type Best = (i64, Vec<(u32, u32, u32)>);

impl<'a, 'p> Seats<'a, 'p> {
    pub fn new(solution: &Solution<'p>, guide: &'a Guide<'p>, nodes: &[u32], tasks: &[u32]) -> Self {
        let problem = solution.problem;
        let mut local: Vec<Node> = nodes.iter().map(|&id| local_node(solution, guide, id)).collect();
        for &task in tasks {
            let seat = solution.seat(task);
            if let Some(node) = local.iter_mut().find(|n| n.id == seat.node) {
                let kind = problem.tasks[task as usize].kind;
                take(&mut node.free, &problem.weight(kind, seat.column), DIMS, 1);
                hold(&mut node.devices, seat.devices, -problem.kinds[kind as usize].device_milli);
            }
        }
        let mut seats = Self {
            guide,
            dims: problem.dims(),
            nodes: local,
            tasks: Vec::with_capacity(tasks.len()),
            tails: vec![0; tasks.len() + 1],
            worth: 0,
            now: Vec::with_capacity(tasks.len()),
            chosen: Vec::with_capacity(tasks.len()),
            best: None,
            limit: 0,
            below_microcny: 0,
            looks_left: 0,
        };
        let mut order = tasks.to_vec();
        order.sort_by_key(|&t| {
            let kind = problem.tasks[t as usize].kind;
            let taken = guide.near(kind).first().map_or(0, |(adjusted, c)| adjusted - parts(problem.cost(kind, *c)));
            (Reverse(taken), kind, t)
        });
        order.iter().for_each(|&task| seats.add(solution, task));
        for i in (0..seats.tasks.len()).rev() {
            seats.tails[i] = seats.tails[i + 1] + seats.tasks[i].options.first().map_or(0, |o| o.adjusted);
        }
        let open = seats.nodes.iter().filter(|n| !n.is_closed(seats.dims));
        seats.worth = open.map(|n| n.worth(seats.dims)).sum();
        seats
    }

    fn add(&mut self, solution: &Solution<'_>, id: u32) {
        let problem = solution.problem;
        let facts = &problem.tasks[id as usize];
        let mut options = Vec::with_capacity(self.nodes.len() + 1);
        for (i, node) in self.nodes.iter_mut().enumerate() {
            for column in range(&problem.classes[node.class as usize].columns) {
                let column = column as u32;
                let cost = solution.cost_at(id, node.id, column);
                if cost == REFUSED {
                    continue;
                }
                let moving = parts(cost - problem.cost(facts.kind, column));
                let adjusted = self.guide.adjusted(facts.kind, column) + moving;
                let weight = problem.weight(facts.kind, column);
                let model = problem.columns[column as usize].model;
                options.push(Choice { adjusted, cost, node: i, column, model, weight });
                (0..DIMS).for_each(|d| node.least[d] = node.least[d].min(weight[d]));
            }
        }
        // What runs, and one of a gang, must stand somewhere; others may be left out.
        if facts.gang == NONE && facts.home == NONE {
            let cost = facts.unplaced_microcny;
            options.push(Choice {
                adjusted: parts(cost),
                cost,
                node: usize::MAX,
                column: NONE,
                model: NONE,
                weight: [0; DIMS],
            });
        }
        options.sort_by_key(|o| (o.adjusted, o.node, o.column));
        let device_milli = problem.kinds[facts.kind as usize].device_milli;
        let seat = solution.seat(id);
        self.now.push((seat.node, seat.column));
        let (home, home_devices) = (facts.home, facts.home_devices);
        self.tasks.push(Task { id, device_milli, home, home_devices, options });
    }

    /// The cheapest other seats found that cost less than `below_microcny` + 1, after so many looks.
    pub fn best(&mut self, below_microcny: i64, looks: usize) -> Option<Best> {
        self.below_microcny = below_microcny.saturating_add(1);
        self.limit = parts(self.below_microcny) + self.worth;
        self.looks_left = looks;
        self.seat(0, 0, 0);
        let (cost, chosen) = self.best.take()?;
        let seats = self.tasks.iter().zip(chosen).map(|(task, (node, column))| (task.id, node, column));
        Some((cost, seats.collect()))
    }

    fn seat(&mut self, depth: usize, adjusted: i64, cost: i64) {
        if depth == self.tasks.len() {
            if cost < self.below_microcny && self.chosen != self.now {
                self.below_microcny = cost;
                self.limit = parts(cost) + self.worth;
                self.best = Some((cost, self.chosen.clone()));
            }
            return;
        }
        let dims = self.dims;
        let milli = self.tasks[depth].device_milli;
        for i in 0..self.tasks[depth].options.len() {
            let option = &self.tasks[depth].options[i];
            let (reached, cost) = (adjusted + option.adjusted, cost + option.cost);
            if reached + self.tails[depth + 1] >= self.limit {
                return;
            }
            if option.node == usize::MAX {
                self.chosen.push((NONE, NONE));
                self.seat(depth + 1, reached, cost);
                self.chosen.pop();
                continue;
            }
            let node = &mut self.nodes[option.node];
            if option.weight[..dims].iter().zip(&node.free).any(|(weight, free)| weight > free) {
                continue;
            }
            if self.looks_left == 0 {
                return;
            }
            self.looks_left -= 1;
            let home = (node.id == self.tasks[depth].home).then_some(self.tasks[depth].home_devices);
            let Some(held) = choose(node.devices.iter().copied(), option.model, milli, home) else { continue };
            hold(&mut node.devices, held, milli);
            take(&mut node.free, &option.weight, dims, -1);
            let lost = if node.is_closed(dims) { node.worth(dims) } else { 0 };
            if reached + lost + self.tails[depth + 1] < self.limit {
                self.chosen.push((node.id, option.column));
                self.seat(depth + 1, reached + lost, cost);
                self.chosen.pop();
            }
            let option = &self.tasks[depth].options[i];
            let node = &mut self.nodes[option.node];
            take(&mut node.free, &option.weight, dims, 1);
            hold(&mut node.devices, held, -milli);
        }
    }
}

fn local_node(solution: &Solution<'_>, guide: &Guide<'_>, id: u32) -> Node {
    let class = solution.problem.nodes[id as usize].class;
    let devices = solution.devices(id).collect();
    Node { id, class, price: *guide.price(class), free: *solution.free(id), least: [i64::MAX; DIMS], devices }
}

fn take(free: &mut Amounts, weight: &Amounts, dims: usize, sign: i64) {
    free[..dims].iter_mut().zip(weight).for_each(|(free, weight)| *free += sign * weight);
}

/// Takes devices, or with a negative amount gives them back.
fn hold(devices: &mut [(u32, u16)], held: u64, milli: i64) {
    let mut left = held;
    while left != 0 {
        let free = &mut devices[left.trailing_zeros() as usize].1;
        *free = (i64::from(*free) - milli.clamp(-WHOLE, WHOLE)) as u16;
        left &= left - 1;
    }
}
