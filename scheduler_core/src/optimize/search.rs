//! From a start to a better solution: prices, a construction that follows them, then rounds of
//! steps. Every round looks for a fixed number of steps, on any number of threads, and takes them
//! in a fixed order; so the outcome does not depend on the threads.

use std::collections::HashSet;

use super::apportion::apportion;
use super::construct::{construct, Order};
use super::fill::fill;
use super::guide::Guide;
use super::insert::insert_all;
use super::moves::{dive, drain, gang, repack, Reach, Step};
use super::share::Share;
use super::stop::{has_time, over, Progress, Reason, Stop, Watch};
use crate::assignment::problem::NONE;
use crate::assignment::room::Room;
use crate::assignment::solution::{Seat, Solution};
use crate::bound::{self, Bound, Proof, Solved};
use crate::seed::{mixed, Draws};
use crate::threads::shared;

/// What a run may do.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub seed: u64,
    pub threads: usize,
    /// Most running tasks that may be away from home at the end.
    pub moves_max: u32,
}

/// What a run has come to.
pub struct Found<'p> {
    pub solution: Solution<'p>,
    pub bound: Bound,
    pub rounds: u64,
    pub reason: Reason,
    pub progress: Vec<Progress>,
}

/// Steps differ in size: what a small one cannot undo a large one may.
const REACHES: [Reach; 4] = [
    Reach { nodes: 3, tasks: 16, looks: 4_000 },
    Reach { nodes: 4, tasks: 24, looks: 6_000 },
    Reach { nodes: 6, tasks: 30, looks: 8_000 },
    Reach { nodes: 2, tasks: 30, looks: 6_000 },
];
/// Dives that are made at once.
const DIVES: u64 = 2;
/// Where there are gangs, of so many steps one is about a whole gang.
const GANG_STEPS: usize = 8;
/// Where tasks run already, of so many steps one drains a site.
const DRAIN_STEPS: usize = 8;
/// In large problems there is much to gain everywhere, so each step looks so many times less.
const LARGE_HURRY: usize = 4;
/// Small problems may pass through worse solutions; the best one is kept beside.
const WANDERING_TASKS_MAX: usize = 10_000;
/// How much worse a step may be: on average this part of the gap to the bound, shared by all tasks.
const HEAT: f64 = 3.0;
/// What of the knapsacks of a table is solved before the first round: cells.
const FIRST_CELLS: u64 = 1 << 28;
/// Rounds without gain after which a problem counts as solved as well as it can be.
const PATIENCE_ROUNDS: u64 = 20_000;

/// Improves on the start, which it never makes worse.
pub fn solve<'p>(start: Solution<'p>, settings: Settings, stop: &mut dyn Stop) -> Found<'p> {
    let problem = start.problem;
    let mut bound = prices(&start, settings.threads, stop);
    let progress = at_start(&start, bound.microcny);
    if let Some(reason) = over(progress, stop) {
        let progress = vec![Progress { elapsed_ms: stop.elapsed_ms(), ..progress }];
        return Found { solution: start, rounds: 0, reason, progress, bound };
    }
    let prices = bound.prices.clone();
    let guide = Guide::new(problem, &prices, settings.threads);
    let solution = constructed(start, &guide, bound.microcny, stop);
    let mut proof = Proof::of(problem, &bound.prices);
    let mut search = Search {
        room: Room::of(&solution),
        wanders: problem.tasks.len() <= WANDERING_TASKS_MAX,
        runs: problem.tasks.iter().any(|task| task.home != NONE),
        best: Vec::new(),
        best_microcny: solution.total_microcny(),
        draws: Draws::new(mixed(settings.seed, 1)),
        solution,
        guide: &guide,
        settings,
        share: Share::default(),
    };
    if let Some(proof) = &mut proof {
        let watch = Watch::new(at_start(&search.solution, bound.microcny), stop);
        let solved = proof.climb(search.best_microcny, FIRST_CELLS, settings.threads, &|| watch.goes_on());
        solved.iter().for_each(|solved| search.seat(solved));
        bound.microcny = bound.microcny.max(proof.bound_microcny());
    }
    let mut progress = Progress { elapsed_ms: stop.elapsed_ms(), ..at_start(&search.solution, bound.microcny) };
    let mut told = vec![progress];
    let reason = loop {
        if progress.objective_microcny <= progress.bound_microcny {
            break Reason::Optimal;
        }
        if let Some(reason) = stop.reached(&progress) {
            break reason;
        }
        if progress.rounds_without_gain >= PATIENCE_ROUNDS {
            break Reason::NoImprovement;
        }
        let round = progress.round + 1;
        let watch = Watch::new(progress, stop);
        let mut solved = None;
        let mut proved = bound.microcny;
        if let Some(proof) = &mut proof {
            let cells = search.share.cells_for_proof();
            solved = proof.climb(search.best_microcny, cells, settings.threads, &|| watch.goes_on());
            proved = proved.max(proof.bound_microcny());
        }
        match (&proof, solved) {
            (_, Some(solved)) => search.seat(&solved),
            (Some(proof), _) if search.share.is_dive_due() && dive::may_help(problem) => {
                search.dive(round, proof, &watch)
            }
            _ => search.round(round, proved, &watch),
        }
        if let Some(reason) = watch.reason() {
            break reason;
        }
        bound.microcny = proved;
        (progress.round, progress.bound_microcny) = (round, proved);
        progress.rounds_without_gain += 1;
        if search.best_microcny < progress.objective_microcny {
            progress.objective_microcny = search.best_microcny;
            progress.rounds_without_gain = 0;
            progress.unplaced = search.solution.nowhere().len() as u32;
            progress.elapsed_ms = stop.elapsed_ms();
            told.push(progress);
        }
    };
    Found { solution: search.at_best(), rounds: progress.round, reason, progress: told, bound }
}

fn prices(start: &Solution<'_>, threads: usize, stop: &mut dyn Stop) -> Bound {
    bound::prices(start.problem, threads, |bound_microcny| has_time(at_start(start, bound_microcny), stop))
}

fn at_start(solution: &Solution<'_>, bound_microcny: i128) -> Progress {
    Progress {
        round: 0,
        objective_microcny: solution.total_microcny(),
        bound_microcny,
        unplaced: solution.nowhere().len() as u32,
        elapsed_ms: 0,
        rounds_without_gain: 0,
    }
}

/// The better one of two: all that waits seated anew, or what is nowhere added to the start. The second
/// is tried where the first leaves tasks out or is dearer than the start; without time for either it is the start.
fn constructed<'p>(start: Solution<'p>, guide: &Guide<'p>, bound_microcny: i128, stop: &mut dyn Stop) -> Solution<'p> {
    let progress = at_start(&start, bound_microcny);
    let mut proceed = || has_time(progress, stop);
    let anew = seated_anew(start.clone(), guide, &mut proceed);
    if anew.nowhere().is_empty() && anew.total_microcny() < start.total_microcny() {
        return anew;
    }
    let mut added = start;
    if proceed() {
        let waiting = added.nowhere().to_vec();
        let mut room = construct(&mut added, guide, waiting, Order::MostToLose, &mut proceed);
        insert_all(&mut added, &mut room, guide, &|_| true, &mut proceed);
    }
    if anew.total_microcny() < added.total_microcny() {
        anew
    } else {
        added
    }
}

/// Lifts all that waits and seats it together: gangs first, then class by class what belongs there by
/// the prices, and what that has left over, where there is room and where room can be made.
fn seated_anew<'p>(mut solution: Solution<'p>, guide: &Guide<'p>, proceed: &mut dyn FnMut() -> bool) -> Solution<'p> {
    let problem = solution.problem;
    let waiting = (0..problem.tasks.len() as u32).filter(|&t| problem.tasks[t as usize].home == NONE);
    waiting.for_each(|t| {
        solution.lift(t);
    });
    let gangs = solution.nowhere().iter().copied().filter(|&t| problem.tasks[t as usize].gang != NONE).collect();
    construct(&mut solution, guide, gangs, Order::Largest, proceed);
    let shares = apportion(&solution, guide, proceed);
    // Cores and memory that are gone make devices useless, so those who need devices are seated first.
    let needs_devices = |kind: u32| problem.kinds[kind as usize].device_milli > 0;
    let (with, without): (Vec<_>, Vec<_>) = shares.into_iter().partition(|share| needs_devices(share.kind));
    fill(&mut solution, with, proceed);
    let left = solution.nowhere().iter().copied().filter(|&t| needs_devices(problem.tasks[t as usize].kind)).collect();
    let mut room = construct(&mut solution, guide, left, Order::Largest, proceed);
    insert_all(&mut solution, &mut room, guide, &needs_devices, proceed);
    fill(&mut solution, without, proceed);
    let left = solution.nowhere().to_vec();
    let mut room = construct(&mut solution, guide, left, Order::Largest, proceed);
    insert_all(&mut solution, &mut room, guide, &|_| true, proceed);
    solution
}

struct Search<'s, 'p> {
    solution: Solution<'p>,
    guide: &'s Guide<'p>,
    room: Room,
    settings: Settings,
    wanders: bool,
    /// Whether some of the tasks run already.
    runs: bool,
    /// The best seats while the solution is elsewhere; empty while it is the best.
    best: Vec<Seat>,
    best_microcny: i128,
    draws: Draws,
    share: Share,
}

impl<'p> Search<'_, 'p> {
    /// Takes what steps are found; none where the round is over before all have been looked for.
    fn round(&mut self, round: u64, bound_microcny: i128, watch: &Watch<'_>) {
        let count = (self.solution.problem.nodes.len() / 16).clamp(8, 256);
        let seed = mixed(self.settings.seed, round.wrapping_add(1));
        let steps = self.proposals(count, seed, bound_microcny, watch);
        if watch.reason().is_some() {
            return;
        }
        let (mut changed, mut seated) = (HashSet::new(), HashSet::new());
        let before = self.best_microcny;
        for step in steps {
            // One that waits may be in the steps of several nodes.
            let is_stale = step.nodes.iter().any(|node| changed.contains(node))
                || step.seats.iter().any(|(task, ..)| seated.contains(task));
            if !is_stale && self.take(&step) {
                seated.extend(step.seats.iter().map(|(task, ..)| *task));
                changed.extend(step.nodes);
            }
        }
        self.share.looked(count, before - self.best_microcny);
    }

    /// Dives from the best solution; changes nothing where the round is over before that is done.
    fn dive(&mut self, round: u64, proof: &Proof, watch: &Watch<'_>) {
        let best = self.at_best();
        let seed = mixed(self.settings.seed, !round);
        let found = shared(self.settings.threads, DIVES as usize, |i| {
            dive::propose(&best, proof, mixed(seed, i as u64), &|| watch.goes_on())
        });
        if watch.reason().is_some() {
            return;
        }
        let cells = found.iter().map(|(_, cells)| cells).sum();
        let before = self.best_microcny;
        // The others are about a solution that is gone when the best of them is taken.
        let steps = found.into_iter().filter_map(|(step, _)| step);
        if let Some(step) = steps.min_by_key(|step| step.delta_microcny) {
            self.solution = best;
            self.best.clear();
            self.room = Room::of(&self.solution);
            self.take(&step);
        }
        self.share.dived(cells, before - self.best_microcny);
    }

    /// Takes a solution that the proof has come upon.
    fn seat(&mut self, solved: &Solved) {
        let mut best = self.at_best();
        let problem = best.problem;
        (0..solved.places.len() as u32).for_each(|task| {
            best.lift(task);
        });
        for (task, &node) in (0..).zip(&solved.places) {
            if let Some(node_of) = problem.nodes.get(node as usize) {
                let column = problem.classes[node_of.class as usize].columns.start;
                best.put(task, node, column);
            }
        }
        debug_assert_eq!(best.total_microcny(), solved.cost_microcny());
        debug_assert!(best.total_microcny() < self.best_microcny, "it was looked for below the best");
        self.best_microcny = best.total_microcny();
        self.solution = best;
        self.best.clear();
        self.room = Room::of(&self.solution);
    }

    /// Steps by how much they gain.
    fn proposals(&mut self, count: usize, seed: u64, bound_microcny: i128, watch: &Watch<'_>) -> Vec<Step> {
        // What is left out counts far above any cost: heat by that would let every step pass.
        let tasks = &self.solution.problem.tasks;
        let left_out = self.solution.nowhere().iter().map(|&t| i128::from(tasks[t as usize].unplaced_microcny));
        let gap = (self.solution.total_microcny() - left_out.sum::<i128>() - bound_microcny).max(0);
        let heat = if self.wanders { HEAT * gap as f64 / self.solution.problem.tasks.len() as f64 } else { 0.0 };
        let allowances: Vec<i64> = (0..count).map(|_| allowance(heat, &mut self.draws)).collect();
        let moves_left = self.settings.moves_max.saturating_sub(self.solution.moved());
        let look = |i: usize| {
            if !watch.goes_on() {
                return None;
            }
            let seed = mixed(seed, i as u64);
            if i.is_multiple_of(GANG_STEPS) && !self.solution.problem.gangs.is_empty() {
                return gang::propose(&self.solution, self.guide, allowances[i], seed);
            }
            if self.runs && i % DRAIN_STEPS == 1 {
                return drain::propose(&self.solution, self.guide, &self.room, moves_left, seed);
            }
            let mut reach = REACHES[i % REACHES.len()];
            reach.looks /= if self.wanders { 1 } else { LARGE_HURRY };
            repack::propose(&self.solution, self.guide, &self.room, reach, allowances[i], seed)
        };
        let found = shared(self.settings.threads, count, look);
        let mut steps: Vec<(usize, Step)> =
            found.into_iter().enumerate().filter_map(|(i, step)| Some((i, step?))).collect();
        steps.sort_by_key(|(i, step)| (step.delta_microcny, *i));
        steps.into_iter().map(|(_, step)| step).collect()
    }

    /// Takes the step unless it moves too many running tasks.
    fn take(&mut self, step: &Step) -> bool {
        let was_best = self.solution.total_microcny() == self.best_microcny && self.best.is_empty();
        if was_best && step.delta_microcny > 0 {
            self.best = self.seats();
        }
        let before = self.solution.total_microcny();
        let lifted: Vec<(u32, Seat)> = step.seats.iter().map(|&(t, ..)| (t, self.solution.lift(t))).collect();
        let seated = step.seats.iter().filter(|(_, node, _)| *node != NONE);
        let all = seated.clone().all(|&(task, node, column)| self.solution.put(task, node, column));
        debug_assert!(all, "the step was found on this solution");
        if !all || self.solution.moved() > self.settings.moves_max {
            seated.for_each(|&(task, ..)| {
                self.solution.lift(task);
            });
            lifted.into_iter().for_each(|(task, seat)| self.solution.put_back(task, seat));
            if was_best {
                self.best.clear();
            }
            return false;
        }
        debug_assert_eq!(before + i128::from(step.delta_microcny), self.solution.total_microcny());
        step.nodes.iter().for_each(|&node| self.room.changed(&self.solution, node));
        if self.solution.total_microcny() < self.best_microcny {
            self.best_microcny = self.solution.total_microcny();
            self.best.clear();
        }
        true
    }

    fn seats(&self) -> Vec<Seat> {
        (0..self.solution.problem.tasks.len() as u32).map(|t| self.solution.seat(t)).collect()
    }

    fn at_best(&self) -> Solution<'p> {
        let mut best = self.solution.clone();
        if !self.best.is_empty() {
            (0..self.best.len() as u32).for_each(|t| {
                best.lift(t);
            });
            self.best.iter().enumerate().for_each(|(t, seat)| best.put_back(t as u32, *seat));
        }
        best
    }
}

/// How much worse a step may be: exponentially distributed with this mean (Metropolis).
fn allowance(heat_microcny: f64, draws: &mut Draws) -> i64 {
    if heat_microcny <= 0.0 {
        return 0;
    }
    let even = (draws.below(1 << 20) as f64 + 0.5) / f64::from(1 << 20);
    (-heat_microcny * even.ln()) as i64
}
