//! Which class of nodes each waiting task goes to, before anything is seated: tasks of all kinds take
//! turns, each goes where its cost and the prices are least, and a price rises where a class fills
//! faster than the tasks run out. So the classes fill together, each with a mixture of kinds, and what
//! many kinds want is not gone before the last of them choose.

use super::guide::Guide;
use crate::assignment::problem::{range, Amounts, Problem, Weights, DIMS, NONE};
use crate::assignment::solution::Solution;
use crate::bound::PRICE_SHIFT;

/// How much of a price the share of a class counts as by which it is ahead of the tasks, or behind.
const FEEDBACK: f64 = 1.0;
/// Turns that are taken at most, about. Of more tasks several take one turn.
const TURNS_MAX: usize = 1 << 17;
/// Turns between two questions whether to go on.
const TURNS_PER_ASK: usize = 1024;
/// Fractional bits of the golden ratio's fraction, which spreads kinds evenly over a turn.
const GOLDEN: u32 = 0x9e37_79b9;
/// Resources that a column is charged for: cores, memory and its accelerators.
const TERMS: usize = 3;

/// Tasks of one kind that go to one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    pub kind: u32,
    pub column: u32,
    pub tasks: Vec<u32>,
}

/// The shares of all tasks that are nowhere and stand alone, by class. Some tasks may get none: what is open to
/// them is full, or far dearer than what they had better wait for.
pub fn apportion(solution: &Solution<'_>, guide: &Guide<'_>, proceed: &mut dyn FnMut() -> bool) -> Vec<Share> {
    let problem = solution.problem;
    let mut levels = Levels::of(solution, guide);
    let mut shares: Vec<Vec<Share>> = vec![Vec::new(); problem.classes.len()];
    let mut waiting: Vec<u32> =
        solution.nowhere().iter().copied().filter(|&t| problem.tasks[t as usize].gang == NONE).collect();
    let turns = turns(problem, &mut waiting);
    for (at, &turn) in turns.iter().enumerate() {
        if at % TURNS_PER_ASK == 0 && !proceed() {
            break;
        }
        let kind = problem.tasks[turn[0] as usize].kind;
        let mut left = turn;
        while let Some(column) = (!left.is_empty()).then(|| levels.best(kind, at as f64 / turns.len() as f64)).flatten()
        {
            let (tasks, others) = left.split_at(levels.take(kind, column, left.len()));
            let of_class = &mut shares[problem.columns[column as usize].class as usize];
            match of_class.iter_mut().find(|share| (share.kind, share.column) == (kind, column)) {
                Some(share) => share.tasks.extend_from_slice(tasks),
                None => of_class.push(Share { kind, column, tasks: tasks.to_vec() }),
            }
            left = others;
        }
    }
    shares.into_iter().flatten().collect()
}

/// The tasks in such an order that at any time about the same part of each kind is through; a few of one kind
/// together where there are many.
fn turns<'a>(problem: &Problem, waiting: &'a mut [u32]) -> Vec<&'a [u32]> {
    waiting.sort_unstable_by_key(|&t| (problem.tasks[t as usize].kind, t));
    let together = waiting.len().div_ceil(TURNS_MAX).max(1);
    let mut order: Vec<(u64, &[u32])> = Vec::with_capacity(waiting.len() / together + problem.kinds.len());
    let kind_of = |task: &u32| problem.tasks[*task as usize].kind;
    for of_kind in waiting.chunk_by(|a, b| kind_of(a) == kind_of(b)) {
        let offset = u64::from(kind_of(&of_kind[0]).wrapping_mul(GOLDEN));
        let count = of_kind.len().div_ceil(together) as u64;
        order.extend((0..).zip(of_kind.chunks(together)).map(|(i, tasks)| ((i << 32 | offset) / count, tasks)));
    }
    order.sort_unstable();
    order.into_iter().map(|(_, tasks)| tasks).collect()
}

/// How full the classes are.
struct Levels<'p> {
    problem: &'p Problem,
    /// Of each class what is free at the start, and what of it is left.
    free: Vec<Amounts>,
    left: Vec<Amounts>,
    columns: Vec<Level>,
    /// Of each kind the columns that it may go to.
    wide: Vec<Vec<u32>>,
}

/// The same of what one column is charged for.
#[derive(Clone, Copy, Default)]
struct Level {
    left: [i64; TERMS],
    /// In micro-CNY per hour.
    price: [f64; TERMS],
    /// The price as it is where all tasks are still to come: it grows as the class fills.
    risen: [f64; TERMS],
}

impl<'p> Levels<'p> {
    fn of(solution: &Solution<'p>, guide: &Guide<'_>) -> Self {
        let problem = solution.problem;
        let free = |nodes: std::ops::Range<u32>| {
            let usable = nodes.map(|node| solution.free(node)).filter(|free| free.iter().all(|&x| x >= 0));
            usable.fold(Amounts::default(), |sum, free| std::array::from_fn(|d| sum[d] + free[d]))
        };
        let free: Vec<Amounts> = problem.classes.iter().map(|class| free(class.nodes.clone())).collect();
        let wide = (0..problem.kinds.len() as u32).map(|kind| guide.wide(kind)).collect();
        let mut levels = Self { problem, left: free.clone(), free, columns: Vec::new(), wide };
        levels.columns = (0..problem.columns.len())
            .map(|column| {
                let of_class = guide.price(problem.columns[column].class);
                let price = |d: usize| of_class.get(d).map_or(0.0, |&p| p as f64 / f64::from(1 << PRICE_SHIFT));
                Level { price: levels.dims(column).map(price), ..Level::default() }
            })
            .collect();
        (0..problem.classes.len()).for_each(|class| levels.rise(class));
        levels
    }

    /// The resources that a column is charged for; beyond `DIMS` where there is none.
    fn dims(&self, column: usize) -> [usize; TERMS] {
        [0, 1, self.problem.columns[column].device_dim as usize]
    }

    /// Where a task of the kind costs least when this part of all tasks is through.
    fn best(&self, kind: u32, through: f64) -> Option<u32> {
        let facts = &self.problem.kinds[kind as usize];
        let of_kind = [facts.amounts[0], facts.amounts[1], facts.device_milli];
        let costs = self.problem.costs(kind);
        let mut best: Option<(f64, u32)> = None;
        for &column in &self.wide[kind as usize] {
            let level = &self.columns[column as usize];
            let weight = match self.problem.weights {
                Weights::OfKind => of_kind,
                Weights::OfPair(_) => [self.problem.weight(kind, column)[0], 0, 0],
            };
            if (0..TERMS).any(|t| weight[t] > level.left[t]) {
                continue;
            }
            let charge = |t: usize| weight[t] as f64 * (level.risen[t] - FEEDBACK * through * level.price[t]);
            let cost = costs[column as usize] as f64 + charge(0) + charge(1) + charge(2);
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, column));
            }
        }
        best.map(|(_, column)| column)
    }

    /// Takes as many tasks of the kind as there is room for, but one at the least, and up to so many.
    fn take(&mut self, kind: u32, column: u32, wanted: usize) -> usize {
        let class = self.problem.columns[column as usize].class as usize;
        let weight = self.problem.weight(kind, column);
        let left = &mut self.left[class];
        let room = left.iter().zip(&weight).filter_map(|(left, weight)| left.checked_div(*weight)).min();
        let count = room.map_or(wanted, |room| wanted.min(room.max(1) as usize));
        (0..DIMS).for_each(|d| left[d] -= weight[d] * count as i64);
        self.rise(class);
        count
    }

    /// Tells the columns of a class how full it is.
    fn rise(&mut self, class: usize) {
        for column in range(&self.problem.classes[class].columns) {
            let dims = self.dims(column);
            let (free, left) = (&self.free[class], &self.left[class]);
            let level = &mut self.columns[column];
            for (t, d) in dims.into_iter().enumerate() {
                let Some((&left, &free)) = left.get(d).zip(free.get(d)) else {
                    level.left[t] = i64::MAX; // not counted
                    continue;
                };
                level.left[t] = left;
                level.risen[t] = level.price[t] * (1.0 + FEEDBACK * (1.0 - left as f64 / free.max(1) as f64));
            }
        }
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
