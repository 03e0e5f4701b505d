//! Which tasks take part in a step: those that stand badly, and those that lose little by making room.

use super::Reach;
use crate::assignment::problem::{range, NONE, REFUSED};
use crate::assignment::solution::Solution;
use crate::optimize::guide::{parts, Guide};
use crate::seed::Draws;

/// Tasks that are drawn to find the one that stands worst.
const DRAWN: usize = 7;

/// How much dearer, prices counted, the task stands than it would at its best.
fn excess(solution: &Solution<'_>, guide: &Guide<'_>, task: u32) -> i64 {
    let facts = &solution.problem.tasks[task as usize];
    let seat = solution.seat(task);
    if seat.node == NONE {
        return parts(facts.unplaced_microcny) - guide.least(facts.kind);
    }
    let moving = if facts.home == NONE || facts.home == seat.node { 0 } else { parts(facts.move_microcny) };
    guide.adjusted(facts.kind, seat.column) + moving - guide.least(facts.kind)
}

/// A task that may be lifted by itself: it has a seat, or needs no others to get one.
fn is_free(solution: &Solution<'_>, task: u32) -> bool {
    solution.is_placed(task) || solution.problem.tasks[task as usize].gang == NONE
}

pub fn worst_of_some(solution: &Solution<'_>, guide: &Guide<'_>, draws: &mut Draws) -> Option<u32> {
    let count = solution.problem.tasks.len();
    if count == 0 {
        return None;
    }
    let nowhere = solution.nowhere();
    if !nowhere.is_empty() && draws.below(2) == 0 {
        let task = nowhere[draws.below(nowhere.len())];
        if is_free(solution, task) {
            return Some(task);
        }
    }
    let drawn = if draws.below(10) < 7 { DRAWN } else { 1 };
    let tasks: Vec<u32> = (0..drawn).map(|_| draws.below(count) as u32).filter(|&t| is_free(solution, t)).collect();
    tasks.into_iter().max_by_key(|&t| excess(solution, guide, t))
}

/// These tasks, some that are nowhere, and those on these nodes that would lose least elsewhere
/// among them, with some chance.
pub fn pick_tasks(
    solution: &Solution<'_>,
    guide: &Guide<'_>,
    reach: Reach,
    first: &[u32],
    nodes: &[u32],
    draws: &mut Draws,
) -> Vec<u32> {
    let problem = solution.problem;
    let columns_of = |node: u32| range(&problem.classes[problem.nodes[node as usize].class as usize].columns);
    let mut pool = Vec::new();
    let mut last = Vec::new();
    for &node in nodes {
        for &task in solution.tasks_on(node) {
            let facts = &problem.tasks[task as usize];
            let elsewhere = nodes.iter().filter(|&&n| n != node).flat_map(|&n| columns_of(n)).map(|c| c as u32);
            let open = elsewhere.filter(|&c| problem.cost(facts.kind, c) != REFUSED);
            let now = guide.adjusted(facts.kind, solution.seat(task).column);
            match open.map(|c| guide.adjusted(facts.kind, c)).min() {
                Some(least) => pool.push((least - now, task)),
                None => last.push((parts(facts.unplaced_microcny) - now, task)), // it could only make room
            }
        }
    }
    let mean = pool.iter().map(|(loss, _)| loss.unsigned_abs() / pool.len() as u64).sum::<u64>() as usize;
    pool.iter_mut().for_each(|(loss, _)| *loss += draws.below(mean + 1) as i64);
    pool.sort_unstable();
    last.sort_unstable();
    let mut tasks = first.to_vec();
    let nowhere = solution.nowhere();
    // Others that wait make the search wide, so they come along only now and then.
    let others = if draws.below(4) == 0 { nowhere.len().min(reach.tasks / 4) } else { 0 };
    for _ in 0..others {
        let task = nowhere[draws.below(nowhere.len())];
        if is_free(solution, task) && !tasks.contains(&task) {
            tasks.push(task);
        }
    }
    let placed = pool.into_iter().chain(last).map(|(_, task)| task).filter(|t| !first.contains(t));
    tasks.extend(placed);
    tasks.truncate(reach.tasks.max(first.len()));
    tasks
}
