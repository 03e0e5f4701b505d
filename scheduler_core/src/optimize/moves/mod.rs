//! The steps of the search, one a file. Each lifts some tasks and seats them anew: most in the best way that
//! `seats` finds. It reads the solution and changes nothing, so that many threads can look at once.

pub mod dive;
pub mod drain;
pub mod gang;
mod pick;
pub mod repack;
mod seats;

use crate::assignment::solution::Solution;
use seats::Seats;

/// How much one step may look at.
#[derive(Debug, Clone, Copy)]
pub struct Reach {
    pub nodes: usize,
    pub tasks: usize,
    pub looks: usize,
}

/// Where tasks would go instead.
#[derive(Debug, Clone)]
pub struct Step {
    /// Task, node (NONE: nowhere) and column, in the order in which they take their devices.
    pub seats: Vec<(u32, u32, u32)>,
    /// Whose free capacity the step counts on.
    pub nodes: Vec<u32>,
    pub delta_microcny: i64,
}

impl Step {
    /// The best other seats of these tasks that cost at most `allowance` more than those they have.
    fn of(
        solution: &Solution<'_>,
        seats: &mut Seats<'_, '_>,
        nodes: Vec<u32>,
        tasks: &[u32],
        allowance_microcny: i64,
        looks: usize,
    ) -> Option<Self> {
        let now = tasks.iter().map(|&t| solution.cost_now(t)).sum::<i64>();
        let (cost, seats) = seats.best(now + allowance_microcny, looks)?;
        Some(Self { seats, nodes, delta_microcny: cost - now })
    }
}
