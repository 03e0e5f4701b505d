//! Finds a node of a class that has room, without asking them all: for each class a tree of the
//! most that is free of each resource below each of its branches.

use super::problem::{range, Amounts, DIMS};
use super::solution::Solution;

pub struct Room {
    /// For each class its tree, stored as a heap: entry 1 is the root, node i of the class is
    /// leaf `size + i`.
    trees: Vec<Vec<Amounts>>,
}

const FULL: Amounts = [-1; DIMS];

impl Room {
    pub fn of(solution: &Solution<'_>) -> Self {
        let tree = |nodes: std::ops::Range<usize>| {
            let size = nodes.len().next_power_of_two();
            let mut tree = vec![FULL; 2 * size];
            nodes.enumerate().for_each(|(i, node)| tree[size + i] = *solution.free(node as u32));
            (1..size).rev().for_each(|k| tree[k] = most(&tree[2 * k], &tree[2 * k + 1]));
            tree
        };
        Self { trees: solution.problem.classes.iter().map(|class| tree(range(&class.nodes))).collect() }
    }

    /// Must be told when a task was put on the node or lifted from it.
    pub fn changed(&mut self, solution: &Solution<'_>, node: u32) {
        let class = solution.problem.nodes[node as usize].class as usize;
        let first = solution.problem.classes[class].nodes.start;
        let tree = &mut self.trees[class];
        let mut k = tree.len() / 2 + (node - first) as usize;
        tree[k] = *solution.free(node);
        while k > 1 {
            k /= 2;
            let above = most(&tree[2 * k], &tree[2 * k + 1]);
            if above == tree[k] {
                return;
            }
            tree[k] = above;
        }
    }

    /// The first node of the column's class on which a task of the kind fits.
    pub fn first_fit(&self, solution: &Solution<'_>, kind: u32, column: u32) -> Option<u32> {
        let class = solution.problem.columns[column as usize].class as usize;
        let weight = solution.problem.weight(kind, column);
        let tree = &self.trees[class];
        let size = tree.len() / 2;
        let first = solution.problem.classes[class].nodes.start;
        let has_room = |k: usize| (0..DIMS).all(|d| weight[d] <= tree[k][d]);
        let mut k = 1;
        loop {
            if has_room(k) {
                if k < size {
                    k *= 2;
                    continue;
                }
                let node = first + (k - size) as u32;
                if solution.fits(kind, node, column) {
                    return Some(node);
                }
            }
            // To the next branch on the right, one level up for each branch that was the last.
            k += 1;
            k >>= k.trailing_zeros();
            if k == 1 {
                return None;
            }
        }
    }
}

fn most(a: &Amounts, b: &Amounts) -> Amounts {
    std::array::from_fn(|d| a[d].max(b[d]))
}
