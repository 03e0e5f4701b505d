//! The one large step: lifts some tasks from a few nodes and seats them anew in the best way that
//! a bounded depth-first search finds. Relocations, swaps and chains of ejections are cases of it.
//!
//! It reads the solution and changes nothing, so that many threads can look for steps at once.

use super::guide::{parts, Guide};
use super::seats::Seats;
use crate::assignment::problem::{range, NONE, REFUSED};
use crate::assignment::room::Room;
use crate::assignment::solution::Solution;
use crate::seed::Draws;

/// How much one step may look at.
#[derive(Debug, Clone, Copy)]
pub struct Reach {
    pub nodes: usize,
    pub tasks: usize,
    pub looks: usize,
}

/// Where tasks would go instead.
#[derive(Debug, Clone)]
pub struct Step {
    /// Task, node (NONE: nowhere) and column, in the order in which they take their devices.
    pub seats: Vec<(u32, u32, u32)>,
    /// Whose free capacity the step counts on.
    pub nodes: Vec<u32>,
    pub delta_microcny: i64,
}

/// Smaller fleets take part in every step as a whole.
const WHOLE_FLEET: usize = 32;
/// Tasks that are drawn to find the one that stands worst.
const DRAWN: usize = 7;

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
    let tasks = pick_tasks(solution, guide, reach, seed_task, &nodes, &mut draws);
    let mut nodes = nodes;
    if solution.problem.nodes.len() <= WHOLE_FLEET {
        nodes.extend((0..solution.problem.nodes.len() as u32).filter(|n| !nodes.contains(n)).collect::<Vec<_>>());
    }
    let mut seats = Seats::new(solution, guide, &nodes, &tasks);
    let now: i64 = tasks.iter().map(|&t| solution.cost_now(t)).sum();
    let (cost, seats) = seats.best(now + allowance_microcny, reach.looks)?;
    Some(Step { seats, nodes, delta_microcny: cost - now })
}

/// How much dearer, prices counted, the task stands than it would at its best.
pub fn excess(solution: &Solution<'_>, guide: &Guide<'_>, task: u32) -> i64 {
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

fn worst_of_some(solution: &Solution<'_>, guide: &Guide<'_>, draws: &mut Draws) -> Option<u32> {
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

/// The task itself, some that are nowhere, and those on these nodes that would lose least
/// elsewhere among them, with some chance.
fn pick_tasks(
    solution: &Solution<'_>,
    guide: &Guide<'_>,
    reach: Reach,
    seed_task: u32,
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
    let mut tasks = vec![seed_task];
    let nowhere = solution.nowhere();
    // Others that wait make the search wide, so they come along only now and then.
    let others = if draws.below(4) == 0 { nowhere.len().min(reach.tasks / 4) } else { 0 };
    for _ in 0..others {
        let task = nowhere[draws.below(nowhere.len())];
        if is_free(solution, task) && !tasks.contains(&task) {
            tasks.push(task);
        }
    }
    let placed = pool.into_iter().chain(last).map(|(_, task)| task).filter(|&t| t != seed_task);
    tasks.extend(placed);
    tasks.truncate(reach.tasks);
    tasks
}
