//! Evict and insert: a task that is nowhere takes a node from a few others, each of which finds
//! room elsewhere. Construction leaves such tasks where what is free is scattered; this gathers it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::rc::Rc;

use super::guide::Guide;
use crate::assignment::problem::{range, Amounts, DIMS, NONE};
use crate::assignment::room::Room;
use crate::assignment::solution::{Seat, Solution};

/// Columns, and nodes of each, that are tried for one task, and nodes in all.
const COLUMNS_MAX: usize = 48;
const NODES_MAX: usize = 24;
const TRIES_MAX: usize = 256;
/// Tasks of one kind that find no place, after which the others of it are left to the search.
const FAILURES_MAX: u32 = 2;
/// Tasks that may make room for one.
const EVICTED_MAX: usize = 4;

/// Seats as many as it can of those of some kinds that are nowhere, one after the other, until `proceed`
/// says no. Gangs and tasks that run already are left as they are.
pub fn insert_all(
    solution: &mut Solution<'_>,
    room: &mut Room,
    guide: &Guide<'_>,
    is_asked: &dyn Fn(u32) -> bool,
    proceed: &mut dyn FnMut() -> bool,
) {
    let mut waiting: Vec<u32> = solution.nowhere().to_vec();
    let may_go = |t: u32| {
        let task = &solution.problem.tasks[t as usize];
        task.gang == NONE && is_asked(task.kind)
    };
    waiting.retain(|&t| may_go(t));
    waiting.sort_unstable_by_key(|&t| {
        let task = &solution.problem.tasks[t as usize];
        (Reverse(task.unplaced_microcny), Reverse(solution.problem.kinds[task.kind as usize].device_milli), t)
    });
    let mut columns = Columns { guide, of_kind: HashMap::new() };
    for task in waiting {
        let kind = solution.problem.tasks[task as usize].kind;
        if columns.of(kind).failures == FAILURES_MAX {
            continue;
        }
        if !proceed() {
            return;
        }
        if !insert(solution, room, &mut columns, task) {
            columns.of(kind).failures += 1;
        }
    }
}

/// What is known of the columns of kinds.
struct Columns<'a, 'p> {
    guide: &'a Guide<'p>,
    of_kind: HashMap<u32, OfKind>,
}

struct OfKind {
    /// All that are open, best first.
    open: Rc<[(i64, u32)]>,
    /// So many of them were full when they were last asked. What is given up for a task hardly ever
    /// makes room for another, so they are not asked again.
    full: usize,
    failures: u32,
}

impl Columns<'_, '_> {
    fn of(&mut self, kind: u32) -> &mut OfKind {
        let open = || OfKind { open: self.guide.all(kind).into(), full: 0, failures: 0 };
        self.of_kind.entry(kind).or_insert_with(open)
    }
}

fn insert(solution: &mut Solution<'_>, room: &mut Room, columns: &mut Columns<'_, '_>, task: u32) -> bool {
    let problem = solution.problem;
    let kind = problem.tasks[task as usize].kind;
    let mut tries_left = TRIES_MAX;
    let open = columns.of(kind).open.clone();
    for &(_, column) in open.iter().take(COLUMNS_MAX) {
        let nodes = range(&problem.classes[problem.columns[column as usize].class as usize].nodes);
        let (first, count) = (nodes.start, nodes.len());
        let tries = count.min(NODES_MAX).min(tries_left);
        tries_left -= tries;
        for i in 0..tries {
            // Not the same nodes for every task.
            let node = (first + (task as usize + i) % count) as u32;
            if insert_at(solution, room, columns, (task, node, column)) {
                return true;
            }
        }
    }
    false
}

/// Makes room for the task on this node, or leaves all as it was.
fn insert_at(
    solution: &mut Solution<'_>,
    room: &mut Room,
    columns: &mut Columns<'_, '_>,
    (task, node, column): (u32, u32, u32),
) -> bool {
    let problem = solution.problem;
    let kind = problem.tasks[task as usize].kind;
    let weight = problem.weight(kind, column);
    let mut evicted: Vec<(u32, Seat)> = Vec::new();
    for victim in victims(solution, node, &weight) {
        if evicted.len() == EVICTED_MAX || solution.fits(kind, node, column) {
            break;
        }
        let seat = solution.lift(victim);
        if reseat(solution, room, columns, victim, node) {
            evicted.push((victim, seat));
        } else {
            solution.put_back(victim, seat);
        }
    }
    let is_in = solution.fits(kind, node, column) && solution.put(task, node, column);
    if !is_in {
        for (victim, seat) in evicted.into_iter().rev() {
            let left = solution.lift(victim);
            room.changed(solution, left.node);
            solution.put_back(victim, seat);
        }
    }
    room.changed(solution, node);
    is_in
}

/// The tasks on the node that may go, those first that give most of what is missing.
fn victims(solution: &Solution<'_>, node: u32, weight: &Amounts) -> Vec<u32> {
    let problem = solution.problem;
    let free = solution.free(node);
    let missing: [i64; DIMS] = std::array::from_fn(|d| (weight[d] - free[d]).max(0));
    // Where the sums would do it is the devices that do not fit.
    let scattered = missing.iter().all(|&m| m == 0);
    let wanted: [i64; DIMS] = if scattered { *weight } else { missing };
    let gives = |task: u32| {
        let given = problem.weight(problem.tasks[task as usize].kind, solution.seat(task).column);
        let parts = (0..DIMS).filter(|&d| wanted[d] > 0).map(|d| 1000 * given[d].min(wanted[d]) / wanted[d]);
        (parts.sum::<i64>(), given.iter().sum::<i64>())
    };
    let may_go = |task: &u32| {
        let facts = &problem.tasks[*task as usize];
        facts.home == NONE && facts.gang == NONE
    };
    let mut victims: Vec<_> = solution.tasks_on(node).iter().copied().filter(may_go).map(|t| (gives(t), t)).collect();
    victims.retain(|((parts, _), _)| *parts > 0);
    victims.sort_unstable_by_key(|&((parts, size), task)| (Reverse(parts), size, task));
    victims.into_iter().map(|(_, task)| task).collect()
}

/// Seats a lifted task where it costs least with room, but not on this node.
fn reseat(solution: &mut Solution<'_>, room: &mut Room, columns: &mut Columns<'_, '_>, task: u32, but: u32) -> bool {
    let kind = solution.problem.tasks[task as usize].kind;
    let OfKind { open, full, .. } = columns.of(kind);
    let mut found = None;
    let mut all_full = true;
    for &(_, column) in &open[*full..] {
        let node = room.first_fit(solution, kind, column);
        all_full &= node.is_none();
        *full += usize::from(all_full);
        // The tree does not know yet that the node has more room, so it seldom names it.
        found = node.filter(|&node| node != but).map(|node| (node, column));
        if found.is_some() {
            break;
        }
    }
    match found {
        Some((node, column)) if solution.put(task, node, column) => {
            room.changed(solution, node);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assignment::problem::{Class, Column, Kind, Node, Problem, Task};
    use crate::bound::Prices;

    /// Nodes of four cores of one class; kind k asks for k + 1 cores.
    fn problem(nodes: u32, kinds: &[u32]) -> Problem {
        let four: Amounts = std::array::from_fn(|d| if d == 0 { 4 } else { 0 });
        let kind =
            |cores: i64| Kind { amounts: std::array::from_fn(|d| if d == 0 { cores } else { 0 }), device_milli: 0 };
        Problem {
            kinds: (1..=4).map(kind).collect(),
            columns: vec![Column { class: 0, model: NONE, device_dim: NONE }],
            classes: vec![Class { site: 0, columns: 0..1, nodes: 0..nodes }],
            nodes: (0..nodes).map(|_| Node { class: 0, free: four, devices: 0..0 }).collect(),
            tasks: kinds.iter().map(|&kind| Task { kind, unplaced_microcny: 1000, ..Task::default() }).collect(),
            cost: vec![1; 4],
            ..Problem::default()
        }
    }

    fn inserted(problem: &Problem, seats: &[(u32, u32)]) -> Vec<u32> {
        let prices = Prices { of_class: vec![[0; DIMS]] };
        let guide = Guide::new(problem, &prices, 1);
        let mut solution = Solution::new(problem);
        seats.iter().for_each(|&(task, node)| assert!(solution.put(task, node, 0)));
        let mut room = Room::of(&solution);
        insert_all(&mut solution, &mut room, &guide, &|_| true, &mut || true);
        (0..problem.tasks.len() as u32).map(|t| solution.seat(t).node).collect()
    }

    #[test]
    fn two_halves_on_two_nodes_make_room_for_a_whole_one() {
        let seats = inserted(&problem(2, &[1, 1, 3]), &[(0, 0), (1, 1)]);
        assert_eq!(seats[0], seats[1], "the halves share a node");
        assert!(seats[2] != NONE && seats[2] != seats[0]);
    }

    #[test]
    fn who_finds_no_room_elsewhere_stays_and_the_new_one_stays_out() {
        let seats = inserted(&problem(2, &[2, 2, 1]), &[(0, 0), (1, 1)]);
        assert_eq!(seats, [0, 1, NONE]);
    }
}
