//! A proven lower bound on what any solution costs, and the prices behind it.
//!
//! The capacities of each class are charged for instead of being kept (Lagrangian relaxation, per
//! class and resource). `smooth` finds prices, `exact` says what they prove. At the best prices the
//! bound is that of the linear relaxation with the nodes of a class thrown together. `knapsack` proves
//! more of tables, where it can solve what is left for each node.

mod ascent;
mod cases;
mod exact;
mod knapsack;
mod open;
mod proof;
mod relaxation;
mod shadow;
mod smooth;

use crate::assignment::problem::{Amounts, Problem, DIMS};
use relaxation::Relaxation;

pub use cases::Solved;
pub use proof::Proof;
pub use shadow::{shadow_prices, ShadowPrice};

/// Fractional bits of what a task is charged.
pub const CHARGE_SHIFT: u32 = 8;
/// Fractional bits of a price.
pub const PRICE_SHIFT: u32 = 20;

/// What a unit of each resource of each class is worth: micro-CNY per hour in 2^PRICE_SHIFT parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prices {
    pub of_class: Vec<Amounts>,
}

impl Prices {
    /// Nothing is charged for.
    pub fn none(problem: &Problem) -> Self {
        Self { of_class: vec![[0; DIMS]; problem.classes.len()] }
    }
}

/// What has been proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// No solution costs less.
    pub microcny: i128,
    pub prices: Prices,
}

/// Prices whose bound is near the best there is. `proceed` is shown the bound so far, and may end
/// the climb early. The outcome is the same on any number of threads.
pub fn prices(problem: &Problem, threads: usize, mut proceed: impl FnMut(i128) -> bool) -> Bound {
    let relaxation = Relaxation::of(problem);
    let free = Prices::none(problem);
    let mut best = Bound { microcny: exact::bound_microcny(&relaxation, &free, threads), prices: free };
    smooth::climb(&relaxation, threads, |point| {
        if let Some(point) = point {
            let of_class = point.chunks(DIMS).map(|prices| std::array::from_fn(|d| fixed(prices[d]))).collect();
            let prices = Prices { of_class };
            let microcny = exact::bound_microcny(&relaxation, &prices, threads);
            if microcny > best.microcny {
                best = Bound { microcny, prices };
            }
        }
        proceed(best.microcny)
    });
    best
}

/// A price in parts; far beyond any cost it is cut off, which leaves it valid.
fn fixed(price_microcny: f64) -> i64 {
    (price_microcny * f64::from(1 << PRICE_SHIFT)).round().clamp(0.0, (1_u64 << 56) as f64) as i64
}
