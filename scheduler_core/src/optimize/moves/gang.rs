//! A gang goes to another class of nodes as a whole, one that waits with all its tasks at once. Some of
//! those that stand there make room. `repack` moves tasks of a gang only one by one, and cannot seat one that waits.

use super::pick::pick_tasks;
use super::seats::Seats;
use super::{Reach, Step};
use crate::assignment::problem::{range, NONE};
use crate::assignment::solution::Solution;
use crate::optimize::guide::Guide;
use crate::seed::Draws;

/// Larger gangs stay where construction has put them.
const MEMBERS_MAX: usize = 64;
/// Nodes of the other class, and tasks on them that may make room.
const NODES_MAX: usize = 12;
const OTHERS_MAX: usize = 12;
const LOOKS: usize = 8_000;

/// Looks for a step of one gang that costs at most `allowance` more than things as they are.
pub fn propose(solution: &Solution<'_>, guide: &Guide<'_>, allowance_microcny: i64, seed: u64) -> Option<Step> {
    let problem = solution.problem;
    if problem.gangs.is_empty() {
        return None;
    }
    let mut draws = Draws::new(seed);
    let gang = &problem.gangs[draws.below(problem.gangs.len())];
    if gang.len() > MEMBERS_MAX {
        return None;
    }
    let kind = problem.tasks[gang[draws.below(gang.len())] as usize].kind;
    let near = guide.near(kind);
    if near.is_empty() {
        return None;
    }
    let column = near[draws.below(near.len())].1;
    let mut nodes: Vec<u32> = Vec::new();
    let class = range(&problem.classes[problem.columns[column as usize].class as usize].nodes);
    let first = draws.below(class.len());
    let there = (0..class.len().min(NODES_MAX)).map(|i| (class.start + (first + i) % class.len()) as u32);
    for node in gang.iter().map(|&t| solution.seat(t).node).chain(there) {
        if node != NONE && !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    let reach = Reach { nodes: nodes.len(), tasks: gang.len() + OTHERS_MAX, looks: LOOKS };
    let tasks = pick_tasks(solution, guide, reach, gang, &nodes, &mut draws);
    let mut seats = Seats::new(solution, guide, &nodes, &tasks);
    Step::of(solution, &mut seats, nodes, &tasks, allowance_microcny, reach.looks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assignment::problem::{Class, Column, Kind, Node, Problem, Task, DIMS};
    use crate::bound::Prices;

    /// Two classes of two nodes with two cores each, the second at half the cost. A gang of three tasks of
    /// one core, the last task alone.
    fn problem() -> Problem {
        let cores = |n: i64| std::array::from_fn(|d| if d == 0 { n } else { 0 });
        let gang = Task { unplaced_microcny: 1000, gang: 0, ..Task::default() };
        Problem {
            kinds: vec![Kind { amounts: cores(1), device_milli: 0 }],
            columns: (0..2).map(|class| Column { class, model: NONE, device_dim: NONE }).collect(),
            classes: (0..2).map(|i| Class { site: i, columns: i..i + 1, nodes: 2 * i..2 * i + 2 }).collect(),
            nodes: (0..4).map(|i| Node { class: i / 2, free: cores(2), devices: 0..0 }).collect(),
            tasks: vec![gang, gang, gang, Task { gang: NONE, ..gang }],
            gangs: vec![vec![0, 1, 2]],
            cost: vec![20, 10],
            ..Problem::default()
        }
    }

    fn best_of_some(solution: &Solution<'_>) -> Option<Step> {
        let prices = Prices { of_class: vec![[0; DIMS]; 2] };
        let guide = Guide::new(solution.problem, &prices, 1);
        (0..20).filter_map(|seed| propose(solution, &guide, 0, seed)).min_by_key(|step| step.delta_microcny)
    }

    #[test]
    fn a_gang_that_waits_is_seated_at_once() {
        let problem = problem();
        let mut solution = Solution::new(&problem);
        assert!(solution.put(3, 0, 0));
        let step = best_of_some(&solution).unwrap();
        assert_eq!(step.delta_microcny, 3 * (10 - 1000));
        assert!(step.seats.iter().all(|(task, node, _)| *task < 3 && *node >= 2), "{step:?}");
    }

    #[test]
    fn a_gang_goes_where_it_is_cheaper_as_a_whole() {
        let problem = problem();
        let mut solution = Solution::new(&problem);
        [(0, 0, 0), (1, 0, 0), (2, 1, 0)].into_iter().for_each(|(t, n, c)| assert!(solution.put(t, n, c)));
        let step = best_of_some(&solution).unwrap();
        assert!(step.delta_microcny <= -30, "{}", step.delta_microcny);
        let there = step.seats.iter().filter(|(task, node, _)| *task < 3 && *node >= 2).count();
        assert_eq!(there, 3);
    }
}
