//! Where charges prove no more, cases do: some task stands on this node, or on that one, or is left out, and the least
//! that is proved of any case is proved of all (branch and bound; Ross and Soland, "A branch and bound algorithm for
//! the generalized assignment problem", Mathematical Programming 8, 1975). In each case the charges climb on, and what they
//! prove to cost no less than what is known is closed (variable fixing; Posta, Ferland and Michelon, "An exact method with
//! variable fixing for solving the generalized assignment problem", Computational Optimization and Applications 52, 2012).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ascent::{whole, Ascent};
use super::knapsack::{ByPlace, Knapsacks};
use super::open::Open;
use super::CHARGE_SHIFT;
use crate::threads::shared;

/// Cases that are split at once.
const AT_ONCE: usize = 8;
/// From so many of them the way leads on downwards, which finds solutions, for about so many cells of knapsacks. With the
/// others the least that is proved rises.
const PLUNGES: usize = 2;
const CELLS_PER_PLUNGE: u64 = 1 << 26;
/// More words of all cases would take too much memory.
const WORDS_MAX: usize = 1 << 25;
/// Where one step of the charges takes more cells of knapsacks, cases take too long.
const CELLS_PER_STEP_MAX: u64 = 1 << 23;
/// Steps of the charges in a case, how long the first is, and without how many gains they become shorter.
const STEPS: usize = 24;
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

#[derive(Default)]
struct Split {
    cases: Vec<Case>,
    solved: Option<Solved>,
    cells: u64,
}

/// The cases in which a solution may cost less than what is known.
pub struct Cases {
    /// By what is proved of them, and the order in which they came.
    open: BTreeMap<(i64, u64), Case>,
    /// How many there have been.
    count: u64,
    /// What solutions cost at least that are in none of them.
    closed: i64,
    open_max: usize,
}

impl Cases {
    /// One case, of all solutions.
    pub fn new(knapsacks: &Knapsacks, value: i64, charges: &[f64]) -> Self {
        let case = Case { value, charges: charges.into(), open: knapsacks.all_open() };
        let is_small = knapsacks.cells() <= CELLS_PER_STEP_MAX;
        let open_max = if is_small { WORDS_MAX / (case.open.words() + charges.len()).max(1) } else { 0 };
        let mut cases = Self { open: BTreeMap::new(), count: 0, closed: i64::MAX, open_max };
        cases.add(case);
        cases
    }

    fn add(&mut self, case: Case) {
        self.count += 1;
        self.open.insert((case.value, self.count), case);
    }

    /// No solution costs less, in parts.
    pub fn value(&self) -> i64 {
        self.open.first_key_value().map_or(self.closed, |((value, _), _)| self.closed.min(*value))
    }

    /// Whether there is nothing to be split, or more than there is room or time for.
    pub fn is_done(&self) -> bool {
        self.open.is_empty() || self.open.len() > self.open_max
    }

    /// Splits the cases of which least is proved, and says how many cells of knapsacks it took. Some solution costs
    /// `known`; one that costs less may come with it. None, and nothing done, where `goes_on` says no.
    pub fn split(
        &mut self,
        knapsacks: &Knapsacks,
        known: i64,
        threads: usize,
        goes_on: &(dyn Fn() -> bool + Sync),
    ) -> Option<(u64, Option<Solved>)> {
        let least: Vec<&Case> = self.open.values().take(AT_ONCE).collect();
        let of = |i: usize| plunge(knapsacks, least[i], known, if i < PLUNGES { CELLS_PER_PLUNGE } else { 0 }, goes_on);
        let splits = shared(threads, least.len(), of);
        let splits = splits.into_iter().collect::<Option<Vec<Split>>>()?;
        splits.iter().for_each(|_| {
            self.open.pop_first();
        });
        // What is closed costs no less than what is known.
        self.closed = self.closed.min(known);
        let (mut cells, mut best) = (0, None::<Solved>);
        for split in splits {
            cells += split.cells;
            split.cases.into_iter().for_each(|case| self.add(case));
            if let Some(solved) = split.solved {
                self.closed = self.closed.min(solved.cost);
                best = best.filter(|best| best.cost <= solved.cost).or(Some(solved));
            }
        }
        Some((cells, best))
    }
}

/// Splits a case, and goes on with the one that looks best of those into which the last one fell, for about so many
/// cells.
fn plunge(all: &Knapsacks, case: &Case, known: i64, cells: u64, goes_on: &(dyn Fn() -> bool + Sync)) -> Option<Split> {
    let mut last = split(all, case, known, goes_on)?;
    let mut beside = Vec::new();
    while last.cells < cells {
        let Some(least) = (0..last.cases.len()).min_by_key(|&i| last.cases[i].value) else { break };
        let case = last.cases.swap_remove(least);
        beside.append(&mut last.cases);
        let next = split(all, &case, known, goes_on)?;
        last = Split { cells: last.cells + next.cells, ..next };
    }
    last.cases.append(&mut beside);
    Some(last)
}

/// The cases into which a case falls, as far as they may have solutions that cost less than what is known.
fn split(all: &Knapsacks, case: &Case, known: i64, goes_on: &(dyn Fn() -> bool + Sync)) -> Option<Split> {
    let mut split = Split::default();
    let limit = known - (1 << CHARGE_SHIFT);
    let mut open = case.open.clone();
    if case.value > limit {
        return Some(split);
    }
    let Some(part) = all.within(&mut open) else { return Some(split) };
    let mut ascent = Ascent::new(case.charges.to_vec(), LENGTH, PATIENCE);
    for _ in 0..STEPS {
        let taken = part.take(&ascent.charges(), 1, goes_on)?;
        split.cells += part.cells();
        if taken.value > limit {
            return Some(split);
        }
        if taken.slope.iter().all(|&slope| slope == 0) {
            taken.pairs.iter().for_each(|&(n, task)| open.only(task, n));
            let places = (0..all.most().len() as u32).map(|task| open.places(task).next().unwrap_or(open.nowhere()));
            split.solved = Some(Solved { cost: taken.value, places: places.collect() });
            return Some(split);
        }
        ascent.step(taken.value, &taken.slope, known, all.most());
    }
    let charges = whole(&ascent.best_charges);
    let by_place = part.by_place(&charges, ascent.best, goes_on)?;
    split.cells += 3 * part.cells();
    for (task, places) in &by_place {
        places.iter().filter(|(_, at)| *at > limit).for_each(|&(place, _)| open.close(*task, place));
    }
    let value = ascent.best.max(case.value);
    // Few cases that are far along on the way to the limit are best.
    let left = |at: i64| (limit - at).max(0) as f64 / (limit - value + 1) as f64;
    let score = |(task, places): &ByPlace| -> f64 {
        places.iter().filter(|&&(place, _)| open.has(*task, place)).map(|&(_, at)| left(at).powi(8)).sum()
    };
    let scores = by_place.iter().map(|of_task| (score(of_task), of_task));
    // While any task is not fixed there is one.
    let Some((_, (task, places))) = scores.min_by(|a, b| a.0.total_cmp(&b.0)) else { return Some(split) };
    let charges: Arc<[f64]> = ascent.best_charges.into();
    for &(place, at) in places.iter().filter(|&&(place, _)| open.has(*task, place)) {
        let mut open = open.clone();
        open.only(*task, place);
        split.cases.push(Case { value: at.max(value), charges: charges.clone(), open });
    }
    Some(split)
}
