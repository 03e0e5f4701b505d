//! What the bound's prices tell the search: a pair's cost plus the price of what it takes, its
//! adjusted cost. Where the prices are right a task belongs where that is least.

use crate::assignment::problem::{Amounts, Problem, DIMS, REFUSED};
use crate::bound::{Prices, PRICE_SHIFT};
use crate::threads::shared;

/// Adjusted costs are in parts of a micro-CNY per hour, 2^PART_BITS of them.
pub const PART_BITS: u32 = 8;
/// Columns of a kind that are kept in order. The rest is looked through when these are full.
const NEAR_MAX: usize = 16;
/// Columns that tasks of a kind are spread over: of few a part of those open to it, and so many at the least, since
/// what is far dearer is better left to others. Of many all: kinds have much the same best ones, and what is
/// no kind's would stay empty. Tried with 500, 1,000 and 5,000 columns.
const COLUMNS_FEW: usize = 750;
const WIDE_PART: usize = 3;
const WIDE_MIN: usize = 96;
/// Where sums of a few dozen cannot overflow.
const HIGHEST: i64 = 1 << 55;

pub struct Guide<'p> {
    pub problem: &'p Problem,
    prices: Prices,
    /// For each kind its best columns with their adjusted cost, best first.
    near: Vec<Vec<(i64, u32)>>,
}

impl<'p> Guide<'p> {
    pub fn new(problem: &'p Problem, prices: &Prices, threads: usize) -> Self {
        let mut guide = Self { problem, prices: prices.clone(), near: Vec::new() };
        guide.near = shared(threads, problem.kinds.len(), |kind| {
            let mut all: Vec<_> = guide.allowed(kind as u32).collect();
            if all.len() > NEAR_MAX {
                all.select_nth_unstable(NEAR_MAX - 1);
                all.truncate(NEAR_MAX);
            }
            all.sort_unstable();
            all.shrink_to_fit();
            all
        });
        guide
    }

    /// The columns that are open to a kind, with their adjusted costs.
    fn allowed(&self, kind: u32) -> impl Iterator<Item = (i64, u32)> + '_ {
        let open = (0..self.problem.columns.len() as u32).filter(move |&c| self.problem.cost(kind, c) != REFUSED);
        open.map(move |column| (self.adjusted(kind, column), column))
    }

    /// All columns that are open to a kind, best first.
    pub fn all(&self, kind: u32) -> Vec<(i64, u32)> {
        let mut all: Vec<_> = self.allowed(kind).collect();
        all.sort_unstable();
        all
    }

    /// The best columns of a kind, best first.
    pub fn near(&self, kind: u32) -> &[(i64, u32)] {
        &self.near[kind as usize]
    }

    /// The columns that tasks of a kind are spread over, in no order of cost.
    pub fn wide(&self, kind: u32) -> Vec<u32> {
        let mut all: Vec<_> = self.allowed(kind).collect();
        let count = (all.len() / WIDE_PART).max(WIDE_MIN);
        if self.problem.columns.len() <= COLUMNS_FEW && all.len() > count {
            all.select_nth_unstable(count - 1);
            all.truncate(count);
        }
        let mut columns: Vec<u32> = all.into_iter().map(|(_, column)| column).collect();
        columns.sort_unstable();
        columns
    }

    /// The least adjusted cost of a kind anywhere.
    pub fn least(&self, kind: u32) -> i64 {
        self.near(kind).first().map_or(HIGHEST, |(adjusted, _)| *adjusted)
    }

    /// Cost plus the price of what the pair takes. The pair must be allowed.
    pub fn adjusted(&self, kind: u32, column: u32) -> i64 {
        let weight = self.problem.weight(kind, column);
        let price = self.price(self.problem.columns[column as usize].class);
        let taken: i128 = (0..DIMS).map(|d| i128::from(price[d]) * i128::from(weight[d])).sum();
        let cost = i128::from(self.problem.cost(kind, column)) << PART_BITS;
        (cost + (taken >> (PRICE_SHIFT - PART_BITS))).min(i128::from(HIGHEST)) as i64
    }

    /// Price of each resource of a class, in 2^PRICE_SHIFT parts.
    pub fn price(&self, class: u32) -> &Amounts {
        &self.prices.of_class[class as usize]
    }
}

/// Micro-CNY per hour in parts.
pub fn parts(microcny: i64) -> i64 {
    microcny.min(HIGHEST >> PART_BITS) << PART_BITS
}
