//! The value of prices, exactly: whatever the prices are, as long as none is negative, no
//! solution costs less than what comes out here (weak duality).

use std::ops::{Add, Mul};

use super::relaxation::{Relaxation, TERMS};
use super::{Prices, PRICE_SHIFT};
use crate::assignment::problem::{range, Weights, DIMS, NONE, REFUSED};
use crate::threads::shared;

/// Terms below this leave room in an i64 for their sum.
const NARROW: f64 = (1_u64 << 60) as f64;
/// Fewer are not worth a thread.
const PAIRS_PER_THREAD: usize = 1 << 18;

/// No solution costs less. Threads share the kinds; whole numbers are added up, so the result is
/// the same for any number of them.
pub fn bound_microcny(relaxation: &Relaxation<'_>, prices: &Prices, threads: usize) -> i128 {
    let of_columns = ColumnPrices::new(relaxation, prices);
    let kinds = relaxation.problem.kinds.len();
    let part = |first: usize, count: usize| {
        let mut pass = Pass::new(relaxation, &of_columns);
        (first..kinds.min(first + count)).for_each(|kind| pass.kind(kind as u32));
        pass.scaled
    };
    let pairs = kinds * relaxation.problem.columns.len();
    let parts = threads.clamp(1, 1 + pairs / PAIRS_PER_THREAD);
    let each = kinds.div_ceil(parts).max(1);
    let sums = shared(parts, parts, |i| part((i * each).min(kinds), each));
    let scaled = sums.into_iter().sum::<i128>() - price_of_capacity(relaxation, prices);
    // Costs are whole, so a part counts as one.
    -((-scaled) >> PRICE_SHIFT)
}

fn price_of_capacity(relaxation: &Relaxation<'_>, prices: &Prices) -> i128 {
    let of_class = relaxation.free.iter().zip(&prices.of_class);
    of_class.flat_map(|(free, price)| (0..DIMS).map(|d| i128::from(free[d]) * i128::from(price[d]))).sum()
}

/// Prices column by column, one list for each term.
struct ColumnPrices {
    of_term: [Vec<i64>; TERMS],
    highest: [i64; TERMS],
}

impl ColumnPrices {
    fn new(relaxation: &Relaxation<'_>, prices: &Prices) -> Self {
        let price = |slot: u32| match slot {
            NONE => 0,
            slot => prices.of_class[slot as usize / DIMS][slot as usize % DIMS],
        };
        let term = |t: usize| relaxation.slots.iter().map(|slots| price(slots[t])).collect::<Vec<_>>();
        let of_term: [Vec<i64>; TERMS] = std::array::from_fn(term);
        let highest = std::array::from_fn(|t| of_term[t].iter().copied().max().unwrap_or(0));
        Self { of_term, highest }
    }
}

struct Pass<'a> {
    relaxation: &'a Relaxation<'a>,
    prices: &'a ColumnPrices,
    narrow: Vec<i64>,
    wide: Vec<i128>,
    /// In micro-CNY per hour and 2^PRICE_SHIFT parts.
    scaled: i128,
}

impl<'a> Pass<'a> {
    fn new(relaxation: &'a Relaxation<'a>, prices: &'a ColumnPrices) -> Self {
        let width = relaxation.problem.columns.len();
        Self { relaxation, prices, narrow: vec![0; width], wide: Vec::new(), scaled: 0 }
    }

    /// Adds the tasks of one kind.
    fn kind(&mut self, kind: u32) {
        let relaxation = self.relaxation;
        let (most, weight) = match &relaxation.problem.weights {
            Weights::OfKind => (relaxation.highest[kind as usize], relaxation.kind_weight(kind)),
            Weights::OfPair(_) => {
                let weights = relaxation.pair_weights(kind);
                (relaxation.highest[kind as usize], [weights.iter().copied().max().unwrap_or(0), 0, 0])
            }
        };
        let terms = weight.iter().zip(&self.prices.highest).map(|(&w, &p)| w as f64 * p as f64);
        let largest = terms.fold(most as f64 * f64::from(1 << PRICE_SHIFT), f64::max);
        if largest < NARROW {
            let mut costs = std::mem::take(&mut self.narrow);
            self.reduced(kind, i64::MAX, &mut costs);
            self.choose(kind, &costs, i64::MAX);
            self.narrow = costs;
        } else {
            let mut costs = std::mem::take(&mut self.wide);
            costs.resize(self.narrow.len(), 0);
            self.reduced(kind, i128::MAX, &mut costs);
            self.choose(kind, &costs, i128::MAX);
            self.wide = costs;
        }
    }

    /// Cost plus price times weight for each column.
    fn reduced<T>(&self, kind: u32, out: T, reduced: &mut [T])
    where
        T: Copy + From<i64> + Add<Output = T> + Mul<Output = T>,
    {
        let relaxation = self.relaxation;
        let costs = relaxation.problem.costs(kind);
        let [first, second, third] = &self.prices.of_term;
        let one = T::from(1 << PRICE_SHIFT);
        match &relaxation.problem.weights {
            Weights::OfKind => {
                let [a, b, c] = relaxation.kind_weight(kind).map(T::from);
                let prices = first.iter().zip(second).zip(third);
                for ((reduced, &cost), ((&p, &q), &r)) in reduced.iter_mut().zip(costs).zip(prices) {
                    *reduced = match cost {
                        REFUSED => out,
                        cost => T::from(cost) * one + a * T::from(p) + b * T::from(q) + c * T::from(r),
                    };
                }
            }
            Weights::OfPair(_) => {
                let pairs = costs.iter().zip(relaxation.pair_weights(kind)).zip(first);
                for (reduced, ((&cost, &weight), &p)) in reduced.iter_mut().zip(pairs) {
                    *reduced = match cost {
                        REFUSED => out,
                        cost => T::from(cost) * one + T::from(weight) * T::from(p),
                    };
                }
            }
        }
        if !relaxation.fits_everywhere(kind) {
            let out_of_room = (0..reduced.len() as u32).filter(|&column| !relaxation.fits(kind, column));
            out_of_room.for_each(|column| reduced[column as usize] = out);
        }
    }

    /// Adds each group's cheapest choice.
    fn choose<T>(&mut self, kind: u32, reduced: &[T], out: T)
    where
        T: Copy + Ord + Into<i128>,
    {
        let cheapest = least(reduced, out);
        for group in self.relaxation.groups_of(kind) {
            let mut choice = cheapest.map(|cost| cost + (i128::from(group.move_microcny) << PRICE_SHIFT));
            if let Some(class) = self.relaxation.problem.classes.get(group.home_class as usize) {
                let home = least(&reduced[range(&class.columns)], out);
                choice = [home, choice].into_iter().flatten().min();
            }
            let unplaced = i128::from(group.unplaced_microcny) << PRICE_SHIFT;
            let count = i128::from(group.count);
            match choice {
                Some(cost) if cost < unplaced => self.scaled += count * cost,
                _ => self.scaled += count * unplaced,
            }
        }
    }
}

/// The cheapest of some columns.
fn least<T: Copy + Ord + Into<i128>>(reduced: &[T], out: T) -> Option<i128> {
    reduced.iter().copied().min().filter(|&cost| cost != out).map(Into::into)
}
