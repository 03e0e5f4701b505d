//! A site is drained: its running tasks that would cost less elsewhere leave it at once, each for the node with
//! room where cost and prices are least. What a new price or PUE makes dear moves so, and not task by task.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::pick::worst_of_some;
use super::Step;
use crate::assignment::problem::{range, Amounts, DIMS, NONE};
use crate::assignment::room::Room;
use crate::assignment::solution::Solution;
use crate::optimize::guide::{parts, Guide};
use crate::seed::Draws;

/// Tasks that leave in one step.
const TASKS_MAX: usize = 256;
/// Nodes of one class that are asked for room.
const NODES_MAX: usize = 8;

/// Looks for a site that up to so many running tasks leave.
pub fn propose(solution: &Solution<'_>, guide: &Guide<'_>, room: &Room, moves_left: u32, seed: u64) -> Option<Step> {
    let problem = solution.problem;
    let worst = solution.seat(worst_of_some(solution, guide, &mut Draws::new(seed))?).node;
    let site = problem.classes[problem.nodes.get(worst as usize)?.class as usize].site;
    let classes = problem.classes.iter().filter(|class| class.site == site);
    let tasks = classes.flat_map(|class| range(&class.nodes)).flat_map(|node| solution.tasks_on(node as u32));
    // Only those at home: who has left it once has been looked at by the other steps.
    let at_home = tasks.copied().filter(|&t| problem.tasks[t as usize].home == solution.seat(t).node);
    let mut leaving: Vec<(i64, u32)> = at_home.map(|task| (gain(solution, guide, site, task), task)).collect();
    leaving.retain(|(gain, _)| *gain > 0);
    leaving.sort_unstable_by_key(|&(gain, task)| (Reverse(gain), task));
    let mut elsewhere = Elsewhere { solution, guide, room, site, taken: HashMap::new() };
    let mut step = Step { seats: Vec::new(), nodes: Vec::new(), delta_microcny: 0 };
    for (_, task) in leaving {
        if step.seats.len() >= TASKS_MAX.min(moves_left as usize) {
            break;
        }
        let Some((node, column)) = elsewhere.seat(task) else { continue };
        step.delta_microcny += solution.cost_at(task, node, column) - solution.cost_now(task);
        step.seats.push((task, node, column));
        step.nodes.extend([solution.seat(task).node, node]);
    }
    step.nodes.sort_unstable();
    step.nodes.dedup();
    (step.delta_microcny < 0).then_some(step)
}

/// How much less, prices counted, the task costs at its best column of another site.
fn gain(solution: &Solution<'_>, guide: &Guide<'_>, site: u32, task: u32) -> i64 {
    let facts = &solution.problem.tasks[task as usize];
    let mut near = guide.near(facts.kind).iter().filter(|(_, column)| site_of(solution, *column) != site);
    let now = guide.adjusted(facts.kind, solution.seat(task).column);
    near.next().map_or(0, |(adjusted, _)| now - adjusted - parts(facts.move_microcny))
}

fn site_of(solution: &Solution<'_>, column: u32) -> u32 {
    solution.problem.classes[solution.problem.columns[column as usize].class as usize].site
}

/// The nodes of other sites, with what this step has taken of them already.
struct Elsewhere<'a, 'p> {
    solution: &'a Solution<'p>,
    guide: &'a Guide<'p>,
    room: &'a Room,
    site: u32,
    taken: HashMap<u32, Amounts>,
}

impl Elsewhere<'_, '_> {
    /// Where the task costs less than it does now, and has room.
    fn seat(&mut self, task: u32) -> Option<(u32, u32)> {
        let (solution, problem) = (self.solution, self.solution.problem);
        let kind = problem.tasks[task as usize].kind;
        for &(_, column) in self.guide.near(kind) {
            if site_of(solution, column) == self.site {
                continue;
            }
            let Some(first) = self.room.first_fit(solution, kind, column) else { continue };
            if solution.cost_at(task, first, column) >= solution.cost_now(task) {
                continue;
            }
            let nodes = &problem.classes[problem.columns[column as usize].class as usize].nodes;
            let node = (first..nodes.end).take(NODES_MAX).find(|&node| self.has_room(kind, node, column));
            if let Some(node) = node {
                let taken = self.taken.entry(node).or_default();
                taken.iter_mut().zip(problem.weight(kind, column)).for_each(|(taken, amount)| *taken += amount);
                return Some((node, column));
            }
        }
        None
    }

    fn has_room(&self, kind: u32, node: u32, column: u32) -> bool {
        let (solution, problem) = (self.solution, self.solution.problem);
        let Some(taken) = self.taken.get(&node) else { return solution.fits(kind, node, column) };
        // Which devices the others will hold is not known here, so there is one such task a node.
        let weight = problem.weight(kind, column);
        problem.columns[column as usize].model == NONE
            && (0..DIMS).all(|d| weight[d] + taken[d] <= solution.free(node)[d])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assignment::problem::{Class, Column, Kind, Node, Problem, Task};
    use crate::bound::Prices;

    /// Two sites with two nodes of three cores each, the second at half the cost. Five tasks of one core run at
    /// the first, one at the second.
    fn problem() -> Problem {
        let cores = |n: i64| std::array::from_fn(|d| if d == 0 { n } else { 0 });
        let task = |home| Task { home, unplaced_microcny: 1000, move_microcny: 1, ..Task::default() };
        Problem {
            kinds: vec![Kind { amounts: cores(1), device_milli: 0 }],
            columns: (0..2).map(|class| Column { class, model: NONE, device_dim: NONE }).collect(),
            classes: (0..2).map(|i| Class { site: i, columns: i..i + 1, nodes: 2 * i..2 * i + 2 }).collect(),
            nodes: (0..4).map(|i| Node { class: i / 2, free: cores(3), devices: 0..0 }).collect(),
            tasks: [0, 0, 0, 1, 1, 2].map(task).to_vec(),
            cost: vec![20, 10],
            ..Problem::default()
        }
    }

    fn best_of_some(moves_left: u32) -> Option<Step> {
        let problem = problem();
        let prices = Prices { of_class: vec![[0; DIMS]; 2] };
        let guide = Guide::new(&problem, &prices, 1);
        let mut solution = Solution::new(&problem);
        for (task, facts) in (0..).zip(&problem.tasks) {
            assert!(solution.put(task, facts.home, facts.home / 2));
        }
        let room = Room::of(&solution);
        let step = (0..20).filter_map(|seed| propose(&solution, &guide, &room, moves_left, seed));
        let step = step.min_by_key(|step| step.delta_microcny)?;
        step.seats.iter().for_each(|&(task, ..)| {
            solution.lift(task);
        });
        assert!(step.seats.iter().all(|&(task, node, column)| solution.put(task, node, column)));
        Some(step)
    }

    #[test]
    fn all_tasks_leave_a_dear_site_at_once() {
        let step = best_of_some(u32::MAX).unwrap();
        assert_eq!(step.seats.len(), 5, "{step:?}");
        assert_eq!(step.delta_microcny, 5 * (10 + 1 - 20));
    }

    #[test]
    fn no_more_leave_than_may_move() {
        assert_eq!(best_of_some(2).unwrap().seats.len(), 2);
        assert!(best_of_some(0).is_none());
    }
}
