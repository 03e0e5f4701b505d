//! A dive: all tasks of a few nodes are lifted and charged for, each node takes what pays best, a
//! knapsack by itself, and a charge rises while nobody takes the task and falls while several do
//! (see `bound::Proof`). What the nodes take most of the time is fixed, the charges of the rest are
//! found anew, and so on until all tasks have a node. What the charges prove ends a dive that cannot
//! gain; most end so, at once. It finds what lies too far away for `repack`, where nodes hold few tasks.
//! Fixing by the time that something is taken: Barahona and Anbil, "The volume algorithm", Mathematical
//! Programming 87, 2000.

use super::Step;
use crate::assignment::knapsack::{Item, Knapsack};
use crate::assignment::problem::{Problem, NONE, REFUSED};
use crate::assignment::solution::Solution;
use crate::bound::{Proof, CHARGE_SHIFT};
use crate::seed::Draws;

/// Cells of all knapsacks that one step of the charges may look at, about, and one dive.
const CELLS_PER_STEP: usize = 1 << 21;
const CELLS_MAX: u64 = 1 << 31;
/// Looking at a pair takes as long as about so many cells.
const CELLS_PER_PAIR: usize = 16;
/// Tasks of a node on each side of what it can hold about which there is doubt.
const DOUBTFUL: usize = 48;
/// Where nodes hold more tasks, `repack` finds as much in less time.
const TASKS_PER_NODE_MAX: usize = 128;
/// Fewer tasks are all within the reach of `repack`, which may seat two that wait for one that leaves.
const TASKS_MIN: usize = 20;
/// Steps of the charges before the first tasks are fixed, and before each further turn.
const FIRST_STEPS: usize = 45;
const STEPS: usize = 15;
/// Steps without gain after which they become shorter, and by how much.
const PATIENCE: usize = 10;
const SHORTER: f64 = 0.6;
/// How much of the last direction is kept.
const INERTIA: f64 = 0.5;
/// Nothing is aimed at that is farther above what is proved.
const AIM_MAX: f64 = 0.02;
/// How much of what was taken before counts beside what is taken now.
const MEMORY: f64 = 0.9;
/// A pair that is taken so much of the time is fixed; of the others one in some tasks each turn, but none below half.
const ALWAYS: f64 = 0.97;
const TASKS_PER_FIXED: [usize; 4] = [3, 4, 6, 9];
const HALF: f64 = 0.5;
/// By how much of their mean the charges are disturbed at first.
const NOISE: [f64; 3] = [0.01, 0.02, 0.06];

/// Whether there are so many tasks, and so few on a node, that dives find more than other steps do.
pub fn may_help(problem: &Problem) -> bool {
    (TASKS_MIN..=TASKS_PER_NODE_MAX * problem.nodes.len()).contains(&problem.tasks.len())
}

/// Looks for a better seat for all tasks of some nodes, and says how many cells of knapsacks it took.
/// `goes_on` is asked before every step of the charges, and may end it without an answer.
pub fn propose(solution: &Solution<'_>, proof: &Proof, seed: u64, goes_on: &dyn Fn() -> bool) -> (Option<Step>, u64) {
    let mut draws = Draws::new(seed);
    let nodes = pick_nodes(solution, &mut draws);
    let mut tasks: Vec<u32> = nodes.iter().flat_map(|&node| solution.tasks_on(node)).copied().collect();
    let waiting = solution.nowhere();
    let alone = |task: &u32| solution.problem.tasks[*task as usize].gang == NONE;
    tasks.extend((!waiting.is_empty()).then(|| waiting[draws.below(waiting.len())]).filter(alone));
    tasks.sort_unstable();
    let mut dive = Dive::new(solution, proof, &nodes, &tasks, &mut draws);
    let step = dive.seats(&mut draws, goes_on).map(|seats| {
        let delta =
            |&(task, node, column): &(u32, u32, u32)| solution.cost_at(task, node, column) - solution.cost_now(task);
        Step { delta_microcny: seats.iter().map(delta).sum(), seats, nodes }
    });
    (step, dive.cells())
}

/// Any number of nodes, as far as their knapsacks are not too many cells.
fn pick_nodes(solution: &Solution<'_>, draws: &mut Draws) -> Vec<u32> {
    let count = solution.problem.nodes.len();
    let wanted = 2 + draws.below(count.saturating_sub(1).max(1));
    let (mut nodes, mut tasks, mut capacity) = (Vec::new(), 0, 0);
    let mut order: Vec<u32> = (0..count as u32).collect();
    for i in 0..wanted.min(count) {
        order.swap(i, i + draws.below(count - i));
        let node = order[i];
        tasks += solution.tasks_on(node).len();
        capacity += capacity_of(solution, node) as usize;
        // About half of the pairs do not pay.
        let paying = (tasks / 2).max(1);
        let doubtful = paying.min(2 * DOUBTFUL);
        let cells = doubtful * capacity * doubtful / paying + CELLS_PER_PAIR * tasks * (nodes.len() + 1);
        if nodes.len() > 1 && cells > CELLS_PER_STEP {
            break;
        }
        nodes.push(node);
    }
    nodes
}

/// What is free of a node once its tasks are lifted.
fn capacity_of(solution: &Solution<'_>, node: u32) -> i64 {
    let problem = solution.problem;
    let taken = |&task: &u32| problem.weight(problem.tasks[task as usize].kind, solution.seat(task).column)[0];
    solution.free(node)[0] + solution.tasks_on(node).iter().map(taken).sum::<i64>()
}

struct Node {
    id: u32,
    column: u32,
    left: i64,
}

struct Task {
    id: u32,
    charge: f64,
    direction: f64,
    /// How many nodes have taken it in the last step.
    takers: u32,
    /// The node that it is fixed to.
    node: Option<usize>,
}

/// A task on a node.
struct Pair {
    weight: i64,
    /// In parts, `REFUSED` where it may not stand.
    cost: i64,
    /// For which part of the time it was taken, the last steps counting most.
    taken: f64,
}

struct Dive {
    nodes: Vec<Node>,
    tasks: Vec<Task>,
    /// Task x nodes + node.
    pairs: Vec<Pair>,
    /// In parts: what the fixed tasks cost, and what all must stay below.
    fixed: i64,
    limit: i64,
    pairs_seen: u64,
    tasks_per_fixed: usize,
    knapsack: Knapsack,
    /// Task and node of what was taken in the last step.
    last: Vec<(usize, usize)>,
}

/// What some steps of the charges have come to.
enum Outcome {
    /// Every task that is left is taken once: each pair that was taken last is where it belongs.
    Solved,
    Hopeless,
    Open,
}

impl Dive {
    fn new(solution: &Solution<'_>, proof: &Proof, nodes: &[u32], tasks: &[u32], draws: &mut Draws) -> Self {
        let problem = solution.problem;
        let column = |node: u32| problem.classes[problem.nodes[node as usize].class as usize].columns.start;
        let node = |&id: &u32| Node { id, column: column(id), left: capacity_of(solution, id) };
        let nodes: Vec<Node> = nodes.iter().map(node).collect();
        let charges = proof.best_charges();
        let mean = charges.iter().sum::<f64>() / charges.len().max(1) as f64;
        // No two dives are to be the same.
        let noise = NOISE[draws.below(NOISE.len())] * mean / 1024.0;
        let task = |&id: &u32| Task {
            id,
            charge: (charges[id as usize] + noise * (draws.below(1025) as f64 - 512.0)).max(0.0),
            direction: 0.0,
            takers: 0,
            node: None,
        };
        let pair = |task: u32, node: &Node| {
            let cost = solution.cost_at(task, node.id, node.column);
            Pair {
                weight: problem.weight(problem.tasks[task as usize].kind, node.column)[0],
                cost: if cost == REFUSED { REFUSED } else { cost << CHARGE_SHIFT },
                taken: 0.0,
            }
        };
        Self {
            pairs: tasks.iter().flat_map(|&task| nodes.iter().map(move |node| pair(task, node))).collect(),
            limit: tasks.iter().map(|&task| solution.cost_now(task)).sum::<i64>() << CHARGE_SHIFT,
            tasks: tasks.iter().map(task).collect(),
            nodes,
            fixed: 0,
            pairs_seen: 0,
            tasks_per_fixed: TASKS_PER_FIXED[draws.below(TASKS_PER_FIXED.len())],
            knapsack: Knapsack::default(),
            last: Vec::new(),
        }
    }

    /// Other seats of all tasks, at less cost than now.
    fn seats(&mut self, draws: &mut Draws, goes_on: &dyn Fn() -> bool) -> Option<Vec<(u32, u32, u32)>> {
        let mut steps = FIRST_STEPS;
        while self.tasks.iter().any(|task| task.node.is_none()) {
            match self.climb(steps, goes_on) {
                Outcome::Hopeless => return None,
                Outcome::Solved => {}
                Outcome::Open if self.fix(draws) => {}
                Outcome::Open => return None,
            }
            steps = STEPS;
        }
        let seat = |task: &Task| task.node.map(|n| (task.id, self.nodes[n].id, self.nodes[n].column));
        (self.fixed < self.limit).then(|| self.tasks.iter().filter_map(seat).collect())
    }

    /// Steps of the charges of the tasks that are not fixed yet, up to so many.
    fn climb(&mut self, steps: usize, goes_on: &dyn Fn() -> bool) -> Outcome {
        let mut best = i64::MIN;
        let mut best_charges: Vec<f64> = self.tasks.iter().map(|task| task.charge).collect();
        let (mut length, mut without_gain) = (1.0, 0);
        self.pairs.iter_mut().for_each(|pair| pair.taken = 0.0);
        self.tasks.iter_mut().for_each(|task| task.direction = 0.0);
        // The least that a better solution could cost less.
        let hopeless = self.limit - (1 << CHARGE_SHIFT);
        for _ in 0..steps {
            if !goes_on() {
                return Outcome::Hopeless;
            }
            let value = self.fixed + self.take();
            without_gain += 1;
            if value > best {
                (best, without_gain) = (value, 0);
                best_charges.iter_mut().zip(&self.tasks).for_each(|(best, task)| *best = task.charge);
            }
            if best > hopeless || self.cells() > CELLS_MAX {
                return Outcome::Hopeless;
            }
            let open = self.tasks.iter_mut().filter(|task| task.node.is_none());
            if without_gain >= PATIENCE {
                (length, without_gain) = (length * SHORTER, 0);
                self.charge(&best_charges);
                continue;
            }
            let (mut square, mut is_solved) = (0.0, true);
            for task in open {
                let slope = 1.0 - f64::from(task.takers);
                is_solved &= task.takers == 1;
                task.direction = slope + INERTIA * task.direction;
                square += task.direction * task.direction;
            }
            if is_solved {
                std::mem::take(&mut self.last).into_iter().for_each(|(t, n)| {
                    self.fix_pair(t, n);
                });
                return Outcome::Solved;
            }
            let aim = (self.limit as f64).min(best as f64 * (1.0 + AIM_MAX) + 1.0);
            let step = length * (aim - value as f64).max(f64::from(1 << CHARGE_SHIFT)) / f64::max(square, 1e-9);
            for task in self.tasks.iter_mut().filter(|task| task.node.is_none()) {
                task.charge = (task.charge + step * task.direction).max(0.0);
            }
        }
        self.charge(&best_charges);
        Outcome::Open
    }

    fn charge(&mut self, charges: &[f64]) {
        for (task, &charge) in self.tasks.iter_mut().zip(charges) {
            (task.charge, task.direction) = (charge, 0.0);
        }
    }

    /// Each node takes what pays best of the tasks that are not fixed. What that proves of their cost.
    fn take(&mut self) -> i64 {
        let width = self.nodes.len();
        let charges: Vec<i64> = self.tasks.iter().map(|task| task.charge.round() as i64).collect();
        let open: Vec<u32> = (0..self.tasks.len() as u32).filter(|&t| self.tasks[t as usize].node.is_none()).collect();
        let mut value: i64 = open.iter().map(|&t| charges[t as usize]).sum();
        open.iter().for_each(|&t| self.tasks[t as usize].takers = 0);
        self.pairs.iter_mut().for_each(|pair| pair.taken *= MEMORY);
        let (mut items, mut taken) = (Vec::with_capacity(open.len()), Vec::new());
        self.last.clear();
        self.pairs_seen += (open.len() * width) as u64;
        for (n, node) in self.nodes.iter().enumerate() {
            items.clear();
            for &t in &open {
                let pair = &self.pairs[t as usize * width + n];
                let gain = charges[t as usize].saturating_sub(pair.cost);
                if gain > 0 && pair.weight <= node.left {
                    items.push(Item { task: t, weight: pair.weight as usize, gain });
                }
            }
            value -= self.knapsack.fill_nearly(node.left as usize, &mut items, DOUBTFUL, &mut taken);
            for &t in &taken {
                self.tasks[t as usize].takers += 1;
                self.pairs[t as usize * width + n].taken += 1.0 - MEMORY;
                self.last.push((t as usize, n));
            }
        }
        value
    }

    /// What it has taken so far, in cells of knapsacks.
    fn cells(&self) -> u64 {
        self.knapsack.cells + CELLS_PER_PAIR as u64 * self.pairs_seen
    }

    /// Fixes tasks where they are taken most of the time; false when there is none.
    fn fix(&mut self, draws: &mut Draws) -> bool {
        let width = self.nodes.len();
        let mut open = 0;
        let mut often = Vec::new();
        for t in (0..self.tasks.len()).filter(|&t| self.tasks[t].node.is_none()) {
            open += 1;
            for n in 0..width {
                let taken = self.pairs[t * width + n].taken;
                if taken > HALF / 10.0 {
                    let by_chance = 1.0 + (draws.below(1025) as f64 - 512.0) / 10_240.0;
                    often.push((taken * by_chance, t, n));
                }
            }
        }
        often.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        let (mut fixed, most) = (0, open / self.tasks_per_fixed + 1);
        for (taken, t, n) in often {
            if (fixed >= most && taken < ALWAYS) || (fixed > 0 && taken < HALF) {
                break;
            }
            fixed += usize::from(self.fix_pair(t, n));
        }
        fixed > 0
    }

    fn fix_pair(&mut self, t: usize, n: usize) -> bool {
        let pair = &self.pairs[t * self.nodes.len() + n];
        let fits = self.tasks[t].node.is_none() && pair.weight <= self.nodes[n].left;
        if fits {
            self.tasks[t].node = Some(n);
            self.nodes[n].left -= pair.weight;
            self.fixed += pair.cost;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::assignment::problem::{
        Class, Column, Kind, Node as ProblemNode, Problem, Task as ProblemTask, Weights, DIMS,
    };
    use crate::bound::Prices;

    /// A table of 3 nodes, with what each task costs and takes on each.
    fn table(pairs: &[[(i64, i64); 3]], capacity: i64) -> Problem {
        let column = |class| Column { class, model: NONE, device_dim: NONE };
        let free = std::array::from_fn(|d| if d == 0 { capacity } else { 0 });
        let task = |kind| ProblemTask { kind, unplaced_microcny: 10_000, ..ProblemTask::default() };
        Problem {
            kinds: vec![Kind::default(); pairs.len()],
            columns: (0..3).map(column).collect(),
            classes: (0..3).map(|i| Class { site: i, columns: i..i + 1, nodes: i..i + 1 }).collect(),
            nodes: (0..3).map(|class| ProblemNode { class, free, devices: 0..0 }).collect(),
            tasks: (0..pairs.len() as u32).map(task).collect(),
            cost: pairs.iter().flatten().map(|pair| pair.0).collect(),
            weights: Weights::OfPair(pairs.iter().flatten().map(|pair| pair.1).collect()),
            ..Problem::default()
        }
    }

    fn proof(problem: &Problem) -> Proof {
        let prices = Prices { of_class: vec![[0; DIMS]; 3] };
        let mut proof = Proof::of(problem, &prices).unwrap();
        proof.climb(1 << 30, 1 << 20, 1, &|| true);
        proof
    }

    proptest! {
        #[test]
        fn what_a_dive_finds_fits_and_costs_less_by_as_much_as_it_says(
            pairs in prop::collection::vec(prop::array::uniform3((1_i64..60, 1_i64..12)), 2..9),
            capacity in 12_i64..40,
            seed in any::<u64>(),
        ) {
            let problem = table(&pairs, capacity);
            let mut solution = Solution::new(&problem);
            for task in 0..pairs.len() as u32 {
                let _ = (0..3).any(|node| solution.put(task, node, node));
            }
            let proof = proof(&problem);
            for look in 0..8 {
                let Some(step) = propose(&solution, &proof, seed.wrapping_add(look), &|| true).0 else { continue };
                let before = solution.total_microcny();
                step.seats.iter().for_each(|&(task, ..)| { solution.lift(task); });
                for &(task, node, column) in &step.seats {
                    prop_assert!(step.nodes.contains(&node));
                    prop_assert!(solution.put(task, node, column));
                }
                prop_assert!(step.delta_microcny < 0);
                prop_assert_eq!(solution.total_microcny(), before + i128::from(step.delta_microcny));
            }
        }
    }

    /// Three tasks stand one node further than where they cost nothing, and each node holds just one: no
    /// two of them can swap to gain.
    #[test]
    fn a_ring_is_turned_at_once() {
        let pairs = [0, 1, 2].map(|home| std::array::from_fn(|node| ([0, 20, 50][(node + 3 - home) % 3], 2)));
        let problem = table(&pairs, 3);
        let mut solution = Solution::new(&problem);
        (0..3).for_each(|task| assert!(solution.put(task, (task + 1) % 3, (task + 1) % 3)));
        let proof = proof(&problem);
        let step = (0..20).find_map(|seed| propose(&solution, &proof, seed, &|| true).0).unwrap();
        assert_eq!(step.delta_microcny, -60);
    }

    /// As a limit on time would end it, but counted: one step of the charges is all that comes after the end.
    #[test]
    fn a_dive_that_is_over_in_its_midst_finds_nothing_and_works_no_more() {
        let pairs = [0, 1, 2].map(|home| std::array::from_fn(|node| ([0, 20, 50][(node + 3 - home) % 3], 2)));
        let problem = table(&pairs, 3);
        let mut solution = Solution::new(&problem);
        (0..3).for_each(|task| assert!(solution.put(task, (task + 1) % 3, (task + 1) % 3)));
        let proof = proof(&problem);
        let cells_of_a_step = 3 * 3 * (4 + CELLS_PER_PAIR as u64);
        for steps in 0..3 {
            let asked = std::cell::Cell::new(0);
            let (step, cells) = propose(&solution, &proof, 3, &|| asked.replace(asked.get() + 1) < steps);
            assert!(step.is_none() && cells <= steps * cells_of_a_step, "{cells} cells in {steps} steps");
            assert_eq!(asked.get(), steps + 1);
        }
    }
}
