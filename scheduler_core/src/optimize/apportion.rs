//! Which class of nodes each waiting task goes to, before anything is seated: tasks of all kinds take
//! turns, each goes where its cost and the prices are least, and a price rises where a class fills
//! faster than the tasks run out. So the classes fill together, each with a mixture of kinds, and what
//! many kinds want is not gone before the last of them choose.

use super::guide::Guide;
use crate::assignment::problem::{Amounts, DIMS, NONE};
use crate::assignment::solution::Solution;
use crate::bound::PRICE_SHIFT;

/// How much of a price the share of a class counts as by which it is ahead of the tasks, or behind.
const FEEDBACK: f64 = 1.0;
/// Tasks between two questions whether to go on.
const TASKS_PER_ASK: usize = 1024;
/// Fractional bits of the golden ratio's fraction, which spreads kinds evenly over a turn.
const GOLDEN: u32 = 0x9e37_79b9;

/// Tasks of one kind that go to one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    pub kind: u32,
    pub column: u32,
    pub tasks: Vec<u32>,
}

/// The shares of all tasks that are nowhere and stand alone, by class. Some tasks may get none: their best
/// columns are full.
pub fn apportion(solution: &Solution<'_>, guide: &Guide<'_>, proceed: &mut dyn FnMut() -> bool) -> Vec<Share> {
    let problem = solution.problem;
    let mut levels = Levels::of(solution, guide);
    let mut shares: Vec<Vec<Share>> = vec![Vec::new(); problem.classes.len()];
    let order = turns(solution);
    for (at, &task) in order.iter().enumerate() {
        if at % TASKS_PER_ASK == 0 && !proceed() {
            break;
        }
        let kind = problem.tasks[task as usize].kind;
        let Some(column) = levels.best(guide, kind, at as f64 / order.len() as f64) else { continue };
        let class = problem.columns[column as usize].class;
        levels.take(class, &problem.weight(kind, column));
        let of_class = &mut shares[class as usize];
        match of_class.iter_mut().find(|share| (share.kind, share.column) == (kind, column)) {
            Some(share) => share.tasks.push(task),
            None => of_class.push(Share { kind, column, tasks: vec![task] }),
        }
    }
    shares.into_iter().flatten().collect()
}

/// The tasks in such an order that at any time about the same part of each kind is through.
fn turns(solution: &Solution<'_>) -> Vec<u32> {
    let problem = solution.problem;
    let mut alone: Vec<u32> =
        solution.nowhere().iter().copied().filter(|&t| problem.tasks[t as usize].gang == NONE).collect();
    alone.sort_unstable_by_key(|&t| (problem.tasks[t as usize].kind, t));
    let mut order: Vec<(u64, u32)> = Vec::with_capacity(alone.len());
    for of_kind in alone.chunk_by(|&a, &b| problem.tasks[a as usize].kind == problem.tasks[b as usize].kind) {
        let kind = problem.tasks[of_kind[0] as usize].kind;
        let offset = u64::from(kind.wrapping_mul(GOLDEN));
        let turn = |i: u64| (i << 32 | offset) / of_kind.len() as u64;
        order.extend((0..).zip(of_kind).map(|(i, &task)| (turn(i), task)));
    }
    order.sort_unstable();
    order.into_iter().map(|(_, task)| task).collect()
}

/// How full the classes are.
struct Levels {
    dims: usize,
    /// Per class, in micro-CNY per hour.
    price: Vec<[f64; DIMS]>,
    /// What is free at the start, and what of it is left.
    free: Vec<Amounts>,
    left: Vec<Amounts>,
}

impl Levels {
    fn of(solution: &Solution<'_>, guide: &Guide<'_>) -> Self {
        let problem = solution.problem;
        let free = |nodes: std::ops::Range<u32>| {
            let usable = nodes.map(|node| solution.free(node)).filter(|free| free.iter().all(|&x| x >= 0));
            usable.fold(Amounts::default(), |sum, free| std::array::from_fn(|d| sum[d] + free[d]))
        };
        let price = |class: u32| guide.price(class).map(|price| price as f64 / f64::from(1 << PRICE_SHIFT));
        let free: Vec<Amounts> = problem.classes.iter().map(|class| free(class.nodes.clone())).collect();
        let price = (0..problem.classes.len() as u32).map(price).collect();
        Self { dims: problem.dims(), price, left: free.clone(), free }
    }

    /// Where a task of the kind costs least when this part of all tasks is through.
    fn best(&self, guide: &Guide<'_>, kind: u32, through: f64) -> Option<u32> {
        let problem = guide.problem;
        let mut best: Option<(f64, u32)> = None;
        for &(_, column) in guide.wide(kind) {
            let class = problem.columns[column as usize].class as usize;
            let weight = problem.weight(kind, column);
            let mut cost = problem.cost(kind, column) as f64;
            let (price, free, left) = (&self.price[class], &self.free[class], &self.left[class]);
            let mut has_room = true;
            for d in (0..self.dims).filter(|&d| weight[d] > 0) {
                has_room &= weight[d] <= left[d];
                let ahead = 1.0 - left[d] as f64 / free[d].max(1) as f64 - through;
                cost += weight[d] as f64 * price[d] * (1.0 + FEEDBACK * ahead);
            }
            if has_room && best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, column));
            }
        }
        best.map(|(_, column)| column)
    }

    fn take(&mut self, class: u32, weight: &Amounts) {
        let left = &mut self.left[class as usize];
        left.iter_mut().zip(weight).for_each(|(left, weight)| *left -= weight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assignment::problem::{Class, Column, Kind, Node, Problem, Task};
    use crate::bound::Prices;

    #[test]
    fn classes_that_cost_the_same_fill_together() {
        let amounts = |cores: i64| std::array::from_fn(|d| if d == 0 { cores } else { 0 });
        let task = |kind| Task { kind, unplaced_microcny: 1000, ..Task::default() };
        let problem = Problem {
            kinds: [1, 2].map(|cores| Kind { amounts: amounts(cores), device_milli: 0 }).to_vec(),
            columns: (0..2).map(|class| Column { class, model: NONE, device_dim: NONE }).collect(),
            classes: (0..2).map(|i| Class { site: i, columns: i..i + 1, nodes: i..i + 1 }).collect(),
            nodes: [12, 24]
                .iter()
                .zip(0..)
                .map(|(&n, class)| Node { class, free: amounts(n), devices: 0..0 })
                .collect(),
            tasks: (0..12).map(|t| task(t % 2)).collect(),
            cost: vec![10, 10, 20, 20],
            ..Problem::default()
        };
        let prices = Prices { of_class: vec![amounts(5 << PRICE_SHIFT); 2] };
        let guide = Guide::new(&problem, &prices, 1);
        let shares = apportion(&Solution::new(&problem), &guide, &mut || true);
        let cores = |column: u32| -> usize {
            let of_column = shares.iter().filter(|share| share.column == column);
            of_column.map(|share| (share.kind as usize + 1) * share.tasks.len()).sum()
        };
        assert!((5..=7).contains(&cores(0)) && cores(0) + cores(1) == 18, "{shares:?}");
    }
}
