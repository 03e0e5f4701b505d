//! A first solution: the tasks that would lose most elsewhere choose first, each the column of
//! least adjusted cost that has room.

use std::cmp::Reverse;

use super::guide::Guide;
use crate::assignment::problem::{FIRST_DEVICE_DIM, NONE};
use crate::assignment::room::Room;
use crate::assignment::solution::Solution;

/// Tasks that are seated between two questions whether to go on.
const TASKS_PER_ASK: usize = 1024;

/// Which tasks of one priority choose first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Those that would lose most elsewhere.
    MostToLose,
    /// Those that ask for most devices, then for most of the rest: they need what lies together.
    Largest,
}

/// Seats these of the tasks that are nowhere, as far as there is room, or until `proceed` says no; what
/// room is left. A gang is seated whole or not at all.
pub fn construct(
    solution: &mut Solution<'_>,
    guide: &Guide<'_>,
    mut order: Vec<u32>,
    by: Order,
    proceed: &mut dyn FnMut() -> bool,
) -> Room {
    let problem = solution.problem;
    let mut room = Room::of(solution);
    let mut regret: Vec<(Reverse<i64>, Reverse<i64>)> = Vec::with_capacity(problem.kinds.len());
    for (kind, facts) in problem.kinds.iter().enumerate() {
        let near = guide.near(kind as u32);
        let regret_of = |near: &[(i64, u32)]| near.get(1).map_or(i64::MAX, |second| second.0 - near[0].0);
        let size = facts.amounts[..FIRST_DEVICE_DIM].iter().fold(facts.device_milli, |sum, &x| sum.saturating_add(x));
        regret.push((Reverse(if near.is_empty() { 0 } else { regret_of(near) }), Reverse(size)));
    }
    order.sort_by_key(|&t| {
        let task = &problem.tasks[t as usize];
        let alone = task.gang == NONE;
        let (regret, size) = regret[task.kind as usize];
        let devices = Reverse(problem.kinds[task.kind as usize].device_milli);
        let large = if by == Order::Largest { (devices, size) } else { (Reverse(0), Reverse(0)) };
        (Reverse(task.unplaced_microcny), alone, large, regret, size, task.kind, task.gang, t)
    });
    let mut seeker = Seeker { guide, room: &mut room, kind: NONE, columns: Vec::new(), next: 0 };
    for (at, &task) in order.iter().enumerate() {
        if at % TASKS_PER_ASK == 0 && !proceed() {
            break;
        }
        let gang = problem.tasks[task as usize].gang;
        if gang == NONE {
            seeker.seat(solution, task);
            continue;
        }
        let members = &problem.gangs[gang as usize];
        if members.iter().all(|&t| !solution.is_placed(t)) && !members.iter().all(|&t| seeker.seat(solution, t)) {
            members.iter().for_each(|&t| seeker.leave(solution, t));
        }
    }
    room
}

/// Tasks of one kind come in a run, and while nothing is lifted a full column stays full.
struct Seeker<'a, 'p> {
    guide: &'a Guide<'p>,
    room: &'a mut Room,
    kind: u32,
    columns: Vec<(i64, u32)>,
    next: usize,
}

impl Seeker<'_, '_> {
    fn seat(&mut self, solution: &mut Solution<'_>, task: u32) -> bool {
        let kind = self.guide.problem.tasks[task as usize].kind;
        if kind != self.kind {
            self.kind = kind;
            self.columns.clear();
            self.columns.extend_from_slice(self.guide.near(kind));
            self.next = 0;
        }
        loop {
            while let Some(&(_, column)) = self.columns.get(self.next) {
                if let Some(node) = self.room.first_fit(solution, kind, column) {
                    solution.put(task, node, column);
                    self.room.changed(solution, node);
                    return true;
                }
                self.next += 1;
            }
            let all = self.guide.all(kind);
            if self.columns.len() >= all.len() {
                return false;
            }
            self.columns = all;
        }
    }

    fn leave(&mut self, solution: &mut Solution<'_>, task: u32) {
        let seat = solution.lift(task);
        if seat.node != NONE {
            self.room.changed(solution, seat.node);
            self.kind = NONE; // what was full may have room again
        }
    }
}
