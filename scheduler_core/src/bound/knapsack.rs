//! A bound that sees that tasks are whole, for tables: here tasks are charged for instead of capacities
//! (Fisher, Jaikumar and Van Wassenhove, "A multiplier adjustment method for the generalized assignment
//! problem", Management Science 32, 1986). Each node then takes what pays best, a knapsack by itself,
//! which is solved exactly; whatever the charges are, no solution costs less than their sum without what
//! the nodes gain. The charges climb by deflected subgradient steps towards a cost that is known.

use super::{Prices, PRICE_SHIFT};
use crate::assignment::knapsack::{Item, Knapsack};
use crate::assignment::problem::{range, Problem, Weights, REFUSED};
use crate::threads::shared;

/// Fractional bits of a charge.
pub const CHARGE_SHIFT: u32 = 8;
/// Where sums of charges cannot overflow.
const SUM_MAX: i128 = 1 << 60;
/// Larger nodes would take too long.
const CAPACITY_MAX: i64 = 1 << 16;
/// Steps without gain after which they become half as long, and how short they may become.
const PATIENCE: u32 = 20;
const SHORTEST: f64 = 1.0 / 256.0;
/// How much of the last direction is kept.
const INERTIA: f64 = 0.5;
/// Nothing is aimed at that is farther above what is proved.
const AIM_MAX: f64 = 0.02;
/// Fewer cells of all knapsacks are not worth a thread.
const CELLS_PER_THREAD: u64 = 1 << 18;

/// A task that may stand on a node; the cost is in 2^CHARGE_SHIFT parts.
#[derive(Clone, Copy)]
struct Pair {
    task: u32,
    weight: u32,
    cost: i64,
}

struct Node {
    capacity: usize,
    pairs: Vec<Pair>,
}

/// The charges, as far as they have come.
pub struct Knapsacks {
    nodes: Vec<Node>,
    /// Of each task: what it may be charged at most, which is what leaving it out counts as.
    most: Vec<f64>,
    charges: Vec<f64>,
    best_charges: Vec<f64>,
    /// In 2^CHARGE_SHIFT parts.
    best: i64,
    direction: Vec<f64>,
    length: f64,
    steps_without_gain: u32,
    /// Cells that have been granted and not been looked at yet.
    cells: u64,
    is_done: bool,
}

impl Knapsacks {
    /// None where the problem is no table, or one with nodes or numbers that are too large. The charges
    /// start where these prices of capacities would have them.
    pub fn of(problem: &Problem, prices: &Prices) -> Option<Self> {
        let Weights::OfPair(weights) = &problem.weights else { return None };
        let width = problem.columns.len();
        let alone = problem.tasks.iter().enumerate().all(|(t, task)| task.kind as usize == t);
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
        let nodes: Vec<Node> = problem.classes.iter().flat_map(|class| range(&class.nodes)).map(node).collect();
        let most: Vec<f64> = problem.tasks.iter().map(|t| (t.unplaced_microcny << CHARGE_SHIFT) as f64).collect();
        let least = |t: usize| {
            let adjusted = (0..width).filter(|c| problem.cost[t * width + c] != REFUSED).map(|c| {
                let price = prices.of_class[problem.columns[c].class as usize][0] as f64 / f64::from(1 << PRICE_SHIFT);
                (problem.cost[t * width + c] as f64 + price * weights[t * width + c] as f64)
                    * f64::from(1 << CHARGE_SHIFT)
            });
            adjusted.fold(most[t], f64::min)
        };
        let charges: Vec<f64> = (0..problem.tasks.len()).map(least).collect();
        Some(Self {
            best_charges: charges.clone(),
            best: i64::MIN,
            direction: vec![0.0; charges.len()],
            length: 1.0,
            steps_without_gain: 0,
            cells: 0,
            is_done: false,
            nodes,
            most,
            charges,
        })
    }

    /// What each task is charged at best, in 2^CHARGE_SHIFT parts.
    pub fn best_charges(&self) -> &[f64] {
        &self.best_charges
    }

    /// No solution costs less.
    pub fn bound_microcny(&self) -> i128 {
        // Costs are whole, so a part counts as one.
        -((-i128::from(self.best)) >> CHARGE_SHIFT)
    }

    /// Goes on for about so many cells of knapsacks, while `goes_on` says yes, which is asked before every
    /// knapsack. Some solution costs `known_microcny`. False when there is nothing more to gain.
    pub fn climb(
        &mut self,
        known_microcny: i128,
        cells: u64,
        threads: usize,
        goes_on: &(dyn Fn() -> bool + Sync),
    ) -> bool {
        let each =
            self.nodes.iter().map(|node| (node.capacity as u64 + 1) * node.pairs.len() as u64).sum::<u64>().max(1);
        let threads = threads.min(1 + (each / CELLS_PER_THREAD) as usize);
        self.cells += cells;
        while self.cells >= each && !self.is_done && self.step(known_microcny, threads, goes_on) {
            self.cells -= each;
        }
        !self.is_done
    }

    /// False, and nothing done, where it was ended early.
    fn step(&mut self, known_microcny: i128, threads: usize, goes_on: &(dyn Fn() -> bool + Sync)) -> bool {
        let charges: Vec<i64> = self.charges.iter().map(|charge| charge.round() as i64).collect();
        let of_part = |part: usize| self.nodes.iter().skip(part).step_by(threads);
        let filled = shared(threads, threads, |part| taken(of_part(part), &charges, goes_on));
        let Some(filled) = filled.into_iter().collect::<Option<Vec<_>>>() else { return false };
        let value = charges.iter().sum::<i64>() - filled.iter().map(|(gain, _)| gain).sum::<i64>();
        let mut slope = vec![1.0; charges.len()];
        filled.iter().flat_map(|(_, tasks)| tasks).for_each(|&task| slope[task as usize] -= 1.0);
        self.steps_without_gain += 1;
        if value > self.best {
            self.best = value;
            self.best_charges.clone_from(&self.charges);
            self.steps_without_gain = 0;
        } else if self.steps_without_gain >= PATIENCE {
            self.steps_without_gain = 0;
            self.length /= 2.0;
            self.charges.clone_from(&self.best_charges);
            self.direction.fill(0.0);
            self.is_done = self.length < SHORTEST;
            return true;
        }
        let known = (known_microcny << CHARGE_SHIFT) as f64;
        let aim = known.min(self.best as f64 * (1.0 + AIM_MAX) + 1.0);
        let mut square = 0.0;
        for (direction, slope) in self.direction.iter_mut().zip(&slope) {
            *direction = slope + INERTIA * *direction;
            square += *direction * *direction;
        }
        // Without a slope all tasks are where they pay: it is the optimum.
        self.is_done = slope.iter().all(|&s| s == 0.0) || self.bound_microcny() >= known_microcny;
        let step = self.length * (aim - value as f64).max(1.0) / f64::max(square, 1e-9);
        for (charge, (direction, most)) in self.charges.iter_mut().zip(self.direction.iter().zip(&self.most)) {
            *charge = (*charge + step * direction).clamp(0.0, *most);
        }
        true
    }
}

/// What some nodes gain by taking what pays best, and the tasks that they take. None where it was ended early.
fn taken<'a>(
    nodes: impl Iterator<Item = &'a Node>,
    charges: &[i64],
    goes_on: &dyn Fn() -> bool,
) -> Option<(i64, Vec<u32>)> {
    let (mut gain, mut all) = (0, Vec::new());
    let (mut knapsack, mut paying, mut tasks) = (Knapsack::default(), Vec::new(), Vec::new());
    for node in nodes {
        if !goes_on() {
            return None;
        }
        let items = node.pairs.iter().map(|pair| Item {
            task: pair.task,
            weight: pair.weight as usize,
            gain: charges[pair.task as usize] - pair.cost,
        });
        paying.clear();
        paying.extend(items.filter(|item| item.gain > 0));
        gain += knapsack.fill(node.capacity, &paying, &mut tasks);
        all.extend_from_slice(&tasks);
    }
    Some((gain, all))
}
