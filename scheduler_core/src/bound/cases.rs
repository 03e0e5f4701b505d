//! Where charges prove no more, cases do: some task stands on this node, or on that one, or is left out, and so on (branch
//! and bound; Ross and Soland, "A branch and bound algorithm for the generalized assignment problem", Mathematical
//! Programming 8, 1975). It is asked whether any solution costs no more than a limit a little above what is proved, then than a
//! higher one: so what the charges of a case prove to cost more is closed, which leaves little of the case (variable fixing;
//! Posta, Ferland and Michelon, "An exact method with variable fixing for solving the generalized assignment problem",
//! Computational Optimization and Applications 52, 2012).

use std::sync::Arc;

use super::ascent::{whole, Ascent};
use super::knapsack::{ByPlace, Knapsacks};
use super::open::Open;
use super::CHARGE_SHIFT;
use crate::threads::shared;

/// The least difference between what solutions cost.
const ONE: i64 = 1 << CHARGE_SHIFT;
/// The limit is above what is proved by this part of what is between that and what is known.
const PARTS: i64 = 32;
/// Cases that are looked into at once, for about so many cells of knapsacks each.
const AT_ONCE: usize = 16;
const CELLS_AT_ONCE: u64 = 1 << 22;
/// More words of all cases would take too much memory.
const WORDS_MAX: usize = 1 << 25;
/// Where one step of the charges takes more cells of knapsacks, cases take too long.
const CELLS_PER_STEP_MAX: u64 = 1 << 23;
/// Steps of the charges in a case, how long the first is, and without how many gains they become shorter.
const STEPS: usize = 12;
const LENGTH: f64 = 0.5;
const PATIENCE: u32 = 4;

struct Case {
    /// No solution of it costs less, in 2^CHARGE_SHIFT parts.
    value: i64,
    charges: Arc<[f64]>,
    open: Open,
}

/// A solution: the place of each task, and what all of them cost in parts.
pub struct Solved {
    pub cost: i64,
    pub places: Vec<u32>,
}

impl Solved {
    pub fn cost_microcny(&self) -> i128 {
        i128::from(self.cost) >> CHARGE_SHIFT
    }
}

/// What has come of a case.
#[derive(Default)]
struct Look {
    /// Into which it falls, the last one next.
    left: Vec<Case>,
    solved: Option<Solved>,
    cells: u64,
}

/// The cases in which a solution may cost no more than the limit.
pub struct Cases {
    charges: Arc<[f64]>,
    /// No solution costs less, in parts: the limits before this one have shown it.
    proved: i64,
    limit: i64,
    /// The last one is next: depth first.
    left: Vec<Case>,
    /// The least cost of a solution that the cases have come upon.
    found: i64,
    left_max: usize,
}

impl Cases {
    /// None yet; these charges prove this value.
    pub fn new(knapsacks: &Knapsacks, value: i64, charges: &[f64]) -> Self {
        let is_small = knapsacks.cells() <= CELLS_PER_STEP_MAX;
        let words = knapsacks.all_open().words() + charges.len();
        let left_max = if is_small { WORDS_MAX / words.max(1) } else { 0 };
        Self { charges: charges.into(), proved: value, limit: value, left: Vec::new(), found: i64::MAX, left_max }
    }

    /// No solution costs less, in parts.
    pub fn value(&self) -> i64 {
        self.proved
    }

    /// Whether there is more than there is room or time for.
    pub fn is_too_large(&self) -> bool {
        self.left.len() >= self.left_max
    }

    /// Looks into the next cases, and says how many cells of knapsacks it took. Some solution costs `known`, which is
    /// more than is proved; one that costs less may come with it. None, and nothing done, where `goes_on` says no.
    pub fn look(
        &mut self,
        knapsacks: &Knapsacks,
        known: i64,
        threads: usize,
        goes_on: &(dyn Fn() -> bool + Sync),
    ) -> Option<(u64, Option<Solved>)> {
        let known = known.min(self.found);
        if self.left.is_empty() {
            self.limit = i64::MAX;
            self.left.push(Case { value: self.proved, charges: self.charges.clone(), open: knapsacks.all_open() });
        }
        // Costs are whole, so that much at least is asked; of what has been closed nothing opens where the limit falls.
        let least = (self.proved + ONE - 1) / ONE * ONE;
        self.limit = self.limit.min(least + (known - least) / PARTS / ONE * ONE);
        let next = self.left.len().saturating_sub(AT_ONCE);
        let of = |i: usize| into(knapsacks, &self.left[next + i], self.limit, goes_on);
        let looks = shared(threads, self.left.len() - next, of);
        let looks = looks.into_iter().collect::<Option<Vec<Look>>>()?;
        self.left.truncate(next);
        let (mut cells, mut best) = (0, None::<Solved>);
        for look in looks {
            cells += look.cells;
            self.left.extend(look.left);
            best = look.solved.into_iter().chain(best).min_by_key(|solved| solved.cost);
        }
        self.found = best.iter().fold(self.found, |found, solved| found.min(solved.cost));
        if self.left.is_empty() {
            self.proved = (self.limit + ONE).min(self.found);
        }
        Some((cells, best))
    }
}

/// Goes depth first into a case, for about so many cells.
fn into(all: &Knapsacks, case: &Case, limit: i64, goes_on: &(dyn Fn() -> bool + Sync)) -> Option<Look> {
    let mut look = split(all, case, limit, goes_on)?;
    while look.cells < CELLS_AT_ONCE && look.solved.is_none() {
        let Some(next) = look.left.pop() else { break };
        let more = split(all, &next, limit, goes_on)?;
        look.left.extend(more.left);
        (look.cells, look.solved) = (look.cells + more.cells, more.solved);
    }
    Some(look)
}

/// The cases into which a case falls, as far as they may have solutions that cost no more than the limit.
fn split(all: &Knapsacks, case: &Case, limit: i64, goes_on: &(dyn Fn() -> bool + Sync)) -> Option<Look> {
    let mut look = Look { cells: 1, ..Look::default() };
    let mut open = case.open.clone();
    if case.value > limit {
        return Some(look);
    }
    let Some(part) = all.within(&mut open) else { return Some(look) };
    let mut ascent = Ascent::new(case.charges.to_vec(), LENGTH, PATIENCE);
    for _ in 0..STEPS {
        let taken = part.take(&ascent.charges(), 1, goes_on)?;
        look.cells += part.cells();
        if taken.value > limit {
            return Some(look);
        }
        if taken.slope.iter().all(|&slope| slope == 0) {
            taken.pairs.iter().for_each(|&(n, task)| open.only(task, n));
            let places = (0..all.most().len() as u32).map(|task| open.places(task).next().unwrap_or(open.nowhere()));
            look.solved = Some(Solved { cost: taken.value, places: places.collect() });
            return Some(look);
        }
        ascent.step(taken.value, &taken.slope, limit + ONE, all.most());
    }
    let charges = whole(&ascent.best_charges);
    let by_place = part.by_place(&charges, ascent.best, goes_on)?;
    look.cells += 3 * part.cells();
    for (task, places) in &by_place {
        places.iter().filter(|(_, at)| *at > limit).for_each(|&(place, _)| open.close(*task, place));
    }
    let value = ascent.best.max(case.value);
    // Few cases that are far along on the way to the limit are best.
    let left = |at: i64| (limit - at).max(0) as f64 / (limit - value + 1) as f64;
    let score = |(task, places): &ByPlace| -> f64 {
        places.iter().filter(|&&(place, _)| open.has(*task, place)).map(|&(_, at)| left(at).powi(4)).sum()
    };
    let scores = by_place.iter().map(|of_task| (score(of_task), of_task));
    // While any task is not fixed there is one.
    let Some((_, (task, places))) = scores.min_by(|a, b| a.0.total_cmp(&b.0)) else { return Some(look) };
    let charges: Arc<[f64]> = ascent.best_charges.into();
    let mut places: Vec<(u32, i64)> = places.iter().filter(|&&(place, _)| open.has(*task, place)).copied().collect();
    places.sort_by_key(|&(place, at)| (std::cmp::Reverse(at), place));
    for (place, at) in places {
        let mut open = open.clone();
        open.only(*task, place);
        look.left.push(Case { value: at.max(value), charges: charges.clone(), open });
    }
    Some(look)
}
