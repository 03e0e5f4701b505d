//! The one large step: lifts some tasks from a few nodes and seats them anew in the best way that
//! a bounded depth-first search finds. Relocations, swaps and chains of ejections are cases of it.
//!
//! It reads the solution and changes nothing, so that many threads can look for steps at once.

use super::pick::{pick_tasks, worst_of_some};
use super::seats::Seats;
use super::{Reach, Step};
use crate::assignment::problem::{range, NONE};
use crate::assignment::room::Room;
use crate::assignment::solution::Solution;
use crate::optimize::guide::Guide;
use crate::seed::Draws;

/// Smaller fleets take part in every step as a whole.
const WHOLE_FLEET: usize = 32;

/// Looks for a step that costs at most `allowance` more than things as they are.
pub fn propose(
    solution: &Solution<'_>,
    guide: &Guide<'_>,
    room: &Room,
    reach: Reach,
    allowance_microcny: i64,
    seed: u64,
) -> Option<Step> {
    let mut draws = Draws::new(seed);
    let seed_task = worst_of_some(solution, guide, &mut draws)?;
    let nodes = pick_nodes(solution, guide, room, reach, seed_task, &mut draws);
    let tasks = pick_tasks(solution, guide, reach, &[seed_task], &nodes, &mut draws);
    let mut nodes = nodes;
    if solution.problem.nodes.len() <= WHOLE_FLEET {
        nodes.extend((0..solution.problem.nodes.len() as u32).filter(|n| !nodes.contains(n)).collect::<Vec<_>>());
    }
    let mut seats = Seats::new(solution, guide, &nodes, &tasks);
    Step::of(solution, &mut seats, nodes, &tasks, allowance_microcny, reach.looks)
}

/// The task's own node, one of each of its best columns, and some by chance.
fn pick_nodes(
    solution: &Solution<'_>,
    guide: &Guide<'_>,
    room: &Room,
    reach: Reach,
    task: u32,
    draws: &mut Draws,
) -> Vec<u32> {
    let problem = solution.problem;
    let kind = problem.tasks[task as usize].kind;
    let near = guide.near(kind);
    let mut nodes = Vec::with_capacity(reach.nodes);
    let add = |nodes: &mut Vec<u32>, node: u32| {
        if node != NONE && !nodes.contains(&node) {
            nodes.push(node);
        }
    };
    add(&mut nodes, solution.seat(task).node);
    let any_of = |column: u32, draws: &mut Draws| {
        let nodes = range(&problem.classes[problem.columns[column as usize].class as usize].nodes);
        (nodes.start + draws.below(nodes.len())) as u32
    };
    for &(_, column) in near.iter().take(reach.nodes) {
        if nodes.len() < reach.nodes / 2 {
            let roomy = room.first_fit(solution, kind, column).filter(|_| draws.below(2) == 0);
            add(&mut nodes, roomy.unwrap_or_else(|| any_of(column, draws)));
        }
    }
    let enough = reach.nodes.min(problem.nodes.len());
    for _ in 0..4 * enough {
        if nodes.len() >= enough {
            break;
        }
        let node = match near.len() {
            0 => draws.below(problem.nodes.len()) as u32,
            _ if draws.below(2) == 0 => draws.below(problem.nodes.len()) as u32,
            count => any_of(near[draws.below(count)].1, draws),
        };
        add(&mut nodes, node);
    }
    nodes
}
