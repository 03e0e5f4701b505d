//! Seats what was apportioned to a class, node by node: the task comes next that takes most of what
//! the node has most of (the dot product of Panigrahy et al., "Heuristics for vector bin packing", 2011).

use super::apportion::Share;
use crate::assignment::problem::{range, Amounts, DIMS};
use crate::assignment::solution::Solution;

/// Seats the tasks of the shares, which lie by class, as far as they find room there and `proceed` says yes.
pub fn fill(solution: &mut Solution<'_>, mut shares: Vec<Share>, proceed: &mut dyn FnMut() -> bool) {
    let problem = solution.problem;
    let class = |share: &Share| problem.columns[share.column as usize].class;
    for of_class in shares.chunk_by_mut(|a, b| class(a) == class(b)) {
        if !proceed() {
            return;
        }
        fill_class(solution, class(&of_class[0]), of_class);
    }
}

fn fill_class(solution: &mut Solution<'_>, class: u32, shares: &mut [Share]) {
    let problem = solution.problem;
    let nodes = range(&problem.classes[class as usize].nodes);
    let usable = |node: &usize| solution.free(*node as u32).iter().all(|&x| x >= 0);
    let nodes: Vec<u32> = nodes.filter(usable).map(|node| node as u32).collect();
    let weights: Vec<[f64; DIMS]> = {
        let free = nodes.iter().fold([0.0; DIMS], |sum, &node| {
            let free = solution.free(node);
            std::array::from_fn(|d| sum[d] + free[d] as f64)
        });
        let weight = |share: &Share| problem.weight(share.kind, share.column);
        let asked = shares.iter().fold([0.0; DIMS], |sum, share| {
            let (weight, count) = (weight(share), share.tasks.len() as f64);
            std::array::from_fn(|d| sum[d] + weight[d] as f64 * count)
        });
        // What is asked of each resource says how much it counts; both amounts are parts of what is free.
        let scale = |d: usize| if free[d] > 0.0 { asked[d] / (free[d] * free[d] * free[d]) } else { 0.0 };
        let scale: [f64; DIMS] = std::array::from_fn(scale);
        let scaled = |weight: Amounts| std::array::from_fn(|d| weight[d] as f64 * scale[d]);
        shares.iter().map(|share| scaled(weight(share))).collect()
    };
    for node in nodes {
        loop {
            let free = solution.free(node);
            let score = |weight: &[f64; DIMS]| (0..DIMS).map(|d| weight[d] * free[d] as f64).sum::<f64>();
            let mut best: Option<(f64, usize)> = None;
            for (i, share) in shares.iter().enumerate().filter(|(_, share)| !share.tasks.is_empty()) {
                let score = score(&weights[i]);
                let is_better = best.is_none_or(|(most, _)| score > most);
                if is_better && solution.fits(share.kind, node, share.column) {
                    best = Some((score, i));
                }
            }
            let Some((_, i)) = best else { break };
            let share = &mut shares[i];
            match share.tasks.pop() {
                Some(task) if solution.put(task, node, share.column) => {}
                _ => break, // it was asked whether it fits
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assignment::problem::{Class, Column, Kind, Node, Problem, Task, NONE};

    #[test]
    fn tasks_that_take_what_others_leave_share_a_node() {
        let amounts = |cores: i64, memory: i64| std::array::from_fn(|d| [cores, memory].get(d).copied().unwrap_or(0));
        let problem = Problem {
            kinds: [(3, 1), (1, 3)].map(|(c, m)| Kind { amounts: amounts(c, m), device_milli: 0 }).to_vec(),
            columns: vec![Column { class: 0, model: NONE, device_dim: NONE }],
            classes: vec![Class { site: 0, columns: 0..1, nodes: 0..3 }],
            nodes: (0..3).map(|_| Node { class: 0, free: amounts(4, 4), devices: 0..0 }).collect(),
            tasks: (0..6).map(|t| Task { kind: t % 2, unplaced_microcny: 1000, ..Task::default() }).collect(),
            cost: vec![1, 1],
            ..Problem::default()
        };
        let share = |kind: u32| Share { kind, column: 0, tasks: (0..6).filter(|t| t % 2 == kind).collect() };
        let mut solution = Solution::new(&problem);
        fill(&mut solution, vec![share(0), share(1)], &mut || true);
        assert!(solution.nowhere().is_empty());
    }
}
