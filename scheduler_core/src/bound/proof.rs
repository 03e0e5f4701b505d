//! What is proved of a table: first the charges climb for all solutions together, then case by case.

use super::ascent::Ascent;
use super::cases::{Cases, Solved};
use super::knapsack::Knapsacks;
use super::{Prices, CHARGE_SHIFT, PRICE_SHIFT};
use crate::assignment::problem::{Problem, REFUSED};

/// Steps without gain after which they become half as long, and how short they may become.
const PATIENCE: u32 = 20;
const SHORTEST: f64 = 1.0 / 256.0;

/// A proof, as far as it has come.
pub struct Proof {
    knapsacks: Knapsacks,
    ascent: Ascent,
    /// None while the charges climb.
    cases: Option<Cases>,
    /// Cells that have been granted and not been looked at yet.
    cells: i64,
    is_done: bool,
}

impl Proof {
    /// None where the problem is no table, or one with nodes or numbers that are too large. The charges
    /// start where these prices of capacities would have them.
    pub fn of(problem: &Problem, prices: &Prices) -> Option<Self> {
        let knapsacks = Knapsacks::of(problem)?;
        let most = knapsacks.most();
        let width = problem.columns.len();
        let least = |t: usize| {
            let adjusted = (0..width as u32).filter(|&c| problem.cost(t as u32, c) != REFUSED).map(|c| {
                let class = problem.columns[c as usize].class;
                let price = prices.of_class[class as usize][0] as f64 / f64::from(1 << PRICE_SHIFT);
                let weight = problem.weight(t as u32, c)[0] as f64;
                (problem.cost(t as u32, c) as f64 + price * weight) * f64::from(1 << CHARGE_SHIFT)
            });
            adjusted.fold(most[t], f64::min)
        };
        let charges: Vec<f64> = (0..most.len()).map(least).collect();
        Some(Self { ascent: Ascent::new(charges, 1.0, PATIENCE), knapsacks, cases: None, cells: 0, is_done: false })
    }

    /// What each task is charged at best, in 2^CHARGE_SHIFT parts.
    pub fn best_charges(&self) -> &[f64] {
        &self.ascent.best_charges
    }

    /// No solution costs less.
    pub fn bound_microcny(&self) -> i128 {
        let value = self.cases.as_ref().map_or(self.ascent.best, Cases::value).max(self.ascent.best);
        // Costs are whole, so a part counts as one.
        -((-i128::from(value)) >> CHARGE_SHIFT)
    }

    /// Goes on for about so many cells of knapsacks, while `goes_on` says yes, which is asked before every
    /// knapsack. Some solution costs `known_microcny`; one that costs less may be found.
    pub fn climb(
        &mut self,
        known_microcny: i128,
        cells: u64,
        threads: usize,
        goes_on: &(dyn Fn() -> bool + Sync),
    ) -> Option<Solved> {
        let known = i64::try_from(known_microcny << CHARGE_SHIFT).unwrap_or(i64::MAX);
        self.cells += cells as i64;
        while self.cells > 0 && !self.is_done {
            if let Some(cases) = &mut self.cases {
                let (cells, solved) = cases.look(&self.knapsacks, known, threads, goes_on)?;
                self.cells -= cells as i64;
                self.is_done = cases.is_too_large();
                if solved.as_ref().is_some_and(|solved| solved.cost < known) {
                    return solved;
                }
            } else {
                let taken = self.knapsacks.take(&self.ascent.charges(), threads, goes_on)?;
                self.cells -= self.knapsacks.cells() as i64;
                self.ascent.step(taken.value, &taken.slope, known, self.knapsacks.most());
                if self.ascent.length < SHORTEST || taken.slope.iter().all(|&slope| slope == 0) {
                    let cases = Cases::new(&self.knapsacks, self.ascent.best, &self.ascent.best_charges);
                    self.is_done = cases.is_too_large();
                    self.cases = Some(cases);
                    // The rest was granted to the charges, and a search that comes first leaves less to split.
                    self.cells = 0;
                }
            }
            self.is_done |= self.bound_microcny() >= known_microcny;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::assignment::problem::{Class, Column, Kind, Node, Task, Weights, DIMS, NONE};

    /// What leaving a task out counts as here: little, so that it happens.
    const LEFT_OUT: i64 = 60;

    fn table(pairs: &[Vec<(i64, i64)>], capacities: &[i64]) -> Problem {
        let nodes = capacities.len() as u32;
        let free = |capacity: i64| std::array::from_fn(|d| if d == 0 { capacity } else { 0 });
        let node = |(class, &capacity): (u32, &i64)| Node { class, free: free(capacity), devices: 0..0 };
        Problem {
            kinds: vec![Kind::default(); pairs.len()],
            columns: (0..nodes).map(|class| Column { class, model: NONE, device_dim: NONE }).collect(),
            classes: (0..nodes).map(|i| Class { site: i, columns: i..i + 1, nodes: i..i + 1 }).collect(),
            nodes: (0..).zip(capacities).map(node).collect(),
            tasks: (0..pairs.len() as u32)
                .map(|kind| Task { kind, unplaced_microcny: LEFT_OUT, ..Task::default() })
                .collect(),
            cost: pairs.iter().flatten().map(|pair| if pair.0 < 50 { pair.0 } else { REFUSED }).collect(),
            weights: Weights::OfPair(pairs.iter().flatten().map(|pair| pair.1).collect()),
            ..Problem::default()
        }
    }

    fn proof(problem: &Problem) -> Proof {
        Proof::of(problem, &Prices { of_class: vec![[0; DIMS]; problem.nodes.len()] }).unwrap()
    }

    /// The least cost, by trying everything.
    fn least(pairs: &[Vec<(i64, i64)>], free: &mut [i64]) -> i64 {
        let Some((task, rest)) = pairs.split_first() else { return 0 };
        let mut best = LEFT_OUT + least(rest, free);
        for (n, &(cost, weight)) in task.iter().enumerate() {
            if cost < 50 && weight <= free[n] {
                free[n] -= weight;
                best = best.min(cost + least(rest, free));
                free[n] += weight;
            }
        }
        best
    }

    fn tables() -> impl Strategy<Value = (Vec<Vec<(i64, i64)>>, Vec<i64>)> {
        (1_usize..4, 1_usize..8).prop_flat_map(|(nodes, tasks)| {
            let pairs = prop::collection::vec((0_i64..56, 0_i64..10), nodes);
            (prop::collection::vec(pairs, tasks), prop::collection::vec(0_i64..24, nodes))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        #[test]
        fn cases_prove_no_more_than_the_optimum_and_in_the_end_all_of_it((pairs, capacities) in tables(), above in 0_i64..40) {
            let problem = table(&pairs, &capacities);
            let optimum = least(&pairs, &mut capacities.clone());
            let mut known = (optimum + above).min(LEFT_OUT * pairs.len() as i64);
            let mut proof = proof(&problem);
            let mut rounds = 0;
            while !proof.is_done {
                let solved = proof.climb(known.into(), 1 << 10, 1, &|| true);
                let bound = proof.bound_microcny();
                prop_assert!(bound <= optimum.into(), "{} proved, {} possible", bound, optimum);
                if let Some(solved) = solved {
                    let mut free = capacities.clone();
                    let cost_at = |(task, &place): (usize, &u32)| match pairs[task].get(place as usize) {
                        None => LEFT_OUT,
                        Some(&(cost, weight)) => {
                            free[place as usize] -= weight;
                            cost
                        }
                    };
                    let cost: i64 = solved.places.iter().enumerate().map(cost_at).sum();
                    prop_assert!(free.iter().all(|&free| free >= 0));
                    prop_assert_eq!(cost << CHARGE_SHIFT, solved.cost);
                    prop_assert!(cost < known);
                    known = cost;
                }
                rounds += 1;
                prop_assert!(rounds < 100_000, "does not end");
            }
            prop_assert_eq!((i128::from(known), proof.bound_microcny()), (optimum.into(), optimum.into()));
        }

        #[test]
        fn what_is_proved_does_not_depend_on_the_threads((pairs, capacities) in tables()) {
            let problem = table(&pairs, &capacities);
            let known = i128::from(LEFT_OUT) * pairs.len() as i128;
            let [one, many] = [1, 5].map(|threads| {
                let mut proof = proof(&problem);
                let of_round = |_| {
                    let solved = proof.climb(known, 1 << 10, threads, &|| true);
                    (proof.bound_microcny(), solved.map(|solved| solved.places))
                };
                (0..20).map(of_round).collect::<Vec<_>>()
            });
            prop_assert_eq!(one, many);
        }
    }
}
