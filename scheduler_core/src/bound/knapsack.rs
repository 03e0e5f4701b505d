//! A bound that sees that tasks are whole, for tables: here tasks are charged for instead of capacities
//! (Fisher, Jaikumar and Van Wassenhove, "A multiplier adjustment method for the generalized assignment
//! problem", Management Science 32, 1986). Each node then takes what pays best, a knapsack by itself,
//! which is solved exactly; whatever the charges are, no solution costs less than their sum without what
//! the nodes gain.

use std::sync::Arc;

use super::open::Open;
use super::CHARGE_SHIFT;
use crate::assignment::knapsack::{Item, Knapsack};
use crate::assignment::problem::{range, Problem, Task, Weights, NONE, REFUSED};
use crate::threads::shared;

/// Where sums of charges cannot overflow.
const SUM_MAX: i128 = 1 << 60;
/// Larger nodes would take too long.
const CAPACITY_MAX: i64 = 1 << 16;
/// Fewer cells of all knapsacks are not worth a thread.
const CELLS_PER_THREAD: u64 = 1 << 18;

/// Looking at a pair takes as long as about so many cells.
const CELLS_PER_PAIR: u64 = 16;

/// A task that may stand on a node; the cost is in 2^CHARGE_SHIFT parts.
#[derive(Clone, Copy)]
struct Pair {
    task: u32,
    weight: u32,
    cost: i64,
}

struct Node {
    capacity: usize,
    /// By task.
    pairs: Vec<Pair>,
}

impl Node {
    fn items<'a>(&'a self, charges: &'a [i64]) -> impl Iterator<Item = Item> + 'a {
        self.pairs.iter().map(|pair| Item {
            task: pair.task,
            weight: pair.weight as usize,
            gain: charges[pair.task as usize] - pair.cost,
        })
    }
}

/// What may stand where, of all tasks or of those that are not fixed.
pub struct Knapsacks {
    nodes: Vec<Node>,
    /// Not fixed.
    tasks: Vec<u32>,
    /// What the fixed ones cost, in 2^CHARGE_SHIFT parts.
    fixed: i64,
    /// Of each task: what leaving it out counts as, which is also what it may be charged at most.
    most: Arc<[f64]>,
}

/// What the nodes take at some charges.
pub struct Taken {
    /// No solution costs less, in 2^CHARGE_SHIFT parts.
    pub value: i64,
    /// Of each task 1 without the number of nodes that take it; 0 of those that are fixed.
    pub slope: Vec<i32>,
    /// Node and task.
    pub pairs: Vec<(u32, u32)>,
}

/// A task, and for each place what is proved of it there.
pub type ByPlace = (u32, Vec<(u32, i64)>);

impl Knapsacks {
    /// None where the problem is no table, or one with nodes or numbers that are too large.
    pub fn of(problem: &Problem) -> Option<Self> {
        let Weights::OfPair(weights) = &problem.weights else { return None };
        let width = problem.columns.len();
        let is_alone = |(t, task): (usize, &Task)| task.kind as usize == t && task.gang == NONE && task.home == NONE;
        let alone = problem.tasks.iter().enumerate().all(is_alone);
        let is_plain = problem.classes.iter().all(|class| class.columns.len() == 1);
        let highest = problem.tasks.iter().map(|task| i128::from(task.unplaced_microcny)).sum::<i128>();
        let is_small = problem.nodes.iter().all(|node| (0..=CAPACITY_MAX).contains(&node.free[0]));
        if !alone || problem.tasks.len() != problem.kinds.len() || !is_plain || !is_small {
            return None;
        }
        if highest << CHARGE_SHIFT > SUM_MAX || problem.cost.iter().any(|&cost| cost < 0) {
            return None;
        }
        let pairs = |node: &crate::assignment::problem::Node| {
            let column = problem.classes[node.class as usize].columns.start as usize;
            let all = (0..problem.tasks.len()).map(|t| t * width + column);
            let open = all.enumerate().filter(|&(_, i)| problem.cost[i] != REFUSED && weights[i] <= node.free[0]);
            open.map(|(t, i)| Pair { task: t as u32, weight: weights[i] as u32, cost: problem.cost[i] << CHARGE_SHIFT })
                .collect()
        };
        let node =
            |node: usize| Node { capacity: problem.nodes[node].free[0] as usize, pairs: pairs(&problem.nodes[node]) };
        Some(Self {
            nodes: problem.classes.iter().flat_map(|class| range(&class.nodes)).map(node).collect(),
            tasks: (0..problem.tasks.len() as u32).collect(),
            fixed: 0,
            most: problem.tasks.iter().map(|t| (t.unplaced_microcny << CHARGE_SHIFT) as f64).collect(),
        })
    }

    pub fn most(&self) -> &[f64] {
        &self.most
    }

    /// Every pair, and every task left out.
    pub fn all_open(&self) -> Open {
        let mut open = Open::none(self.tasks.len(), self.nodes.len());
        for (n, node) in (0..).zip(&self.nodes) {
            node.pairs.iter().for_each(|pair| open.add(pair.task, n));
        }
        self.tasks.iter().for_each(|&task| open.add(task, open.nowhere()));
        open
    }

    /// With these pairs only. Tasks with one place are fixed there, and pairs without room are closed.
    /// None where there is no such solution.
    pub fn within(&self, open: &mut Open) -> Option<Self> {
        let mut left: Vec<usize> = self.nodes.iter().map(|node| node.capacity).collect();
        let (mut fixed, mut tasks) = (self.fixed, self.tasks.clone());
        loop {
            for (n, node) in (0..).zip(&self.nodes) {
                for pair in &node.pairs {
                    // What is fixed here has had its room.
                    if pair.weight as usize > left[n as usize] && open.count(pair.task) > 1 {
                        open.close(pair.task, n);
                    }
                }
            }
            let (single, several): (Vec<u32>, Vec<u32>) = tasks.iter().partition(|&&task| open.count(task) <= 1);
            if single.is_empty() {
                break;
            }
            for task in single {
                let n = open.places(task).next()?;
                if n == open.nowhere() {
                    fixed += self.most[task as usize] as i64;
                    continue;
                }
                let pairs = &self.nodes[n as usize].pairs;
                let pair = pairs[pairs.binary_search_by_key(&task, |pair| pair.task).ok()?];
                left[n as usize] = left[n as usize].checked_sub(pair.weight as usize)?;
                fixed += pair.cost;
            }
            tasks = several;
        }
        let mut is_free = vec![false; self.most.len()];
        tasks.iter().for_each(|&task| is_free[task as usize] = true);
        let pairs = |n: u32, node: &Node| {
            let open = node.pairs.iter().filter(|pair| is_free[pair.task as usize] && open.has(pair.task, n));
            open.copied().collect()
        };
        let nodes = (0..).zip(&self.nodes).map(|(n, node)| Node { capacity: left[n as usize], pairs: pairs(n, node) });
        Some(Self { nodes: nodes.collect(), tasks, fixed, most: self.most.clone() })
    }

    /// About what `take` takes, in cells of knapsacks.
    pub fn cells(&self) -> u64 {
        let of = |node: &Node| (node.capacity as u64 + CELLS_PER_PAIR) * node.pairs.len() as u64;
        self.nodes.iter().map(of).sum::<u64>().max(1)
    }

    /// Each node takes what pays best. None where `goes_on`, which is asked before every knapsack, says no.
    pub fn take(&self, charges: &[i64], threads: usize, goes_on: &(dyn Fn() -> bool + Sync)) -> Option<Taken> {
        let threads = threads.min(1 + (self.cells() / CELLS_PER_THREAD) as usize);
        let of_part = |part: usize| (0..).zip(&self.nodes).skip(part).step_by(threads);
        let filled = shared(threads, threads, |part| taken(of_part(part), charges, goes_on));
        let filled = filled.into_iter().collect::<Option<Vec<_>>>()?;
        let charged: i64 = self.tasks.iter().map(|&task| charges[task as usize]).sum();
        let gain: i64 = filled.iter().map(|(gain, _)| gain).sum();
        let mut slope = vec![0; charges.len()];
        self.tasks.iter().for_each(|&task| slope[task as usize] = 1);
        let pairs: Vec<(u32, u32)> = filled.into_iter().flat_map(|(_, pairs)| pairs).collect();
        pairs.iter().for_each(|&(_, task)| slope[task as usize] -= 1);
        Some(Taken { value: self.fixed + charged - gain, slope, pairs })
    }

    /// What charges that prove `value` prove of each task that is not fixed: place by place that is open to it, with that no solution
    /// costs less that has it there. None where `goes_on`, which is asked before every knapsack, says no.
    pub fn by_place(&self, charges: &[i64], value: i64, goes_on: &dyn Fn() -> bool) -> Option<Vec<ByPlace>> {
        let mut knapsack = Knapsack::default();
        // What it costs if the node takes the task, and if it does not.
        let mut losses: Vec<Vec<(u32, i64, i64)>> = vec![Vec::new(); charges.len()];
        for (n, node) in (0..).zip(&self.nodes) {
            if !goes_on() {
                return None;
            }
            let items: Vec<Item> = node.items(charges).collect();
            let both = knapsack.with_and_without(node.capacity, &items);
            for (item, [with, without]) in items.iter().zip(both) {
                let most = with.max(without);
                losses[item.task as usize].push((n, most - with, most - without));
            }
        }
        let nowhere = self.nodes.len() as u32;
        let of_task = |&task: &u32| {
            let losses = &losses[task as usize];
            let none = value + losses.iter().map(|loss| loss.2).sum::<i64>();
            let on_node = losses.iter().map(|&(n, with, without)| (n, none - without + with));
            let left_out = none + (self.most[task as usize] as i64 - charges[task as usize]);
            (task, on_node.chain([(nowhere, left_out)]).collect())
        };
        Some(self.tasks.iter().map(of_task).collect())
    }
}

/// What some nodes gain by taking what pays best, and what they take. None where it was ended early.
fn taken<'a>(
    nodes: impl Iterator<Item = (u32, &'a Node)>,
    charges: &[i64],
    goes_on: &dyn Fn() -> bool,
) -> Option<(i64, Vec<(u32, u32)>)> {
    let (mut gain, mut all) = (0, Vec::new());
    let (mut knapsack, mut paying, mut tasks) = (Knapsack::default(), Vec::new(), Vec::new());
    for (n, node) in nodes {
        if !goes_on() {
            return None;
        }
        paying.clear();
        paying.extend(node.items(charges).filter(|item| item.gain > 0));
        gain += knapsack.fill(node.capacity, &paying, &mut tasks);
        all.extend(tasks.iter().map(|&task| (n, task)));
    }
    Some((gain, all))
}
