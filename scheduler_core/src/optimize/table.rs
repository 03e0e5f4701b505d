//! A generalised assignment problem given as a table: agents are nodes of a class of their own,
//! each task is of a kind of its own, and the same search and bound work on it.

use super::construct::{construct, Order};
use super::guide::Guide;
use super::jobs::{narrow, reason};
use super::search::{solve, Settings};
use super::stop::Stop;
use crate::assignment::problem::{Class, Column, Kind, Node, Problem, Task, Weights, DIMS, NONE};
use crate::assignment::solution::Solution;
use crate::bound::Prices;
use crate::error::CoreError;
use crate::validate::REQUEST_TASKS_MAX;
use crate::wire::mumian_core::v1 as border;

/// Largest number in a table, so that sums of a million of them cannot overflow.
const NUMBER_MAX: i64 = 1 << 40;
/// Most entries of a table.
const ENTRIES_MAX: u64 = 1 << 27;

/// Assigns each task to one agent at the least cost found.
///
/// # Errors
/// `InvalidField` when the tables do not have agents x tasks entries, or numbers are out of range.
pub fn solve_table(
    request: &border::AssignmentRequest,
    threads: usize,
    stop: &mut dyn Stop,
) -> Result<border::AssignmentResponse, CoreError> {
    let problem = problem(request)?;
    let settings = Settings { seed: request.seed, threads, moves_max: 0 };
    let mut start = Solution::new(&problem);
    // By cost alone, and whole: so there is an answer even when the prices take all the time.
    let by_cost = Guide::new(&problem, &Prices::none(&problem), threads);
    construct(&mut start, &by_cost, (0..request.tasks).collect(), Order::MostToLose, &mut || true);
    let found = solve(start, settings, stop);
    let solution = &found.solution;
    let agent = (0..request.tasks).map(|t| match solution.seat(t).node {
        NONE => -1,
        node => node as i32,
    });
    let agent: Vec<i32> = agent.collect();
    let placed = (0..request.tasks).filter(|&t| solution.is_placed(t));
    Ok(border::AssignmentResponse {
        cost: placed.map(|t| solution.cost_now(t)).sum(),
        unplaced_task_count: agent.iter().filter(|a| **a < 0).count() as u32,
        agent,
        bound: narrow(found.bound.microcny),
        rounds: found.rounds,
        stop_reason: reason(found.reason).into(),
        progress: found.progress.iter().map(super::jobs::progress).collect(),
    })
}

fn problem(request: &border::AssignmentRequest) -> Result<Problem, CoreError> {
    let (agents, tasks) = (request.agents as usize, request.tasks as usize);
    let entries = u64::from(request.agents) * u64::from(request.tasks);
    let refuse = |field: &str, detail: String| Err(CoreError::InvalidField { field: field.into(), detail });
    if entries > ENTRIES_MAX {
        return refuse("tasks", format!("({tasks}) x agents ({agents}) must be at most {ENTRIES_MAX} entries"));
    }
    for (field, count) in [("agents", agents), ("tasks", tasks)] {
        if count as u64 > REQUEST_TASKS_MAX {
            return refuse(field, format!("({count}) must be at most {REQUEST_TASKS_MAX}"));
        }
    }
    let tables = [("cost", &request.cost, entries), ("weight", &request.weight, entries)];
    for (field, table, wanted) in tables.into_iter().chain([("capacity", &request.capacity, agents as u64)]) {
        if table.len() as u64 != wanted {
            return refuse(
                field,
                format!("has {} entries; {agents} agents and {tasks} tasks need {wanted}", table.len()),
            );
        }
        if let Some((i, value)) = table.iter().enumerate().find(|(_, v)| !(0..=NUMBER_MAX).contains(*v)) {
            return refuse(&format!("{field}[{i}]"), format!("({value}) must be from 0 to {NUMBER_MAX}"));
        }
    }
    let by_task = |table: &[i64]| {
        (0..tasks).flat_map(|t| (0..agents).map(move |a| (t, a))).map(|(t, a)| table[a * tasks + t]).collect::<Vec<_>>()
    };
    let unplaced_microcny = 16 * (1 + request.cost.iter().copied().max().unwrap_or(0));
    let column = |class| Column { class, model: NONE, device_dim: NONE };
    let node = |(class, capacity): (u32, &i64)| {
        let mut free = [0; DIMS];
        free[0] = *capacity;
        Node { class, free, devices: 0..0 }
    };
    let task = |kind| Task { kind, unplaced_microcny, ..Task::default() };
    Ok(Problem {
        kinds: vec![Kind::default(); tasks],
        columns: (0..request.agents).map(column).collect(),
        classes: (0..request.agents).map(|i| Class { site: i, columns: i..i + 1, nodes: i..i + 1 }).collect(),
        nodes: (0..).zip(&request.capacity).map(node).collect(),
        tasks: (0..request.tasks).map(task).collect(),
        cost: by_task(&request.cost),
        weights: Weights::OfPair(by_task(&request.weight)),
        ..Problem::default()
    })
}
